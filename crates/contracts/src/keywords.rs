//! The keywords about numbers, for payloads with numbers that a double cannot hold. Where there is none, the library's own,
//! which are faster, say the same.

use std::cmp::Ordering;

use jsonschema::json::Node;
use jsonschema::paths::Location;
use jsonschema::{Keyword, ValidationError, ValidationOptions};
use serde_json::{Map, Value};

use crate::exact::Decimal;
use crate::metered::{Metered, Paid};

type Factory = Box<dyn for<'i> Keyword<'i, Metered>>;

/// How a number must stand to the keyword's.
#[derive(Clone, Copy)]
enum Rule {
    Compared(fn(Ordering) -> bool),
    Multiple,
}

const RULES: [(&str, &str, Rule); 5] = [
    ("minimum", "is less than the minimum of", Rule::Compared(Ordering::is_ge)),
    ("maximum", "is greater than the maximum of", Rule::Compared(Ordering::is_le)),
    ("exclusiveMinimum", "is less than or equal to the minimum of", Rule::Compared(Ordering::is_gt)),
    ("exclusiveMaximum", "is greater than or equal to the maximum of", Rule::Compared(Ordering::is_lt)),
    ("multipleOf", "is not a multiple of", Rule::Multiple),
];

/// Options under which numbers are held to a schema exactly.
pub fn exactly<R>(options: ValidationOptions<'_, R, Metered>) -> ValidationOptions<'_, R, Metered> {
    let with_constant = options.with_keyword("const", |_: &Map<String, Value>, value: &Value, _: Location| {
        Ok(Box::new(Constant(value.clone())) as Factory)
    });
    RULES.into_iter().fold(with_constant, |options, (keyword, words, rule)| {
        options.with_keyword(keyword, move |_: &Map<String, Value>, value: &Value, _: Location| {
            let limit = value.as_number().map(Decimal::of);
            let limit = limit.ok_or_else(|| ValidationError::custom("is not a number"))?;
            Ok(Box::new(Limit { limit, rule, words: format!("value {words} {value}") }) as Factory)
        })
    })
}

struct Constant(Value);

impl<'i> Keyword<'i, Metered> for Constant {
    fn validate(&self, instance: Paid<'i>) -> Result<(), ValidationError<'i>> {
        let Self(value) = self;
        if self.is_valid(instance) { Ok(()) } else { Err(ValidationError::custom(format!("{value} was expected"))) }
    }

    fn is_valid(&self, instance: Paid<'i>) -> bool {
        instance.equals_value(&self.0)
    }
}

struct Limit {
    limit: Decimal,
    rule: Rule,
    words: String,
}

impl<'i> Keyword<'i, Metered> for Limit {
    fn validate(&self, instance: Paid<'i>) -> Result<(), ValidationError<'i>> {
        if self.is_valid(instance) { Ok(()) } else { Err(ValidationError::custom(self.words.clone())) }
    }

    fn is_valid(&self, instance: Paid<'i>) -> bool {
        let Some(number) = instance.as_number() else { return true };
        match self.rule {
            Rule::Compared(holds) => holds(number.decimal().cmp(&self.limit)),
            Rule::Multiple => number.decimal().is_multiple_of(&self.limit),
        }
    }
}
