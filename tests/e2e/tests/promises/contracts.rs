//! Contracts: what is registered binds those who emit, and those who receive if they ask for it.

use harness::{Cluster, Stage, StageOptions, until};
use serde_json::json;
use tokio_postgres::error::SqlState;

use crate::SOON;
use crate::receiving::{
    ask, emit_numbers, make_recorder, prepared, publish, recorded, until_acknowledged, until_recorded, until_status,
};

const COUNTED: &str = "SELECT sea_mq.register_event('orders', 'Counted', 1, '{\"properties\": {\"n\": {\"maximum\": 100}}, \"required\": [\"n\"]}')";

/// Sessions keep what they know of the registry; a change must reach those that know the state before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_session_registers_binds_the_others_from_their_next_transaction_on() {
    let stage = StageOptions::default().setting("sea_mq.contracts", "enforce").start("contracts_spread").await;
    let (writer, other) = (stage.connect().await, stage.connect().await);
    let emit = "SELECT sea_mq.emit('order', '1', 'Counted', '{\"n\": 101}')";
    for version in [1, 2] {
        assert_eq!(writer.refusal(emit).await, SqlState::UNDEFINED_OBJECT, "{version}");
    }
    other.run("BEGIN").await;
    other.run(COUNTED).await;
    assert_eq!(writer.refusal(emit).await, SqlState::UNDEFINED_OBJECT, "it is not committed");
    other.run("COMMIT").await;
    assert_eq!(writer.refusal(emit).await, SqlState::CHECK_VIOLATION);
    emit_numbers(&writer, 1, 100).await;
    let count = "SELECT count(*) FROM sea_mq.outbox_events";
    assert_eq!(other.value::<i64>(count, &[]).await, 100);
    // A snapshot of its own does not make a session miss what has been registered since.
    writer.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1").await;
    other.run("SELECT sea_mq.register_event('orders', 'Late', 1, '{}')").await;
    writer.run("SELECT sea_mq.emit('order', '1', 'Late', '{}'); COMMIT").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_breaks_its_contract_is_poison_for_those_who_ask() {
    let stage = prepared("contracts_poison").await;
    let db = stage.connect().await;
    db.run(COUNTED).await;
    db.run(
        "SELECT sea_mq.subscribe('app__strict', 'orders', 'record', contracts => 'enforce', retry_delay => '1 ms'),
            sea_mq.subscribe('app__lanes', 'orders', 'record', contracts => 'enforce', workers => 2),
            sea_mq.subscribe('app__pull', 'orders', contracts => 'enforce'),
            sea_mq.subscribe('app__warned', 'orders', 'record', contracts => 'warn'),
            sea_mq.subscribe('app__easy', 'orders', 'record')",
    )
    .await;
    emit_numbers(&db, 100, 102).await;
    publish(&stage, "orders.event.unheard_of.v1", &[("Nats-Msg-Id", "foreign")], "{\"n\": 7}").await;
    for subscription in ["app__warned", "app__easy"] {
        for n in [7, 100, 101, 102] {
            until_status(&db, subscription, n, "processed").await;
        }
    }
    for subscription in ["app__strict", "app__lanes", "app__pull"] {
        let dead = until_status(&db, subscription, 101, "dead").await;
        assert_eq!(dead["attempts"], 1, "{dead}");
        assert!(dead["processing_error"].as_str().is_some_and(|error| error.contains("breaks the contract")), "{dead}");
        until_status(&db, subscription, 7, "dead").await;
    }
    until_status(&db, "app__strict", 100, "processed").await;
    until_status(&db, "app__lanes", 100, "processed").await;
    let sound: Vec<i64> =
        db.values("SELECT (payload ->> 'n')::bigint FROM sea_mq.receive('app__pull', 10, '60 s')", &[]).await;
    assert_eq!(sound, [100]);
    // Mended, it is handled: only by the subscription that had refused it, and checked again.
    let letter = "SELECT id FROM sea_mq.dlq_list(subscription => 'app__strict') WHERE payload ->> 'n' = '101'";
    let replay = format!("SELECT sea_mq.dlq_replay(id, '{{\"n\": 99}}') FROM ({letter}) l");
    db.run(&replay).await;
    until_status(&db, "app__strict", 99, "processed").await;
    assert_eq!(recorded(&db, "app__strict").await, [100, 99]);
    let detail: serde_json::Value = db
        .value(
            "SELECT errors FROM sea_mq.dlq_messages WHERE subscription = 'app__strict' AND payload ->> 'n' = '102'",
            &[],
        )
        .await;
    assert_eq!(detail[0]["sqlstate"], "23514", "{detail}");
    assert!(detail.to_string().contains("/n"), "{detail}");
    until_acknowledged(&stage, "app__strict").await;
}

/// A consumer keeps contracts as sessions do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_consumer_learns_of_a_registration() {
    let stage = StageOptions { no_url: true, ..StageOptions::default() }.start("contracts_consumer").await;
    let db = stage.connect().await;
    make_recorder(&db).await;
    db.run("SELECT sea_mq.subscribe('app__strict', 'orders', 'record', contracts => 'enforce')").await;
    emit_numbers(&db, 1, 1).await;
    until_status(&db, "app__strict", 1, "dead").await;
    db.run(COUNTED).await;
    emit_numbers(&db, 2, 2).await;
    until_status(&db, "app__strict", 2, "processed").await;
    db.run("SELECT sea_mq.alter_subscription('app__strict', contracts => 'off')").await;
    emit_numbers(&db, 1000, 1000).await;
    until_recorded(&stage, 2).await;
    until_status(&db, "app__strict", 1000, "processed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_dump_has_the_contracts() {
    let mut stage = Stage::new("contracts_dump").await;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.register_schema('sea-mq:/schemas/events/common/count.schema.json', '{\"maximum\": 5}')")
        .await;
    db.run(
        "SELECT sea_mq.register_event('orders', 'Counted', 1,
            '{\"properties\": {\"n\": {\"$ref\": \"../common/count.schema.json\"}}}', 'partner', 'A count')",
    )
    .await;
    db.run("SELECT sea_mq.deprecate_event('orders', 'Counted', 1, 'Count no more.')").await;
    let rows = "SELECT to_jsonb(t) FROM sea_mq.event_types t";
    let before: serde_json::Value = db.value(rows, &[]).await;
    drop(db);
    let mut second = Cluster::new(&stage.directory.path().join("second"), &[("shared_preload_libraries", "sea_mq")]);
    second.start().await;
    second.run("CREATE DATABASE app").await;
    stage.cluster.copy_database("app", &second, "app");
    stage.cluster.stop();
    let copy = second.connect("app").await;
    assert_eq!(copy.value::<serde_json::Value>(rows, &[]).await, before);
    let violations = "SELECT pointer FROM sea_mq.contract_violations('orders', 'Counted', 1, '{\"n\": 6}')";
    assert_eq!(copy.values::<String>(violations, &[]).await, ["/n"]);
    assert_eq!(before["deprecation"], json!("Count no more."), "{before}");
}

/// Events that are held back are checked when they are emitted: later there would be nobody to tell.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scheduled_event_is_held_to_its_contract_when_it_is_emitted() {
    let stage = StageOptions::default().setting("sea_mq.contracts", "enforce").start("contracts_scheduled").await;
    let db = stage.connect().await;
    db.run(COUNTED).await;
    let emit = |n: i64| {
        format!("SELECT sea_mq.emit('order', '1', 'Counted', '{{\"n\": {n}}}', available_at => now() + '1 s')")
    };
    assert_eq!(db.refusal(&emit(101)).await, SqlState::CHECK_VIOLATION);
    db.run(&emit(1)).await;
    until("the event is published", SOON, async || {
        ask::<bool>(&stage, "SELECT bool_and(published) AND count(*) = 1 FROM sea_mq.outbox_events").await == Some(true)
    })
    .await;
}
