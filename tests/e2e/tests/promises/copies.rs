//! Several databases with the same subscriptions: copies, and others that happen to use the same names.

use harness::{Cluster, holds_for, ledger, until};

use crate::receiving::{
    assert_handled_once, emit_numbers, make_recorder, prepared, recorded, until_acknowledged, until_provisioned,
    until_state,
};
use crate::{A_WHILE, SOON};

/// It has the same subscriptions, by the same names, and the broker would share the messages out between the two.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copied_database_does_not_take_the_original_s_messages() {
    let stage = prepared("copied").await;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.subscribe('app__all', 'orders', 'record')").await;
    emit_numbers(&db, 1, 10).await;
    assert_handled_once(&stage, "app__all", 10).await;
    drop(db);
    let postgres = stage.cluster.connect("postgres").await;
    until("the database can be copied", SOON, async || {
        postgres.batch_execute("CREATE DATABASE copy TEMPLATE app").await.is_ok()
    })
    .await;
    let copy = stage.cluster.connect("copy").await;
    copy.run("SELECT sea_mq.start()").await;
    until("the copy says that it is one", SOON, async || {
        copy.value("SELECT NOT ok AND coalesce(hint LIKE '%adopt%', false) FROM sea_mq.status", &[]).await
    })
    .await;
    let db = stage.connect().await;
    for n in 11..=200 {
        emit_numbers(&db, n, n).await;
    }
    assert_handled_once(&stage, "app__all", 200).await;
    assert_eq!(recorded(&copy, "app__all").await.len(), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_another_database_uses_for_its_subscription_is_refused() {
    let stage = prepared("name_taken").await;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.subscribe('app__all', 'orders', 'record')").await;
    until_provisioned(&stage, "app__all").await;
    stage.cluster.run("CREATE DATABASE second").await;
    let second = stage.cluster.connect("second").await;
    second.run("CREATE EXTENSION sea_mq").await;
    make_recorder(&second).await;
    second.run("SELECT sea_mq.subscribe('app__all', 'orders', 'record')").await;
    let state = until_state(&second, "app__all", "state = 'refused'").await;
    assert!(state["error"].is_string() && state["hint"].is_string(), "{state}");
    emit_numbers(&db, 1, 200).await;
    assert_handled_once(&stage, "app__all", 200).await;
    assert_eq!(recorded(&second, "app__all").await, Vec::<i64>::new());
    // Nor does it take the other's consumer away.
    second.run("SELECT sea_mq.unsubscribe('app__all')").await;
    emit_numbers(&db, 201, 300).await;
    assert_handled_once(&stage, "app__all", 300).await;
}

/// The original handles some, is dumped and dies; the copy has its inbox, and the broker still has its consumer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_dump_goes_on_where_the_original_was_once_it_is_adopted() {
    let mut stage = prepared("restored").await;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.subscribe('app__all', 'orders', 'record', start_from => 'all')").await;
    emit_numbers(&db, 1, 100).await;
    assert_handled_once(&stage, "app__all", 100).await;
    stage.broker.stop();
    emit_numbers(&db, 101, 110).await;
    let mut copy = Cluster::new(
        &stage.directory.path().join("copy"),
        &[("shared_preload_libraries", "sea_mq"), ("sea_mq.nats_url", &stage.broker.url())],
    );
    copy.start().await;
    copy.run("CREATE DATABASE app").await;
    copy.run("ALTER DATABASE app SET sea_mq.context = 'orders'").await;
    stage.cluster.copy_database("app", &copy, "app");
    stage.cluster.crash();
    stage.broker.start().await;
    let db = copy.connect("app").await;
    until("the copy says that it is one", SOON, async || {
        db.value("SELECT NOT ok AND coalesce(hint LIKE '%adopt%', false) FROM sea_mq.status", &[]).await
    })
    .await;
    emit_numbers(&db, 111, 120).await;
    assert_eq!(recorded(&db, "app__all").await.len(), 100);
    db.run("SELECT sea_mq.adopt()").await;
    until("all is handled", SOON, async || recorded(&db, "app__all").await.len() >= 120).await;
    until_acknowledged(&stage, "app__all").await;
    ledger::assert_same_set(&(1..=120).collect::<Vec<i64>>(), &recorded(&db, "app__all").await);
    until_state(&db, "app__all", "state = 'active' AND error IS NULL").await;
}

/// Somebody tries things with yesterday's data.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_dump_waits_without_a_broker_too_and_goes_on_inside_itself_in_test_mode() {
    let mut stage = prepared("restored_test").await;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.subscribe('app__all', 'orders', 'record', start_from => 'all')").await;
    emit_numbers(&db, 1, 100).await;
    assert_handled_once(&stage, "app__all", 100).await;
    stage.broker.stop();
    emit_numbers(&db, 101, 110).await;
    let mut copy = Cluster::new(&stage.directory.path().join("copy"), &[("shared_preload_libraries", "sea_mq")]);
    copy.start().await;
    copy.run("CREATE DATABASE app").await;
    copy.run("ALTER DATABASE app SET sea_mq.context = 'orders'").await;
    stage.cluster.copy_database("app", &copy, "app");
    stage.broker.start().await;
    stage.broker.until_count(harness::EVENTS, 110, SOON).await;
    let db = copy.connect("app").await;
    until_state(&db, "app__all", "state = 'waiting' AND error_kind = 'Copied' AND hint LIKE '%test_mode%'").await;
    emit_numbers(&db, 111, 120).await;
    holds_for("it waits", A_WHILE, async || recorded(&db, "app__all").await.len() == 100).await;
    db.run("SELECT sea_mq.test_mode()").await;
    until("all is handled", SOON, async || recorded(&db, "app__all").await.len() >= 120).await;
    ledger::assert_same_set(&(1..=120).collect::<Vec<i64>>(), &recorded(&db, "app__all").await);
    until("nothing is wrong", SOON, async || db.value("SELECT ok FROM sea_mq.status", &[]).await).await;
    // A broker that the settings name later is not published to.
    copy.run(&format!("ALTER DATABASE app SET sea_mq.nats_url = '{}'", stage.broker.url())).await;
    let db = copy.connect("app").await;
    db.run("SELECT sea_mq.reload()").await;
    emit_numbers(&db, 121, 130).await;
    until("it is handled inside", SOON, async || recorded(&db, "app__all").await.len() == 130).await;
    db.run("SELECT sea_mq.test_mode(false)").await;
    until("it is a copy again", SOON, async || {
        db.value("SELECT state = 'paused' AND error_kind = 'Copied' FROM sea_mq.relay_status", &[]).await
    })
    .await;
    emit_numbers(&db, 131, 140).await;
    holds_for("nothing is published", A_WHILE, async || stage.broker.count(harness::EVENTS).await == 110).await;
}
