//! Health, metrics, limits, and what happens when something is away.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::shared::{as_role, ask, name, serve, shared, until};

fn admin(path: &str) -> crate::shared::Answer {
    ask("GET", &format!("{}{path}", shared().admin_url), &[], None)
}

#[test]
fn health_says_that_it_lives_and_is_ready() {
    assert_eq!((admin("/livez").status, admin("/readyz").status), (200, 200));
}

#[test]
fn metrics_are_those_of_the_database_and_the_gateway_s_own() {
    as_role("all", "GET", "/status", None);
    let answer = admin("/metrics");
    assert!(answer.headers["content-type"].starts_with("application/openmetrics-text"));
    assert!(answer.text.starts_with("# TYPE sea_mq_up gauge") && answer.text.ends_with("# EOF\n"), "{}", answer.text);
    let mut db = shared().db();
    let names: Vec<String> = db
        .query("SELECT DISTINCT name FROM sea_mq.metrics()", &[])
        .expect("rows")
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert!(names.len() > 20);
    for name in names {
        assert!(answer.text.lines().any(|line| line.starts_with(&name)), "{name} is not in\n{}", answer.text);
    }
    assert!(answer.text.contains("sea_mq_up 1") && answer.text.contains("sea_mq_http_request_duration_seconds_bucket"));
    // Each family has one head, before its samples.
    let heads: Vec<&str> =
        answer.text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let mut once = heads.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(heads.len(), once.len());
}

#[test]
fn a_database_that_is_away_is_told_as_such_and_what_is_up_is_up() {
    let log = shared().directory.join("away.log");
    let tokens = shared().directory.join("tokens");
    let gateway = serve("host=127.0.0.1 port=1 user=x dbname=x", &log, &["--tokens", tokens.to_str().expect("a text")]);
    let of = |path: &str| ask("GET", &format!("{}{path}", gateway.admin_url), &[], None);
    assert_eq!((of("/livez").status, of("/readyz").status), (200, 503));
    let metrics = of("/metrics").text;
    assert!(metrics.contains("sea_mq_up 0") && metrics.matches('\n').count() == 4, "{metrics}");
    let token = format!("Bearer {}", shared().tokens["all"]);
    let answer = ask("GET", &format!("{}/v1/status", gateway.url), &[("Authorization", &token)], None);
    assert_eq!((answer.status, answer.json()["error"].as_str()), (503, Some("unavailable")), "{}", answer.text);
    assert!(answer.headers.contains_key("retry-after"));
}

/// A database of its own with a gateway for it, for tests that would be in the way of those that ask the shared one.
struct Apart {
    db: postgres::Client,
    gateway: crate::shared::Gateway,
}

impl Apart {
    fn new(name: &str) -> Self {
        shared().db().batch_execute(&format!("CREATE DATABASE {name}")).expect("created");
        let database = |user: &str| format!("host=127.0.0.1 port={} user={user} dbname={name}", shared().port);
        let mut db = postgres::Client::connect(&database("postgres"), postgres::NoTls).expect("connected");
        db.batch_execute("CREATE EXTENSION sea_mq").expect("created");
        let (tokens, log) = (shared().directory.join("tokens"), shared().directory.join(format!("{name}.log")));
        let gateway = serve(&database("sea_mq_gateway"), &log, &["--tokens", tokens.to_str().expect("a text")]);
        Self { db, gateway }
    }

    /// What asks for this path as who may do all.
    fn get(&self, path: &str) -> impl Fn() -> crate::shared::Answer + Send + 'static {
        let url = format!("{}/v1{path}", self.gateway.url);
        let token = format!("Bearer {}", shared().tokens["all"]);
        move || ask("GET", &url, &[("Authorization", &token)], None)
    }
}

const LOCK: &str = "LOCK TABLE sea_mq.dlq_messages IN ACCESS EXCLUSIVE MODE";

#[test]
fn a_lock_that_somebody_holds_ends_the_request_and_nothing_else() {
    let mut apart = Apart::new("locked");
    let (one, all) = (apart.get("/dead-letters/1"), apart.get("/dead-letters?limit=1"));
    let mut held = apart.db.transaction().expect("begun");
    held.batch_execute(LOCK).expect("locked");
    let begin = Instant::now();
    let answer = one();
    assert_eq!((answer.status, &answer.json()["details"]["sqlstate"]), (503, &json!("55P03")), "{}", answer.text);
    assert!(answer.headers.contains_key("retry-after") && begin.elapsed() < Duration::from_secs(5));
    held.rollback().expect("rolled back");
    assert_eq!(all().status, 200);
}

#[test]
fn a_session_that_is_ended_in_the_middle_costs_its_request_alone() {
    // A gateway of its own, since others ask the shared one meanwhile.
    let tokens = shared().directory.join("tokens");
    let database = format!("{}?application_name=doomed", shared().database);
    let gateway =
        serve(&database, &shared().directory.join("doomed.log"), &["--tokens", tokens.to_str().expect("a text")]);
    let token = format!("Bearer {}", shared().tokens["all"]);
    let me = || ask("GET", &format!("{}/v1/me", gateway.url), &[("Authorization", &token)], None).status;
    for _ in 0..3 {
        assert_eq!(me(), 200);
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'doomed'";
        assert!(shared().db().execute(sql, &[]).expect("ended") > 0);
        let status = me();
        assert!([200, 503].contains(&status), "{status}");
        until("the gateway has connected anew", || me() == 200);
    }
}

#[test]
fn requests_under_way_are_answered_when_it_ends() {
    let mut apart = Apart::new("drained");
    let one = apart.get("/dead-letters/1");
    let mut held = apart.db.transaction().expect("begun");
    held.batch_execute(LOCK).expect("locked");
    let asking = std::thread::spawn(move || one().status);
    let mut looker = shared().db();
    // The console's sampler waits for the same lock.
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'drained' AND wait_event_type = 'Lock'
        AND application_name LIKE 'sea-mq %' AND application_name <> 'sea-mq history'";
    until("it is under way", || looker.query_one(sql, &[]).expect("a row").get::<_, i64>(0) > 0);
    let pid = apart.gateway.child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().expect("it runs").success());
    held.rollback().expect("rolled back");
    assert_eq!(asking.join().expect("no panic"), 404);
    let status = apart.gateway.child.wait().expect("it ends");
    assert!(status.success(), "{status}");
}

#[test]
fn without_tls_it_serves_nobody_outside() {
    let mut command = crate::shared::command();
    let output = command
        .args(["serve", "--database", &shared().database, "--listen", "0.0.0.0:0", "--admin-listen", "127.0.0.1:0"])
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("TLS"));
}

#[test]
fn with_tls_it_serves_who_trusts_its_certificate() {
    let certificates = harness::TestCertificates::new(&shared().directory);
    let (certificate, key) = (certificates.certificate.display().to_string(), certificates.key.display().to_string());
    let gateway = serve(
        &shared().database,
        &shared().directory.join("tls.log"),
        &["--tls-cert", &certificate, "--tls-key", &key],
    );
    assert!(gateway.url.starts_with("https://"));
    let curl = |more: &[&str]| {
        let url = format!("{}/v1/openapi.json", gateway.url);
        std::process::Command::new("curl")
            .args(["--silent", "--fail", "--max-time", "10", "--output", "/dev/null"])
            .args(more)
            .arg(url)
            .status()
            .expect("it runs")
            .success()
    };
    assert!(curl(&["--cacert", &certificate]) && !curl(&[]));
}

#[test]
fn a_partner_s_message_is_taken_once_and_only_if_it_is_signed() {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    let (partner, secret) = (name("acme"), STANDARD.encode("0123456789abcdef0123456789abcdef"));
    let directory = &shared().directory;
    let (secret_file, partners) = (directory.join("secret"), directory.join("partners"));
    std::fs::write(&secret_file, format!("whsec_{secret}")).expect("written");
    let line =
        json!({"partner": partner, "role": "t_producer", "scheme": "standard-webhooks", "secret_file": secret_file});
    std::fs::write(&partners, line.to_string()).expect("written");
    let gateway =
        serve(&shared().database, &directory.join("partners.log"), &["--partners", partners.to_str().expect("a text")]);
    let url = format!("{}/v1/partners/{partner}/messages", gateway.url);
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time").as_secs();
    let send = |body: &str, signed: &str| {
        let hmac = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"0123456789abcdef0123456789abcdef");
        let tag = ring::hmac::sign(&hmac, format!("msg_1.{time}.{signed}").as_bytes());
        let headers = [
            ("webhook-id", "msg_1".to_owned()),
            ("webhook-timestamp", time.to_string()),
            ("webhook-signature", format!("v1,{}", STANDARD.encode(tag))),
        ];
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        ask("POST", &url, &headers, Some(body))
    };
    let first = send("{\"id\":\"1\"}", "{\"id\":\"1\"}");
    assert_eq!(first.status, 201, "{}", first.text);
    assert_eq!(send("{\"id\":\"1\"}", "{\"id\":\"1\"}").json()["id"], first.json()["id"]);
    assert_eq!(send("{\"id\":\"2\"}", "{\"id\":\"1\"}").status, 401);
    assert_eq!(ask("POST", &url, &[], Some("{}")).status, 401);
}

#[test]
fn every_line_of_the_log_is_json_and_has_no_secret() {
    as_role("all", "GET", "/me", None);
    let log = std::fs::read_to_string(&shared().log).expect("the log");
    for line in log.lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "{line}");
    }
    for token in shared().tokens.values() {
        assert!(!log.contains(token.as_str()));
    }
}
