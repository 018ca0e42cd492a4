//! Keywords about the items of arrays.

use serde_json::Value;

use super::document::Conjunction;
use super::objects::Described;
use super::types::Types;
use super::{Comparison, Difference, Pair};
use crate::walk::Place;

impl<'a> Comparison<'a> {
    pub(super) fn arrays(&mut self, pair: &Pair<'a>) -> Vec<Difference> {
        if !pair.types.meets(Types::ARRAY) {
            return Vec::new();
        }
        let strict = pair.strict || !Described::apart(&self.new, &pair.new).is_nothing();
        let prefix = prefix_length(&pair.old).max(prefix_length(&pair.new));
        let mut found = Vec::new();
        for i in 0..=prefix {
            found.extend(self.implied(&at(&pair.old, i), &at(&pair.new, i), strict));
        }
        found.extend(self.contains(pair));
        found
    }

    /// `contains` with its numbers: only the same schema is known to find the same items.
    fn contains(&self, pair: &Pair<'a>) -> Vec<Difference> {
        let count = |place: &Place, keyword: &str, default: u64| -> u64 {
            place.schema.get(keyword).and_then(Value::as_u64).unwrap_or(default)
        };
        let counts = |place: &Place| (count(place, "minContains", 1), count(place, "maxContains", u64::MAX));
        let having = |schema: &Conjunction<'a>| -> Vec<Place<'a>> {
            schema.parts.iter().filter(|part| part.schema.get("contains").is_some()).cloned().collect()
        };
        let (olds, news) = (having(&pair.old), having(&pair.new));
        let schema = |place: &Place<'a>| place.schema.get("contains").unwrap_or(&Value::Null);
        let implies = |new: &Place<'a>, old: &Place<'a>| {
            let ((old_min, old_max), (new_min, new_max)) = (counts(old), counts(new));
            old_min <= new_min && old_max >= new_max && self.same_value("contains", schema(old), schema(new))
        };
        let lost = olds.iter().filter(|old| !news.iter().any(|new| implies(new, old)));
        let mut found: Vec<Difference> = lost
            .map(|old| {
                let change = "contains, minContains or maxContains no longer holds as it was: not analysed";
                Difference::breaking(format!("{}/contains", old.pointer), change)
            })
            .collect();
        if found.is_empty() && news.len() > olds.len() {
            found.push(Difference::compatible(format!("{}/contains", news[0].pointer), "contains added"));
        }
        found
    }
}

fn prefix_length(schema: &Conjunction) -> usize {
    let lengths = schema.values("prefixItems").into_iter().filter_map(|place| place.schema.as_array().map(Vec::len));
    lengths.max().unwrap_or(0)
}

/// What holds for the item at an index.
fn at<'a>(schema: &Conjunction<'a>, index: usize) -> Vec<Place<'a>> {
    let item = |part: &Place<'a>| {
        let prefix = part.inside("prefixItems").into_iter().nth(index);
        prefix.or_else(|| part.inside("items").into_iter().next()).map(|(_, place)| place)
    };
    schema.parts.iter().filter_map(item).collect()
}
