//! What commands print: tables for people, JSON for programs.

use serde_json::Value;

use super::Format;

/// A row's columns that people are shown, in this order.
pub type Columns<'a> = &'a [&'a str];

pub fn rows(format: Format, rows: &[Value], columns: Columns) {
    match format {
        Format::Json => println!("{}", Value::Array(rows.to_vec())),
        Format::Human => print!("{}", table(rows, columns)),
    }
}

/// One row, a line for each column.
pub fn row(format: Format, row: &Value) {
    match format {
        Format::Json => println!("{row}"),
        Format::Human => print!("{}", card(row)),
    }
}

fn card(row: &Value) -> String {
    let Some(members) = row.as_object() else { return format!("{}\n", cell(row)) };
    let width = members.keys().map(|name| name.chars().count()).max().unwrap_or_default();
    members
        .iter()
        .filter(|(_, value)| !value.is_null())
        .fold(String::new(), |text, (name, value)| format!("{text}{name:width$}  {}\n", cell(value)))
}

fn table(rows: &[Value], columns: Columns) -> String {
    let head = columns.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let body = rows.iter().map(|row| columns.iter().map(|name| cell(&row[*name])).collect::<Vec<_>>());
    let lines: Vec<Vec<String>> = std::iter::once(head).chain(body).collect();
    let width = |at: usize| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let is_number = |at: usize| {
        !rows.is_empty() && rows.iter().all(|row| row[columns[at]].is_number() || row[columns[at]].is_null())
    };
    lines.iter().fold(String::new(), |text, line| {
        let cells = line.iter().enumerate().map(|(at, cell)| {
            let width = widths[at];
            if is_number(at) { format!("{cell:>width$}") } else { format!("{cell:width$}") }
        });
        format!("{text}{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    })
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.replace('\n', " "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_stand_right_and_texts_left() {
        let rows = [
            json!({"name": "a", "count": 5}),
            json!({"name": "long", "count": 1000}),
            json!({"name": null, "count": 1}),
        ];
        assert_eq!(table(&rows, &["name", "count"]), "name  count\na         5\nlong   1000\n-         1\n");
        assert_eq!(
            card(&json!({"ok": true, "summary": "all is well", "hint": null})),
            "ok       true\nsummary  all is well\n"
        );
    }
}
