//! What is fetched ahead, so that a far broker is no slow one; and how much of it may fail.

use std::time::{Duration, Instant};

use harness::{Database, Line, holds_for, until, until_some};

use crate::receiving::{LONG, emit_numbers, jetstream_consumer, prepared, recorded, until_recorded};
use crate::{A_WHILE, SOON};

/// While one is handled, the others are on their way: more than a line of 50 ms holds at 10,000 messages a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_messages_are_fetched_ahead_of_a_handler() {
    let stage = prepared("far_ahead").await;
    let db = stage.connect().await;
    db.run(
        "CREATE FUNCTION held(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$
         BEGIN PERFORM pg_advisory_xact_lock_shared(1); PERFORM record(e); END $$;
         SELECT sea_mq.subscribe('app__all', 'orders', 'held', start_from => 'all')",
    )
    .await;
    let holder = stage.connect().await;
    holder.run("SELECT pg_advisory_lock(1)").await;
    emit_numbers(&db, 1, 3000).await;
    until_some("so many are on their way", SOON, async || {
        let consumer = jetstream_consumer(&stage, "app__all").await?;
        (consumer.num_ack_pending == 1000).then_some(())
    })
    .await;
    holder.run("SELECT pg_advisory_unlock(1)").await;
    until_recorded(&stage, 3000).await;
}

async fn retrying(db: &Database) -> i64 {
    // Some of them are being tried just now.
    db.value("SELECT count(*) FROM sea_mq.inbox_pending WHERE attempts > 0", &[]).await
}

/// Whoever handles: the consumer, or processes of their own.
async fn assert_stops(name: &str, workers: i32, settings: &str, limit: i64) {
    let stage = prepared(name).await;
    let db = stage.connect().await;
    db.run(&format!(
        "CREATE TABLE switch (works boolean);
         INSERT INTO switch VALUES (false);
         CREATE FUNCTION fickle(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$
         BEGIN
             IF NOT (SELECT works FROM switch) THEN RAISE EXCEPTION 'not now'; END IF;
             PERFORM record(e);
         END $$;
         SELECT sea_mq.subscribe('app__all', 'orders', 'fickle', start_from => 'all', max_deliver => -1, workers => {workers},
            retry_delay => '100 ms', retry_delay_max => '1 s'{settings})"
    ))
    .await;
    emit_numbers(&db, 1, 400).await;
    until(&format!("{limit} wait for another attempt"), LONG, async || retrying(&db).await == limit).await;
    holds_for("nothing new is tried", A_WHILE, async || retrying(&db).await == limit).await;
    db.run("UPDATE switch SET works = true").await;
    until_recorded(&stage, 400).await;
    let mut all = recorded(&db, "app__all").await;
    all.sort_unstable();
    assert_eq!(all, (1..=400).collect::<Vec<i64>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_fifty_wait_for_another_attempt_nothing_new_is_tried() {
    assert_stops("far_failing", 1, "", 50).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_as_many_as_may_wait_for_another_attempt_nothing_new_is_tried_by_several_workers() {
    // Each of three may be in the middle of a batch when the others fill what is left.
    let stage = prepared("far_failing_workers").await;
    let db = stage.connect().await;
    db.run(
        "CREATE FUNCTION fail(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'never'; END $$;
         SELECT sea_mq.subscribe('app__all', 'orders', 'fail', start_from => 'all', max_deliver => -1, workers => 3,
            retry_delay => '100 ms', retry_delay_max => '1 s', max_retrying => 20)",
    )
    .await;
    emit_numbers(&db, 1, 600).await;
    until("as many as may wait", LONG, async || retrying(&db).await >= 20).await;
    holds_for("nothing new is tried", A_WHILE, async || retrying(&db).await <= 3 * 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_may_have_fewer_or_more_that_wait_for_another_attempt() {
    assert_stops("far_failing_few", 1, ", max_retrying => 7", 7).await;
    assert_stops("far_failing_as_pending", 1, ", max_ack_pending => 5", 5).await;
}

/// How fast: for the figures.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: what it shows depends on the machine"]
async fn how_fast_a_far_broker_is() {
    for (round_trip, settings) in
        [(0, ", max_ack_pending => 50"), (50, ", max_ack_pending => 50"), (50, ""), (200, ""), (0, "")]
    {
        let stage = prepared(&format!("far_speed_{round_trip}")).await;
        let db = stage.connect().await;
        emit_numbers(&db, 1, 20_000).await;
        stage.broker.until_count(harness::EVENTS, 20_000, LONG).await;
        let line = Line::start(stage.broker.port(), 1 << 30, Duration::from_millis(round_trip / 2)).await;
        stage.cluster.run(&format!("ALTER SYSTEM SET sea_mq.nats_url = '{}'", line.url())).await;
        stage.cluster.run("SELECT pg_reload_conf()").await;
        until("the relay has come through the line", LONG, async || line.connections() > 0).await;
        db.run(&format!("SELECT sea_mq.subscribe('app__all', 'orders', 'record', start_from => 'all'{settings})"))
            .await;
        until_recorded(&stage, 500).await;
        let begin = Instant::now();
        let count = async || db.value::<i64>("SELECT count(*) FROM effects", &[]).await;
        let first = count().await;
        until("there is an end to it", LONG, async || count().await >= 20_000 || begin.elapsed().as_secs() >= 15).await;
        let handled = count().await - first;
        println!("{round_trip} ms{settings}: {:.0} a second", handled as f64 / begin.elapsed().as_secs_f64());
    }
}
