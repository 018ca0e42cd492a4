//! Applications that handle messages themselves: each message is somebody's, and completed in a transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use harness::{Database, Stage, holds_for, ledger, until, until_some};
use tokio::task::JoinSet;
use tokio_postgres::error::SqlState;

use crate::receiving::{
    self, LONG, emit_numbers, until_acknowledged, until_it_waits, until_provisioned, until_state, until_status,
};
use crate::{A_WHILE, SOON};

/// A stage with the subscription `app__pull`, whose messages wait for `receive`.
async fn prepared(name: &str, options: &str) -> (Stage, Database) {
    let stage = receiving::prepared(name).await;
    let db = stage.connect().await;
    db.run(&format!("SELECT sea_mq.subscribe('app__pull', 'orders', {options})")).await;
    (stage, db)
}

/// Receives one message, once there is one, and returns its id.
async fn receive_one(db: &Database, lease: &str) -> i64 {
    let sql = format!("SELECT id FROM sea_mq.receive('app__pull', 1, '{lease}')");
    until_some("a message to receive", SOON, async || db.values::<i64>(&sql, &[]).await.pop()).await
}

/// What one client does until all is done. Now and then it gives up what it has, in one of the ways that there are.
async fn work(db: Database, done: Arc<AtomicI64>, all: i64) {
    let mut round = 0;
    while done.load(Ordering::SeqCst) < all {
        round += 1;
        let rows = db.query("SELECT id, message_id, payload FROM sea_mq.receive('app__pull', 20, '2 s')", &[]);
        let rows = rows.await.expect("cannot receive");
        if rows.is_empty() {
            tokio::task::yield_now().await;
            continue;
        }
        db.run("BEGIN").await;
        let mut all_ours = true;
        for row in &rows {
            let (id, message_id, payload): (i64, String, serde_json::Value) = (row.get(0), row.get(1), row.get(2));
            let sql = "INSERT INTO effects (subscription, message_id, n) VALUES ('app__pull', $1, $2)";
            db.execute(sql, &[&message_id, &payload["n"].as_i64()]).await.expect("cannot insert");
            match db.execute("SELECT sea_mq.complete($1)", &[&id]).await {
                Ok(_) => {}
                Err(error) if error.code() == Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE) => {
                    all_ours = false;
                    break;
                }
                Err(error) => panic!("cannot complete: {error:?}"),
            }
        }
        if !all_ours {
            // It was too slow, and somebody else has completed one of them.
            db.run("ROLLBACK").await;
        } else if round % 5 == 0 {
            // As a client that fails does.
            db.run("ROLLBACK").await;
            for row in &rows {
                let status: String = db.value("SELECT sea_mq.fail($1, 'gave up', '0')", &[&row.get::<_, i64>(0)]).await;
                assert_eq!(status, "failed");
            }
        } else if round % 7 == 0 {
            // As a client that dies does: its leases run out.
            db.run("ROLLBACK").await;
        } else {
            db.run("COMMIT").await;
            done.fetch_add(i64::try_from(rows.len()).expect("it is small"), Ordering::SeqCst);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_at_once_complete_each_message_once() {
    const COUNT: i64 = 2000;
    let (stage, db) = prepared("pull_many", "max_ack_pending => 500, max_deliver => -1").await;
    emit_numbers(&db, 1, COUNT).await;
    let done = Arc::new(AtomicI64::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..8 {
        clients.spawn(work(stage.connect().await, Arc::clone(&done), COUNT));
    }
    let finished = tokio::time::timeout(LONG, async {
        while let Some(client) = clients.join_next().await {
            client.expect("a client failed")
        }
    });
    finished.await.unwrap_or_else(|_| panic!("{} of {COUNT} are done", done.load(Ordering::SeqCst)));
    let numbers: Vec<i64> = db.values("SELECT n FROM effects", &[]).await;
    ledger::assert_same_set(&(1..=COUNT).collect::<Vec<i64>>(), &numbers);
    until_state(&db, "app__pull", &format!("processed = {COUNT} AND received = 0 AND processing = 0 AND retrying = 0"))
        .await;
    until_acknowledged(&stage, "app__pull").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_whose_lease_runs_out_is_somebody_else_s() {
    let (stage, db) = prepared("pull_lease", "max_deliver => 3").await;
    let other = stage.connect().await;
    emit_numbers(&db, 1, 1).await;
    let id = receive_one(&db, "2 s").await;
    let again = "SELECT id FROM sea_mq.receive('app__pull', 10)";
    assert_eq!(other.values::<i64>(again, &[]).await, Vec::<i64>::new());
    until_status(&db, "app__pull", 1, "processing").await;
    db.run(&format!("SELECT sea_mq.extend_lease({id}, '1 hour')")).await;
    holds_for("the lease goes on", A_WHILE, async || other.values::<i64>(again, &[]).await.is_empty()).await;
    db.run(&format!("SELECT sea_mq.extend_lease({id}, '10 ms')")).await;
    assert_eq!(receive_one(&other, "1 hour").await, id);
    let message = until_status(&db, "app__pull", 1, "processing").await;
    assert_eq!(message["attempts"], 2, "{message}");
    assert_eq!(message["errors"][0]["kind"], "lease", "{message}");

    // Both believe that they have it: who completes it second has to roll back.
    other.run("BEGIN; INSERT INTO effects (n) VALUES (1)").await;
    other.run(&format!("SELECT sea_mq.complete({id})")).await;
    db.run("BEGIN; INSERT INTO effects (n) VALUES (1)").await;
    let complete = format!("SELECT sea_mq.complete({id})");
    let (refused, ()) = tokio::join!(db.refusal(&complete), async {
        until_it_waits(&stage, &complete).await;
        other.run("COMMIT").await;
    });
    assert_eq!(refused, SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    db.run("ROLLBACK").await;
    for sql in ["complete({})", "fail({}, 'no')", "reject({}, 'no')", "extend_lease({})"] {
        let sql = format!("SELECT sea_mq.{}", sql.replace("{}", &id.to_string()));
        assert_eq!(db.refusal(&sql).await, SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, "{sql}");
    }
    assert_eq!(db.value::<i64>("SELECT count(*) FROM effects", &[]).await, 1);
    until_status(&db, "app__pull", 1, "processed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_received_message_is_completed_failed_or_rejected() {
    let (stage, db) = prepared("pull_outcomes", "max_deliver => 3").await;
    emit_numbers(&db, 1, 1).await;
    let id = receive_one(&db, "1 hour").await;
    db.run(&format!("BEGIN; SELECT sea_mq.complete({id}); ROLLBACK")).await;
    until_status(&db, "app__pull", 1, "processing").await;
    db.run(&format!("SELECT sea_mq.complete({id})")).await;
    until_status(&db, "app__pull", 1, "processed").await;

    emit_numbers(&db, 2, 2).await;
    for (attempt, status) in [(1, "failed"), (2, "failed"), (3, "dead")] {
        let id = receive_one(&db, "1 hour").await;
        let found: String = db.value("SELECT sea_mq.fail($1, 'attempt ' || $2::int, '0')", &[&id, &attempt]).await;
        assert_eq!(found, status);
    }
    let message = until_status(&db, "app__pull", 2, "dead").await;
    let errors: Vec<&str> =
        message["errors"].as_array().expect("a history").iter().filter_map(|one| one["error"].as_str()).collect();
    assert_eq!(errors, ["attempt 1", "attempt 2", "attempt 3"], "{message}");

    emit_numbers(&db, 3, 3).await;
    let id = receive_one(&db, "1 hour").await;
    db.run(&format!("SELECT sea_mq.reject({id}, 'unreadable')")).await;
    until_status(&db, "app__pull", 3, "dead").await;
    let letters: Vec<String> = db
        .values(
            "SELECT concat_ws(' ', payload ->> 'n', reason, failure_count, error) FROM sea_mq.dlq_messages ORDER BY id",
            &[],
        )
        .await;
    assert_eq!(letters, ["2 exhausted 3 attempt 3", "3 poison 1 unreadable"]);
    stage.broker.until_count("ORDERS_DLQ", 2, SOON).await;

    emit_numbers(&db, 4, 4).await;
    let id = receive_one(&db, "1 hour").await;
    db.run(&format!("SELECT sea_mq.fail({id}, 'later', '1 hour')")).await;
    let next = "SELECT next_attempt_at > now() + '50 minutes' FROM sea_mq.inbox_messages WHERE payload ->> 'n' = '4'";
    assert!(db.value::<bool>(next, &[]).await);

    db.run("SELECT sea_mq.subscribe('app__handled', 'orders', 'record')").await;
    assert_eq!(db.refusal("SELECT sea_mq.receive('app__handled')").await, SqlState::UNDEFINED_OBJECT);
    assert_eq!(db.refusal("SELECT sea_mq.receive('app__none')").await, SqlState::UNDEFINED_OBJECT);
    assert_eq!(db.refusal("SELECT sea_mq.receive('app__pull', 0)").await, SqlState::INVALID_PARAMETER_VALUE);
}

/// Messages that nobody receives do not pile up here without bound, and those behind them are not lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_nobody_receives_wait_in_the_stream() {
    let (stage, db) = prepared("pull_backlog", "max_ack_pending => 20").await;
    until_provisioned(&stage, "app__pull").await;
    emit_numbers(&db, 1, 500).await;
    until_state(&db, "app__pull", "received > 0").await;
    holds_for("the rest stays in the stream", A_WHILE, async || {
        db.value("SELECT count(*) <= 40 FROM sea_mq.inbox_messages", &[]).await
    })
    .await;
    let mut numbers = Vec::new();
    until("all is received and completed", LONG, async || {
        let sql = "WITH taken AS MATERIALIZED (SELECT id, (payload ->> 'n')::bigint AS n
                FROM sea_mq.receive('app__pull', 100))
            SELECT n FROM taken, sea_mq.complete(id)";
        numbers.extend(db.values::<i64>(sql, &[]).await);
        numbers.len() >= 500
    })
    .await;
    ledger::assert_same_set(&(1..=500).collect::<Vec<i64>>(), &numbers);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_accepted_once_whoever_asks_at_the_same_time() {
    let stage = Stage::new("accept").await;
    let (first, second) = (stage.connect().await, stage.connect().await);
    let accept =
        |id: &str| format!("SELECT sea_mq.inbox_accept('{id}', 'orders', 'OrderPlaced', '{{\"n\": 1}}', 'app__own')");
    // The second waits for the first, and gets the opposite of what becomes of it.
    for (id, end, expected) in [("a", "COMMIT", false), ("b", "ROLLBACK", true)] {
        first.run("BEGIN").await;
        assert!(first.value::<bool>(&accept(id), &[]).await);
        let sql = accept(id);
        let (accepted, ()) = tokio::join!(second.value::<bool>(&sql, &[]), async {
            until_it_waits(&stage, &sql).await;
            first.run(end).await;
        });
        assert_eq!(accepted, expected, "{end}");
        assert!(!first.value::<bool>(&sql, &[]).await, "{end}");
    }
    // For another subscription it is another message.
    assert!(
        first.value::<bool>("SELECT sea_mq.inbox_accept('a', 'orders', 'OrderPlaced', '{}', 'app__other')", &[]).await
    );

    let mut sessions = JoinSet::new();
    for _ in 0..10 {
        let db = stage.connect().await;
        sessions.spawn(async move {
            let sql = "SELECT sea_mq.inbox_accept('many ' || $1::int, 'orders', 'OrderPlaced', '{}', 'app__many')";
            let mut accepted: Vec<i32> = Vec::new();
            for n in 1..=300 {
                if db.value::<bool>(sql, &[&n]).await {
                    accepted.push(n);
                }
            }
            accepted
        });
    }
    let accepted: Vec<i32> = sessions.join_all().await.concat();
    ledger::assert_same_set(&(1..=300).collect::<Vec<i32>>(), &accepted);
    let rows: i64 = first
        .value("SELECT count(*) FROM sea_mq.inbox_messages WHERE subscription = 'app__many' AND processed", &[])
        .await;
    assert_eq!(rows, 300);
}

/// A receiver that waits is given what comes, and holds nothing meanwhile: no transaction id, no lock on a row, and a snapshot
/// for no longer than its statement.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_waits_gets_what_comes_and_is_in_nobody_s_way() {
    let (stage, db) = prepared("pull_wait", "ack_wait => '30 s'").await;
    until_provisioned(&stage, "app__pull").await;
    let waiter = stage.connect().await;
    let pid: i32 = waiter.value("SELECT pg_backend_pid()", &[]).await;
    let receive =
        "SELECT (payload ->> 'n')::bigint FROM sea_mq.receive('app__pull', lease => '1 hour', wait => '30 s')";
    let waits = "SELECT count(*) = 1 AND bool_and(backend_xid IS NULL) FROM pg_stat_activity
        WHERE pid = $1 AND state = 'active' AND wait_event = 'PgSleep'";
    let (numbers, ()) = tokio::join!(waiter.values::<i64>(receive, &[]), async {
        until("it waits without a transaction id", SOON, async || db.value(waits, &[&pid]).await).await;
        emit_numbers(&db, 1, 1).await;
    });
    assert_eq!(numbers, [1]);

    // Whoever has nothing to wait for does not wait, and a lease that runs out ends a wait as well.
    let short = "SELECT (payload ->> 'n')::bigint FROM sea_mq.receive('app__pull', lease => '300 ms', wait => '30 s')";
    emit_numbers(&db, 2, 2).await;
    assert_eq!(waiter.values::<i64>(short, &[]).await, [2]);
    assert_eq!(waiter.values::<i64>(receive, &[]).await, [2]);

    let (cancelled, ()) = tokio::join!(waiter.refusal(receive), async {
        until("it waits", SOON, async || db.value(waits, &[&pid]).await).await;
        db.run(&format!("SELECT pg_cancel_backend({pid})")).await;
    });
    assert_eq!(cancelled, SqlState::QUERY_CANCELED);
    waiter.run("SET statement_timeout = '200 ms'").await;
    assert_eq!(waiter.refusal(receive).await, SqlState::QUERY_CANCELED);
}

/// Clients that ask for it never have two events of one aggregate at once, and get each aggregate's in order, whatever fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn per_aggregate_no_two_clients_have_events_of_one_and_order_survives_failures() {
    const COUNT: i64 = 500;
    const CLIENTS: usize = 4;
    let (stage, db) =
        prepared("pull_aggregate", "max_ack_pending => 200, max_deliver => -1, retry_delay => '10 ms'").await;
    until_provisioned(&stage, "app__pull").await;
    db.run("CREATE TABLE had (place bigserial, aggregate text, n bigint); CREATE UNIQUE INDEX in_hand ON had (aggregate) WHERE n IS NULL").await;
    emit_numbers(&db, 1, COUNT).await;
    let done = Arc::new(AtomicI64::new(0));
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let (db, done) = (stage.connect().await, Arc::clone(&done));
        clients.spawn(async move {
            let receive = "SELECT id, aggregate_id, (payload ->> 'n')::bigint FROM sea_mq.receive('app__pull', 5, '1 min', wait => '100 ms', per_aggregate => true)";
            let mut round = client;
            while done.load(Ordering::SeqCst) < COUNT {
                for row in db.query(receive, &[]).await.expect("cannot receive") {
                    let (id, aggregate, n): (i64, String, i64) = (row.get(0), row.get(1), row.get(2));
                    round += 1;
                    // The unique index refuses an aggregate that somebody has in hand.
                    db.execute("INSERT INTO had (aggregate) VALUES ($1)", &[&aggregate]).await.expect("nobody else has the aggregate");
                    db.run("BEGIN").await;
                    db.execute("DELETE FROM had WHERE aggregate = $1 AND n IS NULL", &[&aggregate]).await.expect("cannot let go");
                    if round % 7 == 0 {
                        db.execute("SELECT sea_mq.fail($1, 'later', '0')", &[&id]).await.expect("cannot fail");
                        db.run("COMMIT").await;
                        continue;
                    }
                    db.execute("INSERT INTO had (aggregate, n) VALUES ($1, $2)", &[&aggregate, &n]).await.expect("cannot record");
                    db.execute("SELECT sea_mq.complete($1)", &[&id]).await.expect("cannot complete");
                    db.run("COMMIT").await;
                    done.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
    }
    clients.join_all().await;
    let disorder: i64 = db
        .value("SELECT count(*) FROM (SELECT n < lag(n) OVER (PARTITION BY aggregate ORDER BY place) AS late FROM had) h WHERE late", &[])
        .await;
    assert_eq!(disorder, 0);
    ledger::assert_same_set(&(1..=COUNT).collect::<Vec<i64>>(), &db.values::<i64>("SELECT n FROM had", &[]).await);
}
