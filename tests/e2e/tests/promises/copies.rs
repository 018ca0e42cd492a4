//! Several databases with the same subscriptions: copies, and others that happen to use the same names.

use harness::{Cluster, ledger, until};

use crate::SOON;
use crate::receiving::{
    assert_handled_once, emit_numbers, make_recorder, prepared, recorded, until_acknowledged, until_provisioned,
    until_state,
};

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
