//! The table, `results.json` and `results.svg`.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::figures::{Series, whole};
use crate::plot::{self, Panel};
use crate::{Outcome, say};

/// A line of the table.
#[derive(Clone, Debug, Default)]
pub struct Row {
    pub figure: String,
    /// With its unit.
    pub value: String,
    /// Least and greatest of the repetitions.
    pub range: String,
    /// What the project expects of it, if anything.
    pub expected: &'static str,
}

impl Row {
    pub fn new(figure: impl Into<String>, value: String, range: String) -> Self {
        Self { figure: figure.into(), value, range, expected: "" }
    }

    /// The median of a rate and its range.
    pub fn rate(figure: &str, series: &Series, unit: &str) -> Self {
        let range = format!("{} – {}", whole(series.least()), whole(series.most()));
        Self::new(figure, format!("{}{unit}", whole(series.median())), range)
    }

    pub fn expecting(mut self, expected: &'static str) -> Self {
        self.expected = expected;
        self
    }
}

/// What a measurement of many figures has found so far, line by line.
pub struct Found {
    key: &'static str,
    pub rows: Vec<Row>,
    pub json: Map<String, Value>,
}

impl Found {
    /// `key`: of the measurement.
    pub fn new(key: &'static str) -> Self {
        Self { key, rows: Vec::new(), json: Map::new() }
    }

    pub fn add(&mut self, key: &str, row: Row, value: Value) {
        say(format!("{}: {}: {}", self.key, row.figure, row.value));
        self.rows.push(row);
        self.json.insert(key.into(), value);
    }

    /// A percentile of times in milliseconds.
    pub fn tail(&mut self, key: &str, figure: &str, series: &Series, share: f64, expected: &'static str) {
        let text = format!("{:.1} ms", series.at(share));
        self.add(key, Row::new(figure, text, series.range(1, " ms")).expecting(expected), series.spread("ms"));
    }
}

impl Series {
    /// Least and greatest, as the table has them.
    pub fn range(&self, decimals: usize, unit: &str) -> String {
        format!("{:.decimals$} – {:.decimals$}{unit}", self.least(), self.most())
    }
}

/// What a part has found out.
#[derive(Debug)]
pub struct Measured {
    /// Its name in the JSON.
    pub key: &'static str,
    pub title: String,
    pub rows: Vec<Row>,
    pub panels: Vec<Panel>,
    pub json: Value,
}

/// What the whole run has found out.
#[derive(Debug)]
pub struct Report {
    machine: Value,
    parts: Vec<Measured>,
}

impl Report {
    pub fn new(machine: Value) -> Self {
        Self { machine, parts: Vec::new() }
    }

    pub fn add(&mut self, part: Measured) {
        self.parts.push(part);
    }

    /// The table, ready to be printed.
    pub fn table(&self) -> String {
        let rows = || self.parts.iter().flat_map(|part| &part.rows);
        let width = |of: fn(&Row) -> &str, least: usize| {
            rows().map(|row| of(row).chars().count()).chain([least]).max().unwrap_or(least)
        };
        let figure = width(|row| &row.figure, 6);
        let value = width(|row| &row.value, 6);
        let range = width(|row| &row.range, 5);
        let line = |row: &Row| {
            let text =
                format!("  {:<figure$}  {:>value$}  {:>range$}  {}", row.figure, row.value, row.range, row.expected);
            format!("{}\n", text.trim_end())
        };
        let head = Row { figure: String::new(), value: "median".into(), range: "range".into(), expected: "expected" };
        let mut text = format!("\n{}", line(&head));
        for part in &self.parts {
            text.push_str(&format!("{}\n", part.title));
            part.rows.iter().for_each(|row| text.push_str(&line(row)));
        }
        text.push('\n');
        text
    }

    /// Writes both files into `directory` and returns their paths.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&self, directory: &Path) -> Outcome<Vec<PathBuf>> {
        fs::create_dir_all(directory)?;
        let directory = directory.canonicalize()?;
        let parts: Map<String, Value> =
            self.parts.iter().map(|part| (part.key.to_owned(), part.json.clone())).collect();
        let all = json!({ "ended_at": crate::now() / 1_000_000, "machine": self.machine, "parts": parts });
        let (data, drawing) = (directory.join("results.json"), directory.join("results.svg"));
        fs::write(&data, format!("{}\n", serde_json::to_string_pretty(&all)?))?;
        let panels: Vec<&Panel> = self.parts.iter().flat_map(|part| &part.panels).collect();
        let cores = &self.machine["cores"];
        fs::write(&drawing, plot::svg(&format!("sea_mq on {cores} cores"), &panels))?;
        Ok(vec![data, drawing])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other() {
        let mut report = Report::new(Value::Null);
        let series: Series = [1.0, 20_000.0].into_iter().collect();
        let rows =
            vec![Row::rate("a long name", &series, "/s"), Row::new("b", "1".into(), String::new()).expecting("x")];
        report.add(Measured { key: "k", title: "title".into(), rows, panels: Vec::new(), json: Value::Null });
        let table = report.table();
        let lines: Vec<&str> = table.lines().collect();
        let column = |line: &str, text: &str| line.find(text).map(|at| line[..at].chars().count());
        assert_eq!(column(lines[1], "expected"), column(lines[4], "x"), "{table}");
        assert!(lines[3].ends_with("1 – 20,000"), "{table}");
    }
}
