//! A stream under another name: the backlog goes along, and what the other one lacks is put there.

use async_nats::jetstream::stream::{Config, Source};
use harness::{Database, EVENTS, Stage, holds_for, until, until_some};
use tokio_postgres::error::SqlState;

use crate::receiving::{assert_in_order, emit_numbers, prepared, recorded, until_recorded, until_state};
use crate::{A_WHILE, SOON};

const OTHER: &str = "ORDERS_MIRROR";

fn mirror(name: &str, of: &str) -> Config {
    let mirror = Some(Source { name: of.into(), ..Default::default() });
    Config { name: name.into(), mirror, allow_direct: true, ..Default::default() }
}

/// Makes a mirror a stream of its own.
async fn promote(stage: &Stage, name: &str, subject: &str) {
    let mut config = stage.broker.stream(name).await.expect("the mirror is there").cached_info().config.clone();
    config.mirror = None;
    config.subjects = vec![subject.into()];
    stage.broker.jetstream().update_stream(config).await.expect("cannot promote the mirror");
}

async fn assert_numbers(stage: &Stage, stream: &str, last: i64) {
    stage.broker.until_count(stream, last.cast_unsigned(), SOON).await;
    let stored = stage.broker.stored(stream).await;
    let found: Vec<i64> = stored.iter().map(|one| one.number("n")).collect();
    assert_eq!(found, (1..=last).collect::<Vec<i64>>());
}

async fn until_stream_state(db: &Database, stream: &str, state: &str) {
    let sql = "SELECT EXISTS (SELECT FROM sea_mq.stream_status WHERE stream = $1 AND state = $2)";
    until(&format!("{stream} is {state}"), SOON, async || db.value(sql, &[&stream, &state]).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_that_is_promoted_takes_the_place_of_the_stream_and_gets_the_backlog() {
    let stage = prepared("rename_mirror").await;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.subscribe('app__all', 'orders', 'record', start_from => 'all')").await;
    emit_numbers(&db, 1, 90).await;
    until_recorded(&stage, 90).await;
    stage.broker.jetstream().create_stream(mirror(OTHER, EVENTS)).await.expect("cannot make the mirror");
    stage.broker.until_count(OTHER, 90, SOON).await;
    db.run("SELECT sea_mq.alter_stream('ORDERS_EVENTS', managed => false)").await;
    stage.broker.jetstream().delete_stream(EVENTS).await.expect("cannot delete the stream");
    until_state(&db, "app__all", "state = 'waiting' AND error_kind = 'StreamVanished' AND hint LIKE '%unsubscribe%'")
        .await;
    stage.until_problem("problem LIKE 'subscription app__all is waiting: %stream%'").await;
    emit_numbers(&db, 91, 150).await;
    until_stream_state(&db, EVENTS, "refused").await;
    promote(&stage, OTHER, "orders.event.>").await;
    let last = stage.broker.stream(OTHER).await.expect("it is there").cached_info().state.last_sequence;
    stage.broker.stream(OTHER).await.expect("it is there").delete_message(last).await.expect("cannot delete a message");
    let name: String = db.value("SELECT sea_mq.rename_stream('ORDERS_EVENTS', 'ORDERS_MIRROR')", &[]).await;
    assert_eq!(name, OTHER);
    stage.broker.until_count(OTHER, 150, SOON).await;
    let mut found: Vec<i64> = stage.broker.stored(OTHER).await.iter().map(|one| one.number("n")).collect();
    // What was missing stands before the backlog.
    assert_eq!(found[89..92], [90, 91, 92]);
    found.sort_unstable();
    assert_eq!(found, (1..=150).collect::<Vec<i64>>());
    until_recorded(&stage, 150).await;
    holds_for("nothing is handled again", A_WHILE, async || recorded(&db, "app__all").await.len() == 150).await;
    assert_in_order(&db, 0..50, 150).await;
    until_stream_state(&db, OTHER, "ready").await;
    let losses: i64 = db.value("SELECT losses FROM sea_mq.stream_status WHERE stream = $1", &[&OTHER]).await;
    assert_eq!(losses, 0, "it was not lost");
    // That a message was deleted is said of the mirror as of any stream.
    db.run("SELECT sea_mq.forget_removed('app__all')").await;
    stage.until_ok().await;
    let source: String = db.value("SELECT stream FROM sea_mq.subscription_status", &[]).await;
    assert_eq!(source, OTHER);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_renamed_is_made_anew_with_all_that_is_retained() {
    let stage = prepared("rename_anew").await;
    let db = stage.connect().await;
    emit_numbers(&db, 1, 50).await;
    stage.broker.until_count(EVENTS, 50, SOON).await;
    db.run("SELECT sea_mq.create_consumer('orders', 'team__audit')").await;
    db.run("SELECT sea_mq.rename_stream('ORDERS_EVENTS', 'SALES')").await;
    // The old one has the subjects still.
    stage.until_problem("problem LIKE 'stream SALES:%ORDERS_EVENTS stores%'").await;
    emit_numbers(&db, 51, 60).await;
    stage.broker.jetstream().delete_stream(EVENTS).await.expect("cannot delete the stream");
    assert_numbers(&stage, "SALES", 60).await;
    until_some("the consumer goes along", SOON, async || {
        let stream = stage.broker.stream("SALES").await?;
        stream.consumer_info("team__audit").await.ok()
    })
    .await;
    stage.until_ok().await;
}

/// Somebody restores a stream from a copy elsewhere, under its own name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_under_the_stream_s_own_name_is_used_once_it_is_promoted() {
    let stage = prepared("rename_same").await;
    let db = stage.connect().await;
    emit_numbers(&db, 1, 50).await;
    stage.broker.until_count(EVENTS, 50, SOON).await;
    stage.broker.jetstream().create_stream(mirror("BACKUP", EVENTS)).await.expect("cannot make the mirror");
    stage.broker.until_count("BACKUP", 50, SOON).await;
    db.run("SELECT sea_mq.alter_stream('ORDERS_EVENTS', managed => false)").await;
    stage.broker.jetstream().delete_stream(EVENTS).await.expect("cannot delete the stream");
    // Neither may be the other's mirror.
    promote(&stage, "BACKUP", "backup.>").await;
    stage.broker.jetstream().create_stream(mirror(EVENTS, "BACKUP")).await.expect("cannot make the mirror");
    stage.until_problem("problem LIKE 'stream ORDERS_EVENTS: %mirror%'").await;
    emit_numbers(&db, 51, 70).await;
    stage.broker.until_count(EVENTS, 50, SOON).await;
    promote(&stage, EVENTS, "orders.event.>").await;
    assert_numbers(&stage, EVENTS, 70).await;
    until_stream_state(&db, EVENTS, "ready").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_a_stream_s_name_is_refused() {
    let stage = prepared("rename_refused").await;
    let db = stage.connect().await;
    for (sql, expected) in [
        ("SELECT sea_mq.rename_stream('NONE', 'OTHER')", SqlState::UNDEFINED_OBJECT),
        ("SELECT sea_mq.rename_stream('ORDERS_EVENTS', 'ORDERS_DLQ')", SqlState::DUPLICATE_OBJECT),
        ("SELECT sea_mq.rename_stream('ORDERS_EVENTS', 'a.b')", SqlState::INVALID_PARAMETER_VALUE),
        ("SELECT sea_mq.rename_stream('ORDERS_EVENTS', 'SEA_MQ_RELAYS')", SqlState::INVALID_PARAMETER_VALUE),
        ("SELECT sea_mq.rename_stream('ORDERS_EVENTS', NULL)", SqlState::NULL_VALUE_NOT_ALLOWED),
    ] {
        assert_eq!(db.refusal(sql).await, expected, "{sql}");
    }
    db.run("SELECT sea_mq.rename_stream('ORDERS_EVENTS', 'ORDERS_EVENTS')").await;
}
