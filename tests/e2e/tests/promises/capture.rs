//! Captured tables: what changes in them is published, and the capture follows the table wherever it goes.

use harness::{Cluster, Database, EVENTS, Stage, Stored};
use serde_json::{Value, json};

use crate::SOON;

async fn prepared(name: &str) -> (Stage, Database) {
    let stage = Stage::new(name).await;
    let db = stage.connect().await;
    db.run(
        "CREATE TABLE orders (id int PRIMARY KEY, status text NOT NULL, total numeric);
         SELECT sea_mq.capture_table('orders', 'order')",
    )
    .await;
    (stage, db)
}

/// Waits for so many messages; says of each its subject, aggregate and body.
async fn published(stage: &Stage, count: u64) -> Vec<(String, String, Value)> {
    stage.broker.until_count(EVENTS, count, SOON).await;
    let told =
        |message: &Stored| (message.subject.clone(), message.header("X-Aggregate-Id").to_owned(), message.json());
    stage.broker.stored(EVENTS).await.iter().map(told).collect()
}

fn told(subject: &str, aggregate: &str, body: Value) -> (String, String, Value) {
    (format!("orders.event.{subject}"), aggregate.to_owned(), body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_a_captured_table_are_published_whoever_makes_them() {
    let (stage, db) = prepared("captured").await;
    db.run("CREATE ROLE clerk LOGIN; GRANT SELECT, INSERT, UPDATE, DELETE ON orders TO clerk").await;
    let clerk = stage.connect_as("clerk").await;
    clerk.run("BEGIN; INSERT INTO orders VALUES (9, 'never', 1); ROLLBACK").await;
    clerk.run("INSERT INTO orders VALUES (1, 'new', 10.50), (2, 'new', NULL)").await;
    clerk.run("BEGIN; UPDATE orders SET status = 'paid' WHERE id = 1; DELETE FROM orders WHERE id = 2; COMMIT").await;
    let row = |id: i32, status: &str, total: Value| json!({"id": id, "status": status, "total": total});
    assert_eq!(
        published(&stage, 4).await,
        [
            told("order_created.v1", "1", json!({"key": {"id": 1}, "row": row(1, "new", json!(10.50))})),
            told("order_created.v1", "2", json!({"key": {"id": 2}, "row": row(2, "new", Value::Null)})),
            told(
                "order_updated.v1",
                "1",
                json!({"key": {"id": 1}, "row": row(1, "paid", json!(10.50)), "old": {"status": "new"}})
            ),
            told("order_deleted.v1", "2", json!({"key": {"id": 2}, "row": row(2, "new", Value::Null)})),
        ]
    );
}

/// More than fits in memory, with a savepoint in the middle that is rolled back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bulk_change_is_published_row_by_row_once() {
    const ROWS: i64 = 20_000;
    let (stage, db) = prepared("captured_bulk").await;
    db.run(&format!("INSERT INTO orders SELECT n, 'new', n FROM generate_series(1, {ROWS}) n")).await;
    db.run(
        "BEGIN;
         UPDATE orders SET total = total + 1;
         SAVEPOINT a;
         UPDATE orders SET status = 'lost';
         ROLLBACK TO a;
         UPDATE orders SET status = 'kept' WHERE id <= 10;
         COMMIT",
    )
    .await;
    let stored = published(&stage, 2 * u64::try_from(ROWS).unwrap() + 10).await;
    let ids = |events: &[(String, String, Value)]| -> Vec<i64> {
        events.iter().map(|(_, aggregate, _)| aggregate.parse().unwrap()).collect()
    };
    let rows = usize::try_from(ROWS).unwrap();
    assert_eq!(ids(&stored[..rows]), (1..=ROWS).collect::<Vec<_>>());
    let mut updated = ids(&stored[rows..2 * rows]);
    updated.sort_unstable();
    assert_eq!(updated, (1..=ROWS).collect::<Vec<_>>());
    assert!(stored[2 * rows..].iter().all(|(_, _, body)| body["row"]["status"] == "kept"));
}

/// In sessions that knew the table as it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_capture_follows_its_table_in_all_sessions() {
    let (stage, db) = prepared("captured_ddl").await;
    db.run(
        "CREATE TABLE days (id int, day int, PRIMARY KEY (id, day)) PARTITION BY LIST (day);
         CREATE TABLE days_1 PARTITION OF days FOR VALUES IN (1);
         SELECT sea_mq.capture_table('days', 'day', events => '{\"update\": null}')",
    )
    .await;
    let other = stage.connect().await;
    other
        .run("INSERT INTO orders VALUES (1, 'new'); INSERT INTO days VALUES (1, 1); INSERT INTO days_1 VALUES (2, 1)")
        .await;
    db.run("ALTER TABLE orders ADD COLUMN note text; CREATE TABLE days_2 PARTITION OF days FOR VALUES IN (2)").await;
    other.run("INSERT INTO orders VALUES (2, 'new', NULL, 'x'); INSERT INTO days_2 VALUES (3, 2)").await;
    db.run("ALTER TABLE orders RENAME id TO number; ALTER TABLE days DETACH PARTITION days_1").await;
    other.run("INSERT INTO orders VALUES (3, 'new', NULL, 'y'); INSERT INTO days_1 VALUES (4, 1)").await;
    db.run("SELECT sea_mq.capture_table('orders', 'order', columns => '{status}')").await;
    other.run("INSERT INTO orders VALUES (4, 'new')").await;
    db.run("SELECT sea_mq.stop_capture('orders')").await;
    other.run("INSERT INTO orders VALUES (5, 'new'); INSERT INTO days VALUES (5, 2)").await;
    let subjects: Vec<(String, String)> =
        published(&stage, 8).await.into_iter().map(|(subject, aggregate, _)| (subject, aggregate)).collect();
    let expected = [
        ("order_created.v1", "1"),
        ("day_created.v1", "1,1"),
        ("day_created.v1", "2,1"),
        ("order_created.v2", "2"),
        ("day_created.v1", "3,2"),
        ("order_created.v3", "3"),
        ("order_created.v4", "4"),
        ("day_created.v1", "5,2"),
    ];
    let expected = expected.map(|(subject, aggregate)| (format!("orders.event.{subject}"), aggregate.to_owned()));
    assert_eq!(subjects, expected);
}

/// Its snapshot shows neither the capture nor the column, but the table that it writes to has both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_with_an_older_snapshot_is_captured_as_the_table_is_now() {
    let (stage, db) = prepared("captured_snapshot").await;
    db.run("CREATE TABLE bills (id int PRIMARY KEY)").await;
    let other = stage.connect().await;
    other.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1").await;
    db.run("SELECT sea_mq.capture_table('bills', 'bill'); ALTER TABLE orders ADD COLUMN note text").await;
    other.run("INSERT INTO bills VALUES (1); INSERT INTO orders VALUES (1, 'new', 1, 'n'); COMMIT").await;
    let stored = published(&stage, 2).await;
    assert_eq!(stored[0], told("bill_created.v1", "1", json!({"key": {"id": 1}, "row": {"id": 1}})));
    assert_eq!(stored[1].0, "orders.event.order_created.v2");
    assert_eq!(stored[1].2["row"]["note"], "n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_database_captures_on() {
    let (stage, db) = prepared("captured_restored").await;
    db.run(
        "CREATE TABLE parts (gone int, id int PRIMARY KEY, name text) PARTITION BY RANGE (id);
         ALTER TABLE parts DROP COLUMN gone;
         CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100);
         ALTER TABLE orders ADD UNIQUE (status, id);
         SELECT sea_mq.capture_table('parts', 'part', \"when\" => 'new.name <> ''secret''');
         INSERT INTO orders VALUES (1, 'new'); INSERT INTO parts VALUES (1, 'bolt')",
    )
    .await;
    published(&stage, 2).await;
    let mut copy = Cluster::new(&stage.directory.path().join("copy"), &[("shared_preload_libraries", "sea_mq")]);
    copy.start().await;
    copy.run("CREATE DATABASE app").await;
    copy.run("ALTER DATABASE app SET sea_mq.context = 'orders'").await;
    stage.cluster.copy_database("app", &copy, "app");
    let db = copy.connect("app").await;
    let captured: Vec<String> =
        db.values("SELECT \"table\"::text FROM sea_mq.captured_tables WHERE active ORDER BY 1", &[]).await;
    assert_eq!(captured, ["orders", "parts"]);
    // The first thing that happens to them is that their columns get other names.
    db.run("ALTER TABLE parts RENAME id TO number; ALTER TABLE parts RENAME name TO title").await;
    db.run(
        "INSERT INTO orders VALUES (2, 'new');
         INSERT INTO parts_1 VALUES (2, 'nut'), (3, 'secret');
         CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (100) TO (200);
         INSERT INTO parts_2 VALUES (100, 'ring')",
    )
    .await;
    let events: Vec<String> = db
        .values(
            "SELECT event_type || '.v' || event_version || ' ' || aggregate_id FROM sea_mq.outbox_events
             ORDER BY created_at, aggregate_id::int",
            &[],
        )
        .await;
    let expected =
        ["order_created.v1 1", "part_created.v1 1", "order_created.v1 2", "part_created.v3 2", "part_created.v3 100"];
    assert_eq!(events, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_outlives_the_extension_that_captured_it() {
    let (stage, db) = prepared("captured_dropped").await;
    db.run("INSERT INTO orders VALUES (1, 'new')").await;
    published(&stage, 1).await;
    db.run("DROP EXTENSION sea_mq").await;
    db.run("INSERT INTO orders VALUES (2, 'new'); UPDATE orders SET status = 'paid'; TRUNCATE orders").await;
    let triggers: i64 = db.value("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'orders'::regclass", &[]).await;
    assert_eq!(triggers, 0);
}
