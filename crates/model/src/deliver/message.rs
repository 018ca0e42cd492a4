//! What an endpoint of kind nats gets: the message that the relay would publish, as far as the audience may see it.

use super::body::Body;
use crate::domain::envelope::{BodyFormat, Form, Publication};
use crate::domain::event::Event;

/// What formats of such endpoints begin with, where they are rendered.
pub const PREFIX: &str = "nats:";
/// Among the headers of a message, the subject that is the event's own. It is no header, and not sent as one.
pub const SUBJECT: &str = ":subject";

/// `format`: without the prefix. `None`: it is none for messages. Of format template, the body is filled in elsewhere.
pub fn render(event: &Event, format: &str) -> Option<Body> {
    let body = match format {
        "standard" | "payload" | "cloudevents" | "template" => BodyFormat::Payload,
        "cloudevents_structured" => BodyFormat::Envelope,
        _ => return None,
    };
    let publication = Publication::new(event, None);
    let mut headers = vec![(SUBJECT.to_owned(), event.subject())];
    publication.each_header(Form::full(body), |name, value| headers.push((name.to_owned(), value.to_owned())));
    Some(Body { bytes: publication.body(body).to_vec(), headers })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event::{Defaults, EmitArgs};

    #[test]
    fn it_is_what_the_relay_publishes() {
        let args = EmitArgs {
            aggregate_type: Some("order".into()),
            aggregate_id: Some("42".into()),
            event_type: Some("OrderCreated".into()),
            event_version: Some(1),
            payload: Some("{\"a\": 1.50}".into()),
            context: Some("orders".into()),
            visibility: Some("partner".into()),
            ..EmitArgs::default()
        };
        let event = Event::new(args, &Defaults::default()).unwrap();
        let body = render(&event, "standard").unwrap();
        assert_eq!(body.bytes, br#"{"a": 1.50}"#);
        let value = |name: &str| body.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
        assert_eq!(value(SUBJECT), Some("orders.event.order_created.v1"));
        assert_eq!((value("X-Aggregate-Id"), value("ce-subject")), (Some("42"), Some("42")));
        let whole = render(&event, "cloudevents_structured").unwrap();
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&whole.bytes).unwrap()["data"]["a"], 1.5);
        assert_eq!(render(&event, "cloudevents_batch"), None);
    }
}
