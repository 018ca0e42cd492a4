//! `sea-mq serve` in front of a database: reads, events and batches over HTTP, metrics, tails, and what it adds to the same
//! statement sent directly.
//!
//! Clients are threads with a connection each, which they keep. Percentiles are of single requests, from before the request is
//! written until its answer was read.

mod serve;
mod tails;

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use harness::{Database, Stage, resident_bytes};
use serde_json::{Value, json};
use ureq::Agent;

use crate::figures::{Series, whole};
use crate::report::{Found, Measured, Row};
use crate::{Options, Outcome, burden, workload};
use serve::{Client, Gateway, load};

fn event(number: u32) -> Value {
    json!({ "aggregate_type": "order", "aggregate_id": number % 100, "event_type": "OrderCreated",
        "payload": { "order": number, "customer": "Ada", "total": 42.5 }, "context": "orders" })
}

/// # Errors
/// When something breaks; never because of a slow figure.
pub async fn measure(options: &Options) -> Outcome<Measured> {
    let stage = burden::stage("gateway").await;
    let db = stage.connect().await;
    db.run(
        "CREATE ROLE bench; GRANT sea_mq_producer, sea_mq_consumer, sea_mq_operator, sea_mq_monitor TO bench;
         CREATE ROLE sea_mq_gateway LOGIN NOINHERIT; GRANT bench, sea_mq_viewer TO sea_mq_gateway;
         SELECT count(sea_mq.create_stream('c' || n, managed => false)) FROM generate_series(1, 100) n;
         SELECT count(sea_mq.subscribe('bench__s' || n, 'elsewhere')) FROM generate_series(1, 100) n",
    )
    .await;
    let database = stage.connector().url().replace("postgres@", "sea_mq_gateway@");
    let gateway = serve::serve(&database, stage.directory.path())?;
    let mut found = Found::new("gateway");
    script(&gateway, &mut found)?;
    reads(&gateway, &db, options, &mut found).await?;
    events(&gateway, options, &mut found)?;
    // What was emitted before is to be stored before tails begin: it would come to them first.
    harness::until("all is published", Duration::from_secs(300), async || workload::is_drained(&db).await).await;
    tails::measure(&gateway, options, &mut found)?;
    while_it_drains(&gateway, &stage, options, &mut found).await?;
    let megabytes = resident_bytes(i32::try_from(gateway.child.id())?) as f64 / f64::from(1 << 20);
    found.add(
        "memory",
        Row::new("resident", format!("{megabytes:.0} MiB"), String::new()).expecting("≤ 64 MiB"),
        json!(megabytes),
    );
    let title = "sea-mq serve".to_owned();
    Ok(Measured { key: "gateway", title, rows: found.rows, panels: Vec::new(), json: Value::Object(found.json) })
}

const READS: [&str; 4] =
    ["/v1/status", "/v1/streams?limit=50", "/v1/subscriptions?limit=50", "/v1/dead-letters?limit=50"];

async fn reads(gateway: &Gateway, db: &Database, options: &Options, found: &mut Found) -> Outcome<()> {
    let urls = READS.map(|path| format!("{}{path}", gateway.url));
    let turn = AtomicUsize::new(0);
    let next = || &urls[turn.fetch_add(1, Ordering::Relaxed) % urls.len()];
    let (quiet, _) = load(gateway, 2, options.seconds, |client| client.get(next()))?;
    found.tail("reads_quiet", "reads, quiet, p95", &quiet, 0.95, "≤ 50 ms");
    // The same statement, sent directly and through the gateway, by turns.
    let (client, url) =
        (Client::new(gateway), format!("{}/v1/events/00000000-0000-0000-0000-000000000000", gateway.url));
    let client = Client { agent: Agent::config_builder().http_status_as_error(false).build().into(), ..client };
    let (mut direct, mut through) = (Series::default(), Series::default());
    for round in 0..options.seconds * 40 {
        let began = Instant::now();
        db.query("SELECT to_jsonb(r)::text FROM sea_mq.event_status('00000000-0000-0000-0000-000000000000') r", &[])
            .await?;
        let alone = began.elapsed().as_secs_f64() * 1000.0;
        let taken = client.get(&url)?;
        if round > 10 {
            direct.push(alone);
            through.push(taken);
        }
    }
    let added = through.median() - direct.median();
    let row = Row::new("added to a statement, median", format!("{added:.2} ms"), String::new()).expecting("≤ 1 ms");
    found.add("added", row, json!({ "direct": direct.spread("ms"), "through": through.spread("ms") }));
    let metrics = format!("{}/metrics", gateway.admin_url);
    let taken: Series =
        (0..options.seconds * 4).map(|_| client.get(&metrics)).collect::<Outcome<Vec<_>>>()?.into_iter().collect();
    found.tail("metrics", "/metrics of 100 streams and 100 subscriptions, p99", &taken, 0.99, "≤ 250 ms");
    Ok(())
}

fn events(gateway: &Gateway, options: &Options, found: &mut Found) -> Outcome<()> {
    let (url, body) = (format!("{}/v1/events", gateway.url), event(1).to_string());
    let (taken, rate) = load(gateway, 32, options.seconds, |client| client.post(&url, &body))?;
    let row = Row::new("events, 32 clients", format!("{}/s", whole(rate)), String::new()).expecting("≥ 1,500/s");
    found.add("events_rate", row, json!(rate));
    found.tail("events", "events, 32 clients, p95", &taken, 0.95, "≤ 50 ms");
    let batch = json!({ "events": (0..100).map(event).collect::<Vec<_>>() }).to_string();
    let url = format!("{}/v1/event-batches", gateway.url);
    let (_, rate) = load(gateway, 8, options.seconds, |client| client.post(&url, &batch))?;
    let row = Row::new("events in batches of 100, 8 clients", format!("{}/s", whole(rate * 100.0)), String::new());
    found.add("batches_rate", row.expecting("≥ 20,000/s"), json!(rate * 100.0));
    Ok(())
}

/// What a browser gets as script, as gzip makes it.
fn script(gateway: &Gateway, found: &mut Found) -> Outcome<()> {
    let mut script = Vec::new();
    for name in ["console.js", "uplot.js"] {
        script.extend(ureq::get(format!("{}/assets/{name}", gateway.url)).call()?.body_mut().read_to_vec()?);
    }
    let mut gzip = Command::new("gzip").args(["-9", "-c"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut input = gzip.stdin.take().ok_or("no input")?;
    let writer = std::thread::spawn(move || std::io::Write::write_all(&mut input, &script));
    let bytes = gzip.wait_with_output()?.stdout.len();
    writer.join().map_err(|_| "gzip was not fed")??;
    let row = Row::new("JavaScript, gzipped", format!("{:.1} kB", bytes as f64 / 1000.0), String::new());
    found.add("script", row.expecting("≤ 60 kB"), json!(bytes));
    Ok(())
}

/// Dead letters that are decided, for ten retained events one.
async fn decide_letters(db: &Database, letters: u32) {
    db.run(&format!(
        "INSERT INTO sea_mq.dlq_messages (context, original_subject, subscription, event_type, event_version, aggregate_type, aggregate_id,
            payload, headers, reason, failure_count, error, last_failed_at, discarded_at, dlq_message_id)
         SELECT 'orders', 'orders.event.made.v1', 'bench__s1', 'made', 1, 'order', n::text, '{{}}', '{{}}', 'poison', 1, 'no', now(), now(), n::text
         FROM generate_series(1, {letters}) n"
    ))
    .await;
}

/// Keeps some thousand events before the relay, until it is told that that is enough.
async fn feed(db: Database, enough: Arc<AtomicBool>, piece: u32) {
    while !enough.load(Ordering::Relaxed) {
        if workload::pending(&db).await > 10_000 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        } else {
            backlog(&db, piece).await;
        }
    }
}

async fn backlog(db: &Database, events: u32) {
    db.run(&format!("SELECT count({}) FROM generate_series(100001, 100000 + {events}) n", workload::emit("n"))).await;
}

/// Reads beside a relay that has a backlog all the time, with a large log and many letters that are decided.
async fn while_it_drains(gateway: &Gateway, stage: &Stage, options: &Options, found: &mut Found) -> Outcome<()> {
    let db = stage.connect().await;
    burden::retain(stage, options.retained_events).await?;
    decide_letters(&db, options.retained_events / 10).await;
    workload::stop_relay(stage).await;
    backlog(&db, options.drain_events).await;
    workload::start_relay(stage).await;
    let enough = Arc::new(AtomicBool::new(false));
    let feeder = tokio::spawn(feed(stage.connect().await, enough.clone(), (options.drain_events / 4).max(1000)));
    let urls = READS.map(|path| format!("{}{path}", gateway.url));
    let turn = AtomicUsize::new(0);
    let next = || &urls[turn.fetch_add(1, Ordering::Relaxed) % urls.len()];
    let read = tokio::task::block_in_place(|| load(gateway, 2, options.seconds, |client| client.get(next())));
    let left = workload::pending(&db).await;
    enough.store(true, Ordering::Relaxed);
    feeder.await?;
    let figure = format!("reads while the relay drains, p95 ({} events wait at the end)", whole(left as f64));
    found.tail("reads_busy", &figure, &read?.0, 0.95, "≤ 200 ms");
    Ok(())
}
