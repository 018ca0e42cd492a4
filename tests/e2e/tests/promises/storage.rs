//! No bloat, space given back, and no tax: what the log leaves behind in the database.

use harness::{Database, EVENTS, StageOptions, holds_for, ledger, settled, until};
use serde_json::json;

use crate::{A_WHILE, SOON};

async fn emit(db: &Database, first: i64, last: i64) {
    let sql = "SELECT count(sea_mq.emit('order', '1', 'Counted', jsonb_build_object('n', n, 'text', repeat('x', 300))))
        FROM generate_series($1::int8, $2) n";
    let _: i64 = db.value(sql, &[&first, &last]).await;
}

async fn log_bytes(db: &Database) -> i64 {
    db.value(
        "SELECT sum(pg_total_relation_size(inhrelid))::bigint FROM pg_inherits WHERE inhparent = 'sea_mq.outbox_log'::regclass",
        &[],
    )
    .await
}

async fn until_published(db: &Database) {
    until("all is published", SOON, async || {
        db.value("SELECT pending = 0 FROM sea_mq.outbox_status WHERE kind = 'event'", &[]).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn emitting_rolling_back_and_relaying_leave_no_dead_tuple() {
    let stage = StageOptions::default().setting("autovacuum", "off").start("dead_tuples").await;
    let db = stage.connect().await;
    db.run("CREATE EXTENSION pgstattuple").await;
    for n in 0..500 {
        let end = if n % 3 == 0 { "ROLLBACK" } else { "COMMIT" };
        db.run(&format!(
            "BEGIN; SELECT sea_mq.emit('order', '1', 'Counted', '{{}}'); SAVEPOINT s;
             SELECT sea_mq.emit('order', '2', 'Counted', '{{}}'); ROLLBACK TO s; {end}"
        ))
        .await;
    }
    emit(&db, 1, 5000).await;
    until_published(&db).await;
    let row = db
        .query_one(
            "SELECT sum(t.tuple_count)::bigint, sum(t.dead_tuple_count)::bigint FROM pg_inherits i, pgstattuple(i.inhrelid) t
             WHERE i.inhparent IN ('sea_mq.outbox_log'::regclass, 'sea_mq.relay_journal'::regclass, 'sea_mq.cursor_log'::regclass)",
            &[],
        )
        .await
        .expect("cannot count tuples");
    let (live, dead): (i64, i64) = (row.get(0), row.get(1));
    assert!(live >= 5333, "{live} live tuples");
    assert_eq!(dead, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_slots_are_truncated_and_the_space_is_given_back() {
    let stage = StageOptions::default()
        .setting("sea_mq.retention", "2s")
        .setting("sea_mq.slot_size", "512kB")
        .setting("sea_mq.poll_interval", "100ms")
        .start("rotation")
        .await;
    let db = stage.connect().await;
    let mut most = 0;
    for round in 0..40 {
        emit(&db, round * 500 + 1, (round + 1) * 500).await;
        stage.broker.until_count(EVENTS, (round + 1).unsigned_abs() * 500, SOON).await;
        most = most.max(log_bytes(&db).await);
    }
    assert!(most > 1 << 20, "{most} bytes at most: nothing to give back");
    until("the space is given back", SOON, async || log_bytes(&db).await < 600 << 10).await;
    let numbers: Vec<i64> = stage.broker.stored(EVENTS).await.iter().map(|one| one.number("n")).collect();
    ledger::assert_same(&(1..=20_000).collect::<Vec<i64>>(), &numbers);
    // And it goes on.
    emit(&db, 20_001, 20_001).await;
    stage.broker.until_count(EVENTS, 20_001, SOON).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_unpublished_is_truncated() {
    let mut stage = StageOptions::default()
        .setting("sea_mq.retention", "1s")
        .setting("sea_mq.slot_size", "256kB")
        .setting("sea_mq.poll_interval", "100ms")
        .start("unpublished")
        .await;
    let db = stage.connect().await;
    emit(&db, 1, 10).await;
    stage.broker.until_count(EVENTS, 10, SOON).await;
    stage.broker.stop();
    for round in 0..20 {
        emit(&db, 11 + round * 250, 10 + (round + 1) * 250).await;
    }
    // One that is prepared is not published either, and not even visible.
    db.run("BEGIN").await;
    emit(&db, 5011, 5011).await;
    db.run("PREPARE TRANSACTION 'late'").await;
    holds_for("all unpublished events are in the log", A_WHILE, async || {
        db.value::<i64>("SELECT count(*) FROM sea_mq.outbox_events WHERE (payload->>'n')::int > 10", &[]).await == 5000
    })
    .await;
    stage.broker.start().await;
    stage.broker.until_count(EVENTS, 5010, SOON).await;
    holds_for("the prepared transaction stands", A_WHILE, async || stage.broker.count(EVENTS).await == 5010).await;
    db.run("COMMIT PREPARED 'late'").await;
    stage.broker.until_count(EVENTS, 5011, SOON).await;
    let numbers: Vec<i64> = stage.broker.stored(EVENTS).await.iter().map(|one| one.number("n")).collect();
    ledger::assert_same(&(1..=5011).collect::<Vec<i64>>(), &numbers);
    until("the space is given back", SOON, async || log_bytes(&db).await < 600 << 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_relay_writes_nothing_and_assigns_no_transaction_id() {
    let stage = StageOptions::default()
        .setting("sea_mq.poll_interval", "20ms")
        .setting("autovacuum", "off")
        .setting("checkpoint_timeout", "1h")
        // A server with replicas logs the running transactions now and then.
        .setting("wal_level", "minimal")
        .setting("max_wal_senders", "0")
        .start("idle")
        .await;
    let db = stage.connect().await;
    emit(&db, 1, 100).await;
    stage.until_ok().await;
    until_published(&db).await;
    let written = async || -> String {
        db.value("SELECT pg_current_wal_insert_lsn() || ' ' || pg_snapshot_xmax(pg_current_snapshot())", &[]).await
    };
    settled("what the server writes", A_WHILE, SOON, &written).await;
    let before = written().await;
    let relay = stage.relay().await;
    let after_connecting = settled("what the server writes", A_WHILE, SOON, &written).await;
    assert_eq!(before, after_connecting, "the relay {relay} is idle and the server writes");
    // The sensor works: an event is written.
    emit(&db, 101, 101).await;
    assert_ne!(before, written().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn emitting_sends_no_notify() {
    const ENOUGH_FOR_PAGES: u64 = 1000;
    let stage = StageOptions::default().start("notify").await;
    let db = stage.connect().await;
    // A listener that is in a transaction takes nothing out of the queue. Whole pages of it are counted.
    let listener = stage.connect().await;
    listener.run("LISTEN anybody").await;
    listener.run("BEGIN").await;
    let notified = async || -> bool { db.value("SELECT pg_notification_queue_usage() > 0", &[]).await };
    for _ in 0..ENOUGH_FOR_PAGES {
        db.emit("1", "Emitted", json!({})).await;
    }
    stage.broker.until_count(EVENTS, ENOUGH_FOR_PAGES, SOON).await;
    assert!(!notified().await);
    // The sensor works: that many NOTIFY are seen.
    for _ in 0..ENOUGH_FOR_PAGES {
        db.run("NOTIFY anybody").await;
    }
    assert!(notified().await);
}
