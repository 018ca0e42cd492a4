//! Received messages: what a delivery, or an event of this database's own log, says to a handler.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::event::{Logged, MAX_TEXT};
use crate::broker::Delivery;

/// Microseconds from the Unix epoch to PostgreSQL's.
pub const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;

/// Says how the payload stands for a body that is not JSON: `text` or `base64`.
const BODY_HEADER: &str = "X-Sea-Body";

/// A message, as far as the inbox is concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// What it is known by, so that it is handled once.
    pub message_id: String,
    pub subject: String,
    pub source_context: Option<String>,
    /// The subject, if the message does not say.
    pub event_type: String,
    pub event_version: Option<i32>,
    pub aggregate_type: Option<String>,
    pub aggregate_id: Option<String>,
    /// JSON text.
    pub payload: String,
    /// JSON object of strings.
    pub headers: String,
    pub correlation_id: Option<String>,
    pub causation_id: Option<String>,
    pub traceparent: Option<String>,
    pub visibility: Option<String>,
    /// Sequence in the stream.
    pub stream_seq: Option<i64>,
    /// When the stream stored it or, inside the database, when it was emitted: microseconds since 2000-01-01 UTC.
    pub event_at: i64,
    /// The one subscription that a replay is for.
    pub replay_for: Option<String>,
    /// Why it can never be handled.
    pub defect: Option<String>,
}

/// A CloudEvents 1.0 event in structured JSON form.
#[derive(Deserialize)]
struct Envelope<'a> {
    specversion: String,
    id: String,
    #[serde(rename = "type")]
    _type: String,
    context: Option<String>,
    eventname: Option<String>,
    eventversion: Option<i32>,
    aggregatetype: Option<String>,
    aggregateid: Option<String>,
    correlationid: Option<String>,
    causationid: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// Headers by name, whatever its case.
struct Headers(Map<String, Value>);

impl Headers {
    fn new(pairs: &[(String, String)]) -> Self {
        let mut map = Map::new();
        // Those that steer the broker are of no interest any more.
        let kept = pairs.iter().filter(|(name, _)| !name.starts_with("Nats-") || name == "Nats-Msg-Id");
        for (name, value) in kept {
            let value = storable(value);
            match map.get_mut(name) {
                Some(Value::String(known)) => *known = format!("{known}, {value}"),
                _ => drop(map.insert(storable(name), Value::String(value))),
            }
        }
        Self(map)
    }

    fn get(&self, name: &str) -> Option<String> {
        let found = self
            .0
            .get(name)
            .or_else(|| self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value));
        found.and_then(Value::as_str).filter(|value| !value.is_empty()).map(str::to_owned)
    }
}

impl Message {
    /// What a delivery from `stream` says. Never fails: what cannot be handled says so in `defect`.
    pub fn from_delivery(delivery: &Delivery, stream: &str) -> Self {
        let mut headers = Headers::new(&delivery.headers);
        let id = headers.get("Nats-Msg-Id").filter(|id| can_be_id(id));
        let named = headers.get("X-Event-Type");
        let (payload, defect) = match json_text(&delivery.body) {
            Ok(text) => (text.to_owned(), None),
            Err((stand_in, kind)) => {
                headers.0.insert(BODY_HEADER.into(), Value::String(kind.into()));
                (stand_in, Some("the body is not JSON that PostgreSQL can store".to_owned()))
            }
        };
        let envelope = envelope(&payload).filter(|found| named.is_none() || id.as_ref() == Some(&found.id));
        let subject = storable(&delivery.subject);
        let (subject_context, subject_type, subject_version) = of_subject(&subject);
        let from_envelope =
            |take: fn(&Envelope) -> Option<String>| envelope.as_ref().and_then(take).as_deref().map(storable);
        let from_body = || from_envelope(|e| Some(e.id.clone())).filter(|id| can_be_id(id));
        let message_id = id.or_else(from_body).unwrap_or_else(|| {
            // The time tells a stream that was created anew from the one before.
            format!("{stream}:{}:{}", delivery.sequence, delivery.stored_us.saturating_mul(1000))
        });
        Self {
            source_context: headers
                .get("X-Source-Context")
                .or_else(|| from_envelope(|e| e.context.clone()))
                .or(subject_context),
            event_type: named
                .or_else(|| from_envelope(|e| e.eventname.clone()))
                .or(subject_type)
                .unwrap_or_else(|| subject.clone()),
            event_version: headers
                .get("X-Event-Version")
                .and_then(|version| version.parse().ok())
                .or_else(|| envelope.as_ref().and_then(|e| e.eventversion))
                .or(subject_version),
            aggregate_type: headers.get("X-Aggregate-Type").or_else(|| from_envelope(|e| e.aggregatetype.clone())),
            aggregate_id: headers.get("X-Aggregate-Id").or_else(|| from_envelope(|e| e.aggregateid.clone())),
            correlation_id: headers.get("X-Correlation-Id").or_else(|| from_envelope(|e| e.correlationid.clone())),
            causation_id: headers.get("X-Causation-Id").or_else(|| from_envelope(|e| e.causationid.clone())),
            traceparent: headers.get("traceparent"),
            visibility: headers.get("X-Sea-Visibility"),
            replay_for: headers.get("X-Replay-For"),
            payload: envelope
                .as_ref()
                .map_or_else(|| payload.clone(), |e| e.data.map_or("null", RawValue::get).to_owned()),
            headers: Value::Object(headers.0).to_string(),
            message_id,
            subject,
            stream_seq: i64::try_from(delivery.sequence).ok(),
            event_at: delivery.stored_us - POSTGRES_EPOCH_US,
            defect,
        }
    }

    /// What an event of this database's own log says to its own subscriptions.
    pub fn from_log(logged: &Logged) -> Self {
        let event = &logged.event;
        let headers = Headers::new(&event.wire_headers());
        Self {
            message_id: event.id.to_string(),
            subject: event.subject(),
            source_context: Some(event.context.clone()),
            event_type: event.event_type.clone(),
            event_version: Some(event.event_version),
            aggregate_type: Some(event.aggregate_type.clone()),
            aggregate_id: Some(event.aggregate_id.clone()),
            payload: event.payload.clone(),
            correlation_id: headers.get("X-Correlation-Id"),
            causation_id: event.causation_id.clone(),
            traceparent: headers.get("traceparent"),
            visibility: Some(event.visibility.clone()),
            replay_for: headers.get("X-Replay-For"),
            headers: Value::Object(headers.0).to_string(),
            stream_seq: None,
            event_at: event.created_at,
            defect: None,
        }
    }

    /// Marks a message whose payload PostgreSQL refuses to store. The payload becomes a JSON string of it.
    pub fn refuse_payload(&mut self, why: &str) {
        self.payload = Value::String(storable(&self.payload)).to_string();
        if let Ok(Value::Object(mut headers)) = serde_json::from_str(&self.headers) {
            headers.insert(BODY_HEADER.into(), Value::String("text".into()));
            self.headers = Value::Object(headers).to_string();
        }
        self.defect = Some(format!("PostgreSQL cannot store the body: {why}"));
    }
}

/// A text without the one character that PostgreSQL's has no room for.
fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// An empty id would make all messages that have it doubles of the first, and a long one fits into no index.
fn can_be_id(id: &str) -> bool {
    !id.is_empty() && id.len() <= MAX_TEXT
}

/// The body as JSON text; else a JSON string that stands for it, and how.
fn json_text(body: &[u8]) -> Result<&str, (String, &'static str)> {
    match std::str::from_utf8(body) {
        Ok(text) if serde_json::from_str::<IgnoredAny>(text).is_ok() => Ok(text),
        Ok(text) if !text.contains('\0') => Err((Value::String(text.to_owned()).to_string(), "text")),
        _ => Err((Value::String(BASE64.encode(body)).to_string(), "base64")),
    }
}

fn envelope(payload: &str) -> Option<Envelope<'_>> {
    // Most payloads are none, and a look for the word is much cheaper than taking them apart.
    if !payload.contains("\"specversion\"") {
        return None;
    }
    serde_json::from_str::<Envelope>(payload).ok().filter(|envelope| envelope.specversion == "1.0")
}

/// Context, event type and version of a subject `{context}.event.{type}.v{version}`.
fn of_subject(subject: &str) -> (Option<String>, Option<String>, Option<i32>) {
    let mut tokens = subject.split('.');
    match (tokens.next(), tokens.next(), tokens.next(), tokens.next(), tokens.next()) {
        (Some(context), Some("event"), Some(name), Some(version), None) => {
            let number = version.strip_prefix('v').and_then(|number| number.parse().ok());
            (Some(context.to_owned()), Some(name.to_owned()), number)
        }
        _ => (None, None, None),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn delivery(subject: &str, headers: &[(&str, &str)], body: &str) -> Delivery {
        Delivery {
            token: 0,
            sequence: 7,
            delivered: 1,
            stored_us: POSTGRES_EPOCH_US + 5,
            pending: 0,
            subject: subject.into(),
            headers: headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    #[test]
    fn a_message_of_sea_mq_says_all_in_its_headers() {
        let headers =
            [("Nats-Msg-Id", "m"), ("X-Event-Type", "paid"), ("X-Event-Version", "2"), ("X-Aggregate-Id", "42")];
        let message = Message::from_delivery(&delivery("orders.event.paid.v2", &headers, "{\"a\": 1.50}"), "S");
        assert_eq!((message.message_id.as_str(), message.event_type.as_str()), ("m", "paid"));
        assert_eq!((message.event_version, message.aggregate_id.as_deref()), (Some(2), Some("42")));
        assert_eq!(message.payload, "{\"a\": 1.50}");
        assert_eq!((message.event_at, message.defect), (5, None));
    }

    #[test]
    fn a_foreign_message_is_known_by_its_place_and_read_by_its_subject() {
        let message = Message::from_delivery(&delivery("orders.event.order_paid.v3", &[], "[]"), "S");
        assert_eq!(message.message_id, "S:7:946684800000005000");
        assert_eq!(message.source_context.as_deref(), Some("orders"));
        assert_eq!((message.event_type.as_str(), message.event_version), ("order_paid", Some(3)));
        assert_eq!(Message::from_delivery(&delivery("a.b", &[], "1"), "S").event_type, "a.b");
    }

    #[test]
    fn an_id_that_is_empty_or_too_long_is_none() {
        for id in [String::new(), "x".repeat(MAX_TEXT + 1)] {
            let body =
                serde_json::json!({"specversion": "1.0", "id": id, "type": "t", "source": "/o", "eventname": "paid"});
            let message = Message::from_delivery(&delivery("s", &[("Nats-Msg-Id", &id)], &body.to_string()), "S");
            assert_eq!((message.message_id.as_str(), message.event_type.as_str()), ("S:7:946684800000005000", "paid"));
        }
    }

    #[test]
    fn no_text_has_the_character_that_postgresql_has_not() {
        let evil = "a\0b";
        let body = serde_json::json!({"specversion": "1.0", "id": evil, "type": evil, "source": evil, "context": evil,
            "eventname": evil, "aggregatetype": evil, "aggregateid": evil, "correlationid": evil, "causationid": evil});
        let message = Message::from_delivery(&delivery("s\0", &[("X-\0", evil)], &body.to_string()), "S");
        assert!(!format!("{message:?}").contains("\\0"), "{message:?}");
        assert_eq!(message.event_type, "a\u{fffd}b");
    }

    #[test]
    fn an_envelope_is_opened_unless_it_is_the_payload() {
        let body = r#"{"specversion":"1.0","id":"m","type":"t","source":"/o","eventname":"paid","data":{"x":1}}"#;
        let opened = Message::from_delivery(&delivery("s", &[], body), "S");
        assert_eq!(
            (opened.message_id.as_str(), opened.event_type.as_str(), opened.payload.as_str()),
            ("m", "paid", "{\"x\":1}")
        );
        let other = [("Nats-Msg-Id", "other"), ("X-Event-Type", "forwarded")];
        assert_eq!(Message::from_delivery(&delivery("s", &other, body), "S").payload, body);
    }

    #[test]
    fn a_body_that_is_not_json_is_kept_as_a_string() {
        let text = Message::from_delivery(&delivery("s", &[], "hello"), "S");
        assert_eq!(text.payload, "\"hello\"");
        assert!(text.defect.is_some() && text.headers.contains("\"X-Sea-Body\":\"text\""));
        let mut binary = delivery("s", &[], "");
        binary.body = Bytes::from_static(&[0, 255, 1, 2]);
        assert_eq!(Message::from_delivery(&binary, "S").payload, "\"AP8BAg==\"");
    }
}
