use serde_json::{Value, json};

use super::{Compatibility, compare};

fn breaking(old: Value, new: Value) -> Vec<String> {
    let found = compare(&old, &new);
    found.into_iter().filter(super::Difference::is_breaking).map(|difference| difference.pointer).collect()
}

/// Pointers of all differences, which must all be compatible.
fn compatible(old: Value, new: Value) -> Vec<String> {
    let found = compare(&old, &new);
    assert!(found.iter().all(|difference| !difference.is_breaking()), "{old} → {new}: {found:?}");
    found.into_iter().map(|difference| difference.pointer).collect()
}

/// `a` → `b` breaks, and the way back does not.
fn loosens(a: Value, b: Value, pointer: &str) {
    assert_eq!(breaking(a.clone(), b.clone()), [pointer], "{a} → {b}");
    assert!(!compatible(b, a).is_empty());
}

#[test]
fn bounds_types_and_listed_values_may_only_be_narrowed() {
    loosens(json!({"type": "integer"}), json!({"type": "number"}), "/type");
    loosens(json!({"type": "string"}), json!({"type": ["string", "null"]}), "/type");
    loosens(json!({"type": "string"}), json!({}), "/type");
    loosens(json!({"enum": ["a"]}), json!({"enum": ["a", "b"]}), "/enum");
    loosens(json!({"const": 1}), json!({"enum": [1.0, 2]}), "/enum");
    loosens(json!({"enum": ["a"]}), json!({}), "/enum");
    loosens(json!({"minimum": 1}), json!({"minimum": 0.5}), "/minimum");
    loosens(json!({"exclusiveMinimum": 1}), json!({"minimum": 1}), "/minimum");
    loosens(json!({"maximum": 1}), json!({"maximum": 2}), "/maximum");
    loosens(json!({"maxLength": 3}), json!({}), "/maxLength");
    loosens(json!({"minItems": 1}), json!({"minItems": 0}), "/minItems");
    loosens(json!({"multipleOf": 4}), json!({"multipleOf": 2}), "/multipleOf");
    loosens(json!({"uniqueItems": true}), json!({"uniqueItems": false}), "/uniqueItems");
    loosens(json!({"items": {"type": "string"}}), json!({"items": {}}), "/items/type");
    loosens(json!({"prefixItems": [{"type": "string"}]}), json!({}), "/prefixItems/0/type");
}

#[test]
fn properties_may_come_and_what_is_relied_on_may_not_go() {
    let old = json!({"properties": {"a": {"type": "string"}, "b": {}}, "required": ["a"]});
    let with = |pointer: &str, value: Value| {
        let mut new = old.clone();
        *new.pointer_mut(pointer).unwrap() = value;
        new
    };
    let added = json!({"a": {"type": "string"}, "b": {}, "c": {"type": "integer"}});
    assert_eq!(compatible(old.clone(), with("/properties", added)), ["/properties/c"]);
    assert_eq!(compatible(old.clone(), with("/required", json!(["a", "b"]))), ["/required"]);
    assert_eq!(compatible(old.clone(), with("/properties", json!({"a": {"type": "string"}}))), ["/properties/b"]);
    assert_eq!(breaking(old.clone(), with("/required", json!([]))), ["/required"]);
    assert_eq!(breaking(old.clone(), json!({"properties": {"b": {}}})), ["/required"]);
    assert_eq!(breaking(old.clone(), json!({"properties": {"b": {}}, "required": ["a"]})), ["/properties/a"]);
    assert_eq!(breaking(old.clone(), json!({"type": "object"})), ["/required"]);
}

#[test]
fn what_was_forbidden_stays_forbidden() {
    let closed = |properties: Value| json!({"properties": properties, "additionalProperties": false});
    assert_eq!(breaking(closed(json!({"a": {}})), closed(json!({"a": {}, "b": {}}))), ["/properties/b"]);
    assert_eq!(compatible(closed(json!({"a": {}, "b": {}})), closed(json!({"a": {}}))), ["/properties/b"]);
    loosens(closed(json!({})), json!({"properties": {}}), "/additionalProperties");
    let numbers = json!({"additionalProperties": {"type": "number"}});
    let named = |of: &str| json!({"properties": {"a": {"type": of}}, "additionalProperties": {"type": "number"}});
    assert_eq!(breaking(numbers.clone(), named("string")), ["/properties/a/type"]);
    compatible(numbers.clone(), named("integer"));
    assert_eq!(breaking(named("integer"), numbers), ["/additionalProperties/type"]);
}

#[test]
fn annotations_are_named_and_harmless() {
    let old = json!({"properties": {"title": {"type": "string", "title": "Title"}}, "x-owner": "a", "x-sea-visibility": "internal"});
    let new =
        json!({"properties": {"title": {"type": "string", "deprecated": true}}, "x-owner": "b", "description": "d"});
    let found = compare(&old, &new);
    assert!(found.iter().all(|difference| difference.change.starts_with("annotation ")), "{found:?}");
    let mut pointers: Vec<_> = found.iter().map(|difference| difference.pointer.as_str()).collect();
    pointers.sort_unstable();
    let expected =
        ["/description", "/properties/title/deprecated", "/properties/title/title", "/x-owner", "/x-sea-visibility"];
    assert_eq!(pointers, expected);
}

#[test]
fn what_was_sensitive_stays_sensitive() {
    let marked = json!({"properties": {"card": {"type": "string", "x-sea-sensitive": true}}});
    let unmarked = json!({"properties": {"card": {"type": "string"}}});
    loosens(marked.clone(), unmarked, "/properties/card/x-sea-sensitive");
    assert_eq!(
        breaking(marked.clone(), json!({"properties": {"card": {"type": "string", "x-sea-sensitive": false}}})).len(),
        1
    );
    assert_eq!(compare(&marked, &marked), []);
    loosens(json!({"x-sea-sensitive": "strip"}), json!({"x-sea-sensitive": "hash"}), "/x-sea-sensitive");
}

#[test]
fn how_a_schema_is_cut_into_parts_does_not_matter() {
    let whole = json!({"type": "object", "properties": {"a": {"type": "string", "minLength": 1}}, "required": ["a"]});
    let parts = json!({
        "allOf": [{"type": "object"}, {"$ref": "#/$defs/part"}], "required": ["a"],
        "$defs": {"part": {"properties": {"a": {"$ref": "#text"}}}, "text": {"$anchor": "text", "type": "string", "minLength": 1}},
    });
    assert_eq!(compatible(whole.clone(), parts.clone()), ["/$defs/text/$anchor"]);
    compatible(parts.clone(), whole);
    let mut looser = parts.clone();
    looser["$defs"]["text"]["minLength"] = json!(0);
    assert_eq!(breaking(parts, looser), ["/$defs/text/minLength"]);
}

#[test]
fn what_is_not_analysed_breaks_and_says_so() {
    for (old, new) in [
        (json!({"pattern": "^a"}), json!({"pattern": "^ab"})),
        (json!({"not": {"type": "string"}}), json!({"not": {"type": "integer"}})),
        (json!({"if": {"required": ["a"]}, "then": {"required": ["b"]}}), json!({"if": {"required": ["a"]}})),
        (json!({"$ref": "other.schema.json"}), json!({"$ref": "another.schema.json"})),
        (json!({"contains": {"const": 1}}), json!({"contains": {"const": 2}})),
        (json!({"properties": {"a": {}}, "unevaluatedProperties": false}), json!({"unevaluatedProperties": false})),
        (json!({"$dynamicRef": "#a", "$dynamicAnchor": "a"}), json!({"type": "string"})),
        (json!({"oneOf": [{"minimum": 1}, {"maximum": 5}]}), json!({"oneOf": [{"minimum": 2}, {"maximum": 5}]})),
    ] {
        let found = compare(&old, &new);
        let says =
            |difference: &super::Difference| difference.is_breaking() && difference.change.contains("not analysed");
        assert!(found.iter().any(says), "{old} → {new}: {found:?}");
        assert_eq!(compare(&old, &old), []);
        assert_eq!(compare(&new, &new), []);
    }
}

#[test]
fn a_definition_behind_a_keyword_that_is_not_analysed_counts() {
    let schema = |of: &str| json!({"not": {"$ref": "#/$defs/a"}, "$defs": {"a": {"type": of}}});
    assert_eq!(breaking(schema("string"), schema("integer")), ["/not"]);
    let own = |of: &str| json!({"$id": "urn:x", "not": {"$ref": "urn:x#/$defs/a"}, "$defs": {"a": {"type": of}}});
    assert_eq!(breaking(own("string"), own("integer")), ["/not"]);
}

#[test]
fn alternatives_may_go_and_not_come() {
    let text = json!({"type": "string", "maxLength": 5});
    let nothing = json!({"type": "null"});
    let both = json!({"anyOf": [text, nothing]});
    compatible(both.clone(), text.clone());
    compatible(both.clone(), json!({"anyOf": [nothing, text]}));
    assert_eq!(compatible(both.clone(), json!({"anyOf": [text]})), ["/anyOf/1"]);
    assert_eq!(breaking(json!({"anyOf": [text]}), both.clone()), ["/anyOf/1"]);
    let longer = json!({"anyOf": [{"type": "string", "maxLength": 6}, nothing]});
    assert_eq!(breaking(both, longer), ["/anyOf/0/maxLength"]);
}

#[test]
fn alternatives_that_exclude_each_other_are_analysed() {
    let by = |kinds: &[(&str, i32)]| -> Value {
        let one = |(kind, limit): &(&str, i32)| json!({"type": "object", "required": ["kind"], "properties": {"kind": {"const": kind}, "n": {"maximum": limit}}});
        json!({"oneOf": kinds.iter().map(one).collect::<Vec<_>>()})
    };
    let old = by(&[("card", 5), ("cash", 5)]);
    compatible(old.clone(), by(&[("card", 4)]));
    assert_eq!(breaking(old.clone(), by(&[("card", 6), ("cash", 5)])), ["/oneOf/0/properties/n/maximum"]);
    assert_eq!(breaking(old, by(&[("card", 5), ("cash", 5), ("cheque", 5)])), ["/oneOf/2"]);
}

#[test]
fn a_property_that_moves_into_an_alternative_is_not_taken_for_removed() {
    let old = json!({"properties": {"a": {"type": "string"}}});
    assert_eq!(
        breaking(old.clone(), json!({"anyOf": [{"properties": {"a": {"type": "integer"}}}]})),
        ["/properties/a"]
    );
    assert_eq!(breaking(old, json!({"$ref": "elsewhere.schema.json"})), ["/properties/a"]);
}

#[test]
fn schemas_that_refer_to_themselves_are_compared() {
    let tree = |of: &str| {
        json!({"$ref": "#/$defs/node", "$defs": {"node": {
            "properties": {"value": {"type": of}, "children": {"items": {"$ref": "#/$defs/node"}}}}}})
    };
    assert_eq!(compare(&tree("string"), &tree("string")), []);
    assert_eq!(breaking(tree("integer"), tree("number")), ["/$defs/node/properties/value/type"]);
    for endless in [json!({"$ref": "#"}), json!({"allOf": [{"$ref": "#"}]}), json!({"anyOf": [{"$ref": "#"}]})] {
        compare(&endless, &json!({"type": "string"}));
        compare(&json!({"type": "string"}), &endless);
    }
}

#[test]
fn comparing_takes_bounded_time_and_stack() {
    let mut definitions = serde_json::Map::new();
    for i in 0..40 {
        let next = json!({"$ref": format!("#/$defs/d{}", i + 1)});
        definitions.insert(format!("d{i}"), json!({"properties": {"a": next, "b": next}}));
    }
    definitions.insert("d40".into(), json!({"type": "string"}));
    let exploding = json!({"$ref": "#/$defs/d0", "$defs": definitions});
    let found = compare(&exploding, &exploding);
    assert!(found.iter().any(|difference| difference.compatibility == Compatibility::Breaking), "{found:?}");
    let mut deep = json!({"type": "string"});
    for _ in 0..120 {
        deep = json!({"anyOf": [{"items": deep}]});
    }
    let small_stack = std::thread::Builder::new().stack_size(1 << 20);
    small_stack.spawn(move || assert!(!compare(&deep, &json!({})).is_empty())).unwrap().join().unwrap();
}
