//! From a commit in one database to its event handled in another one of the same cluster, at a fixed rate of events.
//!
//! Both commits are on one clock, the server's (`track_commit_timestamp`). PostgreSQL takes that time when it begins to
//! write the commit record: so the writer's wait for its disk is in the figure, and the handler's is not. Therefore also
//! the whole way on the client's clock: from the return of the writer's COMMIT to the message's acknowledgement, which is
//! sent when the handler's commit is on disk, as a plain subscriber sees it.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::StreamExt;
use harness::{Database, EVENTS, Stage, StageOptions};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::figures::Series;
use crate::latency::{SEGMENTS, SLOWEST};
use crate::pace::{self, Sent, milliseconds};
use crate::plot::{Bar, Panel, Scale};
use crate::report::Row;
use crate::{Options, Outcome, now, say, workload};

/// Database and context that the events are handled in.
const DATABASE: &str = "shipping";
const SUBSCRIPTION: &str = "shipping__orders";
/// The greatest wait for what should happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// Notes what the handler knows of time; when it committed, the row's xmin knows.
const HANDLER: &str = "CREATE TABLE handled (number bigint NOT NULL, event uuid NOT NULL, stream_seq bigint NOT NULL,
        stored_at timestamptz NOT NULL, called_at timestamptz NOT NULL);
    CREATE FUNCTION note_order(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO handled VALUES (e.aggregate_id::bigint, e.id, e.stream_seq, e.created_at, clock_timestamp());
    END $$;
    SELECT sea_mq.subscribe('shipping__orders', 'orders', 'note_order', start_from => 'new')";

/// One event, all times in microseconds since 1970.
#[derive(Clone, Copy, Debug)]
struct Event {
    sent: Sent,
    /// By the server's clock: the writer's commit.
    committed: i64,
    stored: i64,
    /// The handler was called.
    called: i64,
    /// The handler's commit.
    handled: i64,
    /// The acknowledgement, at a plain subscriber.
    acknowledged: i64,
}

/// What was measured at one rate; series in milliseconds.
#[derive(Default)]
struct Found {
    events: Vec<Event>,
    /// p50 and p99 of each segment, from commit to commit.
    p50: Series,
    p99: Series,
}

/// # Errors
/// When something breaks, an event that is not handled for instance.
pub async fn measure(options: &Options) -> Outcome<(Vec<Row>, Vec<Panel>, Value)> {
    say("latency, handled: starting PostgreSQL and nats-server");
    let settings = StageOptions::default().setting("fsync", "on").setting("track_commit_timestamp", "on");
    let stage = settings.start("bench-handled").await;
    let shipping = prepare(&stage).await;
    let (mut rows, mut panels, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    for rate in &options.rates {
        say(format!("latency, handled, at {rate}/s: warm-up"));
        segment(&stage, &shipping, *rate, pace::warm_up(*rate, options.latency_events(*rate))).await?;
        let mut found = Found::default();
        for number in 1..=SEGMENTS {
            let events = segment(&stage, &shipping, *rate, options.latency_events(*rate) / SEGMENTS).await?;
            let latencies: Series = events.iter().map(Event::commit_to_commit).collect();
            let (p50, p99) = (latencies.at(0.5), latencies.at(0.99));
            say(format!("latency, handled, at {rate}/s, {number} of {SEGMENTS}: p50 {p50:.2} ms, p99 {p99:.2} ms"));
            found.p50.push(p50);
            found.p99.push(p99);
            found.events.extend(events);
        }
        rows.extend(found.rows(*rate));
        panels.push(found.panel(*rate));
        rates.push(found.json(*rate));
    }
    Ok((rows, panels, Value::Array(rates)))
}

/// Makes the database that handles, and has it subscribed. Returns a connection to it.
async fn prepare(stage: &Stage) -> Database {
    stage.connect().await.run(&format!("{}; SELECT sea_mq.create_stream('orders')", workload::ORDERS)).await;
    stage.cluster.run(&format!("CREATE DATABASE {DATABASE}")).await;
    stage.cluster.run(&format!("ALTER DATABASE {DATABASE} SET sea_mq.context = '{DATABASE}'")).await;
    let shipping = stage.cluster.connect(DATABASE).await;
    shipping.run("CREATE EXTENSION sea_mq").await;
    shipping.run(HANDLER).await;
    let active = "SELECT state = 'active' FROM sea_mq.subscription_status";
    harness::until("the subscription is active", PATIENCE, async || shipping.value(active, &[]).await).await;
    stage.until_connected().await;
    shipping
}

/// Emits `count` events at `rate` a second and waits until all are handled.
async fn segment(stage: &Stage, shipping: &Database, rate: u32, count: u32) -> Outcome<Vec<Event>> {
    let db = stage.connect().await;
    db.run("TRUNCATE orders").await;
    shipping.run("TRUNCATE handled").await;
    let acknowledgements = acknowledgements(stage, count).await?;
    let sent = pace::emit(&stage.connector(), rate, count).await?;
    let count_handled = "SELECT count(*) FROM handled";
    harness::until("all events are handled", PATIENCE, async || {
        shipping.value::<i64>(count_handled, &[]).await >= i64::from(count)
    })
    .await;
    let acknowledged = acknowledgements.await?;
    let committed = format!("SELECT number, {} FROM orders", microseconds("pg_xact_commit_timestamp(xmin)"));
    let committed = db.query(&committed, &[]).await?;
    let committed = committed.iter().map(|row| (row.get(0), row.get(1))).collect();
    let events = complete(shipping, &sent, &committed, &acknowledged).await?;
    if events.len() != count as usize {
        return Err(format!("{count} events were emitted and {} handled", events.len()).into());
    }
    Ok(events)
}

/// An SQL expression for a time in microseconds since 1970.
fn microseconds(time: &str) -> String {
    format!("(extract(epoch FROM {time}) * 1000000)::bigint")
}

/// Puts together what is known of each event that was handled: `sent` by its id, `committed` by the order's number,
/// `acknowledged` by the message's sequence.
async fn complete(
    shipping: &Database,
    sent: &HashMap<Uuid, Sent>,
    committed: &HashMap<i64, i64>,
    acknowledged: &HashMap<i64, i64>,
) -> Outcome<Vec<Event>> {
    let times = ["stored_at", "called_at", "pg_xact_commit_timestamp(xmin)"].map(microseconds).join(", ");
    let rows = shipping.query(&format!("SELECT event, number, stream_seq, {times} FROM handled"), &[]).await?;
    let mut events = HashMap::with_capacity(rows.len());
    for row in rows {
        let (id, number, sequence): (Uuid, i64, i64) = (row.get(0), row.get(1), row.get(2));
        let sent = *sent.get(&id).ok_or_else(|| format!("event {id} was handled and not sent"))?;
        let committed = *committed.get(&number).ok_or_else(|| format!("order {number} is missing"))?;
        let acknowledged =
            *acknowledged.get(&sequence).ok_or_else(|| format!("the acknowledgement of {id} was not seen"))?;
        let (stored, called, handled) = (row.get(3), row.get(4), row.get(5));
        if events.insert(id, Event { sent, committed, stored, called, handled, acknowledged }).is_some() {
            return Err(format!("event {id} was handled twice").into());
        }
    }
    Ok(events.into_values().collect())
}

/// When each message's acknowledgement was seen, by its sequence; of the next `count` messages.
async fn acknowledgements(stage: &Stage, count: u32) -> Outcome<JoinHandle<HashMap<i64, i64>>> {
    let client = stage.broker.jetstream().client();
    let mut subscriber = client.subscribe(format!("$JS.ACK.{EVENTS}.{SUBSCRIPTION}.>")).await?;
    // The server has the subscription when it has answered what was sent after it.
    client.flush().await?;
    Ok(tokio::spawn(async move {
        let mut seen = HashMap::with_capacity(count as usize);
        while seen.len() < count as usize {
            let Ok(Some(message)) = tokio::time::timeout(PATIENCE, subscriber.next()).await else { break };
            let at = now();
            // $JS.ACK.stream.consumer.delivered.sequence.…
            let sequence = message.subject.split('.').nth(5).and_then(|sequence| sequence.parse().ok());
            if let Some(sequence) = sequence.filter(|_| is_final(&message.payload)) {
                seen.entry(sequence).or_insert(at);
            }
        }
        seen
    }))
}

/// Whether it is an acknowledgement, and not a word about progress.
fn is_final(payload: &[u8]) -> bool {
    payload.is_empty() || payload.starts_with(b"+ACK")
}

impl Event {
    /// Milliseconds from the writer's commit to the handler's.
    fn commit_to_commit(&self) -> f64 {
        milliseconds(self.committed, self.handled)
    }

    /// Milliseconds from the return of COMMIT to the acknowledgement.
    fn until_acknowledged(&self) -> f64 {
        milliseconds(self.sent.commit_returned, self.acknowledged)
    }
}

impl Found {
    fn series(&self, of: impl Fn(&Event) -> f64) -> Series {
        self.events.iter().map(of).collect()
    }

    fn rows(&self, rate: u32) -> Vec<Row> {
        let row = |figure: &str, value: f64, range: String| {
            Row::new(format!("{rate}/s: {figure}"), format!("{value:.2} ms"), range)
        };
        let all = self.series(Event::commit_to_commit);
        let acknowledged = self.series(Event::until_acknowledged);
        let p50 = |of: fn(&Event) -> f64| self.series(of).median();
        vec![
            row("commit to handler's commit, p50", all.median(), self.p50.range(2, " ms")),
            row("… p99", all.at(0.99), self.p99.range(2, " ms")),
            row("… max", all.most(), String::new()),
            row("COMMIT returned to acknowledged, p50", acknowledged.median(), String::new()),
            row("… p99", acknowledged.at(0.99), String::new()),
            row("… max", acknowledged.most(), String::new()),
            row("stored to handler called, p50", p50(|event| milliseconds(event.stored, event.called)), String::new()),
            row("handler called to commit, p50", p50(|event| milliseconds(event.called, event.handled)), String::new()),
        ]
    }

    fn panel(&self, rate: u32) -> Panel {
        let all = self.series(Event::commit_to_commit);
        let acknowledged = self.series(Event::until_acknowledged);
        let bar = |label: &str, value: f64, (least, most): (f64, f64)| Bar {
            label: label.into(),
            value,
            least,
            most,
            text: if value < 10.0 { format!("{value:.2} ms") } else { format!("{value:.1} ms") },
        };
        let single = |label: &str, value: f64| bar(label, value, (value, value));
        Panel {
            title: format!("Handled in another database, at {rate} events/s"),
            unit: format!("milliseconds, logarithmic; ranges over {SEGMENTS} segments"),
            scale: Scale::Logarithmic,
            bars: vec![
                bar("commit to commit, p50", all.median(), (self.p50.least(), self.p50.most())),
                bar("commit to commit, p99", all.at(0.99), (self.p99.least(), self.p99.most())),
                single("commit to commit, max", all.most()),
                single("returned to acked, p50", acknowledged.median()),
                single("returned to acked, p99", acknowledged.at(0.99)),
            ],
        }
    }

    fn json(&self, rate: u32) -> Value {
        let spread = |of: fn(&Event) -> f64| self.series(of).spread("ms");
        let mut slowest = self.events.clone();
        slowest.sort_unstable_by_key(|event| event.committed - event.handled);
        let slowest = slowest.iter().take(SLOWEST).map(|event| {
            json!({ "committed_at_us": event.committed, "ms": event.commit_to_commit(),
                "to_stored_ms": milliseconds(event.committed, event.stored),
                "to_called_ms": milliseconds(event.stored, event.called) })
        });
        let slowest: Vec<Value> = slowest.collect();
        json!({
            "events_per_s": rate, "events": self.events.len(),
            "commit_to_handlers_commit": spread(Event::commit_to_commit),
            "commit_returned_to_acknowledged": spread(Event::until_acknowledged),
            "commit_to_stored": spread(|event| milliseconds(event.committed, event.stored)),
            "stored_to_handler_called": spread(|event| milliseconds(event.stored, event.called)),
            "handler_called_to_commit": spread(|event| milliseconds(event.called, event.handled)),
            "commit_returned_to_handlers_commit":
                spread(|event| milliseconds(event.sent.commit_returned, event.handled)),
            "segments_p50": self.p50.json("ms"), "segments_p99": self.p99.json("ms"), "slowest": slowest,
        })
    }
}
