//! Subscriptions: what they receive, from where on, in which order, and their consumers in JetStream.

use std::time::Duration;

use async_nats::jetstream::consumer::AckPolicy;
use harness::{Database, EVENTS, Stage, StageOptions, holds_for, until};
use tokio_postgres::error::SqlState;

use crate::receiving::{
    FORGETFUL, assert_handled_once, emit_numbers, jetstream_consumer, make_recorder, prepared, publish, recorded,
    until_acknowledged, until_provisioned, until_recorded, until_state, until_status,
};
use crate::{A_WHILE, SOON};

async fn until_recorded_by(db: &Database, subscription: &str, numbers: &[i64]) {
    let last = numbers.last().expect("something is expected");
    until(&format!("{subscription} handles event {last}"), SOON, async || {
        recorded(db, subscription).await.contains(last)
    })
    .await;
    assert_eq!(recorded(db, subscription).await, numbers, "{subscription}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_by_type_version_or_wildcard_lets_through_what_it_says() {
    let stage = prepared("filters").await;
    let db = stage.connect().await;
    db.run(
        "SELECT sea_mq.subscribe('app__all', 'orders', 'record'),
            sea_mq.subscribe('app__type', 'orders', 'record', 'OrderPlaced'),
            sea_mq.subscribe('app__version', 'orders', 'record', 'order_placed.v2'),
            sea_mq.subscribe('app__wildcard', 'orders', 'record', 'orders.event.*.v2'),
            sea_mq.subscribe('app__by_stream', 'ORDERS_EVENTS', 'record', 'orders.event.order_paid.>')",
    )
    .await;
    let events = [("OrderPlaced", 1), ("OrderPlaced", 2), ("OrderPaid", 1), ("order_paid", 2), ("OrderPlacedLater", 1)];
    for round in 0..2 {
        for (at, (event_type, version)) in (1_i64..).zip(events) {
            let n = round * 5 + at;
            let payload = serde_json::json!({ "n": n });
            db.execute("SELECT sea_mq.emit('order', '1', $1, $2, $3)", &[&event_type, &payload, &version])
                .await
                .expect("cannot emit");
        }
    }
    until_recorded_by(&db, "app__all", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]).await;
    until_recorded_by(&db, "app__type", &[1, 2, 6, 7]).await;
    until_recorded_by(&db, "app__version", &[2, 7]).await;
    until_recorded_by(&db, "app__wildcard", &[2, 4, 7, 9]).await;
    until_recorded_by(&db, "app__by_stream", &[3, 4, 8, 9]).await;
    let rows: i64 = db.value("SELECT count(*) FROM sea_mq.inbox_messages", &[]).await;
    assert_eq!(rows, 10 + 4 + 2 + 4 + 4);
    assert_eq!(db.refusal("SELECT sea_mq.subscribe('app__x', 'orders', 'record', 'a b')").await.code(), "22023");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_begins_where_it_says() {
    let stage = prepared("start_from").await;
    let db = stage.connect().await;
    emit_numbers(&db, 1, 3).await;
    stage.broker.until_count(EVENTS, 3, SOON).await;
    let between: String = db.value("SELECT clock_timestamp()::text", &[]).await;
    emit_numbers(&db, 4, 6).await;
    stage.broker.until_count(EVENTS, 6, SOON).await;
    db.run(&format!(
        "SELECT sea_mq.subscribe('app__new', 'orders', 'record'),
            sea_mq.subscribe('app__all', 'orders', 'record', start_from => 'all'),
            sea_mq.subscribe('app__sequence', 'orders', 'record', start_from => '5'),
            sea_mq.subscribe('app__time', 'orders', 'record', start_from => '{between}')"
    ))
    .await;
    // Before anybody can have told the broker about the subscription.
    emit_numbers(&db, 7, 7).await;
    until_recorded_by(&db, "app__all", &[1, 2, 3, 4, 5, 6, 7]).await;
    until_recorded_by(&db, "app__time", &[4, 5, 6, 7]).await;
    until_recorded_by(&db, "app__sequence", &[5, 6, 7]).await;
    until_recorded_by(&db, "app__new", &[7]).await;
    let refused = db.refusal("SELECT sea_mq.subscribe('app__never', 'orders', 'record', start_from => 'soon')").await;
    assert_eq!(refused, SqlState::INVALID_PARAMETER_VALUE);
}

/// Each event's handlers in the order in which they ran.
async fn handlers_by_event(db: &Database) -> Vec<String> {
    db.values("SELECT string_agg(subscription, ' ' ORDER BY place) FROM effects GROUP BY n ORDER BY n", &[]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_handlers_of_an_event_the_one_with_the_greater_priority_runs_first() {
    const ORDER: &str = "app__first app__middle app__last";
    let stage = prepared("priority").await;
    let db = stage.connect().await;
    db.run(
        "CREATE FUNCTION wait(e sea_mq.event) RETURNS void LANGUAGE sql AS 'SELECT pg_advisory_xact_lock_shared(7)';
         SELECT sea_mq.subscribe('app__gate', 'orders', 'wait', 'GateClosed'),
            sea_mq.subscribe('app__last', 'orders', 'record', 'Counted', priority => -5),
            sea_mq.subscribe('app__middle', 'orders', 'record', 'Counted'),
            sea_mq.subscribe('app__first', 'orders', 'record', 'Counted', priority => 10)",
    )
    .await;
    // All of them have all events before the first is handled.
    db.run("SELECT pg_advisory_lock(7)").await;
    db.emit("1", "GateClosed", serde_json::json!({})).await;
    until("the gate is closed", SOON, async || {
        db.value("SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)", &[]).await
    })
    .await;
    emit_numbers(&db, 1, 50).await;
    for subscription in ["app__last", "app__middle", "app__first"] {
        until(&format!("{subscription} has got all"), SOON, async || {
            jetstream_consumer(&stage, subscription).await.is_some_and(|info| info.num_ack_pending == 50)
        })
        .await;
    }
    db.run("SELECT pg_advisory_unlock(7)").await;
    until_recorded(&stage, 150).await;
    assert_eq!(handlers_by_event(&db).await, vec![ORDER; 50]);
    // As they come, one that is late is not waited for.
    for n in 51..=100 {
        emit_numbers(&db, n, n).await;
    }
    emit_numbers(&db, 101, 500).await;
    until_recorded(&stage, 1500).await;
    let right = handlers_by_event(&db).await.iter().filter(|order| *order == ORDER).count();
    assert!(right > 450, "{right} of 500 events");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_subscription_handles_nothing_until_it_is_resumed() {
    let stage = prepared("paused").await;
    let db = stage.connect().await;
    db.run(
        "SELECT sea_mq.subscribe('app__all', 'orders', 'record'), sea_mq.subscribe('app__other', 'orders', 'record')",
    )
    .await;
    emit_numbers(&db, 1, 1).await;
    until_status(&db, "app__all", 1, "processed").await;
    db.run("SELECT sea_mq.pause_subscription('app__all')").await;
    until_state(&db, "app__all", "state = 'paused'").await;
    // Once the consumer has taken notice; the other subscription goes through it as well.
    emit_numbers(&db, 2, 2).await;
    until_status(&db, "app__other", 2, "processed").await;
    let before = recorded(&db, "app__all").await.len();
    emit_numbers(&db, 3, 100).await;
    until_status(&db, "app__other", 100, "processed").await;
    holds_for("the paused subscription rests", A_WHILE, async || recorded(&db, "app__all").await.len() == before).await;
    db.run("SELECT sea_mq.resume_subscription('app__all')").await;
    until_recorded_by(&db, "app__all", &(1..=100).collect::<Vec<i64>>()).await;
    until_state(&db, "app__all", "state = 'active'").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_to_what_does_not_exist_yet_waits_for_it() {
    let stage = Stage::new("not_yet").await;
    let db = stage.connect().await;
    make_recorder(&db).await;
    db.run("SELECT sea_mq.subscribe('app__early', 'orders', 'record')").await;
    let state = until_state(&db, "app__early", "state = 'waiting'").await;
    assert!(state["error"].is_string(), "{state}");
    emit_numbers(&db, 1, 3).await;
    until_recorded_by(&db, "app__early", &[1, 2, 3]).await;
    until_state(&db, "app__early", "state = 'active' AND error IS NULL").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_one_message_under_way_at_most_the_order_is_kept_through_failures() {
    let stage = prepared("one_at_a_time").await;
    let db = stage.connect().await;
    db.run(
        "CREATE FUNCTION stumble(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$
         BEGIN
             IF (e.payload ->> 'n')::int % 7 = 0 AND e.attempt < 3 THEN RAISE EXCEPTION 'not yet'; END IF;
             PERFORM record(e);
         END $$;
         SELECT sea_mq.subscribe('app__strict', 'orders', 'stumble', max_ack_pending => 1, retry_delay => '10 ms')",
    )
    .await;
    emit_numbers(&db, 1, 40).await;
    until_recorded_by(&db, "app__strict", &(1..=40).collect::<Vec<i64>>()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_consumer_in_jetstream_follows_the_subscription() {
    let stage = prepared("provisioned").await;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.subscribe('app__orders', 'orders', 'record', 'Counted')").await;
    let config = until_provisioned(&stage, "app__orders").await.config;
    assert_eq!(config.durable_name.as_deref(), Some("app__orders"));
    assert_eq!(config.deliver_subject, None);
    assert_eq!(config.ack_policy, AckPolicy::Explicit);
    assert_eq!((config.ack_wait, config.max_ack_pending), (Duration::from_secs(120), 1000));
    assert_eq!(config.filter_subject, "orders.event.counted.*");
    db.run("SELECT sea_mq.alter_subscription('app__orders', max_ack_pending => 7, ack_wait => '5 s')").await;
    until("the consumer is changed", SOON, async || {
        jetstream_consumer(&stage, "app__orders")
            .await
            .is_some_and(|info| (info.config.max_ack_pending, info.config.ack_wait) == (7, Duration::from_secs(5)))
    })
    .await;
    emit_numbers(&db, 1, 100).await;
    assert_handled_once(&stage, "app__orders", 100).await;
    db.run("SELECT sea_mq.alter_subscription('app__orders', filter => 'OrderPaid')").await;
    until("the filter is changed", SOON, async || {
        let info = jetstream_consumer(&stage, "app__orders").await;
        info.is_some_and(|info| info.config.filter_subject == "orders.event.order_paid.*")
    })
    .await;
    db.run("SELECT sea_mq.alter_subscription('app__orders', filter => 'Counted')").await;
    db.run("SELECT sea_mq.unsubscribe('app__orders')").await;
    until("the consumer is gone", SOON, async || jetstream_consumer(&stage, "app__orders").await.is_none()).await;
    emit_numbers(&db, 101, 101).await;
    holds_for("nothing is handled", A_WHILE, async || recorded(&db, "app__orders").await.len() == 100).await;
    assert_eq!(db.refusal("SELECT sea_mq.unsubscribe('app__orders')").await, SqlState::UNDEFINED_OBJECT);
    // The same name again is another subscription, and what was handled under that name stays handled.
    db.run("SELECT sea_mq.subscribe('app__orders', 'orders', 'record', start_from => 'all')").await;
    assert_handled_once(&stage, "app__orders", 101).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_somebody_deletes_in_jetstream_is_made_again_and_loses_and_doubles_nothing() {
    let stage = prepared("consumer_deleted").await;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.subscribe('app__all', 'orders', 'record', max_ack_pending => 500)").await;
    for round in 0..3 {
        emit_numbers(&db, round * 2000 + 1, (round + 1) * 2000).await;
        until_recorded(&stage, round * 2000 + 500).await;
        let stream = stage.broker.stream(EVENTS).await.expect("the stream is there");
        stream.delete_consumer("app__all").await.expect("cannot delete the consumer");
    }
    assert_handled_once(&stage, "app__all", 6000).await;
    until_state(&db, "app__all", "state = 'active' AND error IS NULL").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_sees_the_same_event_in_an_envelope_and_without() {
    let stage = Stage::new("envelope").await;
    let db = stage.connect().await;
    db.run(
        "SELECT sea_mq.create_stream('orders'), sea_mq.create_stream('bills', body => 'envelope');
         CREATE TABLE seen (source text, subject text, event jsonb);
         CREATE FUNCTION look(e sea_mq.event) RETURNS void LANGUAGE sql AS $$
             INSERT INTO seen VALUES (e.source_context, e.subject, to_jsonb(e) - 'subscription' - 'source_context'
                - 'subject' - 'id' - 'message_id' - 'headers' - 'created_at' - 'stream_seq') $$;
         SELECT sea_mq.subscribe('app__orders', 'orders', 'look'), sea_mq.subscribe('app__bills', 'bills', 'look');
         SELECT sea_mq.emit('order', 'A 1', 'OrderPlaced', '{\"n\": 1, \"text\": \"ü\"}', 3, context, NULL,
            'why', 'because', '{\"X-Own\": \"own\"}', 'public') FROM unnest('{orders,bills}'::text[]) context",
    )
    .await;
    until("both are handled", SOON, async || db.value("SELECT count(*) = 2 FROM seen", &[]).await).await;
    let seen: Vec<serde_json::Value> = db.values("SELECT event FROM seen", &[]).await;
    assert_eq!(seen[0], seen[1]);
    let expected = serde_json::json!({
        "event_type": "order_placed", "event_version": 3, "aggregate_type": "order", "aggregate_id": "A 1",
        "payload": {"n": 1, "text": "ü"}, "correlation_id": "why", "causation_id": "because",
        "visibility": "public", "attempt": 1,
    });
    assert_eq!(seen[0], expected);
    let subjects: Vec<String> = db.values("SELECT source || ' ' || subject FROM seen ORDER BY 1", &[]).await;
    assert_eq!(subjects, ["bills bills.event.order_placed.v3", "orders orders.event.order_placed.v3"]);
    let sql = "SELECT count(*) FROM sea_mq.inbox_messages m JOIN sea_mq.outbox_events o ON m.message_id = o.id::text
        WHERE m.headers ->> 'X-Own' = 'own' AND m.payload = o.payload";
    assert_eq!(db.value::<i64>(sql, &[]).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_others_are_handled_and_what_is_not_json_is_a_dead_letter() {
    let stage = prepared("foreign").await;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.subscribe('app__all', 'orders', 'record')").await;
    until_provisioned(&stage, "app__all").await;
    publish(&stage, "orders.event.foreign.v1", &[], "{\"n\": 1}").await;
    let message = until_status(&db, "app__all", 1, "processed").await;
    assert_eq!(message["subject"], "orders.event.foreign.v1", "{message}");
    assert!(message["message_id"].as_str().is_some_and(|id| id.starts_with("ORDERS_EVENTS:1:")), "{message}");
    publish(&stage, "orders.event.foreign.v1", &[("Nats-Msg-Id", "garbled")], "this is not JSON").await;
    publish(&stage, "orders.event.foreign.v1", &[("Nats-Msg-Id", "empty")], "").await;
    publish(&stage, "orders.event.foreign.v1", &[("Nats-Msg-Id", "scalar")], "3").await;
    publish(&stage, "orders.event.a.b.c.d", &[("X-Event-Version", "ü 🐟"), ("X-Event-Type", "")], "{\"n\": 4}").await;
    // A text of PostgreSQL cannot hold a NUL.
    publish(&stage, "orders.event.foreign.v1", &[("Nats-Msg-Id", "nul")], "{\"n\": \"\\u0000\"}").await;
    publish(&stage, "orders.event.foreign.v1", &[("Nats-Msg-Id", "last")], "{\"n\": 5}").await;
    until_status(&db, "app__all", 4, "processed").await;
    until_status(&db, "app__all", 5, "processed").await;
    let dead =
        "SELECT message_id FROM sea_mq.dlq_messages WHERE reason = 'poison' AND subscription = 'app__all' ORDER BY 1";
    until("what is not JSON is dead", SOON, async || db.values::<String>(dead, &[]).await.len() >= 3).await;
    assert_eq!(db.values::<String>(dead, &[]).await, ["empty", "garbled", "nul"]);
    stage.broker.until_count("ORDERS_DLQ", 3, SOON).await;
    let letters = stage.broker.stored("ORDERS_DLQ").await;
    let garbled = letters.iter().find(|one| one.header("X-Original-Message-Id") == "garbled").expect("the dead letter");
    assert_eq!(garbled.subject, "orders.dlq.orders.event.foreign.v1");
    assert!(garbled.body.windows(8).any(|part| part == b"not JSON"), "{garbled:?}");
    until_acknowledged(&stage, "app__all").await;
    until_state(&db, "app__all", "state = 'active' AND error IS NULL").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_takes_longer_than_ack_wait_is_left_to_finish() {
    let stage = StageOptions::default().setting("sea_mq.handler_timeout", "60s").start("long_handler").await;
    let db = stage.connect().await;
    db.run(FORGETFUL).await;
    make_recorder(&db).await;
    db.run(
        "CREATE FUNCTION dawdle(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$
         BEGIN PERFORM record(e), pg_sleep(5); END $$;
         SELECT sea_mq.subscribe('app__slow', 'orders', 'dawdle', ack_wait => '1 s')",
    )
    .await;
    emit_numbers(&db, 1, 1).await;
    until("the handler is done", SOON, async || {
        let redelivered = jetstream_consumer(&stage, "app__slow").await.map_or(0, |info| info.num_redelivered);
        assert_eq!(redelivered, 0);
        recorded(&db, "app__slow").await == [1]
    })
    .await;
    assert_handled_once(&stage, "app__slow", 1).await;
    let state = until_state(&db, "app__slow", "processed = 1").await;
    assert_eq!(state["redelivered"], 0, "{state}");
}
