//! Streams and consumers: as described in the database, provisioned and verified by the relay.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::stream::{Config, RetentionPolicy, StorageType};
use harness::{EVENTS, Stage, StageOptions, holds_for, until, until_some};
use serde_json::json;
use tokio_postgres::error::SqlState;

use crate::{A_WHILE, SOON};

async fn until_stream(stage: &Stage, name: &str) -> Config {
    until_some(&format!("stream {name}"), SOON, async || {
        Some(stage.broker.stream(name).await?.cached_info().config.clone())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_session_changes_of_a_stream_binds_the_others_at_once() {
    let stage = StageOptions::default().setting("sea_mq.auto_create_streams", "off").start("streams_spread").await;
    let (writer, other) = (stage.connect().await, stage.connect().await);
    let emit = "SELECT sea_mq.emit('order', '1', 'Filled', to_jsonb(repeat('x', 5000)))";
    assert_eq!(writer.refusal(emit).await, SqlState::UNDEFINED_OBJECT);
    // Also in the middle of a transaction, whatever its snapshot.
    writer.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1").await;
    other.run("SELECT sea_mq.create_stream('orders')").await;
    writer.run(&format!("{emit}; COMMIT")).await;
    other.run("BEGIN; SELECT sea_mq.alter_stream('ORDERS_EVENTS', max_msg_size => 4000)").await;
    writer.run(emit).await;
    assert_eq!(other.refusal(emit).await, SqlState::PROGRAM_LIMIT_EXCEEDED, "the session that alters it knows");
    other.run("ROLLBACK").await;
    other.run(emit).await;
    other.run("SELECT sea_mq.alter_stream('ORDERS_EVENTS', max_msg_size => 4000)").await;
    assert_eq!(writer.refusal(emit).await, SqlState::PROGRAM_LIMIT_EXCEEDED);
    // An extension that is made anew has other tables.
    other.run("DROP EXTENSION sea_mq CASCADE; CREATE EXTENSION sea_mq; SELECT sea_mq.create_stream('orders')").await;
    writer.run(emit).await;
    assert_eq!(other.value::<i64>("SELECT count(*) FROM sea_mq.outbox_log", &[]).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_event_of_a_context_creates_its_streams_with_the_defaults() {
    let stage = Stage::new("defaults").await;
    let db = stage.connect().await;
    assert!(stage.broker.stream(EVENTS).await.is_none());
    let id = db.emit("1", "Emitted", json!({})).await;
    stage.assert_stored(&[id]).await;
    for (name, subject, max_bytes) in [(EVENTS, "orders.event.>", 10 << 30), ("ORDERS_DLQ", "orders.dlq.>", 1 << 30)] {
        let config = until_stream(&stage, name).await;
        assert_eq!(config.subjects, [subject]);
        assert_eq!(config.retention, RetentionPolicy::Limits);
        assert_eq!(config.max_age, Duration::from_secs(7 * 24 * 3600));
        assert_eq!(config.max_bytes, max_bytes);
        assert_eq!(config.storage, StorageType::File);
        assert_eq!(config.num_replicas, 1);
        assert_eq!(config.duplicate_window, Duration::from_secs(120));
    }
    stage.until_ok().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_created_and_changed_as_described() {
    let stage = Stage::new("described").await;
    let db = stage.connect().await;
    let name: String = db
        .value(
            "SELECT sea_mq.create_stream('Billing', 'BILLS', max_age => '1 day', max_bytes => 1000000, max_msgs => 5000,
                max_msg_size => 2000, storage => 'memory', duplicate_window => '1 minute')",
            &[],
        )
        .await;
    assert_eq!(name, "BILLS");
    let config = until_stream(&stage, "BILLS").await;
    assert_eq!(config.subjects, ["billing.event.>"]);
    assert_eq!(config.max_age, Duration::from_secs(24 * 3600));
    assert_eq!((config.max_bytes, config.max_messages, config.max_message_size), (1_000_000, 5000, 2000));
    assert_eq!(config.storage, StorageType::Memory);
    assert_eq!(config.duplicate_window, Duration::from_secs(60));

    db.run("SELECT sea_mq.emit('bill', '1', 'BillSent', '{}', context => 'billing')").await;
    stage.broker.until_count("BILLS", 1, SOON).await;

    db.run("SELECT sea_mq.alter_stream('BILLS', max_age => '2 days', max_msgs => 6000)").await;
    until("the stream is changed", SOON, async || {
        let config = until_stream(&stage, "BILLS").await;
        config.max_age == Duration::from_secs(2 * 24 * 3600) && config.max_messages == 6000
    })
    .await;
    assert_eq!(stage.broker.count("BILLS").await, 1);
    assert_eq!(db.refusal("SELECT sea_mq.create_stream('billing')").await, SqlState::DUPLICATE_OBJECT);
    assert_eq!(db.refusal("SELECT sea_mq.alter_stream('NONE', max_msgs => 1)").await, SqlState::UNDEFINED_OBJECT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_deleted_only_when_that_is_asked_for() {
    let stage = Stage::new("dropped").await;
    let db = stage.connect().await;
    db.emit("1", "Emitted", json!({})).await;
    db.run("SELECT sea_mq.emit('bill', '1', 'BillSent', '{}', context => 'billing')").await;
    stage.broker.until_count(EVENTS, 1, SOON).await;
    stage.broker.until_count("BILLING_EVENTS", 1, SOON).await;
    stage.until_ok().await;
    db.run("SELECT sea_mq.drop_stream('BILLING_EVENTS', delete_remote => true)").await;
    db.run("SELECT sea_mq.drop_stream('ORDERS_EVENTS')").await;
    until("the stream is deleted", SOON, async || stage.broker.stream("BILLING_EVENTS").await.is_none()).await;
    holds_for("the other one stays", A_WHILE, async || stage.broker.count(EVENTS).await == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_with_unpublished_events_is_not_dropped_by_accident() {
    let mut stage = Stage::new("drop_pending").await;
    let db = stage.connect().await;
    db.emit("1", "Emitted", json!({})).await;
    stage.broker.until_count(EVENTS, 1, SOON).await;
    stage.until_ok().await;
    stage.broker.stop();
    db.emit("2", "Emitted", json!({})).await;
    assert_eq!(db.refusal("SELECT sea_mq.drop_stream('ORDERS_EVENTS')").await, SqlState::OBJECT_IN_USE);
    db.run("SELECT sea_mq.drop_stream('ORDERS_EVENTS', discard_pending => true)").await;
    stage.broker.start().await;
    // The next event describes the stream anew, and the discarded one stays discarded.
    db.emit("3", "Emitted", json!({})).await;
    stage.broker.until_count(EVENTS, 2, SOON).await;
    let aggregates: Vec<String> =
        stage.broker.stored(EVENTS).await.iter().map(|one| one.header("X-Aggregate-Id").to_owned()).collect();
    assert_eq!(aggregates, ["1", "3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_is_provisioned_on_request() {
    let stage = Stage::new("consumer").await;
    let db = stage.connect().await;
    assert_eq!(db.refusal("SELECT sea_mq.create_consumer('orders')").await, SqlState::UNDEFINED_OBJECT);
    db.run("SELECT sea_mq.create_stream('orders')").await;
    let name: String = db.value("SELECT sea_mq.create_consumer('orders')", &[]).await;
    assert_eq!(name, "orders__default");
    let consumer = until_some("the consumer", SOON, async || {
        let stream = stage.broker.stream(EVENTS).await?;
        stream.get_consumer::<pull::Config>("orders__default").await.ok()
    })
    .await;
    let config = &consumer.cached_info().config;
    assert_eq!(config.durable_name.as_deref(), Some("orders__default"));
    assert_eq!(config.filter_subject, "orders.event.>");
    assert_eq!(config.ack_policy, AckPolicy::Explicit);
    assert_eq!(config.ack_wait, Duration::from_secs(120));
    assert_eq!((config.max_deliver, config.max_ack_pending), (20, 50));
    assert_eq!(config.deliver_subject, None);
    until("the consumer is reported ready", SOON, async || {
        db.value("SELECT state = 'ready' FROM sea_mq.consumers", &[]).await
    })
    .await;

    db.run("SELECT sea_mq.drop_consumer('ORDERS_EVENTS', 'orders__default')").await;
    until("the consumer is gone", SOON, async || {
        let stream = stage.broker.stream(EVENTS).await.expect("the stream stays");
        stream.get_consumer::<pull::Config>("orders__default").await.is_err()
    })
    .await;
}

/// Nothing of ours may be forced on a stream that somebody else made, and the other contexts go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_whose_configuration_conflicts_is_left_alone_and_status_says_so() {
    let stage = Stage::new("conflict").await;
    let theirs = Config {
        name: EVENTS.into(),
        subjects: vec!["something.else.>".into()],
        retention: RetentionPolicy::WorkQueue,
        storage: StorageType::Memory,
        ..Config::default()
    };
    stage.broker.jetstream().create_stream(theirs).await.expect("cannot create the stream");
    let db = stage.connect().await;
    let id = db.emit("1", "Emitted", json!({})).await;
    let status = stage.until_problem("problem LIKE '%ORDERS_EVENTS%'").await;
    assert!(status["summary"].as_str().is_some_and(|text| text.contains(EVENTS)), "{status}");
    let relay = stage.relay().await;
    db.run("SELECT sea_mq.emit('bill', '1', 'BillSent', '{}', context => 'billing')").await;
    stage.broker.until_count("BILLING_EVENTS", 1, SOON).await;
    holds_for("the relay stays up", A_WHILE, async || stage.relays().await == [relay]).await;
    let config = until_stream(&stage, EVENTS).await;
    assert_eq!(config.subjects, ["something.else.>"]);
    assert_eq!(config.retention, RetentionPolicy::WorkQueue);

    stage.broker.jetstream().delete_stream(EVENTS).await.expect("cannot delete the stream");
    stage.assert_stored(&[id]).await;
    stage.until_ok().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subject_that_another_stream_has_is_reported_and_the_events_wait() {
    let stage = Stage::new("overlap").await;
    let theirs = Config { name: "EVERYTHING".into(), subjects: vec!["orders.>".into()], ..Config::default() };
    stage.broker.jetstream().create_stream(theirs).await.expect("cannot create the stream");
    let db = stage.connect().await;
    let id = db.emit("1", "Emitted", json!({})).await;
    stage.until_problem("problem LIKE '%ORDERS_EVENTS%'").await;
    assert_eq!(stage.broker.count("EVERYTHING").await, 0);
    stage.broker.jetstream().delete_stream("EVERYTHING").await.expect("cannot delete the stream");
    stage.assert_stored(&[id]).await;
    stage.until_ok().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_with_other_publishers_still_gets_every_event_once_and_in_order() {
    let stage = StageOptions::default().start("shared").await;
    let db = stage.connect().await;
    let mut expected = Vec::new();
    for round in 0..5 {
        for _ in 0..100 {
            expected.push(db.emit("1", "Emitted", json!({})).await);
        }
        until("the stream is there", SOON, async || stage.broker.stream(EVENTS).await.is_some()).await;
        let ack =
            stage.broker.jetstream().publish("orders.event.foreign.v1", "{}".into()).await.expect("cannot publish");
        ack.await.expect("the stream refuses the message");
        stage.broker.until_count(EVENTS, (round + 1) * 101, SOON).await;
    }
    let stored = stage.broker.stored(EVENTS).await;
    let ours: Vec<uuid::Uuid> =
        stored.iter().filter(|one| !one.header("Nats-Msg-Id").is_empty()).map(harness::Stored::id).collect();
    harness::ledger::assert_same(&expected, &ours);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_deleted_under_the_relay_is_created_and_filled_again() {
    let stage = Stage::new("deleted").await;
    let db = stage.connect().await;
    let mut expected = Vec::new();
    for _ in 0..20 {
        expected.push(db.emit("1", "Emitted", json!({})).await);
    }
    stage.assert_stored(&expected).await;
    stage.until_ok().await;
    stage.broker.jetstream().delete_stream(EVENTS).await.expect("cannot delete the stream");
    expected.push(db.emit("1", "Emitted", json!({})).await);
    stage.assert_stored(&expected).await;
    stage.until_ok().await;
}
