//! Endpoints outside: how many deliveries a second, how soon, and at what cost; and the look-ups beside them.
//!
//! The receiver runs on the same machine. The floor is a bare hyper client that sends the same bytes in the same run. Latencies are
//! from the return of COMMIT to the last byte of the request at the receiver, by one clock.

mod floor;
mod lookups;
mod rates;
mod server;
mod soon;

use harness::{Database, Stage, StageOptions, TestCertificates};
use serde_json::json;

use crate::report::{Found, Measured};
use crate::{Options, Outcome, say, workload};

/// How much of it.
struct Amounts {
    deliveries: u32,
    repetitions: u32,
    /// Events to each of a hundred endpoints.
    to_hundred: u32,
    slow: u32,
    relayed: u32,
    seconds: u32,
    retained: u32,
    links: u32,
}

impl Amounts {
    fn of(options: &Options) -> Self {
        let quick = options.retained_events < 100_000;
        let pick = |full, small| if quick { small } else { full };
        Self {
            deliveries: pick(20_000, 500),
            repetitions: options.repetitions,
            to_hundred: pick(400, 10),
            slow: pick(10_000, 500),
            relayed: pick(100_000, 2000),
            seconds: options.latency_seconds,
            retained: options.retained_events,
            links: pick(1_000_000, 5000),
        }
    }
}

/// # Errors
/// When something breaks; never because of a slow figure.
pub async fn measure(options: &Options) -> Outcome<Measured> {
    let amounts = Amounts::of(options);
    let directory = harness::Directory::new("bench-certificate");
    let certificates = TestCertificates::new(directory.path());
    let authority = certificates.certificate.display().to_string();
    say("endpoints: starting PostgreSQL and nats-server");
    let stage = StageOptions::default()
        .setting("fsync", "on")
        .setting("sea_mq.endpoint_allow_http", "on")
        .setting("sea_mq.endpoint_allowed_networks", "127.0.0.0/8,::1/128")
        .setting("sea_mq.endpoint_ca_file", &authority)
        .start("bench-endpoints")
        .await;
    let versions = workload::versions(&stage).await?;
    let db = stage.connect().await;
    db.run(workload::ORDERS).await;
    db.run("SELECT sea_mq.register_event('orders', 'OrderPlaced', 1, '{\"type\": \"object\"}', 'public')").await;
    let mut found = Found::new("endpoints");
    rates::measure(&stage, &db, &certificates, &amounts, &mut found).await?;
    soon::measure(&stage, &db, &amounts, &mut found).await?;
    lookups::measure(&db, &amounts, &mut found).await?;
    found.json.insert("versions".into(), versions);
    let title = format!("endpoints: deliveries of {} bytes, and what is looked up", workload::PAYLOAD_BYTES);
    let json = json!(found.json);
    Ok(Measured { key: "endpoints", title, rows: found.rows, panels: Vec::new(), json })
}

async fn create(db: &Database, name: &str, url: &str, more: &str) {
    db.run(&format!("SELECT sea_mq.create_endpoint('{name}', 'webhook', '{url}', connect_timeout => '15 s'{more})"))
        .await;
}

async fn drop_all(db: &Database) {
    db.run("SELECT sea_mq.drop_endpoint(endpoint, discard_pending => true) FROM sea_mq.endpoints").await;
}

/// Emits events in transactions of a thousand.
async fn backlog(stage: &Stage, events: u32) {
    let db = stage.connect().await;
    let emit = workload::emit("(100000 + i % 900000)");
    let mut left = events;
    while left > 0 {
        let now = left.min(1000);
        db.run(&format!("SELECT count({emit}) FROM generate_series(1, {now}) AS i")).await;
        left -= now;
    }
}
