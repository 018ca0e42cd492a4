//! Handlers run in a pool of processes: one that is slow keeps no other subscription waiting.

use std::path::Path;

use harness::{Database, Stage, StageOptions, holds_for, isolate_mounts, mount_small, until};

use crate::receiving::{
    LONG, assert_handled_once, assert_in_order, emit_numbers, make_recorder, prepared, recorded, until_recorded, worker,
};
use crate::{A_WHILE, SOON};

/// Makes the handler `gated`, which records what it gets once nobody holds the gate's row, and a gate.
async fn make_gate(db: &Database) {
    db.run(
        "CREATE TABLE gate (id int PRIMARY KEY);
         INSERT INTO gate VALUES (1);
         CREATE FUNCTION gated(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$
         BEGIN
             PERFORM FROM public.gate FOR SHARE;
             PERFORM public.record(e);
         END $$",
    )
    .await;
}

/// Holds the gate until the session ends.
async fn hold(stage: &Stage) -> Database {
    let holder = stage.connect().await;
    holder.run("BEGIN; SELECT FROM gate FOR UPDATE").await;
    holder
}

/// Waits until so many handlers wait at the gate.
async fn until_at_the_gate(db: &Database, count: i64) {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND backend_type LIKE 'sea_mq%'";
    until(&format!("{count} wait at the gate"), LONG, async || db.value::<i64>(sql, &[]).await == count).await;
}

async fn until_all_recorded(db: &Database, subscription: &str, count: usize) {
    until(&format!("{subscription} has handled {count}"), LONG, async || {
        recorded(db, subscription).await.len() == count
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_is_stuck_keeps_no_other_subscription_waiting() {
    let stage = prepared("stuck").await;
    let db = stage.connect().await;
    make_gate(&db).await;
    db.run(
        "SELECT sea_mq.subscribe('app__quick', 'orders', 'record'), sea_mq.subscribe('app__stuck', 'orders', 'gated', timeout => '5 min'),
            sea_mq.subscribe('app__pulled', 'orders')",
    )
    .await;
    let holder = hold(&stage).await;
    emit_numbers(&db, 1, 10).await;
    until_at_the_gate(&db, 1).await;
    emit_numbers(&db, 11, 500).await;
    until_all_recorded(&db, "app__quick", 500).await;
    let waiting = "SELECT count(*) FROM sea_mq.inbox_messages WHERE subscription = 'app__pulled'";
    until("all are stored", SOON, async || db.value::<i64>(waiting, &[]).await == 500).await;
    assert!(recorded(&db, "app__stuck").await.is_empty());
    let working =
        "SELECT backend_type FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND backend_type LIKE 'sea_mq%'";
    assert_eq!(db.value::<String>(working, &[]).await, "sea_mq handler");
    drop(holder);
    until_all_recorded(&db, "app__stuck", 500).await;
    assert_eq!(recorded(&db, "app__stuck").await, (1..=500).collect::<Vec<i64>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_broker_a_stuck_handler_keeps_no_other_waiting_either() {
    let stage = StageOptions { no_url: true, ..StageOptions::default() }.start("stuck_local").await;
    let db = stage.connect().await;
    make_recorder(&db).await;
    make_gate(&db).await;
    db.run(
        "SELECT sea_mq.subscribe('app__quick', 'orders', 'record'),
            sea_mq.subscribe('app__stuck', 'orders', 'gated', timeout => '5 min', workers => 2)",
    )
    .await;
    let holder = hold(&stage).await;
    emit_numbers(&db, 1, 100).await;
    until_at_the_gate(&db, 2).await;
    emit_numbers(&db, 101, 500).await;
    until_all_recorded(&db, "app__quick", 500).await;
    assert!(recorded(&db, "app__stuck").await.is_empty());
    drop(holder);
    until_all_recorded(&db, "app__stuck", 500).await;
    let mut once = recorded(&db, "app__stuck").await;
    once.sort_unstable();
    assert_eq!(once, (1..=500).collect::<Vec<i64>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_all_processes_are_stuck_others_come() {
    let stage = prepared("all_stuck").await;
    let db = stage.connect().await;
    make_gate(&db).await;
    db.run("ALTER SYSTEM SET sea_mq.handler_processes = 2").await;
    db.run("SELECT pg_reload_conf()").await;
    for n in 1..=4 {
        db.run(&format!("SELECT sea_mq.subscribe('app__stuck{n}', 'orders', 'gated', timeout => '5 min')")).await;
    }
    let holder = hold(&stage).await;
    emit_numbers(&db, 1, 1).await;
    until_at_the_gate(&db, 4).await;
    db.run("SELECT sea_mq.subscribe('app__quick', 'orders', 'record', start_from => 'all')").await;
    until_all_recorded(&db, "app__quick", 1).await;
    drop(holder);
    until_recorded(&stage, 5).await;
    // What was beyond the number ends soon.
    let count = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'sea_mq handler'";
    until("two are left", SOON, async || db.value::<i64>(count, &[]).await == 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_attempt_that_succeeds_leaves_no_row_to_be_deleted() {
    const COUNT: i64 = 3000;
    let stage = prepared("pool_rows").await;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.subscribe('app__all', 'orders', 'record', workers => 3)").await;
    emit_numbers(&db, 1, COUNT).await;
    assert_handled_once(&stage, "app__all", COUNT).await;
    assert_in_order(&db, 0..50, COUNT).await;
    // The processes report their numbers when they are idle.
    let logged = "SELECT sum(n_tup_ins)::bigint FROM pg_stat_user_tables WHERE relname LIKE 'inbox_log_%'";
    until("the statistics are there", SOON, async || db.value::<Option<i64>>(logged, &[]).await == Some(COUNT)).await;
    let waited = "SELECT n_tup_ins + n_tup_upd + n_tup_del FROM pg_stat_user_tables WHERE relname = 'inbox_pending'";
    assert_eq!(db.value::<i64>(waited, &[]).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_comes_anew_leaves_alone_what_is_under_way() {
    let stage = prepared("pool_orphans").await;
    let db = stage.connect().await;
    make_gate(&db).await;
    db.run(
        "SELECT sea_mq.subscribe('app__stuck', 'orders', 'gated', timeout => '5 min'), sea_mq.subscribe('app__quick', 'orders', 'record')",
    )
    .await;
    let holder = hold(&stage).await;
    emit_numbers(&db, 1, 20).await;
    until_at_the_gate(&db, 1).await;
    until_all_recorded(&db, "app__quick", 20).await;
    let before = worker(&stage, "sea_mq consumer", 0).await;
    db.run(&format!("SELECT pg_terminate_backend({before})")).await;
    worker(&stage, "sea_mq consumer", before).await;
    emit_numbers(&db, 21, 40).await;
    until_all_recorded(&db, "app__quick", 40).await;
    holds_for("nobody else handles the same", A_WHILE, async || {
        let sql =
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND backend_type LIKE 'sea_mq%'";
        db.value::<i64>(sql, &[]).await == 1
    })
    .await;
    drop(holder);
    until_all_recorded(&db, "app__stuck", 40).await;
    assert_eq!(recorded(&db, "app__stuck").await, (1..=40).collect::<Vec<i64>>());
    let failures = "SELECT count(*) FROM sea_mq.inbox_messages WHERE errors IS NOT NULL AND errors <> '[]'";
    assert_eq!(db.value::<i64>(failures, &[]).await, 0, "none of them has failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_worker_slot_the_consumer_handles_everything_itself() {
    const COUNT: i64 = 500;
    // The launcher, relay and consumer, and PostgreSQL's own launcher of logical replication.
    let stage = StageOptions::default().setting("max_worker_processes", "4").start("pool_no_slot").await;
    let db = stage.connect().await;
    make_recorder(&db).await;
    db.run(
        "SELECT sea_mq.subscribe('app__all', 'orders', 'record', workers => 3), sea_mq.subscribe('app__other', 'orders', 'record')",
    )
    .await;
    emit_numbers(&db, 1, COUNT).await;
    for subscription in ["app__all", "app__other"] {
        until_all_recorded(&db, subscription, 500).await;
    }
    let consumer = worker(&stage, "sea_mq consumer", 0).await;
    let others = format!("SELECT count(*) FROM effects WHERE pid <> {consumer}");
    assert_eq!(db.value::<i64>(&others, &[]).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_handler_process_is_started_where_none_is_wanted() {
    let stage = prepared("pool_off").await;
    let db = stage.connect().await;
    db.run("ALTER SYSTEM SET sea_mq.handler_processes = 0").await;
    db.run("SELECT pg_reload_conf()").await;
    db.run(
        "SELECT sea_mq.subscribe('app__one', 'orders', 'record'), sea_mq.subscribe('app__two', 'orders', 'record', workers => 2)",
    )
    .await;
    emit_numbers(&db, 1, 200).await;
    for subscription in ["app__one", "app__two"] {
        until_all_recorded(&db, subscription, 200).await;
    }
    assert_eq!(db.value::<i64>("SELECT count(DISTINCT pid) FROM effects", &[]).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_there_is_no_memory_to_share_the_consumer_handles_by_itself_and_says_so() {
    if !isolate_mounts() {
        eprintln!("skipped: mounting a small disk needs root");
        return;
    }
    mount_small(Path::new("/dev/shm"), 16);
    let stage = prepared("no_memory").await;
    let db = stage.connect().await;
    let filler = Path::new("/dev/shm/filler");
    std::fs::write(filler, vec![0; 16 << 20]).expect_err("it is smaller");
    db.run("SELECT sea_mq.subscribe('app__one', 'orders', 'record'), sea_mq.subscribe('app__two', 'orders', 'record')")
        .await;
    let problem =
        "SELECT EXISTS (SELECT FROM sea_mq.problems WHERE problem LIKE '%no memory to share%No space left on device%')";
    let mut emitted = 0;
    until("a problem says so", LONG, async || {
        emitted += 1;
        emit_numbers(&db, emitted, emitted).await;
        db.value::<bool>(problem, &[]).await
    })
    .await;
    let handled = usize::try_from(emitted).unwrap();
    for subscription in ["app__one", "app__two"] {
        until_all_recorded(&db, subscription, handled).await;
    }
    assert_eq!(stage.cluster.log().matches("the pool of handlers does nothing").count(), 1);
    std::fs::remove_file(filler).expect("it is there");
    until("the pool is back, and the problem gone", LONG, async || {
        emitted += 1;
        emit_numbers(&db, emitted, emitted).await;
        !db.value::<bool>(problem, &[]).await
    })
    .await;
    for subscription in ["app__one", "app__two"] {
        until_all_recorded(&db, subscription, usize::try_from(emitted).unwrap()).await;
        assert_eq!(recorded(&db, subscription).await, (1..=emitted).collect::<Vec<i64>>());
    }
}
