//! What a contract is known by: context, event name and version; and how that is written in subjects, files and URIs.

use std::borrow::Cow;
use std::fmt;

use crate::invalid::Invalid;
use crate::name;

/// The URI of the directory `schemas/events`. Relative references between schemas are resolved against the place that a
/// schema has below it, so they mean the same in a directory and in the registry.
pub const BASE_URI: &str = "sea-mq:/schemas/events/";

pub(crate) const SUFFIX: &str = ".schema.json";

/// One version of one event type of one context; both names in normal form.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventKey {
    pub context: String,
    pub event_type: String,
    pub version: i32,
}

impl EventKey {
    /// Normalises the names and refuses what cannot stand in a subject.
    pub fn new(context: &str, event_type: &str, version: i32) -> Result<Self, Invalid> {
        Ok(Self {
            context: name::context_name(context)?,
            event_type: name::event_name(event_type)?,
            version: name::event_version(version)?,
        })
    }

    /// `{context}.event.{name}.v{version}`.
    pub fn subject(&self) -> String {
        name::event_subject(&self.context, &self.event_type, self.version)
    }

    /// Place below `schemas/events`: `{context}/{name}.v{version}.schema.json`.
    pub fn path(&self) -> String {
        format!("{}/{}.v{}{SUFFIX}", self.context, file_name(&self.event_type), self.version)
    }

    /// The URI that other schemas refer to it by.
    pub fn uri(&self) -> String {
        place_uri(&self.path())
    }

    /// The key of the schema that a URI names. `None`: it names none of an event.
    pub fn from_uri(uri: &str) -> Option<Self> {
        Self::from_path(&decode(uri.strip_prefix(BASE_URI)?)?)
    }

    /// The key of the schema in a file, given its place below `schemas/events`. `None`: the file is not named as an
    /// event's schema is.
    pub fn from_path(path: &str) -> Option<Self> {
        let (context, file) = path.split_once('/')?;
        let (event_type, version) = file.strip_suffix(SUFFIX)?.rsplit_once(".v")?;
        let number: i32 = version.parse().ok()?;
        let event_type = event_type.replace("%2F", "/").replace("%25", "%");
        let key = Self::new(context, &event_type, number).ok()?;
        // Only the normal form, so that a contract has one file.
        (key.path() == path).then_some(key)
    }
}

impl fmt::Display for EventKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.subject())
    }
}

/// An event name may contain what separates directories; a file name must not.
fn file_name(event_type: &str) -> String {
    event_type.replace('%', "%25").replace('/', "%2F")
}

/// A text as the path of a URI carries it (RFC 3986, section 3.3).
pub fn uri_path(text: &str) -> Cow<'_, str> {
    percent_encode(text, b"-._~!$&'()*+,;=:@/")
}

/// A text with all of its bytes percent-encoded but ASCII letters, digits and the `plain` ones (RFC 3986, section 2.1).
pub(crate) fn percent_encode<'a>(text: &'a str, plain: &[u8]) -> Cow<'a, str> {
    let stays = |byte: u8| byte.is_ascii_alphanumeric() || plain.contains(&byte);
    if text.bytes().all(stays) {
        return text.into();
    }
    let encode = |byte: u8| if stays(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(encode).collect()
}

/// The URI of a place below `schemas/events`.
pub(crate) fn place_uri(path: &str) -> String {
    format!("{BASE_URI}{}", uri_path(path))
}

/// What was encoded; `None` for what is not UTF-8.
pub(crate) fn decode(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let hex = after.get(..2).filter(|_| byte == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(decoded) => {
                bytes.push(decoded);
                rest = &after[2..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_a_subject_a_file_and_a_uri() {
        let key = EventKey::new("Orders", "OrderCreated", 2).unwrap();
        assert_eq!(key.subject(), "orders.event.order_created.v2");
        assert_eq!(key.path(), "orders/order_created.v2.schema.json");
        assert_eq!(key.uri(), "sea-mq:/schemas/events/orders/order_created.v2.schema.json");
        assert_eq!(EventKey::from_path(&key.path()), Some(key));
        for name in ["a/b", "a%2Fb", "100%", "ärger", "what?#"] {
            let key = EventKey::new("orders", name, 1).unwrap();
            assert_eq!(EventKey::from_uri(&key.uri()).as_ref(), Some(&key), "{name}");
            assert_eq!(EventKey::from_path(&key.path()), Some(key), "{name}");
        }
        assert!(EventKey::new("orders", "ärger", 1).unwrap().uri().ends_with("/%C3%A4rger.v1.schema.json"));
    }

    #[test]
    fn only_the_normal_form_of_a_file_name_is_one() {
        for path in ["order_created.v1.schema.json", "orders/OrderCreated.v1.schema.json", "orders/x.v01.schema.json"] {
            assert_eq!(EventKey::from_path(path), None, "{path}");
        }
        for path in ["orders/x.v0.schema.json", "orders/x.schema.json", "orders/x.v1.json", "a/b/x.v1.schema.json"] {
            assert_eq!(EventKey::from_path(path), None, "{path}");
        }
    }
}
