//! Random calls of `emit` by several sessions: each is refused with a documented error or does what it says; the streams
//! hold what was committed and nothing else.

mod arguments;
mod session;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use harness::{Chance, Database, Stage, StageOptions, Stored, until};
use uuid::Uuid;

use session::{Emitted, Session};

/// Within which all that was emitted is published, on a slow machine.
const LONG: Duration = Duration::from_secs(120);

const SESSIONS: usize = 4;

const TYPES: [&str; 4] = ["OrderCreated", "order_paid", "HTTPRequestSent", "Größe_geändert"];

/// Headers that sea_mq or the broker set.
const OWN: [&str; 12] = [
    "Nats-Msg-Id",
    "X-Correlation-Id",
    "X-Causation-Id",
    "X-Event-Version",
    "X-Event-Type",
    "X-Aggregate-Type",
    "X-Aggregate-Id",
    "X-Source-Context",
    "X-Sea-Visibility",
    "Nats-Expected-Last-Sequence",
    "Nats-Expected-Last-Msg-Id",
    "Content-Type",
];

/// A stage whose log shows SQLSTATEs.
async fn stage(name: &str) -> Stage {
    let stage = StageOptions::default().setting("log_line_prefix", "%m [%p] %b %e ").start(name).await;
    stage.until_connected().await;
    stage
}

/// Asserts that nothing went wrong that no session was told.
async fn assert_unharmed(stage: &Stage, relay: i32) {
    assert_eq!(stage.relays().await, [relay], "the relay is the one that it was");
    for bad in [" XX000 ", "panicked", "terminated by signal", "PANIC:", "stack overflow"] {
        let found: Vec<String> =
            stage.cluster.log().lines().filter(|line| line.contains(bad)).map(str::to_owned).collect();
        assert!(found.is_empty(), "the log has {bad:?}: {found:?}");
    }
}

/// So many calls, dealt out to the sessions.
async fn sessions(stage: &Stage, chance: &mut Chance, calls: u64, types: &[&'static str]) -> Vec<Session> {
    let mut tasks = tokio::task::JoinSet::new();
    for name in 0..SESSIONS {
        let session = Session::new(stage.connect().await, chance.fork(), name, types);
        tasks.spawn(session.run(calls / SESSIONS as u64));
    }
    let sessions = tasks.join_all().await;
    let mut refused: BTreeMap<&str, u64> = BTreeMap::new();
    for (code, count) in sessions.iter().flat_map(|session| &session.refused) {
        *refused.entry(code).or_default() += count;
    }
    let calls: u64 = sessions.iter().map(|session| session.calls).sum();
    let events: usize = sessions.iter().map(|session| session.committed.len()).sum();
    eprintln!("{calls} calls, refused {refused:?}; {events} events committed");
    assert!(events as u64 * 12 > calls, "hardly any call is good: the generator is no good");
    sessions
}

/// Waits until all is published and asserts that the streams hold it, and that what is held back waits.
async fn assert_published(stage: &Stage, db: &Database, sessions: &[Session]) {
    let pending = "SELECT count(*) = 0 FROM sea_mq.outbox_events WHERE NOT published AND seq IS NOT NULL";
    until("all is published", LONG, async || db.value(pending, &[]).await).await;
    let failed: Vec<String> = db.values("SELECT error FROM sea_mq.publish_failures", &[]).await;
    assert!(failed.is_empty(), "emit took what the broker does not: {failed:?}");
    let mut found: HashMap<Uuid, (String, Stored)> = HashMap::new();
    for stream in db.values::<String>("SELECT name FROM sea_mq.streams WHERE kind = 'event'", &[]).await {
        for message in stage.broker.stored(&stream).await {
            let double = found.insert(message.id(), (stream.clone(), message));
            assert!(double.is_none(), "stored twice: {double:?}");
        }
    }
    let mut waiting = 0;
    for session in sessions {
        let mut last: HashMap<String, u64> = HashMap::new();
        for emitted in &session.committed {
            if emitted.given.held_back() {
                waiting += 1;
                continue;
            }
            let (stream, message) = found.remove(&emitted.id).unwrap_or_else(|| panic!("lost: {emitted:?}"));
            assert_is(emitted, &message);
            let before = last.insert(stream, message.sequence);
            assert!(before.is_none_or(|before| before < message.sequence), "out of order: {emitted:?}");
        }
    }
    assert!(found.is_empty(), "nobody committed these: {found:?}");
    assert_eq!(db.value::<i64>("SELECT count(*) FROM sea_mq.scheduled_events", &[]).await, waiting, "events held back");
}

fn assert_is(emitted: &Emitted, message: &Stored) {
    assert_eq!(message.subject, emitted.subject);
    assert_eq!(message.body, emitted.payload.as_bytes(), "{emitted:?}");
    assert_eq!(message.header("X-Source-Context"), emitted.context);
    for (name, value) in &emitted.headers {
        assert_eq!(message.header(name), value, "{name} of {emitted:?}");
    }
    let strange: Vec<_> = message
        .headers
        .keys()
        .filter(|name| {
            !name.starts_with("ce-") && !OWN.contains(&name.as_str()) && !emitted.headers.contains_key(*name)
        })
        .collect();
    assert!(strange.is_empty(), "nobody gave the headers {strange:?}: {emitted:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_calls_of_emit_do_what_they_say_or_are_refused() {
    let (mut chance, calls) = Chance::new(3000);
    let stage = stage("fuzz_emit").await;
    let relay = stage.relay().await;
    let sessions = sessions(&stage, &mut chance, calls, &TYPES).await;
    let db = stage.connect().await;
    assert_published(&stage, &db, &sessions).await;
    assert_unharmed(&stage, relay).await;
}

/// Contracts that some of the random events keep.
async fn register(db: &Database) {
    for (context, version) in [("orders", 1), ("orders", 2), ("billing", 1), ("shipping", 2)] {
        for (event_type, schema) in [
            ("OrderCreated", "true"),
            ("order_paid", r#"{"type": ["object", "array", "null"], "maxProperties": 3}"#),
            (
                "HTTPRequestSent",
                r##"{"anyOf": [{"type": "string"}, {"items": {"$ref": "#"}}], "x-sea-visibility": "public"}"##,
            ),
            // Of no payload.
            ("Größe_geändert", "false"),
        ] {
            let sql = "SELECT sea_mq.register_event($1, $2, $3, $4::text::jsonb)";
            assert!(db.value::<bool>(sql, &[&context, &event_type, &version, &schema]).await, "{event_type} is new");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_calls_of_emit_that_are_not_refused_keep_their_contracts() {
    let (mut chance, calls) = Chance::new(1500);
    let stage = stage("fuzz_contracts").await;
    let db = stage.connect().await;
    register(&db).await;
    db.run(&format!("ALTER DATABASE {} SET sea_mq.contracts = 'enforce'", stage.database())).await;
    let relay = stage.relay().await;
    let sessions = sessions(
        &stage,
        &mut chance,
        calls,
        &["OrderCreated", "OrderCreated", "order_paid", "HTTPRequestSent", "Größe_geändert"],
    )
    .await;
    for code in ["23514", "42704"] {
        assert!(sessions.iter().any(|session| session.refused.contains_key(code)), "none is refused with {code}");
    }
    for emitted in sessions.iter().flat_map(|session| &session.committed) {
        let (name, version) = (&emitted.given.event_type, emitted.given.event_version);
        let sql = "SELECT count(*) FROM sea_mq.contract_violations($1, $2, $3, $4::text::jsonb)";
        let violations: i64 = db.value(sql, &[&emitted.context, name, &version, &emitted.payload]).await;
        assert_eq!(violations, 0, "{emitted:?}");
    }
    assert_published(&stage, &db, &sessions).await;
    assert_unharmed(&stage, relay).await;
}
