//! Databases and extensions come and go, copies stay quiet.

use std::time::Duration;

use harness::{Cluster, EVENTS, Stage, StageOptions, Stored, holds_for, until, until_some};
use serde_json::json;
use uuid::Uuid;

use crate::{A_WHILE, SOON};

/// What the processes of sea_mq in a database are.
async fn workers_of(cluster: &Cluster, database: &str) -> Vec<String> {
    let sql = "SELECT backend_type FROM pg_stat_activity WHERE backend_type LIKE 'sea_mq%' AND datname = $1 ORDER BY 1";
    cluster.connect("postgres").await.values(sql, &[&database]).await
}

/// Every database with the extension has one of each.
const STANDING: [&str; 2] = ["sea_mq consumer", "sea_mq relay"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn create_extension_starts_the_workers_and_drop_extension_ends_them() {
    let stage = Stage::new("extension").await;
    stage.cluster.run("CREATE DATABASE second").await;
    let db = stage.cluster.connect("second").await;
    for _ in 0..2 {
        db.run("CREATE EXTENSION sea_mq").await;
        until("the workers run", SOON, async || workers_of(&stage.cluster, "second").await == STANDING).await;
        db.run("DROP EXTENSION sea_mq").await;
        until("no worker runs", SOON, async || workers_of(&stage.cluster, "second").await.is_empty()).await;
        let left: i64 = db.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'sea_mq'", &[]).await;
        assert_eq!(left, 0);
    }
    db.run("BEGIN; CREATE EXTENSION sea_mq; ROLLBACK").await;
    db.run("CREATE EXTENSION sea_mq").await;
    db.run("SELECT sea_mq.emit('bill', '1', 'BillSent', '{}', context => 'billing')").await;
    stage.broker.until_count("BILLING_EVENTS", 1, SOON).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn databases_are_dropped_renamed_and_copied_while_the_workers_run() {
    let stage = Stage::new("database").await;
    let id = stage.connect().await.emit("1", "Emitted", json!({})).await;
    stage.assert_stored(&[id]).await;
    let quick = async |sql: &str| {
        until("the test's own connections are gone", SOON, async || {
            let db = stage.cluster.connect("postgres").await;
            let others =
                "SELECT count(*) FROM pg_stat_activity WHERE datname <> 'postgres' AND backend_type = 'client backend'";
            db.value::<i64>(others, &[]).await == 0
        })
        .await;
        let db = stage.cluster.connect("postgres").await;
        tokio::time::timeout(Duration::from_secs(4), db.run(sql)).await.unwrap_or_else(|_| panic!("{sql} is blocked"));
    };
    quick("CREATE DATABASE copy TEMPLATE app").await;
    quick("ALTER DATABASE app RENAME TO renamed").await;
    let db = stage.cluster.connect("renamed").await;
    let second: Uuid = db.value("SELECT sea_mq.emit('order', '2', 'Emitted', '{}')", &[]).await;
    stage.assert_stored(&[id, second]).await;
    drop(db);
    quick("DROP DATABASE renamed").await;
    until("its workers have ended", SOON, async || workers_of(&stage.cluster, "renamed").await.is_empty()).await;
    quick("DROP DATABASE copy").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_that_are_stopped_and_started_at_once_come_back_alone() {
    let stage = Stage::new("restarted").await;
    let db = stage.connect().await;
    stage.relay().await;
    for _ in 0..5 {
        db.run("SELECT sea_mq.stop(), sea_mq.start()").await;
    }
    let id = db.emit("1", "Emitted", json!({})).await;
    stage.assert_stored(&[id]).await;
    let one_of_each = async || workers_of(&stage.cluster, stage.database()).await == STANDING;
    until("there is one of each", SOON, one_of_each).await;
    holds_for("they stay the only ones", A_WHILE, one_of_each).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_are_stopped_and_started() {
    let stage = Stage::new("stopped").await;
    let db = stage.connect().await;
    stage.relay().await;
    stage.consumer().await;
    db.run("SELECT sea_mq.stop()").await;
    until("the workers have ended", SOON, async || stage.workers().await.is_empty()).await;
    let id = db.emit("1", "Emitted", json!({})).await;
    holds_for("it stays so", A_WHILE, async || stage.workers().await.is_empty()).await;
    stage.until_problem("NOT r.running").await;
    assert_eq!(stage.broker.count(EVENTS).await, 0);
    db.run("SELECT sea_mq.start()").await;
    stage.assert_stored(&[id]).await;
    stage.consumer().await;
    assert_eq!(db.value::<String>("SELECT sea_mq.start()", &[]).await, "is running");
    assert_eq!(workers_of(&stage.cluster, stage.database()).await, STANDING);
    stage.until_ok().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminated_relay_comes_back() {
    let stage = Stage::new("terminated").await;
    let db = stage.connect().await;
    let first = stage.relay().await;
    db.run(&format!("SELECT pg_terminate_backend({first})")).await;
    until_some("another relay runs", SOON, async || stage.relays().await.into_iter().find(|pid| *pid != first)).await;
    let id = db.emit("1", "Emitted", json!({})).await;
    stage.assert_stored(&[id]).await;
    // Cancelling is for queries; the relay has none to give up and goes on.
    let relay = stage.relay().await;
    db.run(&format!("SELECT pg_cancel_backend({relay})")).await;
    let second = db.emit("1", "Emitted", json!({})).await;
    stage.assert_stored(&[id, second]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminated_consumer_comes_back() {
    let stage = Stage::new("terminated_consumer").await;
    let db = stage.connect().await;
    let (relay, first) = (stage.relay().await, stage.consumer().await);
    db.run(&format!("SELECT pg_terminate_backend({first})")).await;
    until("another consumer runs", SOON, async || stage.consumer().await != first).await;
    assert_eq!(stage.relay().await, relay, "the relay was restarted");
}

/// Without it no worker that ends is started again, and after a crash none at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminated_launcher_comes_back_and_brings_others_back() {
    let stage = Stage::new("terminated_launcher").await;
    let db = stage.connect().await;
    let relay = stage.relay().await;
    let launcher = async || {
        let sql = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'sea_mq launcher'";
        db.values::<i32>(sql, &[]).await.pop()
    };
    let first = until_some("the launcher runs", SOON, launcher).await;
    db.run(&format!("SELECT pg_terminate_backend({first})")).await;
    until("another launcher runs", SOON, async || launcher().await.is_some_and(|pid| pid != first)).await;
    assert_eq!(stage.relay().await, relay, "the relay was restarted");
    db.run(&format!("SELECT pg_terminate_backend({relay})")).await;
    until("another relay runs", SOON, async || stage.relays().await.into_iter().any(|pid| pid != relay)).await;
    let id = db.emit("1", "Emitted", json!({})).await;
    stage.assert_stored(&[id]).await;
}

/// In the middle of a statement it comes to say nothing, and the launcher that would be told of its end is not the one that
/// started it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_ends_without_a_word_comes_back_under_the_next_launcher() {
    let stage = Stage::new("relay_without_launcher").await;
    let db = stage.connect().await;
    let first = db.emit("1", "Emitted", json!({})).await;
    stage.assert_stored(&[first]).await;
    let relay = stage.relay().await;
    let lock = stage.connect().await;
    lock.run("BEGIN; LOCK TABLE sea_mq.cursors, sea_mq.relay_journal").await;
    let second = db.emit("1", "Emitted", json!({})).await;
    until("the relay waits for the lock", SOON, async || {
        let sql = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock')";
        db.value(sql, &[&relay]).await
    })
    .await;
    let launcher = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'sea_mq launcher'";
    let launcher: i32 = db.value(launcher, &[]).await;
    assert!(db.value::<bool>("SELECT pg_terminate_backend($1, 30000)", &[&launcher]).await);
    assert!(db.value::<bool>("SELECT pg_terminate_backend($1, 30000)", &[&relay]).await);
    lock.run("COMMIT").await;
    until("another relay runs", SOON, async || stage.relays().await.into_iter().any(|pid| pid != relay)).await;
    stage.assert_stored(&[first, second]).await;
}

/// Each has its place to itself, and keeps it through errors, which take its lock away for a moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_keep_their_places_through_errors() {
    let stage = Stage::new("places").await;
    let db = stage.connect().await;
    let holders = async || -> Vec<String> {
        let sql = "SELECT a.backend_type FROM pg_locks l JOIN pg_stat_activity a USING (pid)
            WHERE l.classid = 'pg_extension'::regclass AND l.objsubid >= 1000 AND l.granted AND a.datname = current_database()
            ORDER BY 1";
        db.values(sql, &[]).await
    };
    until("each has its place", SOON, async || holders().await == STANDING).await;
    let relay = stage.relay().await;
    let other = stage.connect().await;
    other.run("BEGIN; LOCK TABLE sea_mq.streams").await;
    let error = "sea_mq relay: canceling statement due to lock timeout";
    until("the relay has an error", SOON, async || stage.cluster.log().contains(error)).await;
    other.run("ROLLBACK").await;
    assert_eq!(holders().await, STANDING);
    assert_eq!(stage.relay().await, relay, "the relay was restarted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_preloading_events_are_kept_and_start_publishes_them() {
    let stage = StageOptions { not_preloaded: true, ..StageOptions::default() }.start("not_preloaded").await;
    stage.cluster.run("CREATE DATABASE second").await;
    let second = stage.cluster.connect("second").await;
    second.run("CREATE EXTENSION sea_mq").await;
    assert!(
        second.notices().iter().any(|notice| notice.contains("shared_preload_libraries")),
        "{:?}",
        second.notices()
    );

    let db = stage.connect().await;
    let first = db.emit("1", "Emitted", json!({})).await;
    let status = stage.until_problem("NOT r.running").await;
    assert!(status["hint"].as_str().is_some_and(|text| text.contains("shared_preload_libraries")), "{status}");
    db.run("SELECT sea_mq.start()").await;
    stage.assert_stored(&[first]).await;
    let second = db.emit("2", "Emitted", json!({})).await;
    stage.assert_stored(&[first, second]).await;
    // Each waits for the place of the one that has it, in vain.
    db.run("SELECT sea_mq.start(), sea_mq.start()").await;
    until("more are there", SOON, async || stage.workers().await.len() > STANDING.len()).await;
    until("they have gone", SOON, async || workers_of(&stage.cluster, stage.database()).await == STANDING).await;
    db.run("SELECT sea_mq.stop()").await;
    until("the workers have ended", SOON, async || stage.workers().await.is_empty()).await;
    assert_eq!(db.value::<String>("SELECT sea_mq.stop()", &[]).await, "was not running");
}

/// The original publishes some events and keeps others, is dumped, and dies; its copy says nothing until it is adopted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_dump_stays_quiet_until_it_is_adopted_and_then_loses_nothing() {
    let mut stage = Stage::new("dump").await;
    let db = stage.connect().await;
    let mut expected = Vec::new();
    for _ in 0..10 {
        expected.push(db.emit("1", "Published", json!({})).await);
    }
    stage.assert_stored(&expected).await;
    stage.until_ok().await;
    stage.broker.stop();
    for _ in 0..5 {
        expected.push(db.emit("1", "Kept", json!({})).await);
    }

    let mut copy = Cluster::new(
        &stage.directory.path().join("copy"),
        &[("shared_preload_libraries", "sea_mq"), ("sea_mq.nats_url", &stage.broker.url())],
    );
    copy.start().await;
    copy.run("CREATE DATABASE app").await;
    copy.run("ALTER DATABASE app SET sea_mq.context = 'orders'").await;
    stage.cluster.copy_database("app", &copy, "app");
    stage.cluster.crash();
    stage.broker.start().await;

    let db = copy.connect("app").await;
    let dumped: i64 = db.value("SELECT count(*) FROM sea_mq.outbox_events", &[]).await;
    assert_eq!(dumped, 15);
    until("the copy says that it is one", SOON, async || {
        db.value("SELECT NOT ok AND coalesce(hint LIKE '%adopt%', false) FROM sea_mq.status", &[]).await
    })
    .await;
    expected.push(db.emit("1", "InTheCopy", json!({})).await);
    holds_for("the copy stays quiet", A_WHILE, async || stage.broker.count(EVENTS).await == 10).await;

    db.run("SELECT sea_mq.adopt()").await;
    stage.broker.until_count(EVENTS, 16, SOON).await;
    let found: Vec<Uuid> = stage.broker.stored(EVENTS).await.iter().map(Stored::id).collect();
    harness::ledger::assert_same(&expected, &found);
    until("the copy is well", SOON, async || db.value("SELECT ok FROM sea_mq.status", &[]).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_made_from_another_as_template_stays_quiet() {
    let stage = Stage::new("template").await;
    let db = stage.connect().await;
    let first = db.emit("1", "Emitted", json!({})).await;
    stage.assert_stored(&[first]).await;
    drop(db);
    let postgres = stage.cluster.connect("postgres").await;
    until("the database can be copied", SOON, async || {
        postgres.batch_execute("CREATE DATABASE copy TEMPLATE app").await.is_ok()
    })
    .await;
    let copy = stage.cluster.connect("copy").await;
    copy.run("SELECT sea_mq.emit('order', '1', 'InTheCopy', '{}', context => 'orders')").await;
    until("the copy says that it is one", SOON, async || {
        copy.value("SELECT NOT ok AND coalesce(hint LIKE '%adopt%', false) FROM sea_mq.status", &[]).await
    })
    .await;
    let second = stage.connect().await.emit("2", "Emitted", json!({})).await;
    stage.assert_stored(&[first, second]).await;
    holds_for("the copy stays quiet", A_WHILE, async || stage.broker.count(EVENTS).await == 2).await;
}

/// SIGTERM may come before a process has said what it does then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_stopped_while_its_workers_start_stops() {
    let mut stage = Stage::new("stopped_at_once").await;
    for _ in 0..20 {
        stage.cluster.stop();
        stage.cluster.start().await;
    }
}
