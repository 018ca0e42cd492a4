//! What an account or a server does not have room for, or does not have at all, is named as such.

use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::stream::{Config, ConsumerLimits};
use harness::{Accounts, BrokerOptions, Database, EVENTS, Stage, StageOptions, until, until_some};
use serde_json::{Value, json};

use crate::SOON;
use crate::receiving::{assert_handled_once, emit_numbers, make_recorder, prepared, until_provisioned, until_state};

/// A stage whose relay and consumer are users of an account with these limits.
async fn limited(name: &str, limits: &Value) -> Stage {
    let accounts = Accounts::new(limits);
    let credentials = accounts.credentials(&json!({}));
    let broker = BrokerOptions {
        configuration: accounts.configuration(),
        credentials: Some(credentials.clone()),
        ..BrokerOptions::default()
    };
    let stage = StageOptions { broker, ..StageOptions::default() }.start(name).await;
    let file = stage.directory.path().join("user.creds");
    std::fs::write(&file, credentials).expect("cannot write the credentials");
    stage.cluster.run(&format!("ALTER SYSTEM SET sea_mq.nats_credentials_file = '{}'", file.display())).await;
    stage.cluster.run("SELECT pg_reload_conf()").await;
    stage
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_without_room_for_a_stream_is_named() {
    let stage = limited("limit_streams", &json!({ "streams": 1 })).await;
    let db = stage.connect().await;
    // The account is full before: of two streams that are made at once, the server may take both.
    let theirs = Config { name: "THEIRS".into(), subjects: vec!["theirs".into()], ..Default::default() };
    let _ = stage.broker.jetstream().create_stream(theirs).await;
    emit_numbers(&db, 1, 5).await;
    let status = stage.until_problem("problem LIKE 'stream ORDERS_%: %maximum%streams%'").await;
    assert!(status["hint"].as_str().is_some_and(|hint| hint.contains("account's limits")), "{status}");
    let kind = "SELECT EXISTS (SELECT FROM sea_mq.stream_status WHERE error_kind = 'AccountLimit')";
    assert!(db.value::<bool>(kind, &[]).await);
}

/// The test's own is the one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_without_room_for_a_connection_is_named() {
    let stage = limited("limit_connections", &json!({ "conn": 1 })).await;
    let status = stage.until_problem("r.error_kind = 'AccountLimit'").await;
    assert!(status["hint"].as_str().is_some_and(|hint| hint.contains("connections")), "{status}");
}

/// So many unacknowledged messages are allowed.
const FEW: i64 = 100;

fn few_at_the_server() -> BrokerOptions {
    BrokerOptions { jetstream: format!("limits: {{ max_ack_pending: {FEW} }}"), ..BrokerOptions::default() }
}

/// Nobody has asked for more than the broker allows: so many will do, and that is told.
async fn assert_goes_on_with_few(stage: &Stage) {
    let db = stage.connect().await;
    make_recorder(&db).await;
    db.run("SELECT sea_mq.subscribe('app__all', 'orders', 'record', start_from => 'all')").await;
    emit_numbers(&db, 1, 500).await;
    assert_handled_once(stage, "app__all", 500).await;
    assert_few(stage, &db).await;
    // What is looked at every 15 seconds is as it may be.
    let log = stage.cluster.log();
    assert!(log.contains("the broker allows subscription app__all 100 unacknowledged messages, not 1000"), "{log}");
    assert!(!log.contains("the consumer of app__all was changed"), "{log}");
}

async fn assert_few(stage: &Stage, db: &Database) {
    until_state(db, "app__all", &format!("state = 'active' AND error IS NULL AND max_ack_pending = {FEW}")).await;
    assert_eq!(until_provisioned(stage, "app__all").await.config.max_ack_pending, FEW);
    let metric = "SELECT value::bigint FROM sea_mq.metrics WHERE name = 'sea_mq_subscription_max_ack_pending_messages'";
    assert_eq!(db.value::<i64>(metric, &[]).await, FEW);
    stage.until_ok().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_default_subscription_works_with_the_limit_of_a_server() {
    let stage = StageOptions { broker: few_at_the_server(), ..StageOptions::default() }.start("few_server").await;
    assert_goes_on_with_few(&stage).await;
    // The mirror of the dead letters is nobody's to lower.
    until("dead letters are mirrored", SOON, async || {
        let Some(stream) = stage.broker.stream("ORDERS_DLQ").await else { return false };
        stream.get_consumer::<pull::Config>("sea_mq__dlq_mirror").await.is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_default_subscription_works_with_the_limit_of_an_account() {
    let stage = limited("few_account", &json!({ "max_ack_pending": FEW })).await;
    assert_goes_on_with_few(&stage).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_default_subscription_works_with_the_limit_of_a_stream() {
    let stage = Stage::new("few_stream").await.described().await;
    let mut config =
        until_some("the stream", SOON, async || Some(stage.broker.stream(EVENTS).await?.cached_info().config.clone()))
            .await;
    config.consumer_limits = Some(ConsumerLimits { max_ack_pending: FEW, ..Default::default() });
    stage.broker.jetstream().update_stream(config).await.expect("cannot limit the consumers");
    assert_goes_on_with_few(&stage).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_that_is_lowered_is_kept_and_one_that_is_raised_is_used() {
    let mut stage = prepared("few_later").await;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.subscribe('app__all', 'orders', 'record', start_from => 'all')").await;
    emit_numbers(&db, 1, 10).await;
    assert_handled_once(&stage, "app__all", 10).await;
    let state = until_state(&db, "app__all", "max_ack_pending = 1000").await;
    assert_eq!(state["state"], "active");
    stage.broker.stop();
    stage.broker.limit(&few_at_the_server().jetstream);
    stage.broker.start().await;
    emit_numbers(&db, 11, 20).await;
    assert_handled_once(&stage, "app__all", 20).await;
    stage.broker.stop();
    stage.broker.limit("");
    stage.broker.start().await;
    emit_numbers(&db, 21, 30).await;
    assert_handled_once(&stage, "app__all", 30).await;
    until_state(&db, "app__all", "state = 'active' AND error IS NULL AND max_ack_pending = 1000").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_unacknowledged_messages_than_allowed_are_refused_to_whoever_asks_for_them() {
    let stage = StageOptions { broker: few_at_the_server(), ..StageOptions::default() }.start("limit_pending").await;
    let db = stage.connect().await;
    make_recorder(&db).await;
    emit_numbers(&db, 1, 5).await;
    db.run("SELECT sea_mq.subscribe('app__all', 'orders', 'record', start_from => 'all', max_ack_pending => 1000)")
        .await;
    until_state(
        &db,
        "app__all",
        "state = 'refused' AND error_kind = 'ConsumerLimit' AND error LIKE '% 100 %' AND hint LIKE '%max_ack_pending%'",
    )
    .await;
    db.run("SELECT sea_mq.alter_subscription('app__all', max_ack_pending => 100)").await;
    until_state(&db, "app__all", "state = 'active' AND error IS NULL").await;
    stage.until_ok().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_domain_that_is_not_there_is_named() {
    let stage = prepared("wrong_domain").await;
    stage.until_connected().await;
    stage.cluster.run("ALTER SYSTEM SET sea_mq.nats_jetstream_domain = 'nowhere'").await;
    stage.cluster.run("SELECT pg_reload_conf()").await;
    let status = stage.until_problem("r.error_kind = 'NoJetStream'").await;
    assert!(status["hint"].as_str().is_some_and(|hint| hint.contains("nats_jetstream_domain")), "{status}");
    stage.cluster.run("ALTER SYSTEM RESET sea_mq.nats_jetstream_domain").await;
    stage.cluster.run("SELECT pg_reload_conf()").await;
    let db = stage.connect().await;
    until("it is well again", SOON, async || db.value("SELECT ok FROM sea_mq.status", &[]).await).await;
}
