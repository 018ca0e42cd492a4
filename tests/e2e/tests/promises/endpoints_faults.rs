//! Whatever is killed, endpoints get everything, with the same id and bytes.

use std::collections::HashMap;
use std::time::Duration;

use harness::{Receiver, Reply, Stage, kill, until, until_some};
use uuid::Uuid;

use crate::SOON;
use crate::endpoints::{create, emit, stage, until_delivered};

pub(crate) async fn dispatcher(stage: &Stage) -> i32 {
    let sql = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'sea_mq dispatcher'";
    until_some("a dispatcher runs", SOON, async || {
        let db = stage.connector().try_connect().await.ok()?;
        db.query(sql, &[]).await.ok()?.first().map(|row| row.get(0))
    })
    .await
}

/// Each event came, with one body, and none came more often than there were faults.
fn assert_all(receiver: &Receiver, ids: &[Uuid], faults: usize, in_flight: usize) {
    let mut bodies: HashMap<String, Vec<Vec<u8>>> = HashMap::new();
    for one in receiver.received() {
        bodies.entry(one.header("webhook-id").to_owned()).or_default().push(one.body);
    }
    for id in ids {
        let of_one = bodies.get(&id.to_string()).unwrap_or_else(|| panic!("{id} was lost"));
        assert!(of_one.iter().all(|body| body == &of_one[0]), "{id} came with other bytes");
    }
    let doubled: usize = bodies.values().map(|of_one| of_one.len() - 1).sum();
    assert!(doubled <= faults * in_flight, "{doubled} were doubled");
    assert_eq!(bodies.len(), ids.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dispatcher_that_is_killed_loses_nothing_and_doubles_no_more_than_was_in_flight() {
    let stage = stage("kill_dispatcher").await;
    let db = stage.connect().await;
    let receiver = Receiver::start(|_| Reply::status(200).after(Duration::from_millis(20))).await;
    create(&db, "acme", &receiver.url("/"), ", max_in_flight => 16").await;
    let mut ids = Vec::new();
    for n in 0..300 {
        ids.push(emit(&db, n).await);
    }
    drop(db);
    for count in [20, 100, 200] {
        until("some more came", SOON * 2, async || receiver.received().len() >= count).await;
        // It takes the whole server along.
        kill(dispatcher(&stage).await);
        until("the server is back", SOON * 2, async || stage.connector().try_connect().await.is_ok()).await;
    }
    dispatcher(&stage).await;
    let db = stage.connect().await;
    let open = "SELECT count(*) = 0 FROM sea_mq.delivery_pending";
    until("nothing waits", SOON * 2, async || db.value(open, &[]).await).await;
    let all = i64::try_from(ids.len()).expect("they are few");
    let done = "SELECT count(*) >= $1 FROM sea_mq.delivery_log WHERE status = 'delivered'";
    until("all are delivered", SOON * 3, async || db.value(done, &[&all]).await).await;
    assert_all(&receiver, &ids, 3, 32);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_while_writers_write_sends_what_was_committed_and_nothing_else() {
    let mut stage = stage("kill_server").await;
    let db = stage.connect().await;
    let receiver = Receiver::start(|_| Reply::status(200).after(Duration::from_millis(5))).await;
    create(&db, "acme", &receiver.url("/"), "").await;
    let mut ids = Vec::new();
    for round in 0..2 {
        let db = stage.connect().await;
        db.run("SET synchronous_commit = off").await;
        for n in 0..100 {
            ids.push(emit(&db, n).await);
        }
        db.run(&format!("CHECKPOINT; SELECT {round}")).await;
        until("some came", SOON, async || receiver.received().len() > round * 100 + 10).await;
        stage.cluster.kill();
        stage.cluster.revive().await;
    }
    let db = stage.connect().await;
    dispatcher(&stage).await;
    let all = i64::try_from(ids.len()).expect("they are few");
    let done = "SELECT count(*) >= $1 FROM sea_mq.delivery_log WHERE status = 'delivered'";
    until("all are delivered", SOON * 3, async || db.value(done, &[&all]).await).await;
    assert_all(&receiver, &ids, 2, 32);
    until_delivered(&db, "acme", 1).await;
}

/// It ends after its transaction, and not after somebody else's that it waits for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dispatcher_that_waits_for_a_lock_ends_when_it_is_told_to() {
    let stage = stage("locked").await;
    let db = stage.connect().await;
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    create(&db, "acme", &receiver.url("/"), "").await;
    let pid = dispatcher(&stage).await;
    let holder = stage.connect().await;
    holder.run("BEGIN; LOCK TABLE sea_mq.endpoint_definitions, sea_mq.endpoint_health, sea_mq.delivery_pending").await;
    emit(&db, 1).await;
    let waits = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock')";
    until("it waits for the lock", SOON, async || db.value(waits, &[&pid]).await).await;
    assert!(
        db.value::<bool>("SELECT pg_terminate_backend($1, 10000)", &[&pid]).await,
        "it has ended, the lock is still held"
    );
    holder.run("COMMIT").await;
    until("it is delivered", SOON * 2, async || receiver.received_on("/").len() == 1).await;
}
