//! What the broker limits or is told by others: few consumers, short lives, pauses.

use std::time::Duration;

use async_nats::jetstream::consumer::{PullConsumer, pull};
use async_nats::jetstream::stream::Config;
use harness::{EVENTS, Stage, holds_for, until, until_some};
use serde_json::json;
use tokio_postgres::error::SqlState;

use crate::receiving::{
    assert_handled_once, emit_numbers, jetstream_consumer, make_recorder, prepared, recorded, until_provisioned,
    until_state, worker,
};
use crate::{A_WHILE, SOON};

async fn config(stage: &Stage, stream: &str) -> Config {
    until_some("the stream", SOON, async || Some(stage.broker.stream(stream).await?.cached_info().config.clone())).await
}

/// The one consumer is the subscription's: the relay reads the tail without one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_takes_one_consumer_is_published_to_after_a_restart() {
    let mut stage = Stage::new("one_consumer").await;
    let made =
        Config { name: EVENTS.into(), subjects: vec!["orders.event.>".into()], max_consumers: 1, ..Default::default() };
    stage.broker.jetstream().create_stream(made).await.expect("cannot make the stream");
    let db = stage.connect().await;
    make_recorder(&db).await;
    db.run(
        "SELECT sea_mq.create_stream('orders', managed => false);
         SELECT sea_mq.subscribe('app__all', 'orders', 'record', start_from => 'all')",
    )
    .await;
    emit_numbers(&db, 1, 300).await;
    assert_handled_once(&stage, "app__all", 300).await;
    until_provisioned(&stage, "app__all").await;
    // Something is in the tail: what was stored after the position was saved last, and what others have put there.
    crate::receiving::publish(&stage, "orders.event.counted.v1", &[("Nats-Msg-Id", "other")], "{\"n\": 301}").await;
    drop(db);
    let pid = worker(&stage, "sea_mq relay", 0).await;
    harness::kill(pid);
    worker(&stage, "sea_mq relay", pid).await;
    stage.broker.stop();
    stage.broker.start().await;
    let db = stage.connect().await;
    emit_numbers(&db, 302, 400).await;
    assert_handled_once(&stage, "app__all", 400).await;
    until("the stream is ready", SOON, async || {
        db.value("SELECT state = 'ready' FROM sea_mq.stream_status WHERE stream = 'ORDERS_EVENTS'", &[]).await
    })
    .await;
    let found: Vec<String> = db.values("SELECT kind FROM sea_mq.verify_stream('ORDERS_EVENTS')", &[]).await;
    assert_eq!(found, ["foreign"], "it can be compared, too");
}

async fn consumer(stage: &Stage, name: &str) -> PullConsumer {
    let stream = stage.broker.stream(EVENTS).await.expect("the stream is there");
    stream.get_consumer::<pull::Config>(name).await.expect("the consumer is there")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_somebody_has_paused_is_said_to_be() {
    let stage = prepared("paused_there").await;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.subscribe('app__all', 'orders', 'record')").await;
    emit_numbers(&db, 1, 10).await;
    assert_handled_once(&stage, "app__all", 10).await;
    until_state(&db, "app__all", "state = 'active'").await;
    let pause = async |until: &str| {
        let subject = "CONSUMER.PAUSE.ORDERS_EVENTS.app__all";
        let asked = json!({ "pause_until": until });
        let answer: Result<serde_json::Value, _> = stage.broker.jetstream().request(subject, &asked).await;
        assert!(answer.as_ref().is_ok_and(|answer| answer.get("error").is_none()), "{answer:?}");
    };
    pause("2100-01-01T00:00:00Z").await;
    emit_numbers(&db, 11, 20).await;
    let state = until_state(&db, "app__all", "state = 'waiting' AND error_kind = 'ConsumerPaused'").await;
    assert!(state["hint"].as_str().is_some_and(|hint| hint.contains("resume")), "{state}");
    assert!(
        state["error"].as_str().is_some_and(|error| error.contains("app__all") && error.contains("until 2100-01-01")),
        "{state}"
    );
    stage.until_problem("problem LIKE '%app__all%paused%'").await;
    // It was somebody's will.
    holds_for("it stays paused", A_WHILE, async || recorded(&db, "app__all").await.len() == 10).await;
    assert!(consumer(&stage, "app__all").await.cached_info().paused);
    pause("0001-01-01T00:00:00Z").await;
    assert_handled_once(&stage, "app__all", 20).await;
    until_state(&db, "app__all", "state = 'active' AND error IS NULL").await;
    stage.until_ok().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_duplicate_window_ends_with_the_messages() {
    let stage = Stage::new("short_lives").await;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.create_stream('orders', max_age => '1 minute')").await;
    db.emit("1", "Emitted", json!({})).await;
    stage.broker.until_count(EVENTS, 1, SOON).await;
    let made = config(&stage, EVENTS).await;
    assert_eq!((made.max_age, made.duplicate_window), (Duration::from_secs(60), Duration::from_secs(60)));
    // Also on a stream that is in use.
    db.run("SELECT sea_mq.alter_stream('ORDERS_EVENTS', max_age => '20 s')").await;
    until("the stream is changed", SOON, async || config(&stage, EVENTS).await.max_age == Duration::from_secs(20))
        .await;
    assert_eq!(config(&stage, EVENTS).await.duplicate_window, Duration::from_secs(20));
    db.emit("2", "Emitted", json!({})).await;
    stage.until_ok().await;
    db.run("SELECT sea_mq.alter_stream('ORDERS_EVENTS', max_age => '1 h')").await;
    until("the window is what was asked for", SOON, async || {
        config(&stage, EVENTS).await.duplicate_window == Duration::from_secs(120)
    })
    .await;
    // What no server takes.
    for refused in ["max_age => '1 ms'", "max_age => '1000 years'", "duplicate_window => '1 ms'"] {
        let sql = format!("SELECT sea_mq.alter_stream('ORDERS_EVENTS', {refused})");
        assert_eq!(db.refusal(&sql).await, SqlState::INVALID_PARAMETER_VALUE, "{refused}");
    }
    assert!(jetstream_consumer(&stage, "nobody").await.is_none());
}
