//! Events: what `emit` accepts, what the log keeps, what is sent.

use std::rc::Rc;

use sea_mq_contracts::event_key::EventKey;
use sea_mq_contracts::invalid::{Invalid, InvalidKind};
use sea_mq_contracts::name;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::cloud_event;
use super::sink::{SinkKind, sink_id};
use crate::broker::SinkId;

/// Longest free text (aggregate, correlation and causation ids, one header value) in bytes.
pub const MAX_TEXT: usize = 1024;

/// Largest header block in bytes that JetStream stores.
pub const MAX_HEADERS: usize = 65_535;

/// Values of `visibility`, widest audience first.
pub const VISIBILITIES: [&str; 4] = ["public", "partner", "internal", "sensitive"];

/// The visibility of an event for which neither its emitter nor its contract says one.
pub const DEFAULT_VISIBILITY: &str = "internal";

/// Whether a visibility reaches a wider audience than another.
pub fn is_wider(visibility: &str, than: &str) -> bool {
    let place = |visibility| VISIBILITIES.iter().position(|known| *known == visibility).unwrap_or(VISIBILITIES.len());
    place(visibility) < place(than)
}

/// Header names that sea_mq sets itself; callers use the parameter instead.
const OWN_HEADERS: [(&str, &str); 8] = [
    ("X-Correlation-Id", "correlation_id"),
    ("X-Causation-Id", "causation_id"),
    ("X-Event-Version", "event_version"),
    ("X-Event-Type", "event_type"),
    ("X-Aggregate-Type", "aggregate_type"),
    ("X-Aggregate-Id", "aggregate_id"),
    ("X-Source-Context", "context"),
    ("X-Sea-Visibility", "visibility"),
];

const TRACEPARENT: &str = "traceparent";

/// The arguments of one `emit`, as they came from SQL.
#[derive(Clone, Debug, Default)]
pub struct EmitArgs {
    pub aggregate_type: Option<String>,
    pub aggregate_id: Option<String>,
    pub event_type: Option<String>,
    /// JSON text.
    pub payload: Option<String>,
    pub event_version: Option<i32>,
    pub context: Option<String>,
    pub event_id: Option<Uuid>,
    pub correlation_id: Option<String>,
    pub causation_id: Option<String>,
    /// JSON text.
    pub headers: Option<String>,
    pub visibility: Option<String>,
    /// Microseconds since 2000-01-01 UTC.
    pub available_at: Option<i64>,
}

/// What the session supplies where an argument is left out.
#[derive(Clone, Debug, Default)]
pub struct Defaults {
    pub context: Option<String>,
    pub correlation_id: Option<String>,
    pub causation_id: Option<String>,
    pub traceparent: Option<String>,
    /// Microseconds since 2000-01-01 UTC.
    pub now: i64,
}

/// A checked event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub id: Uuid,
    pub sink: SinkId,
    pub context: String,
    /// `None`: the one that follows from context, name and version.
    pub subject: Option<String>,
    pub aggregate_type: String,
    pub aggregate_id: String,
    pub event_type: String,
    pub event_version: i32,
    /// JSON text, sent as it is.
    pub payload: String,
    /// JSON object of strings: the caller's headers, and `traceparent` where known.
    pub headers: Option<String>,
    /// `None`: the event's own id.
    pub correlation_id: Option<String>,
    pub causation_id: Option<String>,
    pub visibility: String,
    /// Microseconds since 2000-01-01 UTC.
    pub created_at: i64,
    /// Microseconds since 2000-01-01 UTC; set for events that were or are to be held back.
    pub available_at: Option<i64>,
}

/// An event with its place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    pub seq: i64,
    /// The transaction that wrote it.
    pub xid: u64,
    /// When that transaction committed, as far as that is known. Microseconds since 2000-01-01 UTC.
    pub committed_at: Option<i64>,
    pub event: Event,
    /// URI of the schema that its type is registered with.
    pub schema: Option<Rc<str>>,
}

impl Logged {
    /// Since when it could have been stored. Where the commit is not known: since it was emitted, or was due.
    pub fn ready_at(&self) -> i64 {
        let emitted_at = || self.event.created_at.max(self.event.available_at.unwrap_or(i64::MIN));
        self.committed_at.unwrap_or_else(emitted_at)
    }
}

impl Event {
    /// Bytes of memory that it takes, about.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.payload.len() + self.headers.as_ref().map_or(0, String::len)
    }

    /// Checks the arguments and fills in what was left out.
    pub fn new(args: EmitArgs, defaults: &Defaults) -> Result<Self, Invalid> {
        let context = args.context.as_deref().or(defaults.context.as_deref()).filter(|c| !c.is_empty());
        let context = name::context_name(context.ok_or_else(unknown_context)?)?;
        let event_type = required("event_type", args.event_type.as_deref())?;
        let event_version =
            args.event_version.ok_or_else(|| Invalid::missing("event_version", "Leave it out for 1."))?;
        let payload = args.payload.ok_or_else(|| {
            Invalid::missing("payload", "Pass '{}' for an event without content, or 'null'::jsonb for a JSON null.")
        })?;
        let id = args.event_id.unwrap_or_else(Uuid::now_v7);
        Ok(Self {
            id,
            sink: sink_id(&context, SinkKind::Event),
            subject: None,
            aggregate_type: text("aggregate_type", required("aggregate_type", args.aggregate_type.as_deref())?)?,
            aggregate_id: text("aggregate_id", required("aggregate_id", args.aggregate_id.as_deref())?)?,
            event_type: name::event_name(event_type)?,
            event_version: name::event_version(event_version)?,
            payload,
            headers: checked_headers(args.headers.as_deref(), defaults.traceparent.as_deref())?,
            correlation_id: optional("correlation_id", args.correlation_id, &defaults.correlation_id)?,
            causation_id: optional("causation_id", args.causation_id, &defaults.causation_id)?,
            visibility: checked_visibility(args.visibility)?,
            created_at: defaults.now,
            available_at: checked_time(args.available_at)?.filter(|&at| at > defaults.now),
            context,
        })
    }

    /// What its contract is known by.
    pub fn key(&self) -> EventKey {
        EventKey { context: self.context.clone(), event_type: self.event_type.clone(), version: self.event_version }
    }

    /// The subject that the event is published on.
    pub fn subject(&self) -> String {
        match &self.subject {
            Some(subject) => subject.clone(),
            None => name::event_subject(&self.context, &self.event_type, self.event_version),
        }
    }

    /// Whether a repeated `emit` with this event's id may pass for it: what the event says is the same. Correlation,
    /// causation and trace may differ, since they belong to the attempt.
    pub fn same_content(&self, other: &Event) -> bool {
        self.sink == other.sink
            && self.subject() == other.subject()
            && self.aggregate_type == other.aggregate_type
            && self.aggregate_id == other.aggregate_id
            && self.payload == other.payload
            && self.visibility == other.visibility
            && self.caller_headers() == other.caller_headers()
    }

    /// The headers that the caller gave, in alphabetical order, without the trace.
    pub fn caller_headers(&self) -> Vec<(String, String)> {
        let mut headers = parse_headers(self.headers.as_deref());
        headers.retain(|(name, _)| !name.eq_ignore_ascii_case(TRACEPARENT));
        headers.sort();
        headers
    }
}

/// A text of somebody else's as a header can carry it: one line of bounded length.
pub fn one_line(text: &str) -> String {
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    while line.len() > MAX_TEXT {
        line.pop();
    }
    line.trim().to_owned()
}

/// The headers of somebody else's message as they can be sent on: what cannot is left out or made one line. What it said of
/// itself as a CloudEvent goes with it; see `Publication`.
pub fn headers_to_send_on(json: Option<&str>) -> Option<String> {
    let fits = |name: &str, value: &Value| match cloud_event::attribute_of(name) {
        Some(attribute) => !cloud_event::is_of_message(&attribute),
        None => check_header(name, value).is_ok(),
    };
    let fit: Map<String, Value> = parse_headers(json)
        .into_iter()
        .map(|(name, value)| (name, Value::String(one_line(&value))))
        .filter(|(name, value)| fits(name, value))
        .collect();
    (!fit.is_empty()).then(|| Value::Object(fit).to_string())
}

/// Whether a character can stand in a token of a subject to publish on.
fn fits_token(c: char) -> bool {
    !(c.is_whitespace() || c.is_control() || matches!(c, '*' | '>'))
}

/// Somebody else's subject as a part of one to publish on: servers store what is published on subjects that are none.
pub fn fit_subject(subject: &str) -> String {
    let fit = |token: &str| match token {
        "" => "_".to_owned(),
        token => token.chars().map(|c| if fits_token(c) { c } else { '_' }).collect(),
    };
    subject.split('.').map(fit).collect::<Vec<_>>().join(".")
}

/// Refuses what is no subject to publish on.
pub fn check_subject(subject: &str) -> Result<(), Invalid> {
    if subject.split('.').all(|token| !token.is_empty() && token.chars().all(fits_token)) {
        return Ok(());
    }
    Err(Invalid::value(
        format!("\"{}\" is not a subject to publish on", subject.escape_debug()),
        "Tokens separated by dots, without white space, * and >.",
    ))
}

fn unknown_context() -> Invalid {
    Invalid::new(
        InvalidKind::Unknown,
        "the context of the event is not known",
        "Set it for the database, ALTER DATABASE ... SET sea_mq.context = 'orders', or pass context => 'orders'.",
    )
}

fn required<'a>(parameter: &str, value: Option<&'a str>) -> Result<&'a str, Invalid> {
    let value = value.ok_or_else(|| Invalid::missing(parameter, format!("Pass a value for {parameter}.")))?;
    if value.is_empty() {
        return Err(Invalid::value(format!("{parameter} must not be empty"), format!("Pass a value for {parameter}.")));
    }
    Ok(value)
}

/// Free text that becomes a header value: one line of bounded length.
fn text(parameter: &str, value: &str) -> Result<String, Invalid> {
    if value.len() > MAX_TEXT {
        return Err(Invalid::new(
            InvalidKind::TooLarge,
            format!("{parameter} is {} bytes long, the limit is {MAX_TEXT}", value.len()),
            "Long content belongs into the payload.",
        ));
    }
    if let Some(c) = value.chars().find(|c| c.is_control()) {
        return Err(Invalid::value(
            format!("{parameter} contains the control character {c:?}"),
            "It is sent as a NATS header, which is one line of text.",
        ));
    }
    if value.trim() != value {
        return Err(Invalid::value(
            format!("{parameter} begins or ends with white space"),
            "It is sent as a NATS header, where white space at the ends is lost.",
        ));
    }
    Ok(value.to_owned())
}

fn optional(parameter: &str, given: Option<String>, default: &Option<String>) -> Result<Option<String>, Invalid> {
    match given.as_ref().or(default.as_ref()).filter(|value| !value.is_empty()) {
        Some(value) => text(parameter, value).map(Some),
        None => Ok(None),
    }
}

fn checked_time(available_at: Option<i64>) -> Result<Option<i64>, Invalid> {
    // How PostgreSQL stores 'infinity'.
    if available_at == Some(i64::MAX) {
        return Err(Invalid::value(
            "available_at is infinity",
            "An event that is never due is not an event; leave it out.",
        ));
    }
    Ok(available_at)
}

fn checked_visibility(visibility: Option<String>) -> Result<String, Invalid> {
    let visibility = visibility.unwrap_or_else(|| DEFAULT_VISIBILITY.to_owned());
    if VISIBILITIES.contains(&visibility.as_str()) {
        return Ok(visibility);
    }
    Err(Invalid::value(
        format!("visibility \"{visibility}\" is not known"),
        format!("Use one of {}.", VISIBILITIES.join(", ")),
    ))
}

/// The caller's headers, checked, with the session's `traceparent` unless the caller gave one.
fn checked_headers(given: Option<&str>, traceparent: Option<&str>) -> Result<Option<String>, Invalid> {
    let mut headers = match given {
        None => Map::new(),
        Some(json) => match serde_json::from_str(json) {
            Ok(Value::Object(map)) => map,
            _ => return Err(not_an_object()),
        },
    };
    for (name, value) in &headers {
        check_header(name, value)?;
    }
    let has_trace = headers.keys().any(|name| name.eq_ignore_ascii_case(TRACEPARENT));
    if let Some(trace) = traceparent.filter(|trace| !trace.is_empty() && !has_trace) {
        headers.insert(TRACEPARENT.to_owned(), Value::String(text("sea_mq.traceparent", trace)?));
    }
    Ok((!headers.is_empty()).then(|| Value::Object(headers).to_string()))
}

fn not_an_object() -> Invalid {
    Invalid::value("headers must be a JSON object of strings", "As in '{\"X-Tenant\": \"acme\"}'.")
}

fn check_header(name: &str, value: &Value) -> Result<(), Invalid> {
    // The characters of an HTTP token (RFC 9110, section 5.6.2), which is what NATS clients agree on.
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if name.is_empty() || name.len() > MAX_TEXT || !name.chars().all(is_token) {
        return Err(Invalid::value(
            format!("header name \"{}\" cannot be used", name.escape_debug()),
            "Header names consist of letters, digits and \"-\".",
        ));
    }
    if name.len() >= 5 && name.as_bytes()[..5].eq_ignore_ascii_case(b"Nats-") {
        return Err(Invalid::value(
            format!("header \"{name}\" is reserved"),
            "Headers that begin with Nats- steer the broker and are set by sea_mq alone.",
        ));
    }
    if is_cloud_event_header(name) {
        return Err(Invalid::value(
            format!("header \"{name}\" is reserved"),
            "Content-Type and headers that begin with ce- say what the message is as a CloudEvent and are set by sea_mq alone.",
        ));
    }
    if let Some((_, parameter)) = OWN_HEADERS.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)) {
        return Err(Invalid::value(
            format!("header \"{name}\" is set by sea_mq"),
            format!("Use the parameter {parameter} instead."),
        ));
    }
    match value {
        Value::String(value) => text(&format!("header {name}"), value).map(drop),
        _ => Err(not_an_object()),
    }
}

fn is_cloud_event_header(name: &str) -> bool {
    let prefix = name.get(..cloud_event::PREFIX.len());
    name.eq_ignore_ascii_case(cloud_event::CONTENT_TYPE)
        || prefix.is_some_and(|start| start.eq_ignore_ascii_case(cloud_event::PREFIX))
}

/// Headers that were checked before they were stored.
pub fn parse_headers(json: Option<&str>) -> Vec<(String, String)> {
    let Some(Ok(Value::Object(map))) = json.map(serde_json::from_str) else { return Vec::new() };
    map.into_iter()
        .filter_map(|(name, value)| match value {
            Value::String(value) => Some((name, value)),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> EmitArgs {
        EmitArgs {
            aggregate_type: Some("order".into()),
            aggregate_id: Some("42".into()),
            event_type: Some("OrderCreated".into()),
            payload: Some("{\"total\": 1}".into()),
            event_version: Some(1),
            context: Some("orders".into()),
            visibility: Some("internal".into()),
            ..EmitArgs::default()
        }
    }

    fn refused(change: impl FnOnce(&mut EmitArgs)) -> InvalidKind {
        let mut args = args();
        change(&mut args);
        Event::new(args, &Defaults::default()).unwrap_err().kind
    }

    #[test]
    fn the_subject_follows_from_context_name_and_version() {
        let event = Event::new(EmitArgs { event_version: Some(3), ..args() }, &Defaults::default()).unwrap();
        assert_eq!(event.subject(), "orders.event.order_created.v3");
    }

    #[test]
    fn bad_arguments_are_told_apart() {
        assert_eq!(refused(|a| a.event_type = None), InvalidKind::Missing);
        assert_eq!(refused(|a| a.event_type = Some(String::new())), InvalidKind::Value);
        assert_eq!(refused(|a| a.event_version = Some(0)), InvalidKind::Value);
        assert_eq!(refused(|a| a.context = None), InvalidKind::Unknown);
        assert_eq!(refused(|a| a.payload = None), InvalidKind::Missing);
        assert_eq!(refused(|a| a.visibility = Some("secret".into())), InvalidKind::Value);
        assert_eq!(refused(|a| a.aggregate_id = Some("a\nb".into())), InvalidKind::Value);
        assert_eq!(refused(|a| a.aggregate_id = Some("x".repeat(2000))), InvalidKind::TooLarge);
    }

    #[test]
    fn headers_are_an_object_of_strings_and_not_the_brokers() {
        let bad = [
            "[]",
            "1",
            "{\"a\": 1}",
            "{\"nats-msg-id\": \"x\"}",
            "{\"a b\": \"x\"}",
            "{\"\": \"x\"}",
            "{\"x-event-type\": \"x\"}",
            "{\"content-type\": \"x\"}",
            "{\"CE-whatever\": \"x\"}",
            "{\"ce-\": \"x\"}",
            "{\"a\": \"x\\r\\ny\"}",
        ];
        for headers in bad {
            assert_eq!(refused(|a| a.headers = Some(headers.into())), InvalidKind::Value, "{headers}");
        }
    }

    #[test]
    fn the_callers_trace_wins_over_the_sessions() {
        let defaults = Defaults { traceparent: Some("session".into()), ..Defaults::default() };
        let own = EmitArgs { headers: Some("{\"Traceparent\": \"own\"}".into()), ..args() };
        assert_eq!(Event::new(own, &defaults).unwrap().headers.unwrap(), "{\"Traceparent\":\"own\"}");
        assert_eq!(Event::new(args(), &defaults).unwrap().headers.unwrap(), "{\"traceparent\":\"session\"}");
    }

    #[test]
    fn the_same_content_may_come_with_another_trace() {
        let first = Event::new(args(), &Defaults::default()).unwrap();
        let defaults =
            Defaults { traceparent: Some("t".into()), correlation_id: Some("c".into()), ..Defaults::default() };
        assert!(first.same_content(&Event::new(args(), &defaults).unwrap()));
        let other = EmitArgs { payload: Some("{}".into()), ..args() };
        assert!(!first.same_content(&Event::new(other, &defaults).unwrap()));
    }

    #[test]
    fn what_others_sent_is_made_fit_to_be_sent_on() {
        assert_eq!(one_line(" a\r\nb\u{7}"), "a  b");
        assert_eq!(one_line(&"ü".repeat(2000)).len(), MAX_TEXT);
        let json =
            "{\"X-A\": \"1\\r\\n2\", \"b c\": \"x\", \"Nats-Msg-Id\": \"y\", \"X-Event-Type\": \"z\", \"ce-id\": \"y\",
            \"ce-type\": \"t\", \"ce-b-c\": \"x\", \"Content-Type\": \"text/plain\"}";
        assert_eq!(headers_to_send_on(Some(json)).unwrap(), "{\"X-A\":\"1  2\",\"ce-type\":\"t\"}");
        assert!(check_subject("orders.dlq.orders.event.paid.v1").is_ok());
        for subject in ["", "a..b", "a b", "a.*", "a.>", "a\r\nPUB x"] {
            assert_eq!(check_subject(subject).unwrap_err().kind, InvalidKind::Value, "{subject:?}");
            assert!(check_subject(&fit_subject(subject)).is_ok(), "{subject:?}");
        }
    }
}
