//! What others have made at the broker stays as it is, and what is to be removed there is removed, whoever ends meanwhile.

use async_nats::jetstream::consumer::{AckPolicy, Info, pull, push};
use async_nats::jetstream::stream::Config;
use harness::{Database, EVENTS, Stage, holds_for, kill, until, until_some};
use tokio_postgres::error::SqlState;

use crate::receiving::{
    assert_handled_once, emit_numbers, jetstream_consumer, prepared, recorded, until_provisioned, until_state, worker,
};
use crate::{A_WHILE, SOON};

async fn gone(db: &Database, table: &str) -> bool {
    db.value(&format!("SELECT NOT EXISTS (SELECT FROM sea_mq.{table})"), &[]).await
}

/// Makes a consumer as another application would.
async fn make_consumer(stage: &Stage, config: pull::Config) {
    let stream = stage.broker.stream(EVENTS).await.expect("the stream is there");
    stream.create_consumer(config).await.expect("cannot make the consumer");
}

async fn push_consumer(stage: &Stage, name: &str) -> Option<Info> {
    let stream = stage.broker.stream(EVENTS).await?;
    Some(stream.get_consumer::<push::Config>(name).await.ok()?.cached_info().clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_application_s_consumer_is_neither_used_nor_changed_nor_deleted() {
    let stage = prepared("others_consumers").await;
    let db = stage.connect().await;
    until_some("the stream", SOON, async || stage.broker.stream(EVENTS).await).await;
    make_consumer(
        &stage,
        pull::Config { durable_name: Some("app__pull".into()), max_ack_pending: 7, ..Default::default() },
    )
    .await;
    make_consumer(
        &stage,
        pull::Config { durable_name: Some("app__silent".into()), ack_policy: AckPolicy::None, ..Default::default() },
    )
    .await;
    let stream = stage.broker.stream(EVENTS).await.expect("the stream is there");
    let config = push::Config {
        durable_name: Some("app__push".into()),
        deliver_subject: "elsewhere".into(),
        ..Default::default()
    };
    stream.create_consumer(config).await.expect("cannot make the consumer");
    let (pulled, silent) =
        (until_provisioned(&stage, "app__pull").await.config, until_provisioned(&stage, "app__silent").await.config);
    for name in ["app__pull", "app__silent", "app__push"] {
        db.run(&format!("SELECT sea_mq.subscribe('{name}', 'orders', 'record', start_from => 'all')")).await;
    }
    db.run("SELECT sea_mq.create_consumer('orders', 'app__silent')").await;
    for name in ["app__pull", "app__silent", "app__push"] {
        let state = until_state(&db, name, "state = 'refused'").await;
        assert_eq!(state["error_kind"], "ConsumerConflict", "{state}");
        assert!(state["hint"].is_string(), "{state}");
    }
    until("the described consumer is refused", SOON, async || {
        db.value("SELECT state = 'refused' AND error IS NOT NULL FROM sea_mq.consumers", &[]).await
    })
    .await;
    emit_numbers(&db, 1, 10).await;
    db.run("SELECT sea_mq.unsubscribe(subscription) FROM sea_mq.subscriptions").await;
    db.run("SELECT sea_mq.drop_consumer('ORDERS_EVENTS', 'app__silent')").await;
    until("the removals are done with", SOON, async || {
        gone(&db, "consumer_deletions").await && gone(&db, "consumers").await
    })
    .await;
    assert_eq!(jetstream_consumer(&stage, "app__pull").await.expect("it is there").config, pulled);
    assert_eq!(jetstream_consumer(&stage, "app__silent").await.expect("it is there").config, silent);
    assert!(push_consumer(&stage, "app__push").await.is_some());
    assert_eq!(recorded(&db, "app__pull").await, Vec::<i64>::new());
    assert!(
        stage.cluster.log().contains("consumer app__pull of stream ORDERS_EVENTS does not carry"),
        "nothing is said"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_installation_s_consumers_are_not_deleted() {
    let stage = prepared("others_marks").await;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.subscribe('app__all', 'orders', 'record'), sea_mq.create_consumer('orders', 'team__audit')")
        .await;
    until_provisioned(&stage, "app__all").await;
    until_provisioned(&stage, "team__audit").await;
    stage.cluster.run("CREATE DATABASE second").await;
    let second = stage.cluster.connect("second").await;
    // It says of the stream that it is there already, so that it is not in its way.
    second
        .run(
            "CREATE EXTENSION sea_mq; SELECT sea_mq.create_stream('orders', managed => false);
             SELECT sea_mq.create_consumer('orders', 'team__audit'), sea_mq.create_consumer('orders', 'app__all')",
        )
        .await;
    until("both are refused", SOON, async || {
        second.value("SELECT count(*) = 2 FROM sea_mq.consumers WHERE state = 'refused'", &[]).await
    })
    .await;
    second.run("SELECT sea_mq.drop_consumer(stream, name) FROM sea_mq.consumers").await;
    until("the removals are done with", SOON, async || gone(&second, "consumers").await).await;
    for name in ["app__all", "team__audit"] {
        assert!(jetstream_consumer(&stage, name).await.is_some(), "{name} is gone");
    }
    emit_numbers(&db, 1, 20).await;
    assert_handled_once(&stage, "app__all", 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_without_our_mark_is_not_deleted() {
    let stage = Stage::new("others_streams").await;
    let db = stage.connect().await;
    stage.until_connected().await;
    let made = Config { name: "SHOP".into(), subjects: vec!["shop.event.>".into()], ..Default::default() };
    stage.broker.jetstream().create_stream(made).await.expect("cannot make the stream");
    db.run("SELECT sea_mq.create_stream('shop', 'SHOP', managed => false)").await;
    until("the stream is ready", SOON, async || {
        db.value("SELECT state = 'ready' FROM sea_mq.stream_status WHERE stream = 'SHOP'", &[]).await
    })
    .await;
    db.run("SELECT sea_mq.drop_stream('SHOP', delete_remote => true)").await;
    let status = stage.until_problem("problem LIKE '%stream SHOP could not be deleted%mark%'").await;
    assert!(status["hint"].as_str().is_some_and(|hint| hint.contains("drop_stream")), "{status}");
    assert!(stage.broker.stream("SHOP").await.is_some());
    // It is to stay.
    db.run("SELECT sea_mq.drop_stream('SHOP')").await;
    assert!(gone(&db, "stream_deletions").await);
    holds_for("the stream stays", A_WHILE, async || stage.broker.stream("SHOP").await.is_some()).await;
    assert_eq!(db.refusal("SELECT sea_mq.drop_stream('SHOP')").await, SqlState::UNDEFINED_OBJECT);
    // One whose deletion was asked for and that somebody deletes by hand is forgotten.
    db.run(
        "SELECT sea_mq.create_stream('shop', 'SHOP', managed => false);
         SELECT sea_mq.drop_stream('SHOP', delete_remote => true)",
    )
    .await;
    stage.broker.jetstream().delete_stream("SHOP").await.expect("cannot delete the stream");
    until("the deletion is forgotten", SOON, async || gone(&db, "stream_deletions").await).await;
    stage.until_ok().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_our_own_are_reserved() {
    let stage = prepared("reserved").await;
    let db = stage.connect().await;
    stage.until_connected().await;
    for sql in [
        "SELECT sea_mq.create_stream('shop', 'SEA_MQ_RELAYS')",
        "SELECT sea_mq.create_stream('shop', 'SEA_MQ_RELAYS', managed => false)",
        "SELECT sea_mq.create_consumer('orders', 'sea_mq__dlq_mirror')",
        "SELECT sea_mq.subscribe('sea_mq__dlq_mirror', 'ORDERS_DLQ', 'record')",
    ] {
        assert_eq!(db.refusal(sql).await, SqlState::INVALID_PARAMETER_VALUE, "{sql}");
    }
    // The relay takes its lease after it has connected.
    until_some("the stream of leases", SOON, async || stage.broker.stream("SEA_MQ_RELAYS").await).await;
    // Not by another way either: the deletion is asked for by hand.
    db.run("INSERT INTO sea_mq.stream_deletions (name) VALUES ('SEA_MQ_RELAYS'); SELECT sea_mq.wake_at_commit()").await;
    until("it is refused", SOON, async || {
        db.value("SELECT coalesce(min(error), '') LIKE '%left as it is%' FROM sea_mq.stream_deletions", &[]).await
    })
    .await;
    assert!(stage.broker.stream("SEA_MQ_RELAYS").await.is_some());
}

/// The broker is away when the removal is asked for, and the workers end before it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_to_be_removed_is_removed_by_the_next_process() {
    let mut stage = prepared("removals_survive").await;
    let db = stage.connect().await;
    db.run(
        "SELECT sea_mq.subscribe('app__all', 'orders', 'record'), sea_mq.create_consumer('orders', 'team__audit'),
            sea_mq.create_stream('bills')",
    )
    .await;
    until_provisioned(&stage, "app__all").await;
    until_provisioned(&stage, "team__audit").await;
    until_some("the stream", SOON, async || stage.broker.stream("BILLS_EVENTS").await).await;
    stage.until_ok().await;
    stage.broker.stop();
    db.run(
        "SELECT sea_mq.unsubscribe('app__all'), sea_mq.drop_consumer('ORDERS_EVENTS', 'team__audit'),
            sea_mq.drop_stream('BILLS_EVENTS', delete_remote => true)",
    )
    .await;
    // Each looks at it, and finds no broker.
    let looked = "SELECT relay <> 'connected' FROM sea_mq.status";
    until("the broker is missed", SOON, async || db.value(looked, &[]).await).await;
    holds_for("the removals are kept", A_WHILE, async || {
        !gone(&db, "consumer_deletions").await && !gone(&db, "consumers").await && !gone(&db, "stream_deletions").await
    })
    .await;
    drop(db);
    for backend_type in ["sea_mq relay", "sea_mq consumer"] {
        let pid = worker(&stage, backend_type, 0).await;
        kill(pid);
        worker(&stage, backend_type, pid).await;
    }
    stage.broker.start().await;
    let db = stage.connect().await;
    until("the removals are done", SOON, async || {
        gone(&db, "consumer_deletions").await && gone(&db, "consumers").await && gone(&db, "stream_deletions").await
    })
    .await;
    assert!(jetstream_consumer(&stage, "app__all").await.is_none());
    assert!(jetstream_consumer(&stage, "team__audit").await.is_none());
    assert!(stage.broker.stream("BILLS_EVENTS").await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_dropped_and_described_again_is_deleted_before_it_is_used() {
    let mut stage = prepared("dropped_and_described").await;
    let db = stage.connect().await;
    emit_numbers(&db, 1, 5).await;
    stage.broker.until_count(EVENTS, 5, SOON).await;
    stage.until_ok().await;
    stage.broker.stop();
    db.run(
        "SELECT sea_mq.drop_stream('ORDERS_EVENTS', delete_remote => true);
         SELECT sea_mq.create_stream('orders', duplicate_window => '100 ms')",
    )
    .await;
    emit_numbers(&db, 6, 10).await;
    stage.broker.start().await;
    until("the deletion is done", SOON, async || gone(&db, "stream_deletions").await).await;
    stage.broker.until_count(EVENTS, 5, SOON).await;
    holds_for("the new one stays, and has the new events", A_WHILE, async || stage.broker.count(EVENTS).await == 5)
        .await;
    let losses: i64 = db.value("SELECT losses FROM sea_mq.stream_status WHERE stream = 'ORDERS_EVENTS'", &[]).await;
    assert_eq!(losses, 0);
    stage.until_ok().await;
}
