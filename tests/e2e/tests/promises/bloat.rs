//! A snapshot that somebody holds costs nobody anything: positions are appended, and nothing is updated for each batch.

use std::time::Duration;

use harness::{Database, EVENTS, Stage, StageOptions, until, until_some};

use crate::SOON;
use crate::receiving::{LONG, kill_consumer, make_recorder, until_recorded, until_state};

/// Tables that are queues: rows come and go.
const QUEUES: &str =
    "'inbox_pending', 'scheduled_events', 'message_deletions', 'stream_requests', 'consumer_deletions'";

/// A transaction that keeps its snapshot until it is dropped.
async fn old_snapshot(stage: &Stage) -> Database {
    let old = stage.connect().await;
    old.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class").await;
    old
}

async fn emit_each_alone(db: &Database, count: usize) {
    for _ in 0..count {
        db.run("SELECT sea_mq.emit('order', '1', 'Counted', '{\"n\": 1}')").await;
    }
}

/// Dead rows of all tables, the queues left out.
async fn dead(db: &Database) -> i64 {
    db.value(
        &format!(
            "SELECT coalesce(sum((pgstattuple(c.oid)).dead_tuple_count), 0)::bigint FROM pg_class c
             WHERE c.relnamespace = 'sea_mq'::regnamespace AND c.relkind = 'r' AND c.relname NOT IN ({QUEUES})"
        ),
        &[],
    )
    .await
}

/// Positions appended so far and blocks looked at for them, as far as the workers have reported both.
async fn cost(db: &Database) -> (i64, i64) {
    let row = db
        .query_one(
            "SELECT sum(t.n_tup_ins)::bigint,
                sum(o.heap_blks_read + o.heap_blks_hit + o.idx_blks_read + o.idx_blks_hit)::bigint
             FROM pg_stat_all_tables t JOIN pg_statio_all_tables o USING (relid)
             WHERE t.schemaname = 'sea_mq' AND t.relname ~ '^(cursor|progress)_log_'",
            &[],
        )
        .await
        .expect("cannot read the statistics");
    (row.get(0), row.get(1))
}

/// Emits one by one until so many positions have been saved, and says how many blocks one took. How many events a save
/// covers depends on the machine.
async fn blocks_per_position(db: &Database, positions: i64) -> f64 {
    let before = cost(db).await;
    let after = until_some("the positions are saved and the statistics reported", LONG, async || {
        emit_each_alone(db, 20).await;
        Some(cost(db).await).filter(|now| now.0 >= before.0 + positions)
    })
    .await;
    (after.1 - before.1) as f64 / (after.0 - before.0) as f64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_an_old_snapshot_saves_leave_nothing_dead_and_stay_as_cheap() {
    let stage = StageOptions::default().setting("autovacuum", "off").start("old_snapshot").await;
    let db = stage.connect().await;
    db.run("CREATE EXTENSION pgstattuple").await;
    make_recorder(&db).await;
    db.run("SELECT sea_mq.subscribe('app__all', 'orders', 'record', start_from => 'all')").await;
    emit_each_alone(&db, 10).await;
    until_state(&db, "app__all", "processed >= 10").await;
    let before = dead(&db).await;
    let old = old_snapshot(&stage).await;
    let first = blocks_per_position(&db, 100).await;
    let second = blocks_per_position(&db, 300).await;
    until("all is handled", LONG, async || {
        db.value(
            "SELECT (SELECT sum(processed) FROM sea_mq.subscription_status) = (SELECT last_value FROM sea_mq.outbox_seq)",
            &[],
        )
        .await
    })
    .await;
    until("the relay has saved a hundred positions", LONG, async || {
        emit_each_alone(&db, 20).await;
        db.value("SELECT count(*) > 100 FROM sea_mq.cursor_log", &[]).await
    })
    .await;
    let after = dead(&db).await;
    assert!(after <= before + 5, "{before} dead rows became {after}");
    assert!(second <= first * 1.5 + 2.0, "{first} blocks a position, later {second}");
    drop(old);
}

/// Blocks of the table of what waits that were looked at so far, once the workers have reported that: each does so within two
/// seconds.
async fn cost_of_waiting(db: &Database) -> i64 {
    tokio::time::sleep(Duration::from_secs(3)).await;
    let sql = "SELECT heap_blks_read + heap_blks_hit + idx_blks_read + idx_blks_hit FROM pg_statio_all_tables
        WHERE schemaname = 'sea_mq' AND relname = 'inbox_pending'";
    db.value(sql, &[]).await
}

/// Emits, a few at a time, when so many were handled before, has the pool handle that, and says how many blocks a message took.
async fn blocks_per_message(stage: &Stage, db: &Database, handled: i64, messages: i64) -> f64 {
    let before = cost_of_waiting(db).await;
    for batch in 1..=messages / 10 {
        let sql = "SELECT count(sea_mq.emit('order', i::text, 'Counted', '{\"n\": 1}')) FROM generate_series(1, 10) i";
        db.run(sql).await;
        until_recorded(stage, handled + batch * 10).await;
    }
    (cost_of_waiting(db).await - before) as f64 / messages as f64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_an_old_snapshot_what_waits_is_found_as_cheaply() {
    let stage = StageOptions::default().setting("autovacuum", "off").start("old_snapshot_waiting").await;
    let db = stage.connect().await;
    make_recorder(&db).await;
    db.run("SELECT sea_mq.subscribe('app__all', 'orders', 'record', workers => 2, start_from => 'all')").await;
    let old = old_snapshot(&stage).await;
    let first = blocks_per_message(&stage, &db, 0, 300).await;
    let more = "SELECT count(sea_mq.emit('order', i::text, 'Counted', '{\"n\": 1}')) FROM generate_series(1, 5000) i";
    db.run(more).await;
    until_recorded(&stage, 5300).await;
    let second = blocks_per_message(&stage, &db, 5300, 300).await;
    assert!(second < first * 3.0, "{first:.0} blocks for each message at first, {second:.0} after 5,300");
    drop(old);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn positions_and_counts_survive_the_turn_of_their_ring_and_a_crash() {
    let stage = Stage::new("turn").await;
    let db = stage.connect().await;
    make_recorder(&db).await;
    db.run("SELECT sea_mq.subscribe('app__all', 'orders', 'record', start_from => 'all')").await;
    // Of a sink that is nobody's: it makes the slots grow.
    let fill = async |slot: i32| {
        db.run(&format!(
            "INSERT INTO sea_mq.cursor_log (slot, number, reader_kind, reader, done, next_xid, floor)
             SELECT {slot}, -n, 'stream', 7, '1:1:', 0, 0 FROM generate_series(1, 30000) n ON CONFLICT DO NOTHING;
             INSERT INTO sea_mq.stream_progress_log (slot, number, sink) SELECT {slot}, -n, 7 FROM generate_series(1, 30000) n
             ON CONFLICT DO NOTHING;
             INSERT INTO sea_mq.progress_log (slot, number, subscription_id) SELECT {slot}, -n, -7 FROM generate_series(1, 30000) n
             ON CONFLICT DO NOTHING"
        ))
        .await;
    };
    for round in 1..=3_i64 {
        emit_each_alone(&db, 20).await;
        until_state(&db, "app__all", &format!("processed = {}", round * 20)).await;
        let slot = ((round + 1) % 2) as i32;
        fill(slot).await;
        let other = 1 - slot;
        until("the rings have turned", LONG, async || {
            db.value(
                &format!(
                    "SELECT count(*) = 3 FROM pg_class c WHERE c.relname IN ('cursor_log_{other}', 'stream_progress_log_{other}', 'progress_log_{other}')
                     AND pg_relation_size(c.oid) BETWEEN 1 AND 1000000 AND
                     (SELECT max(number) FROM sea_mq.cursor_log_{other}) > (SELECT max(number) FROM sea_mq.cursor_log_{slot}) AND
                     (SELECT max(number) FROM sea_mq.stream_progress_log_{other}) > (SELECT max(number) FROM sea_mq.stream_progress_log_{slot}) AND
                     (SELECT max(number) FROM sea_mq.progress_log_{other}) > (SELECT max(number) FROM sea_mq.progress_log_{slot})"
                ),
                &[],
            )
            .await
        })
        .await;
        assert!(
            !db.value::<bool>(&format!("SELECT EXISTS (SELECT FROM sea_mq.cursor_log_{other} WHERE reader = 7)"), &[])
                .await
        );
        if round == 2 {
            kill_consumer(&stage).await;
        }
        let db = stage.connect().await;
        stage.broker.until_count(EVENTS, 20 * round.unsigned_abs(), SOON).await;
        let published: i64 = db.value("SELECT published FROM sea_mq.outbox_status WHERE kind = 'event'", &[]).await;
        assert_eq!(published, 20 * round);
        until_state(&db, "app__all", &format!("processed = {} AND last_sequence = {}", round * 20, round * 20)).await;
        if round == 2 {
            break;
        }
    }
    let db = stage.connect().await;
    emit_each_alone(&db, 5).await;
    until_state(&db, "app__all", "processed = 45 AND duplicates <= 20").await;
    let effects: i64 = db.value("SELECT count(*) FROM effects", &[]).await;
    assert_eq!(effects, 45);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outcomes_of_applications_are_added_up_and_none_is_counted_twice() {
    let stage = Stage::new("outcomes").await;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.subscribe('app__pull', 'orders')").await;
    let id: i64 = db.value("SELECT id FROM sea_mq.subscriptions", &[]).await;
    // As many as make the consumer add them up.
    for slot in 0..4 {
        db.run(&format!(
            "INSERT INTO sea_mq.outcome_log (slot, subscription_id, processed, skipped, failed, dead)
             SELECT {slot}, {id}, 1, 2, 3, 4 FROM generate_series(1, 5000)"
        ))
        .await;
    }
    let counts = "processed = 20000 AND skipped = 40000 AND failures = 60000 AND dead = 80000";
    until_state(&db, "app__pull", counts).await;
    until("they are added up", LONG, async || {
        let (state, counted): (bool, bool) = {
            let row = db
                .query_one(
                    &format!(
                        "SELECT (SELECT count(*) = 0 FROM sea_mq.outcome_log),
                            (SELECT {counts} FROM sea_mq.subscription_status)"
                    ),
                    &[],
                )
                .await
                .expect("cannot read the counts");
            (row.get(0), row.get(1))
        };
        assert!(counted, "the counts changed");
        state
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publication_for_all_tables_keeps_nothing_from_its_work() {
    let stage = StageOptions::default().setting("wal_level", "logical").start("all_tables").await;
    let db = stage.connect().await;
    db.run("CREATE PUBLICATION p FOR ALL TABLES").await;
    make_recorder(&db).await;
    db.run(
        "CREATE FUNCTION refuse(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM sea_mq.poison('no'); END $$;
         SELECT sea_mq.subscribe('app__all', 'orders', 'record'), sea_mq.subscribe('app__no', 'orders', 'refuse'),
            sea_mq.subscribe('app__pull', 'orders')",
    )
    .await;
    db.run(
        "SELECT sea_mq.emit('order', '1', 'Later', '{\"n\": 1}', available_at => now() + interval '100 ms'),
            sea_mq.emit('order', '1', 'Now', '{\"n\": 2}')",
    )
    .await;
    stage.broker.until_count(EVENTS, 2, SOON).await;
    until_state(&db, "app__all", "processed = 2").await;
    until_state(&db, "app__no", "dead = 2").await;
    until_state(&db, "app__pull", "received = 2").await;
    db.run("SELECT sea_mq.complete(id) FROM sea_mq.receive('app__pull')").await;
    until("dead letters are in the stream", SOON, async || {
        db.value("SELECT count(*) = 2 FROM sea_mq.dlq_list() WHERE stream_seq IS NOT NULL", &[]).await
    })
    .await;
    db.run("SELECT sea_mq.dlq_discard(id) FROM sea_mq.dlq_list()").await;
    stage.broker.until_count("ORDERS_DLQ", 0, SOON).await;
    db.run(
        "SELECT sea_mq.pause_subscription('app__all'), sea_mq.resume_subscription('app__all'),
            sea_mq.alter_subscription('app__all', priority => 3), sea_mq.unsubscribe('app__no'), sea_mq.unsubscribe('app__pull'),
            sea_mq.register_event('orders', 'Now', 1, '{\"type\": \"object\"}'), sea_mq.republish('ORDERS_EVENTS'),
            sea_mq.create_consumer('orders'), sea_mq.drop_consumer('ORDERS_EVENTS', 'orders__default');
         CREATE TABLE goods (id int PRIMARY KEY, name text);
         SELECT sea_mq.capture_table('goods', context => 'orders');
         INSERT INTO goods VALUES (1, 'a'); UPDATE goods SET name = 'b'; DELETE FROM goods;
         SELECT sea_mq.stop_capture('goods')",
    )
    .await;
    stage.broker.until_count(EVENTS, 5, SOON).await;
    until_state(&db, "app__all", "processed = 5").await;
    until("consumers are removed", SOON, async || {
        db.value(
            "SELECT (SELECT count(*) FROM sea_mq.consumers) + (SELECT count(*) FROM sea_mq.consumer_deletions) = 0",
            &[],
        )
        .await
    })
    .await;
    db.run("SELECT sea_mq.drop_stream('ORDERS_EVENTS', discard_pending => true)").await;
    assert!(!stage.cluster.log().contains("replica identity"), "{}", stage.cluster.log());
}
