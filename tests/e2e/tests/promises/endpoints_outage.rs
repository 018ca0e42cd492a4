//! An endpoint that was away for long comes back: it gets all that waited, in a ramp, and never more than its rate.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use harness::{Receiver, Reply, until};

use crate::SOON;
use crate::endpoints::{create, emit, stage, until_delivered};

/// A hundred thousand take minutes in a build that is not optimised.
const BACKLOG: i64 = 10_000;
const RATE: usize = 1000;
/// How long the server takes for a request.
const TAKES: Duration = Duration::from_millis(50);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_backlog_comes_in_a_ramp_and_never_faster_than_the_rate() {
    let stage = stage("outage").await;
    let db = stage.connect().await;
    let down = Arc::new(AtomicBool::new(true));
    let answers = Arc::clone(&down);
    let receiver = Receiver::start(move |_| {
        if answers.load(Ordering::Relaxed) { Reply::status(500) } else { Reply::status(200).after(TAKES) }
    })
    .await;
    let more = format!(", max_in_flight => 256, rate => {RATE}, retry_schedule => '{{0, 100 ms, 1 s, 1 s, 1 s, 1 s}}'");
    create(&db, "acme", &receiver.url("/"), &more).await;
    emit(&db, 0).await;
    let waiting = "SELECT count(sea_mq.emit('order', i::text, 'OrderCreated', '{\"n\": 1}')) FROM generate_series(1, $1::bigint - 1) i";
    db.value::<i64>(waiting, &[&BACKLOG]).await;
    let open = "SELECT state = 'open' FROM sea_mq.endpoint_status WHERE endpoint = 'acme'";
    until("it is open", SOON, async || db.value(open, &[]).await).await;
    // What waits takes no rows.
    assert!(db.value::<bool>("SELECT count(*) <= 256 FROM sea_mq.delivery_pending", &[]).await);
    down.store(false, Ordering::Relaxed);
    let refused = receiver.received().len();
    db.run("SELECT sea_mq.resume_endpoint('acme')").await;
    until_delivered(&db, "acme", BACKLOG).await;
    let times: Vec<Instant> = receiver.received()[refused..].iter().map(|one| one.at).collect();
    // The window begins with one, and grows by one with each success; the attempts that probed it may be under way still. An answer is
    // on its way `TAKES` after its request came, at the earliest: so this holds however busy the machine is.
    for (came, at) in (1..).zip(times.iter().take(64)) {
        let answered = times.iter().take_while(|&&other| other + TAKES <= *at).count();
        assert!(came <= 4 * (1 + answered), "{came} came when {answered} were answered");
    }
    // Over seconds, since what a busy machine holds up for a moment comes together afterwards.
    let span = Duration::from_secs(3);
    let busiest = (0..times.len()).map(|at| times[at..].partition_point(|&other| other < times[at] + span)).max();
    assert!(busiest.is_some_and(|count| count <= 3 * RATE * 11 / 10), "{busiest:?} within {span:?}");
}
