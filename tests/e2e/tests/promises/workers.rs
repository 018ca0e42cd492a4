//! Subscriptions whose messages several processes handle.

use harness::{kill, until};

use crate::SOON;
use crate::receiving::{
    LONG, assert_handled_once, assert_in_order, emit_numbers, kill_consumer, make_stumbling, prepared, publish_again,
    recorded, until_acknowledged, until_recorded, until_state, worker,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_workers_share_the_work_and_keep_each_aggregate_in_order() {
    const COUNT: i64 = 5000;
    let stage = prepared("workers").await;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.subscribe('app__all', 'orders', 'record', workers => 3, max_ack_pending => 500)").await;
    for part in 0..10 {
        emit_numbers(&db, part * COUNT / 10 + 1, (part + 1) * COUNT / 10).await;
    }
    assert_handled_once(&stage, "app__all", COUNT).await;
    assert_in_order(&db, 0..50, COUNT).await;
    let sql = "SELECT count(DISTINCT e.pid) FROM effects e JOIN pg_stat_activity a USING (pid)
        WHERE a.backend_type = 'sea_mq handler'";
    assert_eq!(db.value::<i64>(sql, &[]).await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_terminated_or_killed_loses_and_doubles_nothing() {
    const COUNT: i64 = 10_000;
    let stage = prepared("worker_killed").await;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.subscribe('app__all', 'orders', 'record', workers => 3, max_ack_pending => 1000)").await;
    emit_numbers(&db, 1, COUNT).await;
    until_recorded(&stage, 500).await;
    let handler = worker(&stage, "sea_mq handler", 0).await;
    db.run(&format!("SELECT pg_terminate_backend({handler})")).await;
    until_recorded(&stage, 3000).await;
    kill(worker(&stage, "sea_mq handler", handler).await);
    until_recorded(&stage, 6000).await;
    kill_consumer(&stage).await;
    assert_handled_once(&stage, "app__all", COUNT).await;
}

/// Messages that wait are the business of some worker at all times, and never of two.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_number_of_workers_is_changed_while_they_work() {
    const COUNT: i64 = 10_000;
    let stage = prepared("workers_changed").await;
    let db = stage.connect().await;
    db.run(
        "CREATE TABLE fixed ();
         CREATE FUNCTION partly(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$
         BEGIN
             IF e.aggregate_id = ANY ('{8,18,28,38,48}') AND NOT EXISTS (SELECT FROM fixed) THEN
                 RAISE EXCEPTION 'no';
             END IF;
             PERFORM record(e);
         END $$;
         SELECT sea_mq.subscribe('app__all', 'orders', 'partly', workers => 3, max_ack_pending => 2000,
            max_retrying => 2000, max_deliver => -1, retry_delay => '200 ms', retry_delay_max => '200 ms')",
    )
    .await;
    for (round, workers) in (0..).zip([1, 4, 2, 3, 1]) {
        emit_numbers(&db, round * COUNT / 5 + 1, (round + 1) * COUNT / 5).await;
        until_recorded(&stage, round * COUNT / 5 * 9 / 10 + 500).await;
        db.run(&format!("SELECT sea_mq.alter_subscription('app__all', workers => {workers})")).await;
    }
    until_recorded(&stage, COUNT / 10 * 9).await;
    assert_in_order(&db, (0..50).filter(|aggregate| aggregate % 10 != 8), COUNT).await;
    until_state(&db, "app__all", &format!("retrying = {}", COUNT / 10)).await;
    db.run("INSERT INTO fixed DEFAULT VALUES").await;
    assert_handled_once(&stage, "app__all", COUNT).await;
}

/// The second copy says nothing of the aggregate, so that another worker gets it, perhaps at the same moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_stored_twice_is_handled_by_one_of_the_workers() {
    const COUNT: i64 = 300;
    let stage = prepared("workers_twice").await;
    let db = stage.connect().await;
    emit_numbers(&db, 1, COUNT).await;
    stage.broker.until_count(harness::EVENTS, COUNT.unsigned_abs(), SOON).await;
    for message in stage.broker.stored(harness::EVENTS).await {
        publish_again(&stage, &message.subject, message.header("Nats-Msg-Id"), &message.json().to_string()).await;
    }
    db.run(
        "SELECT sea_mq.subscribe('app__one', 'orders', 'record', start_from => 'all', max_ack_pending => 1000),
            sea_mq.subscribe('app__three', 'orders', 'record', start_from => 'all', max_ack_pending => 1000,
                workers => 3)",
    )
    .await;
    for subscription in ["app__one", "app__three"] {
        until(&format!("{subscription} has handled all"), LONG, async || {
            recorded(&db, subscription).await.len() >= usize::try_from(COUNT).expect("it is small")
        })
        .await;
        until_acknowledged(&stage, subscription).await;
        assert_handled_once(&stage, subscription, COUNT).await;
    }
}

/// The database takes no outcome of a failed attempt for a while, as with a full disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_of_which_the_outcome_could_not_be_recorded_is_followed_by_another() {
    const LAST: i64 = 60;
    let stage = prepared("unrecorded").await;
    let db = stage.connect().await;
    make_stumbling(&db, 10).await;
    db.run(
        "CREATE TABLE trouble (there boolean);
         INSERT INTO trouble VALUES (true);
         GRANT SELECT ON trouble TO PUBLIC;
         CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF NEW.status = 'failed' AND (SELECT there FROM public.trouble) THEN
                 RAISE EXCEPTION 'no space left' USING ERRCODE = 'disk_full';
             END IF;
             RETURN NEW;
         END $$;
         CREATE TRIGGER fail BEFORE UPDATE ON sea_mq.inbox_pending FOR EACH ROW EXECUTE FUNCTION fail();
         SELECT sea_mq.subscribe('app__one', 'orders', handler => 'stumbling', retry_delay => '10 ms');
         SELECT sea_mq.subscribe('app__several', 'orders', handler => 'stumbling', workers => 3, retry_delay => '10 ms')",
    )
    .await;
    emit_numbers(&db, 1, LAST).await;
    let cut_off = "SELECT count(DISTINCT subscription) = 2 FROM sea_mq.inbox_pending WHERE status = 'processing'";
    until("attempts of both are cut off", LONG, async || db.value::<bool>(cut_off, &[]).await).await;
    let blocked = "SELECT EXISTS (SELECT FROM sea_mq.problems WHERE problem LIKE '%no space left%')";
    until("somebody is told", LONG, async || db.value::<bool>(blocked, &[]).await).await;
    db.run("UPDATE trouble SET there = false").await;
    until_recorded(&stage, 2 * LAST).await;
    for subscription in ["app__one", "app__several"] {
        assert_handled_once(&stage, subscription, LAST).await;
    }
    let told =
        "SELECT count(*) > 0 FROM sea_mq.inbox_messages WHERE errors::text LIKE '%the outcome could not be recorded%'";
    assert!(db.value::<bool>(told, &[]).await, "the history says why there was another attempt");
}
