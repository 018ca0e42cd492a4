//! A wall clock that is set back: what waits is left with times that are yet to come.

use std::time::{Duration, SystemTime};

use harness::{EVENTS, Stage, ledger, until};

use crate::receiving::{LONG, assert_handled_once, assert_in_order, emit_numbers, make_stumbling, prepared};

/// As `prepared`, with a wall clock that can be set back.
async fn prepared_with_own_time(name: &str) -> Stage {
    let mut stage = prepared(name).await;
    stage.cluster.stop();
    stage.cluster.keep_own_time();
    stage.cluster.start().await;
    stage
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_does_not_wait_for_the_clock_to_come_round() {
    let stage = prepared("clock").await;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.subscribe('app__pull', 'orders')").await;
    emit_numbers(&db, 1, 20).await;
    let waiting = "SELECT count(*) = 20 FROM sea_mq.inbox_messages WHERE status = 'received'";
    until("the messages are received", LONG, async || db.value::<bool>(waiting, &[]).await).await;
    db.run(
        "UPDATE sea_mq.inbox_pending SET status = 'failed', attempts = 1, created_at = created_at + '1 h',
            delivered_at = created_at + '1 h', due_at = created_at + '1 h 5 s'",
    )
    .await;
    let complete = "SELECT count(*) FROM sea_mq.receive('app__pull', 100) m, LATERAL sea_mq.complete(m.id)";
    assert_eq!(db.value::<i64>(complete, &[]).await, 0, "they are not due");
    db.run("SELECT sea_mq.stop()").await;
    until("the workers are gone", LONG, async || stage.workers().await.is_empty()).await;
    db.run("SELECT sea_mq.start()").await;
    let mut completed = 0;
    until("all are received and completed", LONG, async || {
        completed += db.value::<i64>(complete, &[]).await;
        completed == 20
    })
    .await;
}

/// Messages that were stored before the clock was set back go before those that were stored after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_set_back_does_not_change_the_order_in_which_workers_handle() {
    const LAST: i64 = 6000;
    let stage = prepared_with_own_time("clock_workers").await;
    let db = stage.connect().await;
    db.run(
        "CREATE FUNCTION slow(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$
         BEGIN PERFORM record(e), (SELECT count(*) FROM generate_series(1, 10000)); END $$;
         SELECT sea_mq.subscribe('app__slow', 'orders', 'slow', workers => 3, max_ack_pending => 500)",
    )
    .await;
    for first in (1..=LAST).step_by(200) {
        emit_numbers(&db, first, first + 199).await;
        stage.cluster.clock().set_back(Duration::from_secs(60));
    }
    assert_handled_once(&stage, "app__slow", LAST).await;
    assert_in_order(&db, 0..50, LAST).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_set_back_under_load_delays_nothing_and_doubles_nothing() {
    const LAST: i64 = 12_000;
    let stage = prepared_with_own_time("clock_load").await;
    let db = stage.connect().await;
    make_stumbling(&db, 500).await;
    db.run("SELECT sea_mq.subscribe('app__stumbling', 'orders', handler => 'stumbling', max_ack_pending => 500)").await;
    for first in (1..=LAST).step_by(1000) {
        let began: SystemTime = db.value("SELECT clock_timestamp()", &[]).await;
        emit_numbers(&db, first, first + 999).await;
        if first % 3000 == 1 {
            stage.cluster.clock().set_back(Duration::from_secs(3600));
            assert!(db.value::<SystemTime>("SELECT clock_timestamp()", &[]).await < began, "the clock was set back");
        }
    }
    let handled = "SELECT count(*) = $1 AND count(DISTINCT n) = $1 FROM effects";
    until("all are handled, each once", LONG, async || db.value::<bool>(handled, &[&LAST]).await).await;
    let retried: i64 = db.value("SELECT count(*) FROM effects WHERE attempt > 1", &[]).await;
    assert_eq!(retried, LAST / 500);
    until("nothing is a problem", LONG, async || {
        db.value::<bool>("SELECT NOT EXISTS (SELECT FROM sea_mq.problems)", &[]).await
    })
    .await;
    let stored: Vec<i64> = stage.broker.stored(EVENTS).await.iter().map(|message| message.number("n")).collect();
    ledger::assert_same(&(1..=LAST).collect::<Vec<_>>(), &stored);
}
