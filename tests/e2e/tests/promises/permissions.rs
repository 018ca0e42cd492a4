//! Permissions that are missing, one by one: each is named, and costs no more than what it is for.

use std::time::{Duration, Instant};

use harness::{BrokerOptions, Stage, StageOptions, until, until_some};
use serde_json::json;

use crate::receiving::{emit_numbers, jetstream_consumer, make_recorder, recorded, until_recorded, until_state};
use crate::{A_WHILE, SOON};

/// A stage whose relay and consumer may publish to all subjects but these.
async fn without(name: &str, denied: &str) -> Stage {
    let broker = BrokerOptions {
        configuration: format!(
            "authorization {{ users: [
                {{ user: sea, password: secret, permissions: {{ publish: {{ allow: \">\", deny: [\"{denied}\"] }}, subscribe: \">\" }} }},
                {{ user: test, password: test }} ] }}"
        ),
        login: Some(("test".into(), "test".into())),
        ..BrokerOptions::default()
    };
    let stage = StageOptions { broker, ..StageOptions::default() }.start(name).await;
    let password = stage.directory.path().join("password");
    std::fs::write(&password, "secret\n").expect("cannot write the password");
    stage.cluster.run("ALTER SYSTEM SET sea_mq.nats_user = 'sea'").await;
    stage.cluster.run(&format!("ALTER SYSTEM SET sea_mq.nats_password_file = '{}'", password.display())).await;
    stage.cluster.run("SELECT pg_reload_conf()").await;
    stage.until_connected().await;
    make_recorder(&stage.connect().await).await;
    stage
}

/// Without acks all comes again. It is handled once, and not asked for all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_acks_a_subscription_says_so_and_is_not_delivered_to_all_the_time() {
    let stage = without("without_acks", "$JS.ACK.>").await;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.subscribe('app__all', 'orders', 'record', start_from => 'all', ack_wait => '2 s')").await;
    emit_numbers(&db, 1, 60).await;
    until_recorded(&stage, 60).await;
    until_state(&db, "app__all", "state = 'refused' AND error_kind = 'Permission' AND error LIKE '%$JS.ACK.%'").await;
    stage.until_problem("problem LIKE 'subscription app__all is refused: %$JS.ACK.%'").await;
    let deliveries = async || {
        let consumer = until_some("the consumer", SOON, async || jetstream_consumer(&stage, "app__all").await).await;
        consumer.delivered.consumer_sequence
    };
    let before = deliveries().await;
    let begin = Instant::now();
    let (mut looks, mut said) = (0, 0);
    while begin.elapsed() < A_WHILE * 10 {
        let sql = "SELECT EXISTS (SELECT FROM sea_mq.problems WHERE problem LIKE '%$JS.ACK.%')";
        said += i32::from(db.value::<bool>(sql, &[]).await);
        looks += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Every quarter of a minute it is tried again, which shows as active for a moment.
    assert!(said * 4 >= looks * 3, "said in {said} of {looks} looks");
    let tries = begin.elapsed().as_secs() / 15 + 2;
    let more = deliveries().await - before;
    assert!(more <= tries * 60, "{more} more deliveries of 60 messages in {:?}", begin.elapsed());
    assert_eq!(recorded(&db, "app__all").await.len(), 60, "each is handled once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_may_not_be_deleted_is_named() {
    let stage = without("without_consumer_delete", "$JS.API.CONSUMER.DELETE.>").await;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.subscribe('app__all', 'orders', 'record', start_from => 'all')").await;
    emit_numbers(&db, 1, 20).await;
    until_recorded(&stage, 20).await;
    db.run("SELECT sea_mq.unsubscribe('app__all')").await;
    stage.until_problem("problem LIKE 'consumer app__all %could not be removed in NATS: %CONSUMER.DELETE%'").await;
    // Reading the tail of a stream needs a consumer for a moment; it goes by itself.
    emit_numbers(&db, 21, 40).await;
    stage.broker.until_count(harness::EVENTS, 40, SOON).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_that_may_not_be_deleted_is_named() {
    let stage = without("without_message_delete", "$JS.API.STREAM.MSG.DELETE.>").await;
    let db = stage.connect().await;
    db.run(
        "CREATE FUNCTION refuse(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$
         BEGIN PERFORM sea_mq.poison('never'); END $$;
         SELECT sea_mq.subscribe('app__all', 'orders', 'refuse', start_from => 'all')",
    )
    .await;
    emit_numbers(&db, 1, 1).await;
    let letters = "SELECT count(*) FROM sea_mq.dlq_messages WHERE stream_seq IS NOT NULL";
    until("there is a dead letter", SOON, async || db.value::<i64>(letters, &[]).await == 1).await;
    db.run("SELECT sea_mq.dlq_discard(id, 'not needed') FROM sea_mq.dlq_messages").await;
    stage.until_problem("problem LIKE '%dead letters could not be removed from stream %_DLQ: %MSG.DELETE%'").await;
}

/// It is for the lease, without which everything works.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_reading_messages_everything_works_and_the_log_says_what_does_not() {
    let stage = without("without_message_get", "$JS.API.STREAM.MSG.GET.>").await;
    let db = stage.connect().await;
    db.run("SELECT sea_mq.subscribe('app__all', 'orders', 'record', start_from => 'all')").await;
    let id = db.emit("1", "Counted", json!({ "n": 1 })).await;
    stage.assert_stored(&[id]).await;
    until_recorded(&stage, 1).await;
    until("the log says so", SOON, async || {
        stage.cluster.log().contains("cannot find out whether another relay publishes for this installation: the account may not publish to $JS.API.STREAM.MSG.GET")
    })
    .await;
    stage.until_ok().await;
}
