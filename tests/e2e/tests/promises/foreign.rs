//! Random messages of foreign publishers: each ends handled or dead, and the consumer survives all of them.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;

use harness::{Chance, Stage, until};
use serde_json::{Map, Value, json};

use crate::receiving::{LONG, until_acknowledged, until_state};

/// A message as bytes: what a client library would not let through, too.
struct Message {
    subject: String,
    headers: Vec<u8>,
    body: Vec<u8>,
}

fn message(chance: &mut Chance, place: u64) -> Message {
    let subject = match chance.within(0..4) {
        0 => format!("orders.event.{}", place),
        1 => "orders.event.paid.v1.more.tokens".to_owned(),
        2 => format!("orders.event.strange_{}.v{}", chance.within('a'..='z'), chance.bytes(1).len()),
        _ => "orders.event.order_paid.v99999999999999999999".to_owned(),
    };
    let mut headers = b"NATS/1.0\r\n".to_vec();
    for _ in 0..chance.within(0..6) {
        header(chance, place, &mut headers);
    }
    headers.extend_from_slice(b"\r\n");
    let body = match chance.within(0..8) {
        0 => chance.bytes(300),
        1 => chance.text(300).into_bytes(),
        2 => {
            let levels = *chance.of(&[3, 127, 128, 5_000, 50_000]);
            chance.nested(levels).into_bytes()
        }
        3 | 4 => envelope(chance, place).into_bytes(),
        5 => {
            // Cut off.
            let mut text = chance.json(3).into_bytes();
            text.truncate(chance.within(0..=text.len()));
            text
        }
        _ => chance.json(3).into_bytes(),
    };
    Message { subject, headers, body }
}

/// A line that ends where it should, whatever is in it.
fn header(chance: &mut Chance, place: u64, headers: &mut Vec<u8>) {
    let names = [
        "X-Event-Type",
        "X-Event-Version",
        "X-Aggregate-Id",
        "X-Aggregate-Type",
        "X-Source-Context",
        "X-Correlation-Id",
        "traceparent",
        "X-Causation-Id",
        "X-Sea-Visibility",
        "X-Sea-Body",
        "X-Replayed-From",
        "X-Original-Subject",
        "X-Strange",
        "x-event-type",
        "Status",
    ];
    headers.extend_from_slice(chance.of(&names).as_bytes());
    headers.push(b':');
    let value = match chance.within(0..6) {
        0 => chance.text(2000),
        1 => chance.json(1),
        2 => "99999999999999999999".to_owned(),
        3 => String::new(),
        _ => format!(" {}-{place}", chance.word()),
    };
    headers.extend(value.bytes().filter(|byte| !matches!(byte, b'\r' | b'\n' | 0)));
    headers.extend_from_slice(b"\r\n");
}

/// A CloudEvent, or what looks like one.
fn envelope(chance: &mut Chance, place: u64) -> String {
    let mut event = Map::new();
    let odd = *chance.of(&[1, 4, 8, 30]);
    for key in [
        "specversion",
        "id",
        "source",
        "type",
        "context",
        "eventname",
        "eventversion",
        "aggregatetype",
        "aggregateid",
        "correlationid",
        "causationid",
        "data",
        "data_base64",
        "datacontenttype",
        "time",
        "subject",
    ] {
        let value = match if chance.one_in(odd) { chance.within(0..6) } else { 9 } {
            0 => continue,
            // What has another's id is another's double.
            1 if key != "id" => serde_json::from_str(&chance.json(2)).unwrap_or(Value::Null),
            1 => json!(""),
            2 => json!(format!("{}{place}", chance.text(1500))),
            3 => json!({}),
            4 => json!(1e300),
            5 => json!(format!("\u{0}{place}")),
            _ if key == "specversion" => json!("1.0"),
            _ if key == "eventversion" => json!(1),
            _ => json!(format!("{key}-{place}")),
        };
        event.insert(key.to_owned(), value);
    }
    Value::Object(event).to_string()
}

/// Publishes and waits until the server has read it all.
fn publish(stage: &Stage, messages: &[Message]) {
    let address = stage.broker.url().replace("nats://", "");
    let mut connection = TcpStream::connect(address).expect("cannot connect");
    connection.write_all(b"CONNECT {\"headers\":true,\"verbose\":false,\"pedantic\":false}\r\n").expect("cannot greet");
    for message in messages {
        let (headers, all) = (message.headers.len(), message.headers.len() + message.body.len());
        let mut bytes = format!("HPUB {} {headers} {all}\r\n", message.subject).into_bytes();
        bytes.extend_from_slice(&message.headers);
        bytes.extend_from_slice(&message.body);
        bytes.extend_from_slice(b"\r\n");
        connection.write_all(&bytes).expect("cannot publish");
    }
    connection.write_all(b"PING\r\n").expect("cannot publish");
    let mut answer = String::new();
    while !answer.contains("PONG") {
        let mut part = [0; 4096];
        let length = connection.read(&mut part).expect("no answer");
        assert!(length > 0, "the server closed the connection: {answer}");
        answer.push_str(&String::from_utf8_lossy(&part[..length]));
    }
    assert!(!answer.contains("-ERR"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_messages_of_others_end_handled_or_dead() {
    let (mut chance, calls) = Chance::new(1000);
    let stage = Stage::new("foreign").await.described().await;
    let db = stage.connect().await;
    // Every column is looked at; one in three is refused.
    db.run(
        "CREATE TABLE seen (message_id text, event text);
         CREATE FUNCTION look(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$
         BEGIN
             IF length(e.payload::text) % 3 = 0 THEN PERFORM sea_mq.poison('refused: ' || e.payload::text); END IF;
             INSERT INTO seen VALUES (e.message_id, e::text);
         END $$;
         SELECT sea_mq.subscribe('app__all', 'orders', 'look', max_ack_pending => 500)",
    )
    .await;
    until_state(&db, "app__all", "state = 'active'").await;
    let consumer = stage.consumer().await;
    let messages: Vec<Message> = (0..calls).map(|place| message(&mut chance, place)).collect();
    publish(&stage, &messages);
    stage.broker.until_count(harness::EVENTS, calls, LONG).await;
    let ended = "SELECT count(*) FROM sea_mq.inbox_messages WHERE status IN ('processed', 'dead')";
    until("all are handled or dead", LONG, async || db.value::<i64>(ended, &[]).await.cast_unsigned() >= calls).await;
    until_acknowledged(&stage, "app__all").await;
    let letters = "SELECT count(*) = 0 FROM sea_mq.dlq_messages WHERE stream_seq IS NULL";
    until("all dead letters are in their stream", LONG, async || db.value(letters, &[]).await).await;
    let mut counts: BTreeMap<String, i64> = BTreeMap::new();
    for status in db.values::<String>("SELECT status FROM sea_mq.inbox_messages", &[]).await {
        *counts.entry(status).or_default() += 1;
    }
    eprintln!("{calls} messages: {counts:?}");
    assert_eq!(db.value::<i64>("SELECT count(*) FROM seen", &[]).await, counts["processed"]);
    assert_eq!(db.value::<i64>("SELECT count(*) FROM sea_mq.dlq_messages", &[]).await, counts["dead"]);
    assert_eq!(stage.consumer().await, consumer, "the consumer is the one that it was");
    for bad in ["panicked", "terminated by signal", "PANIC:"] {
        assert!(!stage.cluster.log().contains(bad), "the log has {bad:?}");
    }
}
