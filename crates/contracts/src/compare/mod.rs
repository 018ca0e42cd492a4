//! What a version of a schema changes for those who were written for the version before.
//!
//! A change is *breaking* if a payload of the new version may be one that they cannot take: it is not valid under the old
//! schema, or lacks what they count on. A payload of the new version is one that is valid under it and has no properties
//! but those that it describes; properties that the old schema does not know are no harm, unless it forbids them.
//!
//! So each constraint of the old schema must follow from the new one. Both are taken as conjunctions, with `allOf` and
//! local `$ref` resolved, so that it does not matter how a schema is cut into parts. What cannot be decided is breaking.

mod annotations;
mod branches;
mod document;
mod items;
mod objects;
mod types;
mod values;

use std::fmt;

use serde_json::Value;

use crate::walk::Place;
use document::{Conjunction, Document, Sameness};
use types::Types;

/// Stack for schemas that are nested deeply; used only as far as they are.
const STACK: usize = 32 << 20;

/// Pairs of places that are compared at most. Definitions that refer to each other can make the number explode.
const MAX_STEPS: usize = 20_000;

/// Levels of references and nesting that are followed.
const MAX_DEPTH: usize = 300;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Compatibility {
    Compatible,
    Breaking,
}

impl Compatibility {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Compatible => "compatible",
            Self::Breaking => "breaking",
        }
    }
}

/// One difference between two versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// JSON Pointer (RFC 6901) into the new schema, or into the old one for what the new one no longer has.
    pub pointer: String,
    /// In plain words.
    pub change: String,
    pub compatibility: Compatibility,
}

impl Difference {
    fn breaking(pointer: impl Into<String>, change: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), change: change.into(), compatibility: Compatibility::Breaking }
    }

    fn compatible(pointer: impl Into<String>, change: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), change: change.into(), compatibility: Compatibility::Compatible }
    }

    pub fn is_breaking(&self) -> bool {
        self.compatibility == Compatibility::Breaking
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.pointer.is_empty() { "(root)" } else { &self.pointer };
        write!(f, "{:<10} {place}: {}", self.compatibility.as_str(), self.change)
    }
}

/// The differences between two valid schemas of draft 2020-12; breaking ones first, otherwise in the order of the schema.
pub fn compare(old: &Value, new: &Value) -> Vec<Difference> {
    stacker::grow(STACK, || {
        let mut comparison =
            Comparison { old: Document::new(old), new: Document::new(new), under_way: Vec::new(), steps: 0 };
        let mut differences = comparison.documents();
        let mut known = std::collections::HashSet::new();
        differences.retain(|difference| known.insert((difference.pointer.clone(), difference.change.clone())));
        differences.sort_by_key(|difference| !difference.is_breaking());
        differences
    })
}

struct Comparison<'a> {
    old: Document<'a>,
    new: Document<'a>,
    /// Pairs of places between which the comparison is just now. Meeting one again, it may be taken for done: what is
    /// wrong with it is found where it was met first.
    under_way: Vec<(Vec<String>, Vec<String>, bool)>,
    steps: usize,
}

/// Two conjunctions of which the old one should follow from the new one.
struct Pair<'a> {
    old: Conjunction<'a>,
    new: Conjunction<'a>,
    /// The types that the new one allows: constraints on others are void.
    types: Types,
    /// The values that the new one allows, if it lists them.
    listed: Option<Vec<&'a Value>>,
    /// The new schema may say more about the same payload elsewhere, so that a property that is not described here may be
    /// described there.
    strict: bool,
}

impl<'a> Comparison<'a> {
    fn documents(&mut self) -> Vec<Difference> {
        let unfollowed = self.new.unfollowed().or_else(|| self.old.unfollowed());
        let (old, new) = (self.old.root(), self.new.root());
        if let Some(pointer) = unfollowed
            && !self.same(&old, &new)
        {
            let why =
                "the schema changed and uses keywords that are not analysed ($dynamicRef, an inner $id, dependencies)";
            return vec![Difference::breaking(pointer, why)];
        }
        self.implied(&[old], &[new], false)
    }

    fn same(&self, old: &Place, new: &Place) -> bool {
        Sameness::of(&self.old, &self.new).schema(old.schema, new.schema)
    }

    fn same_value(&self, keyword: &str, old: &Value, new: &Value) -> bool {
        Sameness::of(&self.old, &self.new).value(keyword, old, new)
    }

    /// What keeps a payload that satisfies all of `new` from satisfying all of `old`, and what else differs.
    fn implied(&mut self, old: &[Place<'a>], new: &[Place<'a>], strict: bool) -> Vec<Difference> {
        let pointers = |places: &[Place]| places.iter().map(|place| place.pointer.clone()).collect::<Vec<_>>();
        let key = (pointers(old), pointers(new), strict);
        if self.under_way.contains(&key) {
            return Vec::new();
        }
        self.steps += 1;
        if self.steps > MAX_STEPS || self.under_way.len() >= MAX_DEPTH {
            let pointer = new.first().or(old.first()).map_or_else(String::new, |place| place.pointer.clone());
            return vec![Difference::breaking(pointer, "too much to compare: not analysed")];
        }
        let (old, new) = (Conjunction::of(&self.old, old), Conjunction::of(&self.new, new));
        let listed = values::listed(&new);
        let types = Types::of_schema(&new).and(listed.as_deref().map_or(Types::ALL, Types::of_values));
        let pair = Pair { old, new, types, listed, strict };
        self.under_way.push(key);
        let differences = self.pair(&pair);
        self.under_way.pop();
        differences
    }

    fn pair(&mut self, pair: &Pair<'a>) -> Vec<Difference> {
        match (&pair.old.never, &pair.new.never) {
            (Some(_), Some(_)) => return Vec::new(),
            (None, Some(pointer)) => return vec![Difference::compatible(pointer, "nothing is allowed here any more")],
            (Some(pointer), None) => {
                return vec![Difference::breaking(pointer, "nothing was allowed here; now something is")];
            }
            (None, None) => {}
        }
        let mut found = annotations::differences(pair);
        found.extend(self.elsewhere(pair));
        found.extend(values::differences(pair));
        found.extend(self.objects(pair));
        found.extend(self.arrays(pair));
        found.extend(self.unevaluated(pair));
        found.extend(self.branches(pair));
        found
    }

    /// References to other documents are not followed: only the same one is known to say the same.
    fn elsewhere(&self, pair: &Pair<'a>) -> Vec<Difference> {
        let gone = |(_, uri): &&(String, String)| !pair.new.elsewhere.iter().any(|(_, new)| new == uri);
        let added = |(_, uri): &&(String, String)| !pair.old.elsewhere.iter().any(|(_, old)| old == uri);
        let mut found: Vec<Difference> = pair
            .old
            .elsewhere
            .iter()
            .filter(gone)
            .map(|(pointer, uri)| {
                Difference::breaking(pointer, format!("no longer refers to {uri}, which was not analysed"))
            })
            .collect();
        found.extend(pair.new.elsewhere.iter().filter(added).map(|(pointer, uri)| {
            Difference::compatible(pointer, format!("refers to {uri} as well, which can only narrow it"))
        }));
        found
    }
}

#[cfg(test)]
mod tests;
