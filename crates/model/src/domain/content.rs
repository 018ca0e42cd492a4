//! What of a stored message must be that of its event, in a form that is cheap to hand around: subject and payload.
//!
//! Headers are left out, and the form of the body is looked through: both may have been others when it was published (a
//! schema registered since, a stream whose `body` was altered).

use std::hash::{DefaultHasher, Hash, Hasher};

use super::cloud_event;

/// Of an event, or of a message whose payload was taken out of its body. Means something within one process only.
pub fn digest(subject: &str, payload: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (subject, payload).hash(&mut hasher);
    hasher.finish()
}

/// The payload in a message's body, as [`super::envelope`] writes it.
pub fn payload_of<'a>(content_type: Option<&str>, body: &'a [u8]) -> &'a [u8] {
    // In a JSON string the quotes would be escaped, so the first place is the right one.
    const DATA: &[u8] = b",\"data\":";
    if !content_type.is_some_and(cloud_event::is_structured) {
        return body;
    }
    let data = body.windows(DATA.len()).position(|window| window == DATA).map(|at| &body[at + DATA.len()..]);
    data.and_then(|data| data.strip_suffix(b"}")).unwrap_or(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payload_is_found_in_either_form_of_the_body() {
        let payload = br#"{"data": ",\"data\":1"}"#;
        assert_eq!(payload_of(Some("application/json"), payload), payload);
        assert_eq!(payload_of(None, payload), payload);
        let envelope = [br#"{"id":"a,\"data\":","data":"#.as_slice(), payload, b"}"].concat();
        assert_eq!(payload_of(Some("application/cloudevents+json"), &envelope), payload);
        assert_eq!(payload_of(Some("application/cloudevents+json"), b"no envelope"), b"no envelope");
    }
}
