//! Where schemas stand inside of schemas (draft 2020-12), so that a property that is called `title` is not taken for a title.

use serde_json::Value;

/// Keywords whose value is a schema.
const ONE: &[&str] = &[
    "additionalProperties",
    "contains",
    "contentSchema",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
];

/// Keywords whose value is an array of schemas.
const LIST: &[&str] = &["allOf", "anyOf", "oneOf", "prefixItems"];

/// Keywords whose value is an object of schemas by name.
const NAMED: &[&str] = &["$defs", "definitions", "dependentSchemas", "patternProperties", "properties"];

/// How a keyword carries schemas.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Carries {
    Nothing,
    One,
    List,
    Named,
}

pub fn carries(keyword: &str) -> Carries {
    match keyword {
        _ if ONE.contains(&keyword) => Carries::One,
        _ if LIST.contains(&keyword) => Carries::List,
        _ if NAMED.contains(&keyword) => Carries::Named,
        _ => Carries::Nothing,
    }
}

/// A schema inside of a document and its JSON Pointer.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    pub pointer: String,
    pub schema: &'a Value,
}

impl<'a> Place<'a> {
    pub fn root(schema: &'a Value) -> Self {
        Self { pointer: String::new(), schema }
    }

    /// What stands below it: a keyword's value, or a member of that.
    pub fn below(&self, token: &str, schema: &'a Value) -> Self {
        Self { pointer: join(&self.pointer, token), schema }
    }

    /// The schemas directly in a keyword of this one, with the name or number that each has there.
    pub fn inside(&self, keyword: &str) -> Vec<(String, Place<'a>)> {
        let Some(value) = self.schema.get(keyword) else { return Vec::new() };
        let holder = self.below(keyword, value);
        let member = |token: String, value: &'a Value| {
            let place = holder.below(&token, value);
            (token, place)
        };
        match (carries(keyword), value) {
            (Carries::One, _) => vec![(String::new(), holder)],
            (Carries::List, Value::Array(items)) => {
                items.iter().enumerate().map(|(i, value)| member(i.to_string(), value)).collect()
            }
            (Carries::Named, Value::Object(members)) => {
                members.iter().map(|(name, value)| member(name.clone(), value)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// All schemas directly inside of this one.
    pub fn children(&self) -> Vec<Place<'a>> {
        let keywords = self.schema.as_object().into_iter().flat_map(|object| object.keys());
        keywords.flat_map(|keyword| self.inside(keyword)).map(|(_, place)| place).collect()
    }
}

/// This schema and all schemas inside of it, outer ones first.
pub fn all(root: Place<'_>) -> Vec<Place<'_>> {
    let mut found = vec![root];
    let mut next = 0;
    while next < found.len() {
        let children = found[next].children();
        found.extend(children);
        next += 1;
    }
    found
}

/// A JSON Pointer (RFC 6901) with one more token.
pub fn join(pointer: &str, token: &str) -> String {
    format!("{pointer}/{}", token.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn schemas_are_told_from_what_only_looks_like_one() {
        let schema = json!({
            "properties": {"items": {"type": "string"}, "a/b": {"anyOf": [true]}},
            "enum": [{"items": {"type": "string"}}],
            "default": {"not": {}},
            "$defs": {"~": false},
        });
        let places: Vec<String> = all(Place::root(&schema)).into_iter().map(|place| place.pointer).collect();
        assert_eq!(places, ["", "/properties/items", "/properties/a~1b", "/$defs/~0", "/properties/a~1b/anyOf/0"]);
        for pointer in places {
            assert!(schema.pointer(&pointer).is_some(), "{pointer}");
        }
    }
}
