//! JSON Schemas (draft 2020-12, <https://json-schema.org/draft/2020-12>): compiled once, then asked many times.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use jsonschema::error::ValidationErrorKind;
use jsonschema::{Draft, PatternOptions, ReferencingError, Registry, Retrieve, Uri, ValidationError, Validator};
use serde_json::Value;

use crate::exact::{self, Decimal};
use crate::invalid::{Invalid, InvalidKind};
use crate::keywords;
use crate::metered::{self, Budget, Metered, Paid, Stopped};
use crate::sensitive::{self, Place};

/// The one dialect. A schema that names none is taken for it.
pub const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Violations that are reported of one payload at most.
const MAX_VIOLATIONS: usize = 20;

/// Steps that matching one pattern may take back: an expression that needs more is answered with a violation, not waited
/// for.
const BACKTRACKS: usize = 100_000;

/// Objects and arrays that a schema, with all that it refers to, may consist of.
const MAX_CONTAINERS: usize = 100_000;

/// Bytes of stack for compiling: what is nested in a schema 128 levels deep (as deep as serde_json reads) in the nine
/// schemas that the compiler has in hand at once.
const COMPILE_STACK: usize = 64 << 20;

/// Levels of nesting of a payload that SHALLOW_STACK has room for.
const SHALLOW: usize = 16;

/// Bytes of stack for checking a payload that is not nested deeper than that, with an ordinary schema.
const SHALLOW_STACK: usize = 1 << 20;

/// The same for one that is: 128 levels, which is what serde_json reads.
const DEEP_STACK: usize = 64 << 20;

/// Bytes of stack that a part of a schema takes when it is applied to the value that the part around it is applied to.
const STACK_PER_CONTAINER: usize = 2 << 10;

/// Bytes of stack for what looks at nothing of the payload any more.
const STACK_RESERVE: usize = 256 << 10;

/// Looks at a payload until it is known whether it is valid: about a second of them.
const LOOKS_TO_CHECK: u64 = 20_000_000;

/// Looks at a payload until its violations are known. The validator keeps each that it finds, all in memory.
const LOOKS_TO_LIST: u64 = 1_000_000;

/// A schema, ready to check payloads.
#[derive(Debug)]
pub struct Schema {
    /// `None` while it is dropped.
    validator: Option<Validator<Metered>>,
    /// For payloads with numbers that a double cannot hold; made for the first of them.
    exact: OnceCell<Option<Validator<Metered>>>,
    source: Value,
    uri: String,
    /// What it refers to.
    known: HashMap<String, Value>,
    /// The schema and what it refers to, if something in it is sensitive.
    sensitive: Option<Registry<'static>>,
    /// Objects and arrays that it consists of, with all that it refers to.
    containers: usize,
}

/// One way in which a payload breaks its contract. Never repeats what the payload says: this ends up in logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// JSON Pointer (RFC 6901) into the payload; empty for the whole.
    pub pointer: String,
    pub message: String,
}

/// What the schema refers to, as far as it was found.
struct Known(HashMap<String, Value>);

impl Retrieve for Known {
    fn retrieve(&self, uri: &Uri<String>) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        self.0.get(uri.as_str()).cloned().ok_or_else(|| "it is not registered".into())
    }
}

/// How schemas are compiled. Its type depends on that of the retriever, which has no name that is worth writing.
macro_rules! options {
    ($uri:expr, $known:expr) => {
        jsonschema::options_for::<Metered>()
            .with_draft(Draft::Draft202012)
            .with_base_uri($uri)
            .with_retriever(Known($known.clone()))
            .with_pattern_options(PatternOptions::fancy_regex().backtrack_limit(BACKTRACKS))
            .should_validate_formats(false)
    };
}

impl Schema {
    /// Compiles a schema whose own URI is `uri`. What it refers to by `$ref` is asked of `resolve`, by URI and without
    /// fragment; nothing is ever fetched from elsewhere.
    pub fn compile(schema: &Value, uri: &str, mut resolve: impl FnMut(&str) -> Option<Value>) -> Result<Self, Invalid> {
        check_dialect(schema)?;
        let mut known = HashMap::new();
        loop {
            let containers = known.values().map(containers).sum::<usize>() + containers(schema);
            if containers > MAX_CONTAINERS {
                return Err(too_large());
            }
            let options = options!(uri, known);
            let error = match build(|| options.build(schema))? {
                Ok(validator) => {
                    let sensitive = build(|| sensitive_documents(schema, uri, known.clone()))??;
                    return Ok(Self {
                        validator: Some(validator),
                        exact: OnceCell::new(),
                        source: schema.clone(),
                        uri: uri.to_owned(),
                        known,
                        sensitive,
                        containers,
                    });
                }
                Err(error) => error,
            };
            let missing = missing(&error).ok_or_else(|| not_a_schema(&error))?;
            let found = resolve(&missing).filter(|_| !known.contains_key(&missing));
            known.insert(missing.clone(), found.ok_or_else(|| unresolved(&missing))?);
        }
    }

    /// How a payload breaks the contract; empty if it does not. One that cannot be checked breaks it.
    pub fn violations(&self, payload: &Value) -> Vec<Violation> {
        self.validator.as_ref().map_or_else(Vec::new, |validator| self.violations_by(validator, payload))
    }

    fn violations_by(&self, validator: &Validator<Metered>, payload: &Value) -> Vec<Violation> {
        let reserve = self.stack();
        // A chain of references may lead to the first look, and another one begin behind the last.
        let stack = 2 * reserve + if nested_deeper(payload, SHALLOW) { DEEP_STACK } else { SHALLOW_STACK };
        stacker::maybe_grow(stack, stack, || list(validator, payload, reserve))
    }

    /// Bytes of stack for a chain of all its parts.
    fn stack(&self) -> usize {
        self.containers * STACK_PER_CONTAINER + STACK_RESERVE
    }

    /// The places of a payload that the schema calls sensitive, those of an array last element first.
    pub fn sensitive_places(&self, payload: &Value) -> Vec<Place> {
        self.sensitive.as_ref().map_or_else(Vec::new, |documents| sensitive::places(documents, &self.uri, payload))
    }

    /// As `violations`, for a payload that is JSON text.
    pub fn violations_of_text(&self, payload: &str) -> Vec<Violation> {
        match serde_json::from_str(payload) {
            Ok(value) => {
                let long = exact::long_numbers(payload, &value);
                if long.is_empty() { self.violations(&value) } else { self.exact_violations(long, &value) }
            }
            // What jsonb holds and this cannot: numbers beyond double precision's range, nesting beyond 128 levels.
            Err(error) => {
                vec![of_the_whole(format!("cannot be checked: {error}"))]
            }
        }
    }
}

impl Schema {
    fn exact_violations(&self, long: HashMap<usize, Decimal>, payload: &Value) -> Vec<Violation> {
        let compile = || {
            let options = keywords::exactly(options!(&self.uri, self.known));
            build(|| options.build(&self.source).ok()).ok().flatten()
        };
        match self.exact.get_or_init(compile) {
            Some(validator) => metered::knowing(long, || self.violations_by(validator, payload)),
            None => vec![of_the_whole("cannot be checked: it has numbers that double precision does not hold".into())],
        }
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        // Its parts own each other, link by link.
        let stack = self.stack();
        stacker::maybe_grow(stack, stack, || {
            self.validator = None;
            self.exact.take();
        });
    }
}

/// Compiles, with stack enough. A panic is a defect of the library and must not become the caller's.
fn build<T>(compile: impl FnOnce() -> T) -> Result<T, Invalid> {
    stacker::maybe_grow(COMPILE_STACK, COMPILE_STACK, || catch_unwind(AssertUnwindSafe(compile))).map_err(|_| {
        Invalid::value(
            "the schema cannot be compiled",
            "It hits a defect of the JSON Schema library; write it differently.",
        )
    })
}

fn list(validator: &Validator<Metered>, payload: &Value, stack: usize) -> Vec<Violation> {
    match metered::within(Budget { looks: LOOKS_TO_CHECK, stack }, || validator.is_valid(Paid(payload))) {
        Ok(true) => return Vec::new(),
        Ok(false) => {}
        Err(stopped) => return vec![of_the_whole(format!("cannot be checked: {}", why(stopped)))],
    }
    let all = || validator.iter_errors(Paid(payload)).take(MAX_VIOLATIONS).map(|error| violation(&error)).collect();
    metered::within(Budget { looks: LOOKS_TO_LIST, stack }, all)
        .unwrap_or_else(|stopped| vec![of_the_whole(format!("is not valid; where is not known: {}", why(stopped)))])
}

fn why(stopped: Stopped) -> &'static str {
    match stopped {
        Stopped::Exhausted => "the schema takes too many steps",
        Stopped::Panicked => "the JSON Schema library has a defect",
    }
}

fn of_the_whole(message: String) -> Violation {
    Violation { pointer: String::new(), message }
}

/// How many objects and arrays a value consists of.
fn containers(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(containers).sum::<usize>(),
        Value::Object(members) => 1 + members.values().map(containers).sum::<usize>(),
        _ => 0,
    }
}

/// `None`: nothing in the schema or in what it refers to is sensitive.
fn sensitive_documents(
    schema: &Value,
    uri: &str,
    known: HashMap<String, Value>,
) -> Result<Option<Registry<'static>>, Invalid> {
    if !sensitive::mentions(schema) && !known.values().any(sensitive::mentions) {
        return Ok(None);
    }
    let draft = |contents| Draft::Draft202012.create_resource(contents);
    let documents = known.into_iter().chain([(uri.to_owned(), schema.clone())]).map(|(uri, found)| (uri, draft(found)));
    let registry = Registry::new().extend(documents).and_then(|builder| builder.prepare());
    registry.map(Some).map_err(|error| Invalid::value(error.to_string(), "See what the schema refers to."))
}

/// Whether a regular expression of a schema matches, as a validator sees it; one that cannot be asked might.
pub fn matches(pattern: &str, text: &str) -> bool {
    let schema = serde_json::json!({ "pattern": pattern });
    let built = jsonschema::options().with_draft(Draft::Draft202012).build(&schema);
    built.map_or(true, |validator| validator.is_valid(&Value::String(text.to_owned())))
}

fn violation(error: &ValidationError) -> Violation {
    Violation { pointer: error.instance_path().as_str().to_owned(), message: error.masked().to_string() }
}

fn nested_deeper(value: &Value, levels: usize) -> bool {
    let inner = |value: &Value| levels == 0 || nested_deeper(value, levels - 1);
    match value {
        Value::Array(items) => items.iter().any(inner),
        Value::Object(members) => members.values().any(inner),
        _ => false,
    }
}

/// Whether this is a schema at all; what it refers to is not looked at.
pub fn check(schema: &Value) -> Result<(), Invalid> {
    check_dialect(schema)?;
    jsonschema::draft202012::meta::validate(schema).map_err(|error| not_a_schema(&error))
}

fn check_dialect(schema: &Value) -> Result<(), Invalid> {
    match schema.get("$schema") {
        None => Ok(()),
        Some(Value::String(dialect)) if dialect.trim_end_matches('#') == DIALECT => Ok(()),
        Some(other) => Err(Invalid::value(
            format!("the schema is written in {other}, which is not supported"),
            format!("Write it in draft 2020-12, \"$schema\": \"{DIALECT}\"."),
        )),
    }
}

/// The URI that could not be resolved, if that is what is wrong.
fn missing(error: &ValidationError) -> Option<String> {
    match error.kind() {
        ValidationErrorKind::Referencing(ReferencingError::Unretrievable { uri, .. }) => Some(uri.clone()),
        _ => None,
    }
}

fn not_a_schema(error: &ValidationError) -> Invalid {
    let place = error.instance_path().as_str();
    let place = if place.is_empty() { String::new() } else { format!(" at {place}") };
    Invalid::value(
        format!("this is not a JSON Schema{place}: {error}"),
        "Draft 2020-12 is expected, see https://json-schema.org/draft/2020-12.",
    )
}

fn too_large() -> Invalid {
    Invalid::new(
        InvalidKind::TooLarge,
        format!("the schema consists of more than {MAX_CONTAINERS} objects and arrays, with what it refers to"),
        "Describe the event more coarsely, or split it.",
    )
}

fn unresolved(uri: &str) -> Invalid {
    Invalid::new(
        InvalidKind::Unknown,
        format!("the schema refers to \"{uri}\", which is not registered"),
        "Register what it refers to first; nothing is fetched from the network.",
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const URI: &str = "sea-mq:/schemas/events/orders/paid.v1.schema.json";

    fn compile(schema: Value) -> Result<Schema, Invalid> {
        Schema::compile(&schema, URI, |_| None)
    }

    #[test]
    fn violations_name_the_place_and_not_the_content() {
        let schema = compile(json!({"properties": {"card": {"type": "integer"}}, "required": ["total"]})).unwrap();
        assert_eq!(schema.violations(&json!({"card": 1, "total": 2})), []);
        let violations = schema.violations(&json!({"card": "4111-1111"}));
        let places: Vec<_> = violations.iter().map(|violation| violation.pointer.as_str()).collect();
        assert_eq!(places, ["", "/card"]);
        assert!(violations.iter().all(|violation| !violation.message.contains("4111")), "{violations:?}");
        assert!(violations[0].message.contains("total"));
    }

    #[test]
    fn numbers_that_a_double_cannot_hold_are_checked_exactly() {
        let valid = |schema: Value, payload: &str| compile(schema).unwrap().violations_of_text(payload).is_empty();
        let long = "9007199254740993.5";
        for (schema, payload, is_valid) in [
            (json!({"type": "integer"}), long, false),
            (json!({"type": "integer"}), "18446744073709551617", true),
            (json!({"type": "integer"}), "18446744073709551617.00", true),
            (json!({"type": "number"}), long, true),
            (json!({"const": 9007199254740994_u64}), long, false),
            (json!({"const": 0.1}), "0.10000000000000000000", true),
            (json!({"const": 0.1}), "0.10000000000000000001", false),
            (json!({"const": {"a": [9007199254740994_u64]}}), "{\"a\": [9007199254740993.5]}", false),
            (json!({"const": {"a": [1, "x"]}, "type": "object"}), "{\"a\": [1.00000000000000000000, \"x\"]}", true),
            (json!({"enum": [1, 9007199254740994_u64]}), long, false),
            (json!({"enum": [9007199254740994_u64]}), long, false),
            (json!({"enum": ["a", 9007199254740994_u64, null]}), long, false),
            (json!({"uniqueItems": true}), "[9007199254740993.5, 9007199254740993.6]", true),
            (json!({"uniqueItems": true}), "[9007199254740993.5, 9007199254740993.50]", false),
            (
                json!({"uniqueItems": true}),
                "[{\"a\": 9007199254740993.5, \"b\": 1}, {\"b\": 1.0, \"a\": 9007199254740993.5}]",
                false,
            ),
            (json!({"minimum": 9007199254740994_u64}), long, false),
            (json!({"exclusiveMaximum": 9007199254740994_u64}), long, true),
            (json!({"maximum": 9007199254740993_u64}), long, false),
            (json!({"multipleOf": 0.5}), long, true),
            (json!({"multipleOf": 1}), long, false),
            (json!({"properties": {"n": {"type": "integer"}}}), "{\"n\": 9007199254740993.5}", false),
        ] {
            assert_eq!(valid(schema.clone(), payload), is_valid, "{schema} {payload}");
        }
        let pointer =
            |text| compile(json!({"items": {"type": "integer"}})).unwrap().violations_of_text(text)[0].pointer.clone();
        assert_eq!(pointer("[1, 9007199254740993.5]"), "/1");
    }

    #[test]
    fn references_are_resolved_from_what_is_known_and_nowhere_else() {
        let schema = json!({"$ref": "../common/money.v1.schema.json"});
        let money = json!({"type": "object", "properties": {"unit": {"$ref": "unit.v1.schema.json#/$defs/unit"}}});
        let unit = json!({"$defs": {"unit": {"enum": ["EUR"]}}});
        let compiled = Schema::compile(&schema, URI, |uri| match uri {
            "sea-mq:/schemas/events/common/money.v1.schema.json" => Some(money.clone()),
            "sea-mq:/schemas/events/common/unit.v1.schema.json" => Some(unit.clone()),
            _ => None,
        })
        .unwrap();
        assert_eq!(compiled.violations(&json!({"unit": "EUR"})), []);
        assert_eq!(compiled.violations(&json!({"unit": "USD"}))[0].pointer, "/unit");
        assert_eq!(compile(schema).unwrap_err().kind, InvalidKind::Unknown);
        assert_eq!(compile(json!({"$ref": "http://127.0.0.1:1/x.json"})).unwrap_err().kind, InvalidKind::Unknown);
        assert_eq!(compile(json!({"$ref": "file:///etc/passwd"})).unwrap_err().kind, InvalidKind::Unknown);
    }

    #[test]
    fn what_is_no_schema_is_refused() {
        let draft7 = json!({"$schema": "http://json-schema.org/draft-07/schema#"});
        for bad in [json!({"type": "strnig"}), json!({"required": "a"}), json!(1), json!({"pattern": "("}), draft7] {
            assert_eq!(compile(bad.clone()).unwrap_err().kind, InvalidKind::Value, "{bad}");
        }
        assert!(compile(json!({"$ref": "#/nowhere"})).is_err());
        assert!(compile(json!({"$schema": DIALECT})).is_ok());
    }

    #[test]
    fn the_deepest_payload_and_schema_fit_the_stack() {
        let mut schema = json!({"properties": {"n": {"$ref": "#"}}, "unevaluatedProperties": false});
        for i in 0..40 {
            schema = match i % 3 {
                0 => json!({"allOf": [schema]}),
                1 => json!({"anyOf": [{"type": "string"}, schema]}),
                _ => json!({"if": true, "then": schema}),
            };
        }
        let small_stack = std::thread::Builder::new().stack_size(2 << 20);
        let check = move || {
            let schema = compile(schema).unwrap();
            let nested = |inner: &str| format!("{}{inner}{}", "{\"n\":".repeat(120), "}".repeat(120));
            assert_eq!(schema.violations_of_text(&nested("{}")), []);
            assert!(!schema.violations_of_text(&nested("{\"other\": 1}")).is_empty());
            let beyond = format!("{}{}", "[".repeat(200), "]".repeat(200));
            assert!(schema.violations_of_text(&beyond)[0].message.contains("cannot be checked"));
        };
        small_stack.spawn(check).unwrap().join().unwrap();
    }

    #[test]
    fn a_schema_that_refers_to_itself_ends() {
        for schema in [
            json!({"$ref": "#"}),
            json!({"allOf": [{"$ref": "#"}]}),
            json!({"not": {"$ref": "#"}}),
            json!({"anyOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}),
            json!({"if": {"$ref": "#"}, "then": {"type": "integer"}}),
            json!({"$dynamicAnchor": "x", "allOf": [{"$dynamicRef": "#x"}]}),
            json!({"dependentSchemas": {"a": {"$ref": "#"}}}),
            json!({"oneOf": [{"$ref": "#"}, {"type": "string"}], "unevaluatedProperties": false}),
        ] {
            if let Ok(compiled) = compile(schema) {
                compiled.violations(&json!({"a": 1}));
            }
        }
    }
}
