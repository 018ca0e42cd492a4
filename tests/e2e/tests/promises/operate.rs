//! What callers who must know can ask.

use harness::{EVENTS, StageOptions, until};
use tokio_postgres::error::SqlState;

use crate::SOON;

const WAIT: &str = "SELECT sea_mq.wait_published($1)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_for_an_event_goes_on_when_the_stream_has_it() {
    let mut stage = StageOptions::default().start("wait_published").await.described().await;
    let db = stage.connect().await;
    let id = db.emit("1", "Placed", serde_json::json!({})).await;
    assert!(db.value::<bool>(WAIT, &[&id]).await);
    assert_eq!(stage.broker.stored(EVENTS).await.last().map(|stored| stored.id()), Some(id));
    // Whatever the snapshot of the one who waits: here an event of later, and a broker that comes back.
    stage.broker.stop();
    db.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1").await;
    let other = stage.connect().await;
    let late = other.emit("1", "Placed", serde_json::json!({})).await;
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
    let held: uuid::Uuid =
        db.value("SELECT sea_mq.emit('order', '1', 'Placed', '{}', available_at => now() + '1 hour')", &[]).await;
    let wait = format!("SELECT sea_mq.wait_published('{held}')");
    assert_eq!(refused(&wait).await, SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    // It can be cancelled as any statement can.
    db.run("SELECT sea_mq.stop()").await;
    until("the relay has stopped", SOON, async || stage.relays().await.is_empty()).await;
    let id = db.emit("1", "Placed", serde_json::json!({})).await;
    db.run("SET statement_timeout = '200 ms'").await;
    assert_eq!(refused(&format!("SELECT sea_mq.wait_published('{id}', '60 s')")).await, SqlState::QUERY_CANCELED);
    db.run("SET sea_mq.nats_url = ''; RESET statement_timeout").await;
    let wait = format!("SELECT sea_mq.wait_published('{id}', '1 s')");
    assert_eq!(refused(&wait).await, SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
}
