//! What is fetched has its bounds in bytes, over all subscriptions of a process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use harness::{EVENTS, Stage, StageOptions, resident_bytes, until};

use crate::receiving::LONG;

/// Bytes of a message.
const SIZE: usize = 900_000;
/// Messages in the stream: far more than there is memory for, for each subscription.
const MESSAGES: i64 = 50;
/// Megabytes of a process's own memory beside what it has fetched: code that was relocated, caches, the buffers of a
/// connection, and what is being handled, several times.
const BESIDE: u64 = 110;

/// Watches a process, and says at the end how many megabytes of its own it had at most.
struct Watch {
    ended: Arc<AtomicBool>,
    most: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Watch {
    fn new(pid: i32) -> Self {
        let (ended, most) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (watched, seen) = (Arc::clone(&ended), Arc::clone(&most));
        let task = tokio::spawn(async move {
            while !watched.load(Ordering::Relaxed) {
                seen.fetch_max(resident_bytes(pid) >> 20, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        Self { ended, most, task }
    }

    async fn end(self) -> u64 {
        self.ended.store(true, Ordering::Relaxed);
        self.task.await.expect("the watch ends");
        self.most.load(Ordering::Relaxed)
    }
}

async fn handled_within(name: &str, fetch_memory: u64, handler: &str, bound: u64) {
    let stage: Stage =
        StageOptions::default().setting("sea_mq.fetch_memory", &format!("{fetch_memory}MB")).start(name).await;
    let db = stage.connect().await;
    db.run(
        "CREATE TABLE seen (subscription text, n bigint);
         CREATE FUNCTION look(e sea_mq.event) RETURNS void LANGUAGE sql AS
            $$ INSERT INTO seen VALUES (e.subscription, (e.payload ->> 'n')::bigint) $$",
    )
    .await;
    // Not compressible, so that it takes as much in the database as on its way.
    for n in 1..=MESSAGES {
        db.run(&format!(
            "SELECT sea_mq.emit('order', '{n}', 'Counted', jsonb_build_object('n', {n}, 'x', (
                SELECT string_agg(md5(i::text || {n}), '') FROM generate_series(1, {}) i)))",
            SIZE / 32
        ))
        .await;
    }
    stage.broker.until_count(EVENTS, MESSAGES.cast_unsigned(), LONG).await;
    let watch = Watch::new(stage.consumer().await);
    // Unbounded, each would have all of them in memory.
    for number in 1..=4 {
        db.run(&format!(
            "SELECT sea_mq.subscribe('app__{number}', 'orders', {handler}, start_from => 'all', max_ack_pending => 1000)"
        ))
        .await;
    }
    let all = format!(
        "SELECT count(*) = {} FROM sea_mq.inbox_messages WHERE status IN ('processed', 'received')",
        4 * MESSAGES
    );
    until("all are received", LONG, async || db.value(&all, &[]).await).await;
    if handler != "NULL" {
        let each = "SELECT count(*) FROM (SELECT FROM seen GROUP BY subscription, n HAVING count(*) = 1) s";
        until("all are handled", LONG, async || db.value::<i64>(each, &[]).await == 4 * MESSAGES).await;
    }
    let most = watch.end().await;
    eprintln!("{name}: {most} MB");
    assert!(most < bound, "the consumer had {most} MB, {bound} are allowed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_of_large_messages_is_handled_within_the_memory_for_it() {
    handled_within("budget", 16, "'look'", 16 * 2 + BESIDE).await;
}

/// Each share is smaller than a message: they come one by one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_larger_than_their_share_come_one_by_one() {
    handled_within("budget_small", 2, "'look'", 2 * 2 + BESIDE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_of_large_messages_is_stored_within_the_memory_for_it() {
    handled_within("budget_stored", 16, "NULL", 16 * 2 + BESIDE).await;
}
