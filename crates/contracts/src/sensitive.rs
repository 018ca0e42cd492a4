//! Which places of a payload are sensitive, after the annotation `x-sea-sensitive` of its schema.
//!
//! The schema is followed as a validator would, but whatever the payload is like: a payload that breaks its contract must
//! not leak more than one that keeps it. So every branch of `anyOf`, `oneOf`, `if` counts, and what cannot be decided is
//! sensitive.

use jsonschema::{Draft, Registry};
use referencing::{Resolver, ResourceRef};
use serde_json::Value;

use crate::schema::matches;

/// The annotation: `true` or `"strip"` for what must not leave, `"hash"` for what leaves as a keyed hash.
pub const KEYWORD: &str = "x-sea-sensitive";

/// Steps from schema to schema at one place of the payload; more are a circle.
const STEPS: usize = 64;

/// What is done with a sensitive value. The greater one wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Treatment {
    /// It is replaced by a keyed hash, so that equal values can still be recognised.
    Hash,
    /// It is left out.
    Strip,
}

/// What a value of the annotation asks for.
pub fn treatment(annotation: &Value) -> Option<Treatment> {
    match annotation {
        Value::Bool(false) | Value::Null => None,
        Value::String(word) if word == "hash" => Some(Treatment::Hash),
        _ => Some(Treatment::Strip),
    }
}

/// A sensitive place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Keys and indexes from the root; empty for the whole payload.
    pub path: Vec<String>,
    pub treatment: Treatment,
}

/// The sensitive places of a payload, so that those of an array come last element first; none lies within another.
/// `registry` has the schema as `uri`, and what it refers to.
pub fn places(registry: &Registry, uri: &str, payload: &Value) -> Vec<Place> {
    let root = jsonschema::uri::from_str(uri).and_then(|base| registry.resolver(base).lookup(uri));
    let Ok(root) = root else {
        return vec![Place { path: Vec::new(), treatment: Treatment::Strip }];
    };
    let mut walk = Walk { path: Vec::new(), found: Vec::new() };
    walk.value(&[At { schema: root.contents(), resolver: root.resolver().clone() }], payload);
    walk.found
}

/// Whether a schema's text has the annotation at all.
pub fn mentions(schema: &Value) -> bool {
    match schema {
        Value::Object(members) => members.contains_key(KEYWORD) || members.values().any(mentions),
        Value::Array(items) => items.iter().any(mentions),
        _ => false,
    }
}

/// A schema that applies to a value.
struct At<'r> {
    schema: &'r Value,
    resolver: Resolver<'r>,
}

impl<'r> At<'r> {
    /// A schema within this one.
    fn within(&self, schema: &'r Value) -> Self {
        let resource = ResourceRef::new(schema, Draft::Draft202012);
        let resolver = self.resolver.in_subresource(resource).unwrap_or_else(|_| self.resolver.clone());
        Self { schema, resolver }
    }

    /// The schemas that apply to the same value. `Err`: one of them cannot be found.
    fn beside(&self) -> Result<Vec<Self>, ()> {
        let mut beside = Vec::new();
        for reference in ["$ref", "$dynamicRef"].into_iter().filter_map(|keyword| self.schema.get(keyword)) {
            let found = self.resolver.lookup(reference.as_str().unwrap_or_default()).map_err(drop)?;
            beside.push(Self { schema: found.contents(), resolver: found.resolver().clone() }.within(found.contents()));
        }
        for keyword in ["allOf", "anyOf", "oneOf"] {
            let branches = self.schema.get(keyword).and_then(Value::as_array);
            beside.extend(branches.into_iter().flatten().map(|branch| self.within(branch)));
        }
        for keyword in ["if", "then", "else", "not"] {
            beside.extend(self.schema.get(keyword).map(|branch| self.within(branch)));
        }
        let dependent = self.schema.get("dependentSchemas").and_then(Value::as_object);
        beside.extend(dependent.into_iter().flat_map(|map| map.values()).map(|branch| self.within(branch)));
        Ok(beside)
    }

    fn treatment(&self) -> Option<Treatment> {
        treatment(self.schema.get(KEYWORD)?)
    }

    /// The schemas of a member of an object.
    fn member(&self, name: &str) -> Vec<Self> {
        let object = |keyword| self.schema.get(keyword).and_then(Value::as_object);
        let named = object("properties").and_then(|map| map.get(name));
        let patterns = object("patternProperties").into_iter().flatten();
        let patterns = patterns.filter(|(pattern, _)| matches(pattern, name)).map(|(_, schema)| schema);
        let rest = ["additionalProperties", "unevaluatedProperties"].into_iter().filter(|_| named.is_none());
        let rest = rest.filter_map(|keyword| self.schema.get(keyword));
        named.into_iter().chain(patterns).chain(rest).map(|schema| self.within(schema)).collect()
    }

    /// The schemas of an element of an array.
    fn element(&self, index: usize) -> Vec<Self> {
        let prefix = self.schema.get("prefixItems").and_then(Value::as_array).and_then(|items| items.get(index));
        let rest = ["items", "unevaluatedItems"].into_iter().filter(|_| prefix.is_none()).chain(["contains"]);
        let rest = rest.filter_map(|keyword| self.schema.get(keyword));
        prefix.into_iter().chain(rest).map(|schema| self.within(schema)).collect()
    }
}

struct Walk {
    path: Vec<String>,
    found: Vec<Place>,
}

impl Walk {
    fn value(&mut self, schemas: &[At], value: &Value) {
        let mut all: Vec<At> = schemas.iter().map(|at| at.within(at.schema)).collect();
        let mut treatment = None;
        let mut next = 0;
        while next < all.len() {
            treatment = treatment.max(all[next].treatment());
            match all[next].beside() {
                Ok(beside) if all.len() < STEPS => all.extend(beside),
                Ok(beside) if beside.is_empty() => {}
                _ => treatment = Some(Treatment::Strip),
            }
            next += 1;
        }
        if let Some(treatment) = treatment {
            self.found.push(Place { path: self.path.clone(), treatment });
            return;
        }
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    let schemas: Vec<At> = all.iter().flat_map(|at| at.member(name)).collect();
                    self.step(name.clone(), &schemas, member);
                }
            }
            Value::Array(elements) => {
                for (index, element) in elements.iter().enumerate().rev() {
                    let schemas: Vec<At> = all.iter().flat_map(|at| at.element(index)).collect();
                    self.step(index.to_string(), &schemas, element);
                }
            }
            _ => {}
        }
    }

    fn step(&mut self, name: String, schemas: &[At], value: &Value) {
        if !schemas.is_empty() {
            self.path.push(name);
            self.value(schemas, value);
            self.path.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::schema::Schema;

    fn places(schema: serde_json::Value, payload: serde_json::Value) -> Vec<String> {
        let uri = "sea-mq:/schemas/events/a/b.v1.schema.json";
        let schema = Schema::compile(&schema, uri, |_| None).unwrap();
        let show = |place: super::Place| format!("{}:{:?}", place.path.join("/"), place.treatment);
        schema.sensitive_places(&payload).into_iter().map(show).collect()
    }

    #[test]
    fn what_is_marked_is_found_wherever_it_is() {
        let schema = json!({
            "properties": {
                "card": {"x-sea-sensitive": true},
                "mail": {"$ref": "#/$defs/mail"},
                "lines": {"items": {"properties": {"note": {"x-sea-sensitive": "strip"}, "n": {}}}},
                "open": {"x-sea-sensitive": false}
            },
            "patternProperties": {"^secret_": {"x-sea-sensitive": true}},
            "$defs": {"mail": {"x-sea-sensitive": "hash"}}
        });
        let payload = json!({
            "open": 1, "card": 2, "mail": "a@b", "secret_pin": 3, "no_secret": 4,
            "lines": [{"note": 1, "n": 2}, {"n": 3}, {"note": 4}]
        });
        let found = ["card:Strip", "mail:Hash", "secret_pin:Strip", "lines/2/note:Strip", "lines/0/note:Strip"];
        assert_eq!(places(schema, payload), found);
        let rest = json!({"properties": {"open": {}}, "additionalProperties": {"x-sea-sensitive": true}});
        assert_eq!(places(rest, json!({"open": 1, "other": 2})), ["other:Strip"]);
    }

    #[test]
    fn a_payload_that_breaks_its_contract_does_not_leak() {
        let card = json!({"properties": {"card": {"x-sea-sensitive": true}}, "required": ["n"]});
        for schema in [
            json!({"anyOf": [{"type": "string"}, card]}),
            json!({"if": {"required": ["n"]}, "then": card}),
            json!({"allOf": [{"oneOf": [card, {}]}]}),
            json!({"dependentSchemas": {"n": card}}),
            json!({"properties": {"card": {"type": "integer", "anyOf": [{"x-sea-sensitive": "hash"}, {"x-sea-sensitive": true}]}}}),
        ] {
            assert_eq!(places(schema.clone(), json!({"card": "4111"})), ["card:Strip"], "{schema}");
        }
        assert_eq!(places(json!({"x-sea-sensitive": true}), json!([1])), [":Strip"]);
        assert_eq!(places(json!({"properties": {"card": {}}}), json!({"card": 1})), [""; 0]);
    }

    #[test]
    fn a_circle_ends_and_is_sensitive() {
        let schema = json!({"$ref": "#/$defs/a", "x-sea-none": {"x-sea-sensitive": true},
            "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}]}, "b": {"anyOf": [{"$ref": "#/$defs/a"}]}}});
        assert_eq!(places(schema, json!({"n": 1})), [":Strip"]);
        let list = json!({"properties": {"next": {"$ref": "#"}, "pin": {"x-sea-sensitive": true}}});
        assert_eq!(
            places(list, json!({"next": {"next": {"pin": 1}, "pin": 2}})),
            ["next/next/pin:Strip", "next/pin:Strip"]
        );
    }
}
