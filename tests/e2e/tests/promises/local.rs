//! Without a broker, events go to the subscriptions of the same database, with the same promises.

use harness::{EVENTS, Stage, StageOptions, holds_for, ledger, until};
use serde_json::json;

use crate::receiving::{
    LONG, ask, emit_numbers, kill_consumer, make_recorder, recorded, until_recorded, until_state, until_status,
};
use crate::{A_WHILE, SOON};

/// A stage whose database does not know the broker.
async fn prepared(name: &str) -> Stage {
    let stage = StageOptions { no_url: true, ..StageOptions::default() }.start(name).await;
    make_recorder(&stage.connect().await).await;
    stage
}

/// Tells the database about the broker.
async fn connect_to_broker(stage: &Stage) {
    stage.cluster.run(&format!("ALTER SYSTEM SET sea_mq.nats_url = '{}'", stage.broker.url())).await;
    stage.cluster.run("SELECT pg_reload_conf()").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_broker_events_are_handled_in_order_from_where_the_subscription_begins() {
    let stage = prepared("local").await;
    let db = stage.connect().await;
    emit_numbers(&db, 1, 5).await;
    db.run(
        "SELECT sea_mq.subscribe('app__new', 'orders', 'record', priority => 5),
            sea_mq.subscribe('app__all', 'orders', 'record', start_from => 'all'),
            sea_mq.subscribe('app__paid', 'orders', 'record', 'OrderPaid', start_from => 'all'),
            sea_mq.subscribe('app__bills', 'bills', 'record', start_from => 'all')",
    )
    .await;
    emit_numbers(&db, 6, 10).await;
    db.emit("1", "OrderPaid", json!({"n": 11})).await;
    until_recorded(&stage, 6 + 11 + 1).await;
    let message = until_status(&db, "app__all", 11, "processed").await;
    for (column, value) in [
        ("source_context", json!("orders")),
        ("event_type", json!("order_paid")),
        ("event_version", json!(1)),
        ("subject", json!("orders.event.order_paid.v1")),
        ("aggregate_id", json!("1")),
        ("attempts", json!(1)),
        ("correlation_id", message["message_id"].clone()),
    ] {
        assert_eq!(message[column], value, "{column}: {message}");
    }
    holds_for("nothing more is handled", A_WHILE, async || db.value("SELECT count(*) = 18 FROM effects", &[]).await)
        .await;
    assert_eq!(recorded(&db, "app__new").await, [6, 7, 8, 9, 10, 11]);
    assert_eq!(recorded(&db, "app__all").await, (1..=11).collect::<Vec<i64>>());
    assert_eq!(recorded(&db, "app__paid").await, [11]);
    until_state(&db, "app__all", "state = 'active' AND error IS NULL AND processed = 11").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_broker_an_event_after_a_change_of_the_filter_is_judged_by_the_new_one() {
    const CHANGES: i64 = 50;
    let stage = prepared("local_filter").await;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.subscribe('app__one', 'orders', 'record', 'Nothing')").await;
    for n in 1..=CHANGES {
        // The first change is looked at, the second soon after it.
        db.run("SELECT sea_mq.alter_subscription('app__one', max_deliver => 7)").await;
        db.run(&format!("SELECT sea_mq.alter_subscription('app__one', filter => 'Type{n}')")).await;
        db.emit("1", &format!("Type{n}"), json!({"n": n})).await;
        until_recorded(&stage, n).await;
    }
    assert_eq!(recorded(&db, "app__one").await, (1..=CHANGES).collect::<Vec<i64>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_broker_failures_are_retried_skipped_dead_lettered_and_replayed() {
    let stage = prepared("local_failures").await;
    let db = stage.connect().await;
    db.run(
        "CREATE FUNCTION choosy(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$
         BEGIN
             PERFORM record(e);
             CASE (e.payload ->> 'n')::int
             WHEN 2 THEN PERFORM sea_mq.skip('not today');
             WHEN 3 THEN PERFORM sea_mq.poison('never');
             WHEN 4 THEN RAISE EXCEPTION 'no';
             WHEN 5 THEN IF e.attempt < 3 THEN RAISE EXCEPTION 'not yet'; END IF;
             ELSE PERFORM sea_mq.emit('order', '1', 'Followed', e.payload);
             END CASE;
         END $$;
         SELECT sea_mq.subscribe('app__choosy', 'orders', 'choosy', 'Counted', max_deliver => 3, retry_delay => '1 ms'),
            sea_mq.subscribe('app__followed', 'orders', 'record', 'Followed')",
    )
    .await;
    emit_numbers(&db, 1, 6).await;
    for (n, status, attempts) in [
        (1, "processed", 1),
        (2, "skipped", 1),
        (3, "dead", 1),
        (4, "dead", 3),
        (5, "processed", 3),
        (6, "processed", 1),
    ] {
        let message = until_status(&db, "app__choosy", n, status).await;
        assert_eq!(message["attempts"], attempts, "{message}");
    }
    until_status(&db, "app__followed", 6, "processed").await;
    let followed = until_status(&db, "app__followed", 1, "processed").await;
    let cause = until_status(&db, "app__choosy", 1, "processed").await;
    assert_eq!(followed["causation_id"], cause["message_id"], "{followed}");
    assert_eq!(followed["correlation_id"], cause["correlation_id"], "{followed}");
    let letters: Vec<String> =
        db.values("SELECT (payload ->> 'n') || ' ' || reason FROM sea_mq.dlq_messages ORDER BY 1", &[]).await;
    assert_eq!(letters, ["3 poison", "4 exhausted"]);
    let replay = "SELECT sea_mq.dlq_replay(id, '{\"n\": 7}') FROM sea_mq.dlq_list() WHERE reason = 'poison'";
    let replay: uuid::Uuid = db.value(replay, &[]).await;
    let message = until_status(&db, "app__choosy", 7, "processed").await;
    assert_eq!(message["message_id"], json!(replay.to_string()), "{message}");
    until_status(&db, "app__followed", 7, "processed").await;
    let mut handled = recorded(&db, "app__choosy").await;
    handled.sort_unstable();
    assert_eq!(handled, [1, 5, 6, 7]);
    let mut followed = recorded(&db, "app__followed").await;
    followed.sort_unstable();
    assert_eq!(followed, [1, 6, 7]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_broker_a_killed_consumer_and_a_crashed_cluster_lose_and_double_nothing() {
    const COUNT: i64 = 20_000;
    let mut stage = prepared("local_killed").await;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.subscribe('app__all', 'orders', 'record')").await;
    emit_numbers(&db, 1, COUNT).await;
    for count in [500, 5000] {
        until_recorded(&stage, count).await;
        kill_consumer(&stage).await;
    }
    until_recorded(&stage, 10_000).await;
    stage.cluster.crash();
    stage.cluster.start().await;
    until_recorded(&stage, COUNT).await;
    let db = stage.connect().await;
    holds_for("nothing is handled again", A_WHILE, async || {
        ask(&stage, "SELECT count(*) FROM effects").await == Some(COUNT)
    })
    .await;
    ledger::assert_same_set(&(1..=COUNT).collect::<Vec<i64>>(), &recorded(&db, "app__all").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_broker_transactions_that_commit_late_are_handled_all_the_same() {
    let stage = prepared("local_late").await;
    let db = stage.connect().await;
    db.run(
        "CREATE TABLE changes (n int);
         CREATE FUNCTION count_down(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$
         BEGIN
             PERFORM record(e);
             IF (e.payload ->> 'n')::int > 1000 THEN
                 PERFORM sea_mq.emit('order', '1', 'Counted', jsonb_build_object('n', (e.payload ->> 'n')::int - 1));
             END IF;
         END $$;
         SELECT sea_mq.subscribe('app__all', 'orders', 'count_down')",
    )
    .await;
    let (late, prepared) = (stage.connect().await, stage.connect().await);
    late.run("BEGIN; INSERT INTO changes VALUES (1)").await;
    emit_numbers(&late, 1, 1).await;
    prepared.run("BEGIN; INSERT INTO changes VALUES (2)").await;
    emit_numbers(&prepared, 2, 2).await;
    prepared.run("PREPARE TRANSACTION 'two'").await;
    emit_numbers(&db, 3, 3).await;
    until_status(&db, "app__all", 3, "processed").await;
    // A handler's events are handled as well, and meanwhile much has happened.
    emit_numbers(&db, 1050, 1050).await;
    until_status(&db, "app__all", 1000, "processed").await;
    prepared.run("COMMIT PREPARED 'two'").await;
    until_status(&db, "app__all", 2, "processed").await;
    late.run("COMMIT").await;
    until_status(&db, "app__all", 1, "processed").await;
    let expected: Vec<i64> = [3].into_iter().chain((1000..=1050).rev()).chain([2, 1]).collect();
    holds_for("nothing is handled again", A_WHILE, async || recorded(&db, "app__all").await == expected).await;
}

/// It must not be emptied under a subscription that rests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_broker_the_log_keeps_what_is_not_handled_yet() {
    let stage = StageOptions { no_url: true, ..StageOptions::default() }
        .setting("sea_mq.retention", "1s")
        .setting("sea_mq.slot_size", "64kB")
        .start("local_retention")
        .await;
    let db = stage.connect().await;
    make_recorder(&db).await;
    db.run(
        "SELECT sea_mq.subscribe('app__rests', 'orders', 'record'), sea_mq.subscribe('app__all', 'orders', 'record')",
    )
    .await;
    emit_numbers(&db, 1, 1).await;
    until_recorded(&stage, 2).await;
    db.run("SELECT sea_mq.pause_subscription('app__rests')").await;
    let mut last = 1;
    holds_for("the log keeps them", A_WHILE * 2, async || {
        emit_numbers(&db, last + 1, last + 300).await;
        last += 300;
        db.value("SELECT count(*) = 1 FROM sea_mq.outbox_events WHERE payload ->> 'n' = '2'", &[]).await
    })
    .await;
    db.run("SELECT sea_mq.resume_subscription('app__rests')").await;
    until_recorded(&stage, last * 2).await;
    assert_eq!(recorded(&db, "app__rests").await, (1..=last).collect::<Vec<i64>>());
}

/// Some was handled, some waits for another attempt, some is dead, and more is emitted all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_configured_later_gets_everything_and_nothing_is_handled_again() {
    const COUNT: i64 = 3000;
    let stage = prepared("local_later").await;
    let db = stage.connect().await;
    db.run(
        "CREATE TABLE fixed ();
         CREATE FUNCTION later(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$
         BEGIN
             IF (e.payload ->> 'n')::int % 500 = 7 AND NOT EXISTS (SELECT FROM fixed) THEN
                 RAISE EXCEPTION 'not yet';
             END IF;
             IF (e.payload ->> 'n')::int % 500 = 8 THEN PERFORM sea_mq.poison('never'); END IF;
             PERFORM record(e);
         END $$;
         SELECT sea_mq.subscribe('app__later', 'orders', 'later', retry_delay => '100 ms',
                retry_delay_max => '100 ms', max_deliver => -1),
            sea_mq.subscribe('app__all', 'orders', 'record', start_from => 'all')",
    )
    .await;
    emit_numbers(&db, 1, COUNT / 3).await;
    until_recorded(&stage, COUNT / 3 * 2 - 4).await;
    let connector = stage.connector();
    let writer = tokio::spawn(async move {
        let db = connector.try_connect().await.expect("cannot connect");
        for n in COUNT / 3 + 1..=COUNT {
            emit_numbers(&db, n, n).await;
        }
    });
    connect_to_broker(&stage).await;
    writer.await.expect("the writer failed");
    stage.broker.until_count(EVENTS, COUNT.unsigned_abs(), LONG).await;
    until_recorded(&stage, COUNT * 2 - 12).await;
    db.run("INSERT INTO fixed DEFAULT VALUES").await;
    until_recorded(&stage, COUNT * 2 - 6).await;
    holds_for("nothing is handled again", A_WHILE, async || {
        db.value("SELECT count(*) = $1 FROM effects", &[&(COUNT * 2 - 6)]).await
    })
    .await;
    let all: Vec<i64> = (1..=COUNT).collect();
    let good: Vec<i64> = all.iter().copied().filter(|n| n % 500 != 8).collect();
    ledger::assert_same_set(&all, &recorded(&db, "app__all").await);
    ledger::assert_same_set(&good, &recorded(&db, "app__later").await);
    let mut stored: Vec<i64> = Vec::new();
    stage.broker.for_each_stored(EVENTS, |message| stored.push(message.number("n"))).await;
    ledger::assert_same(&all, &stored);
    stage.broker.until_count("ORDERS_DLQ", 6, SOON).await;
    until("the dead letters are known", SOON, async || {
        db.value("SELECT count(stream_seq) = 6 AND count(*) = 6 FROM sea_mq.dlq_messages", &[]).await
    })
    .await;
    until_state(&db, "app__all", "state = 'active' AND error IS NULL").await;
}
