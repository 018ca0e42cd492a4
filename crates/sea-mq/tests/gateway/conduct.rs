//! What requests do: ids, repeated requests, errors, pages, and streams of events.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::shared::{as_role, ask, name, shared, until};

fn event(aggregate: &str) -> Value {
    json!({"aggregate_type": "order", "aggregate_id": aggregate, "event_type": "ConductSeen", "payload": {"n": 1}, "context": "orders"})
}

fn headers<'a>(token: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [&[("Authorization", token)], more].concat()
}

fn token(role: &str) -> String {
    format!("Bearer {}", shared().tokens[role])
}

#[test]
fn an_event_is_created_located_and_delivered() {
    let answer = as_role("all", "POST", "/events", Some(&event("1")));
    assert_eq!(answer.status, 201, "{}", answer.text);
    let made = answer.json();
    assert_eq!(made["subject"], "orders.event.conduct_seen.v1");
    let id = made["id"].as_str().expect("an id");
    assert_eq!(answer.headers["location"], format!("/v1/events/{id}"));
    let status = as_role("all", "GET", &format!("/events/{id}?wait=8s"), None).json();
    assert_eq!(status["status"], "delivered", "{status}");
    assert_eq!(status["stream"], "ORDERS_EVENTS");
}

#[test]
fn ids_are_echoed_and_carried_into_what_is_emitted() {
    let token = token("all");
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let more = [("X-Correlation-Id", "order-17"), ("traceparent", trace)];
    let answer =
        ask("POST", &format!("{}/v1/events", shared().url), &headers(&token, &more), Some(&event("2").to_string()));
    assert_eq!(
        (answer.headers["x-correlation-id"].as_str(), answer.headers["traceparent"].as_str()),
        ("order-17", trace)
    );
    let request = &answer.headers["x-request-id"];
    assert!(uuid::Uuid::parse_str(request).is_ok());
    let id: uuid::Uuid = answer.json()["id"].as_str().expect("an id").parse().expect("a uuid");
    let row = shared()
        .db()
        .query_one("SELECT correlation_id, headers ->> 'traceparent' FROM sea_mq.outbox_events WHERE id = $1", &[&id])
        .expect("a row");
    assert_eq!((row.get::<_, &str>(0), row.get::<_, Option<&str>>(1)), ("order-17", Some(trace)));
    // A later request of the same connection has none of it.
    let plain: uuid::Uuid = as_role("all", "POST", "/events", Some(&event("2"))).json()["id"]
        .as_str()
        .expect("an id")
        .parse()
        .expect("a uuid");
    let row = shared()
        .db()
        .query_one("SELECT correlation_id FROM sea_mq.outbox_events WHERE id = $1", &[&plain])
        .expect("a row");
    assert_eq!(row.get::<_, &str>(0), plain.to_string());
    until("the log has the request", || {
        std::fs::read_to_string(&shared().log).is_ok_and(|log| log.contains(request.as_str()))
    });
}

#[test]
fn a_request_that_is_repeated_with_its_key_is_one_event() {
    let token = token("all");
    let post = |key: &str, body: &Value| {
        ask(
            "POST",
            &format!("{}/v1/events", shared().url),
            &headers(&token, &[("Idempotency-Key", key)]),
            Some(&body.to_string()),
        )
    };
    let (first, again) = (post("order-3-made", &event("3")), post("order-3-made", &event("3")));
    assert_eq!((first.status, again.status), (201, 201));
    assert_eq!(first.json()["id"], again.json()["id"]);
    let other = post("order-3-made", &event("4"));
    assert_eq!((other.status, other.json()["error"].as_str()), (409, Some("conflict")), "{}", other.text);
    let id = uuid::Uuid::now_v7().to_string();
    assert_eq!(post(&id, &event("5")).json()["id"], id.as_str());
}

#[test]
fn a_batch_is_emitted_whole_or_not_at_all() {
    let mut bad = event("6");
    bad["event_type"] = "not a name".into();
    let answer = as_role("producer", "POST", "/event-batches", Some(&json!({"events": [event("whole"), bad]})));
    assert_eq!(answer.status, 422, "{}", answer.text);
    let count: i64 = shared()
        .db()
        .query_one("SELECT count(*) FROM sea_mq.outbox_events WHERE aggregate_id = 'whole'", &[])
        .expect("a row")
        .get(0);
    assert_eq!(count, 0);
    let many: Vec<Value> = (0..1001).map(|_| event("many")).collect();
    assert_eq!(as_role("producer", "POST", "/event-batches", Some(&json!({"events": many}))).status, 422);
    let answer = as_role("producer", "POST", "/event-batches", Some(&json!({"events": &many[..1000]})));
    assert_eq!((answer.status, answer.json()["events"].as_array().map(Vec::len)), (201, Some(1000)));
}

#[test]
fn errors_have_one_form_and_say_where() {
    let url = format!("{}/v1/events", shared().url);
    let token = token("all");
    let post = |more: &[(&str, &str)], body: &str| ask("POST", &url, &headers(&token, more), Some(body));
    let cases = [
        (post(&[], "{"), 400, "bad_request"),
        (post(&[("Content-Type", "text/plain")], "{}"), 415, "unsupported_media_type"),
        (post(&[("Accept", "text/html")], "{}"), 406, "not_acceptable"),
        (post(&[], &format!("\"{}\"", "x".repeat(1 << 20))), 413, "payload_too_large"),
        (post(&[], "{}"), 422, "unprocessable"),
        (ask("DELETE", &url, &headers(&token, &[]), None), 405, "method_not_allowed"),
        (ask("GET", &format!("{}/v1/nothing", shared().url), &headers(&token, &[]), None), 404, "not_found"),
        (as_role("all", "GET", "/dead-letters/999999999", None), 404, "not_found"),
        (as_role("all", "GET", "/streams/NOBODY/events", None), 404, "not_found"),
        (as_role("all", "GET", "/streams?limit=500", None), 422, "unprocessable"),
    ];
    for (answer, status, word) in cases {
        let body = answer.json();
        assert_eq!((answer.status, body["error"].as_str()), (status, Some(word)), "{}", answer.text);
        assert_eq!(body["request_id"], answer.headers["x-request-id"].as_str());
        assert!(body["details"]["violations"].is_array() && body["message"].is_string(), "{body}");
    }
    let violations = post(&[], r#"{"aggregate_type": "order", "colour": 1}"#).json()["details"]["violations"].clone();
    let pointers: Vec<&str> =
        violations.as_array().expect("an array").iter().filter_map(|one| one["pointer"].as_str()).collect();
    assert_eq!(pointers, ["/colour", "/aggregate_id", "/event_type", "/payload"]);
    let problem = post(&[("Accept", "application/problem+json")], "{}");
    assert_eq!(
        (problem.headers["content-type"].as_str(), &problem.json()["status"]),
        ("application/problem+json", &json!(422))
    );
    assert_eq!(ask("DELETE", &url, &headers(&token, &[]), None).headers.get("allow").map(String::as_str), Some("POST"));
}

#[test]
fn reading_writes_nothing() {
    let shared = shared();
    let sql =
        "CREATE OR REPLACE FUNCTION public.t_writes() RETURNS text LANGUAGE sql AS $$ SELECT txid_current()::text $$";
    shared.db().batch_execute(sql).expect("made");
    let xids = || {
        shared
            .db()
            .query_one("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint", &[])
            .expect("a row")
            .get::<_, i64>(0)
    };
    let before = xids();
    for path in ["/status", "/problems", "/streams", "/subscriptions", "/dead-letters", "/me", "/event-types"] {
        assert_eq!(as_role("all", "GET", path, None).status, 200, "{path}");
    }
    // Others write beside this test; a page of its own each would be more than these.
    assert!(xids() - before < 10_000);
}

#[test]
fn dead_letters_are_replayed_page_by_page_whatever_becomes_of_one() {
    let subscription = name("replay__s");
    let insert = "INSERT INTO sea_mq.dlq_messages (context, original_subject, subscription, event_type, event_version, aggregate_type, aggregate_id, payload,
            headers, reason, failure_count, error, last_failed_at, dlq_message_id)
        SELECT 'orders', CASE WHEN n = 3 THEN 'elsewhere.event.made.v1' ELSE 'orders.event.made.v1' END, $1, 'made', 1, 'order', '1', '{}', '{}', 'foreign', 1,
            'no', now(), $1 || n FROM generate_series(1, 5) n";
    shared().db().execute(insert, &[&subscription]).expect("inserted");
    let dry =
        as_role("all", "POST", "/dead-letter-replays", Some(&json!({"subscription": subscription, "dry_run": true})));
    assert_eq!((dry.status, &dry.json()["matching"]), (200, &json!(5)));
    let (mut after, mut replayed, mut failed) = (Value::Null, 0, Vec::new());
    loop {
        let body = json!({"subscription": subscription, "max": 2, "after_id": after.as_str().and_then(|id| id.parse::<i64>().ok())});
        let page = as_role("all", "POST", "/dead-letter-replays", Some(&body));
        assert_eq!(page.status, 201, "{}", page.text);
        let page = page.json();
        replayed += page["replayed"].as_i64().expect("a number");
        failed.extend(page["failed"].as_array().expect("an array").clone());
        after = page["next"].clone();
        if after.is_null() {
            break;
        }
    }
    assert_eq!((replayed, failed.len(), &failed[0]["sqlstate"]), (4, 1, &json!("55000")));
    let row = shared().db().query_one("SELECT replayed_by::text, actor FROM sea_mq.dlq_messages WHERE subscription = $1 AND replayed_at IS NOT NULL LIMIT 1", &[&subscription]).expect("a row");
    assert_eq!((row.get::<_, &str>(0), row.get::<_, &str>(1)), ("t_all", "all"));
}

#[test]
fn what_a_contract_calls_sensitive_is_masked_and_its_revealing_is_logged() {
    let event_type = name("Paid");
    let contract = json!({"schema": {"type": "object", "properties": {"card": {"x-sea-sensitive": true}}}});
    assert_eq!(as_role("all", "PUT", &format!("/event-types/orders/{event_type}/1"), Some(&contract)).status, 201);
    let insert = "INSERT INTO sea_mq.dlq_messages (context, original_subject, source_context, event_type, event_version, payload, headers, reason, failure_count, dlq_message_id)
        VALUES ('orders', 'orders.event.paid.v1', 'orders', sea_mq.event_name($1), 1, '{\"card\": \"4111\", \"sum\": 1}', '{}', 'poison', 1, $1) RETURNING id";
    let id: i64 = shared().db().query_one(insert, &[&event_type]).expect("inserted").get(0);
    assert_eq!(
        as_role("all", "GET", &format!("/dead-letters/{id}"), None).json()["payload"],
        json!({"card": "***", "sum": 1})
    );
    assert_eq!(
        as_role("all", "GET", &format!("/dead-letters/{id}?reveal=true"), None).json()["payload"]["card"],
        "4111"
    );
    until("the act is logged", || {
        std::fs::read_to_string(&shared().log).is_ok_and(|log| log.contains(&format!("reveals dead letter {id}")))
    });
}

#[test]
fn a_change_of_what_somebody_else_has_changed_is_refused() {
    let subscription = name("match__s");
    let created =
        as_role("all", "POST", "/subscriptions", Some(&json!({"subscription": subscription, "source": "elsewhere"})));
    assert_eq!(
        (created.status, created.headers["location"].as_str()),
        (201, format!("/v1/subscriptions/{subscription}").as_str())
    );
    let path = format!("/subscriptions/{subscription}");
    let tag = as_role("all", "GET", &path, None).headers["etag"].clone();
    let token = token("all");
    let change = |tag: &str, priority: i64| {
        ask(
            "PATCH",
            &format!("{}/v1{path}", shared().url),
            &headers(&token, &[("If-Match", tag)]),
            Some(&json!({"priority": priority}).to_string()),
        )
        .status
    };
    assert_eq!((change(&tag, 1), change(&tag, 2), change("*", 3)), (200, 412, 200));
}

/// A tail: a connection, read line by line.
struct Tail(BufReader<TcpStream>);

impl Tail {
    fn open(last: Option<i64>) -> Self {
        let address = shared().url.trim_start_matches("http://").to_owned();
        let mut stream = TcpStream::connect(&address).expect("connected");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
        let last = last.map(|sequence| format!("Last-Event-ID: {sequence}\r\n")).unwrap_or_default();
        write!(
            stream,
            "GET /v1/streams/ORDERS_EVENTS/tail HTTP/1.1\r\nHost: {address}\r\nAuthorization: {}\r\n{last}\r\n",
            token("all")
        )
        .expect("sent");
        let mut tail = Self(BufReader::new(stream));
        let mut line = String::new();
        tail.0.read_line(&mut line).expect("an answer");
        assert!(line.contains("200"), "{line}");
        tail
    }

    /// The next event with this aggregate's id.
    fn next(&mut self, aggregate: &str) -> Value {
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).expect("a line in time") > 0, "the tail ended");
            if let Some(data) = line.strip_prefix("data:") {
                let event: Value = serde_json::from_str(data.trim()).expect("JSON");
                if event["aggregate_id"] == aggregate {
                    return event;
                }
            }
        }
    }
}

#[test]
fn a_tail_shows_what_the_stream_stores_in_its_order_and_goes_on_where_it_was() {
    let (first, second) = (name("tail"), name("tail"));
    let mut tail = Tail::open(None);
    for _ in 0..3 {
        assert_eq!(as_role("all", "POST", "/events", Some(&event(&first))).status, 201);
    }
    let heard: Vec<i64> = (0..3).map(|_| tail.next(&first)["stream_seq"].as_i64().expect("a sequence")).collect();
    assert!(heard.is_sorted() && heard[0] < heard[2], "{heard:?}");
    drop(tail);
    as_role("all", "POST", "/events", Some(&event(&second)));
    let mut tail = Tail::open(Some(heard[0]));
    assert_eq!(tail.next(&first)["stream_seq"], heard[1]);
    assert_eq!(tail.next(&first)["stream_seq"], heard[2]);
    assert!(tail.next(&second)["stream_seq"].as_i64() > Some(heard[2]));
}

#[test]
fn events_of_a_stream_come_in_pages() {
    let aggregate = name("paged");
    let many: Vec<Value> = (0..5).map(|_| event(&aggregate)).collect();
    let made = as_role("all", "POST", "/event-batches", Some(&json!({"events": many}))).json();
    let last = made["events"][4]["id"].as_str().expect("an id");
    assert_eq!(as_role("all", "GET", &format!("/events/{last}?wait=8s"), None).json()["status"], "delivered");
    let (mut after, mut seen, mut sequences) = ("0".to_owned(), 0, Vec::new());
    loop {
        let page =
            as_role("all", "GET", &format!("/streams/ORDERS_EVENTS/events?limit=200&after={after}"), None).json();
        let items = page["items"].as_array().expect("items");
        sequences.extend(items.iter().filter_map(|item| item["stream_seq"].as_i64()));
        seen += items.iter().filter(|item| item["aggregate_id"] == aggregate.as_str()).count();
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, 5);
    assert!(sequences.windows(2).all(|pair| pair[0] < pair[1]));
}
