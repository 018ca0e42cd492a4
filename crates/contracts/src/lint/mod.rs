//! What is wrong with a set of contracts.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Value, json};

use crate::compare::{Difference, compare};
use crate::event_key::{EventKey, percent_encode};
use crate::invalid::InvalidKind;
use crate::schema::Schema;
use crate::sensitive;
use crate::set::{ContractSet, Kind, kind, own_id, uri_of};
use crate::walk::{self, Place};

const VISIBILITIES: [&str; 4] = ["public", "partner", "internal", "sensitive"];

/// The URI of a schema that only refers to a part of another.
const WITHIN: &str = "sea-mq:/within";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Error,
    Warning,
}

impl Severity {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    pub path: String,
    pub severity: Severity,
    pub rule: &'static str,
    pub message: String,
    pub hint: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}[{}]: {}", self.path, self.severity.as_str(), self.rule, self.message)
    }
}

/// The findings, by path. `released` is what consumers have already: it must be there unchanged.
pub fn lint(set: &ContractSet, released: Option<&ContractSet>) -> Vec<Finding> {
    let mut lint = Lint { set, by_uri: set.by_uri(), found: Vec::new() };
    lint.files();
    lint.versions();
    lint.ids();
    for (path, schema) in &set.schemas {
        lint.schema(path, schema);
    }
    lint.example_files();
    lint.orphans();
    if let Some(released) = released {
        lint.immutable(released);
    }
    lint.found.sort();
    lint.found
}

struct Lint<'a> {
    set: &'a ContractSet,
    by_uri: BTreeMap<String, &'a str>,
    found: Vec<Finding>,
}

impl<'a> Lint<'a> {
    fn report(&mut self, rule: &'static str, path: &str, message: impl Into<String>, hint: impl Into<String>) {
        let (message, hint) = (message.into(), hint.into());
        self.found.push(Finding { path: path.to_owned(), severity: Severity::Error, rule, message, hint });
    }

    fn files(&mut self) {
        for (path, why) in &self.set.unusable {
            self.report("file", path, why, "Schemas are in *.schema.json, examples in *.example.json.");
        }
        for path in self.set.schemas.keys() {
            let Kind::Misnamed(better) = kind(path) else { continue };
            let hint = better.map_or_else(
                || "An event's schema is in {context}/{name}.v{version}.schema.json, versions count from 1.".to_owned(),
                |better| format!("Name it {better}: names are in snake case, as in the subject."),
            );
            self.report("file-name", path, "no event has a schema of this name", hint);
        }
    }

    fn versions(&mut self) {
        let mut versions: BTreeMap<(String, String), BTreeSet<i32>> = BTreeMap::new();
        for key in self.set.schemas.keys().filter_map(|path| EventKey::from_path(path)) {
            versions.entry((key.context, key.event_type)).or_default().insert(key.version);
        }
        for ((context, event_type), versions) in versions {
            for (expected, version) in (1..).zip(&versions) {
                if *version == expected {
                    continue;
                }
                let key = EventKey { context, event_type, version: *version };
                let message = format!("version {version} is there and version {expected} is not");
                self.report("version-gap", &key.path(), message, "Versions count from 1 and leave none out.");
                break;
            }
        }
    }

    /// Who refers to an $id must find one schema.
    fn ids(&mut self) {
        let mut first: BTreeMap<&str, &str> = BTreeMap::new();
        for (path, schema) in &self.set.schemas {
            let Some(id) = own_id(schema) else { continue };
            if let Some(other) = first.insert(id, path) {
                let message = format!("{other} has the same $id, {id}");
                self.report("id", path, message, "Leave $id out, or give each schema its own.");
            }
        }
    }

    fn schema(&mut self, path: &str, schema: &Value) {
        match self.compile(&uri_of(path), schema) {
            Ok(compiled) => self.own_examples(path, schema, &compiled),
            Err(invalid) => {
                let unresolved = invalid.kind == InvalidKind::Unknown;
                let rule = if unresolved { "reference" } else { "schema" };
                self.report(rule, path, invalid.message.replace("registered", "there"), invalid.hint);
            }
        }
        for place in walk::all(Place::root(schema)) {
            self.marks(path, &place);
        }
    }

    fn compile(&self, uri: &str, schema: &Value) -> Result<Schema, crate::invalid::Invalid> {
        Schema::compile(schema, uri, |uri| self.by_uri.get(uri).and_then(|path| self.set.schemas.get(*path)).cloned())
    }

    fn marks(&mut self, path: &str, place: &Place) {
        let visibility = place.schema.get("x-sea-visibility");
        if let Some(value) =
            visibility.filter(|value| value.as_str().is_none_or(|value| !VISIBILITIES.contains(&value)))
        {
            let hint = format!("Use one of {}.", VISIBILITIES.join(", "));
            self.report("visibility", path, format!("x-sea-visibility is {value}"), hint);
        }
        if visibility.is_some() && !place.pointer.is_empty() {
            let message = format!("x-sea-visibility at {} has no effect", place.pointer);
            self.report("visibility", path, message, "It is the event's: put it at the root of the schema.");
        }
        let mark = place.schema.get(sensitive::KEYWORD);
        let known =
            |mark: &&Value| mark.is_boolean() || mark.as_str().is_some_and(|mark| matches!(mark, "strip" | "hash"));
        if let Some(mark) = mark.filter(|mark| !known(mark)) {
            let message = format!("{} at {} is {mark}", sensitive::KEYWORD, place.pointer);
            self.report("sensitive", path, message, "Use true, false, \"strip\" or \"hash\".");
        }
    }

    /// The `examples` of a schema and of the schemas in it.
    fn own_examples(&mut self, path: &str, schema: &Value, compiled: &Schema) {
        let own = own_id(schema).map_or_else(|| uri_of(path), str::to_owned);
        for place in walk::all(Place::root(schema)) {
            let Some(examples) = place.schema.get("examples").and_then(Value::as_array) else { continue };
            let inner = json!({"$ref": format!("{own}#{}", fragment(&place.pointer))});
            let part = if place.pointer.is_empty() { None } else { self.compile(WITHIN, &inner).ok() };
            for (i, example) in examples.iter().enumerate() {
                let at = format!("{}/examples/{i}", place.pointer);
                self.example(path, &at, example, part.as_ref().unwrap_or(compiled));
            }
        }
    }

    fn example(&mut self, path: &str, at: &str, example: &Value, schema: &Schema) {
        for violation in schema.violations(example) {
            let message = format!("at {at}{}: {}", violation.pointer, violation.message);
            self.report("example", path, message, "Fix the example, or the schema while it is not released.");
        }
    }

    fn example_files(&mut self) {
        for (path, example) in &self.set.examples {
            let Some((schema_path, schema)) = self.set.schema_of(path) else {
                let hint =
                    "Name it {schema}.example.json or {schema}.{what}.example.json, beside its schema or in examples/.";
                self.report("orphan", path, "no schema has an example of this name", hint);
                continue;
            };
            // What is wrong with the schema itself is said of the schema.
            if let Ok(compiled) = self.compile(&uri_of(schema_path), schema) {
                self.example(path, "", example, &compiled);
            }
        }
    }

    /// Definitions that no event refers to, directly or through others.
    fn orphans(&mut self) {
        let standalone = self.set.standalone();
        let stands = |path: &&str| kind(path) != Kind::Definition || standalone.contains(path);
        let mut open: Vec<&str> = self.set.schemas.keys().map(String::as_str).filter(stands).collect();
        let mut reached: BTreeSet<&str> = BTreeSet::new();
        while let Some(path) = open.pop() {
            if reached.insert(path) {
                open.extend(self.set.referred(path, &self.by_uri));
            }
        }
        for path in self.set.schemas.keys().filter(|path| !reached.contains(path.as_str())) {
            let hint = "An event's schema is in {context}/{name}.v{version}.schema.json; a schema that stands for itself has an example or says \"x-sea-definition\": \"standalone\".";
            self.report("orphan", path, "no event refers to this definition", hint);
        }
    }

    /// What was released is what consumers rely on.
    fn immutable(&mut self, released: &ContractSet) {
        let (was_standalone, is_standalone) = (released.standalone(), self.set.standalone());
        for (path, old) in &released.schemas {
            let Some(new) = self.set.schemas.get(path) else {
                if !self.set.unusable.contains_key(path) {
                    let hint = "Put it back: consumers have it. What should not be used any more is deprecated (sea_mq.deprecate_event).";
                    self.report("immutable", path, "it was released and is gone", hint);
                }
                continue;
            };
            if contract_of(old) == contract_of(new) {
                continue;
            }
            let differences = compare(old, new);
            let breaking = differences.iter().filter(|difference| difference.is_breaking()).count();
            let standalone = kind(path) == Kind::Definition
                && was_standalone.contains(path.as_str())
                && is_standalone.contains(path.as_str());
            if standalone && breaking == 0 {
                continue;
            }
            let message = format!("it was released and has changed ({}): {}", number(breaking), list(&differences));
            self.report("immutable", path, message, self.next_version(path));
        }
    }

    fn next_version(&self, path: &str) -> String {
        let Kind::Event(mut key) = kind(path) else {
            return "Put it back, and write what changed into a definition of another name.".into();
        };
        while self.set.schemas.contains_key(&key.path()) {
            key.version += 1;
        }
        format!("Put it back, and write what changed into {}.", key.path())
    }
}

fn number(breaking: usize) -> String {
    if breaking == 0 { "nothing breaks".into() } else { format!("{breaking} breaking") }
}

fn list(differences: &[Difference]) -> String {
    let lines: Vec<String> = differences.iter().take(5).map(|one| format!("{} {}", one.pointer, one.change)).collect();
    let more = differences.len().saturating_sub(lines.len());
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    if lines.is_empty() { "in what it is written with".into() } else { format!("{}{more}", lines.join("; ")) }
}

/// What of a schema may not change: all but the description at its root, as in the registry.
fn contract_of(schema: &Value) -> Value {
    let mut contract = schema.clone();
    if let Some(root) = contract.as_object_mut() {
        root.remove("description");
        if root.get("x-sea-visibility").is_some_and(|visibility| visibility == "internal") {
            root.remove("x-sea-visibility");
        }
    }
    contract
}

/// A JSON Pointer as a URI fragment.
fn fragment(pointer: &str) -> Cow<'_, str> {
    percent_encode(pointer, b"-._~!$&'()*+,;=:@/?")
}

#[cfg(test)]
mod tests;
