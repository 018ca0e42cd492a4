//! Endpoints outside get events over HTTP: what they get, what each answer means, and what people can do about it.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use harness::{Database, Received, Receiver, Reply, Stage, StageOptions, holds_for, until};
use http::HeaderMap;
use serde_json::{Value, json};
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use crate::{A_WHILE, SOON};

/// A stage whose endpoints may be on this machine, without TLS.
pub(crate) async fn stage(name: &str) -> Stage {
    let options = StageOptions { no_url: true, ..StageOptions::default() }
        .setting("sea_mq.endpoint_allow_http", "on")
        .setting("sea_mq.endpoint_allowed_networks", "127.0.0.0/8");
    let stage = options.start(name).await;
    let types = "SELECT sea_mq.register_event('orders', t, 1, '{\"type\": \"object\"}', 'public') FROM unnest('{OrderCreated,OrderPaid}'::text[]) t";
    stage.connect().await.run(types).await;
    stage
}

pub(crate) async fn create(db: &Database, name: &str, url: &str, more: &str) {
    db.run(&format!("SELECT sea_mq.create_endpoint('{name}', 'webhook', '{url}'{more})")).await;
}

pub(crate) async fn emit(db: &Database, n: i64) -> Uuid {
    db.emit(&(n % 5).to_string(), "OrderCreated", json!({ "n": n })).await
}

/// What became of an event at an endpoint; NULL if nothing is known.
pub(crate) async fn status(db: &Database, event: Uuid, endpoint: &str) -> Value {
    db.value(
        "SELECT coalesce((SELECT to_jsonb(s) FROM sea_mq.delivery_status($1, $2) s), 'null')",
        &[&event, &endpoint],
    )
    .await
}

pub(crate) async fn until_delivered(db: &Database, endpoint: &str, count: i64) {
    let sql = "SELECT delivered >= $2 FROM sea_mq.endpoint_status WHERE endpoint = $1";
    until(&format!("{count} are delivered to {endpoint}"), SOON * 3, async || {
        db.value(sql, &[&endpoint, &count]).await
    })
    .await;
}

/// Whether a request is signed as Standard Webhooks has it, as the specification's own library sees it.
pub(crate) fn is_signed(received: &Received, secret: &str) -> bool {
    let mut headers = HeaderMap::new();
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        headers.insert(name, received.header(name).parse().expect("it is a header"));
    }
    standardwebhooks::Webhook::new(secret).expect("it is a secret").verify(&received.body, &headers).is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_gets_each_event_once_signed_and_soon() {
    let stage = stage("webhook").await;
    let db = stage.connect().await;
    let receiver = Receiver::start(|_| Reply::status(204)).await;
    emit(&db, 0).await;
    create(&db, "acme", &receiver.url("/hook?a=b"), "").await;
    let secret: String = db.value("SELECT sea_mq.rotate_secret('acme', grace => '0')", &[]).await;
    let mut ids = Vec::new();
    for n in 1..=20 {
        ids.push(emit(&db, n).await);
    }
    until_delivered(&db, "acme", 20).await;
    let received = receiver.received();
    let got: Vec<String> = received.iter().map(|one| one.header("webhook-id").to_owned()).collect();
    let mut expected: Vec<String> = ids.iter().map(Uuid::to_string).collect();
    let mut sorted = got.clone();
    sorted.sort();
    expected.sort();
    assert_eq!(sorted, expected);
    for one in &received {
        assert_eq!((one.method.as_str(), one.path.as_str()), ("POST", "/hook?a=b"));
        assert_eq!((one.header("content-type"), one.header("accept-encoding")), ("application/json", "identity"));
        let body = one.json();
        assert_eq!(body["type"], "order_created");
        assert!(body["data"]["n"].as_i64().is_some_and(|n| (1..=20).contains(&n)), "{body}");
        assert!(is_signed(one, &secret), "{one:?}");
        assert!(!is_signed(one, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"));
    }
    let found = status(&db, ids[0], "acme").await;
    assert_eq!(
        (&found["status"], &found["attempts"], &found["http_status"]),
        (&json!("delivered"), &json!(1), &json!(204))
    );
    holds_for("nothing is sent twice", A_WHILE, async || receiver.received().len() == 20).await;
    // What was delivered at the first attempt left one row, and none that is dead.
    let dead: i64 = db
        .value(
            "SELECT coalesce(sum(pg_stat_get_dead_tuples(c.oid)), 0)::bigint FROM pg_class c
             WHERE c.relnamespace = 'sea_mq'::regnamespace AND c.relname ~ '^delivery_(log|pending)'",
            &[],
        )
        .await;
    let rows: i64 = db.value("SELECT count(*) FROM sea_mq.delivery_log", &[]).await;
    assert_eq!((rows, dead), (20, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_after_a_change_of_the_filter_is_judged_by_the_new_one() {
    const CHANGES: i64 = 100;
    let stage = stage("filters").await;
    let db = stage.connect().await;
    let receiver = Receiver::start(|_| Reply::status(204)).await;
    // To look at many takes the dispatcher long, and it reads the log afterwards.
    for n in 0..30 {
        create(&db, &format!("other_{n}"), &receiver.url("/other"), ", filter => '{Nothing}'").await;
    }
    create(&db, "acme", &receiver.url("/acme"), ", filter => '{Nothing}'").await;
    let change =
        "SELECT sea_mq.alter_endpoint('acme', filter => (SELECT array_agg('Type' || n) FROM generate_series(1, $1) n))";
    let emit = "SELECT sea_mq.emit('order', '1', 'Type$1', '{}', visibility => 'public')";
    for n in 1..=CHANGES {
        db.run(&change.replace("$1", &n.to_string())).await;
        db.run(&emit.replace("$1", &n.to_string())).await;
    }
    until_delivered(&db, "acme", CHANGES).await;
    assert_eq!(receiver.received_on("/other").len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_status_has_its_outcome() {
    let stage = stage("statuses").await;
    let db = stage.connect().await;
    let receiver = Receiver::start(|request| {
        let code = request.path.trim_start_matches('/').parse().expect("the path is a status");
        let reply = Reply::status(code);
        if code == 429 || code == 503 { reply.with_header("Retry-After", "3600") } else { reply }
    })
    .await;
    let expected: BTreeMap<u16, (&str, &str)> = [
        (200, ("delivered", "active")),
        (202, ("delivered", "active")),
        (204, ("delivered", "active")),
        (301, ("failed", "active")),
        (400, ("failed", "active")),
        (401, ("failed", "active")),
        (404, ("failed", "active")),
        (408, ("retrying", "active")),
        (410, ("failed", "gone")),
        (413, ("failed", "active")),
        (422, ("failed", "active")),
        (425, ("retrying", "active")),
        (429, ("retrying", "throttled")),
        (500, ("retrying", "active")),
        (503, ("retrying", "throttled")),
    ]
    .into();
    for code in expected.keys() {
        create(&db, &format!("e{code}"), &receiver.url(&format!("/{code}")), ", retry_schedule => '{0, 1 h}'").await;
    }
    let event = emit(&db, 1).await;
    for (code, (outcome, state)) in &expected {
        let name = format!("e{code}");
        until(&format!("{code} is {outcome}"), SOON, async || status(&db, event, &name).await["status"] == *outcome)
            .await;
        let found = status(&db, event, &name).await;
        assert_eq!((&found["http_status"], &found["attempts"]), (&json!(code), &json!(1)), "{found}");
        let sql = "SELECT state = $2 FROM sea_mq.endpoint_status WHERE endpoint = $1";
        until(&format!("{name} is {state}"), SOON, async || db.value(sql, &[&name, state]).await).await;
    }
    // Those that were given up are dead letters of their endpoints, with what happened.
    let letters: Vec<String> =
        db.values("SELECT subscription FROM sea_mq.dlq_list() WHERE reason = 'poison' ORDER BY 1", &[]).await;
    let failed = expected.iter().filter(|(_, (outcome, _))| *outcome == "failed");
    assert_eq!(letters, failed.map(|(code, _)| format!("endpoint:e{code}")).collect::<Vec<_>>());
    let errors: Value = db.value("SELECT errors FROM sea_mq.deliveries WHERE endpoint = 'e422'", &[]).await;
    assert_eq!((&errors[0]["http_status"], &errors[0]["attempt"]), (&json!(422), &json!(1)), "{errors}");
    // No redirect was followed.
    assert_eq!(receiver.received().len(), expected.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_attempt_has_the_same_id_and_bytes_whatever_is_changed_meanwhile() {
    let stage = stage("same_bytes").await;
    let db = stage.connect().await;
    let broken = Arc::new(AtomicBool::new(true));
    let answers = Arc::clone(&broken);
    let receiver =
        Receiver::start(move |_| Reply::status(if answers.load(Ordering::Relaxed) { 500 } else { 200 })).await;
    create(
        &db,
        "acme",
        &receiver.url("/a"),
        ", retry_schedule => '{0, 300 ms, 300 ms, 300 ms, 300 ms, 300 ms, 300 ms, 1 h}'",
    )
    .await;
    let event = emit(&db, 1).await;
    until("it was tried", SOON, async || !receiver.received().is_empty()).await;
    db.run(&format!(
        "SELECT sea_mq.alter_endpoint('acme', url => '{}', format => 'payload', headers => '{{\"X-Tenant\": \"t\"}}')",
        receiver.url("/b")
    ))
    .await;
    until("it is tried elsewhere", SOON, async || receiver.received_on("/b").len() >= 2).await;
    broken.store(false, Ordering::Relaxed);
    until_delivered(&db, "acme", 1).await;
    let received = receiver.received();
    assert!(
        received.iter().all(|one| one.body == received[0].body && one.header("webhook-id") == event.to_string()),
        "{received:?}"
    );
    assert!(received.last().is_some_and(|last| last.header("x-tenant") == "t"));
    let found = status(&db, event, "acme").await;
    assert_eq!((&found["status"], &found["attempts"]), (&json!("delivered"), &json!(received.len())), "{found}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_an_aggregate_arrive_in_order_while_others_fail() {
    let stage = stage("order_by_key").await;
    let db = stage.connect().await;
    let seen: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
    let receiver = Receiver::start(move |request| {
        // Nearly every third event fails at its first two attempts.
        let id = request.header("webhook-id").to_owned();
        let fails = id.bytes().last().is_some_and(|byte| byte % 3 == 0);
        let mut seen = seen.lock().expect("nobody panics with the lock");
        let attempts = seen.entry(id).or_default();
        *attempts += 1;
        Reply::status(if fails && *attempts <= 2 { 500 } else { 200 })
    })
    .await;
    create(
        &db,
        "acme",
        &receiver.url("/"),
        ", ordering => 'key', retry_schedule => '{0, 100 ms, 100 ms, 100 ms, 100 ms}'",
    )
    .await;
    let mut ids = Vec::new();
    for n in 0..60 {
        ids.push(emit(&db, n).await);
    }
    until("all are delivered", SOON * 3, async || {
        // Five failures in a row, of several aggregates, look like an outage: nobody waits for the probe here.
        db.run("SELECT sea_mq.resume_endpoint(endpoint) FROM sea_mq.endpoint_status WHERE state = 'open'").await;
        db.value("SELECT delivered >= 60 FROM sea_mq.endpoint_status", &[]).await
    })
    .await;
    // The answer to the last attempt of each event was the good one: in that order they were accepted.
    let mut last: HashMap<String, usize> = HashMap::new();
    let received = receiver.received();
    received.iter().enumerate().for_each(|(at, one)| _ = last.insert(one.header("webhook-id").to_owned(), at));
    for aggregate in 0..5 {
        let places: Vec<usize> = (0..60).filter(|n| n % 5 == aggregate).map(|n| last[&ids[n].to_string()]).collect();
        assert!(places.is_sorted(), "aggregate {aggregate}: {places:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_endpoint_costs_the_others_nothing_and_its_events_wait() {
    let stage = stage("hung").await;
    let db = stage.connect().await;
    let receiver = Receiver::start(|request| {
        if request.path == "/hung" { Reply::status(200).after(Duration::from_secs(600)) } else { Reply::status(200) }
    })
    .await;
    create(&db, "hung", &receiver.url("/hung"), ", timeout => '2 s'").await;
    create(&db, "sound", &receiver.url("/sound"), "").await;
    for n in 0..50 {
        emit(&db, n).await;
    }
    until_delivered(&db, "sound", 50).await;
    let state = "SELECT state = 'open' AND error_kind = 'timeout' AND hint IS NOT NULL FROM sea_mq.endpoint_status WHERE endpoint = 'hung'";
    until("the hung one is open", SOON, async || db.value(state, &[]).await).await;
    // The cursor stands: what was not tried has no row.
    let waiting: i64 = db.value("SELECT count(*) FROM sea_mq.delivery_pending", &[]).await;
    assert!((5..=16).contains(&waiting), "{waiting}");
    let problem: i64 =
        db.value("SELECT count(*) FROM sea_mq.problems WHERE problem LIKE 'endpoint hung is open%'", &[]).await;
    assert_eq!(problem, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_given_up_is_replayed_to_its_endpoint_alone_with_the_same_bytes() {
    let stage = stage("replay").await;
    let db = stage.connect().await;
    let refuses = Arc::new(AtomicBool::new(true));
    let answers = Arc::clone(&refuses);
    let receiver = Receiver::start(move |request| {
        Reply::status(if request.path == "/a" && answers.load(Ordering::Relaxed) { 422 } else { 200 })
    })
    .await;
    create(&db, "acme", &receiver.url("/a"), "").await;
    create(&db, "other", &receiver.url("/b"), "").await;
    let event = emit(&db, 1).await;
    until("it was given up", SOON, async || status(&db, event, "acme").await["status"] == "failed").await;
    until_delivered(&db, "other", 1).await;
    refuses.store(false, Ordering::Relaxed);
    let letter: i64 = db.value("SELECT id FROM sea_mq.dlq_list(subscription => 'endpoint:acme')", &[]).await;
    db.run("SET ROLE sea_mq_operator; SET sea_mq.actor = 'ann'").await;
    let replayed: Uuid = db.value("SELECT sea_mq.dlq_replay($1)", &[&letter]).await;
    db.run("RESET ROLE; RESET sea_mq.actor").await;
    assert_eq!(replayed, event);
    let by = "SELECT replayed_by || ' for ' || actor FROM sea_mq.dlq_messages WHERE id = $1";
    assert_eq!(db.value::<String>(by, &[&letter]).await, "sea_mq_operator for ann");
    until("it is delivered", SOON, async || status(&db, event, "acme").await["status"] == "delivered").await;
    let sent = receiver.received_on("/a");
    assert_eq!((sent.len(), &sent[0].body), (2, &sent[1].body));
    assert_eq!(receiver.received_on("/b").len(), 1);
    // Delivered, it can be had once more.
    db.value::<Uuid>("SELECT sea_mq.redeliver($1, 'acme')", &[&event]).await;
    until("it came once more", SOON, async || receiver.received_on("/a").len() == 3).await;
    assert_eq!(receiver.received_on("/a")[2].body, sent[0].body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_send_of_its_own_goes_with_its_transaction_and_once_per_id() {
    let stage = stage("own_send").await;
    let db = stage.connect().await;
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    create(&db, "acme", &receiver.url("/"), ", max_size => 200, source => 'orders'").await;
    db.run("BEGIN; SELECT sea_mq.deliver('acme', 'InvoicePaid', '{\"n\": 0}'); ROLLBACK").await;
    let sql = "SELECT sea_mq.deliver('acme', 'InvoicePaid', '{\"n\": 1}')";
    let id: Uuid = db.value(sql, &[]).await;
    assert_eq!(db.value::<Uuid>(sql, &[]).await, id);
    until_delivered(&db, "acme", 1).await;
    assert_eq!(db.value::<Uuid>(sql, &[]).await, id);
    let large = "SELECT sea_mq.deliver('acme', 'InvoicePaid', jsonb_build_object('n', repeat('x', 300)))";
    assert_eq!(db.refusal(large).await, SqlState::PROGRAM_LIMIT_EXCEEDED);
    assert_eq!(db.refusal("SELECT sea_mq.deliver('nobody', 'InvoicePaid', '{}')").await, SqlState::UNDEFINED_OBJECT);
    holds_for("it came once", A_WHILE, async || receiver.received().len() == 1).await;
    assert_eq!(receiver.received()[0].json()["data"], json!({"n": 1}));
    // An event that is too large for the endpoint is given up before an attempt.
    let event: Uuid = db.emit("1", "OrderCreated", json!({"n": "x".repeat(300)})).await;
    until("it is given up", SOON, async || status(&db, event, "acme").await["status"] == "failed").await;
    let found = status(&db, event, "acme").await;
    assert!(found["attempts"] == 0 && found["error"].as_str().is_some_and(|error| error.contains("200")), "{found}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_outside_sees_what_its_audience_may_not() {
    let stage = stage("audience").await;
    let db = stage.connect().await;
    db.run(
        "SELECT sea_mq.register_event('orders', 'CardCharged', 1, '{\"type\": \"object\", \"properties\": {\"card\": {\"type\": \"string\", \"x-sea-sensitive\": true}}}', 'partner'),
            sea_mq.register_event('orders', 'Secret', 1, '{\"type\": \"object\"}', 'internal')",
    )
    .await;
    let receiver = Receiver::start(|_| Reply::status(422)).await;
    create(&db, "acme", &receiver.url("/"), "").await;
    let hidden = db.emit("1", "Secret", json!({"card": "4111111111111111"})).await;
    let charged = db.emit("1", "CardCharged", json!({"card": "4111111111111111", "sum": 5})).await;
    until("it was refused", SOON, async || status(&db, charged, "acme").await["status"] == "failed").await;
    assert_eq!(receiver.received().len(), 1);
    assert_eq!(receiver.received()[0].json()["data"], json!({"sum": 5}));
    assert_eq!(status(&db, hidden, "acme").await["status"], "skipped");
    let kept: String = db
        .value(
            "SELECT string_agg(t, ' ') FROM (SELECT d::text FROM sea_mq.dlq_messages d UNION ALL SELECT convert_from(p.body, 'UTF8') || p::text
                FROM sea_mq.delivery_pending p UNION ALL SELECT l::text FROM sea_mq.delivery_log l) AS x(t)",
            &[],
        )
        .await;
    assert!(!kept.contains("4111111111111111") && !stage.cluster.log().contains("4111111111111111"), "{kept}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_comes_back_is_ramped_up_and_never_gets_more_than_its_rate() {
    let stage = stage("ramp").await;
    let db = stage.connect().await;
    let down = Arc::new(AtomicBool::new(true));
    let (answers, busy, most) = (Arc::clone(&down), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let peak = Arc::clone(&most);
    let receiver = Receiver::start(move |_| {
        peak.fetch_max(busy.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        busy.fetch_sub(1, Ordering::SeqCst);
        Reply::status(if answers.load(Ordering::Relaxed) { 500 } else { 200 })
    })
    .await;
    create(&db, "acme", &receiver.url("/"), ", rate => 100, retry_schedule => '{0, 1 s, 1 s, 1 s, 1 s, 1 s, 1 s}'")
        .await;
    for n in 0..400 {
        emit(&db, n).await;
    }
    let open = "SELECT state = 'open' FROM sea_mq.endpoint_status WHERE endpoint = 'acme'";
    until("it is open", SOON, async || db.value(open, &[]).await).await;
    down.store(false, Ordering::Relaxed);
    // A person need not wait for the probe.
    db.run("SELECT sea_mq.resume_endpoint('acme')").await;
    until_delivered(&db, "acme", 400).await;
    let times: Vec<_> = receiver.received().iter().map(|one| one.at).collect();
    let second = Duration::from_secs(1);
    let busiest =
        times.iter().map(|&at| times.iter().filter(|&&other| other >= at && other < at + second).count()).max();
    assert!(busiest.is_some_and(|count| count <= 110), "{busiest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_says_how_far_it_came() {
    let stage = stage("check").await;
    let db = stage.connect().await;
    let receiver = Receiver::start(|request| Reply::status(if request.path == "/good" { 200 } else { 404 })).await;
    create(&db, "good", &receiver.url("/good"), "").await;
    create(&db, "lost", &receiver.url("/lost"), "").await;
    create(&db, "down", "http://127.0.0.1:1/", "").await;
    let steps = async |name: &str| -> Vec<Option<bool>> {
        db.values("SELECT ok FROM sea_mq.check_endpoint($1)", &[&name]).await
    };
    assert_eq!(steps("good").await, [Some(true); 5]);
    assert_eq!(steps("lost").await, [Some(true), Some(true), Some(true), Some(true), Some(false)]);
    assert_eq!(steps("down").await, [Some(true), Some(true), Some(false), None, None]);
    assert_eq!(db.refusal("SELECT sea_mq.check_endpoint('nobody')").await, SqlState::UNDEFINED_OBJECT);
    assert_eq!(receiver.received_on("/good")[0].json()["type"], "ping");
    // It is no delivery.
    let rows: i64 = db.value("SELECT count(*) FROM sea_mq.deliveries", &[]).await;
    assert_eq!(rows, 0);
}
