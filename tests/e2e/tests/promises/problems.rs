//! What is wrong shows in `sea_mq.problems` and `sea_mq.status`, and what is wrong with one subscription is nobody else's trouble.

use std::time::Duration;

use harness::{Stage, StageOptions, until};
use serde_json::{Value, json};

use crate::receiving::{LONG, emit_numbers, make_recorder, recorded, until_recorded, until_state};

/// A stage whose database does not know the broker.
async fn prepared(name: &str) -> Stage {
    let stage = StageOptions { no_url: true, ..StageOptions::default() }.start(name).await;
    make_recorder(&stage.connect().await).await;
    stage
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_fails_again_and_again_is_a_problem_until_it_works() {
    let mut stage = prepared("failing").await;
    stage.cluster.stop();
    stage.cluster.keep_own_time();
    stage.cluster.start().await;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.subscribe('app__all', 'orders', 'record')").await;
    stage.until_ok().await;
    // Neither can write down what is wrong with it.
    for (worker, table) in [("consumer", "dlq_tally"), ("relay", "stream_requests")] {
        db.run(&format!("ALTER TABLE sea_mq.{table} RENAME TO mislaid")).await;
        let condition =
            format!("problem LIKE 'the {worker} has failed % times since %: %{table}%' AND problems.hint <> ''");
        stage.until_problem(&condition).await;
        let status = db.object("SELECT ok, hint FROM sea_mq.status").await;
        assert!(status["ok"] == json!(false) && status["hint"].is_string(), "{status}");
        db.run(&format!("ALTER TABLE sea_mq.mislaid RENAME TO {table}")).await;
        // A minute of sound work ends it; a clock that is set back stands for it.
        until("it is no problem any more", LONG, async || {
            stage.cluster.clock().set_back(Duration::from_secs(1));
            db.value("SELECT ok FROM sea_mq.status", &[]).await
        })
        .await;
    }
}

/// What the catalogue says of the SQL is set by hand: it stands for a library that was put back, and for one that is newer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn library_and_sql_of_different_versions_are_a_problem_with_its_remedy_in_the_log_too() {
    let stage = prepared("versions").await;
    let db = stage.connect().await;
    let library: String = db.value("SELECT sea_mq.library_version()", &[]).await;
    for (script, hint, logged) in [
        (
            "99.0.0",
            "Install version 99.0.0 of the library%restart the server%",
            "install version 99.0.0 of the library",
        ),
        ("0.0.1", "ALTER EXTENSION sea_mq UPDATE;%", "ALTER EXTENSION sea_mq UPDATE;"),
    ] {
        db.run(&format!("UPDATE pg_extension SET extversion = '{script}' WHERE extname = 'sea_mq'")).await;
        let problem = format!("the library is version {library} and the SQL of this database {script}");
        stage.until_problem(&format!("problem = '{problem}' AND problems.hint LIKE '{hint}'")).await;
        db.run("SELECT pg_terminate_backend(pid) FROM sea_mq.workers() WHERE backend_type = 'sea_mq relay'").await;
        let line =
            format!("the library is version {library} and the SQL of database {} {script}: {logged}", stage.database());
        until("the log says it", LONG, async || stage.cluster.log().contains(&line)).await;
    }
    db.run(&format!("UPDATE pg_extension SET extversion = '{library}' WHERE extname = 'sea_mq'")).await;
    let left: i64 = db.value("SELECT count(*) FROM sea_mq.problems WHERE problem LIKE 'the library%'", &[]).await;
    assert_eq!(left, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_process_ends_again_and_again_is_a_problem() {
    let stage = prepared("ending").await;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.subscribe('app__all', 'orders', 'record')").await;
    stage.until_ok().await;
    let failures = "SELECT coalesce((SELECT failures FROM sea_mq.worker_failures() WHERE worker = 'relay'), 0)";
    until("it has ended three times", LONG, async || {
        let before: i32 = db.value(failures, &[]).await;
        let _: i64 = db
            .value(
                "SELECT count(pg_terminate_backend(pid)) FROM sea_mq.workers() WHERE backend_type = 'sea_mq relay'",
                &[],
            )
            .await;
        before > 2
    })
    .await;
    stage.until_problem("problem LIKE 'the relay has failed % times since %: its process ended%'").await;
}

/// The table does not take such rows; a dump of another version, or somebody with all rights, may bring one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_cannot_be_served_stops_no_other() {
    let stage = prepared("unusable").await;
    let db = stage.connect().await;
    db.run(
        "SELECT sea_mq.subscribe('app__bad', 'orders', 'record', start_from => 'all'),
            sea_mq.subscribe('app__worse', 'orders', 'record', start_from => 'all'),
            sea_mq.subscribe('app__all', 'orders', 'record', start_from => 'all')",
    )
    .await;
    db.run(
        "ALTER TABLE sea_mq.subscriptions DROP CONSTRAINT subscriptions_start_at_check, DROP CONSTRAINT subscriptions_timeout_check;
         UPDATE sea_mq.subscriptions SET start_at = 'infinity' WHERE subscription = 'app__bad';
         UPDATE sea_mq.subscriptions SET timeout = '178000000 years' WHERE subscription = 'app__worse'",
    )
    .await;
    until_state(&db, "app__bad", "state = 'blocked' AND error LIKE '%start_from%' AND hint <> ''").await;
    until_state(&db, "app__worse", "state = 'blocked' AND error LIKE '%timeout%' AND hint <> ''").await;
    emit_numbers(&db, 1, 5).await;
    until("the other handles", LONG, async || recorded(&db, "app__all").await.len() == 5).await;
    stage.until_problem("problem LIKE 'subscription app__bad is blocked: %'").await;
    let failing: i64 = db.value("SELECT count(*) FROM sea_mq.worker_failures()", &[]).await;
    assert_eq!(failing, 0);
    db.run("SELECT sea_mq.alter_subscription('app__worse', timeout => '1 min')").await;
    until("it is handled once it can be", LONG, async || recorded(&db, "app__worse").await.len() == 5).await;
    assert!(recorded(&db, "app__bad").await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_came_to_return_a_set_blocks_its_subscription_and_no_message_is_dead() {
    let stage = prepared("sets").await;
    let db = stage.connect().await;
    db.run(
        "CREATE FUNCTION changing(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM record(e); END $$;
         SELECT sea_mq.subscribe('app__sets', 'orders', 'changing', max_deliver => 1, start_from => 'all')",
    )
    .await;
    emit_numbers(&db, 1, 1).await;
    until_recorded(&stage, 1).await;
    db.run(
        "BEGIN;
         DROP FUNCTION changing;
         CREATE FUNCTION changing(e sea_mq.event) RETURNS SETOF int LANGUAGE sql AS 'SELECT 1';
         COMMIT",
    )
    .await;
    emit_numbers(&db, 2, 5).await;
    until_state(&db, "app__sets", "state = 'blocked' AND hint LIKE '%alter_subscription%'").await;
    assert_eq!(db.value::<i64>("SELECT count(*) FROM sea_mq.dlq_messages", &[]).await, 0);
    db.run("SELECT sea_mq.alter_subscription('app__sets', 'record')").await;
    until_recorded(&stage, 5).await;
    assert_eq!(recorded(&db, "app__sets").await, [1, 2, 3, 4, 5]);
}

/// What a handler returns otherwise is not looked at, whatever it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_handler_returns_is_not_looked_at() {
    let stage = prepared("returns").await;
    let db = stage.connect().await;
    db.run(
        "CREATE FUNCTION value(e sea_mq.event) RETURNS text LANGUAGE sql AS $$ SELECT record(e)::text $$;
         CREATE FUNCTION rec(e sea_mq.event) RETURNS record LANGUAGE sql AS $$ SELECT record(e)::text, 2 $$;
         CREATE FUNCTION outs(e sea_mq.event, OUT a int, OUT b text) LANGUAGE plpgsql AS $$ BEGIN PERFORM record(e); END $$;
         CREATE FUNCTION echo(INOUT e sea_mq.event) LANGUAGE plpgsql AS $$ BEGIN PERFORM record(e); END $$;
         SELECT sea_mq.subscribe('app__' || f, 'orders', f::regproc, max_deliver => 1, start_from => 'all')
         FROM unnest('{value,rec,outs,echo}'::text[]) f",
    )
    .await;
    emit_numbers(&db, 1, 2).await;
    until_recorded(&stage, 8).await;
    assert_eq!(db.value::<i64>("SELECT count(*) FROM sea_mq.dlq_messages", &[]).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_says_that_it_is_one_and_what_starts_its_workers() {
    let stage = prepared("on_standby").await;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.subscribe('app__all', 'orders', 'record')").await;
    emit_numbers(&db, 1, 3).await;
    until_recorded(&stage, 3).await;
    let mut standby = stage.cluster.base_backup(&stage.directory.path().join("standby"));
    standby.follow(&stage.cluster);
    standby.start().await;
    let copy = standby.connect(stage.database()).await;
    let status: Value = copy.object("SELECT * FROM sea_mq.status").await;
    assert_eq!((&status["ok"], &status["relay"]), (&json!(true), &json!("standby")), "{status}");
    assert!(status["summary"].as_str().is_some_and(|summary| summary.contains("standby")), "{status}");
    assert!(
        status["hint"].as_str().is_some_and(|hint| hint.contains("promoted") && !hint.contains("start()")),
        "{status}"
    );
    for view in [
        "problems",
        "relay_status",
        "outbox_status",
        "stream_status",
        "inbox_status",
        "subscription_status",
        "dlq_status",
    ] {
        let _: i64 = copy.value(&format!("SELECT count(*) FROM (SELECT * FROM sea_mq.{view}) v"), &[]).await;
    }
    let _: i64 = copy.value("SELECT count(*) FROM sea_mq.install_report()", &[]).await;
    for call in ["start", "stop", "reload"] {
        assert_eq!(copy.refusal(&format!("SELECT sea_mq.{call}()")).await.code(), "25006", "{call}");
    }
    copy.run("SELECT pg_promote(false)").await;
    let running = "SELECT NOT pg_is_in_recovery() AND (SELECT running FROM sea_mq.relay_status)";
    until("it runs once it is promoted", LONG * 2, async || copy.value(running, &[]).await).await;
}
