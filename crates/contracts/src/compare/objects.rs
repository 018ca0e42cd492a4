//! Keywords about the properties of objects.

use std::collections::{BTreeSet, HashSet};

use serde_json::Value;

use super::document::{Conjunction, Document, Target};
use super::types::Types;
use super::{Comparison, Difference, Pair};
use crate::walk::Place;

impl<'a> Comparison<'a> {
    pub(super) fn objects(&mut self, pair: &Pair<'a>) -> Vec<Difference> {
        if !pair.types.meets(Types::OBJECT) {
            return Vec::new();
        }
        let described = Described::apart(&self.new, &pair.new);
        let mut found = required(pair);
        found.extend(dependent_required(pair));
        for name in names(&pair.old).into_iter().chain(names(&pair.new)).collect::<BTreeSet<_>>() {
            found.extend(self.property(pair, name, &described));
        }
        found.extend(self.patterns(pair));
        found.extend(self.others(pair));
        found.extend(self.property_names(pair));
        found
    }

    fn property(&mut self, pair: &Pair<'a>, name: &str, described: &Described) -> Vec<Difference> {
        let (olds, news) = (named(&pair.old, name), named(&pair.new, name));
        // Patterns are no obstacle to what the old schema asks of other names: that is only stricter.
        let before = [olds.clone(), additional(&pair.old, name, true)].concat();
        let now = [news.clone(), additional(&pair.new, name, false)].concat();
        let strict = pair.strict || described.may_have(name) || !pair.new.values("patternProperties").is_empty();
        let is_required = pair.new.strings("required").contains(&name);
        let cannot_be = news.is_empty() && now.iter().any(|place| place.schema == false);
        if let (Some(old), true) = (olds.first(), cannot_be || now.is_empty()) {
            return vec![removed(old, name, is_required && !cannot_be, strict && !cannot_be)];
        }
        let mut found = Vec::new();
        if let (true, Some(new)) = (olds.is_empty(), news.first()) {
            if let Some(forbidden) = before.iter().find(|place| place.schema == false) {
                let change = format!("property {name} added, which {} forbade", forbidden.pointer);
                return vec![Difference::breaking(&new.pointer, change)];
            }
            let what = if is_required { "required" } else { "optional" };
            found.push(Difference::compatible(&new.pointer, format!("{what} property {name} added")));
            if before.is_empty() {
                return found;
            }
        }
        found.extend(self.implied(&before, &now, strict));
        found
    }

    /// Patterns are told apart by their text alone.
    fn patterns(&mut self, pair: &Pair<'a>) -> Vec<Difference> {
        let (olds, news) = (pair.old.inside("patternProperties"), pair.new.inside("patternProperties"));
        let mut found = Vec::new();
        for (pattern, old) in &olds {
            let same: Vec<Place> =
                news.iter().filter(|(new, _)| new == pattern).map(|(_, place)| place.clone()).collect();
            if same.is_empty() {
                let change = "nothing is said any more about properties of this pattern: not analysed";
                found.push(Difference::breaking(&old.pointer, change));
            } else {
                found.extend(self.implied(std::slice::from_ref(old), &same, true));
            }
        }
        let restricted = others_allowed(&pair.old).is_some();
        for (pattern, new) in news.iter().filter(|(new, _)| !olds.iter().any(|(old, _)| old == new)) {
            found.push(if restricted {
                let change = format!("properties of the pattern {pattern} may be others than the old schema allows");
                Difference::breaking(&new.pointer, change)
            } else {
                Difference::compatible(&new.pointer, format!("properties of the pattern {pattern} are described"))
            });
        }
        found
    }

    /// Properties that are not named by either side.
    fn others(&mut self, pair: &Pair<'a>) -> Vec<Difference> {
        let restricting = |schema: &Conjunction<'a>| -> Vec<Place<'a>> {
            let places = schema.inside("additionalProperties").into_iter().map(|(_, place)| place);
            places.filter(|place| !says_nothing(place.schema)).collect()
        };
        let mut found = Vec::new();
        let (old, new) = (restricting(&pair.old), restricting(&pair.new));
        match (old.first(), new.first()) {
            (None, None) => {}
            (None, Some(new)) => {
                found.push(Difference::compatible(&new.pointer, "properties that are not described are restricted"));
            }
            (Some(old), None) => {
                let change = "properties that are not described were restricted and are allowed now";
                found.push(Difference::breaking(&old.pointer, change));
            }
            (Some(place), Some(_)) if scattered_patterns(pair) && !self.same_parts(pair) => {
                let change =
                    "changed where patterns in several parts decide which properties are described: not analysed";
                found.push(Difference::breaking(&place.pointer, change));
            }
            (Some(_), Some(_)) => found.extend(self.implied(&old, &new, true)),
        }
        found
    }

    /// `unevaluatedProperties` and `unevaluatedItems` depend on all that stands beside them.
    pub(super) fn unevaluated(&self, pair: &Pair<'a>) -> Vec<Difference> {
        let mut found = Vec::new();
        for keyword in ["unevaluatedProperties", "unevaluatedItems"] {
            let says = |schema: &Conjunction<'a>| -> Option<String> {
                let place = schema.values(keyword).into_iter().find(|place| !says_nothing(place.schema))?;
                Some(place.pointer)
            };
            match (says(&pair.old), says(&pair.new)) {
                (Some(pointer), _) if !self.same_parts(pair) => {
                    let change = format!("changed where {keyword} depends on it: not analysed");
                    found.push(Difference::breaking(pointer, change));
                }
                (None, Some(pointer)) => found.push(Difference::compatible(pointer, format!("{keyword} added"))),
                _ => {}
            }
        }
        found
    }

    fn same_parts(&self, pair: &Pair<'a>) -> bool {
        pair.old.parts.len() == pair.new.parts.len()
            && pair.old.parts.iter().zip(&pair.new.parts).all(|(old, new)| self.same(old, new))
    }

    fn property_names(&mut self, pair: &Pair<'a>) -> Vec<Difference> {
        let places = |schema: &Conjunction<'a>| -> Vec<Place<'a>> {
            schema.inside("propertyNames").into_iter().map(|(_, place)| place).collect()
        };
        let (old, new) = (places(&pair.old), places(&pair.new));
        match (old.is_empty(), new.first()) {
            (true, None) => Vec::new(),
            (true, Some(new)) => vec![Difference::compatible(&new.pointer, "names of properties are restricted")],
            (false, _) => self.implied(&old, &new, true),
        }
    }
}

fn removed(old: &Place, name: &str, still_required: bool, strict: bool) -> Difference {
    if still_required {
        Difference::breaking(&old.pointer, format!("property {name} is required and no longer described"))
    } else if strict {
        let change = format!("property {name} removed here; whether it is described elsewhere was not analysed");
        Difference::breaking(&old.pointer, change)
    } else {
        Difference::compatible(&old.pointer, format!("property {name} removed"))
    }
}

fn required(pair: &Pair) -> Vec<Difference> {
    let unique = |schema: &Conjunction<'_>| -> Vec<String> {
        let mut seen = HashSet::new();
        let names = schema.strings("required").into_iter().map(str::to_owned);
        names.filter(|name| seen.insert(name.clone())).collect()
    };
    let place = |schema: &Conjunction| schema.values("required").first().map(|place| place.pointer.clone());
    let pointer = place(&pair.new).or_else(|| place(&pair.old)).unwrap_or_default();
    let (old, new) = (unique(&pair.old), unique(&pair.new));
    let mut found: Vec<Difference> = Vec::new();
    for name in old.iter().filter(|name| !new.contains(name)) {
        let change = format!("property {name} was required and may be missing now");
        found.push(Difference::breaking(&pointer, change));
    }
    // Of a property that is added it is said there.
    let added = |name: &str| names(&pair.new).contains(&name) && !names(&pair.old).contains(&name);
    for name in new.iter().filter(|name| !old.contains(name) && !added(name)) {
        found.push(Difference::compatible(&pointer, format!("property {name} is required now")));
    }
    found
}

fn dependent_required(pair: &Pair) -> Vec<Difference> {
    let entries = |schema: &Conjunction<'_>| -> BTreeSet<(String, String)> {
        let values = schema.values("dependentRequired");
        let objects = values.iter().filter_map(|place| place.schema.as_object()).flatten();
        let pairs = objects.flat_map(|(name, needs)| {
            needs.as_array().into_iter().flatten().filter_map(|need| Some((name.clone(), need.as_str()?.to_owned())))
        });
        pairs.collect()
    };
    let (old, new) = (entries(&pair.old), entries(&pair.new));
    let required = pair.new.strings("required");
    let place = |schema: &Conjunction| schema.values("dependentRequired").first().map(|place| place.pointer.clone());
    let pointer = place(&pair.new).or_else(|| place(&pair.old)).unwrap_or_default();
    let lost = old.difference(&new).filter(|(_, need)| !required.contains(&need.as_str()));
    let lost = lost.map(|(name, need)| {
        Difference::breaking(&pointer, format!("property {need} may be missing now where {name} is there"))
    });
    let gained = new.difference(&old).map(|(name, need)| {
        Difference::compatible(&pointer, format!("property {need} is required now where {name} is there"))
    });
    lost.chain(gained).collect()
}

/// A pattern exempts properties from the `additionalProperties` of its own part only.
fn scattered_patterns(pair: &Pair) -> bool {
    let scattered = |schema: &Conjunction| schema.parts.len() > 1 && !schema.values("patternProperties").is_empty();
    scattered(&pair.old) || scattered(&pair.new)
}

fn says_nothing(schema: &Value) -> bool {
    schema == true || schema.as_object().is_some_and(serde_json::Map::is_empty)
}

fn others_allowed<'a>(schema: &Conjunction<'a>) -> Option<Place<'a>> {
    let mut places = schema.inside("additionalProperties").into_iter().map(|(_, place)| place);
    places.find(|place| !says_nothing(place.schema))
}

/// The properties that are described.
fn names<'a>(schema: &Conjunction<'a>) -> Vec<&'a str> {
    let objects = schema.values("properties").into_iter().filter_map(|place| place.schema.as_object());
    objects.flat_map(|object| object.keys()).map(String::as_str).collect()
}

fn named<'a>(schema: &Conjunction<'a>, name: &str) -> Vec<Place<'a>> {
    schema.inside("properties").into_iter().filter(|(one, _)| one == name).map(|(_, place)| place).collect()
}

/// What parts that do not name a property ask of it by `additionalProperties`; of parts with patterns, which may exempt
/// it, only if `whatever_patterns`.
fn additional<'a>(schema: &Conjunction<'a>, name: &str, whatever_patterns: bool) -> Vec<Place<'a>> {
    let concerned = schema.parts.iter().filter(|part| {
        let names_it = part.schema.get("properties").is_some_and(|properties| properties.get(name).is_some());
        !names_it && (whatever_patterns || part.schema.get("patternProperties").is_none())
    });
    let places = concerned.flat_map(|part| part.inside("additionalProperties")).map(|(_, place)| place);
    places.filter(|place| !says_nothing(place.schema)).collect()
}

/// What a schema describes apart from its own `properties`: in alternatives, conditions and other documents, which are
/// not taken into the conjunction.
pub(super) struct Described {
    names: HashSet<String>,
    /// It may be any name.
    unknown: bool,
}

impl Described {
    pub fn apart(document: &Document, schema: &Conjunction) -> Self {
        const APART: &[&str] = &[
            "anyOf",
            "contains",
            "dependentSchemas",
            "else",
            "if",
            "not",
            "oneOf",
            "then",
            "unevaluatedItems",
            "unevaluatedProperties",
        ];
        let any_name = schema.values("unevaluatedProperties").iter().any(|place| place.schema.is_object());
        let mut found = Self { names: HashSet::new(), unknown: any_name || !schema.elsewhere.is_empty() };
        let mut seen = HashSet::new();
        let mut open: Vec<Place> =
            APART.iter().flat_map(|keyword| schema.inside(keyword)).map(|(_, place)| place).collect();
        while let Some(place) = open.pop() {
            if !seen.insert(place.pointer.clone()) {
                continue;
            }
            if let Some(reference) = place.schema.get("$ref").and_then(Value::as_str) {
                match document.resolve(reference) {
                    Target::Here(target) => open.push(target),
                    Target::Elsewhere(_) => found.unknown = true,
                }
            }
            let others = ["additionalProperties", "unevaluatedProperties"];
            found.unknown |= others.iter().any(|keyword| place.schema.get(keyword).is_some_and(Value::is_object))
                || place.schema.get("patternProperties").is_some();
            found.names.extend(place.inside("properties").into_iter().map(|(name, _)| name));
            let required = place.schema.get("required").and_then(Value::as_array).into_iter().flatten();
            found.names.extend(required.filter_map(Value::as_str).map(str::to_owned));
            open.extend(place.children());
        }
        found
    }

    pub fn may_have(&self, name: &str) -> bool {
        self.unknown || self.names.contains(name)
    }

    pub fn is_nothing(&self) -> bool {
        !self.unknown && self.names.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_alternatives_describe_is_found_through_references() {
        let schema = json!({
            "properties": {"a": true},
            "oneOf": [{"$ref": "#/$defs/b"}, {"properties": {"c": {"properties": {"d": true}}}}],
            "$defs": {"b": {"properties": {"b/b": true}}, "e": {"properties": {"e": true}}},
        });
        let document = Document::new(&schema);
        let described = Described::apart(&document, &Conjunction::of(&document, &[document.root()]));
        for (name, expected) in [("a", false), ("b/b", true), ("c", true), ("d", true), ("e", false)] {
            assert_eq!(described.may_have(name), expected, "{name}");
        }
    }
}
