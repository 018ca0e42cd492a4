//! The headers of a received message.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::cloud_event::{self, CONTENT_TYPE, JSON, PREFIX, VERSION};

/// What a CloudEvent says as an attribute, and sea_mq keeps as a header.
const KEPT_AS_HEADER: [(&str, &str); 4] = [
    ("X-Correlation-Id", "correlationid"),
    ("X-Causation-Id", "causationid"),
    ("X-Sea-Visibility", "visibility"),
    ("traceparent", "traceparent"),
];

/// Attributes of sea_mq's own, and the headers that say the same.
const SAID_TWICE: [(&str, &str); 9] = [
    ("ce-datacontenttype", CONTENT_TYPE),
    ("ce-context", "X-Source-Context"),
    ("ce-eventname", "X-Event-Type"),
    ("ce-eventversion", "X-Event-Version"),
    ("ce-aggregatetype", "X-Aggregate-Type"),
    ("ce-aggregateid", "X-Aggregate-Id"),
    ("ce-correlationid", "X-Correlation-Id"),
    ("ce-causationid", "X-Causation-Id"),
    ("ce-visibility", "X-Sea-Visibility"),
];

/// Headers by name, whatever its case.
#[derive(Default)]
pub struct Headers(pub Map<String, Value>);

impl Headers {
    pub fn new<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let mut headers = Self::default();
        // Those that steer the broker are of no interest any more.
        pairs
            .filter(|(name, _)| !name.starts_with("Nats-") || *name == "Nats-Msg-Id")
            .for_each(|(name, value)| headers.add(name, value));
        headers
    }

    /// Adds a value. Several of one name stand in a list.
    pub fn add(&mut self, name: &str, value: &str) {
        match self.0.get_mut(name) {
            Some(Value::String(known)) => known.extend([", ", &storable(value)]),
            _ => self.set(name, value),
        }
    }

    pub fn set(&mut self, name: &str, value: &str) {
        self.0.insert(storable(name), Value::String(storable(value)));
    }

    pub fn get(&self, name: &str) -> Option<String> {
        let found = self
            .0
            .get(name)
            .or_else(|| self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value));
        found.and_then(Value::as_str).filter(|value| !value.is_empty()).map(str::to_owned)
    }

    /// Whether they are those of a CloudEvent in binary mode.
    pub fn is_cloud_event(&self) -> bool {
        self.get("ce-specversion").is_some_and(|version| version == VERSION)
    }

    /// What a CloudEvent says of itself.
    pub fn attribute(&self, name: &str) -> Option<String> {
        let value = self.get(&[PREFIX, name].concat()).filter(|_| self.is_cloud_event())?;
        cloud_event::decode(&value).map(|text| storable(&text)).filter(|text| !text.is_empty())
    }

    /// An attribute's header that cannot be read.
    pub fn undecodable(&self) -> Option<&str> {
        let broken = |(name, value): &(&String, &Value)| {
            let attribute = name.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX));
            attribute && value.as_str().is_some_and(|text| text.contains('%') && cloud_event::decode(text).is_none())
        };
        let found = self.0.iter().find(broken).filter(|_| self.is_cloud_event());
        found.map(|(name, _)| name.as_str())
    }

    /// Puts the attributes of an event that came in structured mode where those of one in binary mode are.
    pub fn carry(&mut self, attributes: &BTreeMap<String, String>) {
        self.0.retain(|name, _| !name.eq_ignore_ascii_case(CONTENT_TYPE) && cloud_event::attribute_of(name).is_none());
        self.set(CONTENT_TYPE, attributes.get("datacontenttype").map_or(JSON, String::as_str));
        attributes.iter().for_each(|(name, value)| self.set(&[PREFIX, name].concat(), &cloud_event::encode(value)));
    }

    /// Adds the headers that somebody else's CloudEvent lacks, since what is sent on and attempted again is read from them;
    /// and leaves out the attributes that headers say as well, since all this is stored with every message.
    pub fn settle(&mut self) {
        for (header, attribute) in KEPT_AS_HEADER {
            if self.get(header).is_none()
                && let Some(value) = self.attribute(attribute)
            {
                self.set(header, &value);
            }
        }
        let text = |name: &str| self.0.get(name).and_then(Value::as_str);
        let twice = |(attribute, header): &&(&str, &str)| match (text(attribute), text(header)) {
            (Some(said), Some(again)) => said == cloud_event::encode(again),
            _ => false,
        };
        let doubled: Vec<&str> = SAID_TWICE.iter().filter(twice).map(|(attribute, _)| *attribute).collect();
        self.0.retain(|name, _| !doubled.contains(&name.as_str()));
    }
}

/// A text without the one character that PostgreSQL's has no room for.
pub fn storable(text: &str) -> String {
    if text.as_bytes().contains(&0) { text.replace('\0', "\u{fffd}") } else { text.to_owned() }
}
