//! A set of contracts as a directory has it: schemas of events, definitions that they refer to, examples.
//!
//! | File below the directory | What |
//! |---|---|
//! | `{context}/{name}.v{n}.schema.json` | schema of an event's version |
//! | any other `*.schema.json` | definition, which others refer to by its place |
//! | `*.example.json` | an example for the schema whose name it begins with |

use std::collections::{BTreeMap, BTreeSet};

use jsonschema::uri;
use serde_json::Value;

use crate::event_key::{BASE_URI, EventKey, SUFFIX, decode, percent_encode, place_uri};

/// Where definitions stand whose URI is no place below `schemas/events`; their file is named after the whole URI.
const FOREIGN: &str = "external/";

const EXAMPLE: &str = ".example.json";

/// Root keyword of a definition that nobody has to refer to.
const DEFINITION: &str = "x-sea-definition";

/// What a schema file is, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Event(EventKey),
    Definition,
    /// It stands where events' schemas do and has a version, but no event has this name: the name it should have, if
    /// there is one.
    Misnamed(Option<String>),
}

/// Paths are below the directory, with `/`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContractSet {
    pub schemas: BTreeMap<String, Value>,
    pub examples: BTreeMap<String, Value>,
    /// Files that cannot be used, and why.
    pub unusable: BTreeMap<String, String>,
}

impl ContractSet {
    /// Takes a file, unless its name says that it is nobody's business.
    pub fn add(&mut self, path: &str, content: &[u8]) {
        let files = if path.ends_with(SUFFIX) {
            &mut self.schemas
        } else if path.ends_with(EXAMPLE) {
            &mut self.examples
        } else if path.ends_with(".json") {
            self.unusable.insert(path.to_owned(), format!("the name ends neither in {SUFFIX} nor in {EXAMPLE}"));
            return;
        } else {
            return;
        };
        match serde_json::from_slice(content) {
            Ok(value) => {
                files.insert(path.to_owned(), value);
            }
            Err(error) => {
                self.unusable.insert(path.to_owned(), format!("this is not JSON: {error}"));
            }
        }
    }

    /// Schemas by the URIs that they are referred to by: their place, and their `$id`.
    pub fn by_uri(&self) -> BTreeMap<String, &str> {
        let ids = self.schemas.iter().filter_map(|(path, schema)| Some((own_id(schema)?.to_owned(), path.as_str())));
        // Where both are the same URI, the place counts.
        ids.chain(self.schemas.keys().map(|path| (uri_of(path), path.as_str()))).collect()
    }

    /// Paths of the schemas that a schema refers to and that the set has.
    pub fn referred<'a>(&self, path: &str, by_uri: &BTreeMap<String, &'a str>) -> BTreeSet<&'a str> {
        let Some(schema) = self.schemas.get(path) else { return BTreeSet::new() };
        let referred = references(schema, &uri_of(path));
        referred.iter().filter_map(|uri| by_uri.get(uri).copied()).filter(|other| *other != path).collect()
    }

    /// The schema that an example is for: the name begins with the schema's, the folder is the schema's, `examples` aside,
    /// or that of the only schema with this name.
    pub fn schema_of(&self, path: &str) -> Option<(&str, &Value)> {
        let (folders, file) = path.rsplit_once('/').unwrap_or(("", path));
        let folders = folders.split('/').filter(|part| !part.is_empty() && *part != "examples");
        let folder: String = folders.map(|part| format!("{part}/")).collect();
        let mut name = file.strip_suffix(EXAMPLE)?;
        loop {
            let file = format!("{name}.schema.json");
            if let Some((path, schema)) = self.schemas.get_key_value(&format!("{folder}{file}")) {
                return Some((path, schema));
            }
            let mut same = self.schemas.iter().filter(|(path, _)| path.rsplit('/').next() == Some(&file));
            if let (Some((path, schema)), None) = (same.next(), same.next()) {
                return Some((path, schema));
            }
            name = name.rsplit_once('.')?.0;
        }
    }

    /// Paths of the schemas that are meant for themselves: they say so, or there is an example of them.
    pub fn standalone(&self) -> BTreeSet<&str> {
        let says = |schema: &Value| schema.get(DEFINITION).is_some_and(|value| value == "standalone");
        let saying = self.schemas.iter().filter(|(_, schema)| says(schema)).map(|(path, _)| path.as_str());
        let shown = self.examples.keys().filter_map(|example| self.schema_of(example)).map(|(path, _)| path);
        saying.chain(shown).collect()
    }

    /// All paths of schemas, what is referred to before what refers to it. Where schemas refer to each other in a circle,
    /// one of them comes first all the same.
    pub fn in_order(&self) -> Vec<&str> {
        let by_uri = self.by_uri();
        let mut order: Vec<&str> = Vec::new();
        let mut begun: BTreeSet<&str> = BTreeSet::new();
        // A stack of its own, for chains of references may be long.
        let mut open: Vec<(&str, bool)> = self.schemas.keys().rev().map(|path| (path.as_str(), false)).collect();
        while let Some((path, done)) = open.pop() {
            if done {
                order.push(path);
            } else if begun.insert(path) {
                open.push((path, true));
                open.extend(self.referred(path, &by_uri).into_iter().map(|path| (path, false)));
            }
        }
        order
    }
}

/// A schema's own name for itself, if it is absolute.
pub fn own_id(schema: &Value) -> Option<&str> {
    let id = schema.get("$id")?.as_str()?.trim_end_matches('#');
    id.contains(':').then_some(id)
}

/// Whether a path is one that a schema's file can have: below the directory and in one way only.
pub fn is_schema_path(path: &str) -> bool {
    let part = |part: &str| !part.is_empty() && !part.starts_with('.');
    path.ends_with(SUFFIX) && path.split('/').all(part) && !path.contains(['\\', '\0'])
}

pub fn kind(path: &str) -> Kind {
    if let Some(key) = EventKey::from_path(path) {
        return Kind::Event(key);
    }
    let Some((context, file)) = path.split_once('/').filter(|(_, file)| !file.contains('/')) else {
        return Kind::Definition;
    };
    let Some((name, version)) = file.strip_suffix(SUFFIX).and_then(|name| name.rsplit_once(".v")) else {
        return Kind::Definition;
    };
    if version.is_empty() || !version.bytes().all(|byte| byte.is_ascii_digit()) || foreign_uri(path).is_some() {
        return Kind::Definition;
    }
    let name = name.replace("%2F", "/").replace("%25", "%");
    let key = version.parse().ok().and_then(|version| EventKey::new(context, &name, version).ok());
    Kind::Misnamed(key.map(|key| key.path()))
}

/// The URI of the schema at a place.
pub fn uri_of(path: &str) -> String {
    foreign_uri(path).unwrap_or_else(|| place_uri(path))
}

/// The place of a definition that is known by a URI.
pub fn definition_path(uri: &str) -> String {
    let place = uri.strip_prefix(BASE_URI).and_then(decode);
    let fits = |path: &String| is_schema_path(path) && kind(path) == Kind::Definition && uri_of(path) == uri;
    place.filter(fits).unwrap_or_else(|| format!("{FOREIGN}{}{SUFFIX}", percent_encode(uri, b"-_~.")))
}

/// The URI in the name of a file in `external/`. An absolute URI has a colon, which no file named after a place has
/// encoded.
fn foreign_uri(path: &str) -> Option<String> {
    let name = path.strip_prefix(FOREIGN)?.strip_suffix(SUFFIX)?;
    if name.contains('/') || !name.contains("%3A") {
        return None;
    }
    decode(name)
}

/// What a schema refers to, as absolute URIs without fragment.
fn references(schema: &Value, uri: &str) -> BTreeSet<String> {
    let base = own_id(schema).unwrap_or(uri);
    let Ok(base) = uri::from_str(base) else { return BTreeSet::new() };
    let mut found = BTreeSet::new();
    let mut open = vec![schema];
    while let Some(value) = open.pop() {
        match value {
            Value::Object(members) => {
                if let Some(Value::String(reference)) = members.get("$ref")
                    && let Ok(target) = uri::resolve_against(&base.borrow(), reference)
                {
                    found.insert(target.strip_fragment().as_str().to_owned());
                }
                open.extend(members.values());
            }
            Value::Array(items) => open.extend(items),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_say_what_a_schema_is() {
        assert!(matches!(kind("orders/paid.v1.schema.json"), Kind::Event(_)));
        for definition in
            ["money.schema.json", "money.v1.schema.json", "orders/money.schema.json", "a/b/money.v1.schema.json"]
        {
            assert_eq!(kind(definition), Kind::Definition, "{definition}");
        }
        assert_eq!(
            kind("orders/OrderPaid.v01.schema.json"),
            Kind::Misnamed(Some("orders/order_paid.v1.schema.json".into()))
        );
        assert_eq!(kind("orders/paid.v0.schema.json"), Kind::Misnamed(None));
    }

    #[test]
    fn a_definition_has_one_place_and_one_uri() {
        for (uri, path) in [
            ("sea-mq:/schemas/events/common/money.schema.json", "common/money.schema.json"),
            ("sea-mq:/schemas/events/common/m%C3%B6ney.schema.json", "common/möney.schema.json"),
            ("https://example.com/a/b.json?c=d", "external/https%3A%2F%2Fexample.com%2Fa%2Fb.json%3Fc%3Dd.schema.json"),
            ("urn:x", "external/urn%3Ax.schema.json"),
        ] {
            assert_eq!(definition_path(uri), path);
            assert_eq!(uri_of(path), uri);
            assert_eq!(kind(path), Kind::Definition);
        }
        for uri in [
            "common/money",
            "../../etc/x.schema.json",
            "orders/paid.v1.schema.json",
            "a//b.schema.json",
            "%2E%2E/x.schema.json",
        ] {
            let uri = format!("{BASE_URI}{uri}");
            let path = definition_path(&uri);
            assert!(path.starts_with(FOREIGN) && path.matches('/').count() == 1, "{path}");
            assert_eq!(uri_of(&path), uri);
        }
    }

    #[test]
    fn what_is_referred_to_comes_first() {
        let mut set = ContractSet::default();
        for (path, schema) in [
            ("a/x.v1.schema.json", json!({"$ref": "../z/money.schema.json#/$defs/a"})),
            ("z/money.schema.json", json!({"items": [{"$ref": "urn:unit"}]})),
            ("z/unit.schema.json", json!({"$id": "urn:unit"})),
            ("a/circle.v1.schema.json", json!({"$ref": "circle.v2.schema.json"})),
            ("a/circle.v2.schema.json", json!({"$ref": "circle.v1.schema.json"})),
        ] {
            set.schemas.insert(path.into(), schema);
        }
        let order = set.in_order();
        let at = |path: &str| order.iter().position(|one| *one == path).unwrap();
        assert_eq!(order.len(), 5);
        assert!(at("z/unit.schema.json") < at("z/money.schema.json"));
        assert!(at("z/money.schema.json") < at("a/x.v1.schema.json"));
    }
}
