//! Databases and extensions come and go, copies stay quiet.

use std::time::Duration;

use harness::{Cluster, EVENTS, Stage, StageOptions, Stored, holds_for, until, until_some};
use serde_json::json;
use uuid::Uuid;

use crate::{A_WHILE, SOON};

async fn relays_of(cluster: &Cluster, database: &str) -> i64 {
    let db = cluster.connect("postgres").await;
    db.value("SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'sea_mq%' AND datname = $1", &[&database])
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn create_extension_starts_a_relay_and_drop_extension_ends_it() {
    let stage = Stage::new("extension").await;
    stage.cluster.run("CREATE DATABASE second").await;
    let db = stage.cluster.connect("second").await;
    for _ in 0..2 {
        db.run("CREATE EXTENSION sea_mq").await;
        until("a relay runs", SOON, async || relays_of(&stage.cluster, "second").await == 1).await;
        db.run("DROP EXTENSION sea_mq").await;
        until("no relay runs", SOON, async || relays_of(&stage.cluster, "second").await == 0).await;
        let left: i64 = db.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'sea_mq'", &[]).await;
        assert_eq!(left, 0);
    }
    db.run("BEGIN; CREATE EXTENSION sea_mq; ROLLBACK").await;
    db.run("CREATE EXTENSION sea_mq").await;
    db.run("SELECT sea_mq.emit('bill', '1', 'BillSent', '{}', context => 'billing')").await;
    stage.broker.until_count("BILLING_EVENTS", 1, SOON).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn databases_are_dropped_renamed_and_copied_while_the_relay_runs() {
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
    until("its relay has ended", SOON, async || relays_of(&stage.cluster, "renamed").await == 0).await;
    quick("DROP DATABASE copy").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_is_stopped_and_started_at_once_comes_back_alone() {
    let stage = Stage::new("restarted").await;
    let db = stage.connect().await;
    stage.relay().await;
    for _ in 0..5 {
        db.run("SELECT sea_mq.stop(), sea_mq.start()").await;
    }
    let id = db.emit("1", "Emitted", json!({})).await;
    stage.assert_stored(&[id]).await;
    until("there is one relay", SOON, async || stage.relays().await.len() == 1).await;
    holds_for("it stays the only one", A_WHILE, async || stage.relays().await.len() == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_is_stopped_and_started() {
    let stage = Stage::new("stopped").await;
    let db = stage.connect().await;
    stage.relay().await;
    db.run("SELECT sea_mq.stop()").await;
    until("the relay has ended", SOON, async || stage.relays().await.is_empty()).await;
    let id = db.emit("1", "Emitted", json!({})).await;
    holds_for("it stays so", A_WHILE, async || stage.relays().await.is_empty()).await;
    stage.until_problem("NOT r.running").await;
    assert_eq!(stage.broker.count(EVENTS).await, 0);
    db.run("SELECT sea_mq.start()").await;
    stage.assert_stored(&[id]).await;
    db.run("SELECT sea_mq.start()").await;
    assert_eq!(stage.relays().await.len(), 1);
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
    db.run("SELECT sea_mq.stop()").await;
    until("the relay has ended", SOON, async || stage.relays().await.is_empty()).await;
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
