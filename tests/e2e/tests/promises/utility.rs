//! Statements about databases, and what else goes through the hooks: who is refused disturbs nobody, and errors arrive as
//! they were raised.

use std::time::Duration;

use harness::{Cluster, Database, Stage, StageOptions, holds_for, until};
use serde_json::json;
use tokio_postgres::error::{DbError, SqlState};

use crate::receiving::until_state;
use crate::{A_WHILE, SOON};

/// All processes of sea_mq, with their ids.
async fn processes(cluster: &Cluster) -> Vec<String> {
    let sql = "SELECT backend_type || ' ' || pid FROM pg_stat_activity WHERE backend_type LIKE 'sea_mq%' ORDER BY 1";
    cluster.connect("postgres").await.values(sql, &[]).await
}

async fn workers_of(cluster: &Cluster, database: &str) -> Vec<String> {
    let sql = "SELECT backend_type FROM pg_stat_activity WHERE backend_type LIKE 'sea_mq%' AND datname = $1 ORDER BY 1";
    cluster.connect("postgres").await.values(sql, &[&database]).await
}

async fn until_served(cluster: &Cluster, database: &str) {
    let standing = ["sea_mq consumer", "sea_mq relay"];
    until("the workers run", SOON, async || workers_of(cluster, database).await == standing).await;
}

/// A stage whose launcher, relay and consumer run.
async fn served(name: &str) -> Stage {
    let stage = Stage::new(name).await;
    until_served(&stage.cluster, "app").await;
    stage
}

async fn until_left(cluster: &Cluster, database: &str) {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND datname = $1";
    let db = cluster.connect("postgres").await;
    until("the test's own connections are gone", SOON, async || db.value::<i64>(sql, &[&database]).await == 0).await;
}

async fn error(db: &Database, sql: &str) -> DbError {
    let error = db.batch_execute(sql).await.expect_err(sql);
    error.as_db_error().unwrap_or_else(|| panic!("{sql}: {error}")).clone()
}

/// What an ordinary role is denied, from another database.
const DENIED: [&str; 18] = [
    "DROP DATABASE app",
    "DROP DATABASE IF EXISTS app",
    "DROP DATABASE app WITH (FORCE)",
    "DROP DATABASE nonsense",
    "ALTER DATABASE app RENAME TO other",
    "ALTER DATABASE app RENAME TO app",
    "ALTER DATABASE app SET TABLESPACE pg_default",
    "ALTER DATABASE app SET TABLESPACE pg_global",
    "ALTER DATABASE app SET TABLESPACE elsewhere",
    "ALTER DATABASE app SET TABLESPACE nonsense",
    "ALTER DATABASE app WITH ALLOW_CONNECTIONS false",
    "ALTER DATABASE app WITH IS_TEMPLATE true",
    "ALTER DATABASE app OWNER TO CURRENT_USER",
    "CREATE DATABASE x TEMPLATE app",
    "CREATE DATABASE x TEMPLATE app STRATEGY file_copy",
    "CREATE DATABASE x TEMPLATE app OWNER postgres",
    "CREATE DATABASE app TEMPLATE app",
    "BEGIN; DROP DATABASE app",
];

/// What it is denied in the database itself.
const DENIED_INSIDE: [&str; 8] = [
    "DROP EXTENSION sea_mq",
    "DROP EXTENSION sea_mq CASCADE",
    "DROP EXTENSION IF EXISTS nonsense, sea_mq",
    "DROP EXTENSION nonsense",
    "ALTER EXTENSION sea_mq UPDATE TO 'nonsense'",
    "DROP SCHEMA sea_mq CASCADE",
    "DROP DATABASE app",
    "CREATE DATABASE x TEMPLATE app",
];

/// What PostgreSQL refuses to those who may do it, too.
const REFUSED: [&str; 9] = [
    "ALTER DATABASE app RENAME TO postgres",
    "ALTER DATABASE app SET TABLESPACE nonsense",
    "ALTER DATABASE app SET TABLESPACE pg_global",
    "CREATE DATABASE postgres TEMPLATE app",
    "CREATE DATABASE x TEMPLATE app OWNER nonsense",
    "CREATE DATABASE x TEMPLATE app TABLESPACE nonsense",
    "BEGIN READ ONLY; ALTER DATABASE app RENAME TO other",
    "BEGIN; CREATE DATABASE x TEMPLATE app",
    "BEGIN READ ONLY; ALTER DATABASE app SET TABLESPACE elsewhere",
];

async fn refused(db: &Database, statements: &[&str]) {
    for sql in statements {
        for _ in 0..20 {
            db.batch_execute(sql).await.expect_err(sql);
            db.run("ROLLBACK").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_is_refused_disturbs_no_worker() {
    let stage = served("refused").await;
    let postgres = stage.cluster.connect("postgres").await;
    postgres.run("SET allow_in_place_tablespaces = on").await;
    postgres.run("CREATE TABLESPACE elsewhere LOCATION ''").await;
    postgres.run("CREATE ROLE nobody LOGIN; CREATE ROLE maker LOGIN CREATEDB").await;
    let before = processes(&stage.cluster).await;
    assert_eq!(before.len(), 3, "{before:?}");
    for role in ["nobody", "maker"] {
        refused(&stage.cluster.connect_as(role, "postgres").await, &DENIED).await;
        let inside = stage.connect_as(role).await;
        refused(&inside, &DENIED_INSIDE).await;
        for _ in 0..20 {
            inside.run("DROP EXTENSION IF EXISTS nonsense").await;
        }
    }
    refused(&postgres, &REFUSED).await;
    // Nothing is to be seen of a worker that makes room and comes back at once, but that it is another process.
    holds_for("the processes are the same", A_WHILE, async || processes(&stage.cluster).await == before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_other_sessions_keep_from_passing_disturbs_no_worker() {
    let stage = served("kept").await;
    let _session = stage.connect().await;
    let before = processes(&stage.cluster).await;
    let db = stage.cluster.connect("postgres").await;
    for sql in ["DROP DATABASE app", "ALTER DATABASE app RENAME TO other", "CREATE DATABASE x TEMPLATE app"] {
        assert_eq!(db.refusal(sql).await, SqlState::OBJECT_IN_USE);
    }
    assert_eq!(processes(&stage.cluster).await, before);
}

/// The workers run as a superuser, whose sessions an owner may not end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_drops_a_database_by_force_while_the_workers_run() {
    let stage = served("forced").await;
    stage.cluster.run("CREATE ROLE owner LOGIN CREATEDB").await;
    stage.cluster.run("ALTER DATABASE app OWNER TO owner").await;
    until_left(&stage.cluster, "app").await;
    let session = stage.connect_as("owner").await;
    stage.cluster.connect_as("owner", "postgres").await.run("DROP DATABASE app WITH (FORCE)").await;
    assert!(session.batch_execute("SELECT").await.is_err());
}

/// The launcher would leave the database alone for a minute.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_that_made_room_in_vain_come_back_at_once() {
    let stage = served("in_vain").await;
    let db = stage.connect().await;
    db.run("CREATE VIEW dependent AS SELECT * FROM sea_mq.status").await;
    assert_eq!(db.refusal("DROP EXTENSION sea_mq").await, SqlState::DEPENDENT_OBJECTS_STILL_EXIST);
    until_served(&stage.cluster, "app").await;
    db.run("DO $$ BEGIN DROP EXTENSION sea_mq; EXCEPTION WHEN OTHERS THEN PERFORM pg_sleep(0); END $$").await;
    until_served(&stage.cluster, "app").await;
    db.run("DROP VIEW dependent; BEGIN; DROP EXTENSION sea_mq; ROLLBACK").await;
    until_served(&stage.cluster, "app").await;
    let id = db.emit("1", "Emitted", json!({})).await;
    stage.assert_stored(&[id]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_is_renamed_in_a_transaction_that_may_fail() {
    let stage = served("renamed").await;
    let db = stage.cluster.connect("postgres").await;
    db.run("BEGIN; ALTER DATABASE app RENAME TO other").await;
    assert!(workers_of(&stage.cluster, "app").await.is_empty());
    db.run("ROLLBACK").await;
    until_served(&stage.cluster, "app").await;
    db.run("DO $$ BEGIN ALTER DATABASE app RENAME TO other; END $$").await;
    until_served(&stage.cluster, "other").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_arrive_as_they_were_raised() {
    let stage = Stage::new("errors").await;
    let db = stage.connect().await;
    let raise =
        "RAISE EXCEPTION 'no' USING ERRCODE = 'XY123', DETAIL = 'd', HINT = 'h', COLUMN = 'a', CONSTRAINT = 'c',
        DATATYPE = 'e', TABLE = 't', SCHEMA = 's'";
    db.run(&format!("CREATE PROCEDURE refuse() LANGUAGE plpgsql AS $$ BEGIN {raise}; END $$")).await;
    for sql in [format!("DO $$ BEGIN {raise}; END $$"), "CALL refuse()".into()] {
        let error = error(&db, &sql).await;
        assert_eq!(error.code().code(), "XY123", "{sql}");
        assert_eq!((error.detail(), error.hint()), (Some("d"), Some("h")), "{sql}");
        assert_eq!((error.constraint(), error.column(), error.datatype()), (Some("c"), Some("a"), Some("e")), "{sql}");
        assert_eq!((error.schema(), error.table()), (Some("s"), Some("t")), "{sql}");
        assert!(error.where_().is_some_and(|context| context.contains("PL/pgSQL function")), "{sql}: {error:?}");
    }
    db.run("CREATE TABLE numbers (n int); INSERT INTO numbers VALUES (1), (1)").await;
    let doubled = error(&db, "CREATE UNIQUE INDEX once ON numbers (n)").await;
    assert_eq!((doubled.code(), doubled.constraint()), (&SqlState::UNIQUE_VIOLATION, Some("once")));
    let broken = error(&db, "ALTER TABLE numbers ADD CONSTRAINT large CHECK (n > 1)").await;
    assert_eq!(
        (broken.code(), broken.table(), broken.constraint()),
        (&SqlState::CHECK_VIOLATION, Some("numbers"), Some("large"))
    );
    let copied = error(&db, "COPY numbers FROM PROGRAM 'echo x'").await;
    assert_eq!(copied.where_(), Some("COPY numbers, line 1, column n: \"x\""));
    db.run(
        "DO $$ BEGIN CALL refuse(); RAISE 'not reached';
         EXCEPTION WHEN SQLSTATE 'XY123' THEN NULL; END $$",
    )
    .await;
}

/// A condition runs inside our own function.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_of_a_condition_arrive_as_they_were_raised() {
    let stage = Stage::new("condition").await;
    let db = stage.connect().await;
    db.run(
        "CREATE FUNCTION refuse(n int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
         BEGIN
             IF n = 7 THEN RAISE EXCEPTION 'no' USING ERRCODE = 'XY123', DETAIL = 'd', CONSTRAINT = 'c', TABLE = 't'; END IF;
             BEGIN RAISE EXCEPTION 'caught'; EXCEPTION WHEN OTHERS THEN RETURN n > 1; END;
         END $$;
         CREATE TABLE numbers (n int PRIMARY KEY);
         SELECT sea_mq.capture_table('numbers', \"when\" => 'refuse(new.n)')",
    )
    .await;
    let error = error(&db, "INSERT INTO numbers VALUES (7)").await;
    assert_eq!((error.code().code(), error.detail()), ("XY123", Some("d")));
    assert_eq!((error.constraint(), error.table()), (Some("c"), Some("t")));
    let context = "PL/pgSQL function refuse(integer) line 3 at RAISE";
    assert_eq!(error.where_(), Some(context));
    db.run("DO $$ BEGIN INSERT INTO numbers VALUES (7); RAISE 'not reached'; EXCEPTION WHEN SQLSTATE 'XY123' THEN NULL; END $$")
        .await;
    db.run("INSERT INTO numbers VALUES (8)").await;
    assert_eq!(db.value::<i64>("SELECT count(*) FROM sea_mq.outbox_events", &[]).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_in_a_procedure_is_a_dead_letter_at_once() {
    let stage = Stage::new("called").await.described().await;
    let db = stage.connect().await;
    db.run(
        "CREATE PROCEDURE refuse() LANGUAGE plpgsql AS $$ BEGIN PERFORM sea_mq.poison('never'); END $$;
         CREATE FUNCTION handle(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN CALL refuse(); END $$;
         SELECT sea_mq.subscribe('app__called', 'orders', 'handle')",
    )
    .await;
    until_state(&db, "app__called", "state = 'active'").await;
    db.emit("1", "Emitted", json!({})).await;
    let sql = "SELECT count(*) = 1 FROM sea_mq.inbox_messages WHERE status = 'dead' AND attempts = 1";
    until("it is dead after one attempt", SOON, async || db.value(sql, &[]).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn databases_are_made_from_a_template_with_the_extension() {
    let stage = served("template1").await;
    let template = stage.cluster.connect("template1").await;
    template.run("CREATE EXTENSION sea_mq").await;
    let start = error(&template, "SELECT sea_mq.start()").await;
    assert_eq!(start.code(), &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    let sql = "SELECT value FROM sea_mq.install_report() WHERE section = 'worker' AND item = 'problem'";
    assert_eq!(template.values::<String>(sql, &[]).await, ["no worker serves a template database"]);
    drop(template);
    until_left(&stage.cluster, "template1").await;
    for name in ["first", "second"] {
        let db = stage.cluster.connect("postgres").await;
        let make = format!("CREATE DATABASE {name}");
        tokio::time::timeout(Duration::from_secs(4), db.run(&make)).await.unwrap_or_else(|_| panic!("{make} waits"));
        until_served(&stage.cluster, name).await;
        let copy = stage.cluster.connect(name).await;
        let says_so = "SELECT coalesce(hint LIKE '%adopt%', false) FROM sea_mq.status";
        until("it says that it is a copy", SOON, async || copy.value(says_so, &[]).await).await;
        copy.run("SELECT sea_mq.adopt()").await;
        copy.run(&format!("SELECT sea_mq.emit('a', '1', 'Emitted', '{{}}', context => '{name}')")).await;
        stage.broker.until_count(&format!("{}_EVENTS", name.to_uppercase()), 1, SOON).await;
    }
    assert!(workers_of(&stage.cluster, "template1").await.is_empty());
    stage.cluster.run("ALTER DATABASE second IS_TEMPLATE true").await;
    until("its workers have ended", SOON, async || workers_of(&stage.cluster, "second").await.is_empty()).await;
    stage.cluster.run("ALTER DATABASE second IS_TEMPLATE false").await;
    until_served(&stage.cluster, "second").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_without_a_place_says_so_and_gets_the_next_free_one() {
    let stage = StageOptions::default().setting("sea_mq.max_databases", "1").start("places").await;
    until_served(&stage.cluster, "app").await;
    stage.cluster.run("CREATE DATABASE second").await;
    let second = stage.cluster.connect("second").await;
    second.run("CREATE EXTENSION sea_mq").await;
    let row = second.object("SELECT ok, summary, hint FROM sea_mq.status").await;
    let summary = "relay is not running: all 1 places for databases with workers are taken";
    let hint = "Raise sea_mq.max_databases and restart the server.";
    assert_eq!(row, json!({"ok": false, "summary": summary, "hint": hint}));
    let sql = "SELECT value FROM sea_mq.install_report() WHERE section = 'worker' AND item = 'problem'";
    assert_eq!(second.values::<String>(sql, &[]).await, [summary.trim_start_matches("relay is not running: ")]);
    assert_eq!(second.refusal("SELECT sea_mq.start()").await.code(), "53400");
    let logged = "database \"second\" is not looked at: all 1 places are taken";
    until("the log says so", SOON, async || stage.cluster.log().contains(logged)).await;
    let id =
        second.value::<uuid::Uuid>("SELECT sea_mq.emit('a', '1', 'Emitted', '{}', context => 'second')", &[]).await;
    until_left(&stage.cluster, "app").await;
    stage.cluster.run("DROP DATABASE app").await;
    until_served(&stage.cluster, "second").await;
    stage.broker.until_count("SECOND_EVENTS", 1, SOON).await;
    assert_eq!(stage.broker.stored("SECOND_EVENTS").await[0].id(), id);
    assert_eq!(stage.cluster.log().matches(logged).count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_without_a_worker_slot_says_so() {
    // One for logical replication, one for the launcher.
    let stage = StageOptions::default().setting("max_worker_processes", "2").start("slots").await;
    let row = stage
        .until_problem("problem LIKE 'relay is not running: no worker slot is free; it waits for one in turn, since %'")
        .await;
    assert_eq!(row["hint"], "Raise max_worker_processes and restart the server.", "{row}");
}

/// An operator may end the workers, and nothing else, and what he calls an operator does not run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_stops_the_workers_without_preloading() {
    let stage = StageOptions { not_preloaded: true, ..StageOptions::default() }.start("by_hand").await;
    let db = stage.connect().await;
    db.run(
        "CREATE ROLE operator LOGIN IN ROLE sea_mq_operator; CREATE SCHEMA mine AUTHORIZATION operator;
         CREATE TABLE ran (as_whom text); GRANT INSERT ON ran TO PUBLIC",
    )
    .await;
    let operator = stage.connect_as("operator").await;
    operator
        .run(
            "CREATE FUNCTION mine.same(name, name) RETURNS boolean LANGUAGE plpgsql AS $$
             BEGIN INSERT INTO public.ran VALUES (current_user); RETURN true; END $$;
             CREATE OPERATOR mine.= (LEFTARG = name, RIGHTARG = name, FUNCTION = mine.same);
             SET search_path = mine, pg_catalog",
        )
        .await;
    assert_eq!(operator.value::<String>("SELECT sea_mq.start()", &[]).await, "starting");
    until_served(&stage.cluster, "app").await;
    assert_eq!(operator.value::<String>("SELECT sea_mq.stop()", &[]).await, "stopping");
    until("the workers have ended", SOON, async || workers_of(&stage.cluster, "app").await.is_empty()).await;
    assert_eq!(operator.value::<String>("SELECT sea_mq.stop()", &[]).await, "was not running");
    assert!(db.values::<String>("SELECT as_whom FROM ran", &[]).await.is_empty());
}
