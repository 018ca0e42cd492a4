//! Histograms of `sea_mq.metrics()`.

use harness::{Database, EVENTS, Stage, StageOptions, until};

use crate::SOON;

/// How many were stored, how many of them within 5 seconds, and all their seconds together.
async fn stored(db: &Database) -> (i64, i64, f64) {
    let sql = "SELECT jsonb_build_array(
            sum(value) FILTER (WHERE name = 'sea_mq_store_latency_seconds_count'),
            sum(value) FILTER (WHERE name = 'sea_mq_store_latency_seconds_bucket' AND labels ->> 'le' = '5'),
            sum(value) FILTER (WHERE name = 'sea_mq_store_latency_seconds_sum'))::text FROM sea_mq.metrics()";
    let text: String = db.value(sql, &[]).await;
    let numbers: Vec<f64> = serde_json::from_str(&text).expect("three numbers");
    (numbers[0] as i64, numbers[1] as i64, numbers[2])
}

async fn until_stored(db: &Database, count: i64) -> (i64, i64, f64) {
    until("they are counted", SOON, async || stored(db).await.0 >= count).await;
    stored(db).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn storing_is_timed_from_the_commit_and_not_from_the_emit() {
    let stage = Stage::new("store_latency").await;
    stage.until_connected().await;
    let db = stage.connect().await;
    db.run("BEGIN; SELECT count(sea_mq.emit('order', '1', 'Placed', '{}')) FROM generate_series(1, 700); SELECT pg_sleep(8); COMMIT").await;
    let (count, soon, seconds) = until_stored(&db, 700).await;
    assert_eq!((count, soon), (700, 700));
    assert!(seconds < 700.0 * 5.0, "{seconds}");
    // Held back: it could not have been stored before its time.
    db.run("SELECT sea_mq.emit('order', '1', 'Placed', '{}', available_at => clock_timestamp() + interval '6 s')")
        .await;
    let (count, soon, _) = until_stored(&db, 701).await;
    assert_eq!((count, soon), (701, 701));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_once_more_is_not_timed() {
    let stage = StageOptions::default().start("store_latency_again").await;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.create_stream('orders', duplicate_window => '100 ms')").await;
    db.run("SELECT count(sea_mq.emit('order', '1', 'Placed', '{}')) FROM generate_series(1, 100)").await;
    assert_eq!(until_stored(&db, 100).await.0, 100);
    until("all is published", SOON, async || {
        db.value("SELECT pending = 0 FROM sea_mq.outbox_status WHERE kind = 'event'", &[]).await
    })
    .await;
    stage.broker.stream(EVENTS).await.expect("there is a stream").purge().await.expect("cannot purge");
    assert_eq!(db.value::<i64>("SELECT sea_mq.republish('ORDERS_EVENTS')", &[]).await, 100);
    until("they are there again", SOON, async || stage.broker.count(EVENTS).await == 100).await;
    // One more says that the relay has heard of those before.
    db.run("SELECT sea_mq.emit('order', '2', 'Placed', '{}')").await;
    assert_eq!(until_stored(&db, 101).await.0, 101);
}
