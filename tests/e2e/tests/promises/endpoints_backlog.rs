//! An endpoint that does not work costs the database nothing: what waits for it neither stops `emit`, nor is kept for ever.

use std::time::Duration;

use harness::{Database, Receiver, Reply, Stage, StageOptions, until};
use serde_json::json;

use crate::SOON;
use crate::endpoints::{create, emit, until_delivered};

/// A stage whose log keeps nothing that nobody waits for.
async fn stage(name: &str, age: &str, size: &str) -> (Stage, Database) {
    let options = StageOptions { no_url: true, ..StageOptions::default() }
        .setting("sea_mq.endpoint_allow_http", "on")
        .setting("sea_mq.endpoint_allowed_networks", "127.0.0.0/8")
        .setting("sea_mq.retention", "1s")
        .setting("sea_mq.endpoint_backlog_age", age)
        .setting("sea_mq.endpoint_backlog_size", size)
        .setting("sea_mq.max_outbox_size", "1MB");
    let stage = options.start(name).await;
    let db = stage.connect().await;
    db.run(
        "SELECT sea_mq.register_event('orders', 'OrderCreated', 1, '{\"type\": \"object\"}', 'public'),
        sea_mq.register_event('orders', 'Secret', 1, '{\"type\": \"object\"}', 'internal')",
    )
    .await;
    // Without a broker the log keeps what the stream would have.
    db.run("SELECT sea_mq.create_stream('orders', max_age => '1 s')").await;
    (stage, db)
}

/// Events of 10 kB.
async fn emit_large(db: &Database, events: usize) {
    for n in 0..events {
        db.emit(&n.to_string(), "OrderCreated", json!({ "n": n, "text": fill() })).await;
    }
}

/// Text that does not shrink.
fn fill() -> String {
    (0..400).map(|_| uuid::Uuid::new_v4().simple().to_string()[..25].to_owned()).collect()
}

async fn until_true(db: &Database, what: &str, sql: &str) {
    until(what, SOON * 3, async || db.value(sql, &[]).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_too_long_for_an_endpoint_is_dropped_and_somebody_is_told() {
    let (_stage, db) = stage("too_long", "6s", "0").await;
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    create(&db, "acme", &receiver.url("/"), "").await;
    create(&db, "broken", &receiver.url("/broken"), ", filter => '{OrderCreated}'").await;
    db.run("SELECT sea_mq.pause_endpoint('broken')").await;
    // More than sea_mq.max_outbox_size: what is outside does not count.
    emit_large(&db, 150).await;
    db.emit("1", "Secret", json!({})).await;
    until_delivered(&db, "acme", 150).await;
    emit_large(&db, 1).await;
    let warned = "SELECT EXISTS (SELECT FROM sea_mq.problems WHERE problem LIKE 'endpoint broken will lose events%')";
    until_true(&db, "somebody is warned", warned).await;
    until_true(&db, "they are dropped", "SELECT dropped = 151 FROM sea_mq.endpoint_status WHERE endpoint = 'broken'")
        .await;
    let said: String = db
        .value("SELECT string_agg(problem, '; ') FROM sea_mq.problems WHERE problem LIKE '%dropped from the log%'", &[])
        .await;
    assert!(said.starts_with("151 events from ") && said.ends_with("to endpoint broken"), "{said}");
    let span: bool = db
        .value(
            "SELECT dropped_from < dropped_to AND lag = 0 FROM sea_mq.endpoint_status WHERE endpoint = 'broken'",
            &[],
        )
        .await;
    assert!(span);
    // The log is given back, and the endpoint goes on with what comes.
    until("the log has moved on", SOON * 6, async || {
        emit(&db, 1).await;
        db.value("SELECT count(*) < 100 FROM sea_mq.outbox_log", &[]).await
    })
    .await;
    db.run("SELECT sea_mq.resume_endpoint('broken')").await;
    let last = emit(&db, 2).await;
    until("it gets what comes", SOON, async || {
        receiver.received_on("/broken").iter().any(|one| one.header("webhook-id") == last.to_string())
    })
    .await;
    assert!(receiver.received_on("/broken").iter().all(|one| one.json()["data"]["text"].is_null()));
    let others: i64 = db.value("SELECT dropped FROM sea_mq.endpoint_status WHERE endpoint = 'acme'", &[]).await;
    assert_eq!(others, 0);
    let forgotten: i64 = db.value("SELECT sea_mq.forget_dropped('broken')", &[]).await;
    assert!(forgotten >= 151);
    let left: i64 = db.value("SELECT count(*) FROM sea_mq.problems WHERE problem LIKE '%dropped%'", &[]).await;
    assert_eq!(left, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_does_not_grow_for_an_endpoint_alone() {
    let (_stage, db) = stage("too_large", "1d", "4MB").await;
    let receiver = Receiver::start(|_| Reply::status(500)).await;
    // It was tried, and is open: some of what waits was read before.
    create(&db, "broken", &receiver.url("/"), "").await;
    let mut emitted = 0;
    until("what is oldest is dropped", SOON * 12, async || {
        emit_large(&db, 20).await;
        emitted += 20;
        tokio::time::sleep(Duration::from_millis(50)).await;
        db.value("SELECT dropped > 0 FROM sea_mq.endpoint_status", &[]).await
    })
    .await;
    // What comes now is not dropped at once.
    emit_large(&db, 20).await;
    emitted += 20;
    let (dropped, waiting): (i64, i64) = (
        db.value("SELECT dropped FROM sea_mq.endpoint_status", &[]).await,
        db.value("SELECT count(*) FROM sea_mq.delivery_pending", &[]).await,
    );
    assert!(dropped + waiting < emitted, "{dropped} of {emitted}, {waiting} wait");
    until_true(&db, "the log is given back", "SELECT count(*) < 600 FROM sea_mq.outbox_log").await;
}
