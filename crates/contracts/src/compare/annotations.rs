//! Keywords that say nothing about which payloads are valid, and the one of them that matters.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use serde_json::Value;

use super::document::{Conjunction, is_annotation};
use super::{Difference, Pair};
use crate::sensitive::{KEYWORD, Treatment, treatment};
use crate::walk::join;

pub fn differences(pair: &Pair) -> Vec<Difference> {
    let mut found: Vec<Difference> = sensitive(pair).into_iter().collect();
    let keywords: BTreeSet<&str> = names(&pair.old).chain(names(&pair.new)).collect();
    for keyword in keywords {
        let values = |schema: &Conjunction| -> Vec<Value> {
            schema.values(keyword).into_iter().map(|place| place.schema.clone()).collect()
        };
        let (old, new) = (values(&pair.old), values(&pair.new));
        let what = match (old.is_empty(), new.is_empty()) {
            _ if old == new => continue,
            (true, _) => "added",
            (_, true) => "removed",
            _ => "changed",
        };
        let places = [pair.new.values(keyword), pair.old.values(keyword)].concat();
        let pointer = places.first().map_or_else(|| join(&pair.new.pointer(), keyword), |place| place.pointer.clone());
        found.push(Difference::compatible(pointer, format!("annotation {keyword} {what}")));
    }
    found
}

fn names<'a>(schema: &'a Conjunction) -> impl Iterator<Item = &'a str> {
    let objects = schema.parts.iter().filter_map(|part| part.schema.as_object());
    objects.flat_map(|object| object.keys()).map(String::as_str).filter(|keyword| is_annotation(keyword))
}

/// What left the context in no form, or hashed, may not leave it in a plainer one.
fn sensitive(pair: &Pair) -> Option<Difference> {
    let (old, new) = (marked(&pair.old), marked(&pair.new));
    let treatment = |marked: &Option<(Treatment, String)>| marked.as_ref().map(|(treatment, _)| *treatment);
    let pointer = || new.as_ref().or(old.as_ref()).map_or_else(String::new, |(_, pointer)| pointer.clone());
    match treatment(&new).cmp(&treatment(&old)) {
        Ordering::Equal => None,
        Ordering::Less if new.is_none() => {
            Some(Difference::breaking(pointer(), format!("{KEYWORD} removed: it may leave the context now")))
        }
        Ordering::Less => Some(Difference::breaking(pointer(), format!("{KEYWORD} weakened: it leaves as a hash now"))),
        Ordering::Greater if old.is_none() => Some(Difference::compatible(pointer(), format!("{KEYWORD} added"))),
        Ordering::Greater => Some(Difference::compatible(pointer(), format!("{KEYWORD} is stricter"))),
    }
}

fn marked(schema: &Conjunction) -> Option<(Treatment, String)> {
    let marks = schema.values(KEYWORD).into_iter().filter_map(|place| Some((treatment(place.schema)?, place.pointer)));
    marks.max_by_key(|(treatment, _)| *treatment)
}
