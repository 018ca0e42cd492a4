//! `sea_mq.verify_stream`: what is retained against what the stream holds.

use async_nats::HeaderMap;
use harness::{Database, EVENTS, Stage, StageOptions, freeze, thaw, until};
use serde_json::json;
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use crate::{A_WHILE, SOON};

/// The differences: kind, event, stream sequence.
async fn verify(db: &Database) -> Vec<(String, Option<Uuid>, Option<i64>)> {
    let sql = "SELECT kind, event_id, stream_seq FROM sea_mq.verify_stream('ORDERS_EVENTS')";
    let rows = db.query(sql, &[]).await.expect("the stream cannot be compared");
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

/// Publishes by hand, and waits until the broker has forgotten an earlier message with that id.
async fn publish(stage: &Stage, id: Option<Uuid>) -> u64 {
    let jetstream = stage.broker.jetstream();
    let mut stored = 0;
    until("the message is stored", SOON, async || {
        let mut headers = HeaderMap::new();
        if let Some(id) = id {
            headers.insert("Nats-Msg-Id", id.to_string());
        }
        let sent = jetstream.publish_with_headers("orders.event.placed.v1", headers, "{}".into()).await;
        let ack = sent.expect("cannot publish").await.expect("not acknowledged");
        stored = ack.sequence;
        !ack.duplicate
    })
    .await;
    stored
}

async fn delete(stage: &Stage, sequence: u64) {
    let stream = stage.broker.stream(EVENTS).await.expect("there is a stream");
    assert!(stream.delete_message(sequence).await.expect("cannot delete"));
}

async fn until_stored(db: &Database, id: Uuid) {
    assert!(db.value::<bool>("SELECT sea_mq.wait_published($1, '60 s')", &[&id]).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_difference_between_log_and_stream_is_found() {
    let stage = Stage::new("verify").await;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.create_stream('orders', duplicate_window => '100 ms')").await;
    let mut ids = Vec::new();
    for n in 1..=6 {
        ids.push(db.emit(&n.to_string(), "Placed", json!({ "n": n })).await);
        until_stored(&db, ids[n - 1]).await;
    }
    assert_eq!(verify(&db).await, []);
    delete(&stage, 2).await;
    delete(&stage, 4).await;
    db.run(&format!("UPDATE sea_mq.outbox_log SET payload = '{{\"n\": 7}}' WHERE id = '{}'", ids[2])).await;
    assert_eq!(publish(&stage, Some(ids[3])).await, 7);
    assert_eq!(publish(&stage, Some(ids[4])).await, 8);
    assert_eq!(publish(&stage, None).await, 9);
    let other = Uuid::from_u128(7);
    assert_eq!(publish(&stage, Some(other)).await, 10);
    let last = db.emit("9", "Placed", json!({})).await;
    until_stored(&db, last).await;
    let mut found = verify(&db).await;
    found.sort();
    let kind = |kind: &str, id: Option<Uuid>, sequence| (kind.to_owned(), id, sequence);
    let mut expected = [
        kind("missing", Some(ids[1]), None),
        kind("changed", Some(ids[2]), Some(3)),
        kind("reordered", Some(ids[3]), Some(7)),
        kind("doubled", Some(ids[4]), Some(8)),
        kind("foreign", None, Some(9)),
        kind("foreign", Some(other), Some(10)),
    ];
    expected.sort();
    assert_eq!(found, expected);
    // Also for one whose snapshot is older than the answer.
    db.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1").await;
    assert_eq!(verify(&db).await.len(), expected.len());
    db.run("COMMIT").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_limits_of_the_stream_or_the_log_have_removed_is_not_missed() {
    let stage = StageOptions::default()
        .setting("sea_mq.retention", "1s")
        .setting("sea_mq.slot_size", "64kB")
        .start("verify_limits")
        .await;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.create_stream('orders', body => 'envelope')").await;
    let emit = "SELECT count(sea_mq.emit('order', n::text, 'Placed', jsonb_build_object('data', repeat('x', 200))))
        FROM generate_series(1, 700) n";
    let mut emitted = 0;
    until("the log has forgotten some and not all", SOON, async || {
        let _: i64 = db.value(emit, &[]).await;
        emitted += 700;
        stage.broker.until_count(EVENTS, emitted, SOON).await;
        db.value::<i64>("SELECT count(*) FROM sea_mq.outbox_log", &[]).await.unsigned_abs() < emitted
    })
    .await;
    assert_eq!(verify(&db).await, [], "the log has forgotten some");
    db.run("SELECT sea_mq.alter_stream('ORDERS_EVENTS', max_msgs => 100)").await;
    until("the stream has dropped most", SOON, async || stage.broker.count(EVENTS).await == 100).await;
    assert_eq!(verify(&db).await, [], "the stream has dropped most");
    let _: i64 = db.value(emit, &[]).await;
    until("all is published", SOON, async || {
        db.value("SELECT pending = 0 FROM sea_mq.outbox_status WHERE kind = 'event'", &[]).await
    })
    .await;
    assert_eq!(verify(&db).await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_relay_publishes_while_it_compares_a_long_stream() {
    let stage = Stage::new("verify_long").await.described().await;
    let db = stage.connect().await;
    let emit = "SELECT sea_mq.emit('order', n::text, 'Placed', '{}') FROM generate_series(1, $1::int) n";
    let ids: Vec<Uuid> = db.values(emit, &[&40_000]).await;
    until_stored(&db, ids[39_999]).await;
    for sequence in [7, 20_000, 39_998] {
        delete(&stage, sequence).await;
    }
    let other = stage.connect().await;
    let writer = tokio::spawn(async move {
        for n in 0..50 {
            let id = other.emit(&n.to_string(), "Placed", json!({})).await;
            until_stored(&other, id).await;
        }
    });
    let found: Vec<Option<Uuid>> = verify(&db).await.into_iter().map(|(_, id, _)| id).collect();
    let deleted = [6, 19_999, 39_997].map(|n: usize| Some(ids[n]));
    assert_eq!(found, deleted);
    writer.await.expect("the writer panicked");
    assert_eq!(stage.broker.count(EVENTS).await, 40_047);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_comparison_that_cannot_be_made_is_refused_and_one_that_is_given_up_is_in_nobodys_way() {
    let mut stage = Stage::new("verify_refused").await.described().await;
    let db = stage.connect().await;
    let ids: Vec<Uuid> =
        db.values("SELECT sea_mq.emit('order', n::text, 'Placed', '{}') FROM generate_series(1, 12000) n", &[]).await;
    until_stored(&db, ids[11_999]).await;
    for _ in 0..5 {
        // Cancelled, or not.
        db.run("SET statement_timeout = '20 ms'").await;
        if let Err(error) = db.batch_execute("SELECT sea_mq.verify_stream('ORDERS_EVENTS')").await {
            assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED), "{error:?}");
        }
        db.run("RESET statement_timeout").await;
        assert_eq!(verify(&db).await, []);
    }
    // What is on its way to one that was cancelled is nothing to the next.
    freeze(stage.broker.pid());
    db.run("SET statement_timeout = '500 ms'").await;
    assert_eq!(db.refusal("SELECT sea_mq.verify_stream('ORDERS_EVENTS')").await, SqlState::QUERY_CANCELED);
    db.run("RESET statement_timeout").await;
    let other = stage.connect().await;
    let next = tokio::spawn(async move { verify(&other).await });
    tokio::time::sleep(A_WHILE).await;
    thaw(stage.broker.pid());
    assert_eq!(next.await.expect("the comparison panicked"), []);
    let refused = SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE;
    let ask = "SELECT sea_mq.verify_stream('ORDERS_EVENTS')";
    stage.broker.stop();
    until("the relay has noticed", SOON, async || stage.status().await["relay"] != "connected").await;
    assert_eq!(db.refusal(ask).await, refused, "no connection");
    db.run("SELECT sea_mq.stop()").await;
    until("the relay has stopped", SOON, async || stage.relays().await.is_empty()).await;
    assert_eq!(db.refusal(ask).await, refused, "no relay");
    db.run("SET sea_mq.nats_url = ''").await;
    assert_eq!(db.refusal(ask).await, refused, "no broker");
}
