//! `sea_mq.republish`: the operator's refill of a stream.

use harness::{Database, EVENTS, Stage, StageOptions, ledger, until};
use uuid::Uuid;

use crate::SOON;

/// A stage whose broker forgets ids at once, and `count` events that are stored.
async fn filled(name: &str, options: StageOptions, count: i32) -> (Stage, Vec<Uuid>) {
    let stage = options.start(name).await;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.create_stream('orders', duplicate_window => '100 ms')").await;
    let ids = emit(&db, count).await;
    stage.assert_stored(&ids).await;
    until_published(&db).await;
    (stage, ids)
}

async fn emit(db: &Database, count: i32) -> Vec<Uuid> {
    db.values("SELECT sea_mq.emit('order', n::text, 'Placed', '{}') FROM generate_series(1, $1::int) n", &[&count])
        .await
}

async fn until_published(db: &Database) {
    until("all is published", SOON, async || {
        db.value("SELECT pending = 0 FROM sea_mq.outbox_status WHERE kind = 'event'", &[]).await
    })
    .await;
}

async fn until_refilled(db: &Database) {
    let done = "SELECT NOT EXISTS (SELECT FROM sea_mq.republish_requests)
        AND NOT EXISTS (SELECT FROM sea_mq.stream_progress WHERE refilling)";
    until("the refill is through", SOON, async || db.value(done, &[]).await).await;
}

async fn delete(stage: &Stage, sequences: impl IntoIterator<Item = u64>) {
    let stream = stage.broker.stream(EVENTS).await.expect("there is a stream");
    for sequence in sequences {
        assert!(stream.delete_message(sequence).await.expect("cannot delete"));
    }
}

/// Events of which some are missing in the stream, as they are to be stored after the refill: the missing ones last.
fn refilled(ids: &[Uuid], missing: &[usize]) -> Vec<Uuid> {
    let kept = (0..ids.len()).filter(|n| !missing.contains(n));
    kept.chain(missing.iter().copied()).map(|n| ids[n]).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_in_the_stream_is_published_again_and_nothing_else() {
    let (stage, ids) = filled("republish", StageOptions::default(), 3000).await;
    let db = stage.connect().await;
    delete(&stage, [3, 1500, 2999]).await;
    assert_eq!(db.value::<i64>("SELECT sea_mq.republish('ORDERS_EVENTS', from_seq => 5000)", &[]).await, 0);
    // Not what comes before, nor what was not committed.
    db.run("BEGIN; SELECT sea_mq.republish('ORDERS_EVENTS'); ROLLBACK").await;
    let begin: i64 = db.value("SELECT seq FROM sea_mq.outbox_events WHERE id = $1", &[&ids[1000]]).await;
    let from = "SELECT sea_mq.republish('ORDERS_EVENTS', from_seq => $1)";
    assert_eq!(db.value::<i64>(from, &[&begin]).await, 2000);
    until_refilled(&db).await;
    until_published(&db).await;
    let since = "SELECT sea_mq.republish('ORDERS_EVENTS', (SELECT min(created_at) FROM sea_mq.outbox_events))";
    assert_eq!(db.value::<i64>(since, &[]).await, 3000);
    until_refilled(&db).await;
    let more = emit(&db, 5).await;
    until_published(&db).await;
    let stored: Vec<Uuid> = stage.broker.stored(EVENTS).await.iter().map(harness::Stored::id).collect();
    // The first refill may have begun earlier than it had to, so the third event came with it or with the second one.
    let missing = if stored[2997] == ids[2] { [2, 1499, 2998] } else { [1499, 2998, 2] };
    ledger::assert_same(&[refilled(&ids, &missing), more].concat(), &stored);
    let found: Vec<String> = db.values("SELECT v::text FROM sea_mq.verify_stream('ORDERS_EVENTS') v", &[]).await;
    assert_eq!(found, Vec::<String>::new());
    stage.until_ok().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purged_stream_is_refilled_in_order_also_when_the_relay_is_killed_meanwhile() {
    let (stage, ids) = filled("republish_purged", StageOptions::default(), 20_000).await;
    let db = stage.connect().await;
    stage.broker.stream(EVENTS).await.expect("there is a stream").purge().await.expect("cannot purge");
    assert_eq!(db.value::<i64>("SELECT sea_mq.republish('ORDERS_EVENTS')", &[]).await, 20_000);
    for _ in 0..2 {
        let before = stage.broker.count(EVENTS).await;
        until("some are stored", SOON, async || stage.broker.count(EVENTS).await > before.min(19_999)).await;
        let relay = stage.relay().await;
        db.run(&format!("SELECT pg_terminate_backend({relay})")).await;
        until("another relay runs", SOON, async || stage.relays().await.iter().any(|&pid| pid != relay)).await;
    }
    stage.assert_stored(&ids).await;
    until_refilled(&db).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_ends_in_the_middle_of_a_refill_stores_nothing_twice() {
    let (mut stage, ids) = filled("republish_ended", StageOptions::default(), 5000).await;
    let db = stage.connect().await;
    let missing: Vec<usize> = (0..2000).step_by(2).collect();
    delete(&stage, missing.iter().map(|&n| n as u64 + 1)).await;
    // The request waits for the broker, and is begun with the next connection.
    stage.broker.kill();
    assert_eq!(db.value::<i64>("SELECT sea_mq.republish('ORDERS_EVENTS')", &[]).await, 5000);
    stage.broker.start().await;
    let mut count = 0;
    until("all are stored", SOON, async || {
        db.run("SELECT sea_mq.reload()").await;
        let before = count;
        until("the relay goes on", SOON, async || {
            count = stage.broker.count(EVENTS).await;
            count > before || count == 5000
        })
        .await;
        count >= 5000
    })
    .await;
    until_refilled(&db).await;
    stage.assert_stored(&refilled(&ids, &missing)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_lost_in_the_middle_of_its_refill_is_refilled_as_a_whole() {
    let (mut stage, ids) = filled("republish_lost", StageOptions::default(), 3000).await;
    let db = stage.connect().await;
    delete(&stage, 1..=1000).await;
    stage.broker.kill();
    assert_eq!(db.value::<i64>("SELECT sea_mq.republish('ORDERS_EVENTS', from_seq => 500)", &[]).await, 2501);
    until("the relay has taken it up", SOON, async || {
        db.value("SELECT EXISTS (SELECT FROM sea_mq.stream_progress WHERE refilling)", &[]).await
    })
    .await;
    stage.broker.forget_everything();
    stage.broker.start().await;
    stage.assert_stored(&ids).await;
    until_refilled(&db).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_waits_for_a_person_after_a_loss_goes_on_with_a_refill() {
    let options = StageOptions::default().setting("sea_mq.on_stream_loss", "pause");
    let (mut stage, ids) = filled("republish_paused", options, 100).await;
    let db = stage.connect().await;
    stage.broker.kill();
    stage.broker.forget_everything();
    stage.broker.start().await;
    stage.until_problem("problem LIKE 'stream ORDERS_EVENTS:%'").await;
    let late = emit(&db, 3).await;
    assert_eq!(db.value::<i64>("SELECT sea_mq.republish('ORDERS_EVENTS')", &[]).await, 100);
    stage.assert_stored(&[ids, late].concat()).await;
    stage.until_ok().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_broker_takes_for_a_duplicate_of_what_it_has_deleted_is_stored_after_all() {
    let stage = Stage::new("republish_window").await;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.create_stream('orders', duplicate_window => '10 s')").await;
    let ids = emit(&db, 10).await;
    stage.assert_stored(&ids).await;
    until_published(&db).await;
    delete(&stage, [2, 5]).await;
    assert_eq!(db.value::<i64>("SELECT sea_mq.republish('ORDERS_EVENTS')", &[]).await, 10);
    stage.broker.until_count(EVENTS, 10, SOON * 2).await;
    stage.assert_stored(&refilled(&ids, &[1, 4])).await;
    stage.until_ok().await;
}
