//! What every kind of endpoint promises. The same checks run for each, against a server of its own.

mod server;

use std::collections::BTreeMap;
use std::time::Duration;

use harness::{Database, Stage, freeze, holds_for, kill, thaw, until};
use serde_json::{Value, json};
use server::{Check, Kind, Manner, Server};
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use crate::endpoints::{stage, status, until_delivered};
use crate::endpoints_faults::dispatcher;
use crate::receiving::ask;
use crate::{A_WHILE, SOON};

async fn contract(kind: Kind) {
    let mut stage = stage(&format!("contract_{}", kind.token())).await;
    let server = Server::start(kind, &stage).await;
    let db = stage.connect().await;
    misconfiguration_is_refused(&server, &stage, &db).await;
    each_send_has_a_result(&server, &stage, &db).await;
    attempts_are_the_same(&server, &stage, &db).await;
    the_size_is_looked_at_before(&server, &stage, &db).await;
    silence_has_an_end(&server, &stage, &db).await;
    endpoints_are_independent(&server, &stage, &db).await;
    the_audience_sees_its_own(&server, &stage, &db).await;
    nothing_is_lost(&server, &stage, &db).await;
    drop(db);
    what_is_on_its_way_is_finished(&server, &mut stage).await;
}

/// Before any event is accepted for it.
async fn misconfiguration_is_refused(server: &Server, stage: &Stage, db: &Database) {
    let kind = server.kind.token();
    let url = server.url(stage, "refused");
    for (url, more) in [
        ("nonsense", ""),
        ("ftp://127.0.0.1/", ""),
        (url.replace("://", "://user:word@").as_str(), ""),
        (url.as_str(), ", headers => '{\"Content-Length\": \"1\"}'"),
        (url.as_str(), ", headers => '{\"X-A\": \"1\\r\\nX-B: 2\"}'"),
        (url.as_str(), ", auth => '{\"type\": \"magic\"}'"),
        (url.as_str(), ", timeout => '0'"),
        (url.as_str(), ", format => 'template'"),
        (url.as_str(), ", audience => 'everybody'"),
        (url.as_str(), ", filter => '{a..b}'"),
    ] {
        let sql = format!("SELECT sea_mq.create_endpoint('refused', '{kind}', '{url}'{more})");
        assert_eq!(db.refusal(&sql).await, SqlState::INVALID_PARAMETER_VALUE, "{sql}");
    }
    let made: i64 = db.value("SELECT count(*) FROM sea_mq.endpoints", &[]).await;
    assert_eq!(made, 0);
}

async fn each_send_has_a_result(server: &Server, stage: &Stage, db: &Database) {
    let check = Check::new(stage, server, db, "result", Manner::Takes, ", retry_schedule => '{0, 200 ms}'").await;
    let taken = check.emit(json!({"n": 1})).await;
    let found = check.until_status(taken, "delivered").await;
    assert!(found["attempts"] == 1 && found["error"].is_null() && !found["delivered_at"].is_null(), "{found}");
    let own: Uuid = db.value("SELECT sea_mq.deliver('result', 'Own', '{\"n\": 2}', context => 'orders')", &[]).await;
    check.until_status(own, "delivered").await;
    // It passes by itself: tried again, until that is over.
    check.behaves(Manner::Fails).await;
    let failing = check.emit(json!({"n": 3})).await;
    let found = check.until_status(failing, "exhausted").await;
    assert!(found["attempts"] == 2 && found["error"].is_string(), "{found}");
    // It does not: failed at once.
    check.behaves(Manner::Refuses).await;
    let refused = check.emit(json!({"n": 4})).await;
    let found = check.until_status(refused, "failed").await;
    assert!(found["attempts"] == 1 && found["error"].is_string(), "{found}");
    let told = "SELECT jsonb_agg(jsonb_build_object('kind', e -> 'kind' IS NOT NULL, 'at', e -> 'at' IS NOT NULL, 'attempt', e -> 'attempt'))
        FROM sea_mq.deliveries d, jsonb_array_elements(d.errors) e WHERE d.event_id = $1";
    let all: Value = db.value(told, &[&failing]).await;
    let expected = json!([{"kind": true, "at": true, "attempt": 1}, {"kind": true, "at": true, "attempt": 2}]);
    assert_eq!(all, expected);
    // Both are dead letters of this endpoint, and a replay is to it alone.
    let letters: Vec<String> =
        db.values("SELECT reason FROM sea_mq.dlq_list(subscription => 'endpoint:result') ORDER BY id", &[]).await;
    assert_eq!(letters, ["exhausted", "poison"]);
    check.behaves(Manner::Takes).await;
    db.run("SELECT sea_mq.dlq_replay_all(subscription => 'endpoint:result'); SELECT sea_mq.resume_endpoint('result')")
        .await;
    check.until_status(failing, "delivered").await;
    check.until_status(refused, "delivered").await;
}

async fn attempts_are_the_same(server: &Server, stage: &Stage, db: &Database) {
    let schedule = ", retry_schedule => '{0, 300 ms, 300 ms, 300 ms, 300 ms, 300 ms, 300 ms, 1 h}'";
    let check = Check::new(stage, server, db, "same", Manner::Fails, schedule).await;
    let event = check.emit(json!({"n": 1, "sum": 1.50})).await;
    until("it was tried", SOON, async || !check.attempts().is_empty()).await;
    db.run("SELECT sea_mq.alter_endpoint('same', format => 'template', body => '{\"changed\": \"$.event_type\"}', headers => '{\"X-Tenant\": \"t\"}')")
        .await;
    until("it is tried again", SOON, async || check.attempts().len() >= 3).await;
    check.behaves(Manner::Takes).await;
    let found = check.until_status(event, "delivered").await;
    let attempts = check.attempts();
    assert_eq!(found["attempts"], json!(attempts.len()), "{found}");
    assert!(attempts.iter().all(|one| one.id == event.to_string() && one.body == attempts[0].body), "{attempts:?}");
    // What comes after the change is as it says.
    check.emit(json!({"n": 2})).await;
    until_delivered(db, "same", 2).await;
    assert_eq!(check.attempts().last().map(|one| one.body.clone()), Some(b"{\"changed\": \"same\"}".to_vec()));
}

async fn the_size_is_looked_at_before(server: &Server, stage: &Stage, db: &Database) {
    let check = Check::new(stage, server, db, "size", Manner::Takes, ", max_size => 200").await;
    let own = "SELECT sea_mq.deliver('size', 'Own', jsonb_build_object('n', repeat('x', 300)), context => 'orders')";
    let error = db.batch_execute(own).await.expect_err("it is too large");
    let error = error.as_db_error().expect("the server says so");
    assert!(*error.code() == SqlState::PROGRAM_LIMIT_EXCEEDED && error.message().contains("200"), "{error}");
    let event = check.emit(json!({"n": "x".repeat(300)})).await;
    let found = check.until_status(event, "failed").await;
    assert!(found["attempts"] == 0 && found["error"].as_str().is_some_and(|error| error.contains("200")), "{found}");
    assert!(check.attempts().is_empty());
}

async fn silence_has_an_end(server: &Server, stage: &Stage, db: &Database) {
    let check =
        Check::new(stage, server, db, "silent", Manner::Hangs, ", timeout => '400 ms', retry_schedule => '{0, 1 h}'")
            .await;
    let event = check.emit(json!({"n": 1})).await;
    check.until_status(event, "retrying").await;
    let told =
        "SELECT duration < '2 s' AND errors -> 0 ->> 'kind' = 'timeout' FROM sea_mq.deliveries WHERE event_id = $1";
    assert!(db.value::<bool>(told, &[&event]).await);
    db.run("SELECT sea_mq.cancel_delivery(event_id, endpoint) FROM sea_mq.deliveries WHERE endpoint = 'silent'").await;
    check.until_status(event, "cancelled").await;
}

/// One event to three of them: what one does costs the others nothing.
async fn endpoints_are_independent(server: &Server, stage: &Stage, db: &Database) {
    let hung =
        Check::new(stage, server, db, "hung", Manner::Hangs, ", timeout => '500 ms', retry_schedule => '{0, 1 h}'")
            .await;
    let refusing = Check::new(stage, server, db, "refusing", Manner::Refuses, "").await;
    let taking = Check::new(stage, server, db, "taking", Manner::Takes, "").await;
    for check in [&hung, &refusing, &taking] {
        db.run(&format!("SELECT sea_mq.alter_endpoint('{}', filter => '{{taking}}')", check.name)).await;
    }
    let mut last = Uuid::nil();
    for n in 0..20 {
        last = taking.emit(json!({ "n": n })).await;
    }
    until_delivered(db, "taking", 20).await;
    let found = refusing.until_status(last, "failed").await;
    assert_eq!(found["attempts"], 1);
    let open = "SELECT state = 'open' FROM sea_mq.endpoint_status WHERE endpoint = 'hung'";
    until("the hung one is open", SOON, async || db.value(open, &[]).await).await;
    assert_eq!(taking.attempts().len(), 20);
    db.run("SELECT sea_mq.drop_endpoint('hung', discard_pending => true)").await;
}

async fn the_audience_sees_its_own(server: &Server, stage: &Stage, db: &Database) {
    let check = Check::new(stage, server, db, "audience", Manner::Takes, ", format => 'payload'").await;
    let hidden: Uuid = db
        .value("SELECT sea_mq.emit('order', '1', 'audience', '{\"card\": \"4111\"}', visibility => 'internal')", &[])
        .await;
    let seen = check.emit(json!({"card": "4111111111111111", "sum": 5})).await;
    check.until_status(seen, "delivered").await;
    assert_eq!(status(db, hidden, "audience").await["status"], "skipped");
    let attempts = check.attempts();
    assert_eq!(attempts.len(), 1, "{attempts:?}");
    assert_eq!(serde_json::from_slice::<Value>(&attempts[0].body).ok(), Some(json!({"sum": 5})));
}

async fn nothing_is_lost(server: &Server, stage: &Stage, db: &Database) {
    let check = Check::new(stage, server, db, "kept", Manner::Takes, "").await;
    let mut ids = Vec::new();
    for n in 0..300 {
        ids.push(check.emit(json!({ "n": n })).await);
    }
    until("some came", SOON, async || check.attempts().len() >= 10).await;
    // It takes the whole server along.
    kill(dispatcher(stage).await);
    let done = "SELECT count(*) = 300 FROM sea_mq.deliveries WHERE endpoint = 'kept' AND status = 'delivered'";
    until("all are delivered", SOON * 3, async || ask(stage, done).await == Some(true)).await;
    let mut bodies: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    check.attempts().into_iter().for_each(|one| bodies.entry(one.id).or_default().push(one.body));
    for id in &ids {
        let of_one = bodies.get(&id.to_string()).unwrap_or_else(|| panic!("{id} was lost"));
        assert!(of_one.iter().all(|body| *body == of_one[0]), "{id} came with other bytes");
    }
    let doubled: usize = bodies.values().map(|of_one| of_one.len() - 1).sum();
    assert!(doubled <= 32, "{doubled} came twice");
    if server.kind == Kind::Nats {
        // The stream knows each by its id.
        assert_eq!(stage.broker.count("KEPT").await, 300);
    }
}

/// A server that ends waits for answers, and does not ask again afterwards.
async fn what_is_on_its_way_is_finished(server: &Server, stage: &mut Stage) {
    let db = stage.connect().await;
    // A machine under load takes its time to record what was answered.
    db.run("ALTER SYSTEM SET sea_mq.shutdown_timeout = '20s'").await;
    stage.cluster.reload();
    let manner = if server.kind == Kind::Nats { Manner::Takes } else { Manner::Hangs };
    let check = Check::new(stage, server, &db, "ending", manner, "").await;
    let before = if server.kind == Kind::Nats {
        // It is connected, so that what follows is on its way and not before it.
        let first = check.emit(json!({"n": 0})).await;
        check.until_status(first, "delivered").await;
        freeze(stage.broker.pid());
        1
    } else {
        0
    };
    let event = check.emit(json!({"n": 1})).await;
    let sent = "SELECT in_flight > 0 FROM sea_mq.endpoint_health h JOIN sea_mq.endpoints e ON e.id = h.endpoint_id WHERE e.endpoint = 'ending'";
    until("it is on its way", SOON, async || db.value(sent, &[]).await).await;
    drop(db);
    let pid = (server.kind == Kind::Nats).then(|| stage.broker.pid());
    let thawing = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(1));
        pid.into_iter().for_each(thaw);
    });
    stage.cluster.stop();
    thawing.join().expect("it thaws");
    stage.cluster.start().await;
    let db = stage.connect().await;
    assert_eq!(status(&db, event, "ending").await["status"], "delivered");
    let attempts = || server.attempts("ending").len();
    holds_for("it was sent once", A_WHILE, async || attempts() == before + 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_keeps_the_contract() {
    contract(Kind::Webhook).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_http_api_keeps_the_contract() {
    contract(Kind::Http).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_keeps_the_contract() {
    contract(Kind::Nats).await;
}
