//! A line that is slower than the broker sends: what is on its way is bounded, and where a broker bounds it further, less is
//! asked for until it passes.

use std::time::Duration;

use harness::{Database, EVENTS, Line, Stage, StageOptions, until};

use crate::receiving::{LONG, make_recorder};

const MEGABYTE: u64 = 1 << 20;

/// Puts so many messages of this size into the stream, not compressible, and has what receives go through a line.
async fn prepared(name: &str, configuration: &str, messages: i64, size: usize, rate: u64) -> (Stage, Line) {
    let mut options = StageOptions::default();
    options.broker.configuration = configuration.into();
    let stage = options.start(name).await;
    let db = stage.connect().await;
    make_recorder(&db).await;
    for from in (1..=messages).step_by(50) {
        db.run(&format!(
            "SELECT sea_mq.emit('order', n::text, 'Counted', jsonb_build_object('n', n, 'x', (
                SELECT string_agg(md5(i::text || n), '') FROM generate_series(1, {}) i)))
             FROM generate_series({from}, {}) n",
            size / 32,
            messages.min(from + 49)
        ))
        .await;
    }
    stage.broker.until_count(EVENTS, messages.cast_unsigned(), LONG).await;
    let line = Line::start(stage.broker.port(), rate, Duration::ZERO).await;
    stage.cluster.run(&format!("ALTER SYSTEM SET sea_mq.nats_url = '{}'", line.url())).await;
    stage.cluster.run("SELECT pg_reload_conf()").await;
    until("the relay has come through the line", LONG, async || line.connections() > 0).await;
    (stage, line)
}

async fn subscribe(db: &Database, count: i64, max_ack_pending: i64) {
    for number in 1..=count {
        db.run(&format!(
            "SELECT sea_mq.subscribe('app__{number}', 'orders', 'record', start_from => 'all', max_ack_pending => {max_ack_pending})"
        ))
        .await;
    }
}

async fn until_all_handled(db: &Database, subscriptions: i64, messages: i64) {
    let each = "SELECT count(*) FROM (SELECT FROM effects GROUP BY subscription, n HAVING count(*) = 1) s";
    until("all are handled", LONG, async || db.value::<i64>(each, &[]).await == subscriptions * messages).await;
}

/// The window is more than the broker keeps for a client: 144 MB against 64.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_larger_than_the_broker_keeps_for_a_client_is_handled_over_a_slow_line() {
    let (stage, line) = prepared("slow_window", "", 1500, 96_000, 12 * MEGABYTE).await;
    let db = stage.connect().await;
    let before = line.connections();
    subscribe(&db, 1, 1000).await;
    until_all_handled(&db, 1, 1500).await;
    assert!(line.connections() <= before + 1, "the consumer was cut: {} connections", line.connections() - before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_subscriptions_share_what_may_be_on_its_way() {
    let (stage, line) = prepared("slow_shared", "", 100, 900_000, 12 * MEGABYTE).await;
    let db = stage.connect().await;
    let before = line.connections();
    subscribe(&db, 3, 50).await;
    until_all_handled(&db, 3, 100).await;
    assert!(line.connections() <= before + 1, "the consumer was cut: {} connections", line.connections() - before);
}

/// Less than what is asked for at first: it is cut, asks for less each time, and gets through.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_keeps_less_for_a_client_is_asked_for_less_after_each_cut() {
    let (stage, line) =
        prepared("slow_cut", "max_payload: 200000, max_pending: 200000", 300, 96_000, 3 * MEGABYTE).await;
    let db = stage.connect().await;
    let before = line.connections();
    subscribe(&db, 3, 1000).await;
    until_all_handled(&db, 3, 300).await;
    let cuts = line.connections() - before;
    assert!((1..10).contains(&cuts), "{cuts} connections");
    let log = std::fs::read_to_string(stage.broker.log_path()).expect("cannot read the server's log");
    assert!(log.contains("Slow Consumer"), "it was not cut");
    let blamed: i64 =
        db.value("SELECT count(*) FROM sea_mq.subscription_status WHERE error_kind = 'UnreadableMessage'", &[]).await;
    assert_eq!(blamed, 0);
}
