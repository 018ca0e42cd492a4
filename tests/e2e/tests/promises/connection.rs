//! A broker that cannot be reached or refuses us: the relay stays up, says what is wrong, and loses nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use harness::{Accounts, BrokerOptions, EVENTS, Port, Stage, StageOptions, TestCertificates, holds_for, until};
use serde_json::json;
use uuid::Uuid;

use crate::{A_WHILE, SOON};

/// Emits, waits until status has an error, and makes sure that the relay stays up meanwhile.
async fn assert_says_what_is_wrong(stage: &Stage) -> Uuid {
    let db = stage.connect().await;
    let id = db.emit("1", "Emitted", json!({})).await;
    let status = stage.until_problem("r.error IS NOT NULL AND r.error_kind IS NOT NULL AND r.hint IS NOT NULL").await;
    eprintln!("{}: {}", status["summary"], status["hint"]);
    let relay = stage.relay().await;
    holds_for("the relay stays up", A_WHILE, async || stage.relays().await == [relay]).await;
    let event = db.object(&format!("SELECT * FROM sea_mq.event_status('{id}')")).await;
    assert_eq!(event["status"], "retrying", "{event}");
    assert!(stage.cluster.log().contains("sea_mq"), "the log says nothing");
    id
}

async fn set(stage: &Stage, name: &str, value: &str) {
    stage.cluster.run(&format!("ALTER SYSTEM SET {name} = '{value}'")).await;
    stage.cluster.run("SELECT pg_reload_conf()").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_address_is_reported_and_a_corrected_one_taken_up() {
    let stage = Stage::new("wrong_url").await;
    let nobody = Port::claim();
    for wrong in
        [format!("nats://127.0.0.1:{}", nobody.number()), "nats://no-such-host.invalid".into(), "http://[".into()]
    {
        set(&stage, "sea_mq.nats_url", &wrong).await;
        until("the relay has noticed", SOON, async || stage.status().await["relay"] != "connected").await;
        assert_says_what_is_wrong(&stage).await;
    }
    set(&stage, "sea_mq.nats_url", &stage.broker.url()).await;
    stage.broker.until_count(EVENTS, 3, SOON).await;
    stage.until_ok().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_of_several_addresses_may_be_wrong() {
    let stage = Stage::new("several_urls").await;
    let nobody = Port::claim();
    set(&stage, "sea_mq.nats_url", &format!("nats://127.0.0.1:{}, {}", nobody.number(), stage.broker.url())).await;
    let id = stage.connect().await.emit("1", "Emitted", json!({})).await;
    stage.assert_stored(&[id]).await;
    stage.until_ok().await;
}

/// A file that the server may read, in a directory that outlives the stage.
fn secret(directory: &Path, name: &str, content: &str) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, content).expect("cannot write a secret's file");
    path
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_credentials_are_reported_and_corrected_ones_taken_up() {
    let broker = BrokerOptions {
        configuration: "authorization { users: [{ user: sea, password: secret }, { user: test, password: test }] }"
            .into(),
        login: Some(("test".into(), "test".into())),
        ..BrokerOptions::default()
    };
    let stage = StageOptions { broker, ..StageOptions::default() }.start("credentials").await;
    assert_says_what_is_wrong(&stage).await;

    let password = secret(stage.directory.path(), "password", "wrong\n");
    set(&stage, "sea_mq.nats_user", "sea").await;
    set(&stage, "sea_mq.nats_password_file", &password.display().to_string()).await;
    assert_says_what_is_wrong(&stage).await;

    fs::remove_file(&password).expect("cannot remove the password");
    assert_says_what_is_wrong(&stage).await;

    secret(stage.directory.path(), "password", "secret\n");
    stage.connect().await.run("SELECT sea_mq.reload()").await;
    stage.broker.until_count(EVENTS, 3, SOON).await;
    stage.until_ok().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_used() {
    let broker = BrokerOptions {
        configuration: "authorization { token: \"a token\" }".into(),
        token: Some("a token".into()),
        ..BrokerOptions::default()
    };
    let stage = StageOptions { broker, ..StageOptions::default() }.start("token").await;
    assert_says_what_is_wrong(&stage).await;
    let token = secret(stage.directory.path(), "token", "a token\n");
    set(&stage, "sea_mq.nats_token_file", &token.display().to_string()).await;
    stage.broker.until_count(EVENTS, 1, SOON).await;
    stage.until_ok().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tls_failure_is_reported_and_a_known_authority_mends_it() {
    let directory = harness::Directory::new("tls_certificates");
    let certificates = TestCertificates::new(directory.path());
    let broker = BrokerOptions { certificates: Some(certificates.clone()), ..BrokerOptions::default() };
    let stage = StageOptions { broker, ..StageOptions::default() }.start("tls").await;
    assert_says_what_is_wrong(&stage).await;
    set(&stage, "sea_mq.nats_tls_ca_file", "/no/such/file.pem").await;
    assert_says_what_is_wrong(&stage).await;
    set(&stage, "sea_mq.nats_tls_ca_file", &certificates.certificate.display().to_string()).await;
    stage.broker.until_count(EVENTS, 2, SOON).await;
    stage.until_ok().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_that_is_demanded_and_not_offered_is_reported() {
    let stage = Stage::new("tls_demanded").await;
    stage.until_connected().await;
    set(&stage, "sea_mq.nats_tls", "on").await;
    until("the relay has noticed", SOON, async || stage.status().await["relay"] != "connected").await;
    assert_says_what_is_wrong(&stage).await;
    assert_eq!(stage.broker.count(EVENTS).await, 0);
    set(&stage, "sea_mq.nats_tls", "off").await;
    stage.broker.until_count(EVENTS, 1, SOON).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_can_have_a_broker_of_its_own() {
    let stage = StageOptions { no_url: true, ..StageOptions::default() }.start("own_broker").await;
    let db = stage.connect().await;
    let id = db.emit("1", "Emitted", json!({})).await;
    let status = stage.until_problem("r.state = 'unconfigured'").await;
    assert!(status["hint"].as_str().is_some_and(|text| text.contains("sea_mq.nats_url")), "{status}");
    db.run(&format!("ALTER DATABASE {} SET sea_mq.nats_url = '{}'", stage.database(), stage.broker.url())).await;
    db.run("SELECT sea_mq.reload()").await;
    stage.assert_stored(&[id]).await;
    stage.until_ok().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_is_switched_off_publishes_nothing_until_it_is_switched_on() {
    let stage = Stage::new("disabled").await;
    set(&stage, "sea_mq.enabled", "off").await;
    until("the relay is disabled", SOON, async || stage.status().await["relay"] == "disabled").await;
    let id = stage.connect().await.emit("1", "Emitted", json!({})).await;
    holds_for("nothing is published", A_WHILE, async || stage.broker.count(EVENTS).await == 0).await;
    set(&stage, "sea_mq.enabled", "on").await;
    stage.assert_stored(&[id]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_begins_with_the_handshake_is_connected_to() {
    let directory = harness::Directory::new("tls_first_certificates");
    let certificates = TestCertificates::new(directory.path());
    let broker =
        BrokerOptions { certificates: Some(certificates.clone()), tls_first: true, ..BrokerOptions::default() };
    let stage = StageOptions { broker, ..StageOptions::default() }
        .setting("sea_mq.nats_tls_ca_file", &certificates.certificate.display().to_string())
        .setting("sea_mq.connect_timeout", "2s")
        .start("tls_first")
        .await;
    let status = stage.until_problem("r.state = 'waiting'").await;
    assert!(status["hint"].as_str().is_some_and(|hint| hint.contains("nats_tls_first")), "{status}");
    set(&stage, "sea_mq.nats_tls_first", "on").await;
    stage.until_connected().await;
    stage.until_ok().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_expires_within_days_is_said_before() {
    let accounts = Accounts::new(&json!({}));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970").as_secs();
    let days = |days: u64| accounts.credentials_until(&json!({}), Some(now + days * 86_400));
    let broker = BrokerOptions {
        configuration: accounts.configuration(),
        credentials: Some(accounts.credentials(&json!({}))),
        ..BrokerOptions::default()
    };
    let stage = StageOptions { broker, ..StageOptions::default() }.start("expiring").await;
    let file = secret(stage.directory.path(), "user.creds", &days(3));
    set(&stage, "sea_mq.nats_credentials_file", &file.display().to_string()).await;
    let status = stage.until_problem("problem LIKE 'what sea_mq.nats_credentials_file names expires at %'").await;
    assert_eq!(status["relay"], "connected");
    secret(stage.directory.path(), "user.creds", &days(30));
    stage.connect().await.run("SELECT sea_mq.reload()").await;
    stage.until_ok().await;
    let directory = harness::Directory::new("expiring_certificates");
    let certificates = TestCertificates::for_days(directory.path(), 5);
    set(&stage, "sea_mq.nats_tls_ca_file", &certificates.certificate.display().to_string()).await;
    stage.until_problem("problem LIKE 'what sea_mq.nats_tls_ca_file names expires at %'").await;
}
