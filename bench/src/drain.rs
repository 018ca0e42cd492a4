//! The relay working off a backlog, against raw publishing of the same messages.
//!
//! All are timed by the stream itself: from the first message's timestamp to the last one's. So neither the relay's start
//! nor a client's wait for the last acknowledgement counts. Each goes to a stream of its own with the same settings, on the
//! same nats-server; the relay does not run while something is published raw.

use std::time::{Duration, Instant};

use async_nats::jetstream;
use harness::{EVENTS, Stage, until_some};
use serde_json::json;

use crate::figures::{Series, whole};
use crate::plot::{Bar, Panel, Scale};
use crate::raw::{self, Form, Template};
use crate::report::{Measured, Row};
use crate::workload::{self, PAYLOAD_BYTES};
use crate::{Options, Outcome, say};

/// Events of one transaction.
const TRANSACTION: u32 = 1000;

/// # Errors
/// When something breaks, an event that does not arrive for instance.
pub async fn measure(options: &Options) -> Outcome<Measured> {
    let stage = workload::stage("drain").await;
    let versions = workload::versions(&stage).await?;
    let template = prepare(&stage).await?;
    let events = options.drain_events;

    let mut raw = [Series::default(), Series::default()];
    let (mut relay, mut emit, mut first) = (Series::default(), Series::default(), Series::default());
    for repetition in 0..=options.repetitions {
        let warm_up = repetition == 0;
        let count = if warm_up { (events / 5).max(2) } else { events };
        let title = if warm_up { "warm-up".into() } else { format!("{repetition} of {}", options.repetitions) };
        // Each comes first, second and last in turn.
        for turn in 0..3 {
            let arm = ((turn + repetition) % 3) as usize;
            if let Some(form) = Form::ALL.get(arm) {
                let rate = publish_raw(&stage, *form, &template, count, options.in_flight).await?;
                say(format!("drain, {title}: {}: {} messages/s", form.label(), whole(rate)));
                if !warm_up {
                    raw[arm].push(rate);
                }
            } else {
                let drained = drain(&stage, count).await?;
                let (rate, emitted) = (whole(drained.rate), whole(drained.emit_rate));
                say(format!("drain, {title}: relay: {rate} events/s (emitted at {emitted} events/s)"));
                if !warm_up {
                    relay.push(drained.rate);
                    emit.push(drained.emit_rate);
                    first.push(drained.first * 1e3);
                }
            }
        }
    }

    // The faster form is what the relay is held against.
    let best = if raw[1].median() > raw[0].median() { 1 } else { 0 };
    let ratio = relay.median() / raw[best].median();
    let ratios = relay.over(&raw[best]);
    let rate = |label: &str, series: &Series| Row::rate(label, series, "/s");
    let rows = vec![
        rate(&format!("{}, msgs", Form::ALL[0].label()), &raw[0]),
        rate(&format!("{}, msgs", Form::ALL[1].label()), &raw[1]),
        rate("relay, events", &relay),
        Row::new("relay / faster raw", format!("{ratio:.2}"), format!("{:.2} – {:.2}", ratios.least(), ratios.most()))
            .expecting(">= 0.40"),
        Row::new("start() to first stored", format!("{:.0} ms", first.median()), first.range(0, " ms")),
    ];
    let bar = |label: &str, series: &Series| Bar::of(label, series, whole(series.median()));
    let panel = Panel {
        title: format!("Draining {} events of {PAYLOAD_BYTES} bytes: relay / raw = {ratio:.2}", whole(events.into())),
        unit: "messages per second, median and range".into(),
        scale: Scale::Linear,
        bars: vec![bar(Form::ALL[0].label(), &raw[0]), bar(Form::ALL[1].label(), &raw[1]), bar("relay", &relay)],
    };
    let json = json!({
        "events": events, "payload_bytes": PAYLOAD_BYTES, "repetitions": options.repetitions,
        "raw_in_flight": options.in_flight, "headers": template.names(), "versions": versions,
        Form::ALL[0].key(): raw[0].json("messages/s"), Form::ALL[1].key(): raw[1].json("messages/s"),
        "relay": relay.json("events/s"), "raw_reference": Form::ALL[best].key(),
        "ratio": ratio, "ratios": ratios.json("relay/raw"),
        "start_to_first_stored": first.json("ms"), "emit_bulk": emit.json("events/s"),
    });
    let title =
        format!("drain: {} events of {PAYLOAD_BYTES} bytes, {} raw in flight", whole(events.into()), options.in_flight);
    Ok(Measured { key: "drain", title, rows, panels: vec![panel], json })
}

/// Has the relay make its stream, and makes those of the raw publishers after it. Returns the relay's message.
async fn prepare(stage: &Stage) -> Outcome<Template> {
    let db = stage.connect().await;
    db.run(&format!("SELECT {}", workload::emit("123456"))).await;
    stage.broker.until_count(EVENTS, 1, Duration::from_secs(30)).await;
    let stored = stage.broker.stored(EVENTS).await;
    let template = Template::of(stored.first().ok_or("the relay's message is not in the stream")?);
    if template.body.len() != PAYLOAD_BYTES {
        return Err(format!("a payload of {PAYLOAD_BYTES} bytes was published as {} bytes", template.body.len()).into());
    }
    let stream = stage.broker.stream(EVENTS).await.ok_or("the relay's stream is gone")?;
    for form in Form::ALL {
        let config = jetstream::stream::Config {
            name: form.context().to_uppercase(),
            subjects: vec![format!("{}.event.>", form.context())],
            ..stream.cached_info().config.clone()
        };
        stage.broker.jetstream().create_stream(config).await?;
    }
    Ok(template)
}

/// Returns messages per second.
async fn publish_raw(stage: &Stage, form: Form, template: &Template, count: u32, in_flight: usize) -> Outcome<f64> {
    workload::stop_relay(stage).await;
    let stream = form.context().to_uppercase();
    let before = last_sequence(stage, &stream).await?;
    let subject = format!("{}.event.order_placed.v1", form.context());
    raw::publish(&stage.broker.url(), form, &subject, template, count, in_flight).await?;
    let after = last_sequence(stage, &stream).await?;
    if after != before + u64::from(count) {
        return Err(format!("{count} messages were published and {} stored", after - before).into());
    }
    Ok(rate(stage, &stream, before, count).await?.0)
}

/// One backlog worked off.
struct Drained {
    /// Events per second, between the first and the last.
    rate: f64,
    /// Events per second that went into the log, by one session.
    emit_rate: f64,
    /// Seconds from `start()` to the first event stored.
    first: f64,
}

async fn drain(stage: &Stage, count: u32) -> Outcome<Drained> {
    workload::stop_relay(stage).await;
    let before = last_sequence(stage, EVENTS).await?;
    let db = stage.connect().await;
    let begin = Instant::now();
    for first in (0..count).step_by(TRANSACTION as usize) {
        let last = count.min(first + TRANSACTION) - 1;
        let emit = workload::emit("(100000 + i % 900000)");
        db.run(&format!("SELECT count({emit}) FROM generate_series({first}, {last}) AS i")).await;
    }
    let emit_rate = f64::from(count) / begin.elapsed().as_secs_f64();
    // Otherwise one may be written while the relay is timed.
    db.run("CHECKPOINT").await;
    if last_sequence(stage, EVENTS).await? != before {
        return Err("events arrived while the relay was stopped".into());
    }

    let start = crate::now();
    db.run("SELECT sea_mq.start()").await;
    let wanted = before + u64::from(count);
    let limit = Duration::from_secs(60) + Duration::from_millis(count.into());
    until_some("the backlog is drained", limit, async || {
        (last_sequence(stage, EVENTS).await.ok()? >= wanted).then_some(())
    })
    .await;
    // The cursor's last save belongs to this repetition, and nothing is published twice.
    harness::until("the relay has saved its cursor", limit, async || workload::is_drained(&db).await).await;
    let after = last_sequence(stage, EVENTS).await?;
    if after != wanted {
        return Err(format!("{count} events were emitted and {} stored", after - before).into());
    }
    let (rate, first) = rate(stage, EVENTS, before, count).await?;
    Ok(Drained { rate, emit_rate, first: (first - start) as f64 / 1e6 })
}

async fn last_sequence(stage: &Stage, stream: &str) -> Outcome<u64> {
    let stream = stage.broker.stream(stream).await.ok_or_else(|| format!("there is no stream {stream}"))?;
    Ok(stream.cached_info().state.last_sequence)
}

/// Messages per second of the `count` messages after sequence `before`, and when the first was stored (microseconds
/// since 1970).
async fn rate(stage: &Stage, stream: &str, before: u64, count: u32) -> Outcome<(f64, i64)> {
    let stream = stage.broker.stream(stream).await.ok_or_else(|| format!("there is no stream {stream}"))?;
    let first = stream.get_raw_message(before + 1).await?.time.unix_timestamp_nanos();
    let last = stream.get_raw_message(before + u64::from(count)).await?.time.unix_timestamp_nanos();
    let seconds = (last - first).max(1) as f64 / 1e9;
    Ok((f64::from(count - 1) / seconds, i64::try_from(first / 1000)?))
}
