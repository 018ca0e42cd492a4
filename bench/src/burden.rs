//! What weighs on a database without concerning the relay: a log that retains millions of events, a transaction that is
//! open all the time, many transactions in progress. The rate of a drain with each, against the rate without.
//!
//! The large log is on a second pair of servers, so that it is measured in turn with the rest.

use harness::{Database, Stage, StageOptions};
use serde_json::{Map, Value, json};

use crate::drain;
use crate::figures::{Series, whole};
use crate::plot::{Bar, Panel, Scale};
use crate::report::{Measured, Row};
use crate::workload;
use crate::{Options, Outcome, say};

/// Transactions in progress: as many as that many sessions would have that are idle in one.
const IN_PROGRESS: u32 = 1000;

/// Events of one backlog while the large log is made.
const PIECE: u32 = 500_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Burden {
    Nothing,
    Retained,
    OpenTransaction,
    InProgress,
}

impl Burden {
    const ALL: [Self; 4] = [Self::Nothing, Self::Retained, Self::OpenTransaction, Self::InProgress];

    fn label(self, options: &Options) -> String {
        match self {
            Self::Nothing => "nothing".into(),
            Self::Retained => format!("{} events retained", whole(options.retained_events.into())),
            Self::OpenTransaction => "a transaction open throughout".into(),
            Self::InProgress => format!("{} transactions in progress", whole(IN_PROGRESS.into())),
        }
    }

    const fn key(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Retained => "retained",
            Self::OpenTransaction => "open_transaction",
            Self::InProgress => "in_progress",
        }
    }

    /// Lays it on, and leaves the session that bears it.
    async fn begin(self, stage: &Stage) -> Database {
        let db = stage.connect().await;
        match self {
            Self::Nothing | Self::Retained => {}
            Self::OpenTransaction => {
                let emit = workload::emit("123456");
                db.run(&format!("BEGIN; SELECT pg_current_xact_id(); SELECT {emit}")).await;
            }
            Self::InProgress => {
                for number in 0..IN_PROGRESS {
                    let prepare = format!("PREPARE TRANSACTION 'burden_{number}'");
                    db.run("BEGIN").await;
                    db.run("SELECT pg_current_xact_id()").await;
                    db.run(&prepare).await;
                }
            }
        }
        db
    }

    async fn end(self, db: Database) {
        match self {
            Self::Nothing | Self::Retained => {}
            Self::OpenTransaction => db.run("ROLLBACK").await,
            Self::InProgress => {
                for number in 0..IN_PROGRESS {
                    db.run(&format!("ROLLBACK PREPARED 'burden_{number}'")).await;
                }
            }
        }
    }
}

/// # Errors
/// When something breaks, an event that does not arrive for instance.
pub async fn measure(options: &Options) -> Outcome<Measured> {
    let (small, large) = (stage("burden").await, stage("burden-large").await);
    let versions = workload::versions(&small).await?;
    for stage in [&small, &large] {
        drain::drain(stage, options.drain_events).await?;
    }
    retain(&large, options.retained_events).await?;
    let mut rates: [Series; Burden::ALL.len()] = Default::default();
    for repetition in 0..options.repetitions {
        for turn in 0..Burden::ALL.len() {
            let index = (turn + repetition as usize) % Burden::ALL.len();
            let burden = Burden::ALL[index];
            let stage = if burden == Burden::Retained { &large } else { &small };
            let bearer = burden.begin(stage).await;
            let drained = drain::drain(stage, options.drain_events).await?;
            burden.end(bearer).await;
            let (number, of) = (repetition + 1, options.repetitions);
            say(format!("burden, {number} of {of}: {}: {} events/s", burden.label(options), whole(drained.rate)));
            rates[index].push(drained.rate);
        }
    }
    Ok(measured(&rates, options, &versions))
}

/// Servers whose stream keeps the last million messages only: what is retained is the log.
pub async fn stage(name: &str) -> Stage {
    say(format!("{name}: starting PostgreSQL and nats-server"));
    let prepared = (IN_PROGRESS + 10).to_string();
    let options = StageOptions::default().setting("fsync", "on").setting("max_prepared_transactions", &prepared);
    let stage = options.start(&format!("bench-{name}")).await;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.create_stream('orders', max_msgs => 1000000)").await;
    harness::until("the stream is there", std::time::Duration::from_secs(60), async || {
        stage.broker.stream(harness::EVENTS).await.is_some()
    })
    .await;
    stage
}

/// Has so many events published that stay in the log.
pub async fn retain(stage: &Stage, events: u32) -> Outcome<()> {
    let mut done = 0;
    while done < events {
        let piece = PIECE.min(events - done).max(2);
        drain::drain(stage, piece).await?;
        done += piece;
        say(format!("{} of {} events are retained", whole(done.into()), whole(events.into())));
    }
    let retained: i64 = stage.connect().await.value("SELECT count(*) FROM sea_mq.outbox_log", &[]).await;
    if retained < i64::from(events) {
        return Err(format!("{retained} events are retained of {events}").into());
    }
    Ok(())
}

fn measured(rates: &[Series; Burden::ALL.len()], options: &Options, versions: &Value) -> Measured {
    let (mut rows, mut bars, mut json) = (Vec::new(), Vec::new(), Map::new());
    for (burden, series) in Burden::ALL.iter().zip(rates) {
        let label = burden.label(options);
        let (ratio, ratios) = (series.median() / rates[0].median(), series.over(&rates[0]));
        rows.push(Row::rate(&label, series, "/s"));
        if *burden != Burden::Nothing {
            let row = Row::new("… / with nothing", format!("{ratio:.2}"), ratios.range(2, ""));
            rows.push(if *burden == Burden::InProgress { row } else { row.expecting(">= 0.90") });
        }
        bars.push(Bar::of(&label, series, whole(series.median())));
        json.insert(burden.key().into(), json!({ "rate": series.json("events/s"), "to_nothing": ratio }));
    }
    let events = whole(options.drain_events.into());
    Measured {
        key: "burden",
        title: format!("burden: draining {events} events in a database with"),
        rows,
        panels: vec![Panel {
            title: format!("Draining {events} events in a database with"),
            unit: "events per second, median and range".into(),
            scale: Scale::Linear,
            bars,
        }],
        json: json!({
            "events": options.drain_events, "retained": options.retained_events, "in_progress": IN_PROGRESS,
            "versions": versions, "burdens": json,
        }),
    }
}
