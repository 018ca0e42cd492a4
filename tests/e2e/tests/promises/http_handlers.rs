//! Handlers that are HTTP services: what they get, what their answers mean, and what is promised when something is killed.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use harness::{Database, Port, Receiver, Reply, Stage, StageOptions, kill, service, until, until_some};
use serde_json::{Value, json};
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use crate::SOON;

/// A stage with a service that handles the events of orders.
async fn stage(name: &str, no_url: bool) -> (Stage, Database) {
    let options = StageOptions { no_url, ..StageOptions::default() }
        .setting("sea_mq.endpoint_allow_http", "on")
        .setting("sea_mq.endpoint_allowed_networks", "127.0.0.0/8");
    let stage = options.start(name).await.described().await;
    let db = stage.connect().await;
    (stage, db)
}

async fn handled_by(db: &Database, name: &str, url: &str, more: &str) {
    db.run(&format!(
        "SELECT sea_mq.create_endpoint('{name}', 'http', '{url}', filter => '{{}}', audience => 'internal', timeout => '5 s');
         SELECT sea_mq.subscribe('billing__{name}', 'orders', endpoint => '{name}', context => 'billing', start_from => 'all'{more})"
    ))
    .await;
}

async fn emit(db: &Database, aggregates: i64, n: i64) -> Uuid {
    db.emit(&(n % aggregates).to_string(), "OrderCreated", json!({ "n": n })).await
}

fn said(body: &Value) -> Reply {
    Reply { body: body.to_string(), ..Reply::status(200) }
}

/// Of a message: its status, attempts and error.
async fn message(db: &Database, subscription: &str) -> Value {
    db.value(
        "SELECT coalesce((SELECT jsonb_build_object('status', m.status, 'attempts', m.attempts, 'error', m.processing_error)
            FROM sea_mq.inbox_messages m WHERE m.subscription = $1), 'null')",
        &[&subscription],
    )
    .await
}

async fn until_processed(db: &Database, subscription: &str, count: i64) {
    let sql = "SELECT count(*) = $2 FROM sea_mq.inbox_messages WHERE subscription = $1 AND status = 'processed'";
    until(&format!("{count} are processed by {subscription}"), SOON * 4, async || {
        db.value(sql, &[&subscription, &count]).await
    })
    .await;
}

/// A service gets a message as a CloudEvent, and the events that it answers with go out with the mark that it is handled.
async fn takes_and_answers(name: &str, no_url: bool) {
    let (_stage, db) = stage(name, no_url).await;
    let receiver = Receiver::start(|request| {
        let n = &request.json()["n"];
        said(&json!({ "events": [
            { "aggregate_type": "invoice", "aggregate_id": n.to_string(), "event_type": "InvoiceMade", "payload": { "n": n } },
        ] }))
    })
    .await;
    handled_by(&db, "api", &receiver.url("/orders"), "").await;
    let mut ids = Vec::new();
    for n in 0..10 {
        ids.push(emit(&db, 3, n).await.to_string());
    }
    until_processed(&db, "billing__api", 10).await;
    let received = receiver.received();
    assert_eq!(received.len(), 10);
    for one in &received {
        let n = one.json()["n"].as_u64().expect("it is the payload");
        let id = &ids[usize::try_from(n).expect("it is small")];
        assert_eq!(
            (one.method.as_str(), one.path.as_str(), one.header("content-type")),
            ("POST", "/orders", "application/json")
        );
        assert_eq!((one.header("idempotency-key"), one.header("ce-id")), (id.as_str(), id.as_str()));
        assert_eq!((one.header("ce-specversion"), one.header("ce-type")), ("1.0", "orders.order_created.v1"));
        assert_eq!((one.header("ce-source"), one.header("x-sea-attempt")), ("/orders", "1"));
    }
    let made: Vec<String> = db
        .values(
            "SELECT causation_id FROM sea_mq.outbox_events
             WHERE context = 'billing' AND event_type = 'invoice_made' AND causation_id = correlation_id ORDER BY aggregate_id::integer",
            &[],
        )
        .await;
    assert_eq!(made, ids);
    // Nobody else has its messages, and its endpoint stays as long as it is named.
    assert_eq!(db.refusal("SELECT sea_mq.receive('billing__api')").await, SqlState::UNDEFINED_OBJECT);
    assert_eq!(db.refusal("SELECT sea_mq.drop_endpoint('api')").await, SqlState::OBJECT_IN_USE);
    // It is no endpoint of the log.
    let readers: i64 = db.value("SELECT count(*) FROM sea_mq.endpoint_readers", &[]).await;
    assert_eq!(readers, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_gets_messages_and_its_events_go_out_with_the_mark() {
    takes_and_answers("http_takes", false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_broker_a_service_handles_all_the_same() {
    takes_and_answers("http_local", true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_has_its_outcome() {
    let (_stage, db) = stage("http_answers", true).await;
    let receiver = Receiver::start(|request| match request.path.trim_start_matches('/') {
        "skip" => said(&json!({"outcome": "skip", "reason": "not ours"})),
        "poison" => said(&json!({"outcome": "poison", "reason": "no such customer"})),
        "retry" => said(&json!({"outcome": "retry", "reason": "busy", "retry_in": 3600})),
        "interval" => said(&json!({"outcome": "retry", "reason": "busy", "retry_in": "1 hour"})),
        "odd" => said(&json!({"outcome": "done"})),
        "event" => said(&json!({"events": [{"event_type": "X"}]})),
        "break" => Reply { breaks: true, ..Reply::status(200) },
        code => Reply { body: "why".into(), ..Reply::status(code.parse().expect("the path is a status")) },
    })
    .await;
    let expected: BTreeMap<&str, (&str, i64)> = [
        ("200", ("processed", 1)),
        ("204", ("processed", 1)),
        ("400", ("dead", 1)),
        ("422", ("dead", 1)),
        ("408", ("failed", 1)),
        ("500", ("failed", 1)),
        ("503", ("failed", 1)),
        ("break", ("failed", 1)),
        ("skip", ("skipped", 1)),
        ("poison", ("dead", 1)),
        ("retry", ("failed", 1)),
        ("interval", ("failed", 1)),
        ("odd", ("failed", 1)),
        ("event", ("failed", 1)),
        // No message is blamed.
        ("429", ("received", 0)),
        ("401", ("received", 0)),
        ("403", ("received", 0)),
        ("404", ("received", 0)),
        ("301", ("received", 0)),
    ]
    .into();
    for path in expected.keys() {
        let more = ", retry_delay => '1 h', retry_delay_max => '1 h'";
        handled_by(&db, path, &receiver.url(&format!("/{path}")), more).await;
    }
    emit(&db, 1, 1).await;
    for (path, (status, attempts)) in &expected {
        let name = format!("billing__{path}");
        until(&format!("{path} was called"), SOON * 2, async || !receiver.received_on(&format!("/{path}")).is_empty())
            .await;
        until(&format!("{path} is {status}"), SOON, async || {
            let found = message(&db, &name).await;
            found["status"] == *status && found["attempts"] == *attempts
        })
        .await;
    }
    let error = async |path: &str| message(&db, &format!("billing__{path}")).await["error"].clone();
    assert_eq!((error("skip").await, error("poison").await), (json!("not ours"), json!("no such customer")));
    assert!(error("event").await.as_str().is_some_and(|text| text.contains("cannot be emitted")));
    let later: i64 = db
        .value(
            "SELECT count(*) FROM sea_mq.inbox_messages WHERE subscription IN ('billing__retry', 'billing__interval')
            AND next_attempt_at > now() + interval '50 min'",
            &[],
        )
        .await;
    assert_eq!(later, 2);
    let blocked: Vec<String> =
        db.values("SELECT subscription FROM sea_mq.subscription_status WHERE state = 'blocked' ORDER BY 1", &[]).await;
    assert_eq!(blocked, ["billing__301", "billing__401", "billing__403", "billing__404"]);
    let problems: i64 = db
        .value(
            "SELECT count(*) FROM sea_mq.problems WHERE problem LIKE 'subscription billing__40_ is blocked: HTTP 40_'",
            &[],
        )
        .await;
    assert_eq!(problems, 3);
    let letters: Vec<String> = db.values("SELECT subscription FROM sea_mq.dlq_list() ORDER BY 1", &[]).await;
    assert_eq!(letters, ["billing__400", "billing__422", "billing__poison"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_service_goes_on_when_somebody_has_looked() {
    let (_stage, db) = stage("http_blocked", true).await;
    let locked = Arc::new(AtomicBool::new(true));
    let answers = Arc::clone(&locked);
    let receiver = Receiver::start(move |request| {
        let knows = request.header("authorization") == "Bearer t0ken" && !answers.load(Ordering::Relaxed);
        Reply::status(if knows { 200 } else { 401 })
    })
    .await;
    handled_by(&db, "api", &receiver.url("/"), ", max_deliver => 2").await;
    for n in 0..20 {
        emit(&db, 20, n).await;
    }
    let state = "SELECT state = 'blocked' AND error = 'HTTP 401' AND hint IS NOT NULL FROM sea_mq.subscription_status";
    until("it is blocked", SOON * 2, async || db.value(state, &[]).await).await;
    let called = receiver.received().len();
    assert!(called <= 16, "{called}");
    locked.store(false, Ordering::Relaxed);
    db.run("SELECT sea_mq.set_secret('api', 'token', 't0ken'); SELECT sea_mq.alter_endpoint('api', auth => '{\"type\": \"bearer\", \"token\": \"token\"}')").await;
    until_processed(&db, "billing__api", 20).await;
    let attempts: i32 = db.value("SELECT max(attempts) FROM sea_mq.inbox_messages", &[]).await;
    assert_eq!(attempts, 1);
    until("all is well", SOON, async || db.value("SELECT state = 'active' FROM sea_mq.subscription_status", &[]).await)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_are_called_at_once_and_those_of_an_aggregate_in_order() {
    let (_stage, db) = stage("http_order", false).await;
    let (busy, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (now, peak) = (Arc::clone(&busy), Arc::clone(&most));
    let seen: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
    let receiver = Receiver::start(move |request| {
        peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let ends = Arc::clone(&now);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(30)).await;
            ends.fetch_sub(1, Ordering::SeqCst);
        });
        let mut seen = seen.lock().expect("nobody panics with the lock");
        let attempts = seen.entry(request.header("idempotency-key").to_owned()).or_default();
        *attempts += 1;
        assert_eq!(request.header("x-sea-attempt"), attempts.to_string());
        let fails = request.json()["n"].as_u64().is_some_and(|n| n % 7 == 3) && *attempts == 1;
        Reply::status(if fails { 500 } else { 200 }).after(Duration::from_millis(30))
    })
    .await;
    handled_by(&db, "api", &receiver.url("/"), ", retry_delay => '50 ms', retry_delay_max => '50 ms'").await;
    for n in 0..80 {
        emit(&db, 8, n).await;
    }
    until_processed(&db, "billing__api", 80).await;
    let mut last: HashMap<u64, usize> = HashMap::new();
    let received = receiver.received();
    received
        .iter()
        .enumerate()
        .for_each(|(at, one)| _ = last.insert(one.json()["n"].as_u64().expect("it has one"), at));
    for aggregate in 0..8 {
        let places: Vec<usize> = (0..80).filter(|n| n % 8 == aggregate).map(|n| last[&n]).collect();
        assert!(places.is_sorted(), "aggregate {aggregate}: {places:?}");
    }
    let bodies: HashMap<String, Vec<u8>> =
        received.iter().map(|one| (one.header("idempotency-key").to_owned(), one.body.clone())).collect();
    assert!(received.iter().all(|one| bodies[one.header("idempotency-key")] == one.body));
    let most = most.load(Ordering::SeqCst);
    assert!((2..=8).contains(&most), "{most} at once");
}

async fn dispatcher(stage: &Stage) -> i32 {
    let sql = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'sea_mq dispatcher'";
    until_some("a dispatcher runs", SOON, async || {
        let db = stage.connector().try_connect().await.ok()?;
        db.query(sql, &[]).await.ok()?.first().map(|row| row.get(0))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_killed_each_message_has_its_effect_here_once() {
    let (stage, db) = stage("http_kill", false).await;
    let receiver = Receiver::start(|request| {
        let n = &request.json()["n"];
        let event = json!({ "aggregate_type": "invoice", "aggregate_id": n.to_string(), "event_type": "InvoiceMade", "payload": { "n": n } });
        said(&json!({ "events": [event] })).after(Duration::from_millis(20))
    })
    .await;
    handled_by(&db, "api", &receiver.url("/"), "").await;
    for n in 0..150 {
        emit(&db, 150, n).await;
    }
    drop(db);
    for count in [20, 80] {
        until("some more came", SOON * 2, async || receiver.received().len() >= count).await;
        // It takes the whole server along.
        kill(dispatcher(&stage).await);
        until("the server is back", SOON * 2, async || stage.connector().try_connect().await.is_ok()).await;
    }
    dispatcher(&stage).await;
    let db = stage.connect().await;
    until_processed(&db, "billing__api", 150).await;
    let made: Vec<i64> = db
        .values(
            "SELECT count(*) FROM sea_mq.outbox_events WHERE event_type = 'invoice_made' GROUP BY aggregate_id",
            &[],
        )
        .await;
    assert_eq!((made.len(), made.iter().max()), (150, Some(&1)));
    // What was under way came again, with the same id and bytes.
    let received = receiver.received();
    let mut bodies: HashMap<String, Vec<Vec<u8>>> = HashMap::new();
    for one in received {
        bodies.entry(one.header("idempotency-key").to_owned()).or_default().push(one.body);
    }
    assert_eq!(bodies.len(), 150);
    assert!(bodies.values().all(|of_one| of_one.iter().all(|body| *body == of_one[0])));
    let again: usize = bodies.values().map(|of_one| of_one.len() - 1).sum();
    assert!(again <= 64, "{again} came again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_gets_no_more_than_its_audience_may_see_and_only_operators_name_one() {
    let (stage, db) = stage("http_rights", true).await;
    let receiver = Receiver::start(|_| {
        said(&json!({ "events": [
        { "aggregate_type": "a", "aggregate_id": "1", "event_type": "Made", "payload": {} }] }))
    })
    .await;
    db.run(
        "SELECT sea_mq.register_event('orders', 'CardCharged', 1, '{\"type\": \"object\", \"properties\": {\"card\": {\"type\": \"string\", \"x-sea-sensitive\": true}}}', 'internal');
         CREATE ROLE clerk LOGIN IN ROLE sea_mq_consumer; CREATE ROLE boss LOGIN IN ROLE sea_mq_operator, sea_mq_consumer",
    )
    .await;
    handled_by(&db, "api", &receiver.url("/all"), "").await;
    db.run(&format!(
        "SELECT sea_mq.create_endpoint('partner', 'http', '{}', filter => '{{}}')",
        receiver.url("/partner")
    ))
    .await;
    let clerk = stage.connect_as("clerk").await;
    let sql = "SELECT sea_mq.subscribe('clerk__x', 'orders', endpoint => 'partner')";
    assert_eq!(clerk.refusal(sql).await, SqlState::INSUFFICIENT_PRIVILEGE);
    let boss = stage.connect_as("boss").await;
    boss.run("SELECT sea_mq.subscribe('boss__x', 'orders', endpoint => 'partner', start_from => 'all')").await;
    assert_eq!(
        boss.refusal("SELECT sea_mq.subscribe('boss__y', 'orders', endpoint => 'none')").await,
        SqlState::UNDEFINED_OBJECT
    );
    db.emit("1", "CardCharged", json!({"card": "4111111111111111", "sum": 5})).await;
    until_processed(&db, "billing__api", 1).await;
    until("the other one skips it", SOON, async || message(&db, "boss__x").await["status"] == "skipped").await;
    assert_eq!(receiver.received_on("/all")[0].json(), json!({"sum": 5}));
    assert!(receiver.received_on("/partner").is_empty());
    // Events of an answer are emitted with the rights of whoever subscribed.
    db.run("SELECT sea_mq.alter_endpoint('partner', audience => 'internal'), sea_mq.alter_subscription('boss__x', retry_delay => '1 h', retry_delay_max => '1 h')").await;
    db.emit("2", "CardCharged", json!({"sum": 6})).await;
    until("it may not emit", SOON, async || {
        db.value("SELECT EXISTS (SELECT FROM sea_mq.inbox_messages WHERE subscription = 'boss__x' AND status = 'failed' AND processing_error LIKE '%may not emit events%')", &[]).await
    })
    .await;
}

/// The services in docs/examples do what their comments say.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_examples_handle_messages() {
    let (stage, db) = stage("http_examples", true).await;
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/examples"));
    let programs =
        [("python", vec!["handle_orders.py"]), ("node", vec!["--experimental-strip-types", "handle_orders.ts"])];
    let mut services = Vec::new();
    for (program, arguments) in programs {
        let claimed = Port::claim();
        let port = claimed.number().to_string();
        let log = stage.directory.path().join(format!("{program}.log"));
        let service = service(folder, &[&[program], &arguments[..], &[&port]].concat(), &log);
        services.push((service, claimed));
        until(&format!("the {program} service listens"), SOON * 3, async || {
            tokio::net::TcpStream::connect(format!("127.0.0.1:{port}")).await.is_ok()
        })
        .await;
        let more = ", retry_delay => '100 ms'";
        handled_by(&db, program, &format!("http://127.0.0.1:{port}/orders"), more).await;
    }
    for (id, total) in [("a", 10), ("b", 0), ("c", -1), ("d", 2000)] {
        db.emit(id, "OrderCreated", json!({ "id": id, "total": total })).await;
    }
    let found = "SELECT string_agg(concat_ws(' ', m.aggregate_id, m.status, m.attempts), ', ' ORDER BY m.aggregate_id)
        FROM sea_mq.inbox_messages m WHERE m.subscription = $1 AND m.status IN ('processed', 'skipped', 'dead')";
    for program in ["python", "node"] {
        until(&format!("all are done by {program}"), SOON * 2, async || {
            let found: Option<String> = db.value(found, &[&format!("billing__{program}")]).await;
            found.as_deref() == Some("a processed 1, b skipped 1, c dead 1, d processed 2")
        })
        .await;
    }
    let made: Vec<String> = db
        .values(
            "SELECT aggregate_id || ' ' || count(*) FROM sea_mq.outbox_events WHERE event_type = 'invoice_made'
            AND payload ->> 'for' = causation_id GROUP BY aggregate_id ORDER BY 1",
            &[],
        )
        .await;
    assert_eq!(made, ["a 2", "d 2"]);
}
