//! Dead letters: nothing is lost on the way there, they are told what happened, and they can be handled after all.

use harness::{Database, EVENTS, Stage, StageOptions, holds_for, ledger, until};
use serde_json::{Value, json};
use tokio_postgres::error::SqlState;

use crate::receiving::{
    self, LONG, ask, emit_numbers, kill_consumer, make_recorder, publish, recorded, until_acknowledged, until_it_waits,
    until_recorded, until_state, until_status,
};
use crate::{A_WHILE, SOON};

const DLQ: &str = "ORDERS_DLQ";

/// A stage where `app__orders` refuses what is not marked as good, and `app__others` takes everything.
async fn prepared(name: &str) -> (Stage, Database) {
    let stage = receiving::prepared(name).await;
    let db = stage.connect().await;
    db.run(
        "CREATE FUNCTION demand(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$
         BEGIN
             PERFORM record(e);
             IF e.payload ->> 'good' IS NULL THEN
                 RAISE EXCEPTION 'attempt %: not good', e.attempt USING ERRCODE = 'XY123';
             END IF;
         END $$;
         SELECT sea_mq.subscribe('app__orders', 'orders', 'demand', max_deliver => 3, retry_delay => '1 ms'),
            sea_mq.subscribe('app__others', 'orders', 'record')",
    )
    .await;
    (stage, db)
}

/// The only dead letter about which nothing was decided, once there is one that is in the stream as well.
async fn until_letter(db: &Database) -> Value {
    harness::until_some("a dead letter", SOON, async || {
        let sql = "SELECT to_jsonb(d) FROM sea_mq.dlq_list() d WHERE stream_seq IS NOT NULL";
        db.values::<Value>(sql, &[]).await.pop()
    })
    .await
}

async fn until_dlq_holds(stage: &Stage, count: u64) {
    until(&format!("{DLQ} holds {count}"), SOON, async || stage.broker.count(DLQ).await == count).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_says_what_happened() {
    let (stage, db) = prepared("dlq_headers").await;
    let id: uuid::Uuid = db
        .value(
            "SELECT sea_mq.emit('order', 'A 7', 'OrderPlaced', '{\"n\": 1}', 2, correlation_id => 'story',
                headers => '{\"X-Own\": \"own\"}')",
            &[],
        )
        .await;
    until_status(&db, "app__orders", 1, "dead").await;
    let letter = until_letter(&db).await;
    for (column, value) in [
        ("context", json!("orders")),
        ("original_subject", json!("orders.event.order_placed.v2")),
        ("subscription", json!("app__orders")),
        ("message_id", json!(id.to_string())),
        ("source_context", json!("orders")),
        ("event_type", json!("order_placed")),
        ("event_version", json!(2)),
        ("aggregate_id", json!("A 7")),
        ("payload", json!({"n": 1})),
        ("reason", json!("exhausted")),
        ("failure_count", json!(3)),
        ("error", json!("attempt 3: not good")),
        ("replayed_at", Value::Null),
        ("discarded_at", Value::Null),
    ] {
        assert_eq!(letter[column], value, "{column}: {letter}");
    }
    assert_eq!(letter["headers"]["X-Own"], "own", "{letter}");
    let errors = letter["errors"].as_array().expect("a history");
    assert_eq!(errors.iter().map(|one| &one["attempt"]).collect::<Vec<_>>(), [1, 2, 3], "{letter}");
    assert!(letter["first_failed_at"].as_str() < letter["last_failed_at"].as_str(), "{letter}");

    let stored = stage.broker.stored(DLQ).await;
    let message = &stored[0];
    assert_eq!(message.subject, "orders.dlq.orders.event.order_placed.v2");
    assert_eq!(message.json(), json!({"n": 1}));
    for (header, value) in [
        ("X-Original-Subject", "orders.event.order_placed.v2"),
        ("X-Original-Message-Id", &id.to_string()),
        ("X-Original-Stream-Sequence", "1"),
        ("X-Subscription", "app__orders"),
        ("X-Failure-Reason", "exhausted"),
        ("X-Failure-Count", "3"),
        ("X-Error", "attempt 3: not good"),
        ("X-Event-Type", "order_placed"),
        ("X-Event-Version", "2"),
        ("X-Aggregate-Id", "A 7"),
        ("X-Correlation-Id", "story"),
        ("X-Causation-Id", &id.to_string()),
        ("X-Own", "own"),
    ] {
        assert_eq!(message.header(header), value, "{header}: {message:?}");
    }
    assert!(message.header("X-Errors").contains("XY123 attempt 1"), "{message:?}");
    for header in ["X-First-Failed-At", "X-Last-Failed-At"] {
        assert!(message.header(header).starts_with("20"), "{header}: {message:?}");
    }
    assert_ne!(message.id(), id);
    assert_eq!(message.header("Nats-Msg-Id"), letter["dlq_message_id"]);
    let log = stage.cluster.log();
    assert!(
        log.lines().any(|line| line.contains("LOG") && line.contains(&id.to_string()) && line.contains("dead letter"))
    );
    assert_eq!(recorded(&db, "app__others").await, [1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_is_handled_by_the_subscription_that_had_failed_and_by_no_other() {
    let (stage, db) = prepared("dlq_replay").await;
    db.run(
        "SELECT sea_mq.emit('order', '1', 'OrderPlaced', '{\"n\": 1}', correlation_id => 'story',
            headers => '{\"X-Own\": \"own\"}')",
    )
    .await;
    let letter = until_letter(&db).await;
    let replay: uuid::Uuid =
        db.value("SELECT sea_mq.dlq_replay($1, '{\"n\": 2, \"good\": 1}')", &[&letter["id"].as_i64()]).await;
    let message = until_status(&db, "app__orders", 2, "processed").await;
    assert_eq!(message["message_id"], json!(replay.to_string()), "{message}");
    assert_eq!((&message["attempts"], &message["subject"]), (&json!(1), &letter["original_subject"]), "{message}");
    assert_eq!(message["headers"]["X-Replayed-From"], letter["message_id"], "{message}");
    assert_eq!(
        (&message["headers"]["X-Own"], &message["correlation_id"]),
        (&json!("own"), &json!("story")),
        "{message}"
    );
    until_dlq_holds(&stage, 0).await;
    let after = db.object("SELECT * FROM sea_mq.dlq_messages").await;
    assert_eq!(after["replay_event_id"], json!(replay.to_string()), "{after}");
    assert!(after["replayed_at"].is_string(), "{after}");
    let again = format!("SELECT sea_mq.dlq_replay({})", letter["id"]);
    assert_eq!(db.refusal(&again).await, SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    assert_eq!(db.refusal("SELECT sea_mq.dlq_replay(0)").await, SqlState::UNDEFINED_OBJECT);
    // The replay has passed the others by when the next event is there.
    emit_numbers(&db, 3, 3).await;
    until_status(&db, "app__others", 3, "processed").await;
    assert_eq!(recorded(&db, "app__others").await, [1, 3]);
    let stored = stage.broker.stored(EVENTS).await;
    assert_eq!(stored[1].header("Nats-Msg-Id"), replay.to_string());
    assert_eq!(stored[1].header("X-Replay-For"), "app__orders");
    until_acknowledged(&stage, "app__others").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_that_is_rolled_back_leaves_all_as_it_was_and_one_that_fails_comes_back_with_its_history() {
    let (stage, db) = prepared("dlq_again").await;
    emit_numbers(&db, 1, 1).await;
    let first = until_letter(&db).await;
    let id = first["id"].as_i64();
    db.run("BEGIN").await;
    let _: uuid::Uuid = db.value("SELECT sea_mq.dlq_replay($1)", &[&id]).await;
    db.run("ROLLBACK").await;
    holds_for("the dead letter stays", A_WHILE, async || {
        stage.broker.count(DLQ).await == 1 && stage.broker.count(EVENTS).await == 1 && until_letter(&db).await == first
    })
    .await;

    // Of two who replay it at the same time, one does.
    let other = stage.connect().await;
    db.run("BEGIN").await;
    let replay: uuid::Uuid = db.value("SELECT sea_mq.dlq_replay($1)", &[&id]).await;
    let again = format!("SELECT sea_mq.dlq_replay({})", first["id"]);
    let (refused, ()) = tokio::join!(other.refusal(&again), async {
        until_it_waits(&stage, &again).await;
        db.run("COMMIT").await;
    });
    assert_eq!(refused, SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    until("it is dead again", SOON, async || db.value("SELECT count(*) = 2 FROM sea_mq.dlq_messages", &[]).await).await;
    let second = until_letter(&db).await;
    assert_eq!(second["message_id"], json!(replay.to_string()), "{second}");
    assert_eq!(second["failure_count"], 3, "{second}");
    assert_eq!(second["first_failed_at"], first["first_failed_at"], "{second}");
    let texts: Vec<&str> =
        second["errors"].as_array().expect("a history").iter().filter_map(|one| one["error"].as_str()).collect();
    let three = ["attempt 1: not good", "attempt 2: not good", "attempt 3: not good"];
    assert_eq!(texts, [three, three].concat(), "{second}");
    until_dlq_holds(&stage, 1).await;
    assert_eq!(stage.broker.stored(DLQ).await[0].header("Nats-Msg-Id"), second["dlq_message_id"]);

    let _: uuid::Uuid =
        db.value("SELECT sea_mq.dlq_replay($1, '{\"n\": 2, \"good\": 1}')", &[&second["id"].as_i64()]).await;
    until_status(&db, "app__orders", 2, "processed").await;
    until_dlq_holds(&stage, 0).await;
    assert_eq!(recorded(&db, "app__orders").await, [2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_listed_replayed_and_discarded_by_what_they_have_in_common() {
    let (stage, db) = prepared("dlq_all").await;
    emit_numbers(&db, 1, 6).await;
    db.emit("1", "OrderPaid", json!({"n": 7})).await;
    until_dlq_holds(&stage, 7).await;
    until("all are known", SOON, async || db.value("SELECT count(stream_seq) = 7 FROM sea_mq.dlq_messages", &[]).await)
        .await;
    for (filter, count) in [
        ("", 7),
        ("context => 'orders'", 7),
        ("context => 'bills'", 0),
        ("subscription => 'app__others'", 0),
        ("event_type => 'OrderPaid'", 1),
        ("error => 'NOT GOOD'", 7),
        ("error => 'bad'", 0),
        ("older_than => '1 hour'", 0),
        ("replayed => true", 0),
        ("max => 2", 2),
    ] {
        let sql = format!("SELECT count(*) FROM sea_mq.dlq_list({filter})");
        assert_eq!(db.value::<i64>(&sql, &[]).await, count, "{filter}");
    }
    let two =
        "SELECT count(sea_mq.dlq_discard(id, 'of no use')) FROM sea_mq.dlq_list(event_type => 'counted', max => 2)";
    assert_eq!(db.value::<i64>(two, &[]).await, 2);
    until_dlq_holds(&stage, 5).await;
    let discarded = db.object("SELECT * FROM sea_mq.dlq_messages ORDER BY id LIMIT 1").await;
    assert_eq!((&discarded["discard_reason"], discarded["discarded_at"].is_string()), (&json!("of no use"), true));
    let again = format!("SELECT sea_mq.dlq_discard({})", discarded["id"]);
    assert_eq!(db.refusal(&again).await, SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);

    db.run("CREATE OR REPLACE FUNCTION demand(e sea_mq.event) RETURNS void LANGUAGE sql AS 'SELECT record(e)'").await;
    let replayed: i64 =
        db.value("SELECT sea_mq.dlq_replay_all(subscription => 'app__orders', event_type => 'Counted')", &[]).await;
    assert_eq!(replayed, 4);
    until("the four are handled", SOON, async || recorded(&db, "app__orders").await.len() >= 4).await;
    until_dlq_holds(&stage, 1).await;
    let replayed: i64 = db.value("SELECT sea_mq.dlq_replay_all()", &[]).await;
    assert_eq!(replayed, 1);
    until_dlq_holds(&stage, 0).await;
    until("the last is handled", SOON, async || recorded(&db, "app__orders").await.len() >= 5).await;
    let handled = recorded(&db, "app__orders").await;
    let kept: Vec<i64> =
        db.values("SELECT (payload ->> 'n')::bigint FROM sea_mq.dlq_list(replayed => true)", &[]).await;
    ledger::assert_same_set(&kept, &handled);
    let status = db.object("SELECT * FROM sea_mq.dlq_status").await;
    assert_eq!(
        (&status["open"], &status["replayed"], &status["discarded"]),
        (&json!(0), &json!(5), &json!(2)),
        "{status}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_of_other_services_are_mirrored() {
    let (stage, db) = prepared("dlq_foreign").await;
    until("the DLQ stream is there", SOON, async || stage.broker.stream(DLQ).await.is_some()).await;
    let headers = [
        ("Nats-Msg-Id", "theirs"),
        ("X-Original-Subject", "bills.event.bill_sent.v1"),
        ("X-Original-Message-Id", "original"),
        ("X-Failure-Count", "4"),
        ("X-Error", "cannot read it"),
    ];
    publish(&stage, "orders.dlq.bills.event.bill_sent.v1", &headers, "{\"n\": 1}").await;
    publish(&stage, "orders.dlq.bills.event.other.v1", &[], "not JSON").await;
    until("both are here", SOON, async || db.value("SELECT count(*) = 2 FROM sea_mq.dlq_messages", &[]).await).await;
    let letter = db.object("SELECT * FROM sea_mq.dlq_messages WHERE dlq_message_id = 'theirs'").await;
    for (column, value) in [
        ("reason", json!("foreign")),
        ("context", json!("orders")),
        ("original_subject", json!("bills.event.bill_sent.v1")),
        ("message_id", json!("original")),
        ("failure_count", json!(4)),
        ("error", json!("cannot read it")),
        ("payload", json!({"n": 1})),
        ("subscription", Value::Null),
    ] {
        assert_eq!(letter[column], value, "{column}: {letter}");
    }
    // Nobody here emits that context, and nobody here had failed.
    let replay = format!("SELECT sea_mq.dlq_replay({})", letter["id"]);
    assert_eq!(db.refusal(&replay).await, SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    db.run("SELECT sea_mq.dlq_discard(id) FROM sea_mq.dlq_list()").await;
    until_dlq_holds(&stage, 0).await;
    // Seen once, however often the consumer starts.
    kill_consumer(&stage).await;
    let db = stage.connect().await;
    publish(&stage, "orders.dlq.orders.event.counted.v1", &[("Nats-Msg-Id", "third")], "{\"n\": 3, \"good\": 1}").await;
    let letter = until_letter(&db).await;
    assert_eq!(letter["original_subject"], "orders.event.counted.v1", "{letter}");
    assert_eq!(db.value::<i64>("SELECT count(*) FROM sea_mq.dlq_messages", &[]).await, 3);
    let _: uuid::Uuid = db.value("SELECT sea_mq.dlq_replay($1)", &[&letter["id"].as_i64()]).await;
    until_status(&db, "app__orders", 3, "processed").await;
}

/// What is said about the failure comes on top of a message that is as large as it may be, and says strange things.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_of_the_greatest_size_becomes_a_dead_letter_too_whatever_the_error_says() {
    let (stage, db) = prepared("dlq_large").await;
    db.run(
        "CREATE OR REPLACE FUNCTION demand(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$
         BEGIN
             PERFORM record(e);
             IF (e.payload ->> 'n')::int < 3 THEN
                 PERFORM sea_mq.poison(E'first line\\r\\nX-Evil: evil\\t\\x01 ' || repeat('ü🐟', 5000));
             END IF;
         END $$;
         CREATE FUNCTION emit_sized(n int, size int) RETURNS boolean LANGUAGE plpgsql AS $$
         BEGIN
             PERFORM sea_mq.emit('order', '1', 'Large', jsonb_build_object('n', n, 'text', repeat('x', size)));
             RETURN true;
         EXCEPTION WHEN program_limit_exceeded THEN RETURN false;
         END $$",
    )
    .await;
    let (mut fits, mut too_large) = (1000, 2_000_000);
    while too_large - fits > 1 {
        let size = i32::midpoint(fits, too_large);
        db.run("BEGIN").await;
        let taken: bool = db.value("SELECT emit_sized(0, $1)", &[&size]).await;
        db.run("ROLLBACK").await;
        if taken { fits = size } else { too_large = size }
    }
    let taken: bool = db.value("SELECT emit_sized(1, $1) AND emit_sized(2, 10)", &[&fits]).await;
    assert!(taken);
    emit_numbers(&db, 3, 3).await;
    for (n, status) in [(1, "dead"), (2, "dead"), (3, "processed")] {
        until_status(&db, "app__orders", n, status).await;
    }
    let letters: Vec<Value> =
        db.values("SELECT to_jsonb(d) - 'payload' FROM sea_mq.dlq_messages d ORDER BY id", &[]).await;
    assert_eq!(letters.len(), 2);
    assert!(
        letters[0]["error"].as_str().is_some_and(|text| text.starts_with("first line\r\nX-Evil")),
        "{}",
        letters[0]
    );
    until("the small one is in the stream, and the large one or why it is not", SOON, async || {
        let failures: i64 = db.value("SELECT count(*) FROM sea_mq.publish_failures", &[]).await;
        stage.broker.count(DLQ).await + failures.unsigned_abs() >= 2
    })
    .await;
    let stored = stage.broker.stored(DLQ).await;
    let small = stored.iter().find(|one| one.number("n") == 2).expect("the small one");
    assert_eq!(small.header("X-Evil"), "");
    assert!(small.header("X-Error").starts_with("first line X-Evil: evil"), "{}", small.header("X-Error"));
    // It can be replayed, wherever it is.
    db.run("CREATE OR REPLACE FUNCTION demand(e sea_mq.event) RETURNS void LANGUAGE sql AS 'SELECT record(e)'").await;
    assert_eq!(db.value::<i64>("SELECT sea_mq.dlq_replay_all()", &[]).await, 2);
    until_status(&db, "app__orders", 1, "processed").await;
    until_status(&db, "app__orders", 2, "processed").await;
    until_dlq_holds(&stage, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_dead_letter_is_lost_or_doubled_when_the_consumer_is_killed_on_the_way() {
    const COUNT: u64 = 2000;
    let (stage, db) = prepared("dlq_killed").await;
    db.run("SELECT sea_mq.alter_stream('ORDERS_DLQ', duplicate_window => '100 ms')").await;
    emit_numbers(&db, 1, COUNT.cast_signed()).await;
    let dead = "SELECT count(*) FROM sea_mq.dlq_messages";
    for count in [100, 1000] {
        until(&format!("{count} are dead"), LONG, async || {
            ask::<i64>(&stage, dead).await.is_some_and(|found| found >= count)
        })
        .await;
        kill_consumer(&stage).await;
    }
    stage.broker.until_count(DLQ, COUNT, LONG).await;
    until_recorded(&stage, COUNT.cast_signed()).await;
    let db = stage.connect().await;
    until_state(&db, "app__orders", &format!("dead = {COUNT}")).await;
    holds_for("no more come", A_WHILE, async || stage.broker.count(DLQ).await == COUNT).await;
    let mut numbers: Vec<i64> = Vec::new();
    stage.broker.for_each_stored(DLQ, |message| numbers.push(message.number("n"))).await;
    ledger::assert_same_set(&(1..=COUNT.cast_signed()).collect::<Vec<i64>>(), &numbers);
    assert_eq!(db.value::<i64>(dead, &[]).await, COUNT.cast_signed());
}

/// The events belong to one database, the subscription and its dead letters to another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_in_another_database_goes_to_its_own_subscription() {
    let (stage, orders) = prepared("dlq_shipping").await;
    stage.cluster.run("CREATE DATABASE shipping").await;
    stage.cluster.run("ALTER DATABASE shipping SET sea_mq.context = 'shipping'").await;
    let shipping = stage.cluster.connect("shipping").await;
    shipping.run("CREATE EXTENSION sea_mq").await;
    make_recorder(&shipping).await;
    shipping
        .run(
            "CREATE FUNCTION demand(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$
             BEGIN
                 PERFORM record(e);
                 IF e.payload ->> 'address' IS NULL THEN PERFORM sea_mq.poison('no address'); END IF;
             END $$;
             SELECT sea_mq.subscribe('shipping__orders', 'orders', 'demand')",
        )
        .await;
    emit_numbers(&orders, 1, 1).await;
    let message = until_status(&shipping, "shipping__orders", 1, "dead").await;
    assert_eq!(message["source_context"], "orders", "{message}");
    stage.broker.until_count("SHIPPING_DLQ", 1, SOON).await;
    assert_eq!(stage.broker.stored("SHIPPING_DLQ").await[0].subject, "shipping.dlq.orders.event.counted.v1");
    let letter = until_letter(&shipping).await;
    let events = stage.broker.count(EVENTS).await;
    let _: uuid::Uuid =
        shipping.value("SELECT sea_mq.dlq_replay($1, '{\"n\": 2, \"address\": 1}')", &[&letter["id"].as_i64()]).await;
    let message = until_status(&shipping, "shipping__orders", 2, "processed").await;
    assert_eq!(message["headers"]["X-Replayed-From"], letter["message_id"], "{message}");
    until("the dead letter is gone", SOON, async || stage.broker.count("SHIPPING_DLQ").await == 0).await;
    assert_eq!(stage.broker.count(EVENTS).await, events);
    assert_eq!(recorded(&orders, "app__others").await, [1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn decided_dead_letters_are_removed_after_their_retention_and_open_ones_are_kept() {
    let stage = StageOptions::default().setting("sea_mq.dlq_retention", "1s").start("dlq_retention").await;
    let db = stage.connect().await;
    db.run(
        "CREATE FUNCTION refuse(e sea_mq.event) RETURNS void LANGUAGE sql AS $$ SELECT sea_mq.poison('never') $$;
         SELECT sea_mq.subscribe('app__orders', 'orders', 'refuse')",
    )
    .await;
    emit_numbers(&db, 1, 3).await;
    until("all are known", SOON, async || db.value("SELECT count(stream_seq) = 3 FROM sea_mq.dlq_messages", &[]).await)
        .await;
    db.run("SELECT sea_mq.dlq_discard(min(id)) FROM sea_mq.dlq_messages").await;
    until("the discarded one is gone", LONG, async || {
        db.value("SELECT count(*) = 2 FROM sea_mq.dlq_messages", &[]).await
    })
    .await;
    holds_for("the open ones are kept", A_WHILE, async || {
        db.value("SELECT count(*) = 2 FROM sea_mq.dlq_list()", &[]).await
    })
    .await;
    until_dlq_holds(&stage, 2).await;
}

/// Blocks that a statement looks at, those of the functions that it calls included.
async fn blocks(db: &Database, sql: &str) -> i64 {
    let plan: Value = db.value(&format!("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}"), &[]).await;
    let top = &plan[0]["Plan"];
    top["Shared Hit Blocks"].as_i64().unwrap_or(0) + top["Shared Read Blocks"].as_i64().unwrap_or(0)
}

/// Dead letters about which something was decided.
async fn make_decided(db: &Database, count: i32) {
    db.run(&format!(
        "INSERT INTO sea_mq.dlq_messages (context, original_subject, subscription, message_id, payload, headers, reason,
            failure_count, dlq_message_id, stream, stream_seq, discarded_at)
         SELECT 'orders', 'orders.event.x.v1', 'gone', gen_random_uuid(), jsonb_build_object('text', repeat('x', 200)), '{{}}',
            'poison', 1, gen_random_uuid(), '{DLQ}', 1000000 + n, now() FROM generate_series(1, {count}) n"
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_removed_or_forgotten_is_found_without_reading_all_letters() {
    let stage = receiving::prepared("dlq_many").await;
    let db = stage.connect().await;
    make_decided(&db, 30_000).await;
    let removal = "SELECT sea_mq.note_removals('[{\"stream\": \"ORDERS_DLQ\", \"sequence\": 1000007}]',
        '[{\"stream\": \"ORDERS_DLQ\", \"sequence\": 1000008, \"error\": \"no\"}]')";
    // What is read of the catalog the first time is not counted.
    blocks(&db, removal).await;
    let count = blocks(&db, &removal.replace("1000007", "1000017")).await;
    assert!(count < 100, "a removal looks at {count} blocks");
    let noted = "SELECT count(*) FROM sea_mq.dlq_messages WHERE stream_seq IS NULL";
    assert_eq!(db.value::<i64>(noted, &[]).await, 2);
    let forget = "SELECT sea_mq.forget_letters('1 hour')";
    blocks(&db, forget).await;
    let count = blocks(&db, forget).await;
    assert!(count < 50, "a look for old letters looks at {count} blocks");
    db.run("UPDATE sea_mq.dlq_messages SET discarded_at = now() - interval '2 hours' WHERE id % 10000 = 0").await;
    blocks(&db, forget).await;
    assert_eq!(db.value::<i64>("SELECT count(*) FROM sea_mq.dlq_messages", &[]).await, 29_997);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_letters_are_removed_while_a_subscription_goes_on() {
    let (stage, db) = prepared("dlq_removals").await;
    db.run("SELECT sea_mq.alter_subscription('app__orders', max_deliver => 1)").await;
    emit_numbers(&db, 1, 3000).await;
    until("all are in the stream", LONG, async || {
        let sql = "SELECT count(*) = 3000 FROM sea_mq.dlq_list(max => NULL) WHERE stream_seq IS NOT NULL";
        db.value(sql, &[]).await
    })
    .await;
    make_decided(&db, 30_000).await;
    // Each alone: each wakes the consumer, which asks for no removal twice.
    let ids: Vec<i64> = db.values("SELECT id FROM sea_mq.dlq_list(max => 400)", &[]).await;
    for id in ids {
        db.run(&format!("SELECT sea_mq.dlq_discard({id})")).await;
    }
    db.run(
        "SELECT sea_mq.dlq_discard(id) FROM sea_mq.dlq_list(max => NULL);
         SELECT sea_mq.emit('order', '1', 'Counted', '{\"n\": 3001, \"good\": 1}')",
    )
    .await;
    until_recorded(&stage, 3000 + 2).await;
    until_dlq_holds(&stage, 0).await;
    until("all removals are noted", SOON, async || {
        let sql = "SELECT (SELECT count(*) FROM sea_mq.message_deletions) = 0
            AND NOT EXISTS (SELECT FROM sea_mq.dlq_messages WHERE subscription <> 'gone' AND stream_seq IS NOT NULL)";
        db.value(sql, &[]).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replaying_many_letters_costs_each_as_much_as_replaying_few() {
    let stage = receiving::prepared("dlq_replay_many").await;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.stop()").await;
    make_decided(&db, 20_000).await;
    let replayed = async |count: i64| {
        make_decided(&db, i32::try_from(count).expect("few")).await;
        let open = "UPDATE sea_mq.dlq_messages SET discarded_at = NULL, subscription = 'again'
            WHERE id > (SELECT max(id) - $1 FROM sea_mq.dlq_messages)";
        db.execute(open, &[&count]).await.expect("cannot open them");
        blocks(&db, "SELECT sea_mq.dlq_replay_all(subscription => 'again')").await / count
    };
    replayed(10).await;
    let few = replayed(100).await;
    let many = replayed(2000).await;
    assert!(many <= few * 2, "{few} blocks each, of many {many}");
}
