//! JSON values whose readers pay for each look, so that checking a payload ends whatever the schema is.
//!
//! A schema that refers to itself in two places is checked in time exponential in the payload's depth, and one that is a
//! long chain of references takes stack for each link. The validator has no limit for either. It sees the payload through
//! the accessors here alone, and they stop it by unwinding: the only way out of it.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use jsonschema::JsonType;
use jsonschema::json::{Array, Json, JsonNumber, Node, NodeIdentity, Object, SerdeJson};
use serde_json::{Map, Number, Value};

use crate::exact::{self, Decimal};

/// What a check may use.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Looks at the payload.
    pub looks: u64,
    /// Bytes of stack that must be left at each of them.
    pub stack: usize,
}

/// Why a check came to no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// The budget is used up.
    Exhausted,
    /// The validator panicked: a defect of it.
    Panicked,
}

/// What is thrown.
struct OutOfBudget;

thread_local! {
    /// What is left of the budget of the check that this thread is doing.
    static LEFT: Cell<Budget> = const { Cell::new(Budget { looks: 0, stack: 0 }) };
}

thread_local! {
    /// Numbers of the payload that is checked which `serde_json` does not hold.
    static LONG: RefCell<HashMap<usize, Decimal>> = RefCell::default();
}

/// Does a check of a payload of which these numbers are known better ([`exact::long_numbers`]).
pub fn knowing<T>(long: HashMap<usize, Decimal>, check: impl FnOnce() -> T) -> T {
    LONG.set(long);
    let result = check();
    LONG.take();
    result
}

fn knows_any() -> bool {
    LONG.with_borrow(|long| !long.is_empty())
}

/// A number of a payload.
pub struct Exact<'a> {
    number: &'a Number,
    /// Where `number` is not what stands in the payload.
    known: Option<Decimal>,
}

impl<'a> Exact<'a> {
    fn new(number: &'a Number) -> Self {
        Self { number, known: LONG.with_borrow(|long| long.get(&exact::place(number)).cloned()) }
    }

    pub fn decimal(&self) -> Decimal {
        self.known.clone().unwrap_or_else(|| Decimal::of(self.number))
    }
}

impl JsonNumber for Exact<'_> {
    fn as_u64(&self) -> Option<u64> {
        self.number.as_u64()
    }

    fn as_i64(&self) -> Option<i64> {
        self.number.as_i64()
    }

    fn as_f64(&self) -> Option<f64> {
        self.number.as_f64()
    }

    fn as_str(&self) -> Cow<'_, str> {
        Cow::Owned(self.number.to_string())
    }

    fn to_number(&self) -> Cow<'_, Number> {
        Cow::Borrowed(self.number)
    }

    fn is_integer(&self) -> bool {
        self.known.as_ref().map_or_else(|| JsonNumber::is_integer(self.number), Decimal::is_integer)
    }
}

/// Whether a part of the payload is what a schema says.
fn is_equal(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (Value::Number(found), Value::Number(expected)) => Exact::new(found).decimal() == Decimal::of(expected),
        (Value::Array(found), Value::Array(expected)) => {
            found.len() == expected.len()
                && found.iter().zip(expected).all(|(found, expected)| is_equal(found, expected))
        }
        (Value::Object(found), Value::Object(expected)) => {
            let is_there =
                |(name, expected): (&String, &Value)| found.get(name).is_some_and(|it| is_equal(it, expected));
            found.len() == expected.len() && expected.iter().all(is_there)
        }
        _ => found == expected,
    }
}

/// A text that is the same for equal values.
fn canonical(value: &Value, text: &mut String) {
    // Writing to a text does not fail.
    let _ = match value {
        Value::Number(number) => write!(text, "{:?}", Exact::new(number).decimal()),
        Value::Array(items) => {
            text.push('[');
            for item in items {
                canonical(item, text);
                text.push(',');
            }
            write!(text, "]")
        }
        Value::Object(members) => {
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_by_key(|(name, _)| *name);
            text.push('{');
            for (name, member) in sorted {
                let _ = write!(text, "{name:?}:");
                canonical(member, text);
                text.push(',');
            }
            write!(text, "}}")
        }
        other => write!(text, "{other}"),
    };
}

/// Does a check within a budget.
pub fn within<T>(budget: Budget, check: impl FnOnce() -> T) -> Result<T, Stopped> {
    LEFT.set(budget);
    // What a stopped check leaves half done is its own, and gone with it.
    catch_unwind(AssertUnwindSafe(check)).map_err(|thrown| match thrown.is::<OutOfBudget>() {
        true => Stopped::Exhausted,
        false => Stopped::Panicked,
    })
}

fn pay(price: u64) {
    let left = LEFT.get();
    let stack_left = stacker::remaining_stack().unwrap_or(usize::MAX);
    if left.looks < price || stack_left < left.stack {
        // Not a panic: no hook hears of it.
        resume_unwind(Box::new(OutOfBudget));
    }
    LEFT.set(Budget { looks: left.looks - price, ..left });
}

/// The representation of JSON that the validator is built for.
#[derive(Debug)]
pub struct Metered;

/// A value that is paid for.
#[derive(Clone, Copy)]
pub struct Paid<'a>(pub &'a Value);

impl Json for Metered {
    type Node<'a> = Paid<'a>;
    type PreparedKey = String;
    type StringBuffer = Value;

    const KEYS_PER_LOOKUP: usize = SerdeJson::KEYS_PER_LOOKUP;

    fn prepare_key(key: &str) -> String {
        key.to_owned()
    }

    fn with_string_node<T>(buffer: &mut Value, string: &str, f: impl FnOnce(Paid<'_>) -> T) -> T {
        *buffer = Value::String(string.to_owned());
        f(Paid(buffer))
    }
}

impl<'a> Node<'a, Metered> for Paid<'a> {
    type Object = Members<'a>;
    type Array = Items<'a>;
    type Number = Exact<'a>;

    fn as_object(&self) -> Option<Members<'a>> {
        pay(1);
        self.0.as_object().map(Members)
    }

    fn as_array(&self) -> Option<Items<'a>> {
        pay(1);
        self.0.as_array().map(|items| Items(items))
    }

    fn as_string(&self) -> Option<Cow<'a, str>> {
        let found = self.0.as_str();
        pay(1 + found.map_or(0, |text| text.len() as u64 / 64));
        found.map(Cow::Borrowed)
    }

    fn as_number(&self) -> Option<Exact<'a>> {
        pay(1);
        self.0.as_number().map(Exact::new)
    }

    fn as_boolean(&self) -> Option<bool> {
        pay(1);
        self.0.as_bool()
    }

    fn is_null(&self) -> bool {
        pay(1);
        self.0.is_null()
    }

    fn json_type(&self) -> JsonType {
        pay(1);
        Node::<SerdeJson>::json_type(&self.0)
    }

    fn equals_value(&self, expected: &Value) -> bool {
        pay(1);
        if knows_any() { is_equal(self.0, expected) } else { Node::<SerdeJson>::equals_value(&self.0, expected) }
    }

    fn to_value(&self) -> Cow<'a, Value> {
        pay(1);
        Cow::Borrowed(self.0)
    }

    fn identity(&self) -> Option<NodeIdentity> {
        Node::<SerdeJson>::identity(&self.0)
    }
}

/// An object's members.
pub struct Members<'a>(&'a Map<String, Value>);

impl<'a> Object<'a, Metered> for Members<'a> {
    type Node = Paid<'a>;
    type MemberName = &'a str;
    type MembersIter = std::iter::Map<serde_json::map::Iter<'a>, fn((&'a String, &'a Value)) -> (&'a str, Paid<'a>)>;

    fn len(&self) -> usize {
        self.0.len()
    }

    fn get(&self, key: &String) -> Option<Paid<'a>> {
        self.0.get(key).map(Paid)
    }

    fn members(&self) -> Self::MembersIter {
        self.0.iter().map(|(name, value)| (name.as_str(), Paid(value)))
    }
}

/// An array's items.
pub struct Items<'a>(&'a [Value]);

impl<'a> Array<'a, Metered> for Items<'a> {
    type Node = Paid<'a>;
    type ElementsIter = std::iter::Map<std::slice::Iter<'a, Value>, fn(&'a Value) -> Paid<'a>>;

    fn len(&self) -> usize {
        self.0.len()
    }

    fn elements(&self) -> Self::ElementsIter {
        self.0.iter().map(Paid)
    }

    fn is_unique(&self) -> bool {
        if !knows_any() {
            return jsonschema::json::unique::is_unique(self.0);
        }
        let mut seen = HashSet::new();
        self.0.iter().all(|item| {
            let mut text = String::new();
            canonical(item, &mut text);
            seen.insert(text)
        })
    }
}
