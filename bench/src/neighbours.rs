//! What a slow handler costs the subscriptions beside it, and what several processes bring to handlers that wait.
//!
//! The neighbour's latency is taken from the database: from the event's emit to the end of its handling. It is measured without a
//! slow handler and with one, at the same pace, in one run.

use std::time::Duration;

use harness::{Database, EVENTS, Stage};
use serde_json::json;

use crate::figures::{Series, whole};
use crate::plot::{Bar, Panel, Scale};
use crate::report::{Measured, Row};
use crate::{Options, Outcome, say, workload};

const HANDLERS: &str = "
    CREATE FUNCTION handle_nothing(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN END $$;
    CREATE FUNCTION wait_2_ms(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.002); END $$;
    CREATE FUNCTION sleep_10_s(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(10); END $$";
/// Between two events of the neighbour.
const PACE: Duration = Duration::from_millis(20);
/// Events of each half of that run.
const EVENTS_BESIDE: u32 = 400;
/// Handler processes at a time.
const WORKERS: [u32; 3] = [1, 2, 4];

/// # Errors
/// When something breaks.
pub async fn measure(options: &Options) -> Outcome<Measured> {
    let stage = workload::stage("neighbours").await;
    let versions = workload::versions(&stage).await?;
    let db = stage.connect().await;
    db.run(HANDLERS).await;
    let (alone, beside) = latencies(&stage, &db).await?;
    let waiting = rates(&stage, &db, "wait_2_ms", options.waiting_messages).await?;
    let nothing = rates(&stage, &db, "handle_nothing", options.waiting_messages * 10).await?;
    let mut rows = vec![
        latency_row("handled, alone", &alone),
        latency_row("handled, beside a handler that sleeps 10 s", &beside).expecting("p99 at most twice that of alone"),
    ];
    for (what, rates, expected) in
        [("waits 2 ms", &waiting, "4 / 1: at least 3.6"), ("does nothing", &nothing, "2 / 1: at least 1.0")]
    {
        for (workers, rate) in WORKERS.iter().zip(rates) {
            let ratio = rate.median() / rates[0].median();
            let row = Row::rate(&format!("handler that {what}, workers => {workers}"), rate, "/s");
            rows.push(Row { value: format!("{} ({ratio:.2})", row.value), ..row }.expecting(expected));
        }
    }
    let bars = [("alone", &alone), ("beside a sleeping handler", &beside)];
    let bars = bars.map(|(label, series)| Bar::of(label, series, format!("{:.1} ms", series.median())));
    let panel = Panel {
        title: "A subscription beside one whose handler sleeps 10 s".into(),
        unit: "milliseconds from emit to handled, median and range".into(),
        scale: Scale::Linear,
        bars: bars.into(),
    };
    let json = json!({
        "versions": versions, "pace_ms": PACE.as_millis(), "alone": alone.spread("ms"), "beside": beside.spread("ms"),
        "waits_2_ms": waiting.iter().map(|rate| rate.json("messages/s")).collect::<Vec<_>>(),
        "nothing": nothing.iter().map(|rate| rate.json("messages/s")).collect::<Vec<_>>(),
    });
    let title = "neighbours: slow handlers, and what several processes bring".to_owned();
    Ok(Measured { key: "neighbours", title, rows, panels: vec![panel], json })
}

fn latency_row(what: &str, series: &Series) -> Row {
    let range = format!("p99 {:.1} ms, most {:.1} ms", series.at(0.99), series.most());
    Row::new(what, format!("p50 {:.1} ms", series.median()), range)
}

/// Milliseconds from emit to handled of a subscription's events: with nothing to do beside it, and beside a handler that sleeps.
async fn latencies(stage: &Stage, db: &Database) -> Outcome<(Series, Series)> {
    db.run("SELECT sea_mq.subscribe('app__quick', 'orders', 'handle_nothing'), sea_mq.subscribe('app__other', 'orders', 'handle_nothing')").await;
    say("neighbours: alone");
    at_pace(stage, db, 20).await?;
    let alone = at_pace(stage, db, EVENTS_BESIDE).await?;
    db.run("SELECT sea_mq.alter_subscription('app__other', handler => 'sleep_10_s')").await;
    say("neighbours: beside a handler that sleeps");
    at_pace(stage, db, 20).await?;
    let beside = at_pace(stage, db, EVENTS_BESIDE).await?;
    db.run("SELECT sea_mq.unsubscribe('app__quick'), sea_mq.unsubscribe('app__other')").await;
    Ok((alone, beside))
}

async fn at_pace(stage: &Stage, db: &Database, events: u32) -> Outcome<Series> {
    let begin: std::time::SystemTime = db.value("SELECT clock_timestamp()", &[]).await;
    for number in 0..events {
        db.run(&format!("SELECT {}", workload::emit(&(100_000 + number).to_string()))).await;
        tokio::time::sleep(PACE).await;
    }
    let sql = "SELECT (extract(epoch FROM i.processed_at - o.created_at) * 1000)::float8
        FROM sea_mq.outbox_events o JOIN sea_mq.inbox_messages i ON i.message_id = o.id::text AND i.subscription = 'app__quick'
        WHERE o.created_at >= $1 AND i.processed";
    let looker = stage.connect().await;
    harness::until("the neighbour has handled all", Duration::from_secs(120), async || {
        looker.query(sql, &[&begin]).await.is_ok_and(|rows| rows.len() == events as usize)
    })
    .await;
    Ok(looker.query(sql, &[&begin]).await?.iter().map(|row| row.get::<_, f64>(0)).collect())
}

/// Messages a second of a handler, with so many processes each.
async fn rates(stage: &Stage, db: &Database, handler: &str, messages: u32) -> Outcome<Vec<Series>> {
    let stored = u64::from(messages);
    while stage.broker.count(EVENTS).await < stored {
        let emit = workload::emit("(100000 + i % 900000)");
        db.run(&format!("SELECT count({emit}) FROM generate_series(1, 1000) AS i")).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let mut found = vec![Series::default(); WORKERS.len()];
    for repetition in 0..3 {
        for (workers, series) in WORKERS.iter().zip(&mut found) {
            say(format!("neighbours: {handler} with {workers} workers, {}", repetition + 1));
            series.push(rate(db, handler, *workers, messages, repetition).await?);
        }
    }
    Ok(found)
}

async fn rate(db: &Database, handler: &str, workers: u32, messages: u32, repetition: u32) -> Outcome<f64> {
    let name = format!("app__{handler}_{workers}_{repetition}");
    db.run("CHECKPOINT").await;
    db.run(&format!(
        "SELECT sea_mq.subscribe('{name}', 'orders', '{handler}', start_from => 'all', workers => {workers})"
    ))
    .await;
    let sql = "SELECT count(*), (extract(epoch FROM max(processed_at) - min(processed_at)))::float8
        FROM (SELECT processed_at FROM sea_mq.inbox_messages WHERE subscription = $1 AND processed ORDER BY processed_at LIMIT $2) m";
    let limit = i64::from(messages);
    harness::until("as many are handled", Duration::from_secs(300), async || {
        tokio::time::sleep(Duration::from_millis(200)).await;
        db.query_one(sql, &[&name, &limit]).await.is_ok_and(|row| row.get::<_, i64>(0) >= limit)
    })
    .await;
    let seconds: f64 = db.query_one(sql, &[&name, &limit]).await?.get(1);
    db.run(&format!("SELECT sea_mq.unsubscribe('{name}')")).await;
    say(format!("    {}/s", whole(f64::from(messages) / seconds)));
    Ok(f64::from(messages) / seconds.max(1e-6))
}
