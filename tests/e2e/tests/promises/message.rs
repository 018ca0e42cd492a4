//! What arrives: subject, headers, body, and when.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use harness::{BrokerOptions, Database, EVENTS, Stage, StageOptions, holds_for, ledger, until};
use serde_json::{Value, json};
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use crate::{A_WHILE, SOON};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_carries_the_event_in_subject_headers_and_body() {
    let stage = Stage::new("message").await;
    let db = stage.connect().await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    db.run(&format!("SET sea_mq.traceparent = '{trace}'")).await;
    let id: Uuid = db
        .value(
            r#"SELECT sea_mq.emit('order', 'A 42', 'OrderCreated', '{"total": 1.50, "name": "Grüße"}', 2, correlation_id => 'corr',
                causation_id => 'cause', headers => '{"X-Tenant": "acme"}', visibility => 'public')"#,
            &[],
        )
        .await;
    let plain = db.emit("7", "order_paid", json!([1, 2])).await;
    let stored = stage.assert_stored(&[id, plain]).await;

    let message = &stored[0];
    assert_eq!(message.subject, "orders.event.order_created.v2");
    assert_eq!(message.json(), json!({"total": 1.50, "name": "Grüße"}));
    let expected = [
        ("X-Correlation-Id", "corr"),
        ("X-Causation-Id", "cause"),
        ("X-Event-Version", "2"),
        ("X-Event-Type", "order_created"),
        ("X-Aggregate-Type", "order"),
        ("X-Aggregate-Id", "A 42"),
        ("X-Source-Context", "orders"),
        ("X-Sea-Visibility", "public"),
        ("X-Tenant", "acme"),
        ("traceparent", trace),
    ];
    for (name, value) in expected {
        assert_eq!(message.header(name), value, "{name}");
    }

    let message = &stored[1];
    assert_eq!(message.subject, "orders.event.order_paid.v1");
    assert_eq!(message.header("X-Correlation-Id"), plain.to_string());
    assert_eq!(message.header("X-Causation-Id"), "");
    assert_eq!(message.header("X-Sea-Visibility"), "internal");
    assert_eq!(plain.get_version_num(), 7);

    let status = db.object(&format!("SELECT * FROM sea_mq.event_status('{id}')")).await;
    until("event_status says delivered", SOON, async || {
        db.value("SELECT status = 'delivered' FROM sea_mq.event_status($1)", &[&id]).await
    })
    .await;
    assert_eq!(status["stream"], EVENTS, "{status}");
    let place: i64 = db.value("SELECT stream_seq FROM sea_mq.event_status($1)", &[&plain]).await;
    assert_eq!(place.unsigned_abs(), stored[1].sequence);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_event_id_is_one_event() {
    let stage = Stage::new("repeated").await;
    let db = stage.connect().await;
    let id = Uuid::now_v7();
    let same = format!("SELECT sea_mq.emit('order', '1', 'OrderCreated', '{{\"n\": 1}}', event_id => '{id}')");
    let other = format!("SELECT sea_mq.emit('order', '1', 'OrderCreated', '{{\"n\": 2}}', event_id => '{id}')");
    db.run(&same).await;
    db.run(&same).await;
    db.run(&format!("BEGIN; {same}; {same}; COMMIT")).await;
    assert_eq!(db.refusal(&other).await, SqlState::UNIQUE_VIOLATION);
    stage.broker.until_count(EVENTS, 1, SOON).await;
    db.run(&same).await;
    assert_eq!(db.refusal(&other).await, SqlState::UNIQUE_VIOLATION);
    let last = db.emit("1", "OrderPaid", json!({})).await;
    stage.assert_stored(&[id, last]).await;
}

/// Short and long ones among each other: those that PostgreSQL stores out of line are inserted otherwise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_events_of_a_large_transaction_are_known_by_their_ids() {
    let stage = Stage::new("repeated_large").await;
    let db = stage.connect().await;
    let sql = "SELECT sea_mq.emit('order', n::text, 'Large', to_jsonb((SELECT string_agg(md5(n || '-' || m), '')
            FROM generate_series(1, CASE n % 3 WHEN 0 THEN 2000 WHEN 1 THEN 56 ELSE 1 END) m)))
        FROM generate_series(1, 300) n";
    let ids: Vec<Uuid> = db.values(sql, &[]).await;
    let known = "SELECT count(*) FROM unnest($1::uuid[]) id WHERE EXISTS (SELECT FROM sea_mq.event_status(id))";
    assert_eq!(db.value::<i64>(known, &[&ids]).await, 300);
    for id in &ids[..6] {
        let other = format!("SELECT sea_mq.emit('order', 'x', 'Large', '1', event_id => '{id}')");
        assert_eq!(db.refusal(&other).await, SqlState::UNIQUE_VIOLATION);
    }
    stage.assert_stored(&ids).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_that_emit_made_is_known_in_the_same_transaction() {
    let stage = Stage::new("repeated_own").await;
    let db = stage.connect().await;
    db.run("BEGIN").await;
    let id = db.emit("1", "OrderCreated", json!({})).await;
    let later = db.emit("1", "OrderPaid", json!({})).await;
    db.run(&format!("SELECT sea_mq.emit('order', '1', 'OrderCreated', '{{}}', event_id => '{id}'); SAVEPOINT s")).await;
    let other = format!("SELECT sea_mq.emit('order', '2', 'OrderCreated', '{{}}', event_id => '{id}')");
    assert_eq!(db.refusal(&other).await, SqlState::UNIQUE_VIOLATION);
    db.run("ROLLBACK TO s; COMMIT").await;
    stage.assert_stored(&[id, later]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_event_id_is_one_event_also_when_both_are_under_way_at_once() {
    let stage = Stage::new("repeated_at_once").await;
    let db = stage.connect().await;
    let mut expected = Vec::new();
    for _ in 0..50 {
        let id = Uuid::now_v7();
        expected.push(id);
        let mut sessions = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let connector = stage.connector();
            sessions.spawn(async move {
                let db = connector.try_connect().await.expect("cannot connect");
                let sql = "SELECT sea_mq.emit('order', '1', 'OrderCreated', '{}', event_id => $1)";
                db.query_one(sql, &[&id]).await.map(|row| row.get::<_, Uuid>(0))
            });
        }
        while let Some(session) = sessions.join_next().await {
            assert_eq!(session.expect("a session failed").expect("the same event is no error"), id);
        }
    }
    let last = db.emit("1", "OrderPaid", json!({})).await;
    expected.push(last);
    stage.assert_stored(&expected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn emit_many_and_insert_emit() {
    let stage = Stage::new("many").await;
    let db = stage.connect().await;
    let mut ids: Vec<Uuid> = db
        .values(
            "SELECT sea_mq.emit_many(array_agg(jsonb_build_object('aggregate_type', 'order', 'aggregate_id', n::text,
                'event_type', 'Counted', 'payload', jsonb_build_object('n', n), 'event_version', 3) ORDER BY n))
             FROM generate_series(1, 100) n",
            &[],
        )
        .await;
    ids.push(
        db.value(
            "INSERT INTO sea_mq.outbox_events (aggregate_type, aggregate_id, event_type, payload)
             VALUES ('order', '101', 'Counted', '{\"n\": 101}') RETURNING id",
            &[],
        )
        .await,
    );
    let stored = stage.assert_stored(&ids).await;
    ledger::assert_same(
        &(1..=101).collect::<Vec<i64>>(),
        &stored.iter().map(|one| one.number("n")).collect::<Vec<i64>>(),
    );
    assert_eq!(stored[0].subject, "orders.event.counted.v3");
    assert_eq!(stored[100].subject, "orders.event.counted.v1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_envelope_stream_carries_cloud_events() {
    let stage = Stage::new("envelope").await;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.create_stream('orders', body => 'envelope')").await;
    let id = db.emit("42", "OrderCreated", json!({"total": 1})).await;
    let stored = stage.assert_stored(&[id]).await;
    let body = stored[0].json();
    let expected = json!({
        "specversion": "1.0", "id": id.to_string(), "type": "orders.order_created.v1", "datacontenttype": "application/json",
        "aggregatetype": "order", "aggregateid": "42", "eventversion": 1, "correlationid": id.to_string(), "data": {"total": 1},
    });
    for (key, value) in expected.as_object().into_iter().flatten() {
        assert_eq!(&body[key], value, "{key} in {body}");
    }
}

async fn emit_sized(db: &Database, bytes: i32) -> Result<Uuid, SqlState> {
    let sql = "SELECT sea_mq.emit('order', '1', 'Large', jsonb_build_object('text', repeat('x', $1::int)))";
    match db.query_one(sql, &[&bytes]).await {
        Ok(row) => Ok(row.get(0)),
        Err(error) => Err(error.code().expect("an error of the server").clone()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payload_up_to_the_limit_arrives_and_a_larger_one_is_refused() {
    let stage = Stage::new("large").await;
    let db = stage.connect().await;
    let largest = emit_sized(&db, 1_040_000).await.expect("within the limit");
    assert_eq!(emit_sized(&db, 1_048_576).await, Err(SqlState::PROGRAM_LIMIT_EXCEEDED));
    let small = db.emit("1", "Small", json!({})).await;
    let stored = stage.assert_stored(&[largest, small]).await;
    assert_eq!(stored[0].json()["text"].as_str().map(str::len), Some(1_040_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_this_broker_will_never_take_is_set_aside_and_the_others_go_on() {
    let broker = BrokerOptions { configuration: "max_payload: 10000".into(), ..BrokerOptions::default() };
    let mut stage = StageOptions { broker, broker_later: true, ..StageOptions::default() }.start("too_large").await;
    let db = stage.connect().await;
    // The broker's limit is not known yet.
    db.run("BEGIN").await;
    let first = db.emit("1", "Small", json!({})).await;
    let large = emit_sized(&db, 50_000).await.expect("within emit's limit");
    let last = db.emit("1", "Small", json!({})).await;
    db.run("COMMIT").await;
    stage.broker.start().await;
    stage.assert_stored(&[first, last]).await;
    assert_eq!(emit_sized(&db, 50_000).await, Err(SqlState::PROGRAM_LIMIT_EXCEEDED), "the limit is known now");
    let failed = async || db.object(&format!("SELECT * FROM sea_mq.event_status('{large}')")).await;
    until("the event has failed", SOON, async || failed().await["status"] == "failed").await;
    let failed = failed().await;
    assert!(failed["error"].is_string() && failed["attempts"].as_i64() >= Some(1), "{failed}");
    stage.until_problem("problem LIKE '%refused%'").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_held_back_is_published_when_its_time_comes() {
    let stage = Stage::new("available_at").await;
    let db = stage.connect().await;
    let emit = async |seconds: i32| -> (Uuid, f64) {
        let row = db
            .query_one(
                "SELECT sea_mq.emit('order', '1', 'Due', '{}', available_at => at), extract(epoch FROM at)::float8
                 FROM (SELECT clock_timestamp() + $1::int * interval '1 second' AS at) t",
                &[&seconds],
            )
            .await
            .expect("cannot emit");
        (row.get(0), row.get(1))
    };
    let (far, _) = emit(3600).await;
    let (later, later_at) = emit(4).await;
    let (sooner, sooner_at) = emit(2).await;
    let (past, _) = emit(-10).await;
    let now = db.emit("1", "Emitted", json!({})).await;
    let stored = stage.assert_stored(&[past, now, sooner, later]).await;
    for (message, due) in stored[2..].iter().zip([sooner_at, later_at]) {
        let at = message.stored_at as f64 / 1e6;
        assert!(at >= due, "stored {} s too early", due - at);
        assert!(at < due + 3.0, "stored {} s too late", at - due);
    }
    let status = stage.status().await;
    assert_eq!((&status["scheduled"], &status["ok"]), (&json!(1), &json!(true)), "{status}");
    let published: bool = db.value("SELECT published FROM sea_mq.outbox_events WHERE id = $1", &[&far]).await;
    assert!(!published);
    holds_for("it is held back", A_WHILE, async || stage.broker.count(EVENTS).await == 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_is_stored_soon_after_its_commit() {
    let stage = Stage::new("latency").await;
    let db = stage.connect().await;
    stage.until_connected().await;
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_micros().cast_signed();
    let mut committed = Vec::new();
    for _ in 0..200 {
        let id = db.emit("1", "Emitted", Value::Null).await;
        committed.push((id, now()));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let ids: Vec<Uuid> = committed.iter().map(|(id, _)| *id).collect();
    let stored = stage.assert_stored(&ids).await;
    let mut latencies: Vec<i128> = stored.iter().zip(&committed).map(|(one, (_, at))| one.stored_at - at).collect();
    latencies.sort_unstable();
    let median = latencies[latencies.len() / 2];
    eprintln!("commit to stored: median {median} µs, longest {} µs", latencies[latencies.len() - 1]);
    // A hundred times what it takes on a quiet machine, and a tenth of the poll that would do without the wake-up.
    assert!(median < 100_000, "{median} µs");
}
