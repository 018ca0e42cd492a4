//! JSON values whose readers pay for each look, so that checking a payload ends whatever the schema is.
//!
//! A schema that refers to itself in two places is checked in time exponential in the payload's depth, and one that is a
//! long chain of references takes stack for each link. The validator has no limit for either. It sees the payload through
//! the accessors here alone, and they stop it by unwinding: the only way out of it.

use std::borrow::Cow;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use jsonschema::JsonType;
use jsonschema::json::{Array, Json, Node, NodeIdentity, Object, SerdeJson};
use serde_json::{Map, Number, Value};

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
    type Number = &'a Number;

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

    fn as_number(&self) -> Option<&'a Number> {
        pay(1);
        self.0.as_number()
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
        Node::<SerdeJson>::equals_value(&self.0, expected)
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
        jsonschema::json::unique::is_unique(self.0)
    }
}
