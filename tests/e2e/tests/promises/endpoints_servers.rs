//! Endpoints that are odd servers: one that takes no connection, one that fails while order is strict; and what CloudEvents' own
//! library reads.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use harness::{Receiver, Reply, until};
use serde_json::json;
use tokio::net::{TcpSocket, TcpStream};

use crate::SOON;
use crate::endpoints::{create, emit, stage, until_delivered};
use crate::endpoints_secrets::said_by;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_takes_no_connection_is_given_up_in_time() {
    let stage = stage("hung_connect").await;
    let db = stage.connect().await;
    let socket = TcpSocket::new_v4().expect("there is a socket");
    socket.bind("127.0.0.1:0".parse().expect("it is an address")).expect("a port is free");
    let listener = socket.listen(1).expect("it listens");
    let address = listener.local_addr().expect("it has an address");
    // What it has not taken fills its queue: the next one waits for an answer to its first packet.
    let mut waiting = Vec::new();
    while let Ok(stream) =
        tokio::time::timeout(std::time::Duration::from_millis(300), TcpStream::connect(address)).await
    {
        waiting.push(stream);
    }
    create(
        &db,
        "hung",
        &format!("http://{address}/"),
        ", connect_timeout => '500 ms', timeout => '10 s', retry_schedule => '{0, 1 h}'",
    )
    .await;
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    create(&db, "sound", &receiver.url("/"), "").await;
    emit(&db, 1).await;
    until_delivered(&db, "sound", 1).await;
    let found = "SELECT EXISTS (SELECT FROM sea_mq.deliveries WHERE endpoint = 'hung' AND status = 'retrying'
        AND errors -> 0 ->> 'kind' = 'timeout' AND error = 'no connection within 500 ms' AND duration < '5 s')";
    until("it is given up", SOON, async || db.value(found, &[]).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strict_order_holds_whatever_fails() {
    let stage = stage("strict").await;
    let db = stage.connect().await;
    let seen: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
    let receiver = Receiver::start(move |request| {
        let n = request.json()["data"]["n"].as_u64().unwrap_or_default();
        let mut seen = seen.lock().expect("nobody panics with the lock");
        let attempts = seen.entry(request.header("webhook-id").to_owned()).or_default();
        *attempts += 1;
        match (n % 5, *attempts) {
            (1, 1..=2) => Reply::status(500),
            (3, 1) => Reply { breaks: true, ..Reply::status(200) },
            _ => Reply::status(200),
        }
    })
    .await;
    create(&db, "acme", &receiver.url("/"), ", ordering => 'strict', retry_schedule => '{0, 50 ms, 50 ms, 50 ms}'")
        .await;
    for n in 0..60 {
        emit(&db, n).await;
    }
    until_delivered(&db, "acme", 60).await;
    // Nothing is sent before all that stands before it was accepted.
    let order: Vec<u64> =
        receiver.received().iter().map(|one| one.json()["data"]["n"].as_u64().expect("it has one")).collect();
    assert!(order.is_sorted(), "{order:?}");
    assert_eq!(order.len(), 60 + 12 * 2 + 12);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sdk_of_cloud_events_reads_what_is_sent_in_each_mode() {
    let stage = stage("cloud_events_sdk").await;
    let db = stage.connect().await;
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    for format in ["cloudevents", "cloudevents_structured"] {
        create(&db, format, &receiver.url(&format!("/{format}")), &format!(", format => '{format}'")).await;
    }
    let id = db.emit("ü 1", "OrderCreated", json!({"text": "ünï – \u{1f980}", "sum": 1.5})).await;
    for format in ["cloudevents", "cloudevents_structured"] {
        until_delivered(&db, format, 1).await;
        let one = &receiver.received_on(&format!("/{format}"))[0];
        let body = String::from_utf8(one.body.clone()).expect("it is UTF-8");
        let line = format!("{}\n", json!({"headers": one.headers, "body": body}));
        let read = said_by("python", &["docs/examples/verify_cloud_events.py"], &line);
        let data = r#"{"sum": 1.5, "text": "\u00fcn\u00ef \u2013 \ud83e\udd80"}"#;
        assert_eq!(read, format!("{id} orders.order_created.v1 /orders ü 1 {data}"), "{format}");
    }
}
