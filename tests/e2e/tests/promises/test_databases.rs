//! Databases of tests: made from a template, many at once, dropped after the run, on a server whose settings name a broker.

use harness::{Cluster, Database, Stage, StageOptions, holds_for, until};
use serde_json::json;
use tokio_postgres::error::SqlState;

use crate::receiving::{emit_numbers, make_recorder};
use crate::{A_WHILE, SOON};

/// Copies a database as soon as nobody is connected to it.
async fn copy(cluster: &Cluster, from: &str, to: &str) -> Database {
    let postgres = cluster.connect("postgres").await;
    until("the database can be copied", SOON, async || {
        postgres.batch_execute(&format!("CREATE DATABASE {to} TEMPLATE {from}")).await.is_ok()
    })
    .await;
    cluster.connect(to).await
}

/// Emits one event, and waits until the subscription's handler has recorded it, with nothing paused and nothing wrong.
async fn assert_handles(db: &Database, number: i64) {
    emit_numbers(db, number, number).await;
    let sql = "SELECT EXISTS (SELECT FROM effects WHERE n = $1)";
    until("the event is handled", SOON, async || db.value(sql, &[&number]).await).await;
    until("nothing is wrong", SOON, async || db.value("SELECT ok FROM sea_mq.status", &[]).await).await;
    let state: String = db.value("SELECT state FROM sea_mq.subscription_status", &[]).await;
    assert_eq!(state, "active");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_without_a_broker_go_on() {
    let stage = StageOptions { no_url: true, ..StageOptions::default() }.start("copies_local").await;
    let db = stage.connect().await;
    make_recorder(&db).await;
    db.run("SELECT sea_mq.subscribe('app__all', 'orders', 'record')").await;
    assert_handles(&db, 1).await;
    drop(db);
    // Nobody starts anything there: the first event does.
    for (number, name) in [(2, "copy_1"), (3, "copy_2")] {
        let db = copy(&stage.cluster, "app", name).await;
        db.run("SET sea_mq.context = 'orders'").await;
        assert_handles(&db, number).await;
    }
    // With a broker, a copy is in the original's way.
    stage.cluster.run(&format!("ALTER DATABASE copy_1 SET sea_mq.nats_url = '{}'", stage.broker.url())).await;
    let db = stage.cluster.connect("copy_1").await;
    db.run("SELECT sea_mq.reload()").await;
    until("the copy pauses", SOON, async || {
        db.value("SELECT state = 'paused' AND error_kind = 'Copied' FROM sea_mq.relay_status", &[]).await
    })
    .await;
    let sql = "SELECT state = 'waiting' AND error_kind = 'Copied' FROM sea_mq.subscription_status";
    until("the subscription says so", SOON, async || db.value(sql, &[]).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_test_mode_nothing_goes_to_the_broker_that_the_server_names() {
    let stage = Stage::new("test_mode").await;
    stage.cluster.run("CREATE DATABASE test_app").await;
    let db = stage.cluster.connect("test_app").await;
    // In the transaction that installs it: no worker has looked at the settings yet.
    db.run("BEGIN; CREATE EXTENSION sea_mq; SELECT sea_mq.test_mode(); COMMIT; SET sea_mq.context = 'orders'").await;
    make_recorder(&db).await;
    db.run("SELECT sea_mq.subscribe('app__all', 'orders', 'record')").await;
    assert_handles(&db, 1).await;
    let refusal = db.refusal("SELECT sea_mq.verify_stream('ORDERS_EVENTS')").await;
    assert_eq!(refusal, SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    drop(db);
    // As the parallel runs of a test suite do.
    let clone = copy(&stage.cluster, "test_app", "test_app_1").await;
    clone.run("SET sea_mq.context = 'orders'").await;
    assert_handles(&clone, 2).await;
    holds_for("the broker has no stream", A_WHILE, async || stage.broker.stream("ORDERS_EVENTS").await.is_none()).await;
    // The real database gets the stream.
    let first = stage.connect().await.emit("1", "Real", json!({})).await;
    stage.assert_stored(&[first]).await;

    let db = stage.cluster.connect("test_app").await;
    db.run("SELECT sea_mq.test_mode(false)").await;
    until("its stream is another database's", SOON, async || {
        db.value("SELECT coalesce(bool_or(error_kind = 'StreamOwned'), false) FROM sea_mq.stream_status", &[]).await
    })
    .await;
}

/// What a test run leaves behind that was not in test mode: a stream with the mark of a database that is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_whose_owner_s_database_is_gone_says_so_and_is_adopted() {
    let stage = Stage::new("owner_gone").await;
    stage.cluster.run("CREATE DATABASE test_app").await;
    let test = stage.cluster.connect("test_app").await;
    test.run("CREATE EXTENSION sea_mq; SET sea_mq.context = 'orders'").await;
    emit_numbers(&test, 1, 1).await;
    stage.broker.until_count("ORDERS_EVENTS", 1, SOON).await;
    let db = stage.connect().await;
    emit_numbers(&db, 2, 2).await;
    let error = "SELECT coalesce(string_agg(error, ''), '') FROM sea_mq.stream_status
        WHERE stream = 'ORDERS_EVENTS' AND error_kind = 'StreamOwned'";
    until("the stream is another database's", SOON, async || !db.value::<String>(error, &[]).await.is_empty()).await;
    let says: String = db.value(error, &[]).await;
    assert!(says.contains("\"test_app\"") && says.contains("runs"), "{says}");
    drop(test);
    stage.cluster.run("DROP DATABASE test_app").await;
    db.run("SELECT sea_mq.reload()").await;
    until("it says that the database is gone", SOON, async || {
        let says: String = db.value(error, &[]).await;
        says.contains("\"test_app\"") && says.contains("gone")
    })
    .await;
    let status = stage.until_problem("problem LIKE '%ORDERS_EVENTS%'").await;
    assert!(status["hint"].as_str().is_some_and(|hint| hint.contains("sea_mq.adopt()")), "{status}");
    db.run("SELECT sea_mq.adopt()").await;
    stage.broker.until_count("ORDERS_EVENTS", 2, SOON).await;
    stage.until_ok().await;
}

/// Too many databases for the server: who looks finds out why nothing is handled.
/// The hint of the refusal invites it, and the other database lives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_adopted_from_a_database_that_lives_is_the_adopter_s_and_the_other_says_so() {
    let stage = Stage::new("adopted_alive").await;
    let db = stage.connect().await;
    emit_numbers(&db, 1, 50).await;
    stage.broker.until_count("ORDERS_EVENTS", 50, SOON).await;
    stage.cluster.run("CREATE DATABASE other").await;
    let other = stage.cluster.connect("other").await;
    other.run("CREATE EXTENSION sea_mq; SET sea_mq.context = 'orders'").await;
    emit_numbers(&other, 51, 60).await;
    let refused = "SELECT EXISTS (SELECT FROM sea_mq.problems WHERE problem LIKE '%belongs to installation%runs%' AND hint LIKE '%adopt%')";
    until("it is refused, and told that the other one runs", SOON, async || other.value(refused, &[]).await).await;
    let begin = std::time::Instant::now();
    other.run("SELECT sea_mq.adopt()").await;
    emit_numbers(&db, 61, 70).await;
    stage.broker.until_count("ORDERS_EVENTS", 60, SOON).await;
    println!("published {:?} after adopt()", begin.elapsed());
    let lost = "SELECT EXISTS (SELECT FROM sea_mq.problems WHERE problem LIKE 'stream ORDERS_EVENTS: %belongs to installation%')";
    until("the other one says that it lost the stream", SOON, async || db.value(lost, &[]).await).await;
    until("nothing is wrong here", SOON, async || other.value("SELECT ok FROM sea_mq.status", &[]).await).await;
    let log = stage.cluster.log();
    assert!(!log.contains("of this installation that the database does not know"), "events are taken for its own");
    let diverged: i64 =
        other.value("SELECT count(*) FROM sea_mq.stream_divergences WHERE accepted_at IS NULL", &[]).await;
    assert_eq!(diverged, 0);
    let stored = stage.broker.stored("ORDERS_EVENTS").await;
    let mut numbers: Vec<i64> = stored.iter().map(|one| one.number("n")).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), stored.len(), "each is stored once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_no_worker_slot_is_free_all_that_one_looks_at_says_so() {
    // Two launchers, PostgreSQL's and ours, and the two workers of one database.
    let options = StageOptions { no_url: true, ..StageOptions::default() }.setting("max_worker_processes", "4");
    let stage = options.start("slots_taken").await;
    let db = stage.connect().await;
    make_recorder(&db).await;
    db.run("SELECT sea_mq.subscribe('app__all', 'orders', 'record')").await;
    assert_handles(&db, 1).await;
    drop(db);
    let clone = copy(&stage.cluster, "app", "copy").await;
    // Whichever of the two has come first: the original is to have the slots.
    clone.run("SELECT sea_mq.stop()").await;
    let workers = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'copy' AND backend_type LIKE 'sea_mq%'";
    until("the copy has no workers", SOON, async || clone.value::<i64>(workers, &[]).await == 0).await;
    let db = stage.connect().await;
    until("the original has its workers", SOON, async || {
        let _ = db.query("SELECT sea_mq.start()", &[]).await;
        stage.workers().await.len() == 2
    })
    .await;
    let refused = clone.query("SELECT sea_mq.start()", &[]).await.expect_err("there is no slot");
    let refused = refused.as_db_error().expect("the server says so");
    assert_eq!(*refused.code(), SqlState::CONFIGURATION_LIMIT_EXCEEDED);
    assert!(
        refused.message().contains("max_worker_processes is 4, and sea_mq has 2 workers in 1 databases"),
        "{refused:?}"
    );
    let state: String = clone.value("SELECT state FROM sea_mq.subscription_status", &[]).await;
    assert_eq!(state, "stopped");
    let status = clone.object("SELECT * FROM sea_mq.status").await;
    assert_eq!(status["ok"], false, "{status}");
    let (summary, hint) = (status["summary"].as_str().unwrap_or(""), status["hint"].as_str().unwrap_or(""));
    assert!(summary.contains("no worker slot is free"), "{status}");
    assert!(hint.contains("max_worker_processes"), "{status}");
}
