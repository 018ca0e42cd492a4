//! Messages are CloudEvents, and what is sent and stored adheres to the schemas in `schemas/events`.

use std::path::Path;
use std::process::{Command, Stdio};

use harness::{BrokerOptions, Database, EVENTS, Stage, StageOptions, Stored, until};
use sea_mq_contracts::event_key::BASE_URI;
use sea_mq_contracts::schema::Schema;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::SOON;
use crate::receiving::{make_choosy, make_recorder, publish, until_state, until_status};

const DLQ: &str = "ORDERS_DLQ";

fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// A schema of `schemas/events`, or a part of one.
fn schema(name: &str, part: &str) -> (Schema, Value) {
    let path = workspace().join(format!("schemas/events/{name}.schema.json"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let whole: Value = serde_json::from_str(&text).expect("JSON");
    let reference = json!({"$ref": format!("{BASE_URI}{name}.schema.json{part}")});
    let compiled = Schema::compile(&reference, BASE_URI, |_| Some(whole.clone()));
    (compiled.unwrap_or_else(|invalid| panic!("{name}: {invalid}")), whole)
}

/// The rows of a view adhere to its schema, which describes all columns, and no more than there are.
async fn assert_rows_adhere(db: &Database, view: &str, name: &str) -> Vec<Value> {
    let (schema, whole) = schema(name, "");
    let described: Vec<&String> = whole["properties"].as_object().expect("properties").keys().collect();
    let rows: Vec<Value> = db.values(&format!("SELECT to_jsonb(r) FROM sea_mq.{view} r"), &[]).await;
    for row in &rows {
        assert_eq!(schema.violations(row), [], "{row}");
        let mut columns: Vec<&String> = row.as_object().expect("a row").keys().collect();
        let mut wanted = described.clone();
        columns.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(columns, wanted, "columns of {view}");
    }
    rows
}

/// What the CloudEvents SDK reads in a stream, by id.
fn read_by_sdk(stage: &Stage, stream: &str) -> Vec<Value> {
    let output = Command::new("python3")
        .arg(workspace().join("docs/examples/cloud_events.py"))
        .arg(stream)
        .env("NATS_URL", stage.broker.url())
        .stdin(Stdio::null())
        .output()
        .expect("cannot run python3");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("an event")).collect()
}

/// Adheres to the envelope's schema. Attributes in headers are texts, all of them.
fn assert_is_envelope(event: &Value) {
    let mut event = event.clone();
    if let Some(version) = event["eventversion"].as_str() {
        event["eventversion"] = version.parse::<i64>().expect("a number").into();
    }
    assert_eq!(schema("envelope-v1", "").0.violations(&event), [], "{event}");
}

/// The attributes that a message has in its headers.
fn in_headers(message: &Stored) -> Value {
    let attributes =
        message.headers.iter().filter_map(|(name, value)| Some((name.strip_prefix("ce-")?.to_owned(), json!(value))));
    Value::Object(attributes.collect())
}

async fn emit(db: &Database, aggregate: &str) -> Uuid {
    db.value(
        "SELECT sea_mq.emit('order \"type\"', $1, 'OrderCreated', '{\"total\": 1.50}', 2, correlation_id => 'Grüße, 100 %41',
            causation_id => 'cause', visibility => 'public', headers => '{\"X-Tenant\": \"acme\"}')",
        &[&aggregate],
    )
    .await
}

/// What `emit` above sends.
fn expected(id: Uuid, aggregate: &str) -> Value {
    json!({
        "specversion": "1.0", "id": id, "source": "/orders", "type": "orders.order_created.v2", "subject": aggregate,
        "datacontenttype": "application/json", "context": "orders", "eventname": "order_created",
        "aggregatetype": "order \"type\"", "aggregateid": aggregate, "correlationid": "Grüße, 100 %41",
        "causationid": "cause", "visibility": "public", "data": {"total": 1.50},
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cloud_events_sdk_reads_what_is_published_in_both_modes() {
    const REGISTERED: &str = "sea-mq:/schemas/events/orders/order_created.v2.schema.json";
    let stage = Stage::new("cloud_events").await.described().await;
    let db = stage.connect().await;
    let (plain, odd) = ("42", "Ä \"42\" %41 🐟");
    db.run("SELECT sea_mq.alter_stream('ORDERS_EVENTS', metadata => 'full')").await;
    let mut ids = vec![emit(&db, plain).await];
    stage.assert_stored(&ids).await;
    db.run("SELECT sea_mq.register_event('orders', 'OrderCreated', 2, '{\"type\": \"object\"}', 'public')").await;
    ids.push(emit(&db, odd).await);
    stage.assert_stored(&ids).await;
    db.run("SELECT sea_mq.alter_stream('ORDERS_EVENTS', body => 'envelope')").await;
    ids.push(emit(&db, odd).await);
    let stored = stage.assert_stored(&ids).await;

    let events = read_by_sdk(&stage, EVENTS);
    assert_eq!(events.len(), 3);
    for ((event, id), aggregate) in events.iter().zip(&ids).zip([plain, odd, odd]) {
        for (attribute, value) in expected(*id, aggregate).as_object().into_iter().flatten() {
            assert_eq!(&event[attribute], value, "{attribute} of {event}");
        }
        assert_is_envelope(event);
    }
    assert_eq!(
        [&events[0]["dataschema"], &events[1]["dataschema"], &events[2]["dataschema"]],
        [&Value::Null, &json!(REGISTERED), &json!(REGISTERED)]
    );
    for (message, content_type) in
        stored.iter().zip(["application/json", "application/json", "application/cloudevents+json"])
    {
        assert_eq!(message.header("Content-Type"), content_type);
        assert_eq!((message.header("X-Sea-Visibility"), message.header("X-Tenant")), ("public", "acme"));
    }
    assert_eq!(stored[1].header("ce-subject"), "%C3%84%20%2242%22%20%2541%20%F0%9F%90%9F");
    assert_eq!(in_headers(&stored[2]), json!({}), "an envelope has them in it");
    assert_is_envelope(&stored[2].json());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_labels_of_a_message_are_those_of_its_streams_setting() {
    const MINIMAL: [&str; 10] = [
        "Content-Type",
        "Nats-Msg-Id",
        "X-Aggregate-Id",
        "X-Aggregate-Type",
        "X-Causation-Id",
        "X-Correlation-Id",
        "X-Event-Type",
        "X-Event-Version",
        "X-Sea-Visibility",
        "X-Source-Context",
    ];
    const CLOUD_EVENTS: [&str; 13] = [
        "Content-Type",
        "Nats-Msg-Id",
        "X-Causation-Id",
        "X-Correlation-Id",
        "X-Event-Version",
        "ce-aggregatetype",
        "ce-id",
        "ce-source",
        "ce-specversion",
        "ce-subject",
        "ce-time",
        "ce-type",
        "ce-visibility",
    ];
    let stage = Stage::new("labels").await.described().await;
    let db = stage.connect().await;
    let mut ids = vec![emit(&db, "Ä 1").await];
    stage.assert_stored(&ids).await;
    db.run("SELECT sea_mq.alter_stream('ORDERS_EVENTS', metadata => 'cloudevents')").await;
    ids.push(emit(&db, "Ä 2").await);
    let stored = stage.assert_stored(&ids).await;
    let names = |message: &Stored| {
        let own = |name: &&String| !name.starts_with("Nats-Expected") && *name != "X-Tenant";
        let mut names: Vec<String> = message.headers.keys().filter(own).cloned().collect();
        names.sort_unstable();
        names
    };
    assert_eq!(names(&stored[0]), MINIMAL);
    assert_eq!(names(&stored[1]), CLOUD_EVENTS);
    let events = read_by_sdk(&stage, EVENTS);
    for (attribute, value) in expected(ids[1], "Ä 2").as_object().expect("attributes") {
        if in_headers(&stored[1]).get(attribute).is_some() || attribute == "data" {
            assert_eq!(&events[0][attribute], value, "{attribute}: {events:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_and_messages_adhere_to_their_schemas() {
    let broker = BrokerOptions { configuration: "max_payload: 10000".into(), ..BrokerOptions::default() };
    let mut stage = StageOptions { broker, broker_later: true, ..StageOptions::default() }.start("schemas").await;
    let db = stage.connect().await;
    make_recorder(&db).await;
    make_choosy(&db).await;
    db.run(
        "SELECT sea_mq.subscribe('app__choosy', 'orders', 'choosy', max_deliver => 2, retry_delay => '1 ms', start_from => 'all'),
            sea_mq.subscribe('app__patient', 'orders', 'choosy', retry_delay => '1 h', start_from => 'all'),
            sea_mq.subscribe('app__pull', 'orders', start_from => 'all');
         SELECT sea_mq.emit('order', n::text, 'Counted', jsonb_build_object('n', n), causation_id => nullif('c' || n, 'c1'),
            headers => CASE n WHEN 2 THEN '{\"X-Tenant\": \"acme\"}'::jsonb END) FROM generate_series(1, 4) n;
         SELECT sea_mq.emit('order', '5', 'Counted', '{\"n\": 5}', available_at => now() + interval '1 hour');
         SELECT sea_mq.emit('order', '6', 'Counted', jsonb_build_object('n', 6, 'text', repeat('x', 20000)))",
    )
    .await;
    let pending = assert_rows_adhere(&db, "outbox_events", "messaging/outbox-event").await;
    assert!(pending.len() == 6 && pending.iter().all(|row| row["published"] == false), "{pending:?}");

    stage.broker.start().await;
    for (n, status) in [(1, "processed"), (2, "skipped"), (3, "dead"), (4, "dead")] {
        until_status(&db, "app__choosy", n, status).await;
    }
    until_status(&db, "app__patient", 4, "failed").await;
    until_status(&db, "app__pull", 4, "received").await;
    db.run("SELECT sea_mq.receive('app__pull', 1)").await;
    stage.broker.until_count(DLQ, 3, SOON).await;
    publish(&stage, "orders.dlq.bills.event.sent.v1", &[], "not JSON").await;
    let known = "SELECT count(stream_seq) = 4 FROM sea_mq.dlq_messages";
    until("the dead letters are known", SOON, async || db.value(known, &[]).await).await;
    db.run(
        "SELECT sea_mq.dlq_discard(id, 'of no use') FROM sea_mq.dlq_list() WHERE reason = 'exhausted';
         SELECT sea_mq.dlq_replay(min(id)) FROM sea_mq.dlq_list() WHERE reason = 'poison'",
    )
    .await;
    // Four events, three dead letters, and a replay, which becomes a dead letter again.
    let published =
        "SELECT count(*) FILTER (WHERE published) = 9 AND count(publish_error) = 1 FROM sea_mq.outbox_events";
    until("all is published but what is too large", SOON, async || db.value(published, &[]).await).await;
    assert_rows_adhere(&db, "outbox_events", "messaging/outbox-event").await;
    let inbox = assert_rows_adhere(&db, "inbox_messages", "messaging/inbox-message").await;
    for status in ["received", "processing", "processed", "failed", "skipped", "dead"] {
        assert!(inbox.iter().any(|row| row["status"] == status), "{status}: {inbox:?}");
    }
    let letters = assert_rows_adhere(&db, "dlq_messages", "messaging/dlq-message").await;
    for reason in ["poison", "exhausted", "foreign"] {
        assert!(letters.iter().any(|row| row["reason"] == reason), "{reason}: {letters:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_and_its_replay_are_the_cloud_events_that_they_were() {
    let stage = Stage::new("cloud_dlq").await.described().await;
    let db = stage.connect().await;
    db.run(
        "SELECT sea_mq.alter_stream(name, metadata => 'full') FROM sea_mq.streams;
         CREATE FUNCTION refuse(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM sea_mq.poison('no'); END $$;
         SELECT sea_mq.register_event('orders', 'OrderCreated', 2, '{\"type\": \"object\"}', 'public'),
            sea_mq.subscribe('app__orders', 'orders', 'refuse')",
    )
    .await;
    until_state(&db, "app__orders", "state = 'active'").await;
    let own = emit(&db, "A 42").await;
    stage.broker.until_count(DLQ, 1, SOON).await;
    let foreign = [
        ("Content-Type", "application/json"),
        ("ce-specversion", "1.0"),
        ("ce-id", "theirs"),
        ("ce-source", "https://acme.example/stock"),
        ("ce-type", "com.acme.counted"),
        ("ce-subject", "shelf%207"),
        ("ce-time", "2026-01-02T03:04:05Z"),
        ("ce-tenant", "Gr%C3%BC%C3%9Fe"),
    ];
    publish(&stage, "orders.event.stock_counted.v1", &foreign, "{\"n\": 1}").await;
    stage.broker.until_count(DLQ, 2, SOON).await;

    let letters = stage.broker.stored(DLQ).await;
    let (header_schema, _) = schema("messaging/dlq-message", "#/$defs/streamHeaders");
    for letter in &letters {
        assert_eq!(header_schema.violations(&json!(letter.headers)), [], "{letter:?}");
        assert_eq!(letter.header("ce-id"), letter.header("Nats-Msg-Id"));
    }
    let sent = stage.broker.stored(EVENTS).await;
    let said = |message: &Stored, names: &[&str]| {
        names.iter().map(|name| message.header(&format!("ce-{name}")).to_owned()).collect::<Vec<_>>()
    };
    let of_event = ["type", "source", "subject", "time", "dataschema", "tenant"];
    for (letter, original) in letters.iter().zip(&sent) {
        assert_eq!(said(letter, &of_event), said(original, &of_event), "{letter:?}");
        assert_eq!(
            letter.header("X-Original-Message-Id"),
            if original.header("ce-id") == "theirs" { "theirs".into() } else { own.to_string() }
        );
    }
    let events = read_by_sdk(&stage, DLQ);
    assert_is_envelope(&events[0]);
    assert_eq!(events[0]["data"], json!({"total": 1.50}));
    assert_eq!((&events[1]["subject"], &events[1]["tenant"]), (&json!("shelf 7"), &json!("Grüße")));

    until("both are known", SOON, async || {
        db.value("SELECT count(stream_seq) = 2 FROM sea_mq.dlq_messages", &[]).await
    })
    .await;
    assert_eq!(db.value::<i64>("SELECT sea_mq.dlq_replay_all()", &[]).await, 2);
    stage.broker.until_count(EVENTS, 4, SOON).await;
    let sent = stage.broker.stored(EVENTS).await;
    for (replay, original) in sent[2..].iter().zip(&sent) {
        assert_eq!(said(replay, &of_event), said(original, &of_event), "{replay:?}");
        assert_eq!(replay.header("ce-id"), replay.header("Nats-Msg-Id"));
        assert_ne!(replay.header("ce-id"), original.header("ce-id"));
    }
    assert_is_envelope(&read_by_sdk(&stage, EVENTS)[2]);
}

/// A table `seen` of all that a handler is given but for times and places.
const SEE: &str = "CREATE TABLE seen (event jsonb);
    CREATE FUNCTION see(e sea_mq.event) RETURNS void LANGUAGE sql AS
    $$ INSERT INTO seen SELECT to_jsonb(e) - '{subscription,stream_seq,created_at}'::text[] $$";

async fn until_seen(db: &Database, count: i64) -> Vec<Value> {
    until(&format!("{count} are handled"), SOON, async || db.value("SELECT count(*) >= $1 FROM seen", &[&count]).await)
        .await;
    db.values("SELECT event FROM seen", &[]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cloud_event_of_somebody_else_is_handled_whichever_mode_it_is_in() {
    let stage = Stage::new("cloud_foreign").await.described().await;
    let db = stage.connect().await;
    db.run(SEE).await;
    db.run("SELECT sea_mq.subscribe('app__orders', 'orders', 'see')").await;
    until_state(&db, "app__orders", "state = 'active'").await;
    let binary = |id: &'static str| {
        [
            ("Content-Type", "application/json"),
            ("ce-specversion", "1.0"),
            ("ce-id", id),
            ("ce-source", "/stock"),
            ("ce-type", "com.acme.counted"),
            ("ce-datacontenttype", "application/json"),
            ("ce-subject", "shelf%207"),
            ("ce-aggregateid", "shelf%207"),
            ("ce-correlationid", "Gr%C3%BC%C3%9Fe"),
            ("ce-visibility", "public"),
        ]
    };
    let structured = json!({"specversion": "1.0", "id": "second", "source": "/stock", "type": "com.acme.counted",
        "subject": "shelf 7", "aggregateid": "shelf 7", "correlationid": "Grüße", "visibility": "public",
        "datacontenttype": "application/json", "data": {"n": 1}});
    let subject = "orders.event.stock_counted.v3";
    publish(&stage, subject, &binary("first"), "{\"n\": 1}").await;
    publish(&stage, subject, &[("Content-Type", "application/cloudevents+json")], &structured.to_string()).await;
    // It came already, as far as its sender is concerned.
    publish(&stage, subject, &binary("second"), "{\"n\": 1}").await;
    publish(&stage, subject, &binary("last"), "{\"n\": 1}").await;
    let mut seen = until_seen(&db, 3).await;
    assert_eq!(seen.iter().map(|one| &one["message_id"]).collect::<Vec<_>>(), ["first", "second", "last"]);
    for one in &mut seen {
        for (attribute, value) in [
            ("source_context", "orders"),
            ("event_type", "stock_counted"),
            ("aggregate_id", "shelf 7"),
            ("correlation_id", "Grüße"),
            ("visibility", "public"),
        ] {
            assert_eq!(one[attribute], value, "{attribute}: {one}");
        }
        one["message_id"].take();
        one["headers"]["ce-id"].take();
    }
    assert!(seen.iter().all(|one| one == &seen[0]), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_sees_the_same_with_and_without_a_broker_and_in_every_form() {
    let with = Stage::new("cloud_broker").await.described().await;
    let without = StageOptions { no_url: true, ..StageOptions::default() }.start("cloud_local").await;
    let id = Uuid::now_v7();
    let (mut views, mut plain) = (Vec::new(), Vec::new());
    let forms = [
        "payload/minimal",
        "payload/cloudevents",
        "payload/full",
        "envelope/minimal",
        "envelope/cloudevents",
        "envelope/full",
    ];
    for (stage, forms) in [(&with, &forms[..]), (&without, &forms[..1])] {
        let db = stage.connect().await;
        db.run(SEE).await;
        db.run("SELECT sea_mq.subscribe('app__orders', 'orders', 'see')").await;
        until_state(&db, "app__orders", "state = 'active'").await;
        db.run("SELECT sea_mq.register_event('orders', 'OrderPaid', 1, '{}')").await;
        for (place, form) in (1..).zip(forms) {
            let (body, metadata) = form.split_once('/').expect("two settings");
            db.run(&format!(
                "SELECT sea_mq.alter_stream(name, body => '{body}', metadata => '{metadata}') FROM sea_mq.streams
                 WHERE kind = 'event'"
            ))
            .await;
            let event_id = if place == 1 { id } else { Uuid::now_v7() };
            db.run(&format!(
                "SET sea_mq.traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
                 SELECT sea_mq.emit('order', 'Ä 1', 'OrderPaid', '{{\"paid\": 42.50}}', causation_id => 'cause',
                    event_id => '{event_id}', correlation_id => 'story', headers => '{{\"X-Tenant\": \"acme\"}}')"
            ))
            .await;
            let mut view = until_seen(&db, place).await.pop().expect("one");
            assert_eq!(view["headers"]["Content-Type"], "application/json", "{view}");
            let Value::Object(headers) = view["headers"].take() else { panic!("{view}") };
            let attributes = headers.keys().any(|name| name.starts_with("ce-"));
            assert_eq!(attributes, *form != "payload/minimal", "{headers:?}");
            if attributes {
                assert_eq!(headers["ce-id"], json!(event_id), "{headers:?}");
                assert!(headers["ce-dataschema"].is_string(), "{headers:?}");
            }
            assert_eq!((&headers["X-Tenant"], &headers["X-Correlation-Id"]), (&json!("acme"), &json!("story")));
            assert_eq!(
                (&headers["X-Causation-Id"], &headers["X-Sea-Visibility"]),
                (&json!("cause"), &json!("internal"))
            );
            if *form == "payload/minimal" {
                let but_ids = headers.into_iter().filter(|(name, _)| name != "Nats-Msg-Id").collect::<Vec<_>>();
                plain.push(but_ids);
            }
            view["id"].take();
            view["message_id"].take();
            views.push(view);
        }
    }
    assert!(views.iter().all(|view| view == &views[0]), "{views:?}");
    assert_eq!(plain[0], plain[1], "headers with and without a broker");
}
