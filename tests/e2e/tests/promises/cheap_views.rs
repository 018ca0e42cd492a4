//! Nothing that is kept gets slower: what people and monitoring ask reads as much whatever is retained, and whatever the
//! planner knows. Counted in buffers. `SEA_MQ_TEST_ROWS` makes it more rows than the test's own.

use harness::{Database, Stage, StageOptions, until};
use serde_json::Value;

use crate::SOON;

/// Buffers that each question may take.
const MOST: i64 = 1000;
/// How many more when there is twice as much, in twice as many of the ring's slots: what the other slots' indexes take to say
/// no, and perhaps a level more of each.
const MORE: i64 = 250;

const STATUS: [&str; 11] = [
    "SELECT * FROM sea_mq.status",
    "SELECT * FROM sea_mq.problems",
    "SELECT * FROM sea_mq.outbox_status",
    "SELECT * FROM sea_mq.stream_status",
    "SELECT * FROM sea_mq.dlq_status",
    "SELECT * FROM sea_mq.inbox_status",
    "SELECT * FROM sea_mq.subscription_status",
    "SELECT * FROM sea_mq.relay_status",
    "SELECT * FROM sea_mq.install_report()",
    "SELECT * FROM sea_mq.metrics()",
    "SELECT * FROM sea_mq.overview",
];

/// An event in the middle of the log.
const AN_ID: &str = "(SELECT id FROM sea_mq.outbox_log WHERE seq = 5001)";

const EVENTS: [&str; 23] = [
    "SELECT * FROM sea_mq.events_after('ORDERS_EVENTS', 0, 10)",
    "SELECT * FROM sea_mq.events_after('ORDERS_EVENTS', 10000, 10)",
    "SELECT * FROM sea_mq.events_after('ORDERS_EVENTS', 9000000, 10)",
    "SELECT * FROM sea_mq.traced_events('ORDERS_EVENTS', 10000, 10)",
    "SELECT * FROM sea_mq.trace_places('0')",
    "SELECT * FROM sea_mq.trace_places('1 hour')",
    "SELECT * FROM sea_mq.outbox_events ORDER BY seq DESC LIMIT 10",
    "SELECT seq, published, stream_seq FROM sea_mq.outbox_events WHERE context = 'billing' ORDER BY seq DESC LIMIT 10",
    "SELECT * FROM sea_mq.outbox_events ORDER BY seq LIMIT 10",
    "SELECT * FROM sea_mq.outbox_events WHERE aggregate_type = 'order' AND aggregate_id = '17' ORDER BY seq DESC LIMIT 10",
    "SELECT * FROM sea_mq.outbox_events WHERE aggregate_id = '17' ORDER BY seq DESC LIMIT 10",
    "SELECT * FROM sea_mq.outbox_events WHERE NOT published",
    "SELECT count(*) FROM sea_mq.outbox_events WHERE NOT published",
    "SELECT * FROM sea_mq.outbox_events WHERE published = false ORDER BY seq",
    "SELECT * FROM sea_mq.outbox_events WHERE NOT published ORDER BY seq LIMIT 10",
    "SELECT * FROM sea_mq.outbox_events WHERE NOT published ORDER BY seq DESC LIMIT 10",
    "SELECT * FROM sea_mq.outbox_events WHERE NOT published ORDER BY created_at LIMIT 10",
    "SELECT * FROM sea_mq.outbox_events WHERE published ORDER BY seq DESC LIMIT 10",
    "SELECT * FROM sea_mq.outbox_events WHERE id = ",
    "SELECT * FROM sea_mq.event_status(",
    "SELECT * FROM sea_mq.event_trace(",
    "SELECT * FROM sea_mq.delivery_status(",
    "SELECT * FROM sea_mq.publication((",
];

const MESSAGES: [&str; 10] = [
    "SELECT * FROM sea_mq.traced_messages(50000, max => 10)",
    "SELECT * FROM sea_mq.traced_messages(9000000, '{17,50000}')",
    "SELECT * FROM sea_mq.inbox_messages ORDER BY id DESC LIMIT 10",
    "SELECT * FROM sea_mq.inbox_messages WHERE NOT processed",
    "SELECT count(*) FROM sea_mq.inbox_messages WHERE NOT processed",
    "SELECT * FROM sea_mq.inbox_messages WHERE status = 'failed'",
    "SELECT DISTINCT processing_error FROM sea_mq.inbox_messages WHERE status = 'failed'",
    "SELECT * FROM sea_mq.inbox_messages WHERE status = 'dead' ORDER BY id DESC LIMIT 10",
    "SELECT * FROM sea_mq.inbox_messages WHERE message_id = 'm17' AND subscription = 'app__one'",
    "SELECT * FROM sea_mq.inbox_messages WHERE processed ORDER BY id DESC LIMIT 10",
];

const LETTERS: [&str; 9] = [
    "SELECT * FROM sea_mq.dlq_page()",
    "SELECT * FROM sea_mq.dlq_page('orders', 'app__one', descending => true)",
    "SELECT * FROM sea_mq.dlq_page(replayed => true, after_id => 50)",
    "SELECT * FROM sea_mq.dlq_page(replayed => NULL, descending => true)",
    "SELECT * FROM sea_mq.dlq_list()",
    "SELECT * FROM sea_mq.dlq_list('orders', 'app__one')",
    "SELECT * FROM sea_mq.dlq_list(subscription => 'app__none')",
    "SELECT * FROM sea_mq.dlq_list(replayed => true, max => 20)",
    "SELECT * FROM sea_mq.dlq_list(replayed => NULL, max => 20)",
];

/// Half of what is retained: `half` 0, then 1. Events of two contexts in turn, published; messages that are done, one in ten
/// thousand of them dead; letters that were decided, but for five.
async fn fill(db: &Database, half: i64, rows: i64) {
    let (first, last) = (half * rows + 1, (half + 1) * rows);
    db.run(&format!(
        "BEGIN;
         INSERT INTO sea_mq.outbox_log (seq, xid, sink, created_at, id, event_version, origin, slot, context, aggregate_type,
            aggregate_id, event_type, payload, visibility)
         SELECT i, pg_current_xact_id(), sea_mq.sink_id(c.context, 'event'), now(), gen_random_uuid(), 1, r.origin,
            {half} * 3 + (i - {first}) * 3 / {rows}, c.context, 'order', (i / 2 % 5000)::text, 'counted',
            json_build_object('n', i, 'text', repeat('x', 200)), 'internal'
         FROM generate_series({first}, {last}) i CROSS JOIN sea_mq.outbox_ring r
         CROSS JOIN LATERAL (SELECT (ARRAY['billing', 'orders'])[i % 2 + 1] AS context) c;
         SELECT setval('sea_mq.outbox_seq', {last});
         UPDATE sea_mq.outbox_ring SET current_slot = {half} * 3 + 2;
         INSERT INTO sea_mq.outbox_slots SELECT s, now(), CASE WHEN s < 2 THEN now() END
         FROM generate_series({half} * 3, {half} * 3 + 2) s;
         COMMIT;
         INSERT INTO sea_mq.relay_journal (slot, sink, done, upto, first_seq, last_seq, events, first_stream_seq, published_at)
         SELECT {half} * 3 + (i - {first}) * 3 / {rows}, sea_mq.sink_id(c.context, 'event'), '1:1:', pg_current_snapshot(),
            i + c.n, i + c.n + 998, 500, i / 2 + 1, now()
         FROM generate_series({first}, {last}, 1000) i, (VALUES ('orders', 0), ('billing', 1)) c(context, n);
         INSERT INTO sea_mq.cursor_log (slot, reader_kind, reader, done, next_xid, floor)
         SELECT 0, 'stream', s.sink, pg_current_snapshot(), pg_snapshot_xmax(pg_current_snapshot())::text::bigint,
            CASE s.kind WHEN 'event' THEN {last} ELSE 0 END FROM sea_mq.streams s;
         INSERT INTO sea_mq.stream_progress_log (slot, sink, stream_sequence, published)
         SELECT 0, s.sink, {last} / 2, {last} / 2 FROM sea_mq.streams s;
         INSERT INTO sea_mq.inbox_log (slot, id, subscription, message_id, status, attempts, event_type, subject, payload,
            headers, event_at, created_at, processed_at)
         SELECT i % 4, nextval('sea_mq.inbox_id'), 'app__one', 'm' || i, CASE WHEN i % 10000 = 0 THEN 'dead' ELSE 'processed' END,
            1, 'counted', 'orders.event.counted.v1', jsonb_build_object('n', i, 'text', repeat('x', 300)), '{{}}', now(), now(), now()
         FROM generate_series({first}, {last}) i;
         INSERT INTO sea_mq.dlq_messages (context, original_subject, subscription, payload, headers, reason, failure_count, error,
            last_failed_at, dlq_message_id, replayed_at, discarded_at)
         SELECT 'orders', 'orders.event.counted.v1', 'app__one', jsonb_build_object('n', i, 'text', repeat('x', 200)), '{{}}',
            'poison', 1, 'no', now(), i::text, CASE WHEN i % 2 = 0 THEN now() END, CASE WHEN i % 2 = 1 AND i > {first} + 9 THEN now() END
         FROM generate_series({first}, {last}, 2) n, LATERAL (SELECT n + n / 2 % 2) l(i);"
    ))
    .await;
}

/// Buffers of a question that its session has asked before, so that what it learns of the tables is not counted.
async fn buffers(db: &Database, question: &str) -> i64 {
    let mut found = 0;
    for _ in 0..2 {
        let plan: Value = db.value(&format!("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {question}"), &[]).await;
        let of = |key: &str| plan[0]["Plan"][key].as_i64().expect("a number of buffers");
        found = of("Shared Hit Blocks") + of("Shared Read Blocks");
    }
    found
}

/// The questions that take an event's id, about that one.
fn complete(question: &str, id: &str) -> String {
    match question.matches('(').count() - question.matches(')').count() {
        _ if question.ends_with("id = ") => format!("{question}'{id}'"),
        0 => question.to_owned(),
        open => format!("{question}'{id}'{}", ")".repeat(open)),
    }
}

/// What each question took, as somebody with no other right than to look.
async fn ask_all(db: &Database, when: &str) -> Vec<(String, i64)> {
    let id: uuid::Uuid = db.value(&format!("SELECT {AN_ID}"), &[]).await;
    db.run("SET ROLE sea_mq_operator").await;
    let mut answers = Vec::new();
    for question in STATUS.iter().chain(&EVENTS).chain(&MESSAGES).chain(&LETTERS) {
        let question = complete(question, &id.to_string());
        if question.contains("publication(") {
            db.run("RESET ROLE").await;
        }
        let count = buffers(db, &question).await;
        println!("{when}: {count:6} buffers: {question}");
        answers.push((question, count));
        db.run("SET ROLE sea_mq_operator").await;
    }
    db.run("RESET ROLE").await;
    // The report asks about each table and each index, whatever is in them.
    let bounded =
        // The metrics are of all views together, and where traces begin is looked for in all streams.
        |question: &str, count: i64| count <= if ["install_report", "metrics", "trace_places"].iter().any(|all| question.contains(all)) { 2 * MOST } else { MOST };
    let most: Vec<_> = answers.iter().filter(|(question, count)| !bounded(question, *count)).collect();
    assert!(most.is_empty(), "{when}: {most:?}");
    answers
}

fn assert_no_more(before: &[(String, i64)], after: &[(String, i64)]) {
    for ((question, before), (_, after)) in before.iter().zip(after) {
        assert!(after - before <= MORE, "{before} buffers, then {after}: {question}");
    }
}

async fn stage(name: &str) -> (Stage, Database) {
    let stage = StageOptions::default().setting("autovacuum", "off").start(name).await;
    let db = stage.connect().await;
    // The workers would publish, handle and empty what is made up here.
    db.run("SELECT sea_mq.create_stream('orders'), sea_mq.create_stream('billing')").await;
    db.run("SELECT sea_mq.subscribe('app__one', 'orders')").await;
    db.run("SELECT sea_mq.stop()").await;
    until("the workers are gone", SOON, async || stage.workers().await.is_empty()).await;
    db.run("TRUNCATE sea_mq.cursor_log, sea_mq.stream_progress_log").await;
    (stage, db)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_retained_makes_no_view_slower() {
    let rows: i64 = std::env::var("SEA_MQ_TEST_ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(200_000);
    let half = rows / 6000 * 3000;
    let (stage, db) = stage("cheap_views").await;
    fill(&db, 0, half).await;
    let once = ask_all(&stage.connect().await, "half").await;
    fill(&db, 1, half).await;
    let never_analyzed = ask_all(&stage.connect().await, "all").await;
    assert_no_more(&once, &never_analyzed);
    let emitted: Vec<uuid::Uuid> = db
        .values(
            "SELECT sea_mq.emit('order', n::text, 'Counted', '{}', context => (ARRAY['orders', 'billing'])[n % 2 + 1],
                available_at => CASE WHEN n > 15 THEN now() + interval '1 day' END) FROM generate_series(1, 20) n",
            &[],
        )
        .await;
    ask_all(&stage.connect().await, "some pending").await;
    db.run("ANALYZE").await;
    ask_all(&stage.connect().await, "analyzed").await;

    let unpublished: Vec<uuid::Uuid> =
        db.values("SELECT id FROM sea_mq.outbox_events WHERE NOT published ORDER BY seq, available_at", &[]).await;
    assert_eq!(unpublished.len(), emitted.len());
    assert!(emitted.iter().all(|id| unpublished.contains(id)));
    let counts: Vec<Value> = db
        .values(
            "SELECT jsonb_build_array(stream, pending, scheduled) FROM sea_mq.outbox_status WHERE kind = 'event' ORDER BY 1",
            &[],
        )
        .await;
    assert_eq!(counts, [serde_json::json!(["BILLING_EVENTS", 8, 2]), serde_json::json!(["ORDERS_EVENTS", 7, 3])]);
    // Every event's place in its stream is told from its run, from whichever end it was counted.
    let wrong: i64 = db
        .value(
            "SELECT count(*) FROM (SELECT seq, stream_seq, published, attempts FROM sea_mq.outbox_events
                WHERE seq BETWEEN 1001 AND 3000 ORDER BY seq) e
             WHERE stream_seq IS DISTINCT FROM (seq + 1) / 2 OR published IS NOT TRUE OR attempts <> 1",
            &[],
        )
        .await;
    assert_eq!(wrong, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_cursor_has_passed_and_not_read_is_not_published() {
    let (_stage, db) = stage("passed").await;
    fill(&db, 0, 3000).await;
    // A transaction that had written and not ended when the cursor passed it, and one that ended within a batch under way.
    for (seq, slot) in [(5000, 1), (5001, 2), (6001, 2)] {
        db.run(&format!(
            "INSERT INTO sea_mq.outbox_log (seq, xid, sink, created_at, id, event_version, origin, slot, context, aggregate_type,
                aggregate_id, event_type, payload, visibility)
             SELECT {seq}, pg_current_xact_id(), sea_mq.sink_id('orders', 'event'), 'epoch', gen_random_uuid(), 1, r.origin, {slot},
                'orders', 'order', 'late', 'counted', '{{}}', 'internal' FROM sea_mq.outbox_ring r"
        ))
        .await;
    }
    db.run(
        "INSERT INTO sea_mq.cursor_log (slot, reader_kind, reader, floor, next_xid, done, batch_upto, batch_next_xid, batch_ceiling, batch_at)
         SELECT 0, 'stream', sea_mq.sink_id('orders', 'event'), 5500, x.third, format('%s:%s:%s', x.first, x.second + 1, x.first)::pg_snapshot,
            format('%s:%s:%s', x.first, x.third + 1, concat_ws(',', x.first, x.third))::pg_snapshot, x.third + 1, 7000, 6500
         FROM (SELECT min(xid::text::bigint) AS first, min(xid::text::bigint) + 1 AS second, max(xid::text::bigint) AS third
            FROM sea_mq.outbox_log WHERE aggregate_id = 'late') x",
    )
    .await;
    let unpublished: Vec<i64> =
        db.values("SELECT seq FROM sea_mq.outbox_events WHERE NOT published ORDER BY seq", &[]).await;
    assert_eq!(unpublished, [5000, 6001]);
    let row =
        db.object("SELECT pending, oldest_pending_at FROM sea_mq.outbox_status WHERE stream = 'ORDERS_EVENTS'").await;
    assert_eq!(row["pending"], 2);
    assert!(row["oldest_pending_at"].as_str().is_some_and(|at| at.starts_with("1970-01-01")), "{row}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_counted_as_they_come_and_go() {
    let (_stage, db) = stage("tally").await;
    let by_hand = "SELECT jsonb_agg(jsonb_build_array(context, subscription, open, replayed, discarded) ORDER BY context, subscription)
        FROM (SELECT context, subscription, count(*) FILTER (WHERE replayed_at IS NULL AND discarded_at IS NULL) AS open,
            count(replayed_at) AS replayed, count(discarded_at) AS discarded FROM sea_mq.dlq_messages GROUP BY 1, 2) d";
    let counted = "SELECT jsonb_agg(jsonb_build_array(context, subscription, open, replayed, discarded) ORDER BY context, subscription)
        FROM sea_mq.dlq_status";
    for change in [
        "INSERT INTO sea_mq.dlq_messages (context, original_subject, subscription, payload, headers, reason, failure_count, error,
            last_failed_at, dlq_message_id)
         SELECT CASE WHEN n % 3 = 0 THEN 'orders' ELSE 'billing' END, 'a.event.b.v1', CASE WHEN n % 4 > 0 THEN 'app__' || n % 2 END,
            '{}', '{}', 'foreign', 1, 'error ' || n, now(), n::text FROM generate_series(1, 400) n",
        "SELECT sea_mq.dlq_discard(id, 'no') FROM sea_mq.dlq_messages WHERE id % 5 = 0",
        "UPDATE sea_mq.dlq_messages SET replayed_at = now() WHERE id % 5 = 1",
        "UPDATE sea_mq.dlq_messages SET stream = 'ORDERS_DLQ', stream_seq = id",
        "SELECT sea_mq.fold_dlq_tally()",
        "DELETE FROM sea_mq.dlq_messages WHERE id % 7 = 0",
        "SELECT sea_mq.dlq_discard(id) FROM sea_mq.dlq_list(max => 150)",
        "SELECT sea_mq.fold_dlq_tally()",
        "DELETE FROM sea_mq.dlq_messages WHERE context = 'orders'",
    ] {
        db.run(change).await;
        let (expected, found): (Value, Value) = (db.value(by_hand, &[]).await, db.value(counted, &[]).await);
        assert_eq!(found, expected, "{change}");
    }
    let rows: i64 = db.value("SELECT count(*) FROM sea_mq.dlq_tally", &[]).await;
    assert!(rows < 20, "{rows} rows are left to add up");
    let last: Vec<(Option<String>, Option<String>)> = db
        .query("SELECT subscription, last_error FROM sea_mq.dlq_status ORDER BY subscription", &[])
        .await
        .expect("the letters are shown")
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    for (subscription, error) in last {
        let newest: Option<String> = db
            .value(
                "SELECT (SELECT error FROM sea_mq.dlq_messages WHERE subscription IS NOT DISTINCT FROM $1
                    AND replayed_at IS NULL AND discarded_at IS NULL ORDER BY id DESC LIMIT 1)",
                &[&subscription],
            )
            .await;
        assert_eq!(error, newest, "{subscription:?}");
    }
}
