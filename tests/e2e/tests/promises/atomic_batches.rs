//! A stream with `atomic_transactions` holds all of a transaction or none of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use harness::{Broker, BrokerOptions, Connector, Database, EVENTS, Stage, StageOptions, Stored, kill, ledger, until};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_postgres::Error;
use uuid::Uuid;

use crate::SOON;

const LONG: Duration = Duration::from_secs(120);

/// Every event says which transaction it is of, which of its events it is, and how many there are.
async fn transaction(db: &Database, number: i64, size: i32) -> Result<(), Error> {
    let emit = "SELECT count(sea_mq.emit('order', $1::bigint::text, 'Counted',
        jsonb_build_object('t', $1::bigint, 'n', n, 'of', $2::int))) FROM generate_series(1, $2::int) n";
    db.query_one(emit, &[&number, &size]).await.map(|_| ())
}

/// Asserts that the transactions stand one after the other in the stream, each whole and in its own order. Returns their
/// numbers and sizes.
fn transactions(stored: &[Stored]) -> Vec<(i64, i64)> {
    let mut found = Vec::new();
    let mut rest = stored;
    while let Some(first) = rest.first() {
        let (number, size) = (first.number("t"), first.number("of"));
        let (own, others) = rest.split_at(rest.len().min(usize::try_from(size).unwrap_or(0)));
        let events: Vec<_> = own.iter().map(|one| (one.number("t"), one.number("n"))).collect();
        let whole: Vec<_> = (1..=size).map(|n| (number, n)).collect();
        assert_eq!(events, whole, "transaction {number} of {size} events, at sequence {}", first.sequence);
        found.push((number, size));
        rest = others;
    }
    found
}

/// Asserts that the messages are one batch.
fn assert_batch(stored: &[Stored]) {
    for (place, one) in stored.iter().enumerate() {
        assert_eq!(one.header("Nats-Batch-Id"), stored[0].header("Nats-Batch-Id"), "{one:?}");
        assert_eq!(one.header("Nats-Batch-Sequence"), (place + 1).to_string());
        assert_eq!(one.header("Nats-Batch-Commit"), if place + 1 == stored.len() { "1" } else { "" });
    }
    assert_ne!(stored[0].header("Nats-Batch-Id"), "");
}

async fn atomic(name: &str) -> Stage {
    let stage = Stage::new(name).await;
    stage.connect().await.run("SELECT sea_mq.create_stream('orders', atomic_transactions => true)").await;
    stage
}

async fn until_stored(stage: &Stage, events: u64) -> Vec<Stored> {
    stage.broker.until_count(EVENTS, events, LONG).await;
    let stored = stage.broker.stored(EVENTS).await;
    assert_eq!(stored.len() as u64, events);
    stored
}

/// How many transactions were not published as one, and the last of them.
async fn not_atomic(stage: &Stage) -> (i64, String) {
    let sql = "SELECT to_jsonb(t) FROM sea_mq.stream_status t WHERE stream = 'ORDERS_EVENTS'";
    let status: Value = stage.connect().await.value(sql, &[]).await;
    (status["not_atomic"].as_i64().unwrap_or(-1), status["last_not_atomic"].as_str().unwrap_or("").to_owned())
}

async fn until_not_atomic(stage: &Stage, count: i64) -> String {
    until("the transactions are counted", SOON, async || not_atomic(stage).await.0 >= count).await;
    let (found, last) = not_atomic(stage).await;
    assert_eq!(found, count, "{last}");
    last
}

/// What the database says about where its events are is where they are.
async fn assert_places(stage: &Stage, stored: &[Stored]) {
    let db = stage.connect().await;
    until("all is recorded", SOON, async || {
        db.value("SELECT NOT EXISTS (SELECT FROM sea_mq.outbox_events WHERE stream_seq IS NULL)", &[]).await
    })
    .await;
    let rows = db.query("SELECT id, stream_seq FROM sea_mq.outbox_events", &[]).await.expect("cannot read the outbox");
    let said: HashMap<Uuid, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let found: HashMap<Uuid, i64> = stored.iter().map(|one| (one.id(), one.sequence.cast_signed())).collect();
    assert_eq!(said, found);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_transaction_is_one_batch_up_to_1000_events() {
    let stage = atomic("batches").await;
    let db = stage.connect().await;
    for (number, size) in [(1, 1), (2, 2), (3, 1000), (4, 1001), (5, 3)] {
        transaction(&db, number, size).await.expect("cannot emit");
    }
    db.run("BEGIN; SELECT sea_mq.emit('order', '6', 'Undone', '{}'); ROLLBACK").await;
    db.run(
        "BEGIN;
         SELECT sea_mq.emit('order', '7', 'Counted', '{\"t\": 7, \"n\": 1, \"of\": 3}');
         SAVEPOINT a; SELECT sea_mq.emit('order', '7', 'Undone', '{}'); ROLLBACK TO a;
         SAVEPOINT b; SELECT sea_mq.emit('order', '7', 'Counted', '{\"t\": 7, \"n\": 2, \"of\": 3}'); RELEASE b;
         SELECT sea_mq.emit('order', '7', 'Counted', '{\"t\": 7, \"n\": 3, \"of\": 3}');
         COMMIT",
    )
    .await;
    let stored = until_stored(&stage, 2010).await;
    assert_eq!(transactions(&stored), [(1, 1), (2, 2), (3, 1000), (4, 1001), (5, 3), (7, 3)]);
    for (from, to) in [(1, 3), (3, 1003), (2004, 2007), (2007, 2010)] {
        assert_batch(&stored[from..to]);
    }
    assert!(stored[..1].iter().chain(&stored[1003..2004]).all(|one| one.header("Nats-Batch-Id").is_empty()));
    let last = until_not_atomic(&stage, 1).await;
    assert!(last.contains("1000 events"), "{last}");
    assert_places(&stage, &stored).await;
    stage.until_ok().await;
}

/// The reader takes a thousand events at a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_that_the_readers_chunks_cut_are_whole() {
    let stage = atomic("cut").await;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.stop()").await;
    until("the relay has ended", SOON, async || stage.relays().await.is_empty()).await;
    let mut expected = Vec::new();
    for (number, size) in (1..).zip([700, 700, 1000, 1, 999, 1000, 300, 2500, 17]) {
        transaction(&db, number, size).await.expect("cannot emit");
        expected.push((number, i64::from(size)));
    }
    db.run("SELECT sea_mq.start()").await;
    let stored = until_stored(&stage, expected.iter().map(|(_, size)| size.unsigned_abs()).sum()).await;
    assert_eq!(transactions(&stored), expected);
    let mut rest = stored.as_slice();
    for (_, size) in expected {
        let (own, others) = rest.split_at(usize::try_from(size).expect("sizes are positive"));
        match size {
            2..=1000 => assert_batch(own),
            _ => assert!(own.iter().all(|one| one.header("Nats-Batch-Id").is_empty())),
        }
        rest = others;
    }
    until_not_atomic(&stage, 1).await;
    assert_places(&stage, &stored).await;
}

/// Writers that commit transactions of many sizes at once, so that their events stand mixed in the log.
struct Writers {
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
}

impl Writers {
    async fn start(stage: &Stage) -> Self {
        stage.connect().await.run("CREATE TABLE committed (t bigint, size int)").await;
        let (stop, stopped) = watch::channel(false);
        let connector = Arc::new(stage.connector());
        let mut tasks = JoinSet::new();
        for writer in 0..8 {
            tasks.spawn(write(Arc::clone(&connector), writer, stopped.clone()));
        }
        Self { tasks, stop }
    }

    /// Ends them and checks the stream against what they committed.
    async fn finish(mut self, stage: &Stage) -> Vec<Stored> {
        self.stop.send(true).expect("the writers listen");
        while let Some(task) = self.tasks.join_next().await {
            task.expect("a writer failed");
        }
        let db = stage.connect().await;
        let rows = db.query("SELECT t, size::bigint FROM committed", &[]).await.expect("cannot read committed");
        let committed: Vec<(i64, i64)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        let stored = until_stored(stage, committed.iter().map(|(_, size)| size.unsigned_abs()).sum()).await;
        let found = transactions(&stored);
        ledger::assert_same_set(&committed, &found);
        // A writer's transactions follow each other, so they do in the stream.
        let mut last = HashMap::new();
        for (number, _) in &found {
            let before = last.insert(number % 8, *number);
            assert!(before.is_none_or(|before| before < *number), "{number} after {before:?}");
        }
        eprintln!("{} transactions, {} events", found.len(), stored.len());
        stored
    }
}

async fn write(connector: Arc<Connector>, writer: i64, stopped: watch::Receiver<bool>) {
    let mut rng = SmallRng::seed_from_u64(writer.unsigned_abs());
    let mut number = writer;
    while !*stopped.borrow() {
        if let Ok(db) = connector.try_connect().await {
            // An error means that the server went away; what it committed before that is in `committed`.
            while !*stopped.borrow() && write_one(&db, number, &mut rng).await.is_ok() {
                number += 8;
                // The workload: no more than the broker can take.
                tokio::time::sleep(Duration::from_millis(rng.random_range(0..150))).await;
            }
        }
        number += 8;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn write_one(db: &Database, number: i64, rng: &mut SmallRng) -> Result<(), Error> {
    let size = [1, 2, 10, 100, rng.random_range(1..=300)][rng.random_range(0..5)];
    db.batch_execute("BEGIN").await?;
    transaction(db, number, size).await?;
    db.execute("INSERT INTO committed VALUES ($1, $2)", &[&number, &size]).await?;
    db.batch_execute(if rng.random_bool(0.1) { "ROLLBACK" } else { "COMMIT" }).await
}

/// Looks at the last message of the stream over and over, through whatever happens to the broker: it is always the last
/// of its transaction.
struct Watcher {
    task: tokio::task::JoinHandle<u64>,
    stop: watch::Sender<bool>,
}

impl Watcher {
    fn start(broker: &Broker) -> Self {
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(look(broker.url(), stopped));
        Self { task, stop }
    }

    async fn finish(self) {
        self.stop.send(true).expect("the watcher listens");
        let looks = self.task.await.expect("the watcher saw a part of a transaction");
        eprintln!("looked {looks} times");
        assert!(looks > 100, "looked {looks} times");
    }
}

async fn look(url: String, stopped: watch::Receiver<bool>) -> u64 {
    let mut looks = 0;
    while !*stopped.borrow() {
        let Ok(client) = async_nats::connect(&url).await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let Ok(stream) = jetstream::new(client).get_stream_no_info(EVENTS).await else { continue };
        while !*stopped.borrow() {
            // There is none yet, or no broker just now.
            let Ok(message) = stream.get_last_raw_message_by_subject("orders.event.>").await else { break };
            let body: Value = serde_json::from_slice(&message.payload).expect("bodies are JSON");
            assert_eq!(body["n"], body["of"], "the stream ends in the middle of a transaction: {body}");
            looks += 1;
            // It is not to take the processor from what it looks at.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    looks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_killed_while_writers_write_never_shows_a_part_of_a_transaction() {
    let stage = atomic("batches_relay_killed").await;
    let (writers, watcher) = (Writers::start(&stage).await, Watcher::start(&stage.broker));
    for round in 1..=4_u64 {
        stage.broker.until_count(EVENTS, round * 3000, LONG).await;
        kill(stage.relay().await);
    }
    stage.broker.until_count(EVENTS, 15_000, LONG).await;
    let stored = writers.finish(&stage).await;
    watcher.finish().await;
    assert_places(&stage, &stored).await;
    assert_eq!(not_atomic(&stage).await.0, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_killed_while_writers_write_never_shows_a_part_of_a_transaction() {
    let mut stage = atomic("batches_broker_killed").await;
    let (writers, watcher) = (Writers::start(&stage).await, Watcher::start(&stage.broker));
    for round in 1..=4_u64 {
        stage.broker.until_count(EVENTS, round * 3000, LONG).await;
        stage.broker.kill();
        stage.broker.start().await;
    }
    stage.broker.until_count(EVENTS, 15_000, LONG).await;
    let stored = writers.finish(&stage).await;
    watcher.finish().await;
    assert_places(&stage, &stored).await;
    assert_eq!(not_atomic(&stage).await.0, 0);
    stage.until_ok().await;
}

/// What is lost may stand in the log before what is left: transactions that committed at the same time stand mixed there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_lost_its_end_gets_it_again_once_and_whole() {
    let mut stage = atomic("batches_lost_end").await;
    let writers = Writers::start(&stage).await;
    let db = stage.connect().await;
    for round in 1..=3_u64 {
        stage.broker.until_count(EVENTS, round * 4000, LONG).await;
        stage.broker.stop();
        stage.broker.remember();
        stage.broker.start().await;
        let kept = stage.broker.count(EVENTS).await.cast_signed();
        let more = "SELECT last_sequence > $1::bigint + 1000 FROM sea_mq.stream_status WHERE stream = 'ORDERS_EVENTS'";
        until("more is acknowledged", LONG, async || db.value(more, &[&kept]).await).await;
        stage.broker.stop();
        stage.broker.go_back();
        stage.broker.start().await;
    }
    let stored = writers.finish(&stage).await;
    assert_places(&stage, &stored).await;
    let losses: i64 =
        stage.connect().await.value("SELECT losses FROM sea_mq.stream_status WHERE stream = $1", &[&EVENTS]).await;
    assert_eq!(losses, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_batches_gets_the_messages_one_by_one_and_it_shows() {
    let broker = BrokerOptions { minor: Some("2.11"), ..BrokerOptions::default() };
    let stage = StageOptions { broker, ..StageOptions::default() }.start("batches_older").await;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.create_stream('orders', atomic_transactions => true)").await;
    let expected = [(1, 1), (2, 2), (3, 1500), (4, 1), (5, 10)];
    for (number, size) in expected {
        transaction(&db, number, size).await.expect("cannot emit");
    }
    let stored = until_stored(&stage, 1514).await;
    assert_eq!(transactions(&stored), expected.map(|(number, size)| (number, i64::from(size))));
    assert!(stored.iter().all(|one| one.header("Nats-Batch-Id").is_empty()));
    until_not_atomic(&stage, 3).await;
    stage.until_problem("problem LIKE '%ORDERS_EVENTS as one%'").await;
    db.run("SELECT sea_mq.alter_stream('ORDERS_EVENTS', atomic_transactions => false)").await;
    stage.until_ok().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_can_be_turned_on_and_off() {
    let stage = Stage::new("batches_on_off").await;
    let db = stage.connect().await;
    transaction(&db, 1, 3).await.expect("cannot emit");
    assert!(until_stored(&stage, 3).await.iter().all(|one| one.header("Nats-Batch-Id").is_empty()));
    let allowed = async || {
        stage.broker.stream(EVENTS).await.is_some_and(|stream| stream.cached_info().config.allow_atomic_publish)
    };
    assert!(!allowed().await);
    db.run("SELECT sea_mq.alter_stream('ORDERS_EVENTS', atomic_transactions => true)").await;
    until("the stream takes batches", SOON, &allowed).await;
    transaction(&db, 2, 3).await.expect("cannot emit");
    assert_batch(&until_stored(&stage, 6).await[3..]);
    db.run("SELECT sea_mq.alter_stream('ORDERS_EVENTS', atomic_transactions => false)").await;
    until("the stream takes no batches", SOON, async || !allowed().await).await;
    transaction(&db, 3, 3).await.expect("cannot emit");
    let stored = until_stored(&stage, 9).await;
    assert!(stored[6..].iter().all(|one| one.header("Nats-Batch-Id").is_empty()));
    assert_eq!(not_atomic(&stage).await.0, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_somebody_else_that_takes_no_batches_is_used_as_it_is_and_it_shows() {
    let stage = Stage::new("batches_foreign").await;
    let config = jetstream::stream::Config {
        name: EVENTS.to_owned(),
        subjects: vec!["orders.event.>".to_owned()],
        ..Default::default()
    };
    stage.broker.jetstream().create_stream(config).await.expect("cannot create the stream");
    let db = stage.connect().await;
    db.run("SELECT sea_mq.create_stream('orders', managed => false, atomic_transactions => true)").await;
    transaction(&db, 1, 5).await.expect("cannot emit");
    transaction(&db, 2, 1).await.expect("cannot emit");
    assert_eq!(transactions(&until_stored(&stage, 6).await), [(1, 5), (2, 1)]);
    let last = until_not_atomic(&stage, 1).await;
    assert!(last.contains("does not take atomic batches"), "{last}");
    stage.until_problem("problem LIKE '%ORDERS_EVENTS as one%'").await;
}

/// Somebody else published a message with the id of an event to come, before what the relay knows as its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_with_a_message_that_the_stream_has_is_sent_one_by_one_and_it_shows() {
    let stage = atomic("batches_duplicate").await;
    let db = stage.connect().await;
    transaction(&db, 1, 2).await.expect("cannot emit");
    until_stored(&stage, 2).await;
    let id = Uuid::now_v7();
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Nats-Msg-Id", id.to_string().as_str());
    let sending = stage.broker.jetstream().publish_with_headers("orders.event.foreign", headers, "{}".into()).await;
    sending.expect("cannot publish").await.expect("the message was not stored");
    transaction(&db, 2, 2).await.expect("cannot emit");
    until_stored(&stage, 5).await;
    let settled = "SELECT last_sequence = 5 FROM sea_mq.stream_status WHERE stream = 'ORDERS_EVENTS'";
    until("the cursor is behind it", SOON, async || db.value(settled, &[]).await).await;
    // So that it is not what the relay found when it looked for who else publishes.
    db.run("SELECT sea_mq.stop()").await;
    until("the relay has ended", SOON, async || stage.relays().await.is_empty()).await;
    db.run("SELECT sea_mq.start()").await;

    db.run("BEGIN").await;
    let emitted = db.emit("3", "Counted", json!({})).await;
    db.run(&format!("SELECT sea_mq.emit('order', '3', 'Counted', '{{}}', event_id => '{id}')")).await;
    let last = db.emit("3", "Counted", json!({})).await;
    db.run("COMMIT").await;
    transaction(&db, 4, 2).await.expect("cannot emit");
    let stored = until_stored(&stage, 9).await;
    let ids: Vec<_> = stored[5..7].iter().map(Stored::id).collect();
    assert_eq!(ids, [emitted, last]);
    assert_batch(&stored[7..]);
    let words = until_not_atomic(&stage, 1).await;
    assert!(words.contains("refused the batch"), "{words}");
}
