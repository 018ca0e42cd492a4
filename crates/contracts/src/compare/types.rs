//! The types of JSON values, as sets.

use serde_json::Value;

use super::document::Conjunction;

/// A set of types; `number` stands for `INTEGER` and `FRACTION`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Types(u8);

impl Types {
    pub const NONE: Self = Self(0);
    pub const ALL: Self = Self(0x7f);
    pub const STRING: Self = Self(1);
    pub const NUMBER: Self = Self(2 | 4);
    pub const ARRAY: Self = Self(8);
    pub const OBJECT: Self = Self(16);
    const INTEGER: Self = Self(2);
    const NAMES: &[(&str, u8)] =
        &[("string", 1), ("number", 6), ("integer", 2), ("array", 8), ("object", 16), ("boolean", 32), ("null", 64)];

    fn named(name: &str) -> Self {
        Self(Self::NAMES.iter().find(|(known, _)| *known == name).map_or(0, |(_, bits)| *bits))
    }

    /// What the `type` keywords allow.
    pub fn of_schema(schema: &Conjunction) -> Self {
        schema.values("type").iter().fold(Self::ALL, |types, place| match place.schema {
            Value::String(name) => types.and(Self::named(name)),
            Value::Array(names) => types.and(
                names
                    .iter()
                    .filter_map(Value::as_str)
                    .map(Self::named)
                    .fold(Self::NONE, |all, one| Self(all.0 | one.0)),
            ),
            _ => types,
        })
    }

    /// The types of listed values.
    pub fn of_values(values: &[&Value]) -> Self {
        values.iter().fold(Self::NONE, |types, value| Self(types.0 | Self::of_value(value).0))
    }

    fn of_value(value: &Value) -> Self {
        match value {
            Value::Null => Self(64),
            Value::Bool(_) => Self(32),
            // 1.0 is an integer, says JSON Schema.
            Value::Number(number) if number.as_f64().is_some_and(|number| number.fract() != 0.0) => Self(4),
            Value::Number(_) => Self::INTEGER,
            Value::String(_) => Self::STRING,
            Value::Array(_) => Self::ARRAY,
            Value::Object(_) => Self::OBJECT,
        }
    }

    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn meets(self, other: Self) -> bool {
        !self.and(other).is_empty()
    }

    /// The names, `number` for integers and fractions together.
    pub fn names(self) -> String {
        let mut left = self.0;
        let mut names = Vec::new();
        for (name, bits) in Self::NAMES {
            if left & bits == *bits {
                left &= !bits;
                names.push(*name);
            }
        }
        if left & 4 != 0 {
            names.push("number");
        }
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn integers_are_numbers() {
        assert_eq!(Types::NUMBER.without(Types::INTEGER).names(), "number");
        assert_eq!(Types::NUMBER.names(), "number");
        assert_eq!(Types::of_values(&[&json!(1.0)]), Types::INTEGER);
        assert_eq!(Types::of_values(&[&json!(1.5), &json!("a")]).names(), "string, number");
        assert_eq!(Types::ALL.names(), "string, number, array, object, boolean, null");
    }
}
