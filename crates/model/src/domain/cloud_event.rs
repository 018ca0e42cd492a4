//! CloudEvents 1.0 (<https://github.com/cloudevents/spec/tree/v1.0.2>): the attributes of an event, beside its data as
//! `ce-` headers (binary content mode) or around it in a JSON object (structured content mode).

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;
use serde_json::value::RawValue;

/// The one version of the specification.
pub const VERSION: &str = "1.0";
/// What the header of an attribute begins with.
pub const PREFIX: &str = "ce-";
pub const CONTENT_TYPE: &str = "Content-Type";
/// Content type of data.
pub const JSON: &str = "application/json";
/// Content type of a message in structured mode.
pub const STRUCTURED: &str = "application/cloudevents+json";
/// What the content type of structured messages begins with, whatever the format.
const STRUCTURED_FAMILY: &str = "application/cloudevents";

/// Whether a content type says that the body is a whole event.
pub fn is_structured(content_type: &str) -> bool {
    content_type.get(..STRUCTURED_FAMILY.len()).is_some_and(|start| start.eq_ignore_ascii_case(STRUCTURED_FAMILY))
}

/// The attribute that a header carries, if it carries one.
pub fn attribute_of(header: &str) -> Option<String> {
    let start = header.get(..PREFIX.len())?;
    let name = header[PREFIX.len()..].to_ascii_lowercase();
    (start.eq_ignore_ascii_case(PREFIX) && is_attribute(&name)).then_some(name)
}

/// Whether an attribute is the message's own, and not what a message that is sent on says of the original.
pub fn is_of_message(attribute: &str) -> bool {
    matches!(
        attribute,
        "specversion"
            | "id"
            | "datacontenttype"
            | "context"
            | "eventname"
            | "eventversion"
            | "aggregatetype"
            | "aggregateid"
            | "correlationid"
            | "causationid"
            | "visibility"
    )
}

/// `data` is no attribute: formats keep it for themselves.
fn is_attribute(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    !name.is_empty() && name != "data" && name.bytes().all(fits)
}

/// An attribute's value as a header carries it: what is not printable ASCII is percent-encoded, and so are space, quote and
/// the percent sign. (NATS binding, section 3.1.3.2, which is the HTTP binding's.)
pub fn encode(value: &str) -> Cow<'_, str> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let plain = |byte: u8| byte.is_ascii_graphic() & (byte != b'"') & (byte != b'%');
    // No way out in the middle: so the compiler looks at many bytes at once.
    if value.bytes().fold(true, |all, byte| all & plain(byte)) {
        return value.into();
    }
    let mut encoded = String::with_capacity(value.len() * 3);
    for byte in value.bytes() {
        if plain(byte) {
            encoded.push(byte.into());
        } else {
            let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
            encoded.extend(['%', digits[0].into(), digits[1].into()]);
        }
    }
    encoded.into()
}

/// The value that a header carries. `None`: what it encodes is not UTF-8.
pub fn decode(value: &str) -> Option<String> {
    let unquoted = unquote(value);
    let bytes = unquoted.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = |i: usize| bytes.get(i).and_then(|&digit| char::from(digit).to_digit(16));
        match (byte, hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(u8::try_from(high * 16 + low).unwrap_or(byte));
                at += 3;
            }
            _ => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8(decoded).ok()
}

/// Senders after older versions of the specification put quotes around some values.
fn unquote(value: &str) -> Cow<'_, str> {
    let Some(inner) = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return value.into() };
    let mut escaped = false;
    let keep = |c: &char| {
        escaped = *c == '\\' && !escaped;
        !escaped
    };
    inner.chars().filter(keep).collect()
}

/// An event in structured mode, JSON format.
#[derive(Debug)]
pub struct Structured<'a> {
    /// Text of each attribute, as a header would say it but for the encoding.
    pub attributes: BTreeMap<String, String>,
    pub data: Data<'a>,
}

/// The data of an event in structured mode.
#[derive(Debug, PartialEq, Eq)]
pub enum Data<'a> {
    /// JSON text; `null` if there is no data.
    Json(&'a str),
    Binary(Vec<u8>),
}

impl<'a> Structured<'a> {
    /// `None`: the text is no such event.
    pub fn read(text: &'a str) -> Option<Self> {
        // Most payloads are none, and a look for the word is much cheaper than taking them apart.
        if !text.contains("\"specversion\"") {
            return None;
        }
        let mut members: BTreeMap<String, &RawValue> = serde_json::from_str(text).ok()?;
        let (json, binary) = (members.remove("data"), members.remove("data_base64"));
        let binary = binary.and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
        let data = match (json, binary.and_then(|text| BASE64.decode(text).ok())) {
            (None, Some(bytes)) => Data::Binary(bytes),
            (json, _) => Data::Json(json.map_or("null", RawValue::get)),
        };
        let attributes: BTreeMap<String, String> = members
            .into_iter()
            .filter(|(name, _)| is_attribute(name))
            .filter_map(|(name, value)| Some((name, attribute_text(value)?)))
            .collect();
        let is_event = attributes.get("specversion").is_some_and(|version| version == VERSION)
            && attributes.contains_key("id")
            && attributes.contains_key("type");
        is_event.then_some(Self { attributes, data })
    }
}

/// Null stands for an attribute that is not there, and so does what cannot be one.
fn attribute_text(value: &RawValue) -> Option<String> {
    match serde_json::from_str(value.get()).ok()? {
        Value::String(text) => Some(text).filter(|text| !text.is_empty()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Number(number) if number.is_i64() => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_encoded_as_the_specification_has_it() {
        // Its own example.
        assert_eq!(encode("Euro € 😀"), "Euro%20%E2%82%AC%20%F0%9F%98%80");
        assert_eq!(encode("a\"b%c\r\n\u{7f}"), "a%22b%25c%0D%0A%7F");
        assert!(matches!(encode("orders.order_created.v1/~!"), Cow::Borrowed(_)));
    }

    #[test]
    fn every_value_is_what_it_was_after_a_journey() {
        for value in ["", "A 42", "100%", "%41", "\"quoted\"", "Grüße 🐟", "a\\b", "\u{0}\u{1f}"] {
            assert_eq!(decode(&encode(value)).as_deref(), Some(value), "{value:?}");
        }
    }

    #[test]
    fn what_others_send_is_decoded_once_and_must_be_utf_8() {
        assert_eq!(decode("Euro%20%e2%82%ac").as_deref(), Some("Euro €"));
        assert_eq!(decode("%2541").as_deref(), Some("%41"));
        assert_eq!(decode("\"a \\\"b\\\" \\\\ %41\"").as_deref(), Some("a \"b\" \\ A"));
        assert_eq!(decode("100% of %4").as_deref(), Some("100% of %4"));
        assert_eq!(decode("%C0%A0"), None);
    }

    #[test]
    fn names_of_attributes_are_small_letters_and_digits() {
        assert_eq!(attribute_of("CE-Type").as_deref(), Some("type"));
        for header in ["ce-", "ce-data", "ce-data_base64", "ce-x-y", "ce-ü", "type", "cé-x", "c"] {
            assert_eq!(attribute_of(header), None, "{header}");
        }
        assert!(is_structured("Application/CloudEvents+json; charset=utf-8") && !is_structured(JSON));
    }

    #[test]
    fn a_structured_event_has_attributes_and_data() {
        let text = r#"{"specversion": "1.0", "id": "i", "type": "t", "count": 3, "flag": true, "none": null, "Bad": "x",
            "list": [], "data": {"n": 1.50}}"#;
        let event = Structured::read(text).unwrap();
        let attributes: Vec<_> = event.attributes.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(attributes, [("count", "3"), ("flag", "true"), ("id", "i"), ("specversion", "1.0"), ("type", "t")]);
        assert_eq!(event.data, Data::Json("{\"n\": 1.50}"));
        let binary = r#"{"specversion": "1.0", "id": "i", "type": "t", "data_base64": "AAE="}"#;
        assert_eq!(Structured::read(binary).unwrap().data, Data::Binary(vec![0, 1]));
        for other in ["{}", "[\"specversion\"]", r#"{"specversion": "0.3", "id": "i", "type": "t"}"#] {
            assert!(Structured::read(other).is_none(), "{other}");
        }
    }
}
