//! What templates show.

use askama::Template;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use crate::rest::problem::Problem;
use crate::rest::request::Ctx;

/// What all pages have.
pub struct Frame {
    pub base: String,
    pub title: String,
    pub role: String,
    pub notice: String,
    pub error: String,
    here: &'static str,
}

const PAGES: [(&str, &str); 6] = [
    ("/", "Overview"),
    ("/streams", "Streams"),
    ("/subscriptions", "Subscriptions"),
    ("/dead-letters", "Dead letters"),
    ("/contracts", "Contracts"),
    ("/endpoints", "Endpoints"),
];

impl Frame {
    pub fn new(ctx: &Ctx, here: &'static str, title: impl Into<String>) -> Self {
        Self {
            base: ctx.app.link(""),
            title: title.into(),
            role: ctx.caller.role.clone(),
            notice: String::new(),
            error: String::new(),
            here,
        }
    }

    pub fn outside(base: String, title: &str) -> Self {
        Self { base, title: title.into(), role: String::new(), notice: String::new(), error: String::new(), here: "" }
    }

    pub fn notice(mut self, notice: impl Into<String>) -> Self {
        self.notice = notice.into();
        self
    }

    pub fn pages(&self) -> [(&'static str, &'static str); 6] {
        PAGES
    }

    pub fn is_here(&self, path: &str) -> bool {
        self.here == path
    }
}

pub struct Column {
    pub title: &'static str,
    pub number: bool,
}

#[derive(Clone, Default)]
pub struct Cell {
    pub text: String,
    pub link: String,
    pub class: &'static str,
}

pub struct Table {
    pub name: &'static str,
    /// What stands there when there are no rows.
    pub none: &'static str,
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<Cell>>,
}

/// A column: its title, the member of the row, and how it is shown: `text`, `number`, `time`, `state`.
pub type Spec = (&'static str, &'static str, &'static str);

impl Table {
    /// `link`: where the first column leads.
    pub fn new(
        name: &'static str,
        none: &'static str,
        specs: &[Spec],
        rows: &[Value],
        link: impl Fn(&Value) -> String,
    ) -> Self {
        let columns = specs.iter().map(|(title, _, class)| Column { title, number: *class == "number" }).collect();
        let cells = |row: &Value| {
            let cell = |(at, (_, member, class)): (usize, &Spec)| Cell {
                text: if *class == "time" { time(&row[*member]) } else { text(&row[*member]) },
                link: if at == 0 { link(row) } else { String::new() },
                class,
            };
            specs.iter().enumerate().map(cell).collect()
        };
        Self { name, none, columns, rows: rows.iter().map(cells).collect() }
    }
}

pub fn text(value: &Value) -> String {
    match value {
        Value::Null => "–".into(),
        Value::String(text) => text.clone(),
        Value::Number(number) => grouped(&number.to_string()),
        other => other.to_string(),
    }
}

/// To the second, in UTC.
pub fn time(value: &Value) -> String {
    value.as_str().map_or_else(
        || "–".into(),
        |text| text.chars().take(19).map(|character| if character == 'T' { ' ' } else { character }).collect(),
    )
}

/// 1234567 as 1 234 567.
fn grouped(digits: &str) -> String {
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return digits.to_owned();
    }
    let length = digits.len();
    digits.chars().enumerate().fold(String::new(), |mut text, (at, digit)| {
        if at > 0 && (length - at).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
        text
    })
}

/// Facts of a row in this order, those that are not there left out.
pub fn facts(row: &Value, specs: &[Spec]) -> Vec<(&'static str, String)> {
    let shown = specs.iter().filter(|(_, member, _)| !row[*member].is_null());
    shown
        .map(|(title, member, class)| {
            (*title, if *class == "time" { time(&row[*member]) } else { text(&row[*member]) })
        })
        .collect()
}

pub struct Field {
    pub label: &'static str,
    pub name: &'static str,
    pub value: String,
}

pub struct Form {
    pub action: String,
    pub hidden: Vec<Field>,
    pub button: String,
    pub danger: bool,
    /// It leads to a question first.
    pub get: bool,
}

/// Rows as values.
pub fn values(rows: &[String]) -> Vec<Value> {
    rows.iter().filter_map(|row| serde_json::from_str(row).ok()).collect()
}

/// A page, or what went wrong with it.
pub fn html(page: &impl Template) -> Response {
    match page.render() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CACHE_CONTROL, "no-store")], text)
            .into_response(),
        Err(error) => Problem {
            hidden: Some(error.to_string().into()),
            ..Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "something is wrong inside")
        }
        .into_response(),
    }
}

#[derive(Template)]
#[template(path = "confirm.html")]
pub struct Confirm {
    pub frame: Frame,
    pub question: String,
    pub action: String,
    pub hidden: Vec<Field>,
    pub button: String,
    pub back: String,
}

#[derive(Template)]
#[template(path = "list.html")]
pub struct List {
    pub frame: Frame,
    pub facts: Vec<(&'static str, String)>,
    pub filters: Vec<Field>,
    pub forms: Vec<Form>,
    pub table: Table,
    pub next: String,
    pub tail: String,
}

impl List {
    pub fn new(frame: Frame, table: Table) -> Self {
        Self {
            frame,
            facts: Vec::new(),
            filters: Vec::new(),
            forms: Vec::new(),
            table,
            next: String::new(),
            tail: String::new(),
        }
    }
}

/// A page that says why there is no other.
pub fn trouble(ctx: &Ctx, here: &'static str, problem: &Problem) -> Response {
    let mut frame = Frame::new(ctx, here, "This cannot be shown");
    frame.error = said(problem);
    let table = Table { name: "Nothing", none: "", columns: Vec::new(), rows: Vec::new() };
    let mut response = html(&List::new(frame, table));
    *response.status_mut() = problem.status;
    response.extensions_mut().insert(problem.clone());
    response
}

pub fn said(problem: &Problem) -> String {
    problem.hint.as_ref().map_or_else(|| problem.message.clone(), |hint| format!("{} {hint}", problem.message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_groups_and_times_end_with_the_second() {
        assert_eq!(text(&serde_json::json!(1234567)).replace('\u{202f}', " "), "1 234 567");
        assert_eq!(time(&serde_json::json!("2026-01-02T03:04:05.678+00:00")), "2026-01-02 03:04:05");
    }
}
