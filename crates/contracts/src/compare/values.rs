//! Keywords about one value: types, listed values, bounds, patterns.

use std::cmp::Ordering;

use jsonschema::json;
use serde_json::{Number, Value, json};

use super::document::Conjunction;
use super::types::Types;
use super::{Difference, Pair};
use crate::walk::{Place, join};

pub fn differences(pair: &Pair) -> Vec<Difference> {
    let mut found = types(pair);
    found.extend(listing(pair));
    for bound in BOUNDS {
        found.extend(bound.differences(pair));
    }
    found.extend(multiples(pair));
    found.extend(unique(pair));
    for (keyword, applies_to) in TEXTS {
        found.extend(texts(pair, keyword, *applies_to));
    }
    found
}

/// The values that `enum` and `const` allow; `None`: any.
pub fn listed<'a>(schema: &Conjunction<'a>) -> Option<Vec<&'a Value>> {
    let constants = schema.values("const").into_iter().map(|place| vec![place.schema]);
    let enums = schema.values("enum").into_iter().filter_map(|place| Some(place.schema.as_array()?.iter().collect()));
    constants.chain(enums).reduce(|mut all, one: Vec<&Value>| {
        all.retain(|value| holds(&one, value));
        all
    })
}

fn holds(values: &[&Value], value: &Value) -> bool {
    values.iter().any(|one| json::cmp::equal(one, value))
}

/// Where a keyword stands that one side has: in the new schema if it is there.
fn place_of(pair: &Pair, keyword: &str) -> String {
    let places = [pair.new.values(keyword), pair.old.values(keyword)].concat();
    places.first().map_or_else(|| join(&pair.new.pointer(), keyword), |place| place.pointer.clone())
}

fn types(pair: &Pair) -> Vec<Difference> {
    let (old, new) = (Types::of_schema(&pair.old), Types::of_schema(&pair.new));
    let mut found = Vec::new();
    let more = pair.types.without(old);
    if !more.is_empty() {
        found.push(Difference::breaking(place_of(pair, "type"), format!("type {} is allowed now", more.names())));
    }
    let less = old.without(new);
    if !less.is_empty() {
        let change = format!("type {} is no longer allowed", less.names());
        found.push(Difference::compatible(place_of(pair, "type"), change));
    }
    found
}

fn listing(pair: &Pair) -> Vec<Difference> {
    let old = listed(&pair.old);
    let place = || {
        let keyword =
            if pair.new.values("enum").is_empty() && !pair.new.values("const").is_empty() { "const" } else { "enum" };
        place_of(pair, keyword)
    };
    match (&old, &pair.listed) {
        (None, None) => Vec::new(),
        (None, Some(new)) => {
            let change = format!("only {} listed values are allowed now", new.len());
            vec![Difference::compatible(place(), change)]
        }
        (Some(_), None) => {
            let keyword = if pair.old.values("enum").is_empty() { "const" } else { "enum" };
            vec![Difference::breaking(place_of(pair, keyword), "values other than those listed are allowed now")]
        }
        (Some(old), Some(new)) => {
            let added = new.iter().filter(|value| !holds(old, value));
            let removed = old.iter().filter(|value| !holds(new, value));
            added
                .map(|value| Difference::breaking(place(), format!("value {value} is allowed now")))
                .chain(
                    removed.map(|value| Difference::compatible(place(), format!("value {value} is no longer allowed"))),
                )
                .collect()
        }
    }
}

/// Whether every value that the new schema lists satisfies a keyword of the old one.
fn listed_satisfy(pair: &Pair, keyword: &str, value: &Value) -> bool {
    let Some(listed) = &pair.listed else { return false };
    let schema = json!({ keyword: value });
    let Ok(validator) = jsonschema::draft202012::new(&schema) else { return false };
    listed.iter().all(|value| validator.is_valid(value))
}

/// A lower or upper bound, which two keywords may set together.
struct Bound {
    /// Each with whether the bound itself is excluded.
    keywords: &'static [(&'static str, bool)],
    lower: bool,
    applies_to: Types,
}

const fn bound(keywords: &'static [(&'static str, bool)], lower: bool, applies_to: Types) -> Bound {
    Bound { keywords, lower, applies_to }
}

const BOUNDS: &[Bound] = &[
    bound(&[("minimum", false), ("exclusiveMinimum", true)], true, Types::NUMBER),
    bound(&[("maximum", false), ("exclusiveMaximum", true)], false, Types::NUMBER),
    bound(&[("minLength", false)], true, Types::STRING),
    bound(&[("maxLength", false)], false, Types::STRING),
    bound(&[("minItems", false)], true, Types::ARRAY),
    bound(&[("maxItems", false)], false, Types::ARRAY),
    bound(&[("minProperties", false)], true, Types::OBJECT),
    bound(&[("maxProperties", false)], false, Types::OBJECT),
];

/// The strictest value of a bound: where it stands, its keyword, the number.
struct Strictest<'a> {
    place: Place<'a>,
    keyword: &'static str,
    number: &'a Number,
    excluded: bool,
}

impl Bound {
    fn differences(&self, pair: &Pair) -> Option<Difference> {
        if !pair.types.meets(self.applies_to) {
            return None;
        }
        let (old, new) = (self.strictest(&pair.old), self.strictest(&pair.new));
        match (old, new) {
            (None, None) => None,
            (None, Some(new)) => {
                Some(Difference::compatible(&new.place.pointer, format!("{} {} added", new.keyword, new.number)))
            }
            (Some(old), None) => {
                let change = format!("{} {} removed", old.keyword, old.number);
                Some(if listed_satisfy(pair, old.keyword, old.place.schema) {
                    Difference::compatible(&old.place.pointer, format!("{change}, which the listed values satisfy"))
                } else {
                    Difference::breaking(&old.place.pointer, change)
                })
            }
            (Some(old), Some(new)) => {
                let change = || format!("{} {} became {} {}", old.keyword, old.number, new.keyword, new.number);
                match self.strictness(&old, &new) {
                    Ordering::Equal => None,
                    Ordering::Less => Some(Difference::compatible(&new.place.pointer, change())),
                    Ordering::Greater if listed_satisfy(pair, old.keyword, old.place.schema) => {
                        Some(Difference::compatible(&new.place.pointer, change()))
                    }
                    Ordering::Greater => Some(Difference::breaking(&new.place.pointer, change())),
                }
            }
        }
    }

    fn strictest<'a>(&self, schema: &Conjunction<'a>) -> Option<Strictest<'a>> {
        let bounds = self.keywords.iter().flat_map(|&(keyword, excluded)| {
            schema.values(keyword).into_iter().filter_map(move |place| {
                let Value::Number(number) = place.schema else { return None };
                Some(Strictest { place, keyword, number, excluded })
            })
        });
        // A minimal size of 0 is none.
        let says_something =
            |bound: &Strictest| self.applies_to == Types::NUMBER || !self.lower || bound.number.as_f64() != Some(0.0);
        bounds.filter(says_something).max_by(|a, b| self.strictness(a, b))
    }

    /// `Less`: `a` lets more pass than `b`.
    fn strictness(&self, a: &Strictest, b: &Strictest) -> Ordering {
        let numbers = compare_numbers(a.number, b.number);
        let numbers = if self.lower { numbers } else { numbers.reverse() };
        numbers.then(a.excluded.cmp(&b.excluded))
    }
}

/// Exactly, also where a double cannot tell two integers apart.
fn compare_numbers(a: &Number, b: &Number) -> Ordering {
    let integer = |number: &Number| number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
    if let (Some(a), Some(b)) = (integer(a), integer(b)) {
        return a.cmp(&b);
    }
    let double = |number: &Number| number.as_f64().unwrap_or(f64::NAN);
    let order = double(a).total_cmp(&double(b));
    match (order, integer(a), integer(b)) {
        // The double stands for an integer here, or they would not be equal. -0.0 is 0.
        (_, Some(a), None) if double(b).fract() == 0.0 => a.cmp(&(double(b) as i128)),
        (_, None, Some(b)) if double(a).fract() == 0.0 => (double(a) as i128).cmp(&b),
        (_, None, None) if double(a) == double(b) => Ordering::Equal,
        _ => order,
    }
}

fn multiples(pair: &Pair) -> Vec<Difference> {
    if !pair.types.meets(Types::NUMBER) {
        return Vec::new();
    }
    let multiple_of = |new: &Value, old: &Value| match (new.as_i64(), old.as_i64()) {
        (Some(new), Some(old)) => old != 0 && new % old == 0,
        _ => json::cmp::equal(new, old),
    };
    let (old, new) = (pair.old.values("multipleOf"), pair.new.values("multipleOf"));
    let lost = old.iter().filter(|old| !new.iter().any(|new| multiple_of(new.schema, old.schema)));
    let mut found: Vec<Difference> = lost
        .filter(|old| !listed_satisfy(pair, "multipleOf", old.schema))
        .map(|old| Difference::breaking(&old.pointer, format!("multipleOf {} no longer holds", old.schema)))
        .collect();
    let gained = new.iter().filter(|new| !old.iter().any(|old| json::cmp::equal(new.schema, old.schema)));
    found.extend(gained.map(|new| Difference::compatible(&new.pointer, format!("multipleOf {} added", new.schema))));
    found
}

fn unique(pair: &Pair) -> Option<Difference> {
    let demanded = |schema: &Conjunction| schema.values("uniqueItems").iter().any(|place| place.schema == true);
    let place = place_of(pair, "uniqueItems");
    match (demanded(&pair.old), demanded(&pair.new)) {
        (true, false) if pair.types.meets(Types::ARRAY) && !listed_satisfy(pair, "uniqueItems", &json!(true)) => {
            Some(Difference::breaking(place, "items may repeat now"))
        }
        (false, true) => Some(Difference::compatible(place, "items may no longer repeat")),
        _ => None,
    }
}

/// Keywords of which only the same text is known to say the same. Formats and encodings are not checked, but counted on.
const TEXTS: &[(&str, Types)] = &[
    ("pattern", Types::STRING),
    ("format", Types::ALL),
    ("contentEncoding", Types::STRING),
    ("contentMediaType", Types::STRING),
];

fn texts(pair: &Pair, keyword: &str, applies_to: Types) -> Vec<Difference> {
    if !pair.types.meets(applies_to) {
        return Vec::new();
    }
    let (old, new) = (pair.old.values(keyword), pair.new.values(keyword));
    let lost = |old: &&Place| !new.iter().any(|new| new.schema == old.schema);
    let mut found: Vec<Difference> = old
        .iter()
        .filter(lost)
        .filter(|old| keyword != "pattern" || !listed_satisfy(pair, keyword, old.schema))
        .map(|old| match new.first() {
            Some(new) => {
                let change = format!("{keyword} {} became {}: not analysed", old.schema, new.schema);
                Difference::breaking(&new.pointer, change)
            }
            None => Difference::breaking(&old.pointer, format!("{keyword} {} removed", old.schema)),
        })
        .collect();
    // Another encoding is another meaning, though the same texts are valid.
    let narrows = !keyword.starts_with("content");
    if found.is_empty() {
        found.extend(new.iter().filter(|new| !old.iter().any(|old| new.schema == old.schema)).map(|new| {
            let change = format!("{keyword} {} added", new.schema);
            if narrows {
                Difference::compatible(&new.pointer, change)
            } else {
                Difference::breaking(&new.pointer, change)
            }
        }));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_compared_exactly() {
        let number = |text: &str| serde_json::from_str::<Number>(text).unwrap();
        for (a, b, order) in [
            ("9007199254740993", "9007199254740992.0", Ordering::Greater),
            ("-0.0", "0", Ordering::Equal),
            ("-0.0", "0.0", Ordering::Equal),
            ("1", "1.5", Ordering::Less),
            ("18446744073709551615", "-1", Ordering::Greater),
            ("1e300", "5", Ordering::Greater),
        ] {
            assert_eq!(compare_numbers(&number(a), &number(b)), order, "{a} {b}");
            assert_eq!(compare_numbers(&number(b), &number(a)), order.reverse(), "{b} {a}");
        }
    }
}
