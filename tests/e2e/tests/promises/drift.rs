//! What others change on streams and consumers that are in use is noticed, named, and put right.

use std::time::Duration;

use async_nats::jetstream::stream::{Config, SubjectTransform};
use harness::{Database, EVENTS, Stage, until, until_some};

use crate::SOON;
use crate::receiving::{
    assert_handled_once, emit_numbers, jetstream_consumer, make_recorder, prepared, until_provisioned, until_recorded,
};

async fn config(stage: &Stage) -> Config {
    until_some("the stream", SOON, async || Some(stage.broker.stream(EVENTS).await?.cached_info().config.clone())).await
}

async fn change(stage: &Stage, change: impl FnOnce(&mut Config)) {
    let mut config = config(stage).await;
    change(&mut config);
    stage.broker.jetstream().update_stream(config).await.expect("cannot change the stream");
}

fn mark(config: &Config) -> Option<&String> {
    config.metadata.get("sea_mq.install")
}

async fn until_ready(db: &Database) {
    until("the stream is ready", SOON, async || {
        db.value("SELECT state = 'ready' FROM sea_mq.stream_status WHERE stream = 'ORDERS_EVENTS'", &[]).await
    })
    .await;
}

/// As FastStream and nats-py do it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_framework_that_updates_the_stream_with_its_defaults_does_not_take_it_away() {
    let stage = Stage::new("drift_framework").await;
    let db = stage.connect().await;
    make_recorder(&db).await;
    db.run("SELECT sea_mq.subscribe('app__all', 'orders', 'record', start_from => 'all')").await;
    emit_numbers(&db, 1, 10).await;
    until_recorded(&stage, 10).await;
    let made = config(&stage).await;
    let defaults = Config { name: EVENTS.into(), subjects: vec!["orders.event.>".into()], ..Default::default() };
    stage.broker.jetstream().update_stream(defaults).await.expect("cannot update the stream");
    assert!(mark(&config(&stage).await).is_none(), "the mark is gone");
    until("it is put right", SOON, async || mark(&config(&stage).await) == mark(&made)).await;
    let found = config(&stage).await;
    assert_eq!((found.max_age, found.max_bytes, found.allow_direct), (made.max_age, made.max_bytes, made.allow_direct));
    let log = stage.cluster.log();
    for setting in ["max_age is 0", "max_bytes is -1", "sea_mq.install is none"] {
        assert!(log.contains(setting), "{setting} is not logged");
    }
    emit_numbers(&db, 11, 20).await;
    assert_handled_once(&stage, "app__all", 20).await;
    stage.until_ok().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mark_that_was_lost_while_nobody_was_connected_is_put_back() {
    let mut stage = Stage::new("drift_restart").await.described().await;
    let db = stage.connect().await;
    until_ready(&db).await;
    let made = config(&stage).await;
    stage.cluster.stop();
    change(&stage, |config| config.metadata.clear()).await;
    stage.cluster.start().await;
    until("it is put right", SOON, async || mark(&config(&stage).await) == mark(&made)).await;
}

/// Without the look, what is published from then on goes where nobody looks for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subject_transform_and_a_limit_a_subject_are_taken_away_within_a_look() {
    let stage = Stage::new("drift_transform").await.described().await;
    let db = stage.connect().await;
    until_ready(&db).await;
    change(&stage, |config| {
        config.subject_transform =
            Some(SubjectTransform { source: "orders.event.>".into(), destination: "elsewhere.>".into() });
        config.max_messages_per_subject = 1;
    })
    .await;
    until("it is put right", Duration::from_secs(20), async || {
        let found = config(&stage).await;
        found.subject_transform.is_none() && found.max_messages_per_subject == -1
    })
    .await;
    until_ready(&db).await;
    assert!(stage.cluster.log().contains("subject_transform is"), "it is not logged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_not_ours_to_change_shows_what_has_changed() {
    let stage = Stage::new("drift_unmanaged").await;
    let db = stage.connect().await;
    stage.until_connected().await;
    let made = Config { name: EVENTS.into(), subjects: vec!["orders.event.>".into()], ..Default::default() };
    stage.broker.jetstream().create_stream(made).await.expect("cannot make the stream");
    db.run("SELECT sea_mq.create_stream('orders', managed => false)").await;
    until_ready(&db).await;
    change(&stage, |config| config.max_messages = 77).await;
    until("it shows", SOON, async || {
        let sql = "SELECT coalesce(differences ->> 'max_msgs', '') LIKE '%77%' FROM sea_mq.stream_status WHERE stream = 'ORDERS_EVENTS'";
        db.value(sql, &[]).await
    })
    .await;
    change(&stage, |config| {
        config.subject_transform =
            Some(SubjectTransform { source: "orders.event.>".into(), destination: "elsewhere.>".into() });
    })
    .await;
    stage.until_problem("problem LIKE '%subject_transform%'").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mark_of_another_installation_stops_the_relay() {
    let stage = Stage::new("drift_taken").await.described().await;
    let db = stage.connect().await;
    until_ready(&db).await;
    change(&stage, |config| {
        config.metadata.insert("sea_mq.install".into(), "5b0f5ee4-0000-4000-8000-000000000000".into());
    })
    .await;
    stage.until_problem("problem LIKE '%belongs to installation 5b0f5ee4%'").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_somebody_changed_is_put_right() {
    let stage = prepared("drift_consumer").await;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.subscribe('app__all', 'orders', 'record', start_from => 'all')").await;
    let made = until_provisioned(&stage, "app__all").await.config;
    emit_numbers(&db, 1, 10).await;
    until_recorded(&stage, 10).await;
    let stream = stage.broker.stream(EVENTS).await.expect("the stream is there");
    let mut changed = made.clone();
    changed.filter_subject = "orders.event.nothing.>".into();
    changed.max_ack_pending = 1;
    let changed = async_nats::jetstream::consumer::pull::Config {
        durable_name: changed.durable_name,
        filter_subject: changed.filter_subject,
        max_ack_pending: changed.max_ack_pending,
        ack_wait: changed.ack_wait,
        max_deliver: changed.max_deliver,
        deliver_policy: changed.deliver_policy,
        metadata: changed.metadata,
        ..Default::default()
    };
    stream.update_consumer(changed).await.expect("cannot change the consumer");
    emit_numbers(&db, 11, 20).await;
    until("it is put right", SOON, async || {
        jetstream_consumer(&stage, "app__all")
            .await
            .is_some_and(|found| found.config.filter_subject == made.filter_subject)
    })
    .await;
    assert_handled_once(&stage, "app__all", 20).await;
    assert!(stage.cluster.log().contains("the consumer of app__all was changed"), "it is not logged");
}

/// What the broker declines does not stop what works.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_the_broker_declines_leaves_the_stream_in_use() {
    let stage = Stage::new("drift_declined").await.described().await;
    let db = stage.connect().await;
    until_ready(&db).await;
    // There is one server.
    db.run("SELECT sea_mq.alter_stream('ORDERS_EVENTS', replicas => 3)").await;
    stage.until_problem("problem LIKE '%ORDERS_EVENTS is not as described%'").await;
    emit_numbers(&db, 1, 10).await;
    stage.broker.until_count(EVENTS, 10, SOON).await;
    db.run("SELECT sea_mq.alter_stream('ORDERS_EVENTS', replicas => 1)").await;
    stage.until_ok().await;
}
