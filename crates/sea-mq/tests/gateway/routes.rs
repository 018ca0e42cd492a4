//! Every route, for every role: what the OpenAPI document says is what happens.

use serde_json::{Value, json};

use crate::shared::{ROLES, as_role, ask, name, shared};

fn document() -> Value {
    let output = crate::shared::command().arg("openapi").output().expect("it runs");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn the_document_that_is_committed_is_the_one_that_is_served() {
    let made =
        String::from_utf8(crate::shared::command().arg("openapi").output().expect("it runs").stdout).expect("text");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
    if std::env::var_os("ACCEPT").is_some() {
        std::fs::write(path, &made).expect("can be written");
    }
    assert!(
        std::fs::read_to_string(path).is_ok_and(|committed| committed == made),
        "docs/openapi.json is another; ACCEPT=1 writes it"
    );
    let served = ask("GET", &format!("{}/v1/openapi.json", shared().url), &[], None);
    assert_eq!((served.status, served.text == made), (200, true));
    assert_eq!(document()["openapi"], "3.1.0");
}

/// What is there for an operation: its path and body. As the superuser, so that every role finds the same.
struct Fixture {
    path: String,
    body: Option<Value>,
}

fn letter(db: &mut postgres::Client) -> i64 {
    let sql = "INSERT INTO sea_mq.dlq_messages (context, original_subject, subscription, event_type, event_version, aggregate_type, aggregate_id,
            payload, headers, reason, failure_count, error, last_failed_at, dlq_message_id)
        VALUES ('orders', 'orders.event.made.v1', NULL, 'made', 1, 'order', '1', '{}', '{}', 'foreign', 1, 'no', now(), $1) RETURNING id";
    db.query_one(sql, &[&name("letter")]).expect("inserted").get(0)
}

/// A message that role t_consumer has received, and its subscription.
fn lease(db: &mut postgres::Client, owner: &str) -> i64 {
    let subscription = name("lease__s");
    db.batch_execute(&format!(
        "SET ROLE {owner}; SELECT sea_mq.subscribe('{subscription}', 'elsewhere', max_ack_pending => 10); RESET ROLE;
         INSERT INTO sea_mq.inbox_pending (subscription, message_id, status, lane, event_type, event_version, subject, payload, headers, event_at, due_at)
         VALUES ('{subscription}', gen_random_uuid()::text, 'received', 0, 'made', 1, 'elsewhere.event.made.v1', '{{}}', '{{}}', now(), now());"
    )).expect("a message");
    let sql = format!("SELECT id FROM sea_mq.receive('{subscription}', 1, '60 s')");
    db.batch_execute(&format!("SET ROLE {owner}")).expect("a role");
    let id = db.query_one(&sql, &[]).expect("received").get(0);
    db.batch_execute("RESET ROLE").expect("reset");
    id
}

/// An endpoint that is paused: nothing is sent to it.
fn endpoint(db: &mut postgres::Client) -> String {
    let name = name("endpoint");
    db.batch_execute(&format!(
        "SELECT sea_mq.create_endpoint('{name}', 'webhook', 'https://a.example/', source => 'orders', connect_timeout => '1 s',
            timeout => '1 s', filter => '{{nothing}}');
         SELECT sea_mq.pause_endpoint('{name}')"
    ))
    .expect("an endpoint");
    name
}

/// An event that waits for an endpoint, and the endpoint.
fn delivery(db: &mut postgres::Client) -> (uuid::Uuid, String) {
    let endpoint = endpoint(db);
    let sql = "SELECT sea_mq.deliver($1, 'Made', '{}', context => 'orders')";
    (db.query_one(sql, &[&endpoint]).expect("to be delivered").get(0), endpoint)
}

fn fixture(operation: &str, db: &mut postgres::Client) -> Fixture {
    let event = || json!({"aggregate_type": "order", "aggregate_id": 7, "event_type": "Made", "payload": {"n": 1}, "context": "orders"});
    let run =
        |db: &mut postgres::Client, sql: &str| db.batch_execute(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    let make_stream = |db: &mut postgres::Client| {
        let context = name("ctx");
        run(db, &format!("SELECT sea_mq.create_stream('{context}', managed => false)"));
        format!("{}_EVENTS", context.to_uppercase())
    };
    let subscribe = |db: &mut postgres::Client| {
        let name = name("routes__s");
        run(db, &format!("SET ROLE t_consumer; SELECT sea_mq.subscribe('{name}', 'elsewhere'); RESET ROLE"));
        name
    };
    let (path, body): (String, Option<Value>) = match operation {
        "post_events" => ("/events".into(), Some(event())),
        "post_event_batches" => ("/event-batches".into(), Some(json!({"events": [event(), event()]}))),
        "get_events_id" => {
            let id: uuid::Uuid = db
                .query_one("SELECT sea_mq.emit('order', '1', 'Made', '{}', context => 'orders')", &[])
                .expect("emitted")
                .get(0);
            (format!("/events/{id}"), None)
        }
        "post_events_id_retries" => {
            let id = uuid::Uuid::now_v7();
            run(db, &format!(
                "INSERT INTO sea_mq.publish_failures (event_id, seq, sink, attempts, error, failed_at, event)
                 SELECT '{id}', nextval('sea_mq.outbox_seq'), sea_mq.sink_id('orders', 'event'), 1, 'no', now(), jsonb_build_object('id', '{id}', 'context', 'orders',
                    'event_type', 'made', 'event_version', 1, 'aggregate_type', 'order', 'aggregate_id', '1', 'payload', '{{}}'::jsonb, 'visibility', 'internal',
                    'created_at', now())"));
            (format!("/events/{id}/retries"), None)
        }
        "get_streams" => ("/streams?limit=5".into(), None),
        "post_streams" => {
            ("/streams".into(), Some(json!({"context": name("made"), "managed": false, "subjects": null})))
        }
        "get_streams_name" => ("/streams/ORDERS_EVENTS".into(), None),
        "patch_streams_name" => (format!("/streams/{}", make_stream(db)), Some(json!({"max_age": "1 day"}))),
        "delete_streams_name" => (format!("/streams/{}", make_stream(db)), None),
        "get_streams_name_events" => ("/streams/ORDERS_EVENTS/events?limit=3".into(), None),
        "get_streams_name_tail" => ("/streams/ORDERS_EVENTS/tail".into(), None),
        "post_streams_name_republications" => ("/streams/ORDERS_EVENTS/republications".into(), Some(json!({}))),
        "post_streams_name_verifications" => ("/streams/ORDERS_EVENTS/verifications".into(), None),
        "get_streams_name_consumers_consumer" => {
            let consumer = name("c");
            run(db, &format!("SELECT sea_mq.create_consumer('orders', '{consumer}')"));
            (format!("/streams/ORDERS_EVENTS/consumers/{consumer}"), None)
        }
        "put_streams_name_consumers_consumer" => {
            (format!("/streams/ORDERS_EVENTS/consumers/{}", name("c")), Some(json!({"max_deliver": 5})))
        }
        "delete_streams_name_consumers_consumer" => {
            let consumer = name("c");
            run(db, &format!("SELECT sea_mq.create_consumer('orders', '{consumer}')"));
            (format!("/streams/ORDERS_EVENTS/consumers/{consumer}"), None)
        }
        "get_subscriptions" => ("/subscriptions?limit=5".into(), None),
        "post_subscriptions" => {
            ("/subscriptions".into(), Some(json!({"subscription": name("new__s"), "source": "elsewhere"})))
        }
        "put_subscriptions_subscription" => {
            (format!("/subscriptions/{}", name("put__s")), Some(json!({"source": "elsewhere"})))
        }
        "get_subscriptions_subscription" | "delete_subscriptions_subscription" => {
            (format!("/subscriptions/{}", subscribe(db)), None)
        }
        "patch_subscriptions_subscription" => {
            (format!("/subscriptions/{}", subscribe(db)), Some(json!({"priority": 3})))
        }
        "put_subscriptions_subscription_pause" | "delete_subscriptions_subscription_pause" => {
            (format!("/subscriptions/{}/pause", subscribe(db)), None)
        }
        "get_subscriptions_subscription_messages" => (format!("/subscriptions/{}/messages", subscribe(db)), None),
        "post_subscriptions_subscription_leases" => {
            (format!("/subscriptions/{}/leases", subscribe(db)), Some(json!({"max": 2})))
        }
        "patch_leases_id" => (format!("/leases/{}", lease(db, "t_consumer")), Some(json!({"lease": "90 s"}))),
        "post_leases_id_completions" => (format!("/leases/{}/completions", lease(db, "t_consumer")), None),
        "post_leases_id_failures" => {
            (format!("/leases/{}/failures", lease(db, "t_consumer")), Some(json!({"error": "not yet"})))
        }
        "post_leases_id_rejections" => {
            (format!("/leases/{}/rejections", lease(db, "t_consumer")), Some(json!({"reason": "never"})))
        }
        "get_dead_letters" => ("/dead-letters?order=desc&limit=5&state=all".into(), None),
        "get_dead_letters_id" => (format!("/dead-letters/{}", letter(db)), None),
        "post_dead_letters_id_replays" => {
            (format!("/dead-letters/{}/replays", letter(db)), Some(json!({"payload": {"n": 2}})))
        }
        "post_dead_letters_id_discards" => {
            (format!("/dead-letters/{}/discards", letter(db)), Some(json!({"reason": "old"})))
        }
        "post_dead_letter_replays" => ("/dead-letter-replays".into(), Some(json!({"ids": [letter(db)]}))),
        "get_event_types" => ("/event-types".into(), None),
        "get_event_types_context_type_version"
        | "post_event_types_context_type_version_deprecations"
        | "post_event_types_context_type_version_validations" => {
            let event_type = name("Made");
            run(
                db,
                &format!(
                    "SELECT sea_mq.register_event('orders', '{event_type}', 1, '{{\"type\": \"object\", \"required\": [\"n\"]}}')"
                ),
            );
            let path = format!("/event-types/orders/{event_type}/1");
            match operation {
                "get_event_types_context_type_version" => (path, None),
                "post_event_types_context_type_version_deprecations" => {
                    (path + "/deprecations", Some(json!({"reason": "use 2"})))
                }
                _ => (path + "/validations", Some(json!({"payload": {}}))),
            }
        }
        "put_event_types_context_type_version" => {
            (format!("/event-types/orders/{}/1", name("Put")), Some(json!({"schema": {"type": "object"}})))
        }
        "post_partners_partner_messages" => {
            (format!("/partners/{}/messages", name("partner")), Some(json!({"id": name("m"), "kind": "x"})))
        }
        "get_endpoints" => ("/endpoints?limit=5".into(), None),
        "post_endpoints" => (
            "/endpoints".into(),
            Some(
                json!({"endpoint": name("e"), "kind": "webhook", "url": "https://a.example/", "rate": 2.5, "filter": ["Made"]}),
            ),
        ),
        "get_endpoints_endpoint" | "delete_endpoints_endpoint" => (format!("/endpoints/{}", endpoint(db)), None),
        "patch_endpoints_endpoint" => (format!("/endpoints/{}", endpoint(db)), Some(json!({"max_in_flight": 3}))),
        "put_endpoints_endpoint_pause" | "delete_endpoints_endpoint_pause" => {
            (format!("/endpoints/{}/pause", endpoint(db)), None)
        }
        "post_endpoints_endpoint_secrets" => {
            (format!("/endpoints/{}/secrets", endpoint(db)), Some(json!({"grace": "1 h"})))
        }
        "post_endpoints_endpoint_checks" => (format!("/endpoints/{}/checks", endpoint(db)), None),
        "get_endpoints_endpoint_deliveries" => (format!("/endpoints/{}/deliveries", delivery(db).1), None),
        "post_endpoints_endpoint_deliveries" => (
            format!("/endpoints/{}/deliveries", endpoint(db)),
            Some(json!({"event_type": "Made", "payload": {"n": 1}, "context": "orders"})),
        ),
        "post_endpoints_endpoint_redeliveries" => {
            (format!("/endpoints/{}/redeliveries", endpoint(db)), Some(json!({"since": "2026-01-01"})))
        }
        "get_deliveries_event" => (format!("/deliveries/{}", delivery(db).0), None),
        "post_deliveries_event_redeliveries" => {
            let (event, endpoint) = delivery(db);
            (format!("/deliveries/{event}/redeliveries"), Some(json!({"endpoint": endpoint})))
        }
        "post_deliveries_event_cancellations" => {
            let (event, endpoint) = delivery(db);
            (format!("/deliveries/{event}/cancellations"), Some(json!({"endpoint": endpoint})))
        }
        "get_entity_links" => ("/entity-links?limit=5&link_type=reference".into(), None),
        "post_entity_links" => (
            "/entity-links".into(),
            Some(json!({"source_module": "orders", "source_type": "order", "source_id": name("s"),
            "target_module": "billing", "target_type": "invoice", "target_id": 7, "metadata": {"why": "test"}})),
        ),
        "get_entity_links_link" | "delete_entity_links_link" => {
            let sql = "SELECT sea_mq.create_link('orders', 'order', $1, 'billing', 'invoice', '1')";
            let id: uuid::Uuid = db.query_one(sql, &[&name("s")]).expect("linked").get(0);
            (format!("/entity-links/{id}"), None)
        }
        "get_status" => ("/status".into(), None),
        "get_problems" => ("/problems".into(), None),
        "get_me" => ("/me".into(), None),
        other => panic!("no fixture for {other}: a new operation has one here"),
    };
    Fixture { path, body }
}

/// The schema of an answer, with what it refers to.
fn schema(document: &Value, response: &Value) -> Option<Value> {
    let mut schema = response["content"]["application/json"]["schema"].clone();
    schema.as_object_mut()?.insert("components".into(), document["components"].clone());
    Some(schema)
}

#[test]
fn every_route_answers_every_role_as_the_document_says() {
    let document = document();
    let mut db = shared().db();
    let (mut asked, mut wrong) = (0, Vec::new());
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let id = operation["operationId"].as_str().expect("an id");
            let roles: Vec<&str> =
                operation["x-sea-roles"].as_array().expect("roles").iter().filter_map(Value::as_str).collect();
            for role in ROLES {
                let may = roles.is_empty() || roles.contains(&format!("sea_mq_{role}").as_str());
                if id == "get_streams_name_tail" && may {
                    // It does not end; see the tests of the tail.
                    continue;
                }
                // A link is its creator's.
                if may && id == "delete_entity_links_link" {
                    db.batch_execute(&format!("SET ROLE t_{role}")).expect("a role");
                }
                let fixture = fixture(id, &mut db);
                db.batch_execute("RESET ROLE").expect("reset");
                let mut answer = as_role(role, &method.to_uppercase(), &fixture.path, fixture.body.as_ref());
                // A stream that is being refilled is compared afterwards.
                crate::shared::until("the stream can be compared", || {
                    let wait = id == "post_streams_name_verifications" && answer.status == 409;
                    if wait {
                        answer = as_role(role, &method.to_uppercase(), &fixture.path, fixture.body.as_ref());
                    }
                    !wait
                });
                asked += 1;
                let documented = &operation["responses"][answer.status.to_string()];
                let expected = if may { (200..300).contains(&answer.status) } else { answer.status == 403 };
                if !expected || documented.is_null() {
                    wrong.push(format!("{method} {path} as {role}: {} {}", answer.status, answer.text));
                } else if let Some(schema) = schema(&document, documented).filter(|_| answer.status != 204) {
                    let validator = jsonschema::validator_for(&schema).expect("a schema");
                    wrong.extend(
                        validator
                            .iter_errors(&answer.json())
                            .map(|error| format!("{method} {path} as {role}: {} {error}", error.instance_path())),
                    );
                }
            }
            let fixture = fixture(id, &mut db);
            let url = format!("{}/v1{}", shared().url, fixture.path);
            let body = fixture.body.map(|body| body.to_string());
            for headers in [&[][..], &[("Authorization", "Bearer nonsense")]] {
                let answer = ask(&method.to_uppercase(), &url, headers, body.as_deref());
                if answer.status != 401 || !answer.headers.contains_key("www-authenticate") {
                    wrong.push(format!("{method} {path} as nobody: {} {}", answer.status, answer.text));
                }
            }
        }
    }
    println!("{asked} requests");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(asked > 200, "{asked}");
}
