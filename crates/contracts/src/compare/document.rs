//! A schema document, and where references in it lead.

use std::collections::HashSet;

use jsonschema::{Uri, json, uri};
use serde_json::{Map, Value};

use crate::event_key::BASE_URI;
use crate::sensitive;
use crate::walk::{self, Carries, Place, carries};

/// Keywords that say nothing about which payloads are valid. `x-…` are such as well, but for `x-sea-sensitive`.
pub const ANNOTATIONS: &[&str] = &[
    "$comment",
    "$id",
    "$schema",
    "$vocabulary",
    "$anchor",
    "default",
    "deprecated",
    "description",
    "examples",
    "readOnly",
    "title",
    "writeOnly",
];

/// Keywords that are not analysed, and neither is what stands beside them.
const UNFOLLOWED: &[&str] = &["$dynamicRef", "$recursiveRef", "additionalItems", "dependencies"];

pub fn is_annotation(keyword: &str) -> bool {
    ANNOTATIONS.contains(&keyword) || keyword.starts_with("x-") && keyword != sensitive::KEYWORD
}

/// Where a reference leads.
pub enum Target<'a> {
    Here(Place<'a>),
    /// To another document, or to nothing.
    Elsewhere(String),
}

pub struct Document<'a> {
    root: &'a Value,
    base: Option<Uri<String>>,
}

impl<'a> Document<'a> {
    pub fn new(root: &'a Value) -> Self {
        // Two versions stand beside each other, so relative references mean the same in both unless an $id says otherwise.
        let neighbours = uri::from_str(BASE_URI).ok();
        let id = root.get("$id").and_then(Value::as_str);
        let own = id.zip(neighbours.as_ref()).and_then(|(id, base)| uri::resolve_against(&base.borrow(), id).ok());
        Self { root, base: own.or(neighbours) }
    }

    pub fn root(&self) -> Place<'a> {
        Place::root(self.root)
    }

    pub fn resolve(&self, reference: &str) -> Target<'a> {
        let elsewhere = || Target::Elsewhere(reference.to_owned());
        let Some(base) = &self.base else { return elsewhere() };
        let Ok(target) = uri::resolve_against(&base.borrow(), reference) else { return elsewhere() };
        let own = self.root.get("$id").is_some() || reference.starts_with('#');
        if !own || target.strip_fragment() != base.strip_fragment() {
            return Target::Elsewhere(target.as_str().to_owned());
        }
        let fragment = target.fragment().map(|fragment| fragment.decode().to_string_lossy().into_owned());
        self.local(fragment.as_deref().unwrap_or_default()).map_or_else(elsewhere, Target::Here)
    }

    fn local(&self, fragment: &str) -> Option<Place<'a>> {
        if fragment.is_empty() || fragment.starts_with('/') {
            return Some(Place { pointer: fragment.to_owned(), schema: self.root.pointer(fragment)? });
        }
        let anchor = |place: &Place| place.schema.get("$anchor").and_then(Value::as_str) == Some(fragment);
        walk::all(self.root()).into_iter().find(anchor)
    }

    /// The first place whose meaning depends on more than this module follows: references by dynamic scope, bases within
    /// a document, and what drafts before 2020-12 had.
    pub fn unfollowed(&self) -> Option<String> {
        let unfollowed = |place: &Place| {
            let has = |keyword: &str| place.schema.get(keyword).is_some();
            UNFOLLOWED.iter().any(|keyword| has(keyword)) || !place.pointer.is_empty() && has("$id")
        };
        walk::all(self.root()).into_iter().find(unfollowed).map(|place| place.pointer)
    }
}

/// All schemas that a payload must satisfy at one place: those given, and what their `allOf` and local `$ref` lead to.
pub struct Conjunction<'a> {
    pub parts: Vec<Place<'a>>,
    /// Where nothing at all is allowed.
    pub never: Option<String>,
    /// References to other documents: where they stand and what they refer to.
    pub elsewhere: Vec<(String, String)>,
}

impl<'a> Conjunction<'a> {
    pub fn of(document: &Document<'a>, places: &[Place<'a>]) -> Self {
        let mut found = Self { parts: Vec::new(), never: None, elsewhere: Vec::new() };
        let mut seen = HashSet::new();
        let mut open: Vec<Place<'a>> = places.iter().rev().cloned().collect();
        while let Some(place) = open.pop() {
            if !seen.insert(place.pointer.clone()) {
                continue;
            }
            open.extend(place.inside("allOf").into_iter().rev().map(|(_, place)| place));
            if let Some(reference) = place.schema.get("$ref").and_then(Value::as_str) {
                match document.resolve(reference) {
                    Target::Here(target) => open.push(target),
                    Target::Elsewhere(uri) => found.elsewhere.push((walk::join(&place.pointer, "$ref"), uri)),
                }
            }
            match place.schema {
                Value::Bool(false) => found.never = Some(place.pointer),
                Value::Object(_) => found.parts.push(place),
                _ => {}
            }
        }
        found
    }

    /// The values of a keyword in all parts, and where they stand.
    pub fn values(&self, keyword: &str) -> Vec<Place<'a>> {
        self.parts.iter().filter_map(|part| Some(part.below(keyword, part.schema.get(keyword)?))).collect()
    }

    /// The schemas in a keyword of all parts.
    pub fn inside(&self, keyword: &str) -> Vec<(String, Place<'a>)> {
        self.parts.iter().flat_map(|part| part.inside(keyword)).collect()
    }

    /// Members of a keyword that is an array of strings, in all parts.
    pub fn strings(&self, keyword: &str) -> Vec<&'a str> {
        let values = self.values(keyword);
        values.iter().filter_map(|place| place.schema.as_array()).flatten().filter_map(Value::as_str).collect()
    }

    /// Where it begins.
    pub fn pointer(&self) -> String {
        self.parts.first().map_or_else(String::new, |part| part.pointer.clone())
    }
}

/// Whether two values of a keyword mean the same, annotations aside, also where they refer to parts of their documents.
pub struct Sameness<'a, 'd> {
    old: &'d Document<'a>,
    new: &'d Document<'a>,
    /// Pairs of referred places that are being looked at, or were.
    seen: HashSet<(String, String)>,
}

impl<'a, 'd> Sameness<'a, 'd> {
    pub fn of(old: &'d Document<'a>, new: &'d Document<'a>) -> Self {
        Self { old, new, seen: HashSet::new() }
    }

    pub fn value(&mut self, keyword: &str, old: &Value, new: &Value) -> bool {
        match (carries(keyword), old, new) {
            (Carries::One, ..) => self.schema(old, new),
            (Carries::List, Value::Array(a), Value::Array(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| self.schema(a, b))
            }
            (Carries::Named, Value::Object(a), Value::Object(b)) => {
                a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| self.schema(a, b)))
            }
            _ if keyword == "$ref" => self.reference(old, new),
            _ => json::cmp::equal(old, new),
        }
    }

    pub fn schema(&mut self, old: &Value, new: &Value) -> bool {
        let (Value::Object(a), Value::Object(b)) = (old, new) else { return old == new };
        counting(a).count() == counting(b).count()
            && counting(a).all(|(keyword, a)| b.get(keyword).is_some_and(|b| self.value(keyword, a, b)))
    }

    fn reference(&mut self, old: &Value, new: &Value) -> bool {
        let (Some(a), Some(b)) = (old.as_str(), new.as_str()) else { return false };
        match (self.old.resolve(a), self.new.resolve(b)) {
            (Target::Here(a), Target::Here(b)) => {
                !self.seen.insert((a.pointer.clone(), b.pointer.clone())) || self.schema(a.schema, b.schema)
            }
            (Target::Elsewhere(a), Target::Elsewhere(b)) => a == b,
            _ => false,
        }
    }
}

/// The keywords that say something about payloads. Definitions say it where they are referred to.
fn counting(schema: &Map<String, Value>) -> impl Iterator<Item = (&String, &Value)> {
    schema.iter().filter(|(keyword, _)| !is_annotation(keyword) && !matches!(keyword.as_str(), "$defs" | "definitions"))
}
