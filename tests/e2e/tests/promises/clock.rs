//! A wall clock that was set back while nobody looked: what waits is left with times that are yet to come.

use harness::until;

use crate::receiving::{LONG, emit_numbers, prepared};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_does_not_wait_for_the_clock_to_come_round() {
    let stage = prepared("clock").await;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.subscribe('app__pull', 'orders')").await;
    emit_numbers(&db, 1, 20).await;
    let waiting = "SELECT count(*) = 20 FROM sea_mq.inbox_messages WHERE status = 'received'";
    until("the messages are received", LONG, async || db.value::<bool>(waiting, &[]).await).await;
    db.run(
        "UPDATE sea_mq.inbox_pending SET created_at = created_at + '1 h', due_at = due_at + '1 h';
         UPDATE sea_mq.inbox_pending SET status = 'failed', attempts = 1, delivered_at = created_at, due_at = due_at + '5 s'
         WHERE message_id IN (SELECT max(message_id) FROM sea_mq.inbox_pending)",
    )
    .await;
    let complete = "SELECT count(*) FROM sea_mq.receive('app__pull', 100) m, LATERAL sea_mq.complete(m.id)";
    assert_eq!(db.value::<i64>(complete, &[]).await, 0, "they are not due");
    db.run("SELECT sea_mq.stop()").await;
    until("the workers are gone", LONG, async || stage.workers().await.is_empty()).await;
    db.run("SELECT sea_mq.start()").await;
    let mut completed = 0;
    until("all are received and completed", LONG, async || {
        completed += db.value::<i64>(complete, &[]).await;
        completed == 20
    })
    .await;
}
