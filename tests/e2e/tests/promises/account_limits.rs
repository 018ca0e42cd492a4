//! What an account or a server does not have room for, or does not have at all, is named as such.

use harness::{Accounts, BrokerOptions, Stage, StageOptions, until};
use serde_json::{Value, json};

use crate::SOON;
use crate::receiving::{emit_numbers, make_recorder, prepared, until_state};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_of_unacknowledged_messages_is_named_and_can_be_kept() {
    let broker = BrokerOptions { jetstream: "limits: { max_ack_pending: 100 }".into(), ..BrokerOptions::default() };
    let stage = StageOptions { broker, ..StageOptions::default() }.start("limit_pending").await;
    let db = stage.connect().await;
    make_recorder(&db).await;
    emit_numbers(&db, 1, 5).await;
    db.run("SELECT sea_mq.subscribe('app__all', 'orders', 'record', start_from => 'all')").await;
    until_state(
        &db,
        "app__all",
        "state = 'refused' AND error_kind = 'ConsumerLimit' AND hint LIKE '%max_ack_pending%'",
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
