//! The programs in docs/examples do what they say: two of each run at once on a stream that holds every message twice, and
//! every message has its effect once.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use harness::{Database, EVENTS, Stage, ledger, until};
use serde_json::Value;

use crate::SOON;
use crate::receiving::{FORGETFUL, publish, until_provisioned};

const MESSAGES: i64 = 50;

const SUBSCRIPTION: &str = "shipping__orders";

/// Seconds without a message after which the programs end.
const IDLE: &str = "5";

fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// A stage with the table of the examples and their role; its stream holds every message twice.
async fn prepared(name: &str) -> (Stage, Database) {
    let stage = Stage::new(name).await;
    let db = stage.connect().await;
    db.run(FORGETFUL).await;
    db.run(
        "CREATE TABLE parcels (order_id text, message_id text);
         CREATE ROLE shipping_app LOGIN;
         GRANT sea_mq_consumer TO shipping_app;
         GRANT INSERT ON parcels TO shipping_app",
    )
    .await;
    let sql = "SELECT sea_mq.emit('order', n::text, 'OrderCreated', jsonb_build_object('order', n)) FROM generate_series(1, $1::int8) n";
    let ids: Vec<uuid::Uuid> = db.values(sql, &[&MESSAGES]).await;
    for stored in stage.assert_stored(&ids).await {
        let headers: Vec<(&str, &str)> = stored
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .filter(|(name, _)| name.starts_with("X-") || *name == "Nats-Msg-Id")
            .collect();
        let body = stored.json().to_string();
        until("the broker has forgotten the id", SOON, async || {
            !publish(&stage, &stored.subject, &headers, &body).await.duplicate
        })
        .await;
    }
    (stage, db)
}

/// Runs two of them at once, to their ends, which are good. Returns what they say on standard error.
fn run_two(stage: &Stage, program: &Path, arguments: &[&str]) -> String {
    let start = || -> Child {
        Command::new(program)
            .args(arguments)
            .env("DATABASE_URL", stage.cluster.connector("shipping_app", stage.database()).url())
            .env("NATS_URL", stage.broker.url())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {}: {error}", program.display()))
    };
    let mut all = String::new();
    for child in [start(), start()] {
        let output = child.wait_with_output().expect("cannot wait for a program");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} {arguments:?}: {said}", program.display());
        all += &said;
    }
    all
}

/// Every message has its effect once, and the inbox says the same.
async fn assert_packed_once(db: &Database) {
    let packed: Vec<i64> = db.values("SELECT order_id::bigint FROM parcels", &[]).await;
    ledger::assert_same_set(&(1..=MESSAGES).collect::<Vec<i64>>(), &packed);
    let sql =
        "SELECT jsonb_agg(DISTINCT status) || to_jsonb(count(*)) FROM sea_mq.inbox_messages WHERE subscription = $1";
    let inbox: Value = db.value(sql, &[&SUBSCRIPTION]).await;
    assert_eq!(inbox, serde_json::json!(["processed", MESSAGES]));
}

fn example(name: &str) -> String {
    workspace().join("docs/examples").join(name).display().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_that_receives_and_completes_handles_each_message_once() {
    let (stage, db) = prepared("example_pull").await;
    db.run(&format!("SELECT sea_mq.subscribe('{SUBSCRIPTION}', 'orders', start_from => 'all')")).await;
    until_provisioned(&stage, SUBSCRIPTION).await;
    assert_eq!(run_two(&stage, Path::new("python3"), &[&example("pull.py"), SUBSCRIPTION, IDLE]), "");
    assert_packed_once(&db).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_with_a_nats_client_in_python_handles_each_message_once() {
    let (stage, db) = prepared("example_accept").await;
    assert_eq!(run_two(&stage, Path::new("python3"), &[&example("accept.py"), EVENTS, SUBSCRIPTION, IDLE]), "");
    assert_packed_once(&db).await;
}

/// Errors that clients' libraries count among those of the connection, and after which the connection goes on.
const PASSING: [&str; 4] = ["40P01", "40001", "57014", "55P03"];

/// Makes the first attempts to pack fail, each with one of [`PASSING`].
async fn stumble(db: &Database) {
    db.run(&format!(
        "CREATE SEQUENCE attempts;
         GRANT USAGE ON attempts TO shipping_app;
         CREATE FUNCTION stumble() RETURNS trigger LANGUAGE plpgsql AS $$
         DECLARE
             attempt bigint := nextval('attempts');
         BEGIN
             IF attempt <= 8 THEN
                 RAISE EXCEPTION 'try again' USING ERRCODE = ('{{{}}}'::text[])[1 + attempt % 4];
             END IF;
             RETURN NEW;
         END $$;
         CREATE TRIGGER stumble BEFORE INSERT ON parcels FOR EACH ROW EXECUTE FUNCTION stumble()",
        PASSING.join(",")
    ))
    .await;
}

/// A deadlock, a serialization failure, a timeout: the message comes again, and the program goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_examples_go_on_after_errors_that_are_not_the_connection_s() {
    let (stage, db) = prepared("example_stumbles").await;
    stumble(&db).await;
    db.run(&format!("SELECT sea_mq.subscribe('{SUBSCRIPTION}', 'orders', start_from => 'all')")).await;
    until_provisioned(&stage, SUBSCRIPTION).await;
    let said = run_two(&stage, Path::new("python3"), &[&example("pull.py"), SUBSCRIPTION, IDLE]);
    assert_eq!(said.matches("try again").count(), 8, "{said}");
    assert_packed_once(&db).await;

    let (stage, db) = prepared("example_accept_stumbles").await;
    stumble(&db).await;
    // It asks for what failed again after 5 seconds.
    let said = run_two(&stage, Path::new("python3"), &[&example("accept.py"), EVENTS, SUBSCRIPTION, "12"]);
    assert_eq!(said.matches("try again").count(), 8, "{said}");
    assert_packed_once(&db).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_with_a_nats_client_in_rust_handles_each_message_once() {
    let program = built(&["--workspace"], "accept-rust");
    let (stage, db) = prepared("example_accept_rust").await;
    assert_eq!(run_two(&stage, &program, &[EVENTS, SUBSCRIPTION, IDLE]), "");
    assert_packed_once(&db).await;
}

/// Builds a program of the workspace, and says where it is: where this test is, but for the folder of the tests.
pub fn built(packages: &[&str], name: &str) -> PathBuf {
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--bin", name])
        .args(packages)
        .current_dir(workspace())
        .status()
        .expect("cannot run cargo");
    assert!(built.success(), "{name} does not build");
    let test = std::env::current_exe().expect("a test has a path");
    test.parent().and_then(Path::parent).expect("it is in target/debug/deps").join(name)
}
