//! A copy sends nothing to the endpoints that it has from the original, until somebody says that it takes the original's place.

use harness::{Cluster, Receiver, Reply, Stage, holds_for, until};

use crate::endpoints::{create, emit, stage, until_delivered};
use crate::{A_WHILE, SOON};

/// A copy says what it is, and is silent while it emits, too.
async fn assert_silent(copy: &Cluster, receiver: &Receiver, sent: usize) {
    let db = copy.connect("app").await;
    db.run("SELECT sea_mq.start()").await;
    emit(&db, 1000).await;
    let copied =
        "SELECT coalesce(bool_and(state = 'copied' AND hint LIKE '%adopt%'), false) FROM sea_mq.endpoint_status";
    until("the copy says that it is one", SOON * 2, async || db.value(copied, &[]).await).await;
    let problems: bool = db
        .value("SELECT EXISTS (SELECT FROM sea_mq.problems WHERE problem LIKE 'endpoint acme is copied%')", &[])
        .await;
    assert!(problems);
    holds_for("it sends nothing", A_WHILE, async || receiver.received().len() == sent).await;
}

/// It goes on, with what waits.
async fn assert_adopted(copy: &Cluster, receiver: &Receiver, sent: usize) {
    let db = copy.connect("app").await;
    db.run("SELECT sea_mq.adopt()").await;
    emit(&db, 1001).await;
    until("what waited and what is new is sent", SOON * 2, async || receiver.received().len() == sent + 2).await;
    holds_for("and nothing else", A_WHILE, async || receiver.received().len() == sent + 2).await;
}

/// Ten events are delivered.
async fn prepared(name: &str) -> (Stage, Receiver) {
    let stage = stage(name).await;
    let db = stage.connect().await;
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    create(&db, "acme", &receiver.url("/"), "").await;
    for n in 0..10 {
        emit(&db, n).await;
    }
    until_delivered(&db, "acme", 10).await;
    (stage, receiver)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cloned_data_directory_sends_nothing_until_it_is_adopted() {
    let (stage, receiver) = prepared("endpoint_clone").await;
    let mut copy = stage.cluster.base_backup(&stage.directory.path().join("copy"));
    copy.start().await;
    assert_silent(&copy, &receiver, 10).await;
    assert_adopted(&copy, &receiver, 10).await;
    // The original goes on beside it.
    let db = stage.connect().await;
    emit(&db, 11).await;
    until("the original sends", SOON, async || receiver.received().len() == 13).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_dump_sends_nothing_until_it_is_adopted() {
    let (stage, receiver) = prepared("endpoint_dump").await;
    let mut other = Cluster::new(&stage.directory.path().join("other"), &[("shared_preload_libraries", "sea_mq")]);
    other.configure(&[("sea_mq.endpoint_allow_http", "on"), ("sea_mq.endpoint_allowed_networks", "127.0.0.0/8")]);
    other.start().await;
    other.run("CREATE DATABASE app").await;
    other.run("ALTER DATABASE app SET sea_mq.context = 'orders'").await;
    stage.cluster.copy_database("app", &other, "app");
    assert_silent(&other, &receiver, 10).await;
    // Its secrets are encrypted with a key that it has not.
    let db = other.connect("app").await;
    db.run("SELECT sea_mq.rotate_secret('acme', grace => '0')").await;
    assert_adopted(&other, &receiver, 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_made_from_another_as_template_sends_nothing() {
    let (stage, receiver) = prepared("endpoint_template").await;
    let postgres = stage.cluster.connect("postgres").await;
    until("the database can be copied", SOON, async || {
        postgres.batch_execute("CREATE DATABASE copy TEMPLATE app").await.is_ok()
    })
    .await;
    let copy = stage.cluster.connect("copy").await;
    copy.run("SET sea_mq.context = 'orders'; SELECT sea_mq.start()").await;
    emit(&copy, 1000).await;
    let copied = "SELECT coalesce(bool_and(state = 'copied'), false) FROM sea_mq.endpoint_status";
    until("the copy says that it is one", SOON, async || copy.value(copied, &[]).await).await;
    holds_for("it sends nothing", A_WHILE, async || receiver.received().len() == 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recovery_to_a_point_in_time_sends_nothing_until_it_is_adopted() {
    let (stage, receiver) = prepared("endpoint_recovery").await;
    let db = stage.connect().await;
    let mut recovered = stage.cluster.base_backup(&stage.directory.path().join("recovered"));
    db.run("SELECT pg_create_restore_point('good')").await;
    // What came behind the point was sent, and the recovered one does not know it.
    emit(&db, 10).await;
    until_delivered(&db, "acme", 11).await;
    db.run("SELECT pg_switch_wal()").await;
    recovered.recover(&stage.cluster, "good");
    recovered.start().await;
    let copy = recovered.connect("app").await;
    until("it is recovered", SOON * 2, async || copy.value("SELECT NOT pg_is_in_recovery()", &[]).await).await;
    assert_silent(&recovered, &receiver, 11).await;
    assert_adopted(&recovered, &receiver, 11).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_broker_a_promoted_standby_sends_nothing_until_it_is_adopted() {
    let (stage, receiver) = prepared("endpoint_promotion").await;
    let mut standby = stage.cluster.base_backup(&stage.directory.path().join("standby"));
    standby.follow(&stage.cluster);
    standby.start().await;
    let copy = standby.connect("app").await;
    let db = stage.connect().await;
    emit(&db, 10).await;
    until_delivered(&db, "acme", 11).await;
    until("the standby has it", SOON, async || copy.value("SELECT count(*) = 11 FROM sea_mq.delivery_log", &[]).await)
        .await;
    copy.run("SELECT pg_promote(false)").await;
    until("it is promoted", SOON * 2, async || copy.value("SELECT NOT pg_is_in_recovery()", &[]).await).await;
    assert_silent(&standby, &receiver, 11).await;
    assert_adopted(&standby, &receiver, 11).await;
}
