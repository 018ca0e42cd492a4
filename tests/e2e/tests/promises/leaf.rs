//! A database at a leaf node, whose streams are at the hub: what is said while the link between them is cut, and that nothing
//! is doubled by it.

use std::time::Duration;

use harness::{Broker, BrokerOptions, EVENTS, Line, Port, Stage, StageOptions, Stored, holds_for, until};

use crate::SOON;
use crate::receiving::{LONG, assert_handled_once, emit_numbers, make_recorder, until_state};

/// Shorter than any cut of the tests: the broker's memory of ids is no help.
const WINDOW: Duration = Duration::from_millis(100);

struct Leaf {
    /// Its broker is the hub, to which no database connects.
    stage: Stage,
    link: Line,
    leaf: Broker,
    _port: Port,
}

/// A hub with the streams, in its domain, and a leaf node with JetStream of its own, to which relay and consumer connect.
async fn start(name: &str) -> Leaf {
    let port = Port::claim();
    let link = Line::start(port.number(), u64::MAX >> 24, Duration::from_millis(5)).await;
    let hub = BrokerOptions {
        jetstream: "domain: hub".into(),
        server_name: Some("hub".into()),
        // The leaf is told of it, and would go around the line.
        configuration: format!(
            "leafnodes {{ listen: \"127.0.0.1:{}\", advertise: \"{}\", no_advertise: true }}",
            port.number(),
            link.url().trim_start_matches("nats://")
        ),
        ..BrokerOptions::default()
    };
    let options = StageOptions { broker: hub, no_url: true, ..StageOptions::default() };
    let stage = options.setting("sea_mq.nats_jetstream_domain", "hub").start(name).await;
    let options = BrokerOptions {
        jetstream: "domain: leaf".into(),
        server_name: Some("leaf".into()),
        configuration: format!("leafnodes {{ reconnect: \"1s\", remotes: [{{ url: \"{}\" }}] }}", link.url()),
        ..BrokerOptions::default()
    };
    let mut leaf = Broker::new(&stage.directory.path().join("leaf"), options);
    leaf.start().await;
    stage.cluster.run(&format!("ALTER SYSTEM SET sea_mq.nats_url = '{}'", leaf.url())).await;
    stage.cluster.run("SELECT pg_reload_conf()").await;
    let db = stage.connect().await;
    make_recorder(&db).await;
    db.run(&format!(
        "SELECT sea_mq.create_stream('orders', duplicate_window => '{} ms');
         SELECT sea_mq.subscribe('app__all', 'orders', 'record', start_from => 'all')",
        WINDOW.as_millis()
    ))
    .await;
    Leaf { stage, link, leaf, _port: port }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leaf_link_that_is_cut_is_named_and_doubles_nothing() {
    let Leaf { stage, link, leaf, _port } = start("leaf_cut").await;
    let db = stage.connect().await;
    emit_numbers(&db, 1, 100).await;
    stage.broker.until_count(EVENTS, 100, SOON).await;
    assert_eq!(leaf.count(EVENTS).await, 0, "the stream is at the hub");
    // Some are stored, and their acknowledgements never arrive.
    emit_numbers(&db, 101, 20_000).await;
    stage.broker.until_count(EVENTS, 1_000, SOON).await;
    link.cut();
    emit_numbers(&db, 20_001, 20_100).await;
    let status = stage.until_problem("problems.hint LIKE '%leaf%'").await;
    assert!(status["hint"].as_str().is_some_and(|hint| hint.contains("leaf")), "{status}");
    until_state(&db, "app__all", "state <> 'active' AND hint LIKE '%leaf%'").await;
    let before = stage.broker.count(EVENTS).await;
    assert!(before < 20_000, "it was cut too late");
    let pause = WINDOW * 20;
    holds_for("nothing is stored", pause, async || stage.broker.count(EVENTS).await == before).await;
    link.fix();
    stage.broker.until_count(EVENTS, 20_100, LONG).await;
    assert_handled_once(&stage, "app__all", 20_100).await;
    let mut ids: Vec<_> = stage.broker.stored(EVENTS).await.iter().map(Stored::id).collect();
    assert_eq!(ids.len(), 20_100);
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 20_100, "each is stored once");
    until("it is well again", SOON, async || db.value("SELECT ok FROM sea_mq.status", &[]).await).await;
    until_state(&db, "app__all", "state = 'active' AND error IS NULL").await;
}
