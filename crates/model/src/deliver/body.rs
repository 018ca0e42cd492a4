//! What is sent: the body and the headers that belong to it. The same event gives the same bytes.

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::domain::cloud_event;

/// An event as its audience may see it.
#[derive(Clone, Debug, Default)]
pub struct Visible {
    pub id: String,
    pub source_context: String,
    pub event_type: String,
    pub event_version: i64,
    pub subject: String,
    pub aggregate_type: String,
    pub aggregate_id: String,
    /// JSON.
    pub payload: String,
    pub headers: Map<String, Value>,
    pub correlation_id: Option<String>,
    /// RFC 3339.
    pub created_at: String,
    /// Where its schema is, if it has one.
    pub schema: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// That of Standard Webhooks: `type`, `timestamp` and `data`.
    Standard,
    /// CloudEvents in binary content mode: the payload as body, the attributes as headers.
    CloudEvents,
    /// CloudEvents in structured content mode: all of it in the body.
    Structured,
    /// CloudEvents in batched content mode: an array of one event.
    Batched,
    /// The payload alone.
    Payload,
    /// A body made by a template, which is filled in elsewhere.
    Template,
}

impl std::str::FromStr for Format {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "standard" => Ok(Self::Standard),
            "cloudevents" => Ok(Self::CloudEvents),
            "cloudevents_structured" => Ok(Self::Structured),
            "cloudevents_batch" => Ok(Self::Batched),
            "payload" => Ok(Self::Payload),
            "template" => Ok(Self::Template),
            _ => Err(()),
        }
    }
}

/// What is sent in each attempt, whatever is changed meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    pub bytes: Vec<u8>,
    pub headers: Vec<(String, String)>,
}

/// `None`: the payload is not JSON, or the template was not filled in.
pub fn render(event: &Visible, format: Format, filled: Option<&str>) -> Option<Body> {
    let plain = |bytes| Some(Body { bytes, headers: content(cloud_event::JSON) });
    match format {
        Format::Standard => {
            let data: &RawValue = serde_json::from_str(&event.payload).ok()?;
            let body = Standard { r#type: &event.event_type, timestamp: &event.created_at, data };
            plain(serde_json::to_vec(&body).ok()?)
        }
        Format::Payload => plain(event.payload.clone().into_bytes()),
        Format::Template => plain(filled?.to_owned().into_bytes()),
        Format::CloudEvents => {
            let mut headers = content(cloud_event::JSON);
            headers.extend(attributes(event).into_iter().filter_map(|(name, value)| {
                Some((format!("{}{name}", cloud_event::PREFIX), cloud_event::encode(value.as_str()?).into_owned()))
            }));
            Some(Body { bytes: event.payload.clone().into_bytes(), headers })
        }
        Format::Structured => {
            let bytes = serde_json::to_vec(&structured(event)?).ok()?;
            Some(Body { bytes, headers: content(cloud_event::STRUCTURED) })
        }
        Format::Batched => {
            let bytes = serde_json::to_vec(&[structured(event)?]).ok()?;
            Some(Body { bytes, headers: content("application/cloudevents-batch+json") })
        }
    }
}

#[derive(serde::Serialize)]
struct Standard<'a> {
    r#type: &'a str,
    timestamp: &'a str,
    data: &'a RawValue,
}

fn content(kind: &str) -> Vec<(String, String)> {
    vec![("content-type".into(), kind.into())]
}

fn structured(event: &Visible) -> Option<Map<String, Value>> {
    let mut whole = attributes(event);
    whole.insert("datacontenttype".into(), json!(cloud_event::JSON));
    whole.insert("data".into(), serde_json::from_str(&event.payload).ok()?);
    Some(whole)
}

/// The attributes of CloudEvents 1.0 that the relay gives, too.
fn attributes(event: &Visible) -> Map<String, Value> {
    let mut all = Map::new();
    let mut put = |name: &str, value: &str| {
        if !value.is_empty() {
            all.insert(name.into(), json!(value));
        }
    };
    put("specversion", cloud_event::VERSION);
    put("id", &event.id);
    put("source", &format!("/{}", event.source_context));
    put("type", &format!("{}.{}.v{}", event.source_context, event.event_type, event.event_version));
    put("subject", &event.aggregate_id);
    put("time", &event.created_at);
    put("dataschema", event.schema.as_deref().unwrap_or_default());
    put("correlationid", event.correlation_id.as_deref().unwrap_or_default());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Visible {
        Visible {
            id: "01890a5d-ac96-774b-bcce-b302099a8070".into(),
            source_context: "orders".into(),
            event_type: "order_created".into(),
            event_version: 2,
            aggregate_id: "ü 1".into(),
            payload: r#"{"b":1.50,"a":2}"#.into(),
            created_at: "2026-01-02T03:04:05.678Z".into(),
            ..Visible::default()
        }
    }

    fn text(format: Format) -> (String, Vec<(String, String)>) {
        let body = render(&event(), format, Some("[1]")).unwrap();
        (String::from_utf8(body.bytes).unwrap(), body.headers)
    }

    #[test]
    fn the_standard_body_keeps_the_payload_to_the_digit() {
        let (body, headers) = text(Format::Standard);
        let expected = r#"{"type":"order_created","timestamp":"2026-01-02T03:04:05.678Z","data":{"b":1.50,"a":2}}"#;
        assert_eq!((body.as_str(), headers), (expected, content(cloud_event::JSON)));
        assert_eq!(text(Format::Payload).0, event().payload);
        assert_eq!(text(Format::Template).0, "[1]");
        assert_eq!(render(&event(), Format::Template, None), None);
        assert_eq!(render(&Visible { payload: "{".into(), ..event() }, Format::Standard, None), None);
    }

    #[test]
    fn cloud_events_have_the_same_attributes_in_every_mode() {
        let (body, headers) = text(Format::CloudEvents);
        assert_eq!(body, event().payload);
        let header = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
        assert_eq!(header("ce-subject"), Some("%C3%BC%201"));
        assert_eq!(header("ce-type"), Some("orders.order_created.v2"));
        let whole: Value = serde_json::from_str(&text(Format::Structured).0).unwrap();
        assert_eq!((&whole["subject"], &whole["id"]), (&json!("ü 1"), &json!(event().id)));
        let batch: Value = serde_json::from_str(&text(Format::Batched).0).unwrap();
        assert_eq!(batch, json!([whole]));
        for (name, value) in headers.iter().filter_map(|(name, value)| Some((name.strip_prefix("ce-")?, value))) {
            let plain = whole[name].as_str().unwrap();
            assert_eq!(&*cloud_event::encode(plain), value, "{name}");
        }
    }
}
