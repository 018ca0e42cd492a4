//! What the command line prints, compared with what is kept in `snapshots/`. ACCEPT=1 writes it: read the difference.

use std::path::Path;

use crate::shared::{command, shared, until};

fn assert_kept(name: &str, printed: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gateway/snapshots").join(format!("{name}.txt"));
    if std::env::var_os("ACCEPT").is_some() {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(&path, printed).expect("written");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == printed, "{name} is another; ACCEPT=1 writes it:\n{printed}");
}

/// The command line, its exit status, and both outputs.
fn session(database: &str, arguments: &[&str]) -> String {
    let output = command().args(["--connection", database]).args(arguments).output().expect("it runs");
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("a text"));
    format!("$ sea-mq {}\n{out}{err}[{}]\n\n", arguments.join(" "), output.status.code().expect("a status"))
}

const COMMANDS: [&str; 19] = [
    "",
    "status",
    "top",
    "check",
    "doctor",
    "events",
    "streams",
    "subscriptions",
    "endpoints",
    "tail",
    "dlq",
    "contracts",
    "verify",
    "republish",
    "serve",
    "token",
    "openapi",
    "completions",
    "man",
];

#[test]
fn the_help_of_every_command_is_the_one_that_is_kept() {
    let mut printed = String::new();
    for name in COMMANDS {
        let output =
            command().args(name.split_whitespace()).arg("--help").env("COLUMNS", "100").output().expect("it runs");
        printed += &format!("$ sea-mq {name} --help\n{}\n", String::from_utf8(output.stdout).expect("a text"));
    }
    // A command that is not in the list above would be missing.
    let listed = printed.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    for line in listed {
        let name = line.split_whitespace().next().expect("a name");
        assert!(name == "help" || COMMANDS.contains(&name), "{name} has no snapshot");
    }
    assert_kept("help", &printed);
}

#[test]
fn what_commands_print_of_a_database_is_what_is_kept() {
    shared().db().batch_execute("CREATE DATABASE printed").expect("created");
    let database = format!("host=127.0.0.1 port={} user=postgres dbname=printed", shared().port);
    let mut db = postgres::Client::connect(&database, postgres::NoTls).expect("connected");
    db.batch_execute(
        "CREATE EXTENSION sea_mq; SELECT sea_mq.test_mode();
         SELECT sea_mq.subscribe('shipping__orders', 'orders', start_from => 'all', context => 'shipping');
         SELECT sea_mq.create_endpoint('acme', 'webhook', 'https://acme.example/hook', source => 'orders');
         SELECT sea_mq.pause_endpoint('acme');
         INSERT INTO sea_mq.dlq_messages (context, original_subject, subscription, event_type, event_version, aggregate_type, aggregate_id,
             payload, headers, reason, failure_count, error, last_failed_at, created_at, dlq_message_id)
         SELECT 'shipping', 'orders.event.placed.v1', 'shipping__orders', 'placed', 1, 'order', n::text, '{\"n\": 1}', '{}', 'poison', 1,
             'an order without an address', '2026-01-02 03:04:05+00', '2026-01-02 03:04:05+00', n::text FROM generate_series(1, 2) n;",
    )
    .expect("prepared");
    until("subscription and endpoint were looked at", || {
        let sql = "SELECT s.state = 'active' AND e.state = 'disabled' FROM sea_mq.subscription_status s, sea_mq.endpoint_status e";
        db.query_one(sql, &[]).expect("a row").get(0)
    });
    let mut printed = String::new();
    for arguments in [
        &["streams"][..],
        &["subscriptions"],
        &["endpoints"],
        &["endpoints", "deliveries", "acme"],
        &["endpoints", "show", "nobody"],
        &["dlq", "list"],
        &["dlq", "list", "--format", "json", "--event-type", "nothing"],
        &["dlq", "replay"],
        &["dlq", "replay", "--all", "--dry-run"],
        &["dlq", "discard", "1", "--reason", "no longer needed"],
        &["dlq", "discard", "77"],
        &["check"],
        &["events", "show", "00000000-0000-0000-0000-000000000000"],
        &["verify", "NONE"],
        &["nonsense"],
    ] {
        printed += &session(&database, arguments);
    }
    assert_kept("outputs", &printed);
}
