//! From the return of COMMIT to the message in the stream, at a fixed rate of events.
//!
//! The stream's timestamps and the clients' clock are the same machine's. A message can be stored before its session has
//! heard of the commit: then its latency is below zero, and is reported so.
//!
//! Beside it, the floor: what the ingredients cost, measured one at a time at the same pace, between the segments of the
//! run. A notification from one session to another (a PostgreSQL process waking another one, and the news reaching a
//! client), and a publish with its acknowledgement.

use std::collections::HashMap;
use std::future::poll_fn;
use std::time::{Duration, Instant};

use async_nats::jetstream;
use futures_util::StreamExt;
use harness::{Connector, EVENTS, Stage};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, NoTls};
use uuid::Uuid;

use crate::figures::Series;
use crate::handled;
use crate::pace::{self, SESSIONS, Sent, milliseconds};
use crate::plot::{Bar, Panel, Scale};
use crate::raw::Template;
use crate::report::{Measured, Row};
use crate::workload;
use crate::{Options, Outcome, now, say};

/// Pieces of a run, with the floor measured before, between and after them.
pub const SEGMENTS: u32 = 3;
/// How many of the slowest events the JSON tells about.
pub const SLOWEST: usize = 10;

/// # Errors
/// When something breaks, an event that does not arrive for instance.
pub async fn measure(options: &Options) -> Outcome<Measured> {
    let stage = workload::stage("latency").await;
    let versions = workload::versions(&stage).await?;
    let db = stage.connect().await;
    db.run(workload::ORDERS).await;
    stage.until_connected().await;

    let (mut rows, mut panels, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    for rate in &options.rates {
        say(format!("latency at {rate}/s: warm-up"));
        run_segment(&stage, *rate, pace::warm_up(*rate, options.latency_events(*rate))).await?;
        let found = at_rate(&stage, *rate, options.latency_events(*rate)).await?;
        rows.extend(found.rows(*rate));
        panels.push(found.panel(*rate));
        rates.push(found.json(*rate));
    }
    drop((db, stage));
    let (more_rows, more_panels, handled) = handled::measure(options).await?;
    rows.extend(more_rows);
    panels.extend(more_panels);
    let json = json!({
        "sessions": SESSIONS, "segments": SEGMENTS, "versions": versions, "rates": rates, "handled": handled,
    });
    let title =
        format!("latency: an event a transaction, {} s at each rate, {SESSIONS} sessions", options.latency_seconds);
    Ok(Measured { key: "latency", title, rows, panels, json })
}

/// One event, all times in microseconds since 1970.
#[derive(Clone, Copy, Debug)]
struct Event {
    sent: Sent,
    stored: i64,
    /// At a plain subscriber.
    arrived: i64,
}

/// What was measured at one rate; series in milliseconds.
#[derive(Default)]
struct Found {
    events: Vec<Event>,
    /// p50 and p99 of each segment.
    p50: Series,
    p99: Series,
    notify: Series,
    publish: Series,
}

async fn at_rate(stage: &Stage, rate: u32, events: u32) -> Outcome<Found> {
    let mut found = Found::default();
    let floor_samples = (events / 10).max(10);
    for segment in 1..=SEGMENTS {
        found.measure_floor(stage, rate, floor_samples).await?;
        let measured = run_segment(stage, rate, events / SEGMENTS).await?;
        let latencies: Series = measured.iter().map(Event::after_return).collect();
        let (p50, p99) = (latencies.at(0.5), latencies.at(0.99));
        say(format!("latency at {rate}/s, {segment} of {SEGMENTS}: p50 {p50:.2} ms, p99 {p99:.2} ms"));
        found.p50.push(p50);
        found.p99.push(p99);
        found.events.extend(measured);
    }
    found.measure_floor(stage, rate, floor_samples).await?;
    Ok(found)
}

impl Event {
    /// Milliseconds from the return of COMMIT to the message in the stream.
    fn after_return(&self) -> f64 {
        milliseconds(self.sent.commit_returned, self.stored)
    }
}

impl Found {
    async fn measure_floor(&mut self, stage: &Stage, rate: u32, samples: u32) -> Outcome<()> {
        let pace = Duration::from_secs(1) / rate;
        self.notify.values.extend(notifications(&stage.connector(), stage, pace, samples).await?.values);
        self.publish.values.extend(publishes(stage, pace, samples).await?.values);
        Ok(())
    }

    fn series(&self, of: impl Fn(&Event) -> f64) -> Series {
        self.events.iter().map(of).collect()
    }

    fn after_return(&self) -> Series {
        self.series(Event::after_return)
    }

    /// Milliseconds.
    fn floor(&self) -> f64 {
        self.notify.median() + self.publish.median()
    }

    fn arrival(&self) -> Series {
        self.series(|event| milliseconds(event.sent.commit_returned, event.arrived))
    }

    fn after_send(&self) -> Series {
        self.series(|event| milliseconds(event.sent.commit_sent, event.stored))
    }

    fn commit(&self) -> Series {
        self.series(|event| milliseconds(event.sent.commit_sent, event.sent.commit_returned))
    }

    fn rows(&self, rate: u32) -> Vec<Row> {
        let all = self.after_return();
        let ms = |value: f64| format!("{value:.2} ms");
        let row = |figure: String, value: f64, range: String| Row::new(figure, ms(value), range);
        let p50 = row(format!("{rate}/s: COMMIT returned to stored, p50"), all.median(), self.p50.range(2, " ms"));
        let p99 = row(format!("{rate}/s: … p99"), all.at(0.99), self.p99.range(2, " ms"));
        vec![
            if rate == 1000 { p50.expecting("<= 1.5 of the floor") } else { p50 },
            if rate == 1000 { p99.expecting("< 10 ms") } else { p99 },
            row(format!("{rate}/s: … max"), all.most(), String::new()),
            row(format!("{rate}/s: … to a subscriber, p50"), self.arrival().median(), String::new()),
            row(format!("{rate}/s: COMMIT sent to stored, p50"), self.after_send().median(), String::new()),
            row(format!("{rate}/s: COMMIT itself, p50"), self.commit().median(), String::new()),
            row(
                format!("{rate}/s: floor, NOTIFY + publish, p50s"),
                self.floor(),
                format!("{:.2} + {:.2} ms", self.notify.median(), self.publish.median()),
            ),
            Row::new(
                format!("{rate}/s: stored, p50 / floor"),
                format!("{:.2}", all.median() / self.floor()),
                String::new(),
            ),
            // How restless the machine was: the tail of the ingredients belongs to nobody's code here.
            row(
                format!("{rate}/s: floor, NOTIFY + publish, p99s"),
                self.notify.at(0.99) + self.publish.at(0.99),
                format!("{:.2} + {:.2} ms", self.notify.at(0.99), self.publish.at(0.99)),
            ),
        ]
    }

    fn panel(&self, rate: u32) -> Panel {
        let (all, arrival) = (self.after_return(), self.arrival());
        let bar = |label: &str, value: f64, range: (f64, f64)| {
            let text = if value < 10.0 { format!("{value:.2} ms") } else { format!("{value:.1} ms") };
            Bar { label: label.into(), value, least: range.0, most: range.1, text }
        };
        let single = |label: &str, value: f64| bar(label, value, (value, value));
        Panel {
            title: format!("Latency at {rate} events/s: from the return of COMMIT"),
            unit: format!("milliseconds, logarithmic; ranges over {SEGMENTS} segments"),
            scale: Scale::Logarithmic,
            bars: vec![
                bar("stored, p50", all.median(), (self.p50.least(), self.p50.most())),
                bar("stored, p99", all.at(0.99), (self.p99.least(), self.p99.most())),
                single("stored, max", all.most()),
                single("at a subscriber, p50", arrival.median()),
                single("at a subscriber, p99", arrival.at(0.99)),
                single("floor: NOTIFY + publish, p50", self.floor()),
            ],
        }
    }

    fn json(&self, rate: u32) -> Value {
        let spread = |series: &Series| series.spread("ms");
        let begin = self.events.iter().map(|event| event.sent.due).min().unwrap_or(0);
        let mut slowest = self.events.clone();
        slowest.sort_unstable_by_key(|event| event.sent.commit_returned - event.stored);
        let slowest = slowest.iter().take(SLOWEST).map(|event| {
            json!({ "due_at_s": (event.sent.due - begin) as f64 / 1e6, "ms": event.after_return(),
                "commit_ms": milliseconds(event.sent.commit_sent, event.sent.commit_returned) })
        });
        let slowest: Vec<Value> = slowest.collect();
        json!({
            "events_per_s": rate, "events": self.events.len(),
            "commit_returned_to_stored": spread(&self.after_return()),
            "commit_returned_to_subscriber": spread(&self.arrival()),
            "commit_sent_to_stored": spread(&self.after_send()),
            "commit": spread(&self.commit()),
            "due_to_commit_sent": spread(&self.series(|event| milliseconds(event.sent.due, event.sent.commit_sent))),
            "segments_p50": self.p50.json("ms"), "segments_p99": self.p99.json("ms"),
            "notify": spread(&self.notify), "publish_ack": spread(&self.publish), "floor_p50_ms": self.floor(),
            "slowest": slowest,
        })
    }
}

/// Emits `count` events at `rate` a second and waits until all are stored.
async fn run_segment(stage: &Stage, rate: u32, count: u32) -> Outcome<Vec<Event>> {
    let before = match stage.broker.stream(EVENTS).await {
        Some(stream) => stream.cached_info().state.last_sequence,
        None => 0,
    };
    let mut subscriber = stage.broker.jetstream().client().subscribe("orders.event.>").await?;
    // The server has the subscription when it has answered what was sent after it.
    stage.broker.jetstream().client().flush().await?;
    let arrivals = tokio::spawn(async move {
        let mut arrivals = HashMap::with_capacity(count as usize);
        while arrivals.len() < count as usize {
            let next = tokio::time::timeout(Duration::from_secs(30), subscriber.next()).await;
            let Ok(Some(message)) = next else { break };
            let at = now();
            let id = message.headers.as_ref().and_then(|headers| headers.get("Nats-Msg-Id"));
            if let Some(id) = id.and_then(|id| id.as_str().parse::<Uuid>().ok()) {
                arrivals.insert(id, at);
            }
        }
        arrivals
    });

    let sent = pace::emit(&stage.connector(), rate, count).await?;
    let wanted = before + u64::from(count);
    stage.broker.until_count(EVENTS, wanted, Duration::from_secs(15)).await;
    let arrivals = arrivals.await?;

    let stream = stage.broker.stream(EVENTS).await.ok_or("the stream is gone")?;
    let mut stored = HashMap::with_capacity(count as usize);
    harness::read(&stream, before + 1, |message| {
        stored.insert(message.id(), message.stored_at);
    })
    .await?;
    sent.into_iter().map(|(id, sent)| complete(id, sent, &stored, &arrivals)).collect()
}

fn complete(id: Uuid, sent: Sent, stored: &HashMap<Uuid, i128>, arrivals: &HashMap<Uuid, i64>) -> Outcome<Event> {
    let stored = stored.get(&id).ok_or_else(|| format!("event {id} was committed and is not in the stream"))?;
    let arrived = arrivals.get(&id).ok_or_else(|| format!("event {id} did not reach the subscriber"))?;
    Ok(Event { sent, stored: i64::try_from(*stored)?, arrived: *arrived })
}

/// Milliseconds from NOTIFY in one session to its arrival in another.
async fn notifications(connector: &Connector, stage: &Stage, pace: Duration, samples: u32) -> Outcome<Series> {
    let db = connector.try_connect().await?;
    let port: String = db.value("SHOW port", &[]).await;
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(port.parse()?).user("postgres").dbname(stage.database());
    let (client, mut connection) = config.connect(NoTls).await?;
    let (sender, mut receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            if matches!(message, AsyncMessage::Notification(_)) && sender.send(Instant::now()).is_err() {
                break;
            }
        }
    });
    client.batch_execute("LISTEN floor").await?;
    let mut series = Series::default();
    let begin = Instant::now();
    for sample in 0..samples {
        tokio::time::sleep_until((begin + pace * sample).into()).await;
        let sent = Instant::now();
        db.batch_execute("NOTIFY floor").await?;
        let arrived = tokio::time::timeout(Duration::from_secs(10), receiver.recv()).await?;
        let arrived = arrived.ok_or("the listening connection ended")?;
        series.push(arrived.saturating_duration_since(sent).as_secs_f64() * 1e3);
    }
    Ok(series)
}

/// Milliseconds from a publish to its acknowledgement.
async fn publishes(stage: &Stage, pace: Duration, samples: u32) -> Outcome<Series> {
    const STREAM: &str = "FLOOR";
    let jetstream = stage.broker.jetstream();
    let stream = stage.broker.stream(EVENTS).await.ok_or("the relay's stream is gone")?;
    if stage.broker.stream(STREAM).await.is_none() {
        let config = jetstream::stream::Config {
            name: STREAM.into(),
            subjects: vec!["floor.event.>".into()],
            ..stream.cached_info().config.clone()
        };
        jetstream.create_stream(config).await?;
    }
    let mut template = None;
    harness::read(&stream, stream.cached_info().state.last_sequence, |message| template = Some(Template::of(&message)))
        .await?;
    let template = template.ok_or("the relay's stream is empty")?;
    let mut series = Series::default();
    let begin = Instant::now();
    for sample in 0..samples {
        tokio::time::sleep_until((begin + pace * sample).into()).await;
        let headers = template.headers(&Uuid::now_v7().to_string());
        let sent = Instant::now();
        jetstream.publish_with_headers("floor.event.order_placed.v1", headers, template.body.clone()).await?.await?;
        series.push(sent.elapsed().as_secs_f64() * 1e3);
    }
    Ok(series)
}
