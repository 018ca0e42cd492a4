//! A stream as it should be against a stream as it is.
//!
//! Configurations are the server's JSON. A setting that it leaves out has the value that the server means by that.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::subjects;
use sea_mq_model::broker::{OWNER_KEY, Retention, Storage, StreamInfo, StreamSpec};

/// Metadata key under which a stream names the version that described it last.
const VERSION_KEY: &str = "sea_mq.version";
/// What the server uses if no duplicate window is given.
const DEFAULT_DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// What changes subjects on their way into the stream, so that consumers do not find the messages.
const TRANSFORM: &str = "subject_transform";

/// Settings that no update can change.
const FIXED: [&str; 2] = ["storage", "retention"];

/// Settings that differ: name, (wanted, found).
pub(super) type Differences = BTreeMap<String, (String, String)>;

/// The settings of the description in the server's terms, without name and metadata.
pub(super) fn wanted(spec: &StreamSpec, server_has_atomic: bool) -> Map<String, Value> {
    let window = if spec.duplicate_window.is_zero() { DEFAULT_DUPLICATE_WINDOW } else { spec.duplicate_window };
    // The server refuses a window that is longer than it keeps the messages.
    let window = if spec.max_age.is_zero() { window } else { window.min(spec.max_age) };
    // Events discarded before anyone consumed them would be lost; where consumption deletes, the sender waits instead.
    let discard = if spec.retention == Retention::Limits { "old" } else { "new" };
    let mut wanted = Map::new();
    wanted.insert("subjects".into(), json!(spec.subjects));
    wanted.insert("description".into(), json!(spec.description));
    wanted.insert("retention".into(), json!(retention(spec.retention)));
    wanted.insert("discard".into(), json!(discard));
    wanted.insert("max_age".into(), nanos(spec.max_age));
    wanted.insert("max_bytes".into(), json!(limit(spec.max_bytes)));
    wanted.insert("max_msgs".into(), json!(limit(spec.max_msgs)));
    // One message a subject would be most of the events lost.
    wanted.insert("max_msgs_per_subject".into(), json!(-1));
    wanted.insert("max_msg_size".into(), json!(limit(spec.max_msg_size.into())));
    wanted.insert("storage".into(), json!(storage(spec.storage)));
    wanted.insert("num_replicas".into(), json!(spec.replicas.max(1)));
    wanted.insert("duplicate_window".into(), nanos(window));
    wanted.insert("allow_direct".into(), json!(true));
    if server_has_atomic {
        wanted.insert("allow_atomic".into(), json!(spec.allow_atomic));
    }
    wanted
}

/// The configuration of a new stream.
pub(super) fn new_config(spec: &StreamSpec, server_has_atomic: bool) -> Value {
    let mut config = Map::new();
    config.insert("name".into(), json!(spec.name));
    config.extend(wanted(spec, server_has_atomic));
    config.insert("metadata".into(), Value::Object(marked(&Map::new(), spec)));
    Value::Object(config)
}

/// The configuration with all that drifted put right, or `None` if nothing did. Settings and metadata that the
/// description does not speak of are kept.
pub(super) fn updated(found: &Map<String, Value>, spec: &StreamSpec, server_has_atomic: bool) -> Option<Value> {
    let mut config = found.clone();
    for (key, value) in wanted(spec, server_has_atomic) {
        if !same(&key, &value, found) && !is_left_alone(&key, &value, found, spec) {
            config.insert(key, value);
        }
    }
    if transform(found).is_some() {
        config.remove(TRANSFORM);
    }
    let metadata = found.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
    let marked = marked(&metadata, spec);
    if marked != metadata {
        config.insert("metadata".into(), Value::Object(marked));
    }
    (config != *found).then_some(Value::Object(config))
}

/// What [`updated`] puts right.
pub(super) fn drift(found: &Map<String, Value>, spec: &StreamSpec, server_has_atomic: bool) -> Differences {
    let mut drift = Differences::new();
    let Some(updated) = updated(found, spec, server_has_atomic) else { return drift };
    for (key, value) in updated.as_object().into_iter().flatten().filter(|(key, _)| *key != "metadata") {
        if found.get(key) != Some(value) {
            drift.insert(key.clone(), (plain(value), plain(&actual(key, found))));
        }
    }
    if let Some(transform) = transform(found) {
        drift.insert(TRANSFORM.into(), ("none".into(), plain(transform)));
    }
    let wanted = spec.owner.to_string();
    let mark = owner(found).unwrap_or("none");
    if mark != wanted {
        drift.insert(OWNER_KEY.into(), (wanted, mark.into()));
    }
    drift
}

/// Copies that somebody has added are not removed in silence.
fn is_left_alone(key: &str, wanted: &Value, found: &Map<String, Value>, spec: &StreamSpec) -> bool {
    key == "num_replicas" && !spec.fewer_replicas && actual(key, found).as_u64() > wanted.as_u64()
}

fn transform(found: &Map<String, Value>) -> Option<&Value> {
    found.get(TRANSFORM).filter(|value| !value.is_null())
}

/// What differs between the description and the stream.
pub(super) fn differences(found: &Map<String, Value>, spec: &StreamSpec, server_has_atomic: bool) -> Differences {
    let mut differences = Differences::new();
    for (key, value) in wanted(spec, server_has_atomic) {
        if !same(&key, &value, found) {
            differences.insert(key.clone(), (plain(&value), plain(&actual(&key, found))));
        }
    }
    for key in ["republish", "sources"] {
        if let Some(value) = found.get(key).filter(|value| !value.is_null()) {
            differences.insert(key.into(), ("none".into(), plain(value)));
        }
    }
    if !server_has_atomic && spec.allow_atomic {
        differences.insert("allow_atomic".into(), ("true".into(), "not supported by this server".into()));
    }
    differences
}

/// The differences that no update can remove.
pub(super) fn fixed_differences(differences: &Differences) -> Differences {
    differences
        .iter()
        .filter(|(key, _)| FIXED.contains(&key.as_str()))
        .map(|(key, pair)| (key.clone(), pair.clone()))
        .collect()
}

/// What makes a stream unusable for publishing this description's events to it. `as_is`: it is used as it is, and not
/// brought to its description.
pub(super) fn obstacles(found: &Map<String, Value>, spec: &StreamSpec, as_is: bool) -> Differences {
    let mut obstacles = Differences::new();
    for key in ["sealed", "no_ack"] {
        if found.get(key) == Some(&Value::Bool(true)) {
            obstacles.insert(key.into(), ("false".into(), "true".into()));
        }
    }
    if let Some(value) = found.get("mirror").filter(|value| !value.is_null()) {
        obstacles.insert("mirror".into(), ("none".into(), plain(value)));
    }
    if let Some(transform) = transform(found).filter(|_| as_is) {
        obstacles.insert(TRANSFORM.into(), ("none".into(), plain(transform)));
    }
    let subjects: Vec<&str> = list(found, "subjects");
    if as_is && !subjects::uncovered(&subjects, &spec.subjects).is_empty() {
        obstacles.insert("subjects".into(), (spec.subjects.join(", "), subjects.join(", ")));
    }
    obstacles
}

/// Differences in words: `storage is memory, not file`.
pub(super) fn in_words(differences: &Differences) -> String {
    let words: Vec<String> =
        differences.iter().map(|(key, (wanted, found))| format!("{key} is {found}, wanted {wanted}")).collect();
    words.join("; ")
}

/// The installation that a stream's metadata names.
pub(super) fn owner(found: &Map<String, Value>) -> Option<&str> {
    found.get("metadata")?.get(OWNER_KEY)?.as_str()
}

/// A stream's state, from the server's answer.
pub(super) fn stream_info(answer: &Value, differences: Differences, server_has_atomic: bool) -> StreamInfo {
    let number = |path: &str| answer.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    let max_msg_size = answer.pointer("/config/max_msg_size").and_then(Value::as_u64);
    StreamInfo {
        first_sequence: number("/state/first_seq"),
        last_sequence: number("/state/last_seq"),
        messages: number("/state/messages"),
        bytes: number("/state/bytes"),
        created_us: created_us(answer),
        replicas: usize::try_from(number("/config/num_replicas")).unwrap_or(0),
        max_msg_size: max_msg_size.filter(|size| *size > 0).and_then(|size| usize::try_from(size).ok()),
        atomic: server_has_atomic && answer.pointer("/config/allow_atomic") == Some(&Value::Bool(true)),
        differences,
        own: false,
        declined: None,
    }
}

fn marked(metadata: &Map<String, Value>, spec: &StreamSpec) -> Map<String, Value> {
    let mut metadata = metadata.clone();
    metadata.insert(OWNER_KEY.into(), json!(spec.owner.to_string()));
    metadata.insert(VERSION_KEY.into(), json!(env!("CARGO_PKG_VERSION")));
    metadata
}

fn same(key: &str, wanted: &Value, found: &Map<String, Value>) -> bool {
    let actual = actual(key, found);
    match (wanted, &actual) {
        // The order of subjects means nothing.
        (Value::Array(wanted), Value::Array(found)) => {
            wanted.len() == found.len() && wanted.iter().all(|subject| found.contains(subject))
        }
        _ => *wanted == actual,
    }
}

/// A setting's value, with the server's meaning of one that is absent (or, for limits, of zero).
fn actual(key: &str, found: &Map<String, Value>) -> Value {
    let value = found.get(key).filter(|value| !value.is_null());
    match key {
        "max_bytes" | "max_msgs" | "max_msgs_per_subject" | "max_msg_size" => {
            json!(limit(value.and_then(Value::as_i64).unwrap_or(-1)))
        }
        "max_age" | "duplicate_window" => value.cloned().unwrap_or_else(|| json!(0)),
        "description" => value.cloned().unwrap_or_else(|| json!("")),
        "subjects" => value.cloned().unwrap_or_else(|| json!([])),
        "num_replicas" => value.cloned().unwrap_or_else(|| json!(1)),
        "allow_direct" | "allow_atomic" => value.cloned().unwrap_or(Value::Bool(false)),
        _ => value.cloned().unwrap_or(Value::Null),
    }
}

/// For the server, all that is not positive means no limit.
fn limit(value: i64) -> i64 {
    if value > 0 { value } else { -1 }
}

fn nanos(duration: Duration) -> Value {
    json!(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
}

fn retention(retention: Retention) -> &'static str {
    match retention {
        Retention::Limits => "limits",
        Retention::Interest => "interest",
        Retention::WorkQueue => "workqueue",
    }
}

fn storage(storage: Storage) -> &'static str {
    match storage {
        Storage::File => "file",
        Storage::Memory => "memory",
    }
}

fn list<'a>(found: &'a Map<String, Value>, key: &str) -> Vec<&'a str> {
    found
        .get(key)
        .and_then(Value::as_array)
        .map(|list| list.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default()
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(list) if list.iter().all(Value::is_string) => {
            list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

/// When a stream was created, in microseconds since the Unix epoch, from the server's answer.
pub(super) fn created_us(answer: &Value) -> i64 {
    answer.get("created").and_then(Value::as_str).and_then(parse_time).unwrap_or(0)
}

/// Microseconds since the Unix epoch of an RFC 3339 time as nats-server writes it.
pub(super) fn parse_time(text: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let rest = text.get(19..)?;
    let zone = rest.find(['Z', '+', '-'])?;
    let digits: String = rest[..zone].trim_start_matches('.').chars().chain("000000".chars()).take(6).collect();
    let offset = match rest.get(zone..)? {
        "Z" => 0,
        zone => {
            let minutes = zone.get(1..3)?.parse::<i64>().ok()? * 60 + zone.get(4..6)?.parse::<i64>().ok()?;
            if zone.starts_with('-') { -minutes } else { minutes }
        }
    };
    // Days from the civil date, the year beginning in March so that the leap day comes last.
    let shifted = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = 365 * shifted + shifted / 4 - shifted / 100 + shifted / 400 + day_of_year - 719_468;
    let seconds = ((days * 24 + hour) * 60 + minute - offset) * 60 + second;
    Some(seconds * 1_000_000 + digits.parse::<i64>().ok()?)
}

#[cfg(test)]
mod tests;
