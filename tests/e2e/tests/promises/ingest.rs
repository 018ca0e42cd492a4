//! The inbound edge: a partner's message is one event, however often and however many at once it comes.

use harness::{Database, EVENTS, Stage, until};
use serde_json::{Value, json};

use crate::SOON;
use crate::receiving::{make_recorder, recorded, until_status};

/// A stage where partner `acme` has a mapping to `Counted`.
async fn prepared(name: &str) -> (Stage, Database) {
    let stage = Stage::new(name).await;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.register_event('orders', 'Counted', 1, '{\"properties\": {\"n\": {\"type\": \"integer\"}}, \"required\": [\"n\"]}')")
        .await;
    db.run(
        "SELECT sea_mq.register_mapping('acme', 'count', '$.kind == \"count\"', 'Counted', 'counter', '$.counter',
            '{\"n\": \"$.value\"}')",
    )
    .await;
    (stage, db)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partners_message_is_one_event_however_many_deliver_it_at_once() {
    let (stage, _db) = prepared("ingest_once").await;
    let connector = stage.connector();
    let sessions = (0..6).map(|_| {
        let connector = connector.clone();
        tokio::spawn(async move {
            let db = connector.try_connect().await.expect("cannot connect");
            let mut ids = Vec::new();
            for n in 0..40 {
                let signal = json!({"kind": "count", "id": format!("m{n}"), "counter": n % 4, "value": n});
                ids.push(db.value::<Option<uuid::Uuid>>("SELECT sea_mq.ingest('acme', $1)", &[&signal]).await);
            }
            ids
        })
    });
    let mut answers = Vec::new();
    for session in sessions.collect::<Vec<_>>() {
        answers.push(session.await.expect("a session panicked"));
    }
    assert!(answers.iter().all(|ids| *ids == answers[0] && ids.iter().all(Option::is_some)), "{answers:?}");
    until("all are in the stream", SOON, async || stage.broker.count(EVENTS).await >= 40).await;
    let db = stage.connect().await;
    let stored: Vec<uuid::Uuid> = db.values("SELECT id FROM sea_mq.outbox_events ORDER BY id", &[]).await;
    let mut answered: Vec<uuid::Uuid> = answers[0].iter().flatten().copied().collect();
    answered.sort_unstable();
    assert_eq!(stored, answered);
    assert_eq!(stage.broker.count(EVENTS).await, 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_match_is_one_dead_letter_that_is_mended_and_handled() {
    let (stage, db) = prepared("ingest_dead").await;
    make_recorder(&db).await;
    db.run("SELECT sea_mq.subscribe('app__counts', 'orders', 'record')").await;
    let wrong = json!({"kind": "count", "id": "m1", "counter": 7, "value": "many"});
    let connector = stage.connector();
    let sessions = (0..4).map(|_| {
        let (connector, wrong) = (connector.clone(), wrong.clone());
        tokio::spawn(async move {
            let db = connector.try_connect().await.expect("cannot connect");
            db.value::<Option<uuid::Uuid>>("SELECT sea_mq.ingest('acme', $1, correlation_id => 'story')", &[&wrong])
                .await
        })
    });
    for session in sessions.collect::<Vec<_>>() {
        assert_eq!(session.await.expect("a session panicked"), None);
    }
    until("it is in the DLQ stream", SOON, async || stage.broker.count("ORDERS_DLQ").await == 1).await;
    let letters: Vec<Value> = db.values("SELECT to_jsonb(d) FROM sea_mq.dlq_list() d", &[]).await;
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(letters[0]["subscription"], "ingest:acme");
    assert!(letters[0]["error"].as_str().is_some_and(|error| error.contains("/n")), "{}", letters[0]);
    let stored = stage.broker.stored("ORDERS_DLQ").await;
    assert_eq!(stored[0].subject, "orders.dlq.orders.ingest.acme");
    db.run(
        "SELECT sea_mq.dlq_replay(id, '{\"kind\": \"count\", \"counter\": 7, \"value\": 5}') FROM sea_mq.dlq_list()",
    )
    .await;
    let handled = until_status(&db, "app__counts", 5, "processed").await;
    assert_eq!(handled["headers"]["X-Correlation-Id"], "story", "{handled}");
    assert_eq!(handled["headers"]["X-Partner"], "acme", "{handled}");
    assert_eq!(recorded(&db, "app__counts").await, [5]);
    until("the DLQ stream gave it up", SOON, async || stage.broker.count("ORDERS_DLQ").await == 0).await;
    // The partner, who knows nothing of this, delivers again.
    assert_eq!(db.value::<Option<uuid::Uuid>>("SELECT sea_mq.ingest('acme', $1)", &[&wrong]).await, None);
    assert_eq!(db.value::<i64>("SELECT count(*) FROM sea_mq.dlq_list()", &[]).await, 0);
}
