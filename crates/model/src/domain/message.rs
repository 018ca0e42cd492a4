//! Received messages: what a delivery, or an event of this database's own log, says to a handler.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::cloud_event::{self, Data, Structured};
use super::envelope::{Form, Publication};
use super::event::{Logged, MAX_TEXT};
use super::headers::{Headers, storable};
use crate::broker::Delivery;

/// Microseconds from the Unix epoch to PostgreSQL's.
pub const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;

/// Says how the payload stands for a body that is not JSON: `text` or `base64`.
const BODY_HEADER: &str = "X-Sea-Body";

/// A message, as far as the inbox is concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
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

impl Message {
    /// What a delivery from `stream` says. Never fails: what cannot be handled says so in `defect`.
    pub fn from_delivery(delivery: &Delivery, stream: &str) -> Self {
        let mut headers = Headers::new(delivery.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let (payload, mut defect) = content(&delivery.body, &mut headers);
        if let Some(name) = headers.undecodable() {
            defect.get_or_insert_with(|| format!("what the header {name} encodes is not UTF-8"));
        }
        let subject = storable(&delivery.subject);
        let (subject_context, subject_type, subject_version) = of_subject(&subject);
        let either = |header: &str, attribute: &str| headers.get(header).or_else(|| headers.attribute(attribute));
        let own_id = headers.get("Nats-Msg-Id").filter(|id| can_be_id(id));
        let message_id = own_id.or_else(|| headers.attribute("id").filter(|id| can_be_id(id))).unwrap_or_else(|| {
            // The time tells a stream that was created anew from the one before.
            format!("{stream}:{}:{}", delivery.sequence, delivery.stored_us.saturating_mul(1000))
        });
        let version = either("X-Event-Version", "eventversion").and_then(|version| version.parse().ok());
        let source =
            || headers.attribute("source")?.strip_prefix('/').filter(|name| !name.is_empty()).map(str::to_owned);
        Self {
            source_context: either("X-Source-Context", "context").or(subject_context).or_else(source),
            event_type: either("X-Event-Type", "eventname")
                .or(subject_type)
                .or_else(|| headers.attribute("type"))
                .unwrap_or_else(|| subject.clone()),
            event_version: version.or(subject_version),
            aggregate_type: either("X-Aggregate-Type", "aggregatetype"),
            aggregate_id: either("X-Aggregate-Id", "aggregateid").or_else(|| {
                // Of an event of sea_mq's the subject is the aggregate, and nothing else need say so.
                headers.attribute("aggregatetype").and_then(|_| headers.attribute("subject"))
            }),
            message_id,
            subject,
            payload,
            stream_seq: i64::try_from(delivery.sequence).ok(),
            event_at: delivery.stored_us - POSTGRES_EPOCH_US,
            defect,
            ..Self::from_headers(headers)
        }
    }

    /// What an event of this database's own log says to its own subscriptions: the same as if it came through a broker.
    pub fn from_log(logged: &Logged) -> Self {
        let event = &logged.event;
        let mut headers = Headers::default();
        headers.add("Nats-Msg-Id", &event.id.to_string());
        Publication::new(event, None).each_header(Form::default(), |name, value| headers.add(name, value));
        Self {
            message_id: event.id.to_string(),
            subject: event.subject(),
            source_context: Some(event.context.clone()),
            event_type: event.event_type.clone(),
            event_version: Some(event.event_version),
            aggregate_type: Some(event.aggregate_type.clone()),
            aggregate_id: Some(event.aggregate_id.clone()),
            payload: event.payload.clone(),
            event_at: event.created_at,
            ..Self::from_headers(headers)
        }
    }

    /// What is kept in the headers alone.
    fn from_headers(mut headers: Headers) -> Self {
        headers.settle();
        Self {
            correlation_id: headers.get("X-Correlation-Id"),
            causation_id: headers.get("X-Causation-Id"),
            traceparent: headers.get("traceparent"),
            visibility: headers.get("X-Sea-Visibility"),
            replay_for: headers.get("X-Replay-For"),
            headers: Value::Object(headers.0).to_string(),
            ..Self::default()
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

/// The payload as JSON text, and why it is none if it is not. An event in structured mode is opened: its attributes become
/// headers, so that a message says the same in both modes.
fn content(body: &[u8], headers: &mut Headers) -> (String, Option<String>) {
    let stands_for = |stand_in: (String, &'static str), headers: &mut Headers| {
        headers.set(BODY_HEADER, stand_in.1);
        (stand_in.0, Some("the body is not JSON that PostgreSQL can store".to_owned()))
    };
    let text = match json_text(body) {
        Ok(text) => text,
        Err(stand_in) => return stands_for(stand_in, headers),
    };
    let Some(event) = open(text, headers) else { return (text.to_owned(), None) };
    headers.carry(&event.attributes);
    match event.data {
        Data::Json(text) => (text.to_owned(), None),
        Data::Binary(bytes) => match json_text(&bytes) {
            Ok(text) => (text.to_owned(), None),
            Err(stand_in) => stands_for(stand_in, headers),
        },
    }
}

/// The event in structured mode that a body is.
fn open<'a>(body: &'a str, headers: &Headers) -> Option<Structured<'a>> {
    let said = headers.get(cloud_event::CONTENT_TYPE).is_some_and(|said| cloud_event::is_structured(&said));
    if !said && headers.is_cloud_event() {
        return None;
    }
    // One that does not say what it is may have the envelope of another for its payload.
    let fits = |event: &Structured| {
        said || headers.get("X-Event-Type").is_none()
            || headers.get("X-Sea-Visibility").is_none()
                && headers.get("Nats-Msg-Id").as_ref() == event.attributes.get("id")
    };
    Structured::read(body).filter(fits)
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
    use crate::domain::envelope::{BodyFormat, Metadata};
    use crate::domain::event::{Defaults, EmitArgs, Event};

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
            assert_eq!(message.message_id, "S:7:946684800000005000");
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
    fn a_payload_of_sea_mqs_is_not_opened_whatever_it_looks_like() {
        let body = r#"{"specversion":"1.0","id":"m","type":"t","source":"/o","data":{"x":1}}"#;
        let theirs = [("Nats-Msg-Id", "m"), ("X-Event-Type", "forwarded")];
        assert_eq!(Message::from_delivery(&delivery("s", &theirs, body), "S").payload, "{\"x\":1}");
        let ours = [theirs[0], theirs[1], ("X-Sea-Visibility", "internal")];
        assert_eq!(Message::from_delivery(&delivery("s", &ours, body), "S").payload, body);
    }

    #[test]
    fn a_cloud_event_says_the_same_in_both_modes() {
        let binary = [
            ("content-type", "application/json"),
            ("ce-specversion", "1.0"),
            ("Ce-Id", "m"),
            ("ce-source", "/stock"),
            ("ce-type", "com.acme.counted"),
            ("ce-subject", "A%2042"),
            ("ce-eventversion", "3"),
            ("ce-correlationid", "Gr%C3%BC%C3%9Fe"),
            ("ce-visibility", "public"),
            ("ce-traceparent", "00-1-1-01"),
        ];
        let structured = r#"{"specversion": "1.0", "id": "m", "source": "/stock", "type": "com.acme.counted", "subject": "A 42",
            "eventversion": 3, "correlationid": "Grüße", "visibility": "public", "traceparent": "00-1-1-01", "data": {"x": 1.50}}"#;
        let said = [("Content-Type", "application/cloudevents+json; charset=utf-8"), ("ce-id", "not this")];
        let binary = Message::from_delivery(&delivery("a.b", &binary, "{\"x\": 1.50}"), "S");
        for headers in [&said[..], &[]] {
            let opened = Message::from_delivery(&delivery("a.b", headers, structured), "S");
            let headers = |message: &Message| serde_json::from_str::<Value>(&message.headers.to_lowercase()).unwrap();
            assert_eq!(
                Message { headers: String::new(), ..opened.clone() },
                Message { headers: String::new(), ..binary.clone() }
            );
            let mut told = headers(&opened);
            told["ce-id"] = headers(&binary)["ce-id"].clone();
            assert_eq!(told, headers(&binary));
        }
        assert_eq!((binary.message_id.as_str(), binary.event_type.as_str()), ("m", "com.acme.counted"));
        assert_eq!((binary.source_context.as_deref(), binary.event_version), (Some("stock"), Some(3)));
        assert_eq!((binary.correlation_id.as_deref(), binary.visibility.as_deref()), (Some("Grüße"), Some("public")));
        assert!(binary.headers.contains("\"X-Correlation-Id\":\"Grüße\""), "{}", binary.headers);
    }

    #[test]
    fn the_payload_of_a_cloud_event_in_binary_mode_is_not_opened() {
        let body = r#"{"specversion":"1.0","id":"m","type":"t","source":"/o","data":{"x":1}}"#;
        let binary =
            [("Content-Type", "application/json"), ("ce-specversion", "1.0"), ("ce-id", "m"), ("ce-type", "carried")];
        assert_eq!(Message::from_delivery(&delivery("s", &binary, body), "S").payload, body);
        let forwarded =
            [("Nats-Msg-Id", "other"), ("X-Event-Type", "x"), ("Content-Type", "application/cloudevents+json")];
        assert_eq!(Message::from_delivery(&delivery("s", &forwarded, body), "S").payload, "{\"x\":1}");
    }

    #[test]
    fn an_attribute_that_is_not_utf_8_makes_the_message_a_dead_letter() {
        let headers = [("ce-specversion", "1.0"), ("ce-id", "m"), ("ce-tenant", "%C0%A0")];
        assert!(Message::from_delivery(&delivery("s", &headers, "1"), "S").defect.is_some());
        assert!(Message::from_delivery(&delivery("s", &headers[1..], "1"), "S").defect.is_none(), "no CloudEvent");
    }

    #[test]
    fn data_in_base64_is_taken_as_the_body_would_be() {
        let event = |data: &str| {
            let body = format!(r#"{{"specversion":"1.0","id":"m","type":"t","data_base64":"{data}"}}"#);
            Message::from_delivery(&delivery("s", &[], &body), "S")
        };
        assert_eq!((event("eyJ4IjoxfQ==").payload.as_str(), event("eyJ4IjoxfQ==").defect), ("{\"x\":1}", None));
        assert_eq!(event("AP8BAg==").payload, "\"AP8BAg==\"");
        assert!(event("AP8BAg==").defect.is_some() && event("AP8BAg==").headers.contains("\"base64\""));
    }

    #[test]
    fn the_log_gives_the_same_view_as_the_broker() {
        let args = EmitArgs {
            aggregate_type: Some("order".into()),
            aggregate_id: Some("A 42".into()),
            event_type: Some("Paid".into()),
            payload: Some("{\"a\": 1.50}".into()),
            event_version: Some(2),
            context: Some("orders".into()),
            headers: Some("{\"X-Tenant\": \"acme\"}".into()),
            visibility: Some("public".into()),
            ..EmitArgs::default()
        };
        let event = Event::new(args, &Defaults::default()).unwrap();
        let logged = Logged { seq: 1, xid: 1, committed_at: None, event, schema: Some("sea-mq:/x".into()) };
        let local = Message::from_log(&logged);
        let forms = [BodyFormat::Payload, BodyFormat::Envelope].into_iter().flat_map(|body| {
            [Metadata::Minimal, Metadata::CloudEvents, Metadata::Full].map(|metadata| Form { body, metadata })
        });
        for form in forms {
            let sent = Publication::new(&logged.event, logged.schema.as_deref()).message(form);
            let lines =
                format!("Nats-Msg-Id: {}\r\nNats-Expected-Last-Sequence: 1", sent.headers.into_lines().unwrap());
            let headers: Vec<_> = lines.split("\r\n").filter_map(|line| line.split_once(": ")).collect();
            let body = std::str::from_utf8(&sent.body).unwrap();
            let received = Message::from_delivery(&delivery(&sent.subject, &headers, body), "S");
            if form == Form::default() {
                let view = |message: &Message| serde_json::from_str::<Value>(&message.headers).unwrap();
                assert_eq!(view(&received), view(&local));
            }
            let place = |message: &Message| Message {
                stream_seq: None,
                event_at: 0,
                headers: String::new(),
                ..message.clone()
            };
            assert_eq!(place(&received), place(&local), "{form:?}");
        }
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
