//! Limits of messages that the server does not tell, or changes while it runs.

use harness::{Accounts, BrokerOptions, EVENTS, StageOptions, Stored, until};
use serde_json::json;
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use crate::SOON;

/// Bytes that the account takes, and the server far more.
const LIMIT: usize = 100_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_above_the_account_s_limit_is_set_aside_and_the_others_are_published() {
    let accounts = Accounts::new(&json!({ "payload": LIMIT }));
    let credentials = accounts.credentials(&json!({}));
    let broker = BrokerOptions {
        configuration: accounts.configuration(),
        credentials: Some(credentials.clone()),
        ..BrokerOptions::default()
    };
    let stage = StageOptions { broker, ..StageOptions::default() }.start("account_payload").await;
    let file = stage.directory.path().join("user.creds");
    std::fs::write(&file, credentials).expect("cannot write the credentials");
    let db = stage.connect().await;
    let mut sound: Vec<Uuid> = Vec::new();
    let mut large: Vec<Uuid> = Vec::new();
    for n in 0..400_usize {
        let size = match n {
            150 => 2 * LIMIT,
            170 => LIMIT + LIMIT / 2,
            390 => 3 * LIMIT,
            n => 10 + n * 200,
        };
        let id = db.emit(&n.to_string(), "Sized", json!({ "x": "x".repeat(size) })).await;
        if size > LIMIT { large.push(id) } else { sound.push(id) }
    }
    stage.cluster.run(&format!("ALTER SYSTEM SET sea_mq.nats_credentials_file = '{}'", file.display())).await;
    stage.cluster.run("SELECT pg_reload_conf()").await;
    let refused = "SELECT array_agg(event_id ORDER BY seq) FROM sea_mq.publish_failures";
    until("the large ones are set aside", SOON, async || {
        db.value::<Option<Vec<Uuid>>>(refused, &[]).await.is_some_and(|found| found == large)
    })
    .await;
    stage.assert_stored(&sound).await;
    let error: String = db.value("SELECT min(error) FROM sea_mq.publish_failures", &[]).await;
    assert!(error.contains("Maximum Payload Violation"), "{error}");
    let letters: i64 = db.value("SELECT count(*) FROM sea_mq.dlq_list() WHERE reason = 'unpublishable'", &[]).await;
    assert_eq!(letters, 3);
    // Not over and over: one cut to learn that there is a limit, and one for each size that is smaller than those before.
    let cuts = stage.cluster.log().matches("no connection to the broker").count();
    assert!(cuts <= 6, "{cuts} cuts");
    let id = db.emit("after", "Sized", json!({})).await;
    until("what comes after is published", SOON, async || {
        stage.broker.stored(EVENTS).await.last().is_some_and(|last: &Stored| last.id() == id)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_that_is_raised_while_the_server_runs_is_learned() {
    let broker = BrokerOptions { configuration: format!("max_payload: {LIMIT}"), ..BrokerOptions::default() };
    let mut stage =
        StageOptions { broker, broker_later: true, ..StageOptions::default() }.start("raised_payload").await;
    let db = stage.connect().await;
    // Before the limit is known.
    let early = db.emit("1", "Sized", json!({ "x": "x".repeat(2 * LIMIT) })).await;
    stage.broker.start().await;
    let failed = "SELECT count(*) FROM sea_mq.publish_failures WHERE resolved_at IS NULL";
    until("it is set aside", SOON, async || db.value::<i64>(failed, &[]).await == 1).await;
    assert_eq!(db.value::<i64>("SELECT sea_mq.retry_failed()", &[]).await, 0);
    let emit =
        format!("SELECT sea_mq.emit('order', '2', 'Sized', jsonb_build_object('x', repeat('x', {})))", 2 * LIMIT);
    let error = db.batch_execute(&emit).await.expect_err("it is too large");
    let error = error.as_db_error().expect("an error of the server");
    assert_eq!(error.code(), &SqlState::PROGRAM_LIMIT_EXCEEDED);
    assert!(error.hint().is_some_and(|hint| hint.contains("sea_mq.reload()")), "{error:?}");
    stage.broker.reload("max_payload: 1000000");
    until("it is sent once more", SOON, async || db.value::<i64>("SELECT sea_mq.retry_failed()", &[]).await == 1).await;
    let id: Uuid = db.value(&emit, &[]).await;
    stage.assert_stored(&[early, id]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_raised_limit_is_learned_by_those_who_emit_too() {
    let broker = BrokerOptions { configuration: format!("max_payload: {LIMIT}"), ..BrokerOptions::default() };
    let mut stage = StageOptions { broker, ..StageOptions::default() }.start("raised_emit").await;
    stage.until_connected().await;
    let db = stage.connect().await;
    let emit =
        format!("SELECT sea_mq.emit('order', '2', 'Sized', jsonb_build_object('x', repeat('x', {})))", 2 * LIMIT);
    assert_eq!(db.refusal(&emit).await, SqlState::PROGRAM_LIMIT_EXCEEDED);
    stage.broker.reload("max_payload: 1000000");
    until("emit takes it", 2 * SOON, async || db.batch_execute(&emit).await.is_ok()).await;
    stage.broker.until_count(EVENTS, 1, SOON).await;
}
