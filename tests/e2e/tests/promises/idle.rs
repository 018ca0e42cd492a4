//! Processes that have nothing to do end and come back, and a server with few worker slots serves its databases in turn.

use std::time::Duration;

use harness::{Chance, Cluster, EVENTS, Stage, StageOptions, holds_for, until};
use serde_json::json;
use uuid::Uuid;

use crate::identity::until_paused;
use crate::{A_WHILE, SOON};

/// A stage whose workers rest after a moment, with its stream there.
async fn resting(name: &str, timeout: &str) -> Stage {
    let stage = StageOptions::default().setting("sea_mq.idle_timeout", timeout).start(name).await.described().await;
    until("the stream is there", SOON, async || stage.broker.stream(EVENTS).await.is_some()).await;
    until_idle(&stage).await;
    stage
}

async fn until_idle(stage: &Stage) {
    until("relay and consumer have ended", SOON, async || stage.workers().await.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_with_nothing_to_do_end_and_an_event_starts_the_relay() {
    let stage = resting("idle", "300ms").await;
    let status = stage.status().await;
    assert_eq!((&status["ok"], &status["relay"]), (&json!(true), &json!("idle")), "{status}");
    let db = stage.connect().await;
    let idle: bool = db.value("SELECT NOT running AND since IS NOT NULL FROM sea_mq.relay_status", &[]).await;
    assert!(idle);
    let connected = "SELECT value FROM sea_mq.metrics() WHERE name = 'sea_mq_relay_connected'";
    assert!(db.value::<f64>(connected, &[]).await > 0.5, "it is no fault");
    let ids = vec![db.emit("order/1", "Placed", json!({"n": 1})).await];
    stage.broker.until_count(EVENTS, 1, SOON).await;
    stage.assert_stored(&ids).await;
    // Who asks for something has it started as well, and waits until it is ready.
    for _ in 0..5 {
        until_idle(&stage).await;
        let differences: i64 = db.value("SELECT count(*) FROM sea_mq.verify_stream('ORDERS_EVENTS')", &[]).await;
        assert_eq!(differences, 0);
    }
    db.run("SELECT sea_mq.create_stream('bills')").await;
    until("the other stream is there", SOON, async || stage.broker.stream("BILLS_EVENTS").await.is_some()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_events_around_the_relay_s_end_are_all_published() {
    let stage = resting("idle_race", "20ms").await;
    let db = stage.connect().await;
    let (mut chance, _) = Chance::new(1);
    let mut ids: Vec<Uuid> = Vec::new();
    for n in 0..1000 {
        ids.push(db.emit("order/1", "Placed", json!({"n": n})).await);
        // Most are about as far apart as the relay stays.
        tokio::time::sleep(Duration::from_millis(chance.within(0..40))).await;
    }
    stage.broker.until_count(EVENTS, 1000, SOON).await;
    stage.assert_stored(&ids).await;
    let starts = stage.cluster.log().matches("sea_mq relay started").count();
    assert!(starts > 10, "the relay has ended only {starts} times");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scheduled_event_is_published_although_the_relay_has_ended() {
    let stage = resting("idle_scheduled", "200ms").await;
    let db = stage.connect().await;
    db.run(
        "SELECT sea_mq.emit('order', '1', 'Placed', '{}', available_at => clock_timestamp() + interval '6 seconds')",
    )
    .await;
    until_idle(&stage).await;
    assert_eq!(stage.broker.count(EVENTS).await, 0, "it is not due yet");
    stage.broker.until_count(EVENTS, 1, SOON).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_subscription_needs_keeps_the_consumer_and_brings_it_back() {
    let stage = resting("idle_consumer", "300ms").await;
    let db = stage.connect().await;
    db.run("CREATE FUNCTION record(e sea_mq.event) RETURNS void LANGUAGE sql AS 'SELECT'").await;
    db.run("SELECT sea_mq.subscribe('app__all', 'orders', 'record')").await;
    let consumer = stage.consumer().await;
    holds_for("the consumer stays", A_WHILE, async || stage.consumer().await == consumer).await;
    db.run("SELECT sea_mq.unsubscribe('app__all')").await;
    until_idle(&stage).await;
}

/// Rests at once, as the original does: its settings are copied.
async fn cloned(stage: &Stage) -> Cluster {
    let mut clone = stage.cluster.base_backup(&stage.directory.path().join("clone"));
    clone.start().await;
    clone
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clone_that_came_while_the_relay_rested_pauses_when_it_is_back() {
    let stage = resting("idle_clone", "300ms").await;
    let db = stage.connect().await;
    let mut clone = cloned(&stage).await;
    let copy = clone.connect(stage.database()).await;
    let has_lease = "SELECT lease_epoch > 1 FROM sea_mq.installation";
    until("the copy has the lease", 2 * SOON, async || copy.value::<bool>(has_lease, &[]).await).await;
    // Nobody has decided, so the server that ran all the time is the original, whichever of both rests now.
    let mut ids = vec![db.emit("order/1", "Placed", json!({"n": 1})).await];
    stage.assert_stored(&ids).await;
    until_idle(&stage).await;
    copy.emit("order/1", "InTheClone", json!({})).await;
    until_paused(&copy, "Fenced").await;
    ids.push(db.emit("order/1", "Placed", json!({"n": 2})).await);
    stage.assert_stored(&ids).await;
    // It does not come back by itself.
    until_idle(&stage).await;
    drop(copy);
    clone.crash();
    clone.start().await;
    until_paused(&clone.connect(stage.database()).await, "Fenced").await;
    ids.push(db.emit("order/1", "Placed", json!({"n": 3})).await);
    stage.assert_stored(&ids).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adopted_clone_that_rests_keeps_the_lease() {
    let stage = resting("idle_adopted", "300ms").await;
    let db = stage.connect().await;
    let clone = cloned(&stage).await;
    let copy = clone.connect(stage.database()).await;
    copy.run("SELECT sea_mq.adopt()").await;
    let ids = vec![copy.emit("order/1", "Adopted", json!({})).await];
    stage.assert_stored(&ids).await;
    let idle = "SELECT state = 'idle' FROM sea_mq.relay_status";
    until("the clone rests", SOON, async || copy.value::<bool>(idle, &[]).await).await;
    db.emit("order/1", "TooLate", json!({})).await;
    until_paused(&db, "Fenced").await;
    stage.assert_stored(&ids).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_timeout_nobody_ends() {
    let stage = StageOptions::default().setting("sea_mq.idle_timeout", "0").start("idle_never").await.described().await;
    stage.until_connected().await;
    let (relay, consumer) = (stage.relay().await, stage.consumer().await);
    holds_for("both stay", A_WHILE, async || stage.relay().await == relay && stage.consumer().await == consumer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_databases_than_worker_slots_are_served_in_turn() {
    const DATABASES: usize = 12;
    // Two launchers, and four workers.
    let stage = StageOptions::default().setting("max_worker_processes", "6").start("idle_turns").await;
    let mut connections = Vec::new();
    for n in 0..DATABASES {
        let name = format!("tenant_{n}");
        stage.cluster.run(&format!("CREATE DATABASE {name}")).await;
        stage.cluster.run(&format!("ALTER DATABASE {name} SET sea_mq.context = '{name}'")).await;
        let db = stage.cluster.connect(&name).await;
        db.run("CREATE EXTENSION sea_mq").await;
        connections.push(stage.cluster.connect(&name).await);
    }
    for (n, db) in connections.iter().enumerate() {
        db.emit("order/1", "Placed", json!({"n": n})).await;
    }
    let queued = "SELECT relay = 'queued' AND NOT ok AND summary LIKE '%no worker slot is free; it waits for one in turn, since%'
        FROM sea_mq.status";
    let mut has_queued = false;
    until("every event is stored", 4 * SOON, async || {
        let mut stored = 0;
        for (n, db) in connections.iter().enumerate() {
            has_queued |= !has_queued && db.value::<bool>(queued, &[]).await;
            let stream = format!("TENANT_{n}_EVENTS");
            stored +=
                usize::from(stage.broker.stream(&stream).await.is_some() && stage.broker.count(&stream).await == 1);
        }
        stored == DATABASES
    })
    .await;
    assert!(has_queued, "nobody has waited");
    assert_eq!(stage.cluster.log().matches("processes wait for one in turn").count(), 1, "the log says so once");
}
