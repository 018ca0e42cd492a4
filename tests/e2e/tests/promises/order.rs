//! Serialisation order, and no head-of-line blocking by the database.

use std::time::Duration;

use harness::{EVENTS, Stage, StageOptions, Stored, ledger, settled, sleeps, until};
use serde_json::json;

use crate::writers::{Emit, Writers};
use crate::{A_WHILE, SOON};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twelve_writers_that_emit_under_the_lock_are_stored_in_the_order_of_their_locks() {
    let stage = Stage::new("after_lock").await;
    Writers::start(&stage, Emit::AfterLock).await.finish(&stage, Duration::from_secs(8)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twelve_writers_that_emit_before_the_lock_are_stored_in_the_order_of_their_locks() {
    let stage = Stage::new("before_lock").await;
    Writers::start(&stage, Emit::BeforeLock).await.finish(&stage, Duration::from_secs(8)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_one_transaction_keep_the_order_of_their_calls() {
    let stage = Stage::new("one_transaction").await;
    let db = stage.connect().await;
    db.run(
        "BEGIN;
         SELECT count(sea_mq.emit('order', '1', 'Counted', jsonb_build_object('n', n))) FROM generate_series(1, 20000) n;
         SAVEPOINT a;
         SELECT count(sea_mq.emit('order', '1', 'Counted', jsonb_build_object('n', -n))) FROM generate_series(1, 20000) n;
         ROLLBACK TO a;
         SAVEPOINT b;
         SELECT count(sea_mq.emit('order', '1', 'Counted', jsonb_build_object('n', n))) FROM generate_series(20001, 40000) n;
         RELEASE b;
         SELECT sea_mq.emit('bill', '1', 'Counted', '{\"n\": 1}', context => 'billing');
         SELECT count(sea_mq.emit('order', '1', 'Counted', jsonb_build_object('n', n))) FROM generate_series(40001, 50000) n;
         COMMIT",
    )
    .await;
    stage.broker.until_count(EVENTS, 50_000, SOON).await;
    stage.broker.until_count("BILLING_EVENTS", 1, SOON).await;
    let numbers: Vec<i64> = stage.broker.stored(EVENTS).await.iter().map(|one| one.number("n")).collect();
    ledger::assert_same(&(1..=50_000).collect::<Vec<i64>>(), &numbers);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_commit_is_published() {
    let stage = Stage::new("late_commit").await.described().await;
    let (late, other) = (stage.connect().await, stage.connect().await);
    late.run("BEGIN").await;
    let first = late.emit("1", "Emitted", json!({})).await;
    let second = other.emit("2", "Emitted", json!({})).await;
    stage.assert_stored(&[second]).await;
    late.run("COMMIT").await;
    stage.assert_stored(&[second, first]).await;
}

/// What the first event of a context has to do for it, it has not done yet: nobody else can see it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_commit_of_the_first_event_of_a_context_delays_no_other() {
    let stage = Stage::new("late_first").await;
    let db = stage.connect().await;
    db.run("BEGIN").await;
    let first = db.emit("1", "Prepared", json!({})).await;
    db.run("PREPARE TRANSACTION 'first'").await;
    let second = db.emit("2", "Emitted", json!({})).await;
    stage.assert_stored(&[second]).await;
    db.run("SELECT sea_mq.emit('bill', '1', 'BillSent', '{}', context => 'billing')").await;
    stage.broker.until_count("BILLING_EVENTS", 1, SOON).await;
    db.run("COMMIT PREPARED 'first'").await;
    stage.assert_stored(&[second, first]).await;
    stage.until_ok().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_commits_of_prepared_transactions_are_published() {
    let stage = Stage::new("late_prepared").await.described().await;
    let db = stage.connect().await;
    let mut expected = Vec::new();
    let mut prepared = Vec::new();
    // Their rows are in the log, with places before those of all that follows, and nobody can see them yet.
    for number in 0..10 {
        db.run("BEGIN").await;
        prepared.push(db.emit(&number.to_string(), "Prepared", json!({})).await);
        db.run(&format!("PREPARE TRANSACTION 'late{number}'")).await;
        expected.push(db.emit("x", "Emitted", json!({})).await);
    }
    stage.assert_stored(&expected).await;
    for number in (0..10).rev() {
        db.run(&format!("COMMIT PREPARED 'late{number}'")).await;
        expected.push(prepared[number]);
        stage.assert_stored(&expected).await;
        expected.push(db.emit("x", "Emitted", json!({})).await);
        stage.assert_stored(&expected).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_commit_while_the_relay_was_stopped_is_published() {
    let stage = Stage::new("late_stopped").await.described().await;
    let db = stage.connect().await;
    db.run("BEGIN").await;
    let late = db.emit("1", "Prepared", json!({})).await;
    db.run("PREPARE TRANSACTION 'late'").await;
    let early = db.emit("2", "Emitted", json!({})).await;
    stage.assert_stored(&[early]).await;
    db.run("SELECT sea_mq.stop()").await;
    until("the relay has ended", SOON, async || stage.relays().await.is_empty()).await;
    db.run("COMMIT PREPARED 'late'").await;
    db.run("SELECT sea_mq.start()").await;
    stage.assert_stored(&[early, late]).await;
}

/// The commit is under way and its place in the log is taken, when the session is made to wait: for a replica that
/// does not exist. With a lock that commits take (as NOTIFY does) all others would wait with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_waits_holds_up_no_other_and_is_published() {
    let stage = StageOptions::default()
        .setting("synchronous_commit", "local")
        .setting("synchronous_standby_names", "nobody")
        .start("waiting_commit")
        .await
        .described()
        .await;
    let db = stage.connect().await;
    let waiting = stage.connect().await;
    let pid: i32 = waiting.value("SELECT pg_backend_pid()", &[]).await;
    waiting.run("SET synchronous_commit = on").await;
    let emit = tokio::spawn(async move { waiting.emit("1", "Emitted", json!({})).await });
    until("the commit waits", SOON, async || {
        db.value::<bool>(
            "SELECT wait_event IS NOT DISTINCT FROM 'SyncRep' FROM pg_stat_activity WHERE pid = $1",
            &[&pid],
        )
        .await
    })
    .await;

    let other = db.emit("2", "Emitted", json!({})).await;
    stage.assert_stored(&[other]).await;
    assert!(!emit.is_finished());

    // Gives up waiting for the replica; the transaction is committed all the same.
    db.run(&format!("SELECT pg_cancel_backend({pid})")).await;
    let late = emit.await.expect("the commit failed");
    stage.assert_stored(&[other, late]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_transaction_delays_its_own_events_only() {
    let stage = Stage::new("open").await.described().await;
    let (open, db) = (stage.connect().await, stage.connect().await);
    db.run("CREATE TABLE work (n int)").await;
    open.run("BEGIN; INSERT INTO work VALUES (1)").await;
    let late = open.emit("1", "Emitted", json!({})).await;
    let mut expected = Vec::new();
    for _ in 0..20 {
        expected.push(db.emit("2", "Emitted", json!({})).await);
        stage.assert_stored(&expected).await;
    }
    open.run("COMMIT").await;
    expected.push(late);
    stage.assert_stored(&expected).await;
}

/// The open transaction keeps the cursor's snapshot from moving on entirely; what was read once is not read again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_transaction_does_not_make_the_relay_read_everything_again() {
    let stage = StageOptions::default().setting("sea_mq.poll_interval", "50ms").start("rescan").await.described().await;
    let db = stage.connect().await;
    db.run("BEGIN").await;
    let late = db.emit("1", "Prepared", json!({})).await;
    db.run("PREPARE TRANSACTION 'late'").await;
    db.run("SELECT count(sea_mq.emit('order', '2', 'Counted', '{}')) FROM generate_series(1, 20000)").await;
    stage.broker.until_count(EVENTS, 20_000, SOON).await;

    let read = async || -> i64 {
        db.value(
            "SELECT coalesce(sum(s.seq_tup_read + coalesce(s.idx_tup_fetch, 0)), 0)::bigint FROM pg_stat_user_tables s
             JOIN pg_inherits i ON i.inhrelid = s.relid WHERE i.inhparent = 'sea_mq.outbox_log'::regclass",
            &[],
        )
        .await
    };
    until("the relay has reported what it read", SOON, async || read().await >= 20_000).await;
    let before = settled("what the relay reports to have read", A_WHILE, SOON, &read).await;
    for n in 1..=50_u64 {
        db.emit("3", "Counted", json!({})).await;
        stage.broker.until_count(EVENTS, 20_000 + n, SOON).await;
    }
    let again = settled("what the relay reports to have read", A_WHILE, SOON, &read).await - before;
    assert!(again < 10_000, "{again} rows were read for 50 events");

    db.run("COMMIT PREPARED 'late'").await;
    stage.broker.until_count(EVENTS, 20_051, SOON).await;
    assert_eq!(stage.broker.stored(EVENTS).await.last().map(Stored::id), Some(late));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_wakes_the_relay() {
    let stage = StageOptions::default().setting("sea_mq.poll_interval", "10min").start("wake").await;
    let db = stage.connect().await;
    stage.until_connected().await;
    let mut expected = Vec::new();
    for _ in 0..50 {
        expected.push(db.emit("1", "Emitted", json!({})).await);
        // Far less than the poll, far more than it takes.
        stage.broker.until_count(EVENTS, expected.len() as u64, Duration::from_secs(5)).await;
    }
    stage.assert_stored(&expected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_nothing_can_be_published_no_commit_wakes_the_relay() {
    let mut stage = StageOptions::default().setting("sea_mq.poll_interval", "10min").start("no_wake").await;
    let db = stage.connect().await;
    stage.until_connected().await;
    let mut expected = vec![db.emit("1", "Emitted", json!({})).await];
    stage.broker.until_count(EVENTS, 1, SOON).await;
    stage.broker.stop();
    until("the relay has noticed", SOON, async || {
        db.value("SELECT state <> 'connected' FROM sea_mq.relay_status", &[]).await
    })
    .await;
    let relay = db.value("SELECT pid FROM pg_stat_activity WHERE backend_type = 'sea_mq relay'", &[]).await;
    let before = sleeps(relay);
    for _ in 0..1000 {
        expected.push(db.emit("1", "Emitted", json!({})).await);
    }
    let woken = sleeps(relay) - before;
    // It tries to connect now and then.
    assert!(before > 0 && woken < 200, "1000 commits woke the relay {woken} times");
    stage.broker.start().await;
    stage.broker.until_count(EVENTS, expected.len() as u64, SOON).await;
    stage.assert_stored(&expected).await;
}
