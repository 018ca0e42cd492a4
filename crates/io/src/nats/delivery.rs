//! What arrives in the inbox of a pull: messages, and the server's words about the requests for them.

use async_nats::{HeaderMap, Message, Subject};

use sea_mq_model::broker::{Delivery, Fault, FaultKind};

/// What the reply subjects of a consumer's messages begin with.
const ACK_PREFIX: &str = "$JS.ACK.";
/// The header that tells the number of a consumer's last delivery.
const LAST: &str = "Nats-Last-Consumer";
/// The header that tells how many messages of a request that ended will not come.
const LEFT: &str = "Nats-Pending-Messages";
/// The header that tells how many bytes such a request had left.
const LEFT_BYTES: &str = "Nats-Pending-Bytes";

/// Something from the inbox.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all are messages, and each is taken apart at once")]
pub(super) enum Arrival {
    /// A message of the consumer.
    Message(Arrived),
    /// The consumer is well, but has nothing to deliver. The number of its last delivery, to whomever that was.
    Alive(Option<u64>),
    /// A request ended before its last message; so many will not come (all, if the server does not say).
    Over(Option<usize>),
    /// The same, since the next message is larger than what the request has left: so many bytes.
    TooLarge { left: usize, bytes: Option<usize> },
    /// The consumer delivers no more.
    Failed(Fault),
    /// Not from the consumer: somebody else wrote to the inbox.
    Stray,
}

/// A message of the consumer, and what its reply subject says of it.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) metadata: Metadata,
    /// Where its ack is sent.
    pub(super) reply: Subject,
    pub(super) message: Message,
}

/// What the server tells of a message in its reply subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Metadata {
    /// Stream sequence.
    pub(super) sequence: u64,
    /// How often it was delivered, this time included.
    pub(super) delivered: u64,
    /// The number that the consumer has given this delivery.
    pub(super) number: u64,
    /// Microseconds since the Unix epoch.
    pub(super) stored_us: i64,
    /// Messages that the consumer has not delivered yet.
    pub(super) pending: u64,
}

/// Tells apart what arrived.
pub(super) fn read(mut message: Message) -> Arrival {
    if let Some(status) = message.status {
        return verdict(status.as_u16(), message.description.as_deref().unwrap_or_default(), message.headers.as_ref());
    }
    match message.reply.take() {
        Some(reply) if reply.starts_with(ACK_PREFIX) => match metadata(&reply) {
            Some(metadata) => Arrival::Message(Arrived { metadata, reply, message }),
            // It cannot be acknowledged, so the consumer would stop at it without a word. Better to say so.
            None => Arrival::Failed(Fault::new(FaultKind::Server, format!("cannot read the reply subject {reply}"))),
        },
        Some(_) | None => Arrival::Stray,
    }
}

impl Arrived {
    /// The report's form of it.
    pub(super) fn into_delivery(self, token: u64) -> Delivery {
        let Self { metadata: Metadata { sequence, delivered, stored_us, pending, .. }, message, .. } = self;
        let headers = message.headers.as_ref().map(flat).unwrap_or_default();
        let subject = String::from(&*message.subject);
        Delivery { token, sequence, delivered, stored_us, pending, subject, headers, body: message.payload }
    }
}

fn flat(headers: &HeaderMap) -> Vec<(String, String)> {
    let pairs = headers.iter().flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
    pairs.map(|(name, value)| (AsRef::<str>::as_ref(name).to_owned(), value.as_str().to_owned())).collect()
}

/// Reads `$JS.ACK.[domain.account.]stream.consumer.delivered.sequence.consumer sequence.nanoseconds.pending[.more]`.
pub(super) fn metadata(reply: &str) -> Option<Metadata> {
    let count = reply.split('.').count();
    let skipped = match count {
        9 => 4,
        11.. => 6,
        _ => return None,
    };
    let mut tokens = reply.split('.').skip(skipped);
    let delivered = tokens.next()?.parse().ok()?;
    let sequence = tokens.next()?.parse().ok()?;
    let number = tokens.next()?.parse().ok()?;
    let stored_ns: i64 = tokens.next()?.parse().ok()?;
    let pending = tokens.next()?.parse().ok()?;
    Some(Metadata { sequence, delivered, number, stored_us: stored_ns.div_euclid(1000), pending })
}

fn verdict(status: u16, words: &str, headers: Option<&HeaderMap>) -> Arrival {
    let number = |name| headers?.get(name)?.as_str().parse().ok();
    let size = |name| number(name).and_then(|left: u64| usize::try_from(left).ok());
    let left = || size(LEFT);
    let failed = |kind, message: String| Arrival::Failed(Fault::new(kind, message));
    let lower = words.to_ascii_lowercase();
    match status {
        100 => Arrival::Alive(number(LAST)),
        404 | 408 => Arrival::Over(left()),
        409 if lower.contains("consumer deleted") => failed(FaultKind::ConsumerMissing, words.to_owned()),
        409 if lower.contains("push based") || lower.starts_with("exceeded maxrequest") => {
            failed(FaultKind::ConsumerConflict, words.to_owned())
        }
        409 if lower.contains("leadership change") || lower.contains("shutdown") => {
            failed(FaultKind::Leaderless, words.to_owned())
        }
        409 => match left() {
            Some(left) if lower.starts_with("message size exceeds") => {
                Arrival::TooLarge { left, bytes: size(LEFT_BYTES) }
            }
            Some(left) => Arrival::Over(Some(left)),
            None => failed(FaultKind::Server, words.to_owned()),
        },
        // The consumer is gone, or has no leader just now.
        503 => failed(FaultKind::Timeout, "nobody answers requests for the consumer's messages".into()),
        _ => failed(FaultKind::Server, format!("{status} {words}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(reply: Option<&str>) -> Message {
        let mut headers = HeaderMap::new();
        headers.append("A", "1");
        headers.append("A", "2");
        Message {
            subject: "shop.event".into(),
            reply: reply.map(Into::into),
            payload: "x".into(),
            headers: Some(headers),
            status: None,
            description: None,
            length: 1,
        }
    }

    #[test]
    fn reply_subject_is_read_in_all_its_forms() {
        let wanted = Metadata { sequence: 7, delivered: 2, number: 9, stored_us: 1_700_000_000_123_456, pending: 5 };
        for reply in [
            "$JS.ACK.S.c.2.7.9.1700000000123456789.5",
            "$JS.ACK.hub.ACC.S.c.2.7.9.1700000000123456789.5",
            "$JS.ACK._.ACC.S.c.2.7.9.1700000000123456789.5.random",
        ] {
            assert_eq!(metadata(reply), Some(wanted), "{reply}");
        }
        for reply in ["$JS.ACK.S.c.2.7.9.x.5", "$JS.ACK.S.c", "$JS.ACK.a.S.c.2.7.9.1.5"] {
            assert_eq!(metadata(reply), None, "{reply}");
        }
    }

    #[test]
    fn message_keeps_every_header_value() {
        let Arrival::Message(arrived) = read(message(Some("$JS.ACK.S.c.1.1.1.1000.0"))) else { panic!() };
        let delivery = arrived.into_delivery(3);
        assert_eq!((delivery.token, delivery.sequence, delivery.stored_us), (3, 1, 1));
        assert_eq!(delivery.headers, [("A".into(), "1".into()), ("A".into(), "2".into())]);
    }

    #[test]
    fn foreign_message_is_no_delivery() {
        assert!(matches!(read(message(None)), Arrival::Stray));
        assert!(matches!(read(message(Some("_INBOX.x"))), Arrival::Stray));
    }

    #[test]
    fn unreadable_delivery_is_told() {
        assert!(matches!(read(message(Some("$JS.ACK.S.c.1"))), Arrival::Failed(_)));
    }

    #[test]
    fn statuses_are_told_apart() {
        let kind = |status, words| match verdict(status, words, None) {
            Arrival::Failed(fault) => Some(fault.kind),
            _ => None,
        };
        assert_eq!(kind(100, "Idle Heartbeat"), None);
        assert_eq!(kind(408, "Request Timeout"), None);
        assert_eq!(kind(409, "Consumer Deleted"), Some(FaultKind::ConsumerMissing));
        assert_eq!(kind(409, "Consumer is push based"), Some(FaultKind::ConsumerConflict));
        assert_eq!(kind(409, "Leadership Change"), Some(FaultKind::Leaderless));
        assert_eq!(kind(409, "Server Shutdown"), Some(FaultKind::Leaderless));
        assert_eq!(kind(503, ""), Some(FaultKind::Timeout));
        let mut headers = HeaderMap::new();
        headers.insert(LEFT, "3");
        assert!(matches!(verdict(408, "Request Timeout", Some(&headers)), Arrival::Over(Some(3))));
        assert!(matches!(verdict(409, "Batch Completed", Some(&headers)), Arrival::Over(Some(3))));
        assert!(matches!(verdict(100, "Idle Heartbeat", Some(&headers)), Arrival::Alive(None)));
        headers.insert(LEFT_BYTES, "20");
        let too_large = verdict(409, "Message Size Exceeds MaxBytes", Some(&headers));
        assert!(matches!(too_large, Arrival::TooLarge { left: 3, bytes: Some(20) }), "{too_large:?}");
        headers.insert(LAST, "7");
        assert!(matches!(verdict(100, "Idle Heartbeat", Some(&headers)), Arrival::Alive(Some(7))));
    }
}
