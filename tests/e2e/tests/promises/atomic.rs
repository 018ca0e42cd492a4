//! An event exists if and only if its transaction committed.

use harness::{EVENTS, Stage, Stored, holds_for, ledger};
use serde_json::json;

use crate::{A_WHILE, SOON};

/// The numbers of the stored events, which must be these.
async fn assert_numbers(stage: &Stage, expected: &[i64]) {
    stage.broker.until_count(EVENTS, expected.len() as u64, SOON).await;
    let found: Vec<i64> = stage.broker.stored(EVENTS).await.iter().map(|one: &Stored| one.number("n")).collect();
    ledger::assert_same(expected, &found);
}

fn emit(n: i64) -> String {
    format!("SELECT sea_mq.emit('order', '1', 'Counted', '{{\"n\": {n}}}');")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolled_back_transaction_sends_nothing() {
    let stage = Stage::new("rollback").await;
    let db = stage.connect().await;
    db.run(&format!("BEGIN; {} ROLLBACK", emit(1))).await;
    db.refusal(&format!("BEGIN; {} SELECT 1 / 0; COMMIT", emit(2))).await;
    db.run("ROLLBACK").await;
    db.run(&emit(3)).await;
    assert_numbers(&stage, &[3]).await;
    assert_eq!(db.value::<i64>("SELECT count(*) FROM sea_mq.outbox_events", &[]).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolled_back_savepoint_takes_its_events_with_it() {
    let stage = Stage::new("savepoint").await;
    let db = stage.connect().await;
    db.run(&format!(
        "BEGIN; {} SAVEPOINT a; {} ROLLBACK TO a; {} SAVEPOINT b; {} RELEASE b;
         SAVEPOINT c; SAVEPOINT d; {} RELEASE d; ROLLBACK TO c; {} COMMIT",
        emit(1),
        emit(-1),
        emit(2),
        emit(3),
        emit(-2),
        emit(4)
    ))
    .await;
    db.run(
        r#"DO $$ BEGIN
            PERFORM sea_mq.emit('order', '1', 'Counted', '{"n": 5}');
            BEGIN
                PERFORM sea_mq.emit('order', '1', 'Counted', '{"n": -3}');
                RAISE EXCEPTION 'no';
            EXCEPTION WHEN raise_exception THEN NULL;
            END;
            PERFORM sea_mq.emit('order', '1', 'Counted', '{"n": 6}');
        END $$"#,
    )
    .await;
    assert_numbers(&stage, &[1, 2, 3, 4, 5, 6]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_fails_at_commit_sends_nothing_and_one_whose_commit_emits_sends_that() {
    let stage = Stage::new("deferred").await;
    let db = stage.connect().await;
    db.run(
        r#"CREATE TABLE checked (n int);
        CREATE FUNCTION check_it() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF NEW.n < 0 THEN RAISE EXCEPTION 'negative'; END IF;
            PERFORM sea_mq.emit('order', '1', 'Counted', jsonb_build_object('n', NEW.n));
            RETURN NULL;
        END $$;
        CREATE CONSTRAINT TRIGGER check_it AFTER INSERT ON checked DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION check_it()"#,
    )
    .await;
    db.refusal(&format!("BEGIN; {} INSERT INTO checked VALUES (-1); COMMIT", emit(-1))).await;
    db.run(&format!("BEGIN; INSERT INTO checked VALUES (2); {} COMMIT", emit(1))).await;
    assert_numbers(&stage, &[1, 2]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prepared_transaction_sends_its_events_when_it_is_committed_and_not_when_it_is_rolled_back() {
    let stage = Stage::new("prepared").await.described().await;
    let db = stage.connect().await;
    db.run(&format!("BEGIN; {} PREPARE TRANSACTION 'kept'", emit(1))).await;
    db.run(&format!("BEGIN; {} PREPARE TRANSACTION 'dropped'", emit(-1))).await;
    db.run(&emit(2)).await;
    assert_numbers(&stage, &[2]).await;
    db.run("ROLLBACK PREPARED 'dropped'").await;
    holds_for("nothing else is stored", A_WHILE, async || stage.broker.count(EVENTS).await == 1).await;
    db.run("COMMIT PREPARED 'kept'").await;
    assert_numbers(&stage, &[2, 1]).await;
    db.run(&emit(3)).await;
    assert_numbers(&stage, &[2, 1, 3]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_takes_what_was_not_committed_and_leaves_what_was() {
    let mut stage = Stage::new("crash").await.described().await;
    let db = stage.connect().await;
    db.run(&emit(1)).await;
    db.run(&format!("BEGIN; {} PREPARE TRANSACTION 'kept'", emit(2))).await;
    db.run(&format!("BEGIN; {}", emit(-1))).await;
    stage.cluster.crash();
    stage.cluster.start().await;
    let db = stage.connect().await;
    db.run(&emit(3)).await;
    assert_numbers(&stage, &[1, 3]).await;
    db.run("COMMIT PREPARED 'kept'").await;
    assert_numbers(&stage, &[1, 3, 2]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_killed_in_its_transaction_sends_nothing() {
    let stage = Stage::new("terminated").await;
    let db = stage.connect().await;
    let victim = stage.connect().await;
    let pid: i32 = victim.value("SELECT pg_backend_pid()", &[]).await;
    victim.run(&format!("BEGIN; {}", emit(-1))).await;
    assert!(db.value::<bool>("SELECT pg_terminate_backend($1, 10000)", &[&pid]).await);
    db.emit("1", "Counted", json!({"n": 1})).await;
    assert_numbers(&stage, &[1]).await;
}
