//! Events as messages: headers and body, in either of the CloudEvents content modes.
//!
//! A body that is the payload has the attributes beside it, as `ce-` headers
//! (<https://github.com/cloudevents/spec/blob/main/cloudevents/bindings/nats-protocol-binding.md>). A body that is the
//! whole envelope has them in it (<https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md>);
//! `schemas/events/envelope-v1.schema.json` is its contract.

use std::io::Write;

use bytes::Bytes;
use sea_mq_contracts::event_key::uri_path;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use super::cloud_event::{self, CONTENT_TYPE, JSON, PREFIX, STRUCTURED, VERSION};
use super::event::{Event, parse_headers};
use super::header_block::HeaderBlock;
use crate::broker::Outgoing;

/// What a stream's messages carry as their body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFormat {
    Payload,
    Envelope,
}

impl BodyFormat {
    /// The value of `sea_mq.streams.body`.
    pub fn from_token(token: &str) -> Option<Self> {
        match token {
            "payload" => Some(Self::Payload),
            "envelope" => Some(Self::Envelope),
            _ => None,
        }
    }
}

/// Which headers say what an event is. The setting `metadata` of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Metadata {
    /// The `X-` headers.
    #[default]
    Minimal,
    /// Each fact once: CloudEvents' attributes as `ce-` headers, and as `X-` headers what these and the subject do not say.
    CloudEvents,
    /// The `X-` headers and all attributes, most facts twice.
    Full,
}

impl Metadata {
    /// The value of `sea_mq.streams.metadata`.
    pub fn from_token(token: &str) -> Option<Self> {
        match token {
            "minimal" => Some(Self::Minimal),
            "cloudevents" => Some(Self::CloudEvents),
            "full" => Some(Self::Full),
            _ => None,
        }
    }
}

/// How a stream's messages look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    pub body: BodyFormat,
    pub metadata: Metadata,
}

impl Form {
    /// That of the values of `sea_mq.streams.body` and `metadata`.
    pub fn from_tokens(body: &str, metadata: &str) -> Option<Self> {
        Some(Self { body: BodyFormat::from_token(body)?, metadata: Metadata::from_token(metadata)? })
    }

    pub const fn full(body: BodyFormat) -> Self {
        Self { body, metadata: Metadata::Full }
    }
}

impl Default for Form {
    fn default() -> Self {
        Self { body: BodyFormat::Payload, metadata: Metadata::default() }
    }
}

/// Attributes that another header or the type says as well.
const REPEATED: [&str; 7] =
    ["datacontenttype", "context", "eventname", "eventversion", "aggregateid", "correlationid", "causationid"];

/// Bytes of a message: its header block and its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub headers: usize,
    pub body: usize,
}

/// An event about to become a message.
pub struct Publication<'a> {
    event: &'a Event,
    id: String,
    /// URI of the schema that its type is registered with.
    schema: Option<&'a str>,
    /// The caller's headers.
    headers: Vec<(String, String)>,
    /// What a dead letter or a replay keeps of the original's attributes.
    kept: Vec<(String, String)>,
}

impl<'a> Publication<'a> {
    pub fn new(event: &'a Event, schema: Option<&'a str>) -> Self {
        let mut headers = parse_headers(event.headers.as_deref());
        let mut kept = Vec::new();
        headers.retain(|(name, value)| {
            let attribute = cloud_event::attribute_of(name);
            let own = attribute.is_none();
            let text = cloud_event::decode(value).filter(|text| !text.is_empty());
            kept.extend(attribute.zip(text));
            own
        });
        Self { event, id: event.id.to_string(), schema, headers, kept }
    }

    /// The message.
    pub fn message(&self, form: Form) -> Outgoing {
        let mut headers = HeaderBlock::new(&self.id);
        self.each_header(form, |name, value| headers.push(name, value));
        Outgoing { subject: self.event.subject(), headers, body: self.body(form.body) }
    }

    /// What the message takes of the server's `max_payload`, at most: the zeros that its time ends with count as if they were
    /// written, so that the clock does not decide whether an event is too large.
    pub fn size(&self, form: Form) -> Size {
        const FRAME: usize = "NATS/1.0\r\nNats-Msg-Id: \r\n\r\n".len();
        const EXPECTED: usize = "Nats-Expected-Last-Sequence: 18446744073709551615\r\n\
            Nats-Expected-Last-Msg-Id: 00000000-0000-0000-0000-000000000000\r\n"
            .len();
        const TIME: usize = "2000-01-01T00:00:00.000000Z".len();
        let message = self.message(form);
        let says_time = form.body == BodyFormat::Envelope || self.has_attributes(form.metadata);
        let zeros = if says_time { TIME.saturating_sub(rfc3339(self.event.created_at).len()) } else { 0 };
        Size { headers: FRAME + EXPECTED + message.headers.size(), body: message.body.len() + zeros }
    }

    /// The headers but for `Nats-Msg-Id`, which is the event's id; the caller's own come last.
    pub fn each_header(&self, form: Form, mut put: impl FnMut(&str, &str)) {
        let event = self.event;
        put("X-Correlation-Id", self.correlation_id());
        if let Some(causation_id) = &event.causation_id {
            put("X-Causation-Id", causation_id);
        }
        put("X-Event-Version", &event.event_version.to_string());
        put(CONTENT_TYPE, if form.body == BodyFormat::Envelope { STRUCTURED } else { JSON });
        match form.metadata {
            Metadata::Minimal | Metadata::Full => self.own_headers(&mut put),
            // The subject that an event has by itself says these.
            Metadata::CloudEvents if event.subject.is_none() => {}
            Metadata::CloudEvents => {
                put("X-Event-Type", &event.event_type);
                put("X-Source-Context", &event.context);
            }
        }
        if form.body == BodyFormat::Payload && self.has_attributes(form.metadata) {
            self.attribute_headers(form.metadata, &mut put);
        }
        self.headers.iter().for_each(|(name, value)| put(name, value));
    }

    fn own_headers(&self, put: &mut impl FnMut(&str, &str)) {
        let event = self.event;
        put("X-Event-Type", &event.event_type);
        put("X-Aggregate-Type", &event.aggregate_type);
        put("X-Aggregate-Id", &event.aggregate_id);
        put("X-Source-Context", &event.context);
        put("X-Sea-Visibility", &event.visibility);
    }

    /// Whether attributes are among the headers. What an original said of itself is sent on, whatever the stream's setting.
    const fn has_attributes(&self, metadata: Metadata) -> bool {
        !matches!(metadata, Metadata::Minimal) || !self.kept.is_empty()
    }

    fn attribute_headers(&self, metadata: Metadata, put: &mut impl FnMut(&str, &str)) {
        let mut header = String::with_capacity(32);
        self.each_attribute(|name, value| {
            let repeated = metadata != Metadata::Full && REPEATED.contains(&name);
            if !repeated || self.kept.iter().any(|(kept, _)| kept == name) {
                header.clear();
                header.extend([PREFIX, name]);
                put(&header, &cloud_event::encode(value));
            }
        });
    }

    /// The body.
    pub fn body(&self, format: BodyFormat) -> Bytes {
        match format {
            BodyFormat::Payload => Bytes::copy_from_slice(self.event.payload.as_bytes()),
            BodyFormat::Envelope => Bytes::from(self.envelope()),
        }
    }

    fn envelope(&self) -> Vec<u8> {
        let mut json = Vec::with_capacity(self.event.payload.len() + 1024);
        json.push(b'{');
        self.each_attribute(|name, value| {
            // A name has nothing to be escaped, and writing to memory does not fail.
            let _ = match name {
                "eventversion" => write!(json, "\"{name}\":{value},"),
                _ => write!(json, "\"{name}\":")
                    .and_then(|()| Ok(serde_json::to_writer(&mut json, value)?))
                    .map(|()| json.push(b',')),
            };
        });
        json.extend_from_slice(b"\"data\":");
        json.extend_from_slice(self.event.payload.as_bytes());
        json.push(b'}');
        json
    }

    /// The CloudEvents attributes by name, those without a value left out.
    fn each_attribute(&self, mut put: impl FnMut(&str, &str)) {
        let event = self.event;
        let mut own = |name: &str, value: &str| {
            if !value.is_empty() && !self.kept.iter().any(|(kept, _)| kept == name) {
                put(name, value);
            }
        };
        let origin = self.origin();
        own("specversion", VERSION);
        own("id", &self.id);
        own("source", &["/", &uri_path(origin)].concat());
        let version = event.event_version.to_string();
        own("type", &[origin, ".", &event.event_type, ".v", &version].concat());
        own("subject", &event.aggregate_id);
        own("time", &rfc3339(event.created_at));
        own("datacontenttype", JSON);
        own("dataschema", self.schema.unwrap_or_default());
        own("context", &event.context);
        own("eventname", &event.event_type);
        own("eventversion", &version);
        own("aggregatetype", &event.aggregate_type);
        own("aggregateid", &event.aggregate_id);
        own("correlationid", self.correlation_id());
        own("causationid", event.causation_id.as_deref().unwrap_or_default());
        own("visibility", &event.visibility);
        self.kept.iter().for_each(|(name, value)| put(name, value));
    }

    /// The context that the event happened in: a dead letter is sent by that of the subscription.
    fn origin(&self) -> &str {
        let original = self.headers.iter().find(|(name, _)| name == "X-Original-Source-Context");
        original.map_or(&self.event.context, |(_, context)| context)
    }

    fn correlation_id(&self) -> &str {
        self.event.correlation_id.as_deref().unwrap_or(&self.id)
    }
}

/// A PostgreSQL timestamp (microseconds since 2000-01-01 UTC) as RFC 3339.
fn rfc3339(microseconds: i64) -> String {
    const POSTGRES_EPOCH: i64 = 946_684_800;
    OffsetDateTime::from_unix_timestamp(POSTGRES_EPOCH)
        .ok()
        .and_then(|epoch| epoch.checked_add(Duration::microseconds(microseconds)))
        .and_then(|at| at.format(&Rfc3339).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event::{Defaults, EmitArgs};

    const ENVELOPE: Form = Form { body: BodyFormat::Envelope, metadata: Metadata::Minimal };
    const FORMS: [Form; 4] = [
        Form { body: BodyFormat::Payload, metadata: Metadata::Minimal },
        Form { body: BodyFormat::Payload, metadata: Metadata::CloudEvents },
        Form::full(BodyFormat::Payload),
        ENVELOPE,
    ];

    fn event(change: impl FnOnce(&mut EmitArgs)) -> Event {
        let mut args = EmitArgs {
            aggregate_type: Some("order".into()),
            aggregate_id: Some("A 42".into()),
            event_type: Some("OrderCreated".into()),
            payload: Some("{\"total\": 1.50}".into()),
            event_version: Some(2),
            context: Some("orders".into()),
            visibility: Some("public".into()),
            ..EmitArgs::default()
        };
        change(&mut args);
        Event::new(args, &Defaults { now: 1_000_000, ..Defaults::default() }).unwrap()
    }

    fn lines(publication: &Publication, form: Form) -> Vec<String> {
        publication.message(form).headers.into_lines().unwrap().split("\r\n").map(str::to_owned).collect()
    }

    #[test]
    fn a_payload_travels_to_the_byte_with_the_attributes_beside_it() {
        let event = event(|args| args.headers = Some("{\"X-Tenant\": \"acme\"}".into()));
        let publication = Publication::new(&event, Some("sea-mq:/x"));
        assert_eq!(publication.message(Form::default()).body, "{\"total\": 1.50}");
        let id = event.id;
        let labels = |metadata| lines(&publication, Form { metadata, ..Form::default() }).join("\n");
        let first = format!("{id}\nX-Correlation-Id: {id}\nX-Event-Version: 2\nContent-Type: application/json");
        let own = "X-Event-Type: order_created\nX-Aggregate-Type: order\nX-Aggregate-Id: A 42\nX-Source-Context: orders\n\
            X-Sea-Visibility: public";
        assert_eq!(labels(Metadata::Minimal), format!("{first}\n{own}\nX-Tenant: acme"));
        let attributes = format!(
            "ce-specversion: 1.0\nce-id: {id}\nce-source: /orders\nce-type: orders.order_created.v2\n\
             ce-subject: A%2042\nce-time: 2000-01-01T00:00:01Z\nce-dataschema: sea-mq:/x\n\
             ce-aggregatetype: order\nce-visibility: public"
        );
        assert_eq!(labels(Metadata::CloudEvents), format!("{first}\n{attributes}\nX-Tenant: acme"));
        let all = format!(
            "ce-specversion: 1.0\nce-id: {id}\nce-source: /orders\nce-type: orders.order_created.v2\n\
             ce-subject: A%2042\nce-time: 2000-01-01T00:00:01Z\nce-datacontenttype: application/json\n\
             ce-dataschema: sea-mq:/x\nce-context: orders\nce-eventname: order_created\nce-eventversion: 2\n\
             ce-aggregatetype: order\nce-aggregateid: A%2042\nce-correlationid: {id}\nce-visibility: public"
        );
        assert_eq!(labels(Metadata::Full), format!("{first}\n{own}\n{all}\nX-Tenant: acme"));
    }

    #[test]
    fn a_subject_that_is_not_the_events_own_does_not_say_its_type() {
        let mut event = event(|_| ());
        event.subject = Some("orders.dlq.orders.event.order_created.v2".into());
        let form = Form { metadata: Metadata::CloudEvents, ..Form::default() };
        let lines = lines(&Publication::new(&event, None), form);
        assert!(lines.contains(&"X-Event-Type: order_created".to_owned()), "{lines:?}");
        assert!(lines.contains(&"X-Source-Context: orders".to_owned()), "{lines:?}");
    }

    #[test]
    fn an_envelope_has_the_attributes_in_it_and_says_so() {
        let event = event(|args| args.causation_id = Some("say \"why\"".into()));
        let publication = Publication::new(&event, None);
        let headers = lines(&publication, ENVELOPE);
        assert_eq!(headers[4], "Content-Type: application/cloudevents+json");
        assert!(!headers.iter().any(|line| line.starts_with("ce-")), "{headers:?}");
        let body = publication.message(ENVELOPE).body;
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(value["id"], event.id.to_string());
        assert_eq!((&value["eventversion"], &value["causationid"]), (&2.into(), &"say \"why\"".into()));
        assert!(value.get("dataschema").is_none());
        assert!(body.ends_with(b"\"data\":{\"total\": 1.50}}"), "the payload to the byte");
    }

    #[test]
    fn the_source_is_a_uri_whatever_the_context_is_called() {
        let event = event(|args| args.context = Some("ärger 100%".replace(' ', "_")));
        let lines = lines(&Publication::new(&event, None), Form::full(BodyFormat::Payload));
        // The URI is encoded once, the header another time.
        assert!(lines.contains(&"ce-source: /%25C3%25A4rger_100%2525".to_owned()), "{lines:?}");
        assert!(lines.contains(&"ce-context: %C3%A4rger_100%25".to_owned()), "{lines:?}");
    }

    #[test]
    fn what_is_sent_on_keeps_what_the_original_said_of_itself() {
        let mut event = event(|args| args.context = Some("shipping".into()));
        event.headers = Some(
            r#"{"ce-type": "com.acme%20x", "ce-time": "T", "ce-tenant": "a", "ce-empty": "", "X-Original-Source-Context": "orders"}"#
                .into(),
        );
        let publication = Publication::new(&event, None);
        let lines = lines(&publication, Form::full(BodyFormat::Payload));
        let said = |name: &str| lines.iter().filter(|line| line.starts_with(name)).cloned().collect::<Vec<_>>();
        assert_eq!(said("ce-type:"), ["ce-type: com.acme%20x"]);
        assert_eq!(said("ce-t"), ["ce-type: com.acme%20x", "ce-time: T", "ce-tenant: a"]);
        assert_eq!(said("ce-source"), ["ce-source: /orders"]);
        assert_eq!(said("ce-context"), ["ce-context: shipping"]);
        assert!(said("ce-empty").is_empty());
        let value: serde_json::Value = serde_json::from_slice(&publication.message(ENVELOPE).body).unwrap();
        assert_eq!((&value["type"], &value["tenant"]), (&"com.acme x".into(), &"a".into()));
    }

    #[test]
    fn the_size_is_what_the_client_library_counts() {
        let mut event = event(|_| ());
        event.created_at = 1_234_567;
        let publication = Publication::new(&event, None);
        for form in FORMS {
            let message = publication.message(form);
            let expected = "Nats-Expected-Last-Sequence: 18446744073709551615\r\nNats-Expected-Last-Msg-Id: \r\n".len();
            let block = format!("NATS/1.0\r\nNats-Msg-Id: {}\r\n\r\n", message.headers.into_lines().unwrap()).len();
            assert_eq!(
                publication.size(form),
                Size { headers: block + expected + 36, body: message.body.len() },
                "{form:?}"
            );
        }
    }

    #[test]
    fn the_clock_does_not_change_the_size() {
        for form in FORMS {
            let mut event = event(|_| ());
            let mut size_at = |microseconds| {
                event.created_at = microseconds;
                let size = Publication::new(&event, None).size(form);
                size.headers + size.body
            };
            let longest = size_at(1_234_567);
            assert_eq!([1_000_000, 1_200_000, 1_234_560].map(size_at), [longest; 3]);
        }
    }
}
