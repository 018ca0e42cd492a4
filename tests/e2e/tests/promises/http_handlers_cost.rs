//! What waits for a service is found as cheaply, however much waits beside it and whatever was handled before.

use harness::{Database, Receiver, Reply, StageOptions, until};
use serde_json::Value;

use crate::receiving::LONG;

/// The rows that a look reads for 16 messages: each may be in a block of its own.
const SPREAD: i64 = 32;

/// Blocks that a look touches which may take 16 messages.
async fn blocks_of_a_look(db: &Database, floor: i64) -> i64 {
    let sql = format!(
        "EXPLAIN (ANALYZE, BUFFERS, TIMING off, FORMAT json) SELECT * FROM sea_mq.callable('app__api', 16, '{{}}', {floor})"
    );
    // The first one plans.
    let _: Value = db.value(&sql, &[]).await;
    let plan: Value = db.value(&sql, &[]).await;
    let count = |name: &str| plan[0]["Plan"][name].as_i64().expect("it is counted");
    count("Shared Hit Blocks") + count("Shared Read Blocks")
}

/// The number that the dispatcher knows no message to wait before.
async fn floor(db: &Database) -> i64 {
    db.value("SELECT min(id) FROM sea_mq.inbox_pending WHERE subscription = 'app__api'", &[]).await
}

/// Has so many messages wait for a service that is paused.
async fn wait_for_it(db: &Database, messages: i64) {
    db.run("SELECT sea_mq.pause_endpoint('api')").await;
    let emit =
        "SELECT count(sea_mq.emit('order', i::text, 'Counted', '{\"n\": 1}')) FROM generate_series(1, $1::bigint) i";
    db.value::<i64>(emit, &[&messages]).await;
    let waiting = "SELECT count(*) = $1 FROM sea_mq.inbox_pending WHERE subscription = 'app__api'";
    until("all wait", LONG, async || db.value(waiting, &[&messages]).await).await;
}

async fn handle_all(db: &Database) {
    db.run("SELECT sea_mq.resume_endpoint('api')").await;
    let waiting = "SELECT NOT EXISTS (SELECT FROM sea_mq.inbox_pending WHERE subscription = 'app__api')";
    until("all are handled", LONG, async || db.value(waiting, &[]).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_costs_what_it_takes_and_not_what_waits_or_was_handled() {
    let stage = StageOptions { no_url: true, ..StageOptions::default() }
        .setting("sea_mq.endpoint_allow_http", "on")
        .setting("sea_mq.endpoint_allowed_networks", "127.0.0.0/8")
        .setting("autovacuum", "off")
        .start("calls_cost")
        .await;
    let db = stage.connect().await;
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    db.run(&format!(
        "SELECT sea_mq.create_endpoint('api', 'http', '{}', filter => '{{}}', audience => 'internal', max_in_flight => 64);
         SELECT sea_mq.subscribe('app__api', 'orders', endpoint => 'api', max_ack_pending => 5000, start_from => 'all')",
        receiver.url("/")
    ))
    .await;
    wait_for_it(&db, 100).await;
    let few = blocks_of_a_look(&db, 0).await;
    handle_all(&db).await;
    // With a snapshot that is older, nothing that is dead goes away.
    let old = stage.connect().await;
    old.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class").await;
    wait_for_it(&db, 2000).await;
    let many = blocks_of_a_look(&db, floor(&db).await).await;
    handle_all(&db).await;
    wait_for_it(&db, 100).await;
    let (behind, among) = (blocks_of_a_look(&db, floor(&db).await).await, blocks_of_a_look(&db, 0).await);
    eprintln!("{few} blocks with 100 messages, {many} with 2,000, {behind} after those, {among} without the floor");
    assert!(many <= few + SPREAD, "{few} blocks with 100 messages, {many} with 2,000");
    assert!(behind <= few + SPREAD, "{few} blocks at first, {behind} after 2,000 were handled");
    // Else the floor would be good for nothing here.
    assert!(among > behind + 2 * SPREAD, "{behind} blocks from the floor on, {among} from the beginning");
    handle_all(&db).await;
    drop(old);
}
