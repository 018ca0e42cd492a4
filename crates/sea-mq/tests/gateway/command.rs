//! The command line.

use serde_json::{Value, json};

use crate::shared::{command, name, shared};

/// Exit status, standard output, standard error.
fn run(arguments: &[&str]) -> (i32, String, String) {
    let database = shared().database.replace("sea_mq_gateway@", "postgres@");
    run_on(&database, arguments)
}

fn run_on(database: &str, arguments: &[&str]) -> (i32, String, String) {
    let output = command().args(arguments).args(["--connection", database]).output().expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().expect("a status"), text(&output.stdout), text(&output.stderr))
}

fn json_of(arguments: &[&str]) -> Value {
    let (_, out, error) = run(&[arguments, &["--format", "json"]].concat());
    serde_json::from_str(&out).unwrap_or_else(|_| panic!("{arguments:?}: {out}{error}"))
}

#[test]
fn commands_say_by_their_exit_status_whether_all_is_well() {
    let (status, out, _) = run(&["status", "--format", "json"]);
    let said: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(status, i32::from(said["status"]["ok"] != true), "{out}");
    let nobody = "host=127.0.0.1 port=1 user=x dbname=x connect_timeout=2";
    assert_eq!(run_on(nobody, &["status"]).0, 2);
    let (status, out, _) = run_on(nobody, &["check"]);
    assert_eq!((status, out.starts_with("SEA_MQ CRITICAL - ")), (2, true), "{out}");
    let (status, out, _) = run_on(nobody, &["doctor"]);
    assert_eq!((status, out.contains("BAD  connection")), (1, true), "{out}");
    assert_eq!(run(&["events", "show", &uuid::Uuid::now_v7().to_string()]).0, 2);
}

#[test]
fn check_speaks_to_nagios_json_and_prometheus() {
    let (status, out, _) = run(&["check"]);
    let word = ["OK", "WARNING", "CRITICAL"][usize::try_from(status).expect("a status")];
    assert!(out.starts_with(&format!("SEA_MQ {word} - ")) && out.contains(" | problems="), "{out}");
    assert!(
        serde_json::from_str::<Value>(&run(&["check", "--as", "json"]).1).is_ok_and(|said| said["level"].is_string())
    );
    assert!(run(&["check", "--as", "prometheus"]).1.contains("sea_mq_check_level "));
}

#[test]
fn doctor_goes_from_the_connection_to_the_broker_and_has_a_way_out_of_each_finding() {
    let findings = json_of(&["doctor"]);
    let findings = findings.as_array().expect("an array");
    let well = |what: &str| findings.iter().any(|one| one["finding"] == what && one["ok"] == true);
    assert!(["connection", "extension", "rights", "library", "relay", "broker"].into_iter().all(well), "{findings:?}");
    assert!(
        findings.iter().all(|one| one["ok"] == true || one["fix"].as_str().is_some_and(|fix| !fix.is_empty())),
        "{findings:?}"
    );
    let nowhere = shared()
        .database
        .replace("sea_mq_gateway@", "postgres@")
        .rsplit_once('/')
        .map(|(server, _)| format!("{server}/postgres"));
    let (status, out, _) = run_on(&nowhere.expect("a database"), &["doctor"]);
    assert_eq!((status, out.contains("CREATE EXTENSION sea_mq")), (1, true), "{out}");
}

#[test]
fn an_event_is_emitted_shown_and_seen_in_its_stream() {
    let aggregate = name("cli");
    let id =
        json_of(&["events", "emit", "order", &aggregate, "CliSeen", "{\"n\": 1}", "--context", "orders"])["id"].clone();
    let id = id.as_str().expect("an id");
    crate::shared::until("it is delivered", || json_of(&["events", "show", id])["status"] == "delivered");
    let (_, out, _) = run(&["tail", "ORDERS_EVENTS", "--no-follow", "--format", "json"]);
    assert!(out.lines().any(|line| line.contains(&aggregate)), "{out}");
    let (status, out, _) = run(&["streams"]);
    assert!(out.lines().any(|line| line.starts_with("ORDERS_EVENTS")) && status < 2, "{out}");
}

#[test]
fn dead_letters_are_replayed_from_the_command_line() {
    let subscription = name("cli__s");
    let insert = "INSERT INTO sea_mq.dlq_messages (context, original_subject, subscription, event_type, event_version, aggregate_type, aggregate_id, payload,
            headers, reason, failure_count, error, last_failed_at, dlq_message_id)
        SELECT 'orders', CASE WHEN n = 2 THEN 'elsewhere' ELSE 'orders' END || '.event.made.v1', $1, 'made', 1, 'order', '1', '{}', '{}', 'foreign', 1, 'no',
            now(), $1 || n FROM generate_series(1, 3) n";
    shared().db().execute(insert, &[&subscription]).expect("inserted");
    let filter = ["--subscription", subscription.as_str()];
    assert_eq!(json_of(&[&["dlq", "list"], &filter[..]].concat()).as_array().map(Vec::len), Some(3));
    assert_eq!(json_of(&[&["dlq", "replay", "--all", "--dry-run"], &filter[..]].concat())["matching"], 3);
    assert_eq!(run(&["dlq", "replay"]).0, 2);
    let (status, out, _) = run(&[&["dlq", "replay", "--all", "--format", "json"], &filter[..]].concat());
    let said: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((status, &said["replayed"], &said["failed"][0]["sqlstate"]), (1, &json!(2), &json!("55000")), "{out}");
    let id = said["failed"][0]["id"].to_string();
    assert_eq!(run(&["dlq", "discard", &id, "--reason", "old"]).0, 0);
    let shown = json_of(&["dlq", "show", &id]);
    assert_eq!((&shown["state"], &shown["discard_reason"]), (&json!("discarded"), &json!("old")));
    assert!(shown["actor"].as_str().is_some_and(|actor| actor.starts_with("cli:")));
}

#[test]
fn completions_and_the_manual_page_know_every_command() {
    let page = String::from_utf8(command().arg("man").output().expect("it runs").stdout).expect("text");
    let completions =
        String::from_utf8(command().args(["completions", "bash"]).output().expect("it runs").stdout).expect("text");
    for word in [
        "status",
        "top",
        "check",
        "doctor",
        "events",
        "streams",
        "subscriptions",
        "tail",
        "dlq",
        "contracts",
        "verify",
        "republish",
        "serve",
        "token",
        "openapi",
    ] {
        assert!(page.contains(word) && completions.contains(word), "{word}");
    }
}
