//! A transaction with more events than memory is for, and no room for them on disk: what fails is rolled back, and nothing
//! else is lost.

use harness::{Chance, Database, Stage, StageOptions, holds_for, isolate_mounts, ledger, mount_small, unmount, until};
use tokio_postgres::error::SqlState;

use crate::receiving::{LONG, until_state};
use crate::{A_WHILE, SOON};

/// A stage whose events stay in the log, and a session with little memory and this much room on disk.
async fn prepared(name: &str, limit: &str) -> (Stage, Database) {
    let stage = StageOptions { no_url: true, ..StageOptions::default() }.start(name).await;
    let db = stage.connect().await;
    db.run(&format!("SET work_mem = '64kB'; SET temp_file_limit = '{limit}'")).await;
    (stage, db)
}

/// Emits events with these numbers, about a kilobyte each.
fn emit(first: i64, last: i64) -> String {
    format!(
        "DO $$ BEGIN FOR n IN {first}..{last} LOOP
            PERFORM sea_mq.emit('order', '1', 'Counted', jsonb_build_object('n', n, 'text', repeat('x', 1000)));
        END LOOP; END $$;"
    )
}

/// More than there is room for.
fn emit_too_many() -> String {
    emit(1_000_001, 1_008_000)
}

/// The numbers of the events that committed, in their order.
async fn numbers(db: &Database) -> Vec<i64> {
    db.values("SELECT (payload ->> 'n')::int8 FROM sea_mq.outbox_events ORDER BY seq", &[]).await
}

/// The numbers of the events that the transaction will send. The function's result is to have room, too.
async fn pending(db: &Database) -> Vec<i64> {
    db.run("SAVEPOINT look; SET LOCAL work_mem = '1GB'").await;
    let numbers = db.values("SELECT (payload ->> 'n')::int8 FROM sea_mq.pending_events()", &[]).await;
    db.run("ROLLBACK TO look; RELEASE look").await;
    numbers
}

fn up_to(last: i64) -> Vec<i64> {
    (1..=last).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spill_that_fails_beside_a_sort_takes_its_savepoint_and_nothing_else() {
    let (stage, db) = prepared("spill_sort", "6MB").await;
    let watcher = stage.connect().await;
    for (round, sorted) in (0..).zip([30_000, 60_000, 80_000]) {
        let (first, second) = (2 * round + 1, 2 * round + 2);
        db.run(&format!("BEGIN; {}", emit(first, first))).await;
        db.run(&format!(
            "DECLARE c CURSOR FOR SELECT md5(n::text) FROM generate_series(1, {sorted}) n ORDER BY 1;
             FETCH 1 FROM c; SAVEPOINT s"
        ))
        .await;
        assert_eq!(db.refusal(&emit_too_many()).await, SqlState::CONFIGURATION_LIMIT_EXCEEDED, "{sorted}");
        db.run(&format!("ROLLBACK TO s; {} COMMIT", emit(second, second))).await;
        assert_eq!(numbers(&db).await, up_to(second), "{sorted}");
    }
    // No session was ended: the server did not crash.
    watcher.run("SELECT").await;
    assert_eq!(db.notices(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_memory_when_a_spill_fails_stays_there() {
    let (_stage, db) = prepared("spill_memory", "300kB").await;
    db.run(&format!("BEGIN; {} SAVEPOINT s", emit(1, 1))).await;
    assert_eq!(db.refusal(&emit_too_many()).await, SqlState::CONFIGURATION_LIMIT_EXCEEDED);
    db.run("ROLLBACK TO s").await;
    assert_eq!(pending(&db).await, [1]);
    db.run(&format!("{} COMMIT", emit(2, 2))).await;
    // An exception block is a savepoint, too; and a failure does not hinder the next spill from failing likewise.
    let failing = |n: i64| {
        let attempt = emit_too_many().replace("DO $$ BEGIN", "BEGIN").replace("END $$;", "");
        format!("{attempt} EXCEPTION WHEN configuration_limit_exceeded THEN PERFORM emit_one({n}); END;")
    };
    db.run(
        "CREATE FUNCTION emit_one(n int8) RETURNS void LANGUAGE sql AS
            $$ SELECT sea_mq.emit('order', '1', 'Counted', jsonb_build_object('n', n)) $$",
    )
    .await;
    db.run(&format!("DO $$ BEGIN PERFORM emit_one(3); {} {} PERFORM emit_one(6); END $$", failing(4), failing(5)))
        .await;
    assert_eq!(numbers(&db).await, up_to(6));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_on_disk_when_a_spill_fails_stays_there() {
    let (_stage, db) = prepared("spill_disk", "6MB").await;
    for (first, end, again) in
        [(1, "COMMIT", "SELECT"), (3_003, "PREPARE TRANSACTION 'spilled'", "COMMIT PREPARED 'spilled'")]
    {
        let last = first + 2_999;
        db.run(&format!("BEGIN; {} SAVEPOINT s", emit(first, last))).await;
        for _ in 0..2 {
            assert_eq!(db.refusal(&emit_too_many()).await, SqlState::CONFIGURATION_LIMIT_EXCEEDED);
            db.run("ROLLBACK TO s").await;
        }
        ledger::assert_same(&(first..=last).collect::<Vec<_>>(), &pending(&db).await);
        db.run(&format!("SAVEPOINT t; {} ROLLBACK TO t; {}", emit(-1_500, -1), emit(last + 1, last + 2))).await;
        db.run(end).await;
        db.run(again).await;
        ledger::assert_same(&up_to(last + 2), &numbers(&db).await);
    }
    // Where nothing catches it, all of the transaction fails; the next one finds nothing of it.
    db.run(&format!("BEGIN; {}", emit(-1, -1))).await;
    assert_eq!(db.refusal(&emit_too_many()).await, SqlState::CONFIGURATION_LIMIT_EXCEEDED);
    db.run("COMMIT").await;
    db.run(&emit(6_005, 6_005)).await;
    ledger::assert_same(&up_to(6_005), &numbers(&db).await);
    assert_eq!(db.notices(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_temporary_tablespace_costs_what_did_not_fit() {
    if !isolate_mounts() {
        eprintln!("skipped: mounting a small disk needs root");
        return;
    }
    let (stage, db) = prepared("spill_full", "-1").await;
    let disk = stage.directory.path().join("temporary");
    mount_small(&disk, 4);
    db.run(&format!("CREATE TABLESPACE small LOCATION '{}'", disk.display())).await;
    db.run("SET temp_tablespaces = 'small'").await;
    db.run(&format!("BEGIN; {} SAVEPOINT s", emit(1, 1_500))).await;
    for _ in 0..2 {
        assert_eq!(db.refusal(&emit_too_many()).await, SqlState::DISK_FULL);
        db.run("ROLLBACK TO s").await;
        ledger::assert_same(&up_to(1_500), &pending(&db).await);
    }
    // What fits goes where the failed write has been.
    db.run(&emit(1_501, 2_900)).await;
    assert_eq!(db.refusal(&format!("SAVEPOINT s; {}", emit_too_many())).await, SqlState::DISK_FULL);
    db.run(&format!("ROLLBACK TO s; {} COMMIT", emit(2_901, 2_901))).await;
    ledger::assert_same(&up_to(2_901), &numbers(&db).await);
    drop(db);
    unmount(&disk);
}

/// As often as not it is the table of the changed rows that does not fit: that is PostgreSQL's, and the statement fails as it
/// would without a capture.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_captured_statement_that_finds_no_room_leaves_rows_and_events_the_same() {
    let (_stage, db) = prepared("spill_capture", "4MB").await;
    db.run("CREATE TABLE items (id int8 PRIMARY KEY, t text); SELECT sea_mq.capture_table('items', 'item')").await;
    let mut last = 0;
    let mut failed = 0;
    for rows in [1_000, 3_000, 10_000, 30_000, 60_000] {
        db.run(&format!("BEGIN; INSERT INTO items VALUES ({}, 'first'); SAVEPOINT s", last + 1)).await;
        let insert =
            format!("INSERT INTO items SELECT {last} + 1 + n, repeat('x', 40) FROM generate_series(1, {rows}) n");
        let result = db.batch_execute(&insert).await;
        if let Err(error) = &result {
            assert_eq!(error.code(), Some(&SqlState::CONFIGURATION_LIMIT_EXCEEDED), "{rows}: {error}");
            failed += 1;
            db.run("ROLLBACK TO s").await;
        }
        last += if result.is_ok() { rows + 2 } else { 2 };
        db.run(&format!("INSERT INTO items VALUES ({last}, 'last'); COMMIT")).await;
        let ids: Vec<i64> = db.values("SELECT id FROM items ORDER BY id", &[]).await;
        let told = "SELECT (payload -> 'row' ->> 'id')::int8 FROM sea_mq.outbox_events ORDER BY seq";
        ledger::assert_same(&ids, &db.values(told, &[]).await);
        assert_eq!(ids.last(), Some(&last));
    }
    assert!((1..5).contains(&failed), "some of them have to fail, and some not: {failed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_finds_no_room_takes_no_event_of_its_neighbours() {
    const LAST: i64 = 30;
    let options = StageOptions::default().setting("temp_file_limit", "300kB").setting("work_mem", "64kB");
    let stage = options.start("spill_handler").await;
    let db = stage.connect().await;
    db.run(
        "SELECT sea_mq.create_stream('orders');
         CREATE TABLE effects (n int8);
         CREATE FUNCTION greedy(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$
         DECLARE n int8 := e.payload ->> 'n';
         BEGIN
             INSERT INTO effects VALUES (n);
             PERFORM sea_mq.emit('order', '1', 'Handled', jsonb_build_object('n', n), context => 'billing');
             IF n % 10 = 5 THEN
                 FOR i IN 1..4000 LOOP
                     PERFORM sea_mq.emit('order', '1', 'Handled', jsonb_build_object('n', -n, 'text', repeat('x', 1000)),
                         context => 'billing');
                 END LOOP;
             END IF;
         END $$;
         SELECT sea_mq.subscribe('app__greedy', 'orders', 'greedy', max_deliver => 1)",
    )
    .await;
    let sql = "SELECT count(sea_mq.emit('order', n::text, 'Counted', jsonb_build_object('n', n)))
        FROM generate_series(1, $1::int8) n";
    assert_eq!(db.value::<i64>(sql, &[&LAST]).await, LAST);
    let state = until_state(&db, "app__greedy", &format!("processed + dead = {LAST}")).await;
    assert_eq!(state["dead"], 3, "{state}");
    let expected: Vec<i64> = (1..=LAST).filter(|n| n % 10 != 5).collect();
    ledger::assert_same_set(&expected, &db.values("SELECT n FROM effects", &[]).await);
    let handled = "SELECT (payload ->> 'n')::int8 FROM sea_mq.outbox_events WHERE context = 'billing'";
    ledger::assert_same_set(&expected, &db.values(handled, &[]).await);
    stage.broker.until_count("BILLING_EVENTS", 27, SOON).await;
    holds_for("no more is stored", A_WHILE, async || stage.broker.count("BILLING_EVENTS").await == 27).await;
}

/// What a subtransaction had learnt of a stream is not true any more when it is rolled back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_gets_its_stream_though_a_savepoint_that_had_made_it_was_rolled_back() {
    let stage = Stage::new("stream_undone").await;
    let db = stage.connect().await;
    let emit = "SELECT sea_mq.emit('order', '1', 'Counted', '{\"n\": 1}', context => 'fresh')";
    db.run(&format!("BEGIN; SAVEPOINT s; SELECT sea_mq.create_stream('fresh'); {emit}; ROLLBACK TO s; {emit}; COMMIT"))
        .await;
    stage.broker.until_count("FRESH_EVENTS", 1, SOON).await;
    until("all is published", LONG, async || stage.status().await["ok"] == true).await;
}

/// A transaction as it should be: the numbers of its events, and where its savepoints began.
#[derive(Default)]
struct Model {
    numbers: Vec<i64>,
    savepoints: Vec<usize>,
}

impl Model {
    async fn roll_back(&mut self, db: &Database) {
        let Some(length) = self.savepoints.last() else { return };
        self.numbers.truncate(*length);
        db.run("ROLLBACK TO s").await;
    }
}

/// Any order of savepoints and of spills that succeed or fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn committed_work_has_its_events_whatever_failed_beside_it() {
    let (_stage, db) = prepared("spill_random", "-1").await;
    let (mut chance, transactions) = Chance::new(40);
    let (mut next, mut seen, mut failures) = (1, 0_i64, 0);
    for _ in 0..transactions {
        let limit = *chance.of(&["-1", "0", "300kB", "2MB", "4MB"]);
        let memory = *chance.of(&["64kB", "64kB", "1MB", "4MB"]);
        db.run(&format!("SET temp_file_limit = '{limit}'; SET work_mem = '{memory}'; BEGIN")).await;
        let mut model = Model::default();
        let mut fails = false;
        for _ in 0..chance.within(1..25) {
            match chance.within(0..10) {
                0..3 => {
                    db.run("SAVEPOINT s").await;
                    model.savepoints.push(model.numbers.len());
                }
                3 => model.roll_back(&db).await,
                4 if model.savepoints.pop().is_some() => db.run("RELEASE s").await,
                5 => ledger::assert_same(&model.numbers, &pending(&db).await),
                _ => {
                    let (count, size) = *chance.of(&[(1, 10), (3, 900_000), (20, 1_000), (1_000, 1_500), (5_000, 10)]);
                    let sql = "SELECT count(sea_mq.emit('order', '1', 'Counted',
                            jsonb_build_object('n', n, 'text', repeat('x', $3)),
                            event_id => CASE WHEN n % 7 = 0 THEN gen_random_uuid() END))
                        FROM generate_series($1::int8, $1 + $2::int8 - 1) n";
                    let (first, count): (i64, i64) = (next, count);
                    next += count;
                    match db.query(sql, &[&first, &count, &size]).await {
                        Ok(_) => model.numbers.extend(first..next),
                        Err(error) => {
                            assert_eq!(error.code(), Some(&SqlState::CONFIGURATION_LIMIT_EXCEEDED), "{error}");
                            failures += 1;
                            fails = model.savepoints.is_empty();
                            model.roll_back(&db).await;
                        }
                    }
                }
            }
            if fails {
                break;
            }
        }
        match chance.within(0..4) {
            0 => {
                db.run("ROLLBACK").await;
                model.numbers.clear();
            }
            1 if !fails => {
                db.run("PREPARE TRANSACTION 'random'").await;
                db.run("COMMIT PREPARED 'random'").await;
            }
            _ => {
                db.run("COMMIT").await;
                if fails {
                    model.numbers.clear();
                }
            }
        }
        let sql = "SELECT (payload ->> 'n')::int8, seq FROM sea_mq.outbox_events WHERE seq > $1 ORDER BY seq";
        let rows = db.query(sql, &[&seen]).await.expect("the log can be read");
        let found: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
        ledger::assert_same(&model.numbers, &found);
        seen = rows.last().map_or(seen, |row| row.get(1));
    }
    assert!(failures > 10, "spills have to fail: {failures}");
    assert_eq!(db.notices(), Vec::<String>::new());
}
