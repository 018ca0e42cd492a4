//! What the events of a captured table say: the aggregate that they are about, and their payload.

use std::fmt::Write;
use std::ops::Range;

use serde_json::Value;

use super::event::MAX_TEXT;
use super::sink::stable_hash;

/// Why rows changed; the names are those in `sea_mq.captures.events`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Insert,
    Update,
    Delete,
    Truncate,
}

/// What one event says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub aggregate_id: String,
    pub payload: String,
}

/// A table was truncated: all of the captured table, or one of its partitions.
pub fn truncation(table: &str, whole: bool) -> Change {
    let mut name = String::new();
    push_string(&mut name, table);
    Change {
        aggregate_id: aggregate_id([name.as_str()].into_iter()),
        payload: format!("{{\"table\":{name},\"whole\":{whole}}}"),
    }
}

/// The id of the aggregate that a row is: its key, which any value may stand in, as one line of bounded length.
///
/// Values stand as they are, joined by commas. What that would not tell apart, or what a header cannot carry, is written with
/// a backslash: `\,` and `\\` for the characters themselves, `\N` for NULL, `\e` for an empty text, `\uXXXX` for control
/// characters and for white space at the ends.
///
/// `key`: the values as JSON, in the order of the key's columns.
pub fn aggregate_id<'a>(key: impl Iterator<Item = &'a str>) -> String {
    let values: Vec<&str> = key.collect();
    let mut id = String::new();
    for (place, json) in values.iter().enumerate() {
        if place > 0 {
            id.push(',');
        }
        match *json {
            "null" => id.push_str("\\N"),
            _ if json.starts_with('"') => {
                push_value(&mut id, &serde_json::from_str::<String>(json).unwrap_or_default(), values.len() > 1);
            }
            _ => push_value(&mut id, json, values.len() > 1),
        }
    }
    shortened(id)
}

fn push_value(id: &mut String, text: &str, joined: bool) {
    if text.is_empty() {
        id.push_str("\\e");
    }
    let last = text.chars().count().saturating_sub(1);
    for (place, c) in text.chars().enumerate() {
        match c {
            '\\' => id.push_str("\\\\"),
            ',' if joined => id.push_str("\\,"),
            _ if c.is_control() || (c.is_whitespace() && (place == 0 || place == last)) => {
                let _ = write!(id, "\\u{:04x}", u32::from(c));
            }
            _ => id.push(c),
        }
    }
}

/// The end of a key that is too long for a header is told by its hash.
fn shortened(mut id: String) -> String {
    const HASH: usize = 16 + 2;
    if id.len() > MAX_TEXT {
        let hash = stable_hash(id.bytes());
        id.truncate((0..=MAX_TEXT - HASH).rev().find(|&at| id.is_char_boundary(at)).unwrap_or(0));
        let _ = write!(id, "\\#{hash:016x}");
    }
    id
}

/// Appends a text as a JSON string.
pub fn push_string(json: &mut String, text: &str) {
    json.push('"');
    let mut written = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..=0x1f => "",
            _ => continue,
        };
        json.push_str(&text[written..at]);
        written = at + 1;
        json.push_str(escape);
        if escape.is_empty() {
            let _ = write!(json, "\\u{byte:04x}");
        }
    }
    json.push_str(&text[written..]);
    json.push('"');
}

/// Appends JSON text as it is; what `jsonb` cannot hold (an escaped NUL, half a surrogate pair, a number beyond all
/// ranges), and what the log could thus not show, as a string.
pub fn push_json(json: &mut String, text: &str) {
    let exponent = || text.as_bytes().windows(2).any(|pair| pair[0].is_ascii_digit() && matches!(pair[1], b'e' | b'E'));
    let doubtful = text.contains("\\u") || exponent();
    if doubtful && !serde_json::from_str(text).is_ok_and(|value: Value| !has_nul(&value)) {
        push_string(json, text);
    } else {
        json.push_str(text);
    }
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(members) => members.iter().any(|(name, value)| name.contains('\0') || has_nul(value)),
        _ => false,
    }
}

/// A column that is sent.
#[derive(Clone, Debug)]
pub struct Sent {
    /// `"name":`.
    pub label: String,
    /// It is part of `row`, not only of the key.
    pub in_row: bool,
}

/// The values of a row as JSON, one after the other.
#[derive(Debug, Default)]
pub struct Encoded {
    pub json: String,
    pub ends: Vec<usize>,
}

impl Encoded {
    pub fn clear(&mut self) {
        self.json.clear();
        self.ends.clear();
    }

    /// Ends a value.
    pub fn end(&mut self) {
        self.ends.push(self.json.len());
    }

    pub fn value(&self, place: usize) -> &str {
        let range: Range<usize> = place.checked_sub(1).map_or(0, |before| self.ends[before])..self.ends[place];
        &self.json[range]
    }
}

/// The payload: the key, the row, and for an update what changed.
///
/// `key`: places among the columns that are sent. `old`: for an update, the values before it and whether they may differ.
/// `None`: an update that changed nothing.
pub fn payload(columns: &[Sent], key: &[usize], row: &Encoded, old: Option<(&Encoded, &[bool])>) -> Option<String> {
    let mut changes = String::new();
    if let Some((old, differs)) = old {
        let changed = |&place: &usize| differs[place] && old.value(place) != row.value(place);
        push_members(&mut changes, columns, (0..columns.len()).filter(changed), old);
        if changes == "{}" {
            return None;
        }
    }
    let mut payload = String::with_capacity(2 * row.json.len() + 256);
    payload.push_str("{\"key\":");
    push_members(&mut payload, columns, key.iter().copied(), row);
    payload.push_str(",\"row\":");
    push_members(&mut payload, columns, (0..columns.len()).filter(|&place| columns[place].in_row), row);
    if !changes.is_empty() {
        payload.push_str(",\"old\":");
        payload.push_str(&changes);
    }
    payload.push('}');
    Some(payload)
}

fn push_members(json: &mut String, columns: &[Sent], places: impl Iterator<Item = usize>, values: &Encoded) {
    json.push('{');
    for (n, place) in places.enumerate() {
        if n > 0 {
            json.push(',');
        }
        json.push_str(&columns[place].label);
        json.push_str(values.value(place));
    }
    json.push('}');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(key: &[&str]) -> String {
        aggregate_id(key.iter().copied())
    }

    #[test]
    fn a_key_reads_as_it_is() {
        assert_eq!(id(&["42"]), "42");
        assert_eq!(id(&["\"a, b\""]), "a, b");
        assert_eq!(id(&["7", "\"de\"", "true"]), "7,de,true");
    }

    #[test]
    fn different_keys_have_different_ids() {
        let keys: [&[&str]; 12] = [
            &["\"a,b\"", "\"c\""],
            &["\"a\"", "\"b,c\""],
            &["\"a\"", "\"b\"", "\"c\""],
            &["\"a\\\\\"", "\"b,c\""],
            &["null", "1"],
            &["\"\\\\N\"", "1"],
            &["\"\"", "1"],
            &["\"\\\\e\"", "1"],
            &["\" a\""],
            &["\"\\\\u0020a\""],
            &["\"a\""],
            &["\"a \""],
        ];
        let ids: std::collections::BTreeSet<String> = keys.iter().map(|key| id(key)).collect();
        assert_eq!(ids.len(), keys.len(), "{ids:?}");
    }

    #[test]
    fn any_key_fits_a_header() {
        assert_eq!(id(&["\"\""]), "\\e");
        assert_eq!(id(&["\"a\\nb \""]), "a\\u000ab\\u0020");
        let long = format!("\"{}\"", "ü".repeat(1000));
        let longer = format!("\"{}\"", "ü".repeat(1001));
        assert!(id(&[&long]).len() <= MAX_TEXT && id(&[&long]) != id(&[&longer]));
    }

    #[test]
    fn strings_are_written_as_json_readers_expect() {
        for text in ["", "plain", "\"quoted\" \\ / \u{8}\u{c}\n\r\t\u{1}\u{1f}", "ü €😀"] {
            let mut json = String::new();
            push_string(&mut json, text);
            assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text, "{json}");
        }
    }

    #[test]
    fn json_that_jsonb_cannot_hold_is_a_string() {
        for (text, kept) in [
            ("{\"a\": [1, \"\\u00e4\"]}", true),
            ("1e10", true),
            ("\"\\\\u0000\"", true),
            ("\"\\u0000\"", false),
            ("{\"\\u0000\": 1}", false),
            ("\"\\ud800\"", false),
            ("1e999999", false),
        ] {
            let mut json = String::new();
            push_json(&mut json, text);
            assert_eq!(json == text, kept, "{text}");
            assert!(kept || serde_json::from_str::<String>(&json).unwrap() == text, "{text}");
        }
    }

    fn encoded(values: &[&str]) -> Encoded {
        let mut encoded = Encoded::default();
        for value in values {
            encoded.json.push_str(value);
            encoded.end();
        }
        encoded
    }

    #[test]
    fn an_update_shows_what_it_changed_and_is_nothing_if_that_is_nothing() {
        let sent = |name: &str, in_row| Sent { label: format!("\"{name}\":"), in_row };
        let columns = [sent("a", true), sent("b", true), sent("id", false)];
        let (before, after) = (encoded(&["1", "2", "7"]), encoded(&["1", "3", "8"]));
        let changed = payload(&columns, &[2], &after, Some((&before, &[true, true, true]))).unwrap();
        assert_eq!(changed, "{\"key\":{\"id\":8},\"row\":{\"a\":1,\"b\":3},\"old\":{\"b\":2,\"id\":7}}");
        assert_eq!(payload(&columns, &[2], &after, Some((&after, &[true, true, true]))), None);
        assert_eq!(payload(&columns, &[2], &after, None).unwrap(), "{\"key\":{\"id\":8},\"row\":{\"a\":1,\"b\":3}}");
    }
}
