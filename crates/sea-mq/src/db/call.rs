//! Statements: their text with numbered parameters. All parameters travel as text, and the statement says what they are, so
//! that no type has to be looked up and nothing has to be prepared: that works behind a pooler in transaction mode.

use serde::Serialize;
use serde_json::Value;

/// A statement and its parameters.
#[derive(Clone, Debug)]
pub struct Ask {
    pub sql: String,
    pub params: Vec<Option<String>>,
}

impl Ask {
    pub fn new(sql: impl Into<String>) -> Self {
        Self { sql: sql.into(), params: Vec::new() }
    }

    /// The next parameter: `$1`, `$2` …
    pub fn with(mut self, value: impl Into<Param>) -> Self {
        self.params.push(value.into().0);
        self
    }

    /// Rows of a query as JSON texts, one a row.
    pub fn rows_of(mut self) -> Self {
        self.sql = format!("SELECT to_jsonb(r)::text FROM ({}) r", self.sql);
        self
    }
}

/// A parameter as the statement gets it.
pub struct Param(Option<String>);

impl From<&str> for Param {
    fn from(value: &str) -> Self {
        Self(Some(value.to_owned()))
    }
}

impl From<String> for Param {
    fn from(value: String) -> Self {
        Self(Some(value))
    }
}

impl From<&String> for Param {
    fn from(value: &String) -> Self {
        Self(Some(value.clone()))
    }
}

impl From<Option<String>> for Param {
    fn from(value: Option<String>) -> Self {
        Self(value)
    }
}

impl From<i64> for Param {
    fn from(value: i64) -> Self {
        Self(Some(value.to_string()))
    }
}

impl From<bool> for Param {
    fn from(value: bool) -> Self {
        Self(Some(value.to_string()))
    }
}

impl From<&Value> for Param {
    fn from(value: &Value) -> Self {
        Self(match value {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        })
    }
}

/// A call of a function with named arguments; what is not given keeps its default.
pub struct Call {
    function: &'static str,
    arguments: Vec<String>,
    params: Vec<Option<String>>,
}

impl Call {
    pub fn of(function: &'static str) -> Self {
        Self { function, arguments: Vec::new(), params: Vec::new() }
    }

    /// An argument of an SQL type. NULL is left out.
    pub fn with(mut self, name: &str, kind: &str, value: impl Into<Param>) -> Self {
        if let Some(text) = value.into().0 {
            self.params.push(Some(text));
            self.arguments.push(format!("{name} => {}", cast(self.params.len(), kind)));
        }
        self
    }

    /// An argument that is NULL, where the default is something else.
    pub fn null(mut self, name: &str) -> Self {
        self.arguments.push(format!("{name} => NULL"));
        self
    }

    /// The members of a body that have one of these names.
    pub fn body(mut self, kinds: &[(&str, &str)], body: &impl Serialize) -> Self {
        let Ok(Value::Object(members)) = serde_json::to_value(body) else { return self };
        for (name, kind) in kinds {
            if let Some(value) = members.get(*name) {
                let text =
                    if *kind == "jsonb" && !value.is_null() { Param(Some(value.to_string())) } else { value.into() };
                self = self.with(name, kind, text.0);
            }
        }
        self
    }

    /// `SELECT … FROM f(…) AS alias`.
    pub fn select(self, columns: &str, alias: &str) -> Ask {
        Ask {
            sql: format!("SELECT {columns} FROM {}({}) AS {alias}", self.function, self.arguments.join(", ")),
            params: self.params,
        }
    }

    /// Its one result as text.
    pub fn value(self) -> Ask {
        self.select("r::text", "r")
    }

    /// Its rows as JSON.
    pub fn rows(self) -> Ask {
        self.select("to_jsonb(r)::text", "r")
    }
}

/// A parameter as a value of an SQL type; an array comes as a JSON array.
fn cast(number: usize, kind: &str) -> String {
    match kind.strip_suffix("[]") {
        Some(element) => {
            format!("ARRAY(SELECT e::{element} FROM jsonb_array_elements_text(${number}::text::jsonb) e)")
        }
        None => format!("${number}::text::{kind}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_given_keeps_its_default() {
        let kinds = [("context", "text"), ("max_age", "interval"), ("subjects", "text[]"), ("payload", "jsonb")];
        let body = json!({"context": "orders", "max_age": null, "subjects": ["a", "b"], "payload": "x", "other": 1});
        let ask = Call::of("f").body(&kinds, &body).value();
        assert_eq!(
            ask.sql,
            "SELECT r::text FROM f(context => $1::text::text, \
             subjects => ARRAY(SELECT e::text FROM jsonb_array_elements_text($2::text::jsonb) e), payload => $3::text::jsonb) AS r"
        );
        assert_eq!(ask.params, [Some("orders".into()), Some(r#"["a","b"]"#.into()), Some(r#""x""#.into())]);
    }
}
