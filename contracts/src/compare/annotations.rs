//! Keywords that say nothing about which payloads are valid, and the one of them that matters.

use std::collections::BTreeSet;

use serde_json::Value;

use super::document::{Conjunction, SENSITIVE, is_annotation};
use super::{Difference, Pair};
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

fn sensitive(pair: &Pair) -> Option<Difference> {
    match (marked(&pair.old), marked(&pair.new)) {
        (Some(old), None) => Some(Difference::breaking(old, format!("{SENSITIVE} removed: it may leave the context now"))),
        (None, Some(new)) => Some(Difference::compatible(new, format!("{SENSITIVE} added"))),
        _ => None,
    }
}

fn marked(schema: &Conjunction) -> Option<String> {
    schema.values(SENSITIVE).into_iter().find(|place| place.schema == true).map(|place| place.pointer)
}
