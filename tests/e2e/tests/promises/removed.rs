//! Messages that are removed from a stream before they were handled are counted and told.

use async_nats::jetstream::stream::Config;
use harness::{Database, EVENTS, Stage, holds_for, until};

use crate::receiving::{
    assert_handled_once, emit_numbers, prepared, publish, recorded, until_provisioned, until_recorded,
};
use crate::{A_WHILE, SOON};

/// How many are said to have been removed: messages, first and last sequence.
async fn removed(db: &Database, subscription: &str) -> Option<(i64, i64, i64)> {
    let sql = "SELECT messages, first_sequence, last_sequence FROM sea_mq.removed_messages WHERE subscription = $1";
    let row = db.query_opt(sql, &[&subscription]).await.expect("cannot read the table")?;
    Some((row.get(0), row.get(1), row.get(2)))
}

async fn change(stage: &Stage, change: impl FnOnce(&mut Config)) {
    let mut config = stage.broker.stream(EVENTS).await.expect("the stream is there").cached_info().config.clone();
    change(&mut config);
    stage.broker.jetstream().update_stream(config).await.expect("cannot change the stream");
}

/// A stage with 100 events that `app__all` has not got.
async fn with_backlog(name: &str) -> (Stage, Database) {
    let stage = prepared(name).await;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.subscribe('app__all', 'orders', 'record', start_from => 'all')").await;
    emit_numbers(&db, 1, 10).await;
    assert_handled_once(&stage, "app__all", 10).await;
    db.run("SELECT sea_mq.pause_subscription('app__all')").await;
    emit_numbers(&db, 11, 110).await;
    stage.broker.until_count(EVENTS, 110, SOON).await;
    (stage, db)
}

async fn until_removed(db: &Database, expected: (i64, i64, i64)) {
    until(&format!("{expected:?} are said to be removed"), 2 * SOON, async || {
        removed(db, "app__all").await == Some(expected)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_a_limit_removed_while_the_subscription_was_paused_are_counted() {
    let (stage, db) = with_backlog("removed_limit").await;
    change(&stage, |config| config.max_messages = 60).await;
    db.run("SELECT sea_mq.resume_subscription('app__all')").await;
    until_removed(&db, (40, 11, 50)).await;
    let status = stage.until_problem("problem LIKE '40 messages were removed from stream ORDERS_EVENTS before subscription app__all%(sequences 11 to 50)'").await;
    assert!(status["ok"] == false, "{status}");
    let hint: String = db.value("SELECT hint FROM sea_mq.problems WHERE problem LIKE '40 messages%'", &[]).await;
    assert!(hint.contains("sea_mq.republish('ORDERS_EVENTS'") && hint.contains("forget_removed"), "{hint}");
    assert_eq!(db.value::<i64>("SELECT removed FROM sea_mq.subscription_status", &[]).await, 40);
    // As the hint says, once the limit is what was described.
    until("the limit is put right", SOON, async || {
        stage.broker.stream(EVENTS).await.is_some_and(|stream| stream.cached_info().config.max_messages == -1)
    })
    .await;
    db.run("SELECT sea_mq.republish('ORDERS_EVENTS', '-infinity')").await;
    until_recorded(&stage, 110).await;
    assert_eq!(db.value::<i64>("SELECT sea_mq.forget_removed('app__all')", &[]).await, 40);
    stage.until_ok().await;
    assert_eq!(recorded(&db, "app__all").await.len(), 110);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn single_messages_that_were_deleted_and_one_message_a_subject_are_counted() {
    let (stage, db) = with_backlog("removed_single").await;
    let stream = stage.broker.stream(EVENTS).await.expect("the stream is there");
    for sequence in [20, 21, 40] {
        stream.delete_message(sequence).await.expect("cannot delete the message");
    }
    db.run("SELECT sea_mq.resume_subscription('app__all')").await;
    until_removed(&db, (3, 20, 40)).await;
    until_recorded(&stage, 107).await;
    holds_for("it stays so", A_WHILE, async || removed(&db, "app__all").await == Some((3, 20, 40))).await;
}

/// While it is connected and gets nothing that would show a gap.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_of_what_waits_is_noticed_while_connected() {
    let stage = prepared("removed_purge").await;
    let db = stage.connect().await;
    db.run(
        "CREATE FUNCTION slow(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.5); PERFORM record(e); END $$;
         SELECT sea_mq.subscribe('app__all', 'orders', 'slow', start_from => 'all', max_ack_pending => 2)",
    )
    .await;
    until_provisioned(&stage, "app__all").await;
    emit_numbers(&db, 1, 300).await;
    stage.broker.until_count(EVENTS, 300, SOON).await;
    until_recorded(&stage, 3).await;
    let stream = stage.broker.stream(EVENTS).await.expect("the stream is there");
    stream.purge().await.expect("cannot purge");
    until("the rest is said to be removed", 2 * SOON, async || removed(&db, "app__all").await.is_some()).await;
    let (messages, first, last) = removed(&db, "app__all").await.expect("it is there");
    let handled = i64::try_from(recorded(&db, "app__all").await.len()).expect("few");
    assert_eq!((messages, first, last), (300 - handled, handled + 1, 300));
}

/// What was handled may go, and what a filter leaves out is nobody's loss.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_handled_or_is_not_for_the_subscription_is_not_missed() {
    let stage = prepared("removed_handled").await;
    let db = stage.connect().await;
    make_recorder_of_paid(&db).await;
    emit_numbers(&db, 1, 50).await;
    assert_handled_once(&stage, "app__all", 50).await;
    publish(&stage, "orders.event.paid.v1", &[], "{\"n\": 51}").await;
    until("it is handled", SOON, async || recorded(&db, "app__paid").await == [51]).await;
    change(&stage, |config| config.max_messages = 5).await;
    db.run("SELECT sea_mq.reload()").await;
    publish(&stage, "orders.event.paid.v1", &[], "{\"n\": 52}").await;
    until("it is handled", SOON, async || recorded(&db, "app__paid").await == [51, 52]).await;
    // Two looks.
    holds_for("nothing is missed", 12 * A_WHILE, async || {
        db.value::<i64>("SELECT count(*) FROM sea_mq.removed_messages", &[]).await == 0
    })
    .await;
}

async fn make_recorder_of_paid(db: &Database) {
    db.run(
        "SELECT sea_mq.subscribe('app__all', 'orders', 'record', filter => 'Counted', start_from => 'all');
         SELECT sea_mq.subscribe('app__paid', 'orders', 'record', filter => 'paid', start_from => 'all')",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_s_loss_is_told_as_a_bound() {
    let stage = prepared("removed_filter").await;
    let db = stage.connect().await;
    db.run(
        "CREATE FUNCTION slow(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.5); PERFORM record(e); END $$;
         SELECT sea_mq.subscribe('app__all', 'orders', 'slow', filter => 'counted', start_from => 'all', max_ack_pending => 2)",
    )
    .await;
    until_provisioned(&stage, "app__all").await;
    emit_numbers(&db, 1, 200).await;
    stage.broker.until_count(EVENTS, 200, SOON).await;
    until_recorded(&stage, 3).await;
    // It has been looked at once with what waits.
    holds_for("all goes on", 6 * A_WHILE, async || removed(&db, "app__all").await.is_none()).await;
    let stream = stage.broker.stream(EVENTS).await.expect("the stream is there");
    stream.purge().await.expect("cannot purge");
    stage.until_problem("problem LIKE 'up to % messages were removed%app__all%'").await;
}
