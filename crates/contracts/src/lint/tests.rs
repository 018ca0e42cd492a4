use serde_json::{Value, json};

use super::lint;
use crate::set::ContractSet;

const PAID: &str = "orders/paid.v1.schema.json";

fn set(files: &[(&str, Value)]) -> ContractSet {
    let mut set = ContractSet::default();
    for (path, content) in files {
        set.add(path, content.to_string().as_bytes());
    }
    set
}

fn rules(files: &[(&str, Value)]) -> Vec<(&'static str, String)> {
    lint(&set(files), None).into_iter().map(|finding| (finding.rule, finding.path)).collect()
}

fn found(rule: &'static str, path: &str) -> Vec<(&'static str, String)> {
    vec![(rule, path.to_owned())]
}

#[test]
fn a_clean_set_has_no_findings() {
    let files = [
        (PAID, json!({"properties": {"total": {"$ref": "../common/money.schema.json"}}, "examples": [{"total": 1}]})),
        ("orders/paid.v2.schema.json", json!({"$ref": "https://example.com/money"})),
        ("common/money.schema.json", json!({"$id": "https://example.com/money", "type": "number"})),
        ("report.schema.json", json!({"x-sea-definition": "standalone"})),
        ("messages/dead.schema.json", json!({})),
        ("examples/messages/dead.example.json", json!({})),
        ("orders/examples/paid.v1.example.json", json!({"total": 2})),
        ("examples/paid.v1.large.example.json", json!({"total": 2e9})),
    ];
    assert_eq!(rules(&files), []);
}

#[test]
fn each_rule_finds_what_it_is_for() {
    assert_eq!(
        rules(&[("orders/OrderPaid.v1.schema.json", json!({}))]),
        found("file-name", "orders/OrderPaid.v1.schema.json")
    );
    assert_eq!(rules(&[("orders/paid.v2.schema.json", json!({}))]), found("version-gap", "orders/paid.v2.schema.json"));
    assert_eq!(rules(&[(PAID, json!({"type": "strnig"}))]), found("schema", PAID));
    assert_eq!(rules(&[(PAID, json!({"$schema": "http://json-schema.org/draft-07/schema#"}))]), found("schema", PAID));
    assert_eq!(rules(&[(PAID, json!({"$ref": "../common/money.schema.json"}))]), found("reference", PAID));
    assert_eq!(rules(&[(PAID, json!({"examples": ["a"], "type": "integer"}))]), found("example", PAID));
    assert_eq!(
        rules(&[(PAID, json!({"properties": {"a/ä": {"examples": ["a"], "type": "integer"}}}))]),
        found("example", PAID)
    );
    assert_eq!(rules(&[(PAID, json!({"x-sea-visibility": "secret"}))]), found("visibility", PAID));
    assert_eq!(
        rules(&[(PAID, json!({"properties": {"a": {"x-sea-visibility": "public"}}}))]),
        found("visibility", PAID)
    );
    assert_eq!(rules(&[(PAID, json!({"properties": {"a": {"x-sea-sensitive": "yes"}}}))]), found("sensitive", PAID));
    assert_eq!(rules(&[("money.schema.json", json!({}))]), found("orphan", "money.schema.json"));
    assert_eq!(rules(&[("x.v1.example.json", json!({}))]), found("orphan", "x.v1.example.json"));
    assert_eq!(rules(&[("orders/paid.json", json!({}))]), found("file", "orders/paid.json"));
    let same = [(PAID, json!({"$id": "urn:a"})), ("orders/sent.v1.schema.json", json!({"$id": "urn:a"}))];
    assert_eq!(rules(&same), found("id", "orders/sent.v1.schema.json"));
    let wrong = [(PAID, json!({"type": "integer"})), ("orders/paid.v1.example.json", json!("a"))];
    assert_eq!(rules(&wrong), found("example", "orders/paid.v1.example.json"));
    let mut broken = ContractSet::default();
    broken.add(PAID, b"{");
    assert_eq!(lint(&broken, None)[0].rule, "file");
}

#[test]
fn definitions_that_refer_to_each_other_alone_are_orphans() {
    let files =
        [("a.schema.json", json!({"$ref": "b.schema.json"})), ("b.schema.json", json!({"$ref": "a.schema.json"}))];
    let orphans: Vec<_> = rules(&files).into_iter().filter(|(rule, _)| *rule == "orphan").collect();
    assert_eq!(orphans.len(), 2);
}

#[test]
fn what_was_released_stays_as_it_is() {
    let against = |released: Value, now: &[(&str, Value)]| -> Vec<String> {
        let found = lint(&set(now), Some(&set(&[(PAID, released)])));
        found.into_iter().filter(|finding| finding.rule == "immutable").map(|finding| finding.message).collect()
    };
    let old = || json!({"type": "integer", "description": "a"});
    assert_eq!(against(old(), &[(PAID, old())]), [""; 0]);
    assert_eq!(
        against(old(), &[(PAID, json!({"description": "b", "x-sea-visibility": "internal", "type": "integer"}))]),
        [""; 0]
    );
    assert!(against(old(), &[])[0].contains("gone"));
    assert!(against(old(), &[(PAID, json!({"type": "number"}))])[0].contains("1 breaking"));
    assert!(against(old(), &[(PAID, json!({"type": "integer", "minimum": 1}))])[0].contains("nothing breaks"));
    assert!(!against(old(), &[(PAID, json!({"type": "integer", "x-sea-visibility": "public"}))]).is_empty());
}

#[test]
fn what_stands_for_itself_may_grow() {
    let path = "envelope.schema.json";
    let schema = |of: &str| json!({"x-sea-definition": "standalone", "properties": {"a": {"type": of}}});
    let released = set(&[(path, schema("number"))]);
    assert_eq!(lint(&set(&[(path, schema("integer"))]), Some(&released)), []);
    assert_eq!(lint(&set(&[(path, schema("string"))]), Some(&released))[0].rule, "immutable");
}
