//! What callers who must know can ask.

use harness::{BrokerOptions, EVENTS, Stage, StageOptions, until};
use serde_json::{Value, json};
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use crate::SOON;

/// A stage whose broker takes 10,000 bytes, which the database did not know when it emitted: a small event, a large one, a
/// small one, and another large one. Returns their ids, once the large ones were refused.
async fn refused(name: &str) -> (Stage, Vec<Uuid>) {
    let broker = BrokerOptions { configuration: "max_payload: 10000".into(), ..BrokerOptions::default() };
    let mut stage = StageOptions { broker, broker_later: true, ..StageOptions::default() }.start(name).await;
    let db = stage.connect().await;
    let emit =
        "SELECT sea_mq.emit('order', n::text, 'Placed', jsonb_build_object('text', repeat('x', n % 2 * 50000), 'n', n),
        headers => '{\"X-Own\": \"own\"}') FROM generate_series(2, 5) n";
    let ids: Vec<Uuid> = db.values(emit, &[]).await;
    stage.broker.start().await;
    until("two are refused", SOON, async || {
        db.value::<i64>("SELECT count(*) FROM sea_mq.publish_failures", &[]).await == 2
    })
    .await;
    stage.assert_stored(&[ids[0], ids[2]]).await;
    (stage, ids)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_was_refused_is_a_dead_letter_and_is_sent_once_the_broker_takes_it() {
    let (mut stage, ids) = refused("retry_failed").await;
    let db = stage.connect().await;
    let letters = "SELECT to_jsonb(d) - 'payload' FROM sea_mq.dlq_list() d ORDER BY id";
    let listed: Vec<Value> = db.values(letters, &[]).await;
    assert_eq!(listed.len(), 2, "{listed:?}");
    assert_eq!((&listed[0]["reason"], &listed[0]["aggregate_id"]), (&json!("unpublishable"), &json!("3")));
    assert_eq!(listed[0]["message_id"], json!(ids[1].to_string()));
    let retry = format!("SELECT sea_mq.retry_failed('{}')", ids[1]);
    assert_eq!(db.refusal(&retry).await, SqlState::PROGRAM_LIMIT_EXCEEDED, "nothing has changed");
    assert_eq!(db.value::<i64>("SELECT sea_mq.retry_failed()", &[]).await, 0);
    let emitted_at = "SELECT created_at::text FROM sea_mq.outbox_events WHERE id = $1 ORDER BY seq DESC LIMIT 1";
    let before: String = db.value(emitted_at, &[&ids[1]]).await;

    stage.broker.stop();
    stage.broker.configure("max_payload: 100000");
    stage.broker.start().await;
    until("the new limit is known", SOON, async || {
        db.value::<Option<i32>>("SELECT max_payload FROM sea_mq.relay_status", &[]).await == Some(100_000)
    })
    .await;
    assert_eq!(db.value::<i64>(&retry, &[]).await, 1);
    stage.assert_stored(&[ids[0], ids[2], ids[1]]).await;
    assert!(db.value::<bool>(WAIT, &[&ids[1]]).await);
    assert_eq!(db.value::<String>(emitted_at, &[&ids[1]]).await, before, "it is the same event");
    let stored = stage.broker.stored(EVENTS).await;
    assert_eq!((stored[2].header("X-Own"), stored[2].json()["n"].as_i64()), ("own", Some(3)));
    assert_eq!(db.refusal(&retry).await, SqlState::UNDEFINED_OBJECT, "once is enough");

    // The other one gets a smaller payload.
    let replay = "SELECT sea_mq.dlq_replay(id, '{\"n\": 7}') FROM sea_mq.dlq_list()";
    let new: Uuid = db.value(replay, &[]).await;
    stage.assert_stored(&[ids[0], ids[2], ids[1], new]).await;
    stage.until_ok().await;
    assert_eq!(db.values::<Value>(letters, &[]).await, Vec::<Value>::new());
    // What was refused is not sent after all when the relay begins anew.
    db.run("SELECT sea_mq.reload()").await;
    let last = db.emit("9", "Placed", json!({})).await;
    stage.assert_stored(&[ids[0], ids[2], ids[1], new, last]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_broker_lost_is_refilled_with_what_was_tried_again() {
    let (mut stage, ids) = refused("retry_refill").await;
    let db = stage.connect().await;
    stage.broker.stop();
    stage.broker.configure("max_payload: 100000");
    stage.broker.start().await;
    until("both are sent", SOON, async || {
        db.values::<i64>("SELECT sea_mq.retry_failed()", &[]).await;
        db.value::<bool>("SELECT bool_and(resolved_at IS NOT NULL) FROM sea_mq.publish_failures", &[]).await
    })
    .await;
    let expected = [ids[0], ids[2], ids[1], ids[3]];
    stage.assert_stored(&expected).await;
    stage.until_ok().await;
    stage.broker.kill();
    stage.broker.forget_everything();
    stage.broker.start().await;
    stage.assert_stored(&expected).await;
}

const WAIT: &str = "SELECT sea_mq.wait_published($1)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_for_an_event_goes_on_when_the_stream_has_it() {
    let mut stage = StageOptions::default().start("wait_published").await.described().await;
    let db = stage.connect().await;
    let id = db.emit("1", "Placed", json!({})).await;
    assert!(db.value::<bool>(WAIT, &[&id]).await);
    assert_eq!(stage.broker.stored(EVENTS).await.last().map(|stored| stored.id()), Some(id));
    // Whatever the snapshot of the one who waits: here an event of later, and a broker that comes back.
    stage.broker.stop();
    db.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1").await;
    let other = stage.connect().await;
    let late = other.emit("1", "Placed", json!({})).await;
    assert!(!db.value::<bool>("SELECT sea_mq.wait_published($1, '300 ms')", &[&late]).await);
    let waiting =
        tokio::spawn(async move { db.value::<bool>("SELECT sea_mq.wait_published($1, '60 s')", &[&late]).await });
    let waits = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep')";
    until("somebody waits", SOON, async || other.value(waits, &[]).await).await;
    stage.broker.start().await;
    assert!(waiting.await.expect("the session panicked"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_in_vain_is_told_at_once() {
    let stage = StageOptions::default().start("wait_in_vain").await.described().await;
    let db = stage.connect().await;
    let refused = async |sql: &str| db.refusal(sql).await;
    assert_eq!(refused("SELECT sea_mq.wait_published(gen_random_uuid())").await, SqlState::UNDEFINED_OBJECT);
    assert_eq!(refused("SELECT sea_mq.wait_published(NULL)").await, SqlState::NULL_VALUE_NOT_ALLOWED);
    let own = "DO $$ BEGIN PERFORM sea_mq.wait_published(sea_mq.emit('order', '1', 'Placed', '{}')); END $$";
    assert_eq!(refused(own).await, SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    let held: Uuid =
        db.value("SELECT sea_mq.emit('order', '1', 'Placed', '{}', available_at => now() + '1 hour')", &[]).await;
    let wait = format!("SELECT sea_mq.wait_published('{held}')");
    assert_eq!(refused(&wait).await, SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    // It can be cancelled as any statement can.
    db.run("SELECT sea_mq.stop()").await;
    until("the relay has stopped", SOON, async || stage.relays().await.is_empty()).await;
    let id = db.emit("1", "Placed", json!({})).await;
    db.run("SET statement_timeout = '200 ms'").await;
    assert_eq!(refused(&format!("SELECT sea_mq.wait_published('{id}', '60 s')")).await, SqlState::QUERY_CANCELED);
    db.run("SET sea_mq.nats_url = ''; RESET statement_timeout").await;
    let wait = format!("SELECT sea_mq.wait_published('{id}', '1 s')");
    assert_eq!(refused(&wait).await, SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
}
