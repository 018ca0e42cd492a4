//! The commands in docs/runbooks are run as they stand there.

use std::path::Path;
use std::process::Command;

use crate::shared::{shared, until};

/// The lines of the blocks of code in a language, in their order.
fn lines(text: &str, language: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut inside = false;
    for line in text.lines().map(str::trim) {
        match line.strip_prefix("```") {
            Some(rest) => inside = rest == language,
            None if inside && !line.is_empty() => found.push(line.to_owned()),
            None => {}
        }
    }
    found
}

/// A database in which there is what the runbooks speak of.
fn prepared() -> postgres::Client {
    shared().db().batch_execute("CREATE DATABASE runbooks").expect("created");
    let database = format!("host=127.0.0.1 port={} user=postgres dbname=runbooks", shared().port);
    let mut db = postgres::Client::connect(&database, postgres::NoTls).expect("connected");
    db.batch_execute(
        "CREATE EXTENSION sea_mq; SELECT sea_mq.test_mode();
         SELECT sea_mq.subscribe('shipping__orders', 'orders', start_from => 'all', context => 'shipping');
         INSERT INTO sea_mq.dlq_messages (id, context, original_subject, subscription, event_type, event_version, aggregate_type, aggregate_id,
             payload, headers, reason, failure_count, error, last_failed_at, dlq_message_id) OVERRIDING SYSTEM VALUE
         SELECT n, 'shipping', 'orders.event.placed.v1', 'shipping__orders', 'placed', 1, 'order', n::text, '{\"n\": 1}', '{}', 'poison', 1,
             CASE n WHEN 19 THEN 'the order is not known' ELSE 'connection refused' END, now(), n::text FROM generate_series(17, 25) n;",
    )
    .expect("prepared");
    until("the subscription is active", || {
        db.query_one("SELECT state = 'active' FROM sea_mq.subscription_status", &[]).expect("a row").get(0)
    });
    db
}

#[test]
fn every_command_of_the_runbooks_works_as_it_stands_there() {
    let mut db = prepared();
    let here = Path::new(env!("CARGO_BIN_EXE_sea-mq")).parent().expect("a folder");
    let path = format!("{}:{}", here.display(), std::env::var("PATH").unwrap_or_default());
    let shell = |line: &str| {
        Command::new("bash")
            .args(["-euo", "pipefail", "-c", line])
            .env("PATH", &path)
            .envs([
                ("PGHOST", "127.0.0.1"),
                ("PGUSER", "postgres"),
                ("PGDATABASE", "runbooks"),
                ("PGSSLMODE", "disable"),
            ])
            .env("PGPORT", shared().port.to_string())
            .envs([
                ("SEA_MQ_URL", &shared().url),
                ("SEA_MQ_ADMIN_URL", &shared().admin_url),
                ("SEA_MQ_TOKEN", &shared().tokens["all"]),
            ])
            .output()
            .expect("bash")
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/runbooks");
    let (mut wrong, mut count) = (Vec::new(), 0);
    for name in ["api_debugging", "dlq_processing", "troubleshooting"] {
        let text = std::fs::read_to_string(folder.join(format!("{name}.md"))).expect("readable");
        for line in lines(&text, "sh") {
            let output = shell(&line);
            let said =
                format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            // 1: something is not well, as a looking command says; what a command cannot do is 2.
            let looks = line.starts_with("sea-mq") && !line.contains("replay") && !line.contains("discard");
            let well = output.status.success() || (looks && output.status.code() == Some(1));
            if !well || said.contains("\"error\":") {
                wrong.push(format!("{name}: {line}: {} {said}", output.status));
            }
            count += 1;
        }
        for line in lines(&text, "sql") {
            wrong.extend(db.batch_execute(&line).err().map(|error| format!("{name}: {line}: {error}")));
            count += 1;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count >= 15, "{count}");
    let open: i64 = db.query_one("SELECT count(*) FROM sea_mq.dlq_list()", &[]).expect("a row").get(0);
    assert_eq!(open, 0, "each letter was replayed or discarded");
}
