//! What the database's functions take, the routes and the command line take as well.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::shared::{command, shared};

/// A function, its route, and what the route calls otherwise or leaves out: (parameter, name in the route; empty: left out).
type Route = (&'static str, &'static str, &'static str, &'static [(&'static str, &'static str)]);

const ROUTES: [Route; 22] = [
    ("emit", "post", "/events", &[]),
    ("create_stream", "post", "/streams", &[]),
    ("alter_stream", "patch", "/streams/{name}", &[]),
    ("drop_stream", "delete", "/streams/{name}", &[]),
    ("republish", "post", "/streams/{name}/republications", &[("stream", "name")]),
    ("verify_stream", "post", "/streams/{name}/verifications", &[("stream", "name")]),
    // The stream says which context it is.
    ("create_consumer", "put", "/streams/{name}/consumers/{consumer}", &[("context", "name"), ("name", "consumer")]),
    ("subscribe", "post", "/subscriptions", &[]),
    ("subscribe", "put", "/subscriptions/{subscription}", &[]),
    ("alter_subscription", "patch", "/subscriptions/{subscription}", &[]),
    ("receive", "post", "/subscriptions/{subscription}/leases", &[]),
    ("fail", "post", "/leases/{id}/failures", &[]),
    ("reject", "post", "/leases/{id}/rejections", &[]),
    ("extend_lease", "patch", "/leases/{id}", &[]),
    ("dlq_replay", "post", "/dead-letters/{id}/replays", &[]),
    ("dlq_discard", "post", "/dead-letters/{id}/discards", &[]),
    ("create_endpoint", "post", "/endpoints", &[]),
    ("alter_endpoint", "patch", "/endpoints/{endpoint}", &[]),
    ("drop_endpoint", "delete", "/endpoints/{endpoint}", &[]),
    ("deliver", "post", "/endpoints/{endpoint}/deliveries", &[]),
    ("redeliver_all", "post", "/endpoints/{endpoint}/redeliveries", &[]),
    ("register_event", "put", "/event-types/{context}/{type}/{version}", &[("event_type", "type")]),
];

/// A function, its command, and likewise.
type Words = (&'static str, &'static [&'static str], &'static [(&'static str, &'static str)]);

const COMMANDS: [Words; 8] = [
    ("emit", &["events", "emit"], &[]),
    ("republish", &["republish"], &[]),
    ("verify_stream", &["verify"], &[]),
    ("event_status", &["events", "show"], &[("event_id", "id")]),
    // It goes through the pages by itself.
    ("dlq_page", &["dlq", "list"], &[("after_id", ""), ("descending", ""), ("max", "limit"), ("replayed", "all")]),
    ("dlq_replay", &["dlq", "replay"], &[("id", "ids"), ("headers", "")]),
    ("dlq_replay_batch", &["dlq", "replay"], &[("after_id", ""), ("max", "")]),
    ("dlq_discard", &["dlq", "discard"], &[("id", "ids")]),
];

/// Names of a function's parameters: of the form that has the most of them.
fn parameters(function: &str) -> Vec<String> {
    let sql = "SELECT coalesce(array_agg(n.name ORDER BY n.place), '{}') FROM (
            SELECT p.* FROM pg_proc p WHERE p.pronamespace = 'sea_mq'::regnamespace AND p.proname = $1
            ORDER BY p.pronargs DESC, p.oid LIMIT 1) p
        CROSS JOIN LATERAL unnest(p.proargnames, coalesce(p.proargmodes, array_fill('i'::\"char\", ARRAY[p.pronargs::int])))
            WITH ORDINALITY n(name, mode, place)
        WHERE n.mode IN ('i', 'b', 'v')";
    let names: Vec<String> = shared().db().query_one(sql, &[&function]).expect("a row").get(0);
    assert!(!names.is_empty(), "{function} is not there");
    names
}

/// Names in path, query and body.
fn taken(document: &Value, method: &str, path: &str) -> BTreeSet<String> {
    let operation = &document["paths"][format!("/v1{path}")][method];
    assert!(operation.is_object(), "{method} {path}");
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let mut names: BTreeSet<String> =
        operation["parameters"].as_array().into_iter().flatten().filter_map(|one| text(&one["name"])).collect();
    let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
    let schema = match schema["$ref"].as_str().and_then(|reference| reference.strip_prefix('#')) {
        Some(pointer) => document.pointer(pointer).expect("a schema"),
        None => schema,
    };
    names.extend(schema["properties"].as_object().into_iter().flat_map(|members| members.keys().cloned()));
    names
}

fn missing(function: &str, others: &[(&str, &str)], has: impl Fn(&str) -> bool) -> Vec<String> {
    let other =
        |name: &str| others.iter().find(|(parameter, _)| *parameter == name).map(|(_, other)| (*other).to_owned());
    let is_missing = |name: &String| {
        let name = other(name).unwrap_or_else(|| name.clone());
        !name.is_empty() && !has(&name)
    };
    parameters(function).into_iter().filter(is_missing).collect()
}

#[test]
fn every_parameter_of_a_function_is_a_parameter_of_its_route() {
    let output = command().arg("openapi").output().expect("it runs");
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let found: Vec<String> = ROUTES
        .iter()
        .filter_map(|(function, method, path, others)| {
            let taken = taken(&document, method, path);
            let missing = missing(function, others, |name| taken.contains(name));
            (!missing.is_empty()).then(|| format!("{method} {path} lacks of {function}: {missing:?}"))
        })
        .collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn every_parameter_of_a_function_is_an_argument_of_its_command() {
    let found: Vec<String> = COMMANDS
        .iter()
        .filter_map(|(function, words, others)| {
            let output = command().args(*words).arg("--help").output().expect("it runs");
            let help = String::from_utf8(output.stdout).expect("a text");
            let has = |name: &str| {
                help.contains(&format!("--{} ", name.replace('_', "-")))
                    || help.contains(&format!("--{}\n", name.replace('_', "-")))
                    || [format!("<{}>", name.to_uppercase()), format!("[{}]", name.to_uppercase())]
                        .iter()
                        .any(|word| help.contains(word))
            };
            let missing = missing(function, others, has);
            (!missing.is_empty()).then(|| format!("{} lacks of {function}: {missing:?}", words.join(" ")))
        })
        .collect();
    assert!(found.is_empty(), "{found:#?}");
}
