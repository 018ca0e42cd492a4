//! Alternatives and conditions.

use serde_json::Value;

use super::document::Conjunction;
use super::types::Types;
use super::values::listed;
use super::{Comparison, Difference, Pair};
use crate::walk::Place;

/// Conditions are not analysed: only the same one is known to say the same. The keywords of one condition belong together.
const CONDITIONS: &[&[&str]] = &[&["not"], &["if", "then", "else"], &["contentSchema"]];

impl<'a> Comparison<'a> {
    pub(super) fn branches(&mut self, pair: &Pair<'a>) -> Vec<Difference> {
        let mut found = Vec::new();
        for keywords in CONDITIONS {
            found.extend(self.conditions(pair, keywords));
        }
        found.extend(self.dependent_schemas(pair));
        for keyword in ["anyOf", "oneOf"] {
            for old in holders(&pair.old, keyword) {
                found.extend(self.alternatives(pair, keyword, &old));
            }
            if holders(&pair.old, keyword).is_empty()
                && let Some(new) = holders(&pair.new, keyword).first()
            {
                found.push(Difference::compatible(format!("{}/{keyword}", new.pointer), format!("{keyword} added")));
            }
        }
        found
    }

    fn conditions(&self, pair: &Pair<'a>, keywords: &[&str]) -> Vec<Difference> {
        let (olds, news) = (holders(&pair.old, keywords[0]), holders(&pair.new, keywords[0]));
        let same = |old: &Place, new: &Place| {
            keywords.iter().all(|keyword| match (old.schema.get(keyword), new.schema.get(keyword)) {
                (None, None) => true,
                (Some(old), Some(new)) => self.same_value(keyword, old, new),
                _ => false,
            })
        };
        let pointer = |place: &Place| format!("{}/{}", place.pointer, keywords[0]);
        let lost = olds.iter().filter(|old| !news.iter().any(|new| same(old, new)));
        let mut found: Vec<Difference> = lost
            .map(|old| Difference::breaking(pointer(old), format!("{} changed: not analysed", keywords.join("/"))))
            .collect();
        if let (true, Some(new)) = (found.is_empty() && news.len() > olds.len(), news.first()) {
            found.push(Difference::compatible(pointer(new), format!("{} added", keywords[0])));
        }
        found
    }

    fn dependent_schemas(&mut self, pair: &Pair<'a>) -> Vec<Difference> {
        let (olds, news) = (pair.old.inside("dependentSchemas"), pair.new.inside("dependentSchemas"));
        let mut found = Vec::new();
        for (name, old) in &olds {
            let same: Vec<Place> = news.iter().filter(|(new, _)| new == name).map(|(_, place)| place.clone()).collect();
            if same.is_empty() {
                let change = format!("what held where property {name} is there no longer holds");
                found.push(Difference::breaking(&old.pointer, change));
            } else {
                found.extend(self.implied(std::slice::from_ref(old), &same, true));
            }
        }
        for (name, new) in news.iter().filter(|(new, _)| !olds.iter().any(|(old, _)| old == new)) {
            found.push(Difference::compatible(&new.pointer, format!("more holds where property {name} is there")));
        }
        found
    }

    /// Each alternative that is allowed now must be within one that was. What allows one of several things in the new
    /// schema is its own alternatives, or the whole of it where it has none.
    fn alternatives(&mut self, pair: &Pair<'a>, keyword: &str, old: &Place<'a>) -> Vec<Difference> {
        let olds = members(old, keyword);
        let own = format!("{}/{keyword}", old.pointer);
        let mut candidates: Vec<(String, Vec<Vec<Place<'a>>>)> = Vec::new();
        for keyword in ["anyOf", "oneOf"] {
            candidates.extend(holders(&pair.new, keyword).into_iter().map(|new| {
                let branches = members(&new, keyword).into_iter().map(|branch| vec![branch]).collect();
                (format!("{}/{keyword}", new.pointer), branches)
            }));
        }
        if keyword == "oneOf"
            && holders(&pair.new, "oneOf").iter().any(|new| self.same_members(&olds, &members(new, keyword)))
        {
            return Vec::new();
        }
        if keyword == "oneOf" && !self.exclusive(&olds) {
            let change = "oneOf changed, and more than one of its alternatives may apply: not analysed";
            return vec![Difference::breaking(own, change)];
        }
        candidates.push((own.clone(), vec![pair.new.parts.clone()]));
        let mut first = None;
        for (pointer, branches) in candidates {
            let differences = self.within(&pointer, &olds, &branches);
            if !differences.iter().any(Difference::is_breaking) {
                return differences;
            }
            first.get_or_insert(differences);
        }
        first.unwrap_or_default()
    }

    /// Whether the old alternatives are the new ones, annotations aside.
    fn same_members(&self, olds: &[Place<'a>], news: &[Place<'a>]) -> bool {
        let mut left: Vec<&Place> = news.iter().collect();
        olds.len() == news.len()
            && olds.iter().all(|old| {
                let found = left.iter().position(|new| self.same(old, new));
                found.map(|i| left.swap_remove(i)).is_some()
            })
    }

    fn within(&mut self, pointer: &str, olds: &[Place<'a>], news: &[Vec<Place<'a>>]) -> Vec<Difference> {
        let mut found = Vec::new();
        let mut met = vec![false; olds.len()];
        for (i, new) in news.iter().enumerate() {
            // The one in the same position first: it is the most likely, and its differences say the most.
            let mut order: Vec<usize> = (0..olds.len()).collect();
            order.sort_by_key(|&j| j != i);
            let mut at_same_place = None;
            let fits = order.into_iter().find_map(|j| {
                let differences = self.implied(std::slice::from_ref(&olds[j]), new, true);
                if !differences.iter().any(Difference::is_breaking) {
                    return Some((j, differences));
                }
                if i == j {
                    at_same_place = Some(differences);
                }
                None
            });
            match (fits, at_same_place) {
                (Some((j, differences)), _) => {
                    met[j] = true;
                    found.extend(differences);
                }
                (None, Some(differences)) if olds.len() == news.len() => {
                    met[i] = true;
                    found.extend(differences);
                }
                (None, _) => {
                    let place = new.first().map_or(pointer, |place| &place.pointer);
                    found.push(Difference::breaking(place, "this alternative is within none that was allowed"));
                }
            }
        }
        let unmet = olds.iter().zip(met).filter(|(_, met)| !met);
        found.extend(
            unmet.map(|(old, _)| Difference::compatible(&old.pointer, "this alternative is no longer allowed")),
        );
        found
    }

    /// Whether no value satisfies two of the alternatives: they differ in type, or in the listed values of a property that
    /// both require.
    fn exclusive(&self, branches: &[Place<'a>]) -> bool {
        let all: Vec<Conjunction> =
            branches.iter().map(|branch| Conjunction::of(&self.old, std::slice::from_ref(branch))).collect();
        let apart = |a: &Conjunction<'a>, b: &Conjunction<'a>| differ(a, b) || self.told_apart(a, b);
        all.iter().enumerate().all(|(i, a)| all[i + 1..].iter().all(|b| apart(a, b)))
    }

    fn told_apart(&self, a: &Conjunction<'a>, b: &Conjunction<'a>) -> bool {
        let only_objects = |schema: &Conjunction| Types::of_schema(schema).without(Types::OBJECT).is_empty();
        if !only_objects(a) || !only_objects(b) {
            return false;
        }
        let property = |schema: &Conjunction<'a>, name: &str| -> Vec<Place<'a>> {
            schema.inside("properties").into_iter().filter(|(one, _)| one == name).map(|(_, place)| place).collect()
        };
        let required = b.strings("required");
        a.strings("required").into_iter().filter(|name| required.contains(name)).any(|name| {
            let of = |schema: &Conjunction<'a>| Conjunction::of(&self.old, &property(schema, name));
            differ(&of(a), &of(b))
        })
    }
}

/// Whether types or listed values exclude each other.
fn differ(a: &Conjunction, b: &Conjunction) -> bool {
    let both = |a: &[&Value], b: &[&Value]| a.iter().any(|x| b.iter().any(|y| jsonschema::json::cmp::equal(x, y)));
    let listed_apart = listed(a).zip(listed(b)).is_some_and(|(a, b)| !both(&a, &b));
    listed_apart || !Types::of_schema(a).meets(Types::of_schema(b))
}

/// The parts that have a keyword.
fn holders<'a>(schema: &Conjunction<'a>, keyword: &str) -> Vec<Place<'a>> {
    schema.parts.iter().filter(|part| part.schema.get(keyword).is_some()).cloned().collect()
}

fn members<'a>(holder: &Place<'a>, keyword: &str) -> Vec<Place<'a>> {
    holder.inside(keyword).into_iter().map(|(_, place)| place).collect()
}
