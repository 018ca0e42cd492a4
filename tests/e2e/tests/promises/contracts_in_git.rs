//! Contracts go from one registry through a directory into another and are the same there.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use harness::{Database, Stage};
use serde_json::{Value, json};
use tokio_postgres::error::SqlState;

use crate::examples::built;

/// Of every kind: what the columns say and the schema does not, and the other way round; references by place and by URI.
const REGISTERED: &str = r#"
SELECT sea_mq.register_schema('https://example.com/money', '{"type": "number", "minimum": 0}');
SELECT sea_mq.register_schema('sea-mq:/schemas/events/common/line.schema.json',
    '{"properties": {"price": {"$ref": "https://example.com/money"}}}', 'A line of an order');
SELECT sea_mq.register_event('orders', 'OrderPaid', 1,
    '{"properties": {"lines": {"items": {"$ref": "../common/line.schema.json"}}}}', 'public', 'Paid in full');
SELECT sea_mq.register_event('orders', 'OrderPaid', 2,
    '{"description": "Paid", "x-sea-visibility": "partner", "$ref": "order_paid.v1.schema.json"}');
SELECT sea_mq.register_event('orders', 'Anything', 1, 'true', 'sensitive');
SELECT sea_mq.register_event('billing', 'ärger/gemeldet', 1, '{"type": "object"}');
"#;

/// The command, on a database that the environment names.
fn contracts(program: &Path, stage: &Stage, database: &str, arguments: &[&str]) -> Output {
    let url = stage.cluster.connector("postgres", database).url();
    let (host, port) = url.trim_start_matches("postgresql://postgres@").split_once(':').expect("a port");
    let port = port.split('/').next().expect("a port");
    Command::new(program)
        .arg("contracts")
        .args(arguments)
        .envs([("PGHOST", host), ("PGPORT", port), ("PGUSER", "postgres"), ("PGDATABASE", database)])
        .output()
        .expect("cannot run the command")
}

/// The first word of each line that it prints.
fn words(output: &Output) -> Vec<String> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

async fn exported(db: &Database) -> Value {
    db.value("SELECT jsonb_object_agg(path, schema) FROM sea_mq.export_contracts()", &[]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contracts_go_through_a_directory_into_another_registry() {
    let program = built(&["--workspace", "--bin", "sea-mq"], "sea-mq");
    let stage = Stage::new("contracts_in_git").await;
    let db = stage.connect().await;
    db.run(REGISTERED).await;
    stage.cluster.run("CREATE DATABASE other").await;
    let other = stage.cluster.connect("other").await;
    other.run("CREATE EXTENSION sea_mq").await;
    let directory = stage.directory.path().join("events");
    let path = directory.display().to_string();

    let export = contracts(&program, &stage, stage.database(), &["export", &path]);
    assert_eq!(words(&export), ["written"; 6]);
    let lint = contracts(&program, &stage, stage.database(), &["lint", &path]);
    assert!(lint.status.success(), "{}", String::from_utf8_lossy(&lint.stdout));

    assert_eq!(words(&contracts(&program, &stage, "other", &["import", &path])), ["registered"; 6]);
    assert_eq!(exported(&db).await, exported(&other).await);
    let columns = "SELECT jsonb_agg(jsonb_build_array(subject, visibility, description) ORDER BY subject) FROM sea_mq.event_types";
    assert_eq!(db.value::<Value>(columns, &[]).await, other.value::<Value>(columns, &[]).await);
    other.run("SET sea_mq.contracts = 'enforce'").await;
    let broken = r#"SELECT sea_mq.emit('order', '1', 'OrderPaid', '{"lines": [{"price": -1}]}', 2, 'orders')"#;
    assert_eq!(other.refusal(broken).await, SqlState::CHECK_VIOLATION);

    // There and back it is the same.
    for database in [stage.database(), "other"] {
        assert_eq!(words(&contracts(&program, &stage, database, &["import", &path])), ["unchanged"; 6]);
        assert_eq!(words(&contracts(&program, &stage, database, &["export", &path])), ["unchanged"; 6]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_registers_all_or_nothing() {
    let program = built(&["--workspace", "--bin", "sea-mq"], "sea-mq");
    let stage = Stage::new("import_all_or_nothing").await;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.register_event('orders', 'OrderPaid', 1, '{}')").await;
    let directory = stage.directory.path().join("events");
    fs::create_dir_all(directory.join("orders")).expect("cannot make the directory");
    for (file, schema) in [("order_made.v1", json!({})), ("order_paid.v1", json!({"type": "object"}))] {
        let file = directory.join(format!("orders/{file}.schema.json"));
        fs::write(file, schema.to_string()).expect("cannot write a schema");
    }
    let import = contracts(&program, &stage, stage.database(), &["import", &directory.display().to_string()]);
    assert_eq!(import.status.code(), Some(2));
    let said = String::from_utf8_lossy(&import.stderr).into_owned();
    assert!(said.contains("orders/order_paid.v1.schema.json") && said.contains("23505"), "{said}");
    assert_eq!(db.value::<i64>("SELECT count(*) FROM sea_mq.event_types", &[]).await, 1);
    for (files, state) in [
        (r#"{"orders/order_paid.v1.schema.json": {"type": "object"}}"#, SqlState::UNIQUE_VIOLATION),
        (r#"{"orders/a.v1.schema.json": {"$ref": "b.schema.json"}}"#, SqlState::UNDEFINED_OBJECT),
        (r#"{"orders/a.v1.schema.json": {"type": "strnig"}}"#, SqlState::INVALID_PARAMETER_VALUE),
        (r#"{"../a.schema.json": {}}"#, SqlState::INVALID_PARAMETER_VALUE),
    ] {
        assert_eq!(db.refusal(&format!("SELECT sea_mq.import_contracts('{files}')")).await, state, "{files}");
    }
}
