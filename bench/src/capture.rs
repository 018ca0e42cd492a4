//! What it costs a bulk change that its table is captured: one UPDATE of all rows, against the same without any events and
//! against what applications do without capture, a row trigger that inserts into a conventional outbox table.
//!
//! The whole transaction counts, its commit included. Each run begins with a table that was just filled, an empty outbox
//! (the log excepted, which only its retention empties) and after a checkpoint. Nothing relays either outbox.

use std::time::Instant;

use harness::Database;
use serde_json::{Map, Value, json};

use crate::figures::{Series, whole};
use crate::plot::{Bar, Panel, Scale};
use crate::report::{Measured, Row};
use crate::{Options, Outcome, say, workload};

const OUTBOX: &str = "CREATE TABLE outbox (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), aggregate_type text NOT NULL, aggregate_id text NOT NULL,
    event_type text NOT NULL, payload jsonb NOT NULL, created_at timestamptz NOT NULL DEFAULT now(), published_at timestamptz);
    CREATE INDEX outbox_unpublished ON outbox (created_at) WHERE published_at IS NULL;
    CREATE FUNCTION announce() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO outbox (aggregate_type, aggregate_id, event_type, payload)
        VALUES ('order', NEW.id::text, 'OrderUpdated', to_jsonb(NEW));
        RETURN NULL;
    END $$";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Nothing,
    RowTrigger,
    Capture,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Nothing, Self::RowTrigger, Self::Capture];

    const fn key(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::RowTrigger => "row_trigger",
            Self::Capture => "capture",
        }
    }

    const fn label(self) -> &'static str {
        match self {
            Self::Nothing => "UPDATE without events",
            Self::RowTrigger => "row trigger, outbox table",
            Self::Capture => "sea_mq.capture_table",
        }
    }

    /// The table of its own that a kind changes.
    fn table(self) -> String {
        format!("orders_{}", self.key())
    }
}

/// # Errors
/// When something breaks, or an event is missing.
pub async fn measure(options: &Options) -> Outcome<Measured> {
    let stage = workload::stage("capture").await;
    let versions = workload::versions(&stage).await?;
    let db = stage.connect().await;
    prepare(&db).await;
    workload::stop_relay(&stage).await;
    let mut seconds: [Series; 3] = Default::default();
    // The first round warms up.
    for round in 0..=options.rounds {
        for turn in 0..Kind::ALL.len() {
            let index = (turn + round as usize) % Kind::ALL.len();
            let elapsed = run(&db, Kind::ALL[index], options.captured_rows).await?;
            if round > 0 {
                seconds[index].push(elapsed);
            }
        }
        let text: Vec<String> =
            Kind::ALL.iter().zip(&seconds).map(|(kind, s)| format!("{} {:.2} s", kind.key(), s.median())).collect();
        say(format!("capture, {round} of {}: {}", options.rounds, text.join(", ")));
    }
    check(&db, options).await?;
    Ok(report(&seconds, options, &versions))
}

async fn prepare(db: &Database) {
    db.run("SELECT sea_mq.create_stream('orders')").await;
    db.run(OUTBOX).await;
    for kind in Kind::ALL {
        db.run(&workload::ORDERS.replace("orders", &kind.table())).await;
    }
    db.run(
        "CREATE TRIGGER announce AFTER UPDATE ON orders_row_trigger FOR EACH ROW EXECUTE FUNCTION announce();
         SELECT sea_mq.capture_table('orders_capture', 'order')",
    )
    .await;
}

/// Seconds of the transaction.
async fn run(db: &Database, kind: Kind, rows: u32) -> Outcome<f64> {
    let table = kind.table();
    db.run(&format!(
        "SET session_replication_role = replica;
         TRUNCATE {table}, outbox;
         INSERT INTO {table} (number, customer, total) SELECT n, 'Ada Lovelace', n FROM generate_series(1, {rows}) n;
         SET session_replication_role = origin"
    ))
    .await;
    db.run(&format!("VACUUM ANALYZE {table}")).await;
    db.run("CHECKPOINT").await;
    let begin = Instant::now();
    let changed =
        db.execute(&format!("UPDATE {table} SET total = total * 1.1, customer = 'Grace Hopper'"), &[]).await?;
    let elapsed = begin.elapsed().as_secs_f64();
    if changed != u64::from(rows) {
        return Err(format!("{changed} of {rows} rows were changed").into());
    }
    if kind == Kind::RowTrigger {
        expect_events(db, "outbox", i64::from(rows)).await?;
    }
    Ok(elapsed)
}

async fn check(db: &Database, options: &Options) -> Outcome<()> {
    expect_events(db, "sea_mq.outbox_log", i64::from(options.rounds + 1) * i64::from(options.captured_rows)).await
}

async fn expect_events(db: &Database, table: &str, expected: i64) -> Outcome<()> {
    let events: i64 = db.value(&format!("SELECT count(*) FROM {table}"), &[]).await;
    if events == expected { Ok(()) } else { Err(format!("{events} of {expected} events are in {table}").into()) }
}

fn report(seconds: &[Series; 3], options: &Options, versions: &Value) -> Measured {
    let rows = options.captured_rows;
    let title = format!("capture: UPDATE of {} rows, {} rounds, fsync on", whole(f64::from(rows)), options.rounds);
    let [nothing, row_trigger, capture] = seconds;
    let faster = row_trigger.over(capture);
    let cost = capture.over(nothing);
    let mut table: Vec<Row> = Kind::ALL
        .iter()
        .zip(seconds)
        .map(|(kind, s)| Row::new(kind.label(), format!("{:.2} s", s.median()), s.range(2, " s")))
        .collect();
    let ratio = |label: &str, over: f64, series: &Series| Row::new(label, format!("{over:.2}"), series.range(2, ""));
    table.push(ratio("row trigger / capture", row_trigger.median() / capture.median(), &faster).expecting(">= 2"));
    table.push(ratio("capture / UPDATE without events", capture.median() / nothing.median(), &cost));
    let kinds: Map<String, Value> =
        Kind::ALL.iter().zip(seconds).map(|(kind, s)| (kind.key().to_owned(), s.json("s"))).collect();
    let bars = Kind::ALL.iter().zip(seconds).map(|(kind, s)| Bar::of(kind.label(), s, format!("{:.2}", s.median())));
    let panel = Panel {
        title: title.clone(),
        unit: "seconds, median and range".into(),
        scale: Scale::Linear,
        bars: bars.collect(),
    };
    let json = json!({ "rows": rows, "fsync": true, "versions": versions, "kinds": kinds,
        "row_trigger_to_capture": faster.values, "capture_to_nothing": cost.values });
    Measured { key: "capture", title, rows: table, panels: vec![panel], json }
}
