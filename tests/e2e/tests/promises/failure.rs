//! Nothing is lost, doubled or reordered, whatever is killed in between.

use std::time::Duration;

use harness::{Database, EVENTS, Stage, StageOptions, freeze, holds_for, kill, ledger, resident_bytes, thaw, until};
use serde_json::json;

use crate::writers::{Emit, Writers};
use crate::{A_WHILE, SOON};

const LONG: Duration = Duration::from_secs(120);

async fn stop_relay(stage: &Stage, db: &Database) {
    db.run("SELECT sea_mq.stop()").await;
    until("the relay has ended", SOON, async || stage.relays().await.is_empty()).await;
}

/// The broker forgets message ids so soon that it is no help against doubles.
async fn forget_ids_soon(db: &Database) {
    db.run("SELECT sea_mq.create_stream('orders', duplicate_window => '100 ms')").await;
}

/// Emits events numbered from `first` to `last`, 10,000 a transaction.
async fn emit_numbers(db: &Database, first: i64, last: i64) {
    for from in (first..=last).step_by(10_000) {
        let to = last.min(from + 9_999);
        let sql = "SELECT count(sea_mq.emit('order', (n % 100)::text, 'Counted', jsonb_build_object('n', n,
            'text', 'An event of ordinary size has some text in it, and this is some text.'))) FROM generate_series($1::int8, $2) n";
        let emitted: i64 = db.value(sql, &[&from, &to]).await;
        assert_eq!(emitted, to - from + 1);
    }
}

async fn assert_numbers(stage: &Stage, last: i64) {
    stage.broker.until_count(EVENTS, last.unsigned_abs(), LONG).await;
    let mut numbers = Vec::new();
    stage.broker.for_each_stored(EVENTS, |one| numbers.push(one.number("n"))).await;
    ledger::assert_same(&(1..=last).collect::<Vec<i64>>(), &numbers);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_killed_among_100_000_events_loses_doubles_and_reorders_nothing() {
    let stage = Stage::new("relay_killed").await;
    let db = stage.connect().await;
    forget_ids_soon(&db).await;
    stop_relay(&stage, &db).await;
    emit_numbers(&db, 1, 100_000).await;
    db.run("SELECT sea_mq.start()").await;
    for stored in [5_000, 30_000, 60_000] {
        stage.broker.until_count(EVENTS, stored, LONG).await;
        kill(stage.relay().await);
    }
    assert_numbers(&stage, 100_000).await;
    holds_for("nothing more is stored", A_WHILE, async || stage.broker.count(EVENTS).await == 100_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_killed_while_writers_write_loses_doubles_and_reorders_nothing() {
    let stage = Stage::new("relay_killed_writers").await;
    let writers = Writers::start(&stage, Emit::BeforeLock).await;
    for round in 1..=3_u64 {
        stage.broker.until_count(EVENTS, round * 300, LONG).await;
        kill(stage.relay().await);
    }
    writers.finish(&stage, Duration::from_secs(4)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_killed_among_100_000_events_loses_doubles_and_reorders_nothing() {
    let mut stage = Stage::new("broker_killed").await;
    let db = stage.connect().await;
    forget_ids_soon(&db).await;
    stop_relay(&stage, &db).await;
    emit_numbers(&db, 1, 100_000).await;
    db.run("SELECT sea_mq.start()").await;
    for stored in [5_000, 30_000, 60_000] {
        stage.broker.until_count(EVENTS, stored, LONG).await;
        stage.broker.kill();
        stage.broker.start().await;
    }
    assert_numbers(&stage, 100_000).await;
    holds_for("nothing more is stored", A_WHILE, async || stage.broker.count(EVENTS).await == 100_000).await;
    stage.until_ok().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_killed_while_writers_write_loses_doubles_and_reorders_nothing() {
    let mut stage = Stage::new("broker_killed_writers").await;
    let writers = Writers::start(&stage, Emit::AfterLock).await;
    for round in 1..=3_u64 {
        stage.broker.until_count(EVENTS, round * 300, LONG).await;
        stage.broker.kill();
        stage.broker.start().await;
    }
    writers.finish(&stage, Duration::from_secs(4)).await;
}

/// Connections stay open and nothing answers: no error tells the relay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_hangs_is_waited_for() {
    let stage = StageOptions::default().setting("sea_mq.ack_timeout", "2s").start("broker_hangs").await;
    let db = stage.connect().await;
    emit_numbers(&db, 1, 1000).await;
    stage.broker.until_count(EVENTS, 1000, SOON).await;
    freeze(stage.broker.pid());
    emit_numbers(&db, 1001, 2000).await;
    // A connection is given up after the second ping without an answer, and one is sent every 10 s.
    until("the relay says what is wrong", LONG, async || {
        let sql = "SELECT EXISTS (SELECT FROM sea_mq.problems, sea_mq.relay_status r WHERE r.error IS NOT NULL)";
        db.value(sql, &[]).await
    })
    .await;
    thaw(stage.broker.pid());
    assert_numbers(&stage, 2000).await;
    stage.until_ok().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_of_the_whole_cluster_loses_doubles_and_reorders_nothing() {
    let mut stage = Stage::new("cluster_crash").await;
    let db = stage.connect().await;
    emit_numbers(&db, 1, 20_000).await;
    for round in 1..=3 {
        emit_numbers(&stage.connect().await, 20_000 * round + 1, 20_000 * (round + 1)).await;
        stage.cluster.crash();
        stage.cluster.start().await;
    }
    assert_numbers(&stage, 80_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_restart_of_the_cluster_loses_doubles_and_reorders_nothing() {
    let mut stage = Stage::new("cluster_restart").await;
    for round in 0..3 {
        emit_numbers(&stage.connect().await, 20_000 * round + 1, 20_000 * (round + 1)).await;
        stage.cluster.stop();
        stage.cluster.start().await;
    }
    assert_numbers(&stage, 60_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_away_at_the_start_is_waited_for() {
    let mut stage = StageOptions { broker_later: true, ..StageOptions::default() }.start("broker_away").await;
    let db = stage.connect().await;
    emit_numbers(&db, 1, 1000).await;
    let status = stage.until_problem("r.error IS NOT NULL").await;
    assert_eq!(status["pending"], 1000, "{status}");
    let relay = stage.relay().await;
    holds_for("the relay stays up", A_WHILE, async || stage.relays().await == [relay]).await;
    stage.broker.start().await;
    assert_numbers(&stage, 1000).await;
    stage.until_ok().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_million_events_from_before_the_relay_are_drained_in_bounded_memory() {
    const EVENT_COUNT: i64 = 1_000_000;
    const LIMIT: u64 = 300 << 20;
    let stage = Stage::new("million").await;
    let db = stage.connect().await;
    emit_numbers(&db, 1, 1).await;
    stage.broker.until_count(EVENTS, 1, SOON).await;
    let baseline = resident_bytes(stage.relay().await);
    stop_relay(&stage, &db).await;
    emit_numbers(&db, 2, EVENT_COUNT).await;
    assert_eq!(stage.broker.count(EVENTS).await, 1);

    db.run("SELECT sea_mq.start()").await;
    let relay = stage.relay().await;
    let mut most = 0;
    until("the backlog is drained", LONG, async || {
        most = most.max(resident_bytes(relay));
        stage.broker.count(EVENTS).await >= EVENT_COUNT.unsigned_abs()
    })
    .await;
    eprintln!("the relay took {} MB, and {} MB at rest", most >> 20, baseline >> 20);
    assert!(most > 0 && most < baseline + LIMIT, "{most} bytes, {baseline} at rest");
    assert_eq!(stage.relay().await, relay, "the relay was restarted");
    assert_numbers(&stage, EVENT_COUNT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_transaction_of_300_000_events_is_sent_in_bounded_memory() {
    const LIMIT: u64 = 150 << 20;
    let stage = Stage::new("large_transaction").await;
    let db = stage.connect().await;
    emit_numbers(&db, 1, 1).await;
    let backend: i32 = db.value("SELECT pg_backend_pid()", &[]).await;
    let (before, relay) = (resident_bytes(backend), stage.relay().await);
    let mut most = 0;
    let emitting = async {
        db.run("BEGIN").await;
        emit_numbers(&db, 2, 300_000).await;
        db.run("COMMIT").await;
    };
    let mut emitting = std::pin::pin!(emitting);
    loop {
        tokio::select! {
            () = &mut emitting => break,
            () = tokio::time::sleep(Duration::from_millis(20)) => most = most.max(resident_bytes(backend)),
        }
    }
    eprintln!("the session took {} MB, and {} MB before", most >> 20, before >> 20);
    assert!(most > 0 && most < before + LIMIT, "{most} bytes, {before} before");
    assert_numbers(&stage, 300_000).await;
    assert_eq!(stage.relay().await, relay, "the relay was restarted");
}

/// The event's commit is only in memory: nobody flushes the log for it (the WAL writer is frozen), and the relay cannot
/// come to record what it published, which would flush it too (the table is locked). So the relay alone can have seen to
/// it that the crash did not take the event back, before it published it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_a_crash_could_take_back_is_published() {
    let mut stage = StageOptions::default()
        .setting("autovacuum", "off")
        .setting("bgwriter_lru_maxpages", "0")
        .start("flushed")
        .await;
    let db = stage.connect().await;
    let first = db.emit("1", "Emitted", json!({})).await;
    stage.assert_stored(&[first]).await;
    stage.until_ok().await;
    let wal_writer: i32 = db.value("SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'", &[]).await;
    freeze(wal_writer);
    let lock = stage.connect().await;
    lock.run("BEGIN; LOCK TABLE sea_mq.cursors, sea_mq.relay_journal IN SHARE MODE").await;

    db.run("SET synchronous_commit = off").await;
    let second = db.emit("1", "Emitted", json!({})).await;
    stage.broker.until_count(EVENTS, 2, SOON).await;
    stage.cluster.crash();
    stage.cluster.start().await;
    let db = stage.connect().await;
    let kept: i64 = db.value("SELECT count(*) FROM sea_mq.outbox_events WHERE id = $1", &[&second]).await;
    assert_eq!(kept, 1, "the event was published and then lost by the database");
    stage.assert_stored(&[first, second]).await;
}

/// Seals the same promise against the whole machinery: asynchronous commits under load, and a crash at any moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asynchronous_commits_that_a_crash_took_back_are_not_in_the_stream() {
    let mut stage = StageOptions::default()
        .setting("synchronous_commit", "off")
        .setting("wal_writer_delay", "10s")
        .setting("wal_writer_flush_after", "0")
        .start("async_commit")
        .await;
    for round in 1..=3_u64 {
        let connector = stage.connector();
        let writer = tokio::spawn(async move {
            let Ok(db) = connector.try_connect().await else { return };
            while db.execute("SELECT sea_mq.emit('order', '1', 'Counted', '{}')", &[]).await.is_ok() {}
        });
        stage.broker.until_count(EVENTS, round * 500, SOON).await;
        stage.cluster.crash();
        writer.await.expect("the writer failed");
        stage.cluster.start().await;
    }
    let db = stage.connect().await;
    let committed: Vec<uuid::Uuid> = db.values("SELECT id FROM sea_mq.outbox_events ORDER BY seq", &[]).await;
    stage.assert_stored(&committed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_lost_everything_is_refilled() {
    let mut stage = Stage::new("refilled").await;
    let db = stage.connect().await;
    emit_numbers(&db, 1, 5000).await;
    assert_numbers(&stage, 5000).await;
    stage.until_ok().await;
    stage.broker.stop();
    stage.broker.forget_everything();
    stage.broker.start().await;
    emit_numbers(&db, 5001, 5010).await;
    assert_numbers(&stage, 5010).await;
    let losses: i64 = db.value("SELECT losses FROM sea_mq.stream_status WHERE stream = $1", &[&EVENTS]).await;
    assert_eq!(losses, 1);
}
