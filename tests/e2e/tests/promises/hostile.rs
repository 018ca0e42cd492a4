//! What others publish is not trusted: it reaches no protocol as it is, and stops nobody but itself.

use std::io::{Read, Write};
use std::net::TcpStream;

use harness::{Database, Stage, until};
use serde_json::json;
use tokio_postgres::error::SqlState;

use crate::SOON;
use crate::receiving::{emit_numbers, make_recorder, publish, until_recorded, until_state};

async fn prepared(name: &str) -> (Stage, Database) {
    let stage = Stage::new(name).await.described().await;
    let db = stage.connect().await;
    make_recorder(&db).await;
    (stage, db)
}

/// An envelope brings texts that were no headers, and that headers cannot be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn texts_that_cannot_be_headers_do_not_stop_the_dead_letters() {
    let (stage, db) = prepared("hostile_texts").await;
    db.run(
        "CREATE FUNCTION refuse(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS
            $$ BEGIN PERFORM sea_mq.poison('no'); END $$;
         SELECT sea_mq.subscribe('app__texts', 'orders', 'refuse')",
    )
    .await;
    until_state(&db, "app__texts", "state = 'active'").await;
    let evil = "a\r\nX-Evil: 1\r\n\r\nPUB orders.event.forged.v1 0\r\n\r\n";
    let body = json!({"specversion": "1.0", "id": evil, "source": "/x", "type": "t", "eventname": evil, "context": evil,
        "aggregatetype": evil, "aggregateid": evil, "correlationid": evil, "causationid": evil, "data": {"n": 1}});
    publish(&stage, "orders.event.strange.v1", &[], &body.to_string()).await;
    publish(&stage, "orders.event.strange.v1", &[], "{}").await;
    let sql = "SELECT count(*) = 2 FROM sea_mq.dlq_messages WHERE stream_seq IS NOT NULL";
    until("both dead letters are in the stream", SOON, async || db.value(sql, &[]).await).await;
    let letters = stage.broker.stored("ORDERS_DLQ").await;
    assert_eq!(letters.len(), 2, "{letters:?}");
    assert!(letters.iter().all(|letter| letter.header("X-Evil").is_empty()), "{letters:?}");
    assert!(stage.broker.stored(harness::EVENTS).await.iter().all(|one| one.subject == "orders.event.strange.v1"));
    assert_eq!(db.value::<i64>("SELECT count(*) FROM sea_mq.publish_failures", &[]).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_whose_subject_is_none_is_not_replayed() {
    let (stage, db) = prepared("hostile_subject").await;
    let dlq = async || stage.broker.stream("ORDERS_DLQ").await.is_some();
    until("the DLQ stream is there", SOON, dlq).await;
    let headers = [("X-Original-Subject", "orders.event.a _INBOX.x 0")];
    publish(&stage, "orders.dlq.x", &headers, "{}").await;
    let sql = "SELECT count(*) = 1 FROM sea_mq.dlq_list()";
    until("it is listed", SOON, async || db.value(sql, &[]).await).await;
    let replay = "SELECT sea_mq.dlq_replay(id) FROM sea_mq.dlq_list()";
    assert_eq!(db.refusal(replay).await, SqlState::INVALID_PARAMETER_VALUE);
    assert!(db.value::<bool>(sql, &[]).await, "it is still there");
}

/// nats-server takes any header block; the client library gives its connection up over one that is malformed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_breaks_the_connection_stops_its_own_subscription_alone() {
    let (stage, db) = prepared("hostile_headers").await;
    db.run(
        "SELECT sea_mq.subscribe('app__bad', 'orders', 'record', filter => 'Bad');
         SELECT sea_mq.subscribe('app__good', 'orders', 'record', filter => 'Counted')",
    )
    .await;
    for subscription in ["app__bad", "app__good"] {
        until_state(&db, subscription, "state = 'active'").await;
    }
    publish_malformed(&stage, "orders.event.bad.v1");
    until_state(&db, "app__bad", "error_kind = 'UnreadableMessage' AND hint IS NOT NULL").await;
    emit_numbers(&db, 1, 100).await;
    until_recorded(&stage, 100).await;
    // As the hint says.
    let stream = stage.broker.stream(harness::EVENTS).await.expect("the stream is there");
    stream.delete_message(1).await.expect("cannot remove the message");
    publish(&stage, "orders.event.bad.v1", &[], "{\"n\": 101}").await;
    let sql = "SELECT count(*) = 1 FROM sea_mq.inbox_messages WHERE subscription = 'app__bad' AND processed";
    until("the subscription goes on", 2 * SOON, async || db.value(sql, &[]).await).await;
}

/// Also when it is handled by itself, since another of its batch fails at the commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_nested_deeper_than_postgresql_reads_is_a_dead_letter_and_blocks_nothing() {
    let (stage, db) = prepared("hostile_nesting").await;
    db.run(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'late'; END $$;
         CREATE CONSTRAINT TRIGGER late AFTER INSERT ON effects DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW WHEN (NEW.n = 1) EXECUTE FUNCTION fail()",
    )
    .await;
    let stream = async || stage.broker.stream(harness::EVENTS).await.is_some();
    until("the stream is there", SOON, stream).await;
    publish(&stage, "orders.event.counted.v1", &[], "{\"n\": 1}").await;
    publish(&stage, "orders.event.counted.v1", &[], &format!("{}{}", "[".repeat(50_000), "]".repeat(50_000))).await;
    publish(&stage, "orders.event.counted.v1", &[], "{\"n\": 3}").await;
    db.run("SELECT sea_mq.subscribe('app__deep', 'orders', 'record', start_from => 'all')").await;
    until_recorded(&stage, 1).await;
    let sql = "SELECT count(*) = 1 FROM sea_mq.dlq_messages WHERE headers ->> 'X-Sea-Body' = 'text'";
    until("it is a dead letter", SOON, async || db.value(sql, &[]).await).await;
}

/// Publishes a message that no client library would send.
fn publish_malformed(stage: &Stage, subject: &str) {
    let address = stage.broker.url().replace("nats://", "");
    let mut connection = TcpStream::connect(address).expect("cannot connect");
    let headers = "NATS/1.0\r\nno colon in this line\r\n\r\n";
    let body = "{}";
    let message = format!(
        "CONNECT {{\"headers\":true,\"verbose\":false,\"pedantic\":false}}\r\nHPUB {subject} {} {}\r\n{headers}{body}\r\nPING\r\n",
        headers.len(),
        headers.len() + body.len()
    );
    connection.write_all(message.as_bytes()).expect("cannot publish");
    let mut answer = String::new();
    while !answer.contains("PONG") {
        let mut part = [0; 1024];
        let length = connection.read(&mut part).expect("no answer");
        assert!(length > 0, "the server closed the connection: {answer}");
        answer.push_str(&String::from_utf8_lossy(&part[..length]));
    }
    assert!(!answer.contains("-ERR"), "{answer}");
}
