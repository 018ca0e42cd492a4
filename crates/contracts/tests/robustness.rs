//! Schemas that nobody sane would register, and random ones: each is compiled or refused and each payload is checked, on
//! the stack of an ordinary thread, without a panic.
//!
//! Environment: `SEA_MQ_FUZZ_SEED` makes another run, `SEA_MQ_FUZZ_CALLS` a longer one. What overflows the stack ends the
//! process; the seed, and with `SEA_MQ_FUZZ_TRACE` each schema, is printed before.

use std::collections::HashMap;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use sea_mq_contracts::schema::Schema;
use serde_json::{Map, Value, json};

const URI: &str = "sea-mq:/schemas/events/orders/paid.v1.schema.json";

/// What the random schemas may refer to, beside themselves.
const OTHERS: [&str; 3] = [
    "sea-mq:/schemas/events/orders/other.v1.schema.json",
    "sea-mq:/schemas/events/common/money.v1.schema.json",
    "urn:example:tree",
];

/// What every schema of [`Chance::whole`] has, then what is in none.
const REFERENCES: [&str; 22] = [
    "#",
    "#/$defs/a",
    "#/$defs/b",
    "#dynamic",
    "other.v1.schema.json",
    "../common/money.v1.schema.json",
    "other.v1.schema.json#/$defs/b",
    "urn:example:tree",
    "urn:example:tree#dynamic",
    "",
    "#/$defs/a/properties/x",
    "#/properties/a~1b",
    "#anchor",
    "#missing",
    "?",
    "//",
    "http://[",
    "%",
    "#/%25",
    "#/$defs/%zz",
    "file:///etc/passwd",
    "\u{0}\u{feff}#",
];

/// What can be compiled, then what cannot.
const PATTERNS: [&str; 20] = [
    "",
    "^a",
    "(a+)+$",
    "(?=(a+)+$)",
    "^(a|a)*$",
    "(a{50}){50}",
    "(?<!a*)b",
    "(a)\\1",
    "[^\\s\\S]",
    "(?i)ß",
    "\\p{L}{200}",
    "[",
    "\\",
    "(?P<n>a)\\k<n>",
    "\\u{1F600}",
    "\\d{0,1000000}",
    "\u{0}",
    "(?:){999999}",
    "[\u{10ffff}-\u{0}]",
    "\\cA\\x00",
];
/// How many of each list are good.
const GOOD: usize = 10;

const NUMBERS: [&str; 16] = [
    "0",
    "-0",
    "-1",
    "1",
    "2",
    "0.1",
    "1e-300",
    "5e-324",
    "1e308",
    "-1e308",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "123456789012345678901234567890",
    "3.0",
];

const NAMES: [&str; 12] = ["a", "b", "x", "n", "", "a/b", "~", "$ref", "\u{0}", "é", "\u{1f600}", "__proto__"];

fn number_of(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}

/// Does it on a thread with two megabytes of stack, which is what PostgreSQL lets its own code use.
fn on_a_small_stack(check: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(2 << 20).spawn(check).unwrap().join().unwrap();
}

struct Chance(StdRng);

impl Chance {
    fn one_in(&mut self, n: u32) -> bool {
        self.0.random_ratio(1, n)
    }

    fn of<T: Copy>(&mut self, values: &[T]) -> T {
        *values.choose(&mut self.0).expect("there are some")
    }

    /// One of the good ones, mostly.
    fn mostly_good(&mut self, values: &[&'static str]) -> &'static str {
        if self.one_in(100) { self.of(values) } else { self.of(&values[..GOOD]) }
    }

    fn number(&mut self) -> Value {
        serde_json::from_str(self.of(&NUMBERS)).unwrap()
    }

    fn text(&mut self) -> Value {
        match self.0.random_range(0..4) {
            0 => json!("a".repeat(self.0.random_range(0..3000))),
            1 => json!(self.of(&PATTERNS)),
            _ => json!(self.of(&NAMES)),
        }
    }

    /// Any JSON.
    fn value(&mut self, depth: u32) -> Value {
        match self.0.random_range(0..if depth == 0 { 5 } else { 9 }) {
            0 => Value::Null,
            1 => json!(self.one_in(2)),
            2 | 3 => self.number(),
            4 => self.text(),
            5 | 6 => (0..self.0.random_range(0..4)).map(|_| self.value(depth - 1)).collect(),
            _ => self.object(4, |chance| chance.value(depth - 1)),
        }
    }

    fn object(&mut self, most: usize, mut member: impl FnMut(&mut Self) -> Value) -> Value {
        let names = self.0.random_range(0..=most);
        Value::Object((0..names).map(|_| (self.of(&NAMES).to_owned(), member(self))).collect::<Map<_, _>>())
    }

    fn schema(&mut self, depth: u32) -> Value {
        if depth == 0 || self.one_in(8) {
            return match self.0.random_range(0..3) {
                0 => json!(self.one_in(3)),
                1 => json!({"type": self.of(&["object", "array", "string", "number", "integer", "null"])}),
                _ => json!({"$ref": self.mostly_good(&REFERENCES)}),
            };
        }
        let mut schema = Map::new();
        for _ in 0..self.0.random_range(1..5) {
            let (keyword, value) = self.keyword(depth - 1);
            // Now and then a keyword has a value of a kind that it cannot have.
            let value = if self.one_in(60) { self.value(2) } else { value };
            schema.insert(keyword.to_owned(), value);
        }
        Value::Object(schema)
    }

    fn schemas(&mut self, depth: u32) -> Value {
        (0..self.0.random_range(1..4)).map(|_| self.schema(depth)).collect()
    }

    fn keyword(&mut self, depth: u32) -> (&'static str, Value) {
        let one = [
            "not",
            "if",
            "then",
            "else",
            "items",
            "contains",
            "additionalProperties",
            "propertyNames",
            "unevaluatedItems",
            "unevaluatedProperties",
            "contentSchema",
        ];
        let limit = ["minContains", "maxContains", "maxLength", "minLength", "maxItems", "minItems", "maxProperties"];
        let bound = ["maximum", "minimum", "exclusiveMaximum", "exclusiveMinimum"];
        match self.0.random_range(0..18) {
            0 | 1 => (self.of(&one), self.schema(depth)),
            2 => (self.of(&["allOf", "anyOf", "oneOf", "prefixItems"]), self.schemas(depth)),
            3 | 4 => (self.of(&["properties", "dependentSchemas"]), self.object(4, |chance| chance.schema(depth))),
            5 => ("patternProperties", json!({self.mostly_good(&PATTERNS): self.schema(depth)})),
            6 => (self.of(&bound), self.number()),
            7 => (self.of(&limit), json!(self.0.random_range(0..5))),
            8 | 9 => ("$ref", json!(self.mostly_good(&REFERENCES))),
            10 => ("$dynamicRef", json!(self.mostly_good(&REFERENCES))),
            11 => ("$anchor", json!(self.of(&["anchor", "other"]))),
            12 if self.one_in(20) => ("$id", json!(self.of(&REFERENCES))),
            13 => ("pattern", json!(self.mostly_good(&PATTERNS))),
            14 => ("enum", json!([self.value(2), self.value(1)])),
            15 => ("uniqueItems", json!(true)),
            16 => ("multipleOf", json!(self.of(&[1e-300, 0.1, 1.0, 3.0, 1e308]))),
            _ => (self.of(&["const", "default"]), self.value(2)),
        }
    }

    /// A schema that has what the good references name.
    fn whole(&mut self) -> Value {
        let mut schema = json!({"$defs": {"a": self.schema(4), "b": self.schema(3)}, "$dynamicAnchor": "dynamic"});
        // Sometimes deep, by a keyword that takes one schema.
        let depth = if self.one_in(10) { self.0.random_range(0..110) } else { 0 };
        let keyword = self.of(&["not", "items", "if", "additionalProperties"]);
        let root = (0..depth).fold(self.schema(5), |inner, _| json!({keyword: inner}));
        if let Value::Object(more) = root {
            schema.as_object_mut().unwrap().extend(more);
        }
        schema
    }

    fn payload(&mut self) -> Value {
        let value = self.value(5);
        if !self.one_in(10) {
            return value;
        }
        let name = self.of(&NAMES);
        (0..self.0.random_range(0..110)).fold(value, |inner, _| json!({name: inner}))
    }
}

#[test]
fn random_schemas_are_compiled_or_refused_and_random_payloads_checked() {
    let seed = number_of("SEA_MQ_FUZZ_SEED").unwrap_or(1);
    let calls = number_of("SEA_MQ_FUZZ_CALLS").unwrap_or(300);
    eprintln!("SEA_MQ_FUZZ_SEED={seed} SEA_MQ_FUZZ_CALLS={calls}");
    on_a_small_stack(move || {
        let mut chance = Chance(StdRng::seed_from_u64(seed));
        let mut compiled = 0;
        for _ in 0..calls {
            let others: HashMap<&str, Value> = OTHERS.iter().map(|uri| (*uri, chance.whole())).collect();
            let schema = chance.whole();
            if std::env::var_os("SEA_MQ_FUZZ_TRACE").is_some() {
                eprintln!("{schema}");
            }
            match Schema::compile(&schema, URI, |uri| others.get(uri).cloned()) {
                Ok(schema) => {
                    compiled += 1;
                    for _ in 0..4 {
                        assert_not_a_defect(&chance.payload(), &schema);
                    }
                }
                Err(refused) => assert!(!refused.message.contains("cannot be compiled"), "a panic in {schema}"),
            }
        }
        eprintln!("{calls} schemas, {compiled} of them compiled");
        assert!(compiled * 10 > calls, "hardly any is a schema: the generator is no good");
    });
}

fn assert_not_a_defect(payload: &Value, schema: &Schema) {
    let violations = schema.violations(payload);
    assert!(violations.iter().all(|violation| !violation.message.contains("defect")), "a panic with {payload}");
}

/// `n` definitions, each `nesting` keywords around a reference to the next.
fn chain(n: usize, nesting: usize, wrap: impl Fn(Value) -> Value) -> Value {
    let link = |i: usize| (0..nesting).fold(json!({"$ref": format!("#/$defs/a{}", i + 1)}), |inner, _| wrap(inner));
    let mut links: Map<String, Value> = (0..n).map(|i| (format!("a{i}"), link(i))).collect();
    links.insert(format!("a{n}"), json!({"type": "string"}));
    json!({"$ref": "#/$defs/a0", "$defs": links})
}

#[test]
fn a_long_chain_of_references_does_not_overflow_the_stack() {
    on_a_small_stack(|| {
        for schema in [
            chain(20_000, 0, |inner| inner),
            chain(300, 110, |inner| json!({"allOf": [inner]})),
            chain(300, 110, |inner| json!({"properties": {"n": inner}})),
        ] {
            let schema = Schema::compile(&schema, URI, |_| None).unwrap();
            let violations = schema.violations(&json!(1));
            assert!(violations.iter().all(|violation| violation.message.contains("type")), "{violations:?}");
        }
        let refused = Schema::compile(&chain(1000, 110, |inner| json!({"not": inner})), URI, |_| None).unwrap_err();
        assert!(refused.message.contains("100000"), "{refused}");
    });
}

/// Neither by its steps nor by the violations that it has, which double with each level.
#[test]
fn a_schema_that_branches_into_itself_is_given_up() {
    let nested = (0..110).fold(json!(1), |inner, _| json!({"n": inner}));
    let schema = json!({"type": "object", "properties": {"n": {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}}});
    let schema = Schema::compile(&schema, URI, |_| None).unwrap();
    let violations = schema.violations(&nested);
    assert!(violations.iter().any(|violation| violation.message.contains("too many steps")), "{violations:?}");
    let twice = |i: usize| json!({"anyOf": [{"$ref": format!("#/$defs/a{i}")}, {"$ref": format!("#/$defs/a{i}")}]});
    let mut links: Map<String, Value> = (0..60).map(|i| (format!("a{i}"), twice(i + 1))).collect();
    links.insert("a60".into(), json!({"type": "string"}));
    let schema = Schema::compile(&json!({"$ref": "#/$defs/a0", "$defs": links}), URI, |_| None).unwrap();
    assert!(schema.violations(&json!(1))[0].message.contains("too many steps"));
}
