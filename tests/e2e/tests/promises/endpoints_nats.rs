//! Endpoints of kind nats: somebody else's broker. What it gets, how we log in there, and what its answers mean.

use std::time::Duration;

use async_nats::jetstream::stream::Config;
use harness::{Accounts, Broker, BrokerOptions, Database, Stage, StageOptions, TestCertificates, holds_for, until};
use nkeys::KeyPair;
use serde_json::{Value, json};
use tokio_postgres::error::SqlState;

use crate::endpoints::{emit, stage, status, until_delivered};
use crate::{A_WHILE, SOON};

async fn create(db: &Database, name: &str, url: &str, more: &str) {
    db.run(&format!("SELECT sea_mq.create_endpoint('{name}', 'nats', '{url}'{more})")).await;
}

async fn stream(broker: &Broker, name: &str, subjects: &[&str]) {
    let subjects = subjects.iter().map(|&subject| subject.to_owned()).collect();
    let config = Config { name: name.to_owned(), subjects, ..Config::default() };
    broker.jetstream().create_stream(config).await.expect("the stream is made");
}

async fn until_state(db: &Database, endpoint: &str, state: &str) {
    let sql = "SELECT state = $2 FROM sea_mq.endpoint_status WHERE endpoint = $1";
    until(&format!("{endpoint} is {state}"), SOON, async || db.value(sql, &[&endpoint, &state]).await).await;
}

async fn steps(db: &Database, endpoint: &str) -> Vec<Option<bool>> {
    db.values("SELECT ok FROM sea_mq.check_endpoint($1)", &[&endpoint]).await
}

/// A broker beside the stage's own.
async fn partner(stage: &Stage, options: BrokerOptions) -> Broker {
    let mut broker = Broker::new(&stage.directory.path().join("partner"), options);
    broker.start().await;
    broker
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partners_stream_gets_what_the_relay_would_publish() {
    let stage = stage("nats_message").await;
    let db = stage.connect().await;
    stream(&stage.broker, "INSIDE", &["orders.>"]).await;
    stream(&stage.broker, "OUTSIDE", &["shop.>"]).await;
    create(&db, "inside", &stage.broker.url(), ", audience => 'internal'").await;
    create(&db, "outside", &format!("{}/shop.{{subject}}", stage.broker.url()), ", headers => '{\"X-Tenant\": \"t\"}'")
        .await;
    let sql = "SELECT sea_mq.emit('order', '42', 'OrderCreated', '{\"n\": 1.50}', correlation_id => 'c1', causation_id => 'b1', headers => '{\"X-Own\": \"o\"}')";
    let event: uuid::Uuid = db.value(sql, &[]).await;
    for name in ["inside", "outside"] {
        until_delivered(&db, name, 1).await;
    }
    let inside = stage.broker.stored("INSIDE").await.remove(0);
    assert_eq!(
        (inside.subject.as_str(), inside.body.as_ref()),
        ("orders.event.order_created.v1", br#"{"n": 1.50}"#.as_ref())
    );
    for (name, value) in [
        ("Nats-Msg-Id", event.to_string().as_str()),
        ("X-Correlation-Id", "c1"),
        ("X-Causation-Id", "b1"),
        ("X-Event-Type", "order_created"),
        ("X-Event-Version", "1"),
        ("X-Aggregate-Type", "order"),
        ("X-Aggregate-Id", "42"),
        ("X-Source-Context", "orders"),
        ("X-Sea-Visibility", "public"),
        ("X-Own", "o"),
        ("Content-Type", "application/json"),
        ("ce-subject", "42"),
    ] {
        assert_eq!(inside.header(name), value, "{name}");
    }
    // Those outside do not learn what ties events together.
    let outside = stage.broker.stored("OUTSIDE").await.remove(0);
    assert_eq!(outside.subject, "shop.orders.event.order_created.v1");
    assert_eq!((outside.header("X-Causation-Id"), outside.header("X-Own"), outside.header("X-Tenant")), ("", "o", "t"));
    assert!(outside.header("X-Correlation-Id").starts_with("hmac-sha256:"));
    // The broker knows it by its id: sent once more, it is there once.
    db.run(&format!("SELECT sea_mq.redeliver('{event}', 'inside')")).await;
    until_delivered(&db, "inside", 2).await;
    assert_eq!(stage.broker.count("INSIDE").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_without_the_stream_or_the_right_is_refused_after_three() {
    let stage = stage("nats_refused").await;
    let configuration = "authorization { users: [ { user: \"all\", password: \"all\" },
        { user: \"few\", password: \"few\", permissions: { publish: [\"$JS.API.>\"], subscribe: \"_INBOX.>\" } } ] }";
    let options = BrokerOptions {
        configuration: configuration.to_owned(),
        login: Some(("all".into(), "all".into())),
        ..BrokerOptions::default()
    };
    let partner = partner(&stage, options).await;
    let db = stage.connect().await;
    stream(&partner, "THERE", &["there"]).await;
    for (name, user, subject, kind) in
        [("nowhere", "all", "nowhere", "no_stream"), ("denied", "few", "there", "forbidden")]
    {
        let auth = format!("{{\"type\": \"basic\", \"user\": \"{user}\", \"password\": \"word\"}}");
        // In one transaction, so that no attempt is made without the secret.
        db.run(&format!(
            "SELECT sea_mq.create_endpoint('{name}', 'nats', '{}/{subject}', ordering => 'strict', auth => '{auth}');
             SELECT sea_mq.set_secret('{name}', 'word', '{user}')",
            partner.url()
        ))
        .await;
        let first = emit(&db, 1).await;
        for n in 2..=6 {
            emit(&db, n).await;
        }
        until_state(&db, name, "refused").await;
        let found = status(&db, first, name).await;
        assert_eq!((&found["status"], &found["attempts"]), (&json!("failed"), &json!(1)), "{found}");
        let told = "SELECT failed = 3 AND error_kind = $2 AND hint IS NOT NULL FROM sea_mq.endpoint_status WHERE endpoint = $1";
        until("three were tried", SOON, async || db.value(told, &[&name, &kind]).await).await;
        db.run(&format!("SELECT sea_mq.pause_endpoint('{name}')")).await;
    }
    // Made there, it takes the others.
    stream(&partner, "NOWHERE", &["nowhere"]).await;
    db.run("SELECT sea_mq.resume_endpoint('nowhere')").await;
    until_delivered(&db, "nowhere", 3).await;
    assert_eq!(steps(&db, "nowhere").await, [Some(true); 5]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_does_not_let_us_in_is_refused_and_costs_no_event() {
    let stage = stage("nats_login").await;
    let accounts = Accounts::new(&json!({}));
    let credentials = accounts.credentials(&json!({}));
    let options = BrokerOptions {
        configuration: accounts.configuration(),
        credentials: Some(credentials.clone()),
        ..BrokerOptions::default()
    };
    let partner = partner(&stage, options).await;
    let db = stage.connect().await;
    stream(&partner, "THERE", &["there"]).await;
    create(&db, "acme", &format!("{}/there", partner.url()), ", auth => '{\"type\": \"creds\", \"creds\": \"file\"}'")
        .await;
    // Those of another operator.
    let foreign = Accounts::new(&json!({})).credentials(&json!({}));
    db.value::<String>("SELECT sea_mq.set_secret('acme', 'file', $1)", &[&foreign]).await;
    let event = emit(&db, 1).await;
    until_state(&db, "acme", "refused").await;
    let found = status(&db, event, "acme").await;
    assert_eq!(found["status"], "retrying", "{found}");
    assert_eq!(steps(&db, "acme").await, [Some(false), None, None, None, None]);
    db.value::<String>("SELECT sea_mq.set_secret('acme', 'file', $1)", &[&credentials]).await;
    assert_eq!(steps(&db, "acme").await, [Some(true); 5]);
    let sql = "SELECT sea_mq.resume_endpoint('acme'), sea_mq.redeliver(event_id, endpoint) FROM sea_mq.deliveries";
    db.run(sql).await;
    until_delivered(&db, "acme", 1).await;
    let seed = credentials.lines().find(|line| line.starts_with("SU")).expect("it has a seed");
    let kept: String = db.value("SELECT string_agg(s::text, ' ') FROM sea_mq.endpoint_status s", &[]).await;
    assert!(!kept.contains(seed) && !stage.cluster.log().contains(seed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seed_a_token_and_a_certificate_are_ways_to_log_in() {
    let plain = StageOptions { no_url: true, ..StageOptions::default() };
    let folder = harness::Directory::new("nats_certificate");
    let certificates = TestCertificates::new(folder.path());
    let stage = plain
        .setting("sea_mq.endpoint_ca_file", &certificates.certificate.display().to_string())
        .start("nats_seed")
        .await;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.register_event('orders', 'OrderCreated', 1, '{\"type\": \"object\"}', 'public')").await;
    let key = KeyPair::new_user();
    let seed = key.seed().expect("a new key has a seed");
    let ways = [
        (
            "token",
            "authorization { token: \"secret word\" }".to_owned(),
            "secret word".to_owned(),
            json!({"type": "bearer", "token": "s"}),
            None,
        ),
        (
            "seed",
            format!(
                "authorization {{ users: [ {{ nkey: {} }}, {{ user: \"all\", password: \"all\" }} ] }}",
                key.public_key()
            ),
            seed,
            json!({"type": "nkey", "seed": "s"}),
            None,
        ),
        ("tls", String::new(), String::new(), Value::Null, Some(certificates)),
    ];
    for (name, configuration, secret, auth, certificates) in ways {
        let is_tls = certificates.is_some();
        let options = BrokerOptions {
            configuration,
            token: (name == "token").then(|| secret.clone()),
            login: (name == "seed").then(|| ("all".into(), "all".into())),
            certificates,
            ..BrokerOptions::default()
        };
        let mut broker = Broker::new(&stage.directory.path().join(name), options);
        broker.start().await;
        stream(&broker, "THERE", &["there"]).await;
        assert_eq!(broker.url().starts_with("tls://"), is_tls);
        let auth = if auth.is_null() { "NULL".to_owned() } else { format!("'{auth}'") };
        create(&db, name, &format!("{}/there", broker.url()), &format!(", auth => {auth}")).await;
        if !secret.is_empty() {
            db.value::<String>("SELECT sea_mq.set_secret($1, 's', $2)", &[&name, &secret]).await;
        }
        assert_eq!(steps(&db, name).await, [Some(true); 5], "{name}");
        emit(&db, 1).await;
        until_delivered(&db, name, 1).await;
        db.run(&format!("SELECT sea_mq.drop_endpoint('{name}')")).await;
    }
    // Without the authority, nothing is sent, and the event waits.
    stage.cluster.configure(&[("sea_mq.endpoint_ca_file", "")]);
    stage.cluster.reload();
    let certificates = TestCertificates::new(stage.directory.path());
    let options = BrokerOptions { certificates: Some(certificates), ..BrokerOptions::default() };
    let mut stranger = Broker::new(&stage.directory.path().join("stranger"), options);
    stranger.start().await;
    create(&db, "stranger", &format!("{}/there", stranger.url()), "").await;
    let event = emit(&db, 2).await;
    until_state(&db, "stranger", "refused").await;
    let found = status(&db, event, "stranger").await;
    assert_eq!(found["status"], "retrying", "{found}");
    let checked = steps(&db, "stranger").await;
    assert_eq!(checked, [Some(true), Some(true), Some(true), Some(false), None]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_away_gets_what_waited_when_it_is_back() {
    let mut stage = stage("nats_away").await;
    let db = stage.connect().await;
    stream(&stage.broker, "INSIDE", &["orders.>"]).await;
    create(
        &db,
        "inside",
        &stage.broker.url(),
        ", retry_schedule => '{0, 1 s, 1 s, 1 s, 1 s, 1 s, 1 s, 1 s, 1 s, 1 s, 1 s, 1 s, 1 s}'",
    )
    .await;
    emit(&db, 0).await;
    until_delivered(&db, "inside", 1).await;
    stage.broker.kill();
    for n in 1..=100 {
        emit(&db, n).await;
    }
    until_state(&db, "inside", "open").await;
    let few: bool = db.value("SELECT count(*) <= 16 FROM sea_mq.delivery_pending", &[]).await;
    assert!(few, "an outage stops the cursor");
    assert_eq!(steps(&db, "inside").await, [Some(true), Some(true), Some(false), None, None]);
    stage.broker.start().await;
    db.run("SELECT sea_mq.resume_endpoint('inside')").await;
    until_delivered(&db, "inside", 101).await;
    assert_eq!(stage.broker.count("INSIDE").await, 101);
    // Larger than the broker takes: that event alone has failed.
    stage.broker.configure("max_payload: 10000");
    stage.broker.stop();
    stage.broker.start().await;
    let large = db.emit("1", "OrderCreated", json!({"n": "x".repeat(20_000)})).await;
    emit(&db, 101).await;
    until("it has failed", SOON, async || status(&db, large, "inside").await["status"] == "failed").await;
    until_delivered(&db, "inside", 102).await;
    let told = "SELECT errors -> -1 ->> 'kind' = 'unsendable' AND error LIKE '%10000%' FROM sea_mq.deliveries WHERE event_id = $1";
    assert!(db.value::<bool>(told, &[&large]).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_superusers_say_which_broker_is_reached() {
    let stage = stage("nats_rights").await;
    let db = stage.connect().await;
    db.run("CREATE ROLE op LOGIN IN ROLE sea_mq_operator").await;
    create(&db, "inside", &stage.broker.url(), "").await;
    let operator = stage.connect_as("op").await;
    for sql in [
        "SELECT sea_mq.create_endpoint('mine', 'nats', 'nats://127.0.0.1:4222')",
        "SELECT sea_mq.alter_endpoint('inside', url => 'nats://169.254.169.254:80')",
        "SELECT sea_mq.alter_endpoint('inside', headers => '{\"X-A\": \"1\"}')",
    ] {
        assert_eq!(operator.refusal(sql).await, SqlState::INSUFFICIENT_PRIVILEGE, "{sql}");
    }
    for (url, more) in [
        ("nats://hub/$JS.API.STREAM.PURGE.X", ""),
        ("nats://hub/a.>", ""),
        ("https://hub.example/", ""),
        (
            "nats://hub",
            ", auth => '{\"type\": \"oauth2\", \"token_url\": \"https://a.example/\", \"client_id\": \"c\", \"client_secret\": \"s\"}'",
        ),
        ("nats://hub", ", headers => '{\"Nats-Expected-Stream\": \"X\"}'"),
        ("nats://hub", ", format => 'cloudevents_batch'"),
    ] {
        let sql = format!("SELECT sea_mq.create_endpoint('other', 'nats', '{url}'{more})");
        assert_eq!(db.refusal(&sql).await, SqlState::INVALID_PARAMETER_VALUE, "{sql}");
    }
    // What a message goes to cannot be called.
    let sql = "SELECT sea_mq.subscribe('orders__called', 'orders', endpoint => 'inside')";
    assert_eq!(db.refusal(sql).await, SqlState::INVALID_PARAMETER_VALUE);
    let shown: String = db.value("SELECT url FROM sea_mq.endpoints", &[]).await;
    assert_eq!(shown, stage.broker.url());
    holds_for("nothing was made", A_WHILE.min(Duration::from_millis(200)), async || {
        db.value("SELECT count(*) = 1 FROM sea_mq.endpoints", &[]).await
    })
    .await;
}
