//! The relay working off a backlog, against raw publishing of the same messages and against the relays that applications
//! write by hand.
//!
//! All are timed by the stream itself: from the first message's timestamp to the last one's. So neither the relay's start
//! nor a client's wait for the last acknowledgement counts. Each goes to a stream of its own with the same settings, on the
//! same nats-server; the relay does not run while something is published raw.

use std::time::{Duration, Instant};

use async_nats::jetstream;
use harness::{EVENTS, Stage, until_some};
use serde_json::{Map, Value, json};

use crate::conventional;
use crate::figures::{Series, whole};
use crate::plot::{Bar, Panel, Scale};
use crate::raw::{self, Template};
use crate::report::{Measured, Row};
use crate::workload::{self, PAYLOAD_BYTES};
use crate::{Options, Outcome, say};

/// Events of one transaction.
const TRANSACTION: u32 = 1000;
/// An SQL expression for the number of the order that event `i` is about.
pub const NUMBER: &str = "(100000 + i % 900000)";

const PATIENCE: Duration = Duration::from_secs(60);

/// Who publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arm {
    Raw(raw::Form),
    /// With the four headers that a message cannot do without.
    RawFour(raw::Form),
    /// With every message naming the sequence that it expects: the order is strict.
    Relay,
    /// The same with `metadata => 'cloudevents'`.
    RelayCloudEvents,
    /// The same with `metadata => 'full'`.
    RelayFull,
    /// With transactions of this many events, each published as one atomic batch.
    RelayAtomic(u32),
    /// On a stream that somebody else publishes to as well: without expected sequences.
    RelayShared,
    Conventional(conventional::Form),
}

impl Arm {
    const ALL: [Self; 13] = [
        Self::Raw(raw::Form::SendPublish),
        Self::Raw(raw::Form::OneInbox),
        Self::RawFour(raw::Form::SendPublish),
        Self::RawFour(raw::Form::OneInbox),
        Self::Relay,
        Self::RelayCloudEvents,
        Self::RelayFull,
        Self::RelayAtomic(1),
        Self::RelayAtomic(10),
        Self::RelayAtomic(100),
        Self::RelayShared,
        Self::Conventional(conventional::Form::OneAckAtATime),
        Self::Conventional(conventional::Form::Pipelined),
    ];

    const fn label(self) -> &'static str {
        match self {
            Self::Raw(form) => form.label(),
            Self::RawFour(raw::Form::SendPublish) => "raw, send_publish, four headers",
            Self::RawFour(raw::Form::OneInbox) => "raw, one inbox, four headers",
            Self::RelayCloudEvents => "relay, metadata cloudevents",
            Self::RelayFull => "relay, metadata full",
            Self::Relay => "relay, strict order",
            Self::RelayAtomic(1) => "relay, atomic, transactions of 1",
            Self::RelayAtomic(10) => "relay, atomic, transactions of 10",
            Self::RelayAtomic(_) => "relay, atomic, transactions of 100",
            Self::RelayShared => "relay, shared stream",
            Self::Conventional(form) => form.label(),
        }
    }

    const fn key(self) -> &'static str {
        match self {
            Self::Raw(form) => form.key(),
            Self::RawFour(raw::Form::SendPublish) => "raw_four_send_publish",
            Self::RawFour(raw::Form::OneInbox) => "raw_four_one_inbox",
            Self::RelayCloudEvents => "relay_cloudevents",
            Self::RelayFull => "relay_full",
            Self::Relay => "relay",
            Self::RelayAtomic(1) => "relay_atomic_1",
            Self::RelayAtomic(10) => "relay_atomic_10",
            Self::RelayAtomic(_) => "relay_atomic_100",
            Self::RelayShared => "relay_shared",
            Self::Conventional(form) => form.key(),
        }
    }

    /// Messages per run where the others have `count`: the slow ones are not waited for that long.
    fn count(self, count: u32) -> u32 {
        let slow = matches!(self, Self::RelayAtomic(_) | Self::Conventional(conventional::Form::OneAckAtATime));
        if slow { (count / 10).max(2) } else { count }
    }
}

/// Messages per second of each arm, and what else was seen.
#[derive(Default)]
struct Found {
    rates: [Series; Arm::ALL.len()],
    emit: Series,
    /// Milliseconds from `start()` to the first event stored.
    first: Series,
    /// Bytes of a message in the stream beside its payload.
    beside: [Series; LABELS.len()],
}

/// Values of the setting `metadata`; the first is the default.
const LABELS: [&str; 3] = ["minimal", "cloudevents", "full"];

/// # Errors
/// When something breaks, an event that does not arrive for instance.
pub async fn measure(options: &Options) -> Outcome<Measured> {
    let stage = workload::stage("drain").await;
    let versions = workload::versions(&stage).await?;
    let template = prepare(&stage).await?;
    let mut found = Found::default();
    for repetition in 0..=options.repetitions {
        let warm_up = repetition == 0;
        let events = options.drain_events;
        let count = if warm_up { (events / 5).max(2) } else { events };
        let title = if warm_up { "warm-up".into() } else { format!("{repetition} of {}", options.repetitions) };
        // Each comes first, second, … in turn.
        for turn in 0..Arm::ALL.len() {
            let index = (turn + repetition as usize) % Arm::ALL.len();
            let arm = Arm::ALL[index];
            let rate = found.run(&stage, arm, &template, arm.count(count), options.in_flight, warm_up).await?;
            say(format!("drain, {title}: {}: {} messages/s", arm.label(), whole(rate)));
            if !warm_up {
                found.rates[index].push(rate);
            }
        }
    }
    Ok(found.measured(options, &template, &versions))
}

impl Found {
    /// Returns messages per second.
    async fn run(
        &mut self,
        stage: &Stage,
        arm: Arm,
        template: &Template,
        count: u32,
        in_flight: usize,
        warm_up: bool,
    ) -> Outcome<f64> {
        match arm {
            Arm::Raw(form) => publish_raw(stage, form, template, count, in_flight).await,
            Arm::RawFour(form) => publish_raw(stage, form, &template.with_four_headers(), count, in_flight).await,
            Arm::RelayCloudEvents => self.drain_labelled(stage, 1, count).await,
            Arm::RelayFull => self.drain_labelled(stage, 2, count).await,
            Arm::Conventional(form) => publish_conventional(stage, form, template, count).await,
            Arm::RelayShared => drain_shared(stage, count).await,
            Arm::RelayAtomic(size) => drain_atomic(stage, count, size).await,
            Arm::Relay => {
                let (drained, beside) = drain_measuring(stage, count).await?;
                self.beside[0].push(beside);
                if !warm_up {
                    self.emit.push(drained.emit_rate);
                    self.first.push(drained.first * 1e3);
                }
                Ok(drained.rate)
            }
        }
    }

    fn of(&self, arm: Arm) -> &Series {
        let index = Arm::ALL.iter().position(|one| *one == arm).unwrap_or(0);
        &self.rates[index]
    }

    /// With another value of `metadata` than the default, that of this place in `LABELS`.
    async fn drain_labelled(&mut self, stage: &Stage, place: usize, count: u32) -> Outcome<f64> {
        set_labels(stage, LABELS[place]).await;
        let (drained, beside) = drain_measuring(stage, count).await?;
        set_labels(stage, LABELS[0]).await;
        self.beside[place].push(beside);
        Ok(drained.rate)
    }

    /// The faster raw form is what the relay is held against.
    fn best_raw(&self, arm: fn(raw::Form) -> Arm) -> Arm {
        let [one, two] = raw::Form::ALL.map(arm);
        if self.of(two).median() > self.of(one).median() { two } else { one }
    }

    fn ratio_row(&self, label: &str, to: Arm) -> Row {
        let (relay, other) = (self.of(Arm::Relay), self.of(to));
        let ratios = relay.over(other);
        let range = format!("{:.2} – {:.2}", ratios.least(), ratios.most());
        Row::new(label, format!("{:.2}", relay.median() / other.median()), range)
    }

    fn rows(&self) -> Vec<Row> {
        let rates = Arm::ALL.iter().map(|arm| Row::rate(arm.label(), self.of(*arm), "/s"));
        let [ack_by_ack, pipelined] = conventional::Form::ALL.map(Arm::Conventional);
        let beside = LABELS.iter().zip(&self.beside).map(|(labels, bytes)| {
            let label = format!("bytes in the stream beside the payload, metadata {labels}");
            let row = Row::new(label, format!("{:.0}", bytes.median()), bytes.range(0, ""));
            if *labels == LABELS[0] { row.expecting("<= 400") } else { row }
        });
        rates
            .chain(beside)
            .chain([
                self.ratio_row("relay / faster raw, same headers", self.best_raw(Arm::Raw)).expecting(">= 0.80"),
                self.ratio_row("relay / faster raw, four headers", self.best_raw(Arm::RawFour)).expecting(">= 0.65"),
                self.ratio_row("minimal / full", Arm::RelayFull),
                self.ratio_row("relay / SKIP LOCKED, ack by ack", ack_by_ack).expecting(">= 5"),
                self.ratio_row("relay / SKIP LOCKED, pipelined", pipelined),
                self.ratio_row("strict order / shared stream", Arm::RelayShared),
                Row::new(
                    "start() to first stored",
                    format!("{:.0} ms", self.first.median()),
                    self.first.range(0, " ms"),
                ),
            ])
            .collect()
    }

    fn measured(&self, options: &Options, template: &Template, versions: &Value) -> Measured {
        let events = whole(options.drain_events.into());
        let best = self.best_raw(Arm::Raw);
        let ratio = self.of(Arm::Relay).median() / self.of(best).median();
        let bar = |arm: &Arm| Bar::of(arm.label(), self.of(*arm), whole(self.of(*arm).median()));
        let panel = Panel {
            title: format!("Draining {events} events of {PAYLOAD_BYTES} bytes: relay / raw = {ratio:.2}"),
            unit: "messages per second, median and range".into(),
            scale: Scale::Linear,
            bars: Arm::ALL.iter().map(bar).collect(),
        };
        let rates: Map<String, Value> =
            Arm::ALL.iter().map(|arm| (arm.key().to_owned(), self.of(*arm).json("messages/s"))).collect();
        let json = json!({
            "events": options.drain_events, "payload_bytes": PAYLOAD_BYTES, "repetitions": options.repetitions,
            "raw_in_flight": options.in_flight, "headers": template.names(), "versions": versions, "rates": rates,
            "raw_reference": best.key(), "ratio": ratio,
            "ratios": self.of(Arm::Relay).over(self.of(best)).json("relay/raw"),
            "four_headers": self.of(Arm::Relay).over(self.of(self.best_raw(Arm::RawFour))).json("relay/raw"),
            "bytes_beside_payload": LABELS.iter().zip(&self.beside).map(|(labels, bytes)| ((*labels).to_owned(), bytes.json("bytes")))
                .collect::<Map<String, Value>>(),
            "start_to_first_stored": self.first.json("ms"), "emit_bulk": self.emit.json("events/s"),
        });
        let title = format!("drain: {events} events of {PAYLOAD_BYTES} bytes, {} raw in flight", options.in_flight);
        Measured { key: "drain", title, rows: self.rows(), panels: vec![panel], json }
    }
}

/// Has the relay make its stream, and makes those of the raw publishers after it. Returns the relay's message.
async fn prepare(stage: &Stage) -> Outcome<Template> {
    let db = stage.connect().await;
    db.run(conventional::OUTBOX).await;
    db.run(&format!("SELECT {}", workload::emit("123456"))).await;
    stage.broker.until_count(EVENTS, 1, Duration::from_secs(30)).await;
    let stored = stage.broker.stored(EVENTS).await;
    let template = Template::of(stored.first().ok_or("the relay's message is not in the stream")?);
    if template.body.len() != PAYLOAD_BYTES {
        return Err(format!("a payload of {PAYLOAD_BYTES} bytes was published as {} bytes", template.body.len()).into());
    }
    let stream = stage.broker.stream(EVENTS).await.ok_or("the relay's stream is gone")?;
    let contexts = raw::Form::ALL.map(raw::Form::context).into_iter();
    for context in contexts.chain(conventional::Form::ALL.map(conventional::Form::context)) {
        let config = jetstream::stream::Config {
            name: context.to_uppercase(),
            subjects: vec![format!("{context}.event.>")],
            ..stream.cached_info().config.clone()
        };
        stage.broker.jetstream().create_stream(config).await?;
    }
    Ok(template)
}

/// Returns messages per second.
async fn publish_raw(
    stage: &Stage,
    form: raw::Form,
    template: &Template,
    count: u32,
    in_flight: usize,
) -> Outcome<f64> {
    workload::stop_relay(stage).await;
    let stream = form.context().to_uppercase();
    let before = last_sequence(stage, &stream).await?;
    let subject = format!("{}.event.order_placed.v1", form.context());
    raw::publish(&stage.broker.url(), form, &subject, template, count, in_flight).await?;
    all_stored(stage, &stream, before, count).await
}

/// Returns messages per second.
async fn publish_conventional(
    stage: &Stage,
    form: conventional::Form,
    template: &Template,
    count: u32,
) -> Outcome<f64> {
    workload::stop_relay(stage).await;
    let db = stage.connect().await;
    db.run("TRUNCATE outbox").await;
    for first in (0..count).step_by(TRANSACTION as usize) {
        db.run(&conventional::insert(first, count.min(first + TRANSACTION) - 1)).await;
    }
    db.run("VACUUM ANALYZE outbox").await;
    db.run("CHECKPOINT").await;
    let stream = form.context().to_uppercase();
    let before = last_sequence(stage, &stream).await?;
    let subject = format!("{}.event.order_placed.v1", form.context());
    conventional::relay(&stage.connector(), &stage.broker.url(), form, &subject, template).await?;
    all_stored(stage, &stream, before, count).await
}

/// Messages per second of the `count` messages behind `before`, which must be all there are.
async fn all_stored(stage: &Stage, stream: &str, before: u64, count: u32) -> Outcome<f64> {
    let after = last_sequence(stage, stream).await?;
    if after != before + u64::from(count) {
        return Err(format!("{count} messages were published and {} stored", after - before).into());
    }
    Ok(rate(stage, stream, before + 1, after).await?.0)
}

/// One backlog worked off.
pub struct Drained {
    /// Events per second, between the first and the last.
    pub rate: f64,
    /// Events per second that went into the log, by one session.
    pub emit_rate: f64,
    /// Seconds from `start()` to the first event stored.
    pub first: f64,
}

/// Emits `count` events while the relay is stopped, starts it and waits until all are stored.
///
/// # Errors
/// When one is lost or doubled.
pub async fn drain(stage: &Stage, count: u32) -> Outcome<Drained> {
    drain_of(stage, count, &workload::emit(NUMBER)).await
}

async fn set_labels(stage: &Stage, labels: &str) {
    stage.connect().await.run(&format!("SELECT sea_mq.alter_stream('{EVENTS}', metadata => '{labels}')")).await;
}

/// The same, and the bytes of a message in the stream beside its payload.
async fn drain_measuring(stage: &Stage, count: u32) -> Outcome<(Drained, f64)> {
    let before = stream_bytes(stage).await?;
    let drained = drain(stage, count).await?;
    let bytes = stream_bytes(stage).await?.saturating_sub(before);
    Ok((drained, bytes as f64 / f64::from(count) - PAYLOAD_BYTES as f64))
}

async fn stream_bytes(stage: &Stage) -> Outcome<u64> {
    let stream = stage.broker.stream(EVENTS).await.ok_or("the relay's stream is gone")?;
    Ok(stream.cached_info().state.bytes)
}

/// The same with events that the expression `emit` emits, about the order [`NUMBER`].
///
/// # Errors
/// As [`drain`].
pub async fn drain_of(stage: &Stage, count: u32, emit: &str) -> Outcome<Drained> {
    drain_transactions(stage, count, TRANSACTION, emit).await
}

async fn drain_transactions(stage: &Stage, count: u32, size: u32, emit: &str) -> Outcome<Drained> {
    let (before, emit_rate) = fill(stage, count, size, emit).await?;
    let start = crate::now();
    stage.connect().await.run("SELECT sea_mq.start()").await;
    let wanted = before + u64::from(count);
    until_drained(stage, wanted, count).await?;
    let (rate, first) = rate(stage, EVENTS, before + 1, wanted).await?;
    Ok(Drained { rate, emit_rate, first: (first - start) as f64 / 1e6 })
}

/// The same with transactions of `size` events, each an atomic batch. Returns messages per second.
async fn drain_atomic(stage: &Stage, count: u32, size: u32) -> Outcome<f64> {
    let db = stage.connect().await;
    db.run(&format!("SELECT sea_mq.alter_stream('{EVENTS}', atomic_transactions => true)")).await;
    let drained = drain_transactions(stage, count, size, &workload::emit(NUMBER)).await?;
    let split: i64 = db.value("SELECT not_atomic FROM sea_mq.stream_status WHERE stream = $1", &[&EVENTS]).await;
    if split > 0 {
        return Err(format!("{split} transactions were not published as one").into());
    }
    db.run(&format!("SELECT sea_mq.alter_stream('{EVENTS}', atomic_transactions => false)")).await;
    Ok(drained.rate)
}

/// The same with a message of somebody else in between, after which the relay names no expected sequences until it is
/// started anew. Returns messages per second of the second half.
async fn drain_shared(stage: &Stage, count: u32) -> Outcome<f64> {
    let (before, _) = fill(stage, count, TRANSACTION, &workload::emit(NUMBER)).await?;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.start()").await;
    until_some("the relay publishes", PATIENCE, async || {
        (last_sequence(stage, EVENTS).await.ok()? > before).then_some(())
    })
    .await;
    stage.broker.jetstream().publish("orders.event.foreign.v1", "{}".into()).await?.await?;
    let wanted = before + u64::from(count) + 1;
    until_drained(stage, wanted, count).await?;
    let ordering: String = db.value("SELECT ordering FROM sea_mq.stream_status WHERE stream = $1", &[&EVENTS]).await;
    if ordering != "shared" {
        return Err(format!("the stream's ordering is {ordering} though somebody else published").into());
    }
    Ok(rate(stage, EVENTS, before + u64::from(count / 2), wanted).await?.0)
}

/// Emits in transactions of `size` events while the relay is stopped. Returns the stream's last sequence and the events
/// emitted in a second.
async fn fill(stage: &Stage, count: u32, size: u32, emit: &str) -> Outcome<(u64, f64)> {
    workload::stop_relay(stage).await;
    let before = last_sequence(stage, EVENTS).await?;
    let db = stage.connect().await;
    let begin = Instant::now();
    for first in (0..count).step_by(size as usize) {
        let last = count.min(first + size) - 1;
        db.run(&format!("SELECT count({emit}) FROM generate_series({first}, {last}) AS i")).await;
    }
    let emit_rate = f64::from(count) / begin.elapsed().as_secs_f64();
    // Otherwise one may be written while the relay is timed.
    db.run("CHECKPOINT").await;
    if last_sequence(stage, EVENTS).await? != before {
        return Err("events arrived while the relay was stopped".into());
    }
    Ok((before, emit_rate))
}

/// Waits until the stream has come to `wanted`, and the cursor's last save with it; then nothing more may come.
async fn until_drained(stage: &Stage, wanted: u64, count: u32) -> Outcome<()> {
    let db = stage.connect().await;
    let limit = PATIENCE + Duration::from_millis(count.into());
    until_some("the backlog is drained", limit, async || {
        (last_sequence(stage, EVENTS).await.ok()? >= wanted).then_some(())
    })
    .await;
    harness::until("the relay has saved its cursor", limit, async || workload::is_drained(&db).await).await;
    let after = last_sequence(stage, EVENTS).await?;
    if after != wanted {
        return Err(format!("{wanted} messages are expected in the stream, and there are {after}").into());
    }
    Ok(())
}

async fn last_sequence(stage: &Stage, stream: &str) -> Outcome<u64> {
    let stream = stage.broker.stream(stream).await.ok_or_else(|| format!("there is no stream {stream}"))?;
    Ok(stream.cached_info().state.last_sequence)
}

/// Messages per second from the message `first` to `last`, and when the first was stored (microseconds since 1970).
async fn rate(stage: &Stage, stream: &str, first: u64, last: u64) -> Outcome<(f64, i64)> {
    let stream = stage.broker.stream(stream).await.ok_or_else(|| format!("there is no stream {stream}"))?;
    let begin = stream.get_raw_message(first).await?.time.unix_timestamp_nanos();
    let end = stream.get_raw_message(last).await?.time.unix_timestamp_nanos();
    let seconds = (end - begin).max(1) as f64 / 1e9;
    Ok(((last - first) as f64 / seconds, i64::try_from(begin / 1000)?))
}
