//! What waits for a service is found as cheaply, however much waits beside it and whatever was handled before.

use std::time::Duration;

use harness::{Database, Receiver, Reply, StageOptions, until};

use crate::receiving::LONG;

/// Blocks of the table of what waits that were looked at so far, once the workers have reported that.
async fn cost(db: &Database) -> i64 {
    tokio::time::sleep(Duration::from_secs(3)).await;
    let sql = "SELECT heap_blks_read + heap_blks_hit + idx_blks_read + idx_blks_hit FROM pg_statio_all_tables
        WHERE schemaname = 'sea_mq' AND relname = 'inbox_pending'";
    db.value(sql, &[]).await
}

/// Has so many messages wait, when so many were handled before, and says how many blocks each took from there.
async fn blocks_per_message(db: &Database, receiver: &Receiver, handled: i64, messages: i64) -> f64 {
    db.run("SELECT sea_mq.pause_endpoint('api')").await;
    let emit = "SELECT count(sea_mq.emit('order', i::text, 'Counted', '{\"n\": 1}')) FROM generate_series(1, $1::bigint) i";
    db.value::<i64>(emit, &[&messages]).await;
    let waiting = "SELECT count(*) = $1 FROM sea_mq.inbox_pending WHERE subscription = 'app__api'";
    until("all wait", LONG, async || db.value(waiting, &[&messages]).await).await;
    let before = cost(db).await;
    db.run("SELECT sea_mq.resume_endpoint('api')").await;
    // The views look at the table, too.
    let all = usize::try_from(handled + messages).expect("they are few");
    until("all are handled", LONG, async || receiver.received().len() >= all).await;
    let after = cost(db).await;
    let done = "SELECT processed FROM sea_mq.subscription_status WHERE subscription = 'app__api'";
    assert_eq!(db.value::<i64>(done, &[]).await, handled + messages);
    (after - before) as f64 / messages as f64
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
        "SELECT sea_mq.create_endpoint('api', 'http', '{}', filter => '{{}}', audience => 'internal');
         SELECT sea_mq.subscribe('app__api', 'orders', endpoint => 'api', max_ack_pending => 5000, start_from => 'all')",
        receiver.url("/")
    ))
    .await;
    let few = blocks_per_message(&db, &receiver, 0, 200).await;
    // With a snapshot that is older, nothing that is dead goes away.
    let old = stage.connect().await;
    old.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class").await;
    let many = blocks_per_message(&db, &receiver, 200, 3000).await;
    let after = blocks_per_message(&db, &receiver, 3200, 200).await;
    eprintln!("{few:.0} blocks for each of 200 messages, {many:.0} of 3,000, {after:.0} of 200 after those");
    assert!(many < few * 2.0 && after < few * 3.0, "{few:.0}, {many:.0}, {after:.0} blocks a message");
    drop(old);
}
