//! Rows as spans, in the words of OpenTelemetry's conventions for messaging.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use ring::digest;
use serde::Deserialize;

use crate::rest::request::is_traceparent;

/// The version of the conventions. Another one may give attributes other names: docs/tracing.md lists them.
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.42.0";
/// What OTLP adds to the flags of the trace context: that it came from elsewhere, and that this is known.
const REMOTE: u32 = 0x300;

/// A row of sea_mq.traced_events. Times in microseconds since 1970. What is not traced has a place and nothing else.
#[derive(Deserialize)]
pub struct EventRow {
    pub stream_seq: i64,
    id: Option<String>,
    #[serde(default)]
    traceparent: Option<String>,
    subject: Option<String>,
    correlation_id: Option<String>,
    emitted_us: Option<u64>,
    due_us: Option<u64>,
    committed_us: Option<u64>,
    stored_us: Option<u64>,
}

/// A row of sea_mq.traced_messages, likewise.
#[derive(Deserialize)]
pub struct MessageRow {
    pub id: i64,
    pub status: String,
    message_id: Option<String>,
    subscription: Option<String>,
    subject: Option<String>,
    traceparent: Option<String>,
    correlation_id: Option<String>,
    stream_seq: Option<i64>,
    attempts: Option<i64>,
    begun_us: Option<u64>,
    done_us: Option<u64>,
    error_type: Option<String>,
}

/// From whom a message comes, as the trace knows it.
struct Creation {
    trace: Vec<u8>,
    span: Vec<u8>,
    flags: u32,
}

impl Creation {
    fn of(traceparent: &str) -> Option<Self> {
        if !is_traceparent(traceparent) {
            return None;
        }
        let mut parts = traceparent.split('-').skip(1);
        let (trace, span, flags) = (hex(parts.next()?), hex(parts.next()?), hex(parts.next()?));
        Some(Self { trace, span, flags: flags.first().copied().map_or(REMOTE, |flags| REMOTE | u32::from(flags)) })
    }

    /// A span about the message. Its creation context is both parent and link: the conventions ask for the link, and allow
    /// the parent where a span is about one message.
    fn child(self, id: Vec<u8>, name: String, kind: SpanKind, (begin, end): (u64, u64)) -> Span {
        let link =
            Link { trace_id: self.trace.clone(), span_id: self.span.clone(), flags: self.flags, ..Link::default() };
        Span {
            trace_id: self.trace,
            span_id: id,
            parent_span_id: self.span,
            flags: self.flags,
            name,
            kind: kind.into(),
            start_time_unix_nano: begin * 1000,
            // The clock may have been set back.
            end_time_unix_nano: end.max(begin) * 1000,
            links: vec![link],
            ..Span::default()
        }
    }
}

impl EventRow {
    /// From the emit (or when it was due) to the word of the broker that it is stored.
    pub fn span(&self, stream: &str) -> Option<Span> {
        let (id, subject) = (self.id.as_deref()?, self.subject.as_deref()?);
        let begin = self.emitted_us?.max(self.due_us.unwrap_or_default());
        let creation = Creation::of(self.traceparent.as_deref()?)?;
        let mut span = creation.child(
            span_id(&["send", id]),
            format!("send {subject}"),
            SpanKind::Producer,
            (begin, self.stored_us?),
        );
        span.attributes = common("nats", "send", subject, id, self.correlation_id.as_deref());
        span.attributes.extend([text("sea_mq.stream", stream), number("sea_mq.stream_seq", self.stream_seq)]);
        span.events = self.committed_us.map_or_else(Vec::new, |at| {
            vec![Event { time_unix_nano: at * 1000, name: "committed".into(), ..Event::default() }]
        });
        Some(span)
    }
}

impl MessageRow {
    pub fn is_waiting(&self) -> bool {
        self.status == "waiting"
    }

    /// The attempt that ended it.
    pub fn span(&self) -> Option<Span> {
        let (id, subject) = (self.message_id.as_deref()?, self.subject.as_deref()?);
        let subscription = self.subscription.as_deref()?;
        let creation = Creation::of(self.traceparent.as_deref()?)?;
        let name = format!("process {subscription}");
        let times = (self.begun_us?, self.done_us?);
        let mut span = creation.child(span_id(&["process", subscription, id]), name, SpanKind::Consumer, times);
        // What is delivered inside the database has never been at a broker.
        let system = if self.stream_seq.is_some() { "nats" } else { "sea_mq" };
        span.attributes = common(system, "process", subject, id, self.correlation_id.as_deref());
        span.attributes.push(text("messaging.consumer.group.name", subscription));
        span.attributes.push(text("sea_mq.status", &self.status));
        span.attributes.extend(self.attempts.map(|attempts| number("sea_mq.attempts", attempts)));
        span.attributes.extend(self.stream_seq.map(|seq| number("sea_mq.stream_seq", seq)));
        if let Some(error) = &self.error_type {
            span.attributes.push(text("error.type", error));
            span.status = Some(Status { code: StatusCode::Error.into(), ..Status::default() });
        }
        Some(span)
    }
}

fn common(system: &str, operation: &str, subject: &str, id: &str, conversation: Option<&str>) -> Vec<KeyValue> {
    let mut attributes = vec![
        text("messaging.system", system),
        text("messaging.operation.name", operation),
        text("messaging.operation.type", operation),
        text("messaging.destination.name", subject),
        text("messaging.message.id", id),
    ];
    attributes.extend(conversation.map(|id| text("messaging.message.conversation_id", id)));
    attributes
}

/// An attribute.
pub fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

fn number(key: &str, value: i64) -> KeyValue {
    attribute(key, Value::IntValue(value))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// The same for the same thing, whoever exports it and how often.
fn span_id(parts: &[&str]) -> Vec<u8> {
    let hash = digest::digest(&digest::SHA256, parts.join("\0").as_bytes());
    let mut id = hash.as_ref()[..8].to_vec();
    // All zeros is no id.
    if id.iter().all(|byte| *byte == 0) {
        id[7] = 1;
    }
    id
}

fn hex(text: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok()).unwrap_or_default();
    text.as_bytes().chunks(2).map(|pair| pair.iter().fold(0, |value, byte| value << 4 | digit(*byte))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn event(traceparent: &str, stored: u64) -> EventRow {
        let row = json!({"stream_seq": 7, "id": "e", "traceparent": traceparent, "subject": "orders.event.made.v1",
            "correlation_id": "c", "emitted_us": 20, "due_us": null, "committed_us": 25, "stored_us": stored});
        serde_json::from_value(row).expect("a row")
    }

    #[test]
    fn an_event_s_span_is_the_child_of_the_one_that_it_names_and_has_the_same_id_each_time() {
        let [one, other] = [event(PARENT, 30), event(PARENT, 30)].map(|row| row.span("ORDERS_EVENTS").expect("a span"));
        assert_eq!(one, other);
        assert_eq!(one.trace_id, hex("0af7651916cd43dd8448eb211c80319c"));
        assert_eq!((one.parent_span_id, one.span_id.len()), (hex("b7ad6b7169203331"), 8));
        assert_eq!((one.flags, one.start_time_unix_nano, one.end_time_unix_nano), (0x301, 20_000, 30_000));
        assert_eq!(one.events[0].time_unix_nano, 25_000);
    }

    #[test]
    fn a_span_does_not_end_before_it_begins() {
        assert_eq!(event(PARENT, 10).span("S").expect("a span").end_time_unix_nano, 20_000);
    }

    #[test]
    fn what_is_no_trace_context_has_no_span() {
        assert!(event("00-00000000000000000000000000000000-b7ad6b7169203331-01", 30).span("S").is_none());
    }

    #[test]
    fn subscriptions_of_a_message_have_spans_of_their_own() {
        assert_ne!(span_id(&["process", "a", "m"]), span_id(&["process", "b", "m"]));
        assert_ne!(span_id(&["send", "m"]), span_id(&["process", "", "m"]));
    }
}
