//! Every event is handled exactly once in effect, whatever is killed in between.

use harness::{Database, EVENTS, Stage, StageOptions, Stored, freeze, holds_for, ledger, thaw, until};
use serde_json::json;

use crate::receiving::{
    FORGETFUL, LONG, ask, assert_handled_once, emit_numbers, kill_consumer, make_choosy, make_recorder, prepared,
    publish_again, recorded, until_acknowledged, until_provisioned, until_recorded, until_state, until_status, worker,
};
use crate::{A_WHILE, SOON};

const EVENT_COUNT: i64 = 50_000;

/// As `prepared`, with events in the stream and a subscription that is beginning to handle them.
async fn busy(name: &str) -> Stage {
    let stage = prepared(name).await;
    let db = stage.connect().await;
    emit_numbers(&db, 1, EVENT_COUNT).await;
    stage.broker.until_count(EVENTS, EVENT_COUNT.unsigned_abs(), LONG).await;
    db.run("SELECT sea_mq.subscribe('app__all', 'orders', 'record', start_from => 'all', max_ack_pending => 2000)")
        .await;
    stage
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_killed_again_and_again_among_50_000_events_handles_each_once() {
    let stage = busy("consumer_killed").await;
    for count in [1_000, 8_000, 16_000, 24_000, 32_000, 40_000] {
        until_recorded(&stage, count).await;
        kill_consumer(&stage).await;
    }
    assert_handled_once(&stage, "app__all", EVENT_COUNT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_killed_among_50_000_events_has_each_handled_once() {
    let mut stage = busy("broker_killed_consumer").await;
    for count in [1_000, 15_000, 30_000] {
        until_recorded(&stage, count).await;
        stage.broker.kill();
        stage.broker.start().await;
    }
    assert_handled_once(&stage, "app__all", EVENT_COUNT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_of_the_whole_cluster_among_50_000_events_has_each_handled_once() {
    let mut stage = busy("cluster_crash_consumer").await;
    for count in [1_000, 15_000, 30_000] {
        until_recorded(&stage, count).await;
        stage.cluster.crash();
        stage.cluster.start().await;
    }
    assert_handled_once(&stage, "app__all", EVENT_COUNT).await;
}

/// The broker would wait for the acknowledgements of the killed consumer for 120 s (`ack_wait`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_consumer_killed_between_handler_and_commit_had_is_handled_once_and_soon() {
    let stage = prepared("uncommitted").await;
    let db = stage.connect().await;
    db.run(
        "CREATE TABLE hold ();
         CREATE FUNCTION held(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$
         BEGIN
             PERFORM record(e);
             IF (e.payload ->> 'n')::int % 5 = 0 AND EXISTS (SELECT FROM hold) THEN PERFORM pg_sleep(600); END IF;
         END $$;
         SELECT sea_mq.subscribe('app__held', 'orders', 'held', timeout => '10 minutes');
         INSERT INTO hold DEFAULT VALUES",
    )
    .await;
    emit_numbers(&db, 1, 20).await;
    let sleeping = "SELECT EXISTS (SELECT FROM pg_stat_activity
        WHERE backend_type = 'sea_mq consumer' AND wait_event = 'PgSleep')";
    for round in 0..3 {
        until("a handler has worked and does not commit", SOON, async || ask(&stage, sleeping).await == Some(true))
            .await;
        if round == 2 {
            stage.connect().await.run("DELETE FROM hold").await;
        }
        kill_consumer(&stage).await;
    }
    let db = stage.connect().await;
    until("all is handled", SOON, async || recorded(&db, "app__held").await.len() >= 20).await;
    assert_handled_once(&stage, "app__held", 20).await;
}

/// The acknowledgements die with the frozen broker, the consumer's memory with the consumer: both have to start over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_consumer_killed_between_commit_and_acknowledgement_had_is_not_handled_again() {
    let mut stage = prepared("unacknowledged").await;
    let db = stage.connect().await;
    db.run(
        "CREATE FUNCTION gated(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$
         BEGIN PERFORM pg_advisory_xact_lock_shared(7); PERFORM record(e); END $$;
         SELECT sea_mq.subscribe('app__gated', 'orders', 'gated', ack_wait => '1 s'), pg_advisory_lock(7)",
    )
    .await;
    emit_numbers(&db, 1, 20).await;
    stage.broker.until_count(EVENTS, 20, SOON).await;
    let waiting = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)";
    until("the handler waits", SOON, async || ask(&stage, waiting).await == Some(true)).await;
    freeze(stage.broker.pid());
    db.run("SELECT pg_advisory_unlock(7)").await;
    until_recorded(&stage, 1).await;
    kill_consumer(&stage).await;
    stage.broker.kill();
    stage.broker.start().await;
    assert_handled_once(&stage, "app__gated", 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminated_consumer_comes_back_and_handles_each_once() {
    let stage = prepared("consumer_terminated").await;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.subscribe('app__all', 'orders', 'record')").await;
    for round in 0..3 {
        let consumer = worker(&stage, "sea_mq consumer", 0).await;
        emit_numbers(&db, round * 500 + 1, (round + 1) * 500).await;
        until_recorded(&stage, round * 500 + 100).await;
        db.run(&format!("SELECT pg_terminate_backend({consumer})")).await;
        worker(&stage, "sea_mq consumer", consumer).await;
    }
    assert_handled_once(&stage, "app__all", 1500).await;
}

/// Pauses the subscription `app__all` and asks for its next messages, as a connection has done that broke without the
/// server's notice. The requests live as long as what is returned.
async fn ask_in_vain(stage: &Stage, count: u64) -> (async_nats::Client, async_nats::Subscriber) {
    until_provisioned(stage, "app__all").await;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.pause_subscription('app__all')").await;
    until_state(&db, "app__all", "state = 'paused'").await;
    let client = async_nats::connect(stage.broker.url()).await.expect("cannot connect");
    let inbox = client.new_inbox();
    let unread = client.subscribe(inbox.clone()).await.expect("cannot subscribe");
    let request = json!({ "batch": count, "expires": 25_000_000_000_i64 }).to_string();
    let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{EVENTS}.app__all");
    client.publish_with_reply(subject, inbox, request.into()).await.expect("cannot publish");
    client.flush().await.expect("cannot flush");
    (client, unread)
}

/// Resumes the subscription `app__all`, and waits until it receives.
async fn resume(db: &Database) {
    db.run("SELECT sea_mq.resume_subscription('app__all')").await;
    until_state(db, "app__all", "state = 'active'").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_to_somebody_who_is_gone_is_handled_before_what_follows() {
    let stage = prepared("gone_next").await;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.subscribe('app__all', 'orders', 'record', max_ack_pending => 500)").await;
    let _gone = ask_in_vain(&stage, 50).await;
    resume(&db).await;
    emit_numbers(&db, 1, 200).await;
    assert_handled_once(&stage, "app__all", 200).await;
    assert_eq!(recorded(&db, "app__all").await, (1..=200).collect::<Vec<i64>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_went_to_somebody_who_is_gone_is_handled_before_what_follows() {
    let stage = prepared("gone_before").await;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.subscribe('app__all', 'orders', 'record', max_ack_pending => 500)").await;
    let _gone = ask_in_vain(&stage, 150).await;
    emit_numbers(&db, 1, 20).await;
    until("the messages are gone", SOON, async || until_provisioned(&stage, "app__all").await.num_ack_pending == 20)
        .await;
    db.run("SELECT sea_mq.resume_subscription('app__all')").await;
    emit_numbers(&db, 21, 40).await;
    assert_handled_once(&stage, "app__all", 40).await;
    assert_eq!(recorded(&db, "app__all").await, (1..=40).collect::<Vec<i64>>());
}

/// Nothing follows by which it would show. `ack_wait` is longer than the test waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_to_somebody_who_is_gone_is_fetched_when_the_subscription_is_idle() {
    let stage = prepared("gone_last").await;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.subscribe('app__all', 'orders', 'record', ack_wait => '10 minutes')").await;
    let _gone = ask_in_vain(&stage, 10).await;
    resume(&db).await;
    emit_numbers(&db, 1, 10).await;
    assert_handled_once(&stage, "app__all", 10).await;
}

/// Connections stay open and nothing answers: no error tells the consumer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_hangs_is_waited_for_and_has_each_event_handled_once() {
    let options = StageOptions::default().setting("sea_mq.connect_timeout", "1s").setting("sea_mq.ack_timeout", "2s");
    let stage = options.start("inbox_hangs").await;
    let db = stage.connect().await;
    db.run(FORGETFUL).await;
    make_recorder(&db).await;
    db.run("SELECT sea_mq.subscribe('app__all', 'orders', 'record', max_ack_pending => 500, ack_wait => '1 s')").await;
    emit_numbers(&db, 1, 10_000).await;
    until_recorded(&stage, 1000).await;
    freeze(stage.broker.pid());
    // A connection is given up after the second ping without an answer, and one is sent every 10 s.
    until("the consumer says what is wrong", LONG, async || {
        let sql = "SELECT EXISTS (SELECT FROM sea_mq.subscription_status
            WHERE subscription = 'app__all' AND state = 'waiting' AND error IS NOT NULL)";
        db.value(sql, &[]).await
    })
    .await;
    thaw(stage.broker.pid());
    assert_handled_once(&stage, "app__all", 10_000).await;
    until_state(&db, "app__all", "state = 'active' AND error IS NULL").await;
}

/// The events come again from the outbox, under other sequences and to a consumer that knows nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_lost_everything_has_nothing_handled_twice() {
    let mut stage = prepared("inbox_refilled").await;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.subscribe('app__all', 'orders', 'record', max_ack_pending => 500)").await;
    emit_numbers(&db, 1, 3000).await;
    until_recorded(&stage, 1000).await;
    stage.broker.stop();
    stage.broker.forget_everything();
    stage.broker.start().await;
    emit_numbers(&db, 3001, 3010).await;
    assert_handled_once(&stage, "app__all", 3010).await;
    assert_eq!(stage.broker.count(EVENTS).await, 3010);
}

/// Whatever became of it the first time: handled, left alone, given up, or waiting for another attempt.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_stored_twice_is_handled_once() {
    let stage = prepared("stored_twice").await;
    let db = stage.connect().await;
    make_choosy(&db).await;
    db.run(
        "SELECT sea_mq.subscribe('app__choosy', 'orders', 'choosy', retry_delay => '1 hour',
            retry_delay_max => '1 hour')",
    )
    .await;
    emit_numbers(&db, 1, 4).await;
    for (n, status) in [(1, "processed"), (2, "skipped"), (3, "dead"), (4, "failed")] {
        until_status(&db, "app__choosy", n, status).await;
    }
    stage.broker.until_count(EVENTS, 4, SOON).await;
    for message in stage.broker.stored(EVENTS).await {
        publish_again(&stage, &message.subject, message.header("Nats-Msg-Id"), &message.json().to_string()).await;
    }
    assert_eq!(stage.broker.count(EVENTS).await, 8, "the broker did not store them twice");
    // What comes after them tells that they have been looked at.
    emit_numbers(&db, 5, 5).await;
    until_status(&db, "app__choosy", 5, "processed").await;
    until_acknowledged(&stage, "app__choosy").await;
    until_state(&db, "app__choosy", "duplicates >= 4").await;
    let rows: Vec<String> = db
        .values("SELECT concat_ws(' ', payload ->> 'n', status, attempts) FROM sea_mq.inbox_messages ORDER BY 1", &[])
        .await;
    assert_eq!(rows, ["1 processed 1", "2 skipped 1", "3 dead 1", "4 failed 1", "5 processed 1"]);
    assert_eq!(recorded(&db, "app__choosy").await, [1, 5]);
    assert_eq!(db.value::<i64>("SELECT count(*) FROM sea_mq.dlq_messages", &[]).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_handlers_emit_is_stored_once_for_each_event_and_says_where_it_comes_from() {
    let stage = prepared("emitting").await;
    let db = stage.connect().await;
    db.run(
        "CREATE FUNCTION follow(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$
         BEGIN
             PERFORM record(e), sea_mq.emit('order', e.aggregate_id, 'Followed', e.payload);
         END $$",
    )
    .await;
    let sql = "SELECT count(sea_mq.emit('order', '1', 'Counted', jsonb_build_object('n', n),
            correlation_id => 'story ' || n))
        FROM generate_series(1, 2000) n";
    assert_eq!(db.value::<i64>(sql, &[]).await, 2000);
    db.run("SELECT sea_mq.subscribe('app__follow', 'orders', 'follow', 'Counted', start_from => 'all')").await;
    until_recorded(&stage, 500).await;
    kill_consumer(&stage).await;
    stage.broker.until_count(EVENTS, 4000, SOON).await;
    assert_handled_once(&stage, "app__follow", 2000).await;
    let stored = stage.broker.stored(EVENTS).await;
    let (causes, effects): (Vec<Stored>, Vec<Stored>) =
        stored.into_iter().partition(|one| one.subject == "orders.event.counted.v1");
    ledger::assert_same_set(
        &(1..=2000).collect::<Vec<i64>>(),
        &effects.iter().map(|one| one.number("n")).collect::<Vec<i64>>(),
    );
    for effect in effects {
        let n = effect.number("n");
        let cause = causes.iter().find(|one| one.number("n") == n).expect("every number was emitted");
        assert_eq!(effect.header("X-Correlation-Id"), format!("story {n}"));
        assert_eq!(effect.header("X-Causation-Id"), cause.header("Nats-Msg-Id"));
    }
}

/// The limit is set, and the stream and the log could still bring the messages again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_inbox_keeps_what_could_still_come_again() {
    let stage = StageOptions::default()
        .setting("sea_mq.inbox_retention", "1s")
        .setting("sea_mq.retention", "1s")
        .start("inbox_kept")
        .await;
    let db = stage.connect().await;
    db.run(FORGETFUL).await;
    make_recorder(&db).await;
    db.run("SELECT sea_mq.subscribe('app__all', 'orders', 'record')").await;
    emit_numbers(&db, 1, 1).await;
    let first = until_status(&db, "app__all", 1, "processed").await;
    let mut last = 1;
    holds_for("the inbox keeps the first message", A_WHILE * 2, async || {
        last += 1;
        emit_numbers(&db, last, last).await;
        db.value("SELECT count(*) = 1 FROM sea_mq.inbox_messages WHERE (payload ->> 'n')::int = 1", &[]).await
    })
    .await;
    let id = first["message_id"].as_str().expect("a message has an id");
    publish_again(&stage, "orders.event.counted.v1", id, &json!({"n": 1}).to_string()).await;
    until_state(&db, "app__all", "duplicates >= 1").await;
    assert_handled_once(&stage, "app__all", last).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_inbox_gives_back_what_cannot_come_again() {
    let stage = StageOptions::default()
        .setting("sea_mq.inbox_retention", "1s")
        .setting("sea_mq.retention", "1s")
        .start("inbox_retention")
        .await;
    let db = stage.connect().await;
    db.run(FORGETFUL).await;
    make_recorder(&db).await;
    db.run("SELECT sea_mq.subscribe('app__all', 'orders', 'record')").await;
    emit_numbers(&db, 1, 2000).await;
    until_recorded(&stage, 2000).await;
    until_provisioned(&stage, "app__all").await;
    // Long enough for a busy machine to fetch what comes now.
    db.run("SELECT sea_mq.alter_stream('ORDERS_EVENTS', max_age => '10 s')").await;
    let mut last = 2000;
    until("the first messages are gone from the inbox", LONG, async || {
        last += 1;
        emit_numbers(&db, last, last).await;
        db.value("SELECT count(*) = 0 FROM sea_mq.inbox_messages WHERE (payload ->> 'n')::int <= 2000", &[]).await
    })
    .await;
    until_recorded(&stage, last).await;
    ledger::assert_same_set(&(1..=last).collect::<Vec<i64>>(), &recorded(&db, "app__all").await);
    // By TRUNCATE: a DELETE would leave dead tuples, and the space.
    db.run("CREATE EXTENSION pgstattuple").await;
    let sql = "SELECT sum(dead_tuple_count)::bigint FROM pg_inherits, pgstattuple(inhrelid)
        WHERE inhparent = 'sea_mq.inbox_log'::regclass";
    assert_eq!(db.value::<i64>(sql, &[]).await, 0);
}
