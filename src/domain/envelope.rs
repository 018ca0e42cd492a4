//! Message bodies: the payload as it is, or the whole envelope.
//!
//! The envelope is a CloudEvents 1.0 event in structured JSON form
//! (<https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md>);
//! `schemas/events/envelope-v1.schema.json` is its contract.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use super::event::Event;

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

#[derive(Serialize)]
struct Envelope<'a> {
    specversion: &'static str,
    id: String,
    source: String,
    #[serde(rename = "type")]
    kind: String,
    subject: &'a str,
    time: String,
    datacontenttype: &'static str,
    context: &'a str,
    eventname: &'a str,
    eventversion: i32,
    aggregatetype: &'a str,
    aggregateid: &'a str,
    correlationid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    causationid: Option<&'a str>,
    visibility: &'a str,
    data: &'a RawValue,
}

/// The body of an event's message.
pub fn body(event: &Event, format: BodyFormat) -> Bytes {
    match format {
        BodyFormat::Payload => Bytes::copy_from_slice(event.payload.as_bytes()),
        BodyFormat::Envelope => envelope(event).map_or_else(|| body(event, BodyFormat::Payload), Bytes::from),
    }
}

/// `None` only if the payload is not JSON, which the log's column type rules out.
fn envelope(event: &Event) -> Option<Vec<u8>> {
    let id = event.id.to_string();
    let envelope = Envelope {
        specversion: "1.0",
        source: format!("/{}", event.context),
        kind: format!("{}.{}.v{}", event.context, event.event_type, event.event_version),
        subject: &event.aggregate_id,
        time: rfc3339(event.created_at),
        datacontenttype: "application/json",
        context: &event.context,
        eventname: &event.event_type,
        eventversion: event.event_version,
        aggregatetype: &event.aggregate_type,
        aggregateid: &event.aggregate_id,
        correlationid: event.correlation_id.clone().unwrap_or_else(|| id.clone()),
        causationid: event.causation_id.as_deref(),
        visibility: &event.visibility,
        data: serde_json::from_str(&event.payload).ok()?,
        id,
    };
    serde_json::to_vec(&envelope).ok()
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

    fn event() -> Event {
        let args = EmitArgs {
            aggregate_type: Some("order".into()),
            aggregate_id: Some("42".into()),
            event_type: Some("OrderCreated".into()),
            payload: Some("{\"total\": 1.50}".into()),
            event_version: Some(2),
            context: Some("orders".into()),
            visibility: Some("public".into()),
            ..EmitArgs::default()
        };
        Event::new(args, &Defaults { now: 1_000_000, ..Defaults::default() }).unwrap()
    }

    #[test]
    fn a_payload_body_is_the_payload_to_the_byte() {
        assert_eq!(body(&event(), BodyFormat::Payload), "{\"total\": 1.50}");
    }

    #[test]
    fn an_envelope_is_a_cloud_event() {
        let event = event();
        let value: serde_json::Value = serde_json::from_slice(&body(&event, BodyFormat::Envelope)).unwrap();
        assert_eq!(value["specversion"], "1.0");
        assert_eq!(value["id"], event.id.to_string());
        assert_eq!(value["type"], "orders.order_created.v2");
        assert_eq!(value["time"], "2000-01-01T00:00:01Z");
        assert_eq!(value["data"]["total"].to_string(), "1.5");
        assert!(value.get("causationid").is_none());
    }
}
