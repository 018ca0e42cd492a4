//! `sea_mq.max_outbox_size`: no more events while too much waits to be published.

use harness::{Database, EVENTS, StageOptions, until};
use serde_json::Value;
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use crate::SOON;

const LIMIT: &str = "sea_mq.max_outbox_size";

/// A few hundred events in one transaction, of which none compresses well; `None`: they were refused.
async fn fill(db: &Database) -> Option<Vec<Uuid>> {
    let sql = "SELECT sea_mq.emit('order', n::text, 'Placed', jsonb_build_object('text',
            (SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 10 + n % 10))))
        FROM generate_series(1, 300) n";
    match db.query(sql, &[]).await {
        Ok(rows) => Some(rows.iter().map(|row| row.get(0)).collect()),
        Err(error) => {
            assert_eq!(error.code(), Some(&SqlState::CONFIGURATION_LIMIT_EXCEEDED), "{error:?}");
            None
        }
    }
}

/// Emits until it is refused. Returns what was stored.
async fn fill_up(db: &Database) -> Vec<Uuid> {
    let mut stored = Vec::new();
    until("emit refuses more", SOON, async || {
        let filled = fill(db).await;
        let refused = filled.is_none();
        stored.extend(filled.into_iter().flatten());
        refused
    })
    .await;
    stored
}

const EMIT: &str = "SELECT sea_mq.emit('order', '1', 'Placed', '{}')";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn emit_is_refused_while_too_much_waits_and_nothing_else_is() {
    let mut stage = StageOptions::default().setting(LIMIT, "1MB").start("max_outbox").await.described().await;
    let db = stage.connect().await;
    stage.broker.stop();
    let mut stored = fill_up(&db).await;
    assert!(stored.len() > 300, "{} events are more than a megabyte", stored.len());
    stage.until_problem("problem LIKE 'emit refuses events:%'").await;
    let refusal = db.batch_execute(EMIT).await.expect_err("too much waits");
    let refusal = refusal.as_db_error().expect("the server refuses");
    assert!(refusal.hint().is_some() && refusal.detail().is_some_and(|why| why.contains("relay")), "{refusal:?}");
    // What is there already is nothing more, and what others do goes on.
    let again = format!(
        "SELECT sea_mq.emit('order', aggregate_id, 'Placed', payload, event_id => id) = id
         FROM sea_mq.outbox_events WHERE id = '{}'",
        stored[7]
    );
    assert!(db.value::<bool>(&again, &[]).await);
    // As long as the broker is away, whoever is there to look.
    stage.cluster.crash();
    stage.cluster.start().await;
    let db = stage.connect().await;
    assert_eq!(db.refusal(EMIT).await, SqlState::CONFIGURATION_LIMIT_EXCEEDED);
    db.run("SELECT sea_mq.stop()").await;
    until("the relay has stopped", SOON, async || stage.relays().await.is_empty()).await;
    assert_eq!(stage.connect().await.refusal(EMIT).await, SqlState::CONFIGURATION_LIMIT_EXCEEDED);
    db.run("SELECT sea_mq.start()").await;
    stage.broker.start().await;
    stage.broker.until_count(EVENTS, stored.len() as u64, SOON).await;
    let mut emitted: Option<Uuid> = None;
    until("emit works again", SOON, async || {
        emitted = db.query_one(EMIT, &[]).await.ok().map(|row| row.get(0));
        emitted.is_some()
    })
    .await;
    stored.extend(emitted);
    stage.assert_stored(&stored).await;
    stage.until_ok().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_preloading_the_limit_holds_as_well() {
    let options = StageOptions { not_preloaded: true, ..StageOptions::default() };
    let stage = options.setting("session_preload_libraries", "sea_mq").start("max_outbox_alone").await;
    let db = stage.connect().await;
    db.run("SET sea_mq.max_outbox_size = '1MB'").await;
    fill_up(&db).await;
    db.run("SET sea_mq.max_outbox_size = '1GB'").await;
    assert!(fill(&db).await.is_some());
    db.run("SET sea_mq.max_outbox_size = 0").await;
    assert!(fill(&db).await.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_published_is_estimated_well_for_each_stream() {
    let mut stage = StageOptions::default().start("backlog").await.described().await;
    let db = stage.connect().await;
    let estimates =
        "SELECT jsonb_object_agg(context, unpublished_bytes) FROM sea_mq.outbox_status WHERE kind = 'event'";
    stage.assert_stored(&fill(&db).await.unwrap_or_default()).await;
    until("nothing waits", SOON, async || db.value::<Value>(estimates, &[]).await["orders"] == 0).await;
    stage.broker.stop();
    // Two streams; many small ones, then some large ones; and few of them all in one place.
    db.run(
        "SELECT sea_mq.emit('order', n::text, 'Placed', jsonb_build_object('text', repeat('x', n % 100))) FROM generate_series(1, 20000) n;
         SELECT sea_mq.emit('order', n::text, 'Placed', jsonb_build_object('text',
             (SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 100)))) FROM generate_series(1, 3000) n;
         SELECT sea_mq.emit('bill', n::text, 'Sent', jsonb_build_object('text', repeat('x', 500)), context => 'billing') FROM generate_series(1, 30) n",
    )
    .await;
    let sizes = "SELECT jsonb_object_agg(context, bytes) FROM (SELECT context, sum(pg_column_size(l.*)) AS bytes
        FROM sea_mq.outbox_log l JOIN sea_mq.outbox_events e USING (seq, context) WHERE NOT e.published GROUP BY context) s";
    let (estimated, counted): (Value, Value) = (db.value(estimates, &[]).await, db.value(sizes, &[]).await);
    for (context, tolerance) in [("orders", 0.25), ("billing", 0.1)] {
        let [about, exact] = [&estimated, &counted].map(|sizes| sizes[context].as_f64().unwrap_or(0.0));
        assert!(exact > 0.0 && (about / exact - 1.0).abs() < tolerance, "{context}: {about} for {exact}");
    }
}
