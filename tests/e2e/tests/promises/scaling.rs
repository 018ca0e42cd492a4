//! The ways beyond one database and one stream (docs/scaling.md): mirrors, leaf nodes with streams of their own, and
//! subscriptions that are split among databases.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::jetstream::stream::{Config, External, Source, SubjectTransform};
use harness::{Broker, BrokerOptions, Database, EVENTS, Line, Port, Stage, StageOptions, Stored, holds_for, until};

use crate::receiving::{LONG, emit_numbers, make_recorder};
use crate::{A_WHILE, SOON};

/// Makes a database of the stage's cluster with a context of its name and the handler `record`.
async fn add_database(stage: &Stage, name: &str, nats_url: Option<&str>) -> Database {
    stage.cluster.run(&format!("CREATE DATABASE {name}")).await;
    stage.cluster.run(&format!("ALTER DATABASE {name} SET sea_mq.context = '{name}'")).await;
    if let Some(url) = nats_url {
        stage.cluster.run(&format!("ALTER DATABASE {name} SET sea_mq.nats_url = '{url}'")).await;
    }
    let db = stage.cluster.connect(name).await;
    db.run("CREATE EXTENSION sea_mq").await;
    make_recorder(&db).await;
    db
}

async fn handled(db: &Database) -> i64 {
    db.value("SELECT count(*) FROM effects", &[]).await
}

/// Waits until the databases have handled `count` events together, and asserts that no more come.
async fn until_handled(databases: &[&Database], count: i64) {
    let all = async || {
        let mut all = 0;
        for db in databases {
            all += handled(db).await;
        }
        all
    };
    until(&format!("{count} events are handled"), LONG, async || all().await >= count).await;
    holds_for("nothing is handled again", A_WHILE, async || all().await == count).await;
}

/// Asserts that the databases have handled the numbers 1 to `last`, each in one of them and once, and those with the same
/// `key` (an SQL expression over `effects`) in the same one and in order.
async fn assert_divided(databases: &[&Database], key: &str, last: i64) {
    let (mut numbers, mut places): (Vec<i64>, HashMap<String, usize>) = (Vec::new(), HashMap::new());
    for (place, db) in databases.iter().enumerate() {
        let rows = db.query(&format!("SELECT {key}, n FROM effects ORDER BY place"), &[]).await.expect("cannot read");
        assert!(!rows.is_empty(), "database {place} has handled nothing");
        let mut latest: HashMap<String, i64> = HashMap::new();
        for row in rows {
            let (key, number): (String, i64) = (row.get(0), row.get(1));
            let before = latest.insert(key.clone(), number);
            assert!(before < Some(number), "{key}: {number} after {before:?}");
            assert_eq!(*places.entry(key.clone()).or_insert(place), place, "{key} is handled in two databases");
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=last).collect::<Vec<_>>());
}

/// Asserts that one stream holds what the other does, with the same sequences.
async fn assert_mirrored(from: &Broker, to: (&Broker, &str)) {
    let known = |stored: Vec<Stored>| -> Vec<_> {
        stored.into_iter().map(|message| (message.sequence, message.id(), message.subject, message.body)).collect()
    };
    assert_eq!(known(to.0.stored(to.1).await), known(from.stored(EVENTS).await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_has_what_the_relay_stores_and_can_be_subscribed_to() {
    let stage = Stage::new("mirror").await.described().await;
    let db = stage.connect().await;
    emit_numbers(&db, 1, 200).await;
    stage.broker.until_count(EVENTS, 200, SOON).await;
    let mirror = Source { name: EVENTS.into(), ..Source::default() };
    let config = Config { name: "ORDERS_COPY".into(), mirror: Some(mirror), ..Config::default() };
    stage.broker.jetstream().create_stream(config).await.expect("no mirror");
    let reader = add_database(&stage, "reader", None).await;
    reader.run("SELECT sea_mq.subscribe('reader__copy', 'ORDERS_COPY', 'record', start_from => 'all')").await;
    emit_numbers(&db, 201, 500).await;
    stage.broker.until_count("ORDERS_COPY", 500, SOON).await;
    until_handled(&[&reader], 500).await;
    assert_divided(&[&reader], "aggregate", 500).await;
    assert_mirrored(&stage.broker, (&stage.broker, "ORDERS_COPY")).await;
    // The relay is as it was: in order, and alone.
    let ordering: String = db.value("SELECT ordering FROM sea_mq.stream_status WHERE stream = $1", &[&EVENTS]).await;
    assert_eq!(ordering, "strict");
}

/// A hub with the stage's database, and a leaf node with a domain, a mirror and a database of its own, behind a line.
struct Regions {
    stage: Stage,
    line: Line,
    leaf: Broker,
    _port: Port,
}

/// The server at the leaf does not let the leases of the hub's relays through, nor its own out: each domain has a stream of
/// them, which listen to the same subjects.
const OWN_LEASES: &str = r#"deny_imports: "sea_mq.>", deny_exports: "sea_mq.>""#;

impl Regions {
    async fn start(name: &str) -> Self {
        let port = Port::claim();
        let line = Line::start(port.number(), u64::MAX >> 24, Duration::from_millis(5)).await;
        // The leaf is told of the hub's address, and would go around the line.
        let advertised = line.url();
        let advertised = advertised.trim_start_matches("nats://");
        let hub = BrokerOptions {
            jetstream: "domain: hub".into(),
            server_name: Some("hub".into()),
            configuration: format!(
                "leafnodes {{ listen: \"127.0.0.1:{}\", advertise: \"{advertised}\", no_advertise: true }}",
                port.number()
            ),
            ..BrokerOptions::default()
        };
        let stage = StageOptions { broker: hub, ..StageOptions::default() }.start(name).await.described().await;
        let remote = format!("{{ url: \"{}\", {OWN_LEASES} }}", line.url());
        let leaf = BrokerOptions {
            jetstream: "domain: leaf".into(),
            server_name: Some("leaf".into()),
            configuration: format!("leafnodes {{ reconnect: \"1s\", remotes: [{remote}] }}"),
            ..BrokerOptions::default()
        };
        let mut leaf = Broker::new(&stage.directory.path().join("leaf"), leaf);
        leaf.start().await;
        let hub = External { api_prefix: "$JS.hub.API".into(), delivery_prefix: None };
        let mirror = Source { name: EVENTS.into(), external: Some(hub), ..Source::default() };
        let config = Config { name: EVENTS.into(), mirror: Some(mirror), ..Config::default() };
        leaf.jetstream().create_stream(config).await.expect("no mirror");
        Self { stage, line, leaf, _port: port }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leaf_with_a_mirror_goes_on_without_the_hub_and_catches_up() {
    let Regions { stage, line, leaf, _port } = Regions::start("leaf_mirror").await;
    let db = stage.connect().await;
    let far = add_database(&stage, "far", Some(&leaf.url())).await;
    // The mirror has the stream's name: it is another domain.
    far.run("SELECT sea_mq.subscribe('far__orders', 'orders', 'record', start_from => 'all')").await;
    emit_numbers(&db, 1, 300).await;
    leaf.until_count(EVENTS, 300, LONG).await;
    until_handled(&[&far], 300).await;

    line.cut();
    emit_numbers(&db, 301, 400).await;
    stage.broker.until_count(EVENTS, 400, SOON).await;
    // What is emitted at the leaf is stored there meanwhile.
    far.run("SELECT count(sea_mq.emit('parcel', n::text, 'Sent', '{}')) FROM generate_series(1, 20) n").await;
    leaf.until_count("FAR_EVENTS", 20, SOON).await;
    assert_eq!(leaf.count(EVENTS).await, 300, "it was cut too late");

    line.fix();
    leaf.until_count(EVENTS, 400, LONG).await;
    until_handled(&[&far], 400).await;
    assert_divided(&[&far], "aggregate", 400).await;
    assert_mirrored(&stage.broker, (&leaf, EVENTS)).await;
    assert_eq!(stage.broker.count("FAR_EVENTS").await, 0, "that stream is at the leaf");
    for db in [&db, &far] {
        until("all is well", SOON, async || db.value("SELECT ok FROM sea_mq.status", &[]).await).await;
        let standing: i64 = db.value("SELECT count(*) FROM sea_mq.relay_status WHERE error IS NULL", &[]).await;
        assert_eq!(standing, 1);
    }
}

/// Emits events about 50 aggregates in turn, each in the context of its aggregate's partition.
const EMIT_IN_PARTITIONS: &str = "SELECT count(sea_mq.emit('order', a, 'Counted', jsonb_build_object('n', n),
        context => 'orders_' || (hashtextextended(a, 0) & 1)))
    FROM generate_series($1::int8, $2) n, LATERAL (SELECT ((n - 1) % 50)::text) _(a)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_of_aggregates_are_handled_once_and_in_order_by_two_databases() {
    let stage = Stage::new("partitions").await;
    let db = stage.connect().await;
    let one = add_database(&stage, "one", None).await;
    let two = add_database(&stage, "two", None).await;
    one.run("SELECT sea_mq.subscribe('one__orders', 'orders_0', 'record', start_from => 'all', workers => 2)").await;
    two.run("SELECT sea_mq.subscribe('two__orders', 'orders_1', 'record', start_from => 'all', workers => 2)").await;
    for (first, last) in [(1_i64, 1000_i64), (1001, 3000)] {
        let _: i64 = db.value(EMIT_IN_PARTITIONS, &[&first, &last]).await;
    }
    until_handled(&[&one, &two], 3000).await;
    assert_divided(&[&one, &two], "aggregate", 3000).await;
}

/// The subjects of all events of a context, and what becomes of them: a partition of two by the event type comes first.
fn partitioned() -> SubjectTransform {
    SubjectTransform {
        source: "orders.event.*.*".into(),
        destination: "orders_by_type.{{partition(2,1)}}.{{wildcard(1)}}.{{wildcard(2)}}".into(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitioned_subjects_are_handled_once_by_two_databases_and_in_order_for_each_type() {
    let stage = Stage::new("partitioned").await.described().await;
    let db = stage.connect().await;
    until("the stream is there", SOON, async || stage.broker.stream(EVENTS).await.is_some()).await;
    let source = Source { name: EVENTS.into(), subject_transforms: vec![partitioned()], ..Source::default() };
    let config = Config { name: "ORDERS_BY_TYPE".into(), sources: Some(vec![source]), ..Config::default() };
    stage.broker.jetstream().create_stream(config).await.expect("no stream of partitions");
    let mut databases = Vec::new();
    for (partition, name) in ["one", "two"].into_iter().enumerate() {
        let reader = add_database(&stage, name, None).await;
        reader
            .run(&format!(
                "SELECT sea_mq.subscribe('{name}__orders', 'ORDERS_BY_TYPE', 'record', start_from => 'all',
                    filter => 'orders_by_type.{partition}.>')"
            ))
            .await;
        reader.run("ALTER TABLE effects ADD type text").await;
        reader
            .run(
                "CREATE OR REPLACE FUNCTION record(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$
                 BEGIN
                     INSERT INTO effects (n, aggregate, type)
                     VALUES ((e.payload ->> 'n')::bigint, e.aggregate_id, e.event_type);
                 END $$",
            )
            .await;
        databases.push(reader);
    }
    let emit =
        "SELECT count(sea_mq.emit('order', (n % 50)::text, (ARRAY['Placed', 'Paid', 'Packed', 'Sent', 'Returned',
        'Closed'])[n % 6 + 1], jsonb_build_object('n', n))) FROM generate_series(1, 3000) n";
    let _: i64 = db.value(emit, &[]).await;
    let databases: Vec<&Database> = databases.iter().collect();
    until_handled(&databases, 3000).await;
    assert_divided(&databases, "type", 3000).await;
    assert_divided(&databases, "aggregate || ' ' || type", 3000).await;
}
