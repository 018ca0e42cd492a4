//! If no difference is breaking, every payload of the new version is one that the old version takes: for random pairs of
//! schemas and random payloads. `SEA_MQ_FUZZ_SEED` makes another run, `SEA_MQ_PAIRS` a longer one.

use std::collections::HashSet;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use sea_mq_contracts::compare::{Difference, compare};
use sea_mq_contracts::schema::Schema;
use serde_json::{Map, Value, json};

const NAMES: &[&str] = &["a", "b", "c", "d"];
const PAYLOADS: usize = 40;

/// Random schemas and payloads over so few values that they meet.
struct Dice(StdRng);

impl Dice {
    fn chance(&mut self, percent: u32) -> bool {
        self.0.random_ratio(percent, 100)
    }

    fn name(&mut self) -> &'static str {
        NAMES.choose(&mut self.0).unwrap()
    }

    fn small(&mut self) -> Value {
        json!(self.0.random_range(0..4))
    }

    fn some<T>(&mut self, most: usize, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let number = self.0.random_range(1..=most);
        (0..number).map(|_| make(self)).collect()
    }

    fn names(&mut self) -> Vec<&'static str> {
        let mut names = self.some(3, Self::name);
        names.sort_unstable();
        names.dedup();
        names
    }

    fn payload(&mut self, depth: u32) -> Value {
        match self.0.random_range(0..if depth == 0 { 5 } else { 9 }) {
            0 => Value::Null,
            1 => json!(true),
            2 => self.small(),
            3 => json!([0.5, 2.0, -1.0].choose(&mut self.0)),
            4 => json!(["", "a", "ab", "b", "card"].choose(&mut self.0)),
            5 => Value::Array(self.some(3, |dice| dice.payload(depth - 1))),
            _ => {
                let members = self.some(4, |dice| (dice.name().to_owned(), dice.payload(depth - 1)));
                Value::Object(members.into_iter().collect())
            }
        }
    }

    fn schema(&mut self, depth: u32) -> Value {
        if self.chance(6) {
            return json!(self.chance(70));
        }
        let keywords = self.some(3, |dice| dice.keyword(depth));
        Value::Object(keywords.into_iter().flatten().collect())
    }

    fn schemas(&mut self, depth: u32) -> Value {
        Value::Array(self.some(3, |dice| dice.schema(depth)))
    }

    fn keyword(&mut self, depth: u32) -> Vec<(String, Value)> {
        let one = |keyword: &str, value: Value| vec![(keyword.to_owned(), value)];
        if depth == 0 || self.chance(45) {
            return self.plain_keyword();
        }
        let inner = depth - 1;
        match self.0.random_range(0..20) {
            0..=5 => {
                let members = self.some(3, |dice| (dice.name().to_owned(), dice.schema(inner)));
                let mut made = one("properties", Value::Object(members.into_iter().collect()));
                if self.chance(50) {
                    made.extend(one("required", json!(self.names())));
                }
                if self.chance(25) {
                    let others = if self.chance(60) { json!(false) } else { self.schema(inner) };
                    made.extend(one("additionalProperties", others));
                }
                made
            }
            6 => {
                one("patternProperties", json!({(*["^a", "b$", "c"].choose(&mut self.0).unwrap()): self.schema(inner)}))
            }
            7 => one("items", self.schema(inner)),
            8 => one("prefixItems", self.schemas(inner)),
            9 => {
                let mut made = one("contains", self.schema(inner));
                if self.chance(50) {
                    made.extend(one("minContains", self.small()));
                }
                made
            }
            10 | 11 => one("anyOf", self.schemas(inner)),
            12 | 13 => one("oneOf", self.schemas(inner)),
            14 => one("allOf", self.schemas(inner)),
            15 => one("not", self.schema(inner)),
            16 => [one("if", self.schema(inner)), one("then", self.schema(inner))].concat(),
            17 => one("dependentSchemas", json!({self.name(): self.schema(inner)})),
            18 => one("propertyNames", self.schema(0)),
            _ => one(if self.chance(50) { "unevaluatedProperties" } else { "unevaluatedItems" }, self.schema(0)),
        }
    }

    fn plain_keyword(&mut self) -> Vec<(String, Value)> {
        let types = ["string", "number", "integer", "array", "object", "boolean", "null"];
        let (keyword, value) = match self.0.random_range(0..20) {
            0..=3 => ("type", json!(types.choose(&mut self.0))),
            4 => ("type", json!(types.choose_multiple(&mut self.0, 3).collect::<Vec<_>>())),
            5 => ("enum", Value::Array(self.some(3, |dice| dice.payload(0)))),
            6 => ("const", self.payload(1)),
            7 => ("minimum", self.small()),
            8 => ("exclusiveMinimum", self.small()),
            9 => ("maximum", self.small()),
            10 => ("multipleOf", json!([0.5, 1.0, 2.0].choose(&mut self.0))),
            11 => ("minLength", self.small()),
            12 => ("maxLength", self.small()),
            13 => ("pattern", json!(["^a", "b"].choose(&mut self.0))),
            14 => ("maxItems", self.small()),
            15 => ("uniqueItems", json!(true)),
            16 => ("maxProperties", self.small()),
            17 => ("dependentRequired", json!({self.name(): self.names()})),
            18 => ("required", json!(self.names())),
            _ => ("$ref", json!(["#/$defs/x", "#/$defs/y"].choose(&mut self.0))),
        };
        vec![(keyword.to_owned(), value)]
    }

    fn document(&mut self) -> Value {
        let mut schema = self.schema(3);
        if let Some(schema) = schema.as_object_mut() {
            schema.insert("$defs".into(), json!({"x": self.schema(1), "y": self.schema(1)}));
        }
        schema
    }

    /// The next version: some places are written anew, or lose or gain a keyword.
    fn evolved(&mut self, schema: &Value, depth: u32) -> Value {
        let Value::Object(object) = schema else {
            return if self.chance(20) { self.schema(1) } else { schema.clone() };
        };
        let mut next = Map::new();
        for (keyword, value) in object {
            let kept = self.chance(90) || keyword == "$defs";
            if kept && depth > 0 {
                next.insert(keyword.clone(), self.evolved_value(keyword, value, depth - 1));
            } else if kept {
                next.insert(keyword.clone(), value.clone());
            }
        }
        if self.chance(15) {
            next.extend(self.keyword(depth.min(2)));
        }
        Value::Object(next)
    }

    fn evolved_value(&mut self, keyword: &str, value: &Value, depth: u32) -> Value {
        match (keyword, value) {
            ("required" | "type" | "enum", Value::Array(items)) if items.len() > 1 && self.chance(30) => {
                json!(items[1..])
            }
            ("anyOf" | "oneOf" | "allOf" | "prefixItems", Value::Array(items)) => {
                let mut items: Vec<Value> = items.iter().map(|item| self.evolved(item, depth)).collect();
                if items.len() > 1 && self.chance(20) {
                    items.pop();
                } else if self.chance(15) {
                    items.push(self.schema(1));
                }
                json!(items)
            }
            ("properties" | "$defs" | "patternProperties" | "dependentSchemas", Value::Object(members)) => {
                let kept = members.iter().filter(|_| keyword == "$defs" || self.chance(85)).collect::<Vec<_>>();
                let mut next: Map<String, Value> =
                    kept.into_iter().map(|(name, schema)| (name.clone(), self.evolved(schema, depth))).collect();
                if keyword == "properties" && self.chance(20) {
                    next.insert(self.name().to_owned(), self.schema(1));
                }
                Value::Object(next)
            }
            ("minimum" | "maximum" | "minLength" | "maxLength" | "maxItems", _) if self.chance(30) => self.small(),
            (_, Value::Object(_)) if keyword != "const" && keyword != "dependentRequired" => self.evolved(value, depth),
            _ => value.clone(),
        }
    }
}

/// All schemas that may describe the same payload, whether or not they apply to it.
fn applicable<'a>(root: &'a Value, schemas: &[&'a Value]) -> Vec<&'a Value> {
    let mut found: Vec<&Value> = Vec::new();
    let mut open = schemas.to_vec();
    while let Some(schema) = open.pop() {
        if found.iter().any(|known| std::ptr::eq(*known, schema)) {
            continue;
        }
        found.push(schema);
        for keyword in ["allOf", "anyOf", "oneOf"] {
            open.extend(schema.get(keyword).and_then(Value::as_array).into_iter().flatten());
        }
        open.extend(["if", "then", "else", "not"].iter().filter_map(|keyword| schema.get(keyword)));
        open.extend(schema.get("dependentSchemas").and_then(Value::as_object).into_iter().flat_map(Map::values));
        let reference = schema.get("$ref").and_then(Value::as_str);
        open.extend(reference.and_then(|reference| root.pointer(reference.trim_start_matches('#'))));
    }
    found
}

/// What a schema says of a property; `None` if it does not describe it.
fn of_property<'a>(schema: &'a Value, name: &str) -> Option<Vec<&'a Value>> {
    let own = schema.get("properties").and_then(|all| all.get(name));
    let others = ["additionalProperties", "unevaluatedProperties"].iter().filter_map(|keyword| schema.get(keyword));
    let others = others.filter(|schema| own.is_none() && schema.is_object());
    let patterns = schema.get("patternProperties").and_then(Value::as_object).into_iter().flat_map(Map::values);
    let found: Vec<&Value> = own.into_iter().chain(others).chain(patterns).collect();
    let required = schema.get("required").and_then(Value::as_array).is_some_and(|all| all.contains(&json!(name)));
    (required || !found.is_empty()).then_some(found)
}

/// What a schema says of the item at an index.
fn of_item(schema: &Value, index: usize) -> Vec<&Value> {
    let prefix = schema.get("prefixItems").and_then(|all| all.get(index));
    let beyond = schema.get("items").filter(|_| prefix.is_none());
    let any = ["contains", "unevaluatedItems"].iter().filter_map(|keyword| schema.get(keyword));
    prefix.into_iter().chain(beyond).chain(any).collect()
}

/// The payload without the properties that a schema does not describe.
fn described(root: &Value, schemas: &[&Value], payload: &Value) -> Value {
    let schemas = applicable(root, schemas);
    match payload {
        Value::Object(members) => {
            let kept = members.iter().filter_map(|(name, value)| {
                let of_each: Vec<Vec<&Value>> = schemas.iter().filter_map(|schema| of_property(schema, name)).collect();
                (!of_each.is_empty()).then(|| (name.clone(), described(root, &of_each.concat(), value)))
            });
            Value::Object(kept.collect())
        }
        Value::Array(items) => {
            let of = |index| schemas.iter().flat_map(|schema| of_item(schema, index)).collect::<Vec<_>>();
            items.iter().enumerate().map(|(index, item)| described(root, &of(index), item)).collect()
        }
        other => other.clone(),
    }
}

fn compile(schema: &Value) -> Option<Schema> {
    Schema::compile(schema, "sea-mq:/schemas/events/x/y.v1.schema.json", |_| None).ok()
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn what_no_difference_breaks_is_taken() {
    let seed = setting("SEA_MQ_FUZZ_SEED").unwrap_or(1);
    println!("SEA_MQ_FUZZ_SEED={seed}");
    let mut dice = Dice(StdRng::seed_from_u64(seed));
    let (mut unbroken, mut broken, mut checked) = (0, 0, 0);
    let mut seen = HashSet::new();
    for _ in 0..setting("SEA_MQ_PAIRS").unwrap_or(3000) {
        let old = dice.document();
        let new = dice.evolved(&old, 4);
        let differences = compare(&old, &new);
        if differences.iter().any(Difference::is_breaking) {
            broken += 1;
            continue;
        }
        if old == new || !seen.insert(format!("{old} {new}")) {
            continue;
        }
        let (Some(before), Some(now)) = (compile(&old), compile(&new)) else { continue };
        unbroken += 1;
        for _ in 0..PAYLOADS {
            let payload = described(&new, &[&new], &dice.payload(3));
            if now.violations(&payload).is_empty() {
                checked += 1;
                let violations = before.violations(&payload);
                assert!(
                    violations.is_empty(),
                    "{payload}\n of {new}\n is not taken by {old}:\n {violations:?}\n{differences:?}"
                );
            }
        }
    }
    println!("{unbroken} pairs without a breaking difference, {broken} with; {checked} payloads");
    assert!(unbroken > 100 && broken > 100 && checked > 500, "the dice are loaded");
}

/// The same without what the analysis finds: so the test above can fail.
#[test]
fn the_dice_find_what_breaks() {
    let mut dice = Dice(StdRng::seed_from_u64(1));
    let mut found = 0;
    for _ in 0..1000 {
        let old = dice.document();
        let new = dice.evolved(&old, 4);
        let (Some(before), Some(now)) = (compile(&old), compile(&new)) else { continue };
        let payloads: Vec<Value> = (0..PAYLOADS).map(|_| described(&new, &[&new], &dice.payload(3))).collect();
        let breaks = |payload: &Value| now.violations(payload).is_empty() && !before.violations(payload).is_empty();
        found += usize::from(payloads.iter().any(breaks));
    }
    assert!(found > 50, "{found}");
}
