//! What handlers do wrong, and what becomes of it: the message's own matter, and never the subscription's.

use harness::{Stage, StageOptions, holds_for, ledger, until};
use serde_json::{Value, json};

use crate::receiving::{
    FORGETFUL, LONG, ask, assert_handled_once, emit_numbers, make_recorder, recorded, until_acknowledged,
    until_recorded, until_state, until_status,
};
use crate::{A_WHILE, SOON};

async fn prepared(name: &str, options: StageOptions) -> Stage {
    let stage = options.start(name).await;
    let db = stage.connect().await;
    db.run(FORGETFUL).await;
    make_recorder(&db).await;
    stage
}

fn texts<'a>(errors: &'a Value, key: &str) -> Vec<&'a str> {
    errors.as_array().map_or_else(Vec::new, |all| all.iter().map(|one| one[key].as_str().unwrap_or("")).collect())
}

/// Each event says what its handler does; the handler has recorded it by then.
const MISBEHAVE: &str = "
    CREATE SEQUENCE tries;
    CREATE FUNCTION misbehave(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM record(e);
        CASE e.payload ->> 'do'
        WHEN 'nothing' THEN NULL;
        WHEN 'raise' THEN RAISE EXCEPTION 'no' USING ERRCODE = 'XY123', DETAIL = 'why';
        WHEN 'divide' THEN PERFORM 1 / (e.payload ->> 'zero')::int;
        WHEN 'assert' THEN ASSERT false, 'no';
        WHEN 'sleep' THEN PERFORM pg_sleep(600);
        WHEN 'loop' THEN LOOP NULL; END LOOP;
        WHEN 'memory' THEN PERFORM lpad('', 1100000000);
        WHEN 'recurse' THEN PERFORM misbehave(e);
        WHEN 'commit' THEN COMMIT;
        WHEN 'rollback' THEN ROLLBACK;
        WHEN 'poison' THEN PERFORM sea_mq.poison('never');
        WHEN 'skip' THEN PERFORM sea_mq.skip('not today');
        WHEN 'conflict' THEN
            IF nextval('tries') <= 3 THEN RAISE serialization_failure; END IF;
        WHEN 'twice' THEN
            IF e.attempt < 2 THEN RAISE EXCEPTION 'not yet'; END IF;
        END CASE;
    END $$;
    SELECT sea_mq.subscribe('app__bad', 'orders', 'misbehave', max_deliver => 2, retry_delay => '1 ms',
        timeout => '1 s')";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_handler_does_ends_as_documented_and_its_neighbours_and_successors_are_handled() {
    let stage = prepared("misbehaviour", StageOptions::default()).await;
    let db = stage.connect().await;
    db.run(MISBEHAVE).await;
    // What it does; the message's status and attempts; the kind and SQLSTATE of each error.
    let cases = [
        ("raise", "dead", 2, Some(("error", "XY123"))),
        ("divide", "dead", 2, Some(("error", "22012"))),
        ("assert", "dead", 2, Some(("error", "P0004"))),
        ("sleep", "dead", 2, Some(("timeout", "57014"))),
        ("loop", "dead", 2, Some(("timeout", "57014"))),
        ("memory", "dead", 2, Some(("error", "54000"))),
        ("recurse", "dead", 2, Some(("error", "54001"))),
        ("commit", "dead", 2, Some(("error", "2D000"))),
        ("rollback", "dead", 2, Some(("error", "2D000"))),
        ("poison", "dead", 1, None),
        ("skip", "skipped", 1, None),
        // Not the handler's fault: tried again at once, and not counted.
        ("conflict", "processed", 1, None),
        ("twice", "processed", 2, Some(("error", "P0001"))),
    ];
    let mut fine = Vec::new();
    for (at, (what, status, attempts, error)) in (0_i64..).zip(cases) {
        let [before, n, after] = [at * 3 + 1, at * 3 + 2, at * 3 + 3];
        let sql = "SELECT count(sea_mq.emit('order', n::text, 'Counted', jsonb_build_object('n', n, 'zero', 0,
            'do', CASE WHEN n = $1 THEN $2 ELSE 'nothing' END))) FROM generate_series($1::int8 - 1, $1 + 1) n";
        assert_eq!(db.value::<i64>(sql, &[&n, &what]).await, 3);
        let message = until_status(&db, "app__bad", n, status).await;
        for neighbour in [before, after] {
            until_status(&db, "app__bad", neighbour, "processed").await;
        }
        assert_eq!(message["attempts"], attempts, "{what}: {message}");
        assert_eq!(message["processed"], status == "processed", "{what}: {message}");
        if let Some((kind, state)) = error {
            let failures = if status == "dead" { attempts } else { attempts - 1 };
            let errors = &message["errors"];
            assert_eq!(texts(errors, "kind"), vec![kind; failures], "{what}: {message}");
            assert_eq!(texts(errors, "sqlstate"), vec![state; failures], "{what}: {message}");
            assert!(texts(errors, "error").iter().all(|text| !text.is_empty()), "{what}: {message}");
            assert_eq!(errors[0]["attempt"], 1, "{what}: {message}");
        }
        match what {
            "raise" => {
                let details = texts(&message["errors"], "detail");
                assert!(details.iter().all(|one| one.starts_with("why\n") && one.contains("misbehave")), "{message}");
            }
            "poison" => assert_eq!(message["processing_error"], "never", "{message}"),
            "skip" => assert_eq!(message["processing_error"], "not today", "{message}"),
            _ => {}
        }
        fine.extend([before, after]);
        if status == "processed" {
            fine.push(n);
        }
    }
    ledger::assert_same_set(&fine, &recorded(&db, "app__bad").await);
    let reasons: Vec<String> = db.values("SELECT reason FROM sea_mq.dlq_messages ORDER BY id", &[]).await;
    assert_eq!(reasons, [vec!["exhausted"; 9], vec!["poison"]].concat());
    stage.broker.until_count("ORDERS_DLQ", 10, SOON).await;
    let state = until_state(&db, "app__bad", "state = 'active' AND dead = 10").await;
    assert_eq!(
        (&state["processed"], &state["skipped"], &state["error"]),
        (&json!(28), &json!(1), &Value::Null),
        "{state}"
    );
    until_acknowledged(&stage, "app__bad").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_message_neither_fails_nor_delays_its_neighbours() {
    let stage = prepared("neighbours", StageOptions::default()).await;
    let db = stage.connect().await;
    db.run(
        "CREATE TABLE parents (id int PRIMARY KEY);
         INSERT INTO parents SELECT generate_series(1, 10) EXCEPT SELECT 8;
         CREATE TABLE children (parent int REFERENCES parents DEFERRABLE INITIALLY DEFERRED);
         CREATE FUNCTION partly(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$
         DECLARE n int := e.payload ->> 'n';
         BEGIN
             PERFORM record(e);
             -- One fails at once, another would only when its transaction commits.
             IF n = 3 THEN RAISE EXCEPTION 'not 3'; END IF;
             INSERT INTO children VALUES (1 + (n - 1) % 10);
         END $$;
         SELECT sea_mq.subscribe('app__partly', 'orders', 'partly', 'Counted', retry_delay => '1 hour',
            retry_delay_max => '1 hour')",
    )
    .await;
    emit_numbers(&db, 1, 10).await;
    let raised = until_status(&db, "app__partly", 3, "failed").await;
    let violated = until_status(&db, "app__partly", 8, "failed").await;
    assert_eq!(texts(&raised["errors"], "sqlstate"), ["P0001"], "{raised}");
    assert_eq!(texts(&violated["errors"], "sqlstate"), ["23503"], "{violated}");
    for message in [raised, violated] {
        assert_eq!((&message["attempts"], &message["processed"]), (&json!(1), &json!(false)), "{message}");
        assert!(message["next_attempt_at"].is_string(), "{message}");
    }
    until_recorded(&stage, 8).await;
    emit_numbers(&db, 11, 17).await;
    until_recorded(&stage, 15).await;
    let mut handled = recorded(&db, "app__partly").await;
    handled.sort_unstable();
    assert_eq!(handled, [1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17]);
    assert_eq!(db.value::<i64>("SELECT count(*) FROM children", &[]).await, 15);
    // They are kept in the table: the broker has nothing to do with their next attempt.
    until_acknowledged(&stage, "app__partly").await;
    let state = until_state(&db, "app__partly", "processed = 15").await;
    assert_eq!((&state["retrying"], &state["failures"]), (&json!(2), &json!(2)), "{state}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_max_deliver_attempts_with_growing_pauses_there_is_exactly_one_dead_letter() {
    let stage = prepared("exhausted", StageOptions::default()).await;
    let db = stage.connect().await;
    db.run(
        "CREATE FUNCTION refuse(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$
         BEGIN PERFORM record(e); RAISE EXCEPTION 'attempt %', e.attempt; END $$;
         SELECT sea_mq.subscribe('app__twenty', 'orders', 'refuse', retry_delay => '1 ms', retry_delay_max => '20 ms'),
            sea_mq.subscribe('app__four', 'orders', 'refuse', max_deliver => 4, retry_delay => '200 ms',
                retry_delay_max => '300 ms')",
    )
    .await;
    emit_numbers(&db, 1, 1).await;
    let twenty = until_status(&db, "app__twenty", 1, "dead").await;
    let four = until_status(&db, "app__four", 1, "dead").await;
    assert_eq!((&twenty["attempts"], &four["attempts"]), (&json!(20), &json!(4)));
    let expected: Vec<String> = (1..=20).map(|attempt| format!("attempt {attempt}")).collect();
    assert_eq!(texts(&twenty["errors"], "error"), expected, "{twenty}");
    stage.broker.until_count("ORDERS_DLQ", 2, SOON).await;
    holds_for("there are two dead letters", A_WHILE, async || stage.broker.count("ORDERS_DLQ").await == 2).await;
    assert_eq!(recorded(&db, "app__twenty").await.len(), 0);
    // The pause is doubled up to the longest; half of it is left to chance.
    let sql = "SELECT
        (extract(epoch FROM (b.value ->> 'at')::timestamptz - (a.value ->> 'at')::timestamptz) * 1000)::int8 AS ms
        FROM sea_mq.inbox_messages m, jsonb_array_elements(m.errors) WITH ORDINALITY a,
            jsonb_array_elements(m.errors) WITH ORDINALITY b
        WHERE m.subscription = 'app__four' AND b.ordinality = a.ordinality + 1 ORDER BY a.ordinality";
    let pauses: Vec<i64> = db.values(sql, &[]).await;
    assert!(pauses.len() == 3 && pauses[0] >= 100 && pauses[1] >= 150 && pauses[2] >= 150, "{pauses:?}");
}

/// Detected in the handler: the test's session does not look.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadlock_does_not_count_as_a_failed_attempt() {
    let stage = prepared("deadlock", StageOptions::default().setting("deadlock_timeout", "3s")).await;
    let db = stage.connect().await;
    db.run(
        "CREATE TABLE locks (id int PRIMARY KEY);
         INSERT INTO locks VALUES (1), (2);
         CREATE FUNCTION lock_both(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$
         BEGIN
             PERFORM FROM locks WHERE id = 1 FOR UPDATE;
             PERFORM FROM locks WHERE id = 2 FOR UPDATE;
             PERFORM record(e);
         END $$;
         SELECT sea_mq.subscribe('app__locks', 'orders', 'lock_both', max_deliver => 1, timeout => '1 minute')",
    )
    .await;
    db.run("SET deadlock_timeout = '1h'; BEGIN; SELECT FROM locks WHERE id = 2 FOR UPDATE").await;
    emit_numbers(&stage.connect().await, 1, 1).await;
    let waiting = "SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT l.granted
        AND a.backend_type LIKE 'sea_mq%')";
    until("the handler waits for the second row", SOON, async || ask(&stage, waiting).await == Some(true)).await;
    db.run("SELECT FROM locks WHERE id = 1 FOR UPDATE; COMMIT; RESET deadlock_timeout").await;
    let message = until_status(&db, "app__locks", 1, "processed").await;
    assert_eq!(message["attempts"], 1, "{message}");
    assert!(stage.cluster.log().contains("deadlock detected"), "there was no deadlock");
    assert_handled_once(&stage, "app__locks", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_ends_the_process_is_a_dead_letter_in_the_end_and_the_others_are_handled_once() {
    let stage = prepared("terminating", StageOptions::default()).await;
    let db = stage.connect().await;
    db.run(
        "CREATE FUNCTION suicidal(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$
         BEGIN
             PERFORM record(e);
             IF (e.payload ->> 'n')::int = 5 THEN PERFORM pg_terminate_backend(pg_backend_pid()), pg_sleep(60); END IF;
         END $$;
         SELECT sea_mq.subscribe('app__end', 'orders', 'suicidal', max_deliver => 3, retry_delay => '1 ms')",
    )
    .await;
    emit_numbers(&db, 1, 10).await;
    // This session sees that the server itself is not affected.
    let message = until_status(&db, "app__end", 5, "dead").await;
    assert_eq!(message["attempts"], 3, "{message}");
    assert_eq!(texts(&message["errors"], "kind"), ["crash"; 3], "{message}");
    emit_numbers(&db, 11, 12).await;
    until_recorded(&stage, 11).await;
    holds_for("nothing is handled again", A_WHILE, async || recorded(&db, "app__end").await.len() == 11).await;
    ledger::assert_same_set(&[1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12], &recorded(&db, "app__end").await);
    stage.broker.until_count("ORDERS_DLQ", 1, SOON).await;
    until_acknowledged(&stage, "app__end").await;
}

/// As by a bug in a library: each attempt brings the whole server down.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_crashes_the_server_is_a_dead_letter_in_the_end_and_the_others_are_handled_once() {
    let stage = prepared("crashing", StageOptions::default()).await;
    let db = stage.connect().await;
    db.run(
        "CREATE FUNCTION lethal(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$
         BEGIN
             PERFORM record(e);
             IF (e.payload ->> 'n')::int = 5 THEN COPY (SELECT 1) TO PROGRAM 'kill -9 $PPID'; END IF;
         END $$;
         SELECT sea_mq.subscribe('app__crash', 'orders', 'lethal', max_deliver => 2, retry_delay => '1 ms')",
    )
    .await;
    emit_numbers(&db, 1, 10).await;
    let dead = "SELECT to_jsonb(m) FROM sea_mq.inbox_messages m WHERE payload ->> 'n' = '5' AND status = 'dead'";
    let message: Value =
        harness::until_some("the message is dead", LONG, async || ask::<Value>(&stage, dead).await).await;
    assert_eq!(message["attempts"], 2, "{message}");
    assert_eq!(texts(&message["errors"], "kind"), ["crash"; 2], "{message}");
    until_recorded(&stage, 9).await;
    let db = stage.connect().await;
    holds_for("nothing is handled again", A_WHILE, async || recorded(&db, "app__crash").await.len() == 9).await;
    ledger::assert_same_set(&[1, 2, 3, 4, 6, 7, 8, 9, 10], &recorded(&db, "app__crash").await);
    stage.broker.until_count("ORDERS_DLQ", 1, SOON).await;
}

/// The handler survives the first timeout, and would never end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_ignores_its_timeout_does_not_stop_the_subscription() {
    let stage = prepared("stubborn", StageOptions::default()).await;
    let db = stage.connect().await;
    db.run(
        "CREATE FUNCTION stubborn(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$
         BEGIN
             WHILE (e.payload ->> 'n')::int = 3 LOOP
                 BEGIN PERFORM pg_sleep(600); EXCEPTION WHEN query_canceled THEN NULL; END;
             END LOOP;
             PERFORM record(e);
         END $$;
         SELECT sea_mq.subscribe('app__stubborn', 'orders', 'stubborn', max_deliver => 2,
            retry_delay => '1 ms', timeout => '1 s')",
    )
    .await;
    emit_numbers(&db, 1, 5).await;
    until_status(&db, "app__stubborn", 3, "dead").await;
    until_status(&db, "app__stubborn", 5, "processed").await;
    assert_eq!(recorded(&db, "app__stubborn").await.len(), 4);
}

/// That other messages are handled in the same transaction is not the handler's business.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_may_make_temporary_tables_take_locks_and_notify() {
    let stage = prepared("temporary", StageOptions::default()).await;
    let db = stage.connect().await;
    emit_numbers(&db, 1, 200).await;
    db.run(
        "CREATE FUNCTION makeshift(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$
         BEGIN
             CREATE TEMP TABLE work ON COMMIT DROP AS SELECT e.payload;
             PERFORM pg_advisory_lock(42);
             NOTIFY handled;
             PERFORM record(e) FROM work;
         END $$;
         SELECT sea_mq.subscribe('app__makeshift', 'orders', 'makeshift', start_from => 'all', retry_delay => '1 ms')",
    )
    .await;
    assert_handled_once(&stage, "app__makeshift", 200).await;
    let attempts: i32 = db.value("SELECT max(attempts) FROM sea_mq.inbox_messages", &[]).await;
    assert_eq!(attempts, 1);
    until("the lock is free", SOON, async || db.value("SELECT pg_try_advisory_lock(42)", &[]).await).await;
}

/// What was deferred runs when the handlers are long done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_handler_leaves_for_the_commit_is_bounded_in_time_too() {
    let stage = prepared("deferred_sleep", StageOptions::default()).await;
    let db = stage.connect().await;
    db.run(
        "CREATE FUNCTION doze() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF NEW.n = 3 THEN PERFORM pg_sleep(600); END IF;
             RETURN NULL;
         END $$;
         CREATE CONSTRAINT TRIGGER doze AFTER INSERT ON effects DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION doze();
         SELECT sea_mq.subscribe('app__doze', 'orders', 'record', max_deliver => 2,
            retry_delay => '1 ms', timeout => '1 s')",
    )
    .await;
    emit_numbers(&db, 1, 5).await;
    let message = until_status(&db, "app__doze", 3, "dead").await;
    assert_eq!(texts(&message["errors"], "kind"), ["timeout"; 2], "{message}");
    until_status(&db, "app__doze", 5, "processed").await;
    until_recorded(&stage, 4).await;
    ledger::assert_same_set(&[1, 2, 4, 5], &recorded(&db, "app__doze").await);
}

/// As a transaction that cannot be serialised does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conflict_that_shows_at_the_commit_does_not_count_as_a_failed_attempt() {
    let stage = prepared("deferred_conflict", StageOptions::default()).await;
    let db = stage.connect().await;
    db.run(
        "CREATE SEQUENCE tries;
         CREATE FUNCTION conflict() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF NEW.n = 3 AND nextval('tries') <= 3 THEN RAISE serialization_failure; END IF;
             RETURN NULL;
         END $$;
         CREATE CONSTRAINT TRIGGER conflict AFTER INSERT ON effects DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION conflict();
         SELECT sea_mq.subscribe('app__conflict', 'orders', 'record', max_deliver => 1)",
    )
    .await;
    emit_numbers(&db, 1, 5).await;
    let message = until_status(&db, "app__conflict", 3, "processed").await;
    assert_eq!(message["attempts"], 1, "{message}");
    assert_handled_once(&stage, "app__conflict", 5).await;
}

/// At the isolation level of the database. The rival commits when the handler has read and written, and is not done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_cannot_be_serialised_is_tried_again_and_not_counted() {
    let options = StageOptions::default().setting("default_transaction_isolation", "serializable");
    let stage = prepared("serializable", options).await;
    let db = stage.connect().await;
    db.run(
        "CREATE TABLE tally (n bigint, level text);
         CREATE FUNCTION count_up(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$
         BEGIN
             PERFORM record(e);
             INSERT INTO tally SELECT count(*) + 1, current_setting('transaction_isolation') FROM tally;
             PERFORM pg_advisory_xact_lock_shared(7);
         END $$;
         SELECT sea_mq.subscribe('app__tally', 'orders', 'count_up', max_deliver => 1, timeout => '1 minute')",
    )
    .await;
    db.run("SELECT pg_advisory_lock(7)").await;
    emit_numbers(&db, 1, 3).await;
    let waiting = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)";
    until("the handler is about to end", SOON, async || ask(&stage, waiting).await == Some(true)).await;
    db.run("INSERT INTO tally SELECT count(*) + 1, 'serializable' FROM tally").await;
    db.run("SELECT pg_advisory_unlock(7)").await;
    assert_handled_once(&stage, "app__tally", 3).await;
    let tally: Vec<i64> = db.values("SELECT n FROM tally WHERE level = 'serializable' ORDER BY n", &[]).await;
    assert_eq!(tally, [1, 2, 3, 4]);
    let attempts: i32 = db.value("SELECT max(attempts) FROM sea_mq.inbox_messages", &[]).await;
    assert_eq!(attempts, 1);
    assert!(stage.cluster.log().contains("could not serialize access"), "there was no conflict");
}

/// Errors that the handler has caught and dealt with are not what it ends with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_error_that_counts_is_the_one_that_ends_the_handler() {
    let stage = prepared("caught", StageOptions::default()).await;
    let db = stage.connect().await;
    db.run(
        "CREATE FUNCTION cautious(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$
         BEGIN
             PERFORM record(e);
             RAISE EXCEPTION 'the cause' USING ERRCODE = 'XY001';
         EXCEPTION WHEN OTHERS THEN
             BEGIN
                 PERFORM sea_mq.skip('cannot even say so');
             EXCEPTION WHEN OTHERS THEN NULL;
             END;
             IF (e.payload ->> 'n')::int = 1 THEN RAISE; END IF;
             PERFORM record(e);
         END $$;
         SELECT sea_mq.subscribe('app__cautious', 'orders', 'cautious', max_deliver => 1)",
    )
    .await;
    emit_numbers(&db, 1, 2).await;
    until_status(&db, "app__cautious", 2, "processed").await;
    let message = until_status(&db, "app__cautious", 1, "dead").await;
    assert_eq!(texts(&message["errors"], "sqlstate"), ["XY001"], "{message}");
    assert_eq!(message["processing_error"], "the cause", "{message}");
    assert_eq!(recorded(&db, "app__cautious").await, [2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_may_pause_or_end_its_own_subscription() {
    let stage = prepared("own_subscription", StageOptions::default()).await;
    let db = stage.connect().await;
    db.run(
        "CREATE FUNCTION breaker(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$
         BEGIN
             IF (e.payload ->> 'n')::int = 5 THEN PERFORM sea_mq.pause_subscription('app__breaker'); END IF;
             IF (e.payload ->> 'n')::int = 25 THEN PERFORM sea_mq.unsubscribe('app__breaker'); END IF;
             PERFORM record(e);
         END $$;
         SELECT sea_mq.subscribe('app__breaker', 'orders', 'breaker'),
            sea_mq.subscribe('app__other', 'orders', 'record')",
    )
    .await;
    emit_numbers(&db, 1, 10).await;
    until_state(&db, "app__breaker", "state = 'paused'").await;
    emit_numbers(&db, 11, 20).await;
    until_status(&db, "app__other", 20, "processed").await;
    holds_for("the paused subscription rests", A_WHILE, async || {
        recorded(&db, "app__breaker").await.iter().all(|n| *n <= 10)
    })
    .await;
    db.run("SELECT sea_mq.resume_subscription('app__breaker')").await;
    until("all are handled", SOON, async || recorded(&db, "app__breaker").await.len() >= 20).await;
    emit_numbers(&db, 21, 30).await;
    until("the subscription is gone", SOON, async || {
        db.value("SELECT count(*) = 1 FROM sea_mq.subscriptions", &[]).await
    })
    .await;
    emit_numbers(&db, 31, 40).await;
    until_status(&db, "app__other", 40, "processed").await;
    let handled = recorded(&db, "app__breaker").await;
    assert!(handled.len() >= 25 && handled.len() <= 30, "{handled:?}");
    assert_eq!(recorded(&db, "app__other").await, (1..=40).collect::<Vec<i64>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_way_of_an_event_is_shown_step_by_step() {
    let stage = prepared("trace", StageOptions::default().setting("track_commit_timestamp", "on")).await;
    let db = stage.connect().await;
    db.run(
        "CREATE FUNCTION refuse(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE 'not today'; END $$;
         SELECT sea_mq.subscribe('app__good', 'orders', 'record'), sea_mq.subscribe('app__bad', 'orders', 'refuse', retry_delay => '1 h',
            retry_delay_max => '1 h')",
    )
    .await;
    emit_numbers(&db, 1, 1).await;
    let id: uuid::Uuid = db.value("SELECT id FROM sea_mq.outbox_events", &[]).await;
    let sql =
        "SELECT string_agg(concat_ws(' ', step, place, detail), ', ' ORDER BY step, place) FROM sea_mq.event_trace($1)";
    let expected = "attempted app__bad attempt 1, attempted app__good attempt 1, committed, emitted orders.event.counted.v1, \
        failed app__bad not today, processed app__good, received app__bad, received app__good, stored ORDERS_EVENTS sequence 1";
    until("the way is complete", SOON, async || {
        db.value::<Option<String>>(sql, &[&id]).await.is_some_and(|way| way.split(", ").count() == 9)
    })
    .await;
    assert_eq!(db.value::<String>(sql, &[&id]).await, expected);
    let first: bool =
        db.value("SELECT step = 'emitted' AND after = '0' FROM sea_mq.event_trace($1) LIMIT 1", &[&id]).await;
    assert!(first);
    let later: bool =
        db.value("SELECT bool_and(after > '30 min') FROM sea_mq.event_trace($1) WHERE step = 'failed'", &[&id]).await;
    assert!(later, "a step that is to come has its time");
    assert_eq!(db.value::<i64>("SELECT count(*) FROM sea_mq.event_trace(gen_random_uuid())", &[]).await, 0);
}
