//! Operations: what a route takes and gives. One description makes the route, the check of its body, the call in the database
//! and the OpenAPI document.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::routing::MethodRouter;
use serde_json::{Map, Value};
use utoipa::openapi::HttpMethod;

use super::problem::{Problem, Violation};
use crate::db::call::Call;
use crate::serve::App;

/// A member of a body or a column of a row: its name, its SQL type, and what it says.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    pub name: &'static str,
    pub kind: &'static str,
    pub required: bool,
    pub says: &'static str,
}

pub const fn must(name: &'static str, kind: &'static str, says: &'static str) -> Member {
    Member { name, kind, required: true, says }
}

pub const fn may(name: &'static str, kind: &'static str, says: &'static str) -> Member {
    Member { name, kind, required: false, says }
}

/// A JSON object with these members and no others.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub name: &'static str,
    pub members: &'static [Member],
}

pub type Object = Map<String, Value>;

impl Shape {
    /// # Errors
    /// 422, with the places that are wrong.
    pub fn check(&self, object: &Object) -> Result<(), Problem> {
        self.check_at(object, "")
    }

    /// As [`Self::check`], for an object at this place of the body.
    pub fn check_at(&self, object: &Object, place: &str) -> Result<(), Problem> {
        let unknown = object.keys().filter(|key| !self.members.iter().any(|member| member.name == key.as_str()));
        let unknown = unknown.map(|key| (key.as_str(), "is not known here"));
        let wrong =
            self.members.iter().filter_map(|member| Some((member.name, member.wrong(object.get(member.name))?)));
        let violations: Vec<Violation> = unknown
            .chain(wrong)
            .map(|(name, message)| Violation { pointer: format!("{place}/{name}"), message: message.into() })
            .collect();
        if violations.is_empty() {
            return Ok(());
        }
        Err(Problem { violations, ..Problem::invalid("the body is not what is expected here") })
    }

    /// A call with the members that are given.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn call(&self, function: &'static str, object: &Object) -> Result<Call, Problem> {
        self.check(object)?;
        let kinds: Vec<(&str, &str)> = self.members.iter().map(|member| (member.name, member.kind)).collect();
        Ok(Call::of(function).body(&kinds, object))
    }
}

impl Member {
    /// What is wrong with a value. What a text must be like is for the database to say.
    fn wrong(&self, value: Option<&Value>) -> Option<&'static str> {
        match value {
            None | Some(Value::Null) => self.required.then_some("must be given"),
            Some(value) => match (self.kind, value) {
                ("jsonb", _) => None,
                ("boolean", Value::Bool(_)) => None,
                ("boolean", _) => Some("must be true or false"),
                ("integer" | "bigint", Value::Number(number)) if number.is_i64() => None,
                ("integer" | "bigint", _) => Some("must be a whole number"),
                ("double precision", Value::Number(_)) => None,
                ("double precision", _) => Some("must be a number"),
                (kind, Value::Array(_)) if kind.ends_with("[]") => None,
                (kind, _) if kind.ends_with("[]") => Some("must be an array"),
                (_, Value::String(text)) if text.contains('\0') => Some("must not contain the character 0"),
                (_, Value::String(_)) => None,
                ("text", Value::Number(_)) => None,
                _ => Some("must be a text"),
            },
        }
    }
}

/// What an operation answers when all is well.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    Empty,
    Object(Shape),
    /// `{items, next}`
    Page(Shape),
    Events,
}

/// A parameter of the query.
#[derive(Clone, Copy, Debug)]
pub struct Query {
    pub name: &'static str,
    pub kind: &'static str,
    pub says: &'static str,
}

pub const LIMIT: Query = Query { name: "limit", kind: "integer", says: "Rows of a page: 1 to 200, 50 unless said" };
pub const AFTER: Query = Query { name: "after", kind: "text", says: "The `next` of the page before" };

/// A route and a method.
pub struct Operation {
    pub method: HttpMethod,
    pub path: &'static str,
    pub tag: &'static str,
    pub summary: &'static str,
    /// The extension's roles that have the rights it takes. Empty: everybody who is known.
    pub roles: &'static [&'static str],
    pub query: &'static [Query],
    pub headers: &'static [(&'static str, &'static str)],
    pub body: Option<Shape>,
    pub body_required: bool,
    /// Statuses of success, the usual one first.
    pub success: &'static [u16],
    pub answer: Answer,
    /// Statuses that it can answer with beside those of all.
    pub errors: &'static [u16],
    pub handler: MethodRouter<Arc<App>>,
}

impl Operation {
    fn new(method: HttpMethod, path: &'static str, handler: MethodRouter<Arc<App>>, success: &'static [u16]) -> Self {
        Self {
            method,
            path,
            tag: path.trim_start_matches('/').split('/').next().unwrap_or_default(),
            summary: "",
            roles: &[],
            query: &[],
            headers: &[],
            body: None,
            body_required: false,
            success,
            answer: Answer::Empty,
            errors: &[],
            handler,
        }
    }

    pub fn get(path: &'static str, handler: MethodRouter<Arc<App>>) -> Self {
        Self::new(HttpMethod::Get, path, handler, &[200])
    }

    pub fn post(path: &'static str, handler: MethodRouter<Arc<App>>) -> Self {
        Self::new(HttpMethod::Post, path, handler, &[201]).errors(&[409])
    }

    pub fn put(path: &'static str, handler: MethodRouter<Arc<App>>) -> Self {
        Self::new(HttpMethod::Put, path, handler, &[201, 200]).errors(&[409])
    }

    pub fn patch(path: &'static str, handler: MethodRouter<Arc<App>>) -> Self {
        Self::new(HttpMethod::Patch, path, handler, &[200]).errors(&[409])
    }

    pub fn delete(path: &'static str, handler: MethodRouter<Arc<App>>) -> Self {
        Self::new(HttpMethod::Delete, path, handler, &[204]).errors(&[409])
    }

    pub fn says(mut self, summary: &'static str) -> Self {
        self.summary = summary;
        self
    }

    pub fn roles(mut self, roles: &'static [&'static str]) -> Self {
        self.roles = roles;
        self
    }

    pub fn query(mut self, query: &'static [Query]) -> Self {
        self.query = query;
        self
    }

    pub fn headers(mut self, headers: &'static [(&'static str, &'static str)]) -> Self {
        self.headers = headers;
        self
    }

    pub fn body(mut self, shape: Shape) -> Self {
        self.body = Some(shape);
        self.body_required = shape.members.iter().any(|member| member.required);
        self
    }

    pub fn success(mut self, statuses: &'static [u16]) -> Self {
        self.success = statuses;
        self
    }

    pub fn answers(mut self, answer: Answer) -> Self {
        self.answer = answer;
        self
    }

    pub fn errors(mut self, errors: &'static [u16]) -> Self {
        self.errors = errors;
        self
    }

    /// All statuses of errors.
    pub fn all_errors(&self) -> Vec<u16> {
        let mut all = vec![400, 401, 403, 406, 500, 503, 504];
        all.extend(self.errors);
        if self.path.contains('{') {
            all.push(404);
        }
        if self.body.is_some() {
            all.extend([413, 415]);
        }
        if self.body.is_some() || !self.query.is_empty() || self.path.contains('{') {
            all.push(422);
        }
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// Limits of a page.
///
/// # Errors
/// 422.
pub fn limit(given: Option<&str>) -> Result<i64, Problem> {
    match given.map(str::parse) {
        None => Ok(50),
        Some(Ok(limit @ 1..=200)) => Ok(limit),
        Some(_) => Err(Problem::invalid("limit must be a number from 1 to 200")),
    }
}

/// A page of rows, of which one more than wanted was asked for. `key`: the member that the next page goes on behind.
///
/// # Errors
/// Never, with rows that are JSON.
pub fn page(rows: &mut Vec<String>, limit: i64, key: &str) -> String {
    let wanted = usize::try_from(limit).unwrap_or(0);
    let more = rows.len() > wanted;
    rows.truncate(wanted);
    let last = rows.last().filter(|_| more).and_then(|row| serde_json::from_str::<Value>(row).ok());
    let next = last.and_then(|row| row.get(key).cloned()).map_or(Value::Null, |value| match value {
        Value::String(text) => Value::String(text),
        other => Value::String(other.to_string()),
    });
    format!("{{\"items\":[{}],\"next\":{next}}}", rows.join(","))
}

pub fn created(location: &str, body: String) -> axum::response::Response {
    let mut response = super::request::answer(StatusCode::CREATED, body);
    if let Ok(value) = axum::http::HeaderValue::from_str(location) {
        response.headers_mut().insert(axum::http::header::LOCATION, value);
    }
    response
}

/// A segment of a path.
pub fn segment(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SHAPE: Shape = Shape { name: "S", members: &[must("a", "integer", ""), may("b", "text[]", "")] };

    fn places(body: Value) -> Vec<String> {
        let Value::Object(object) = body else { panic!("an object") };
        SHAPE
            .check(&object)
            .map_or_else(|problem| problem.violations.into_iter().map(|one| one.pointer).collect(), |()| Vec::new())
    }

    #[test]
    fn a_body_says_where_it_is_wrong() {
        assert_eq!(places(json!({"a": 1, "b": ["x"]})), Vec::<String>::new());
        assert_eq!(places(json!({"b": 1, "c": 2})), ["/c", "/a", "/b"]);
    }

    #[test]
    fn the_next_page_goes_on_behind_the_last_row() {
        let rows = |count: i64| (1..=count).map(|id| format!("{{\"id\":{id}}}")).collect::<Vec<_>>();
        assert_eq!(page(&mut rows(3), 2, "id"), r#"{"items":[{"id":1},{"id":2}],"next":"2"}"#);
        assert_eq!(page(&mut rows(2), 2, "id"), r#"{"items":[{"id":1},{"id":2}],"next":null}"#);
    }
}
