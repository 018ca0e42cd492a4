//! Sinks: where the events of a context go.

use std::cell::RefCell;

use crate::broker::SinkId;

/// What a sink is: one of the streams that a context has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SinkKind {
    /// `{CONTEXT}_EVENTS` on `{context}.event.>`.
    Event,
    /// `{CONTEXT}_DLQ` on `{context}.dlq.>`.
    DeadLetter,
}

impl SinkKind {
    /// The subject token, and the value of `sea_mq.streams.kind`.
    pub const fn token(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::DeadLetter => "dlq",
        }
    }

    pub fn from_token(token: &str) -> Option<Self> {
        [Self::Event, Self::DeadLetter].into_iter().find(|kind| kind.token() == token)
    }
}

thread_local! {
    /// The one that was asked for last: a transaction's events mostly have one context.
    static LAST: RefCell<Option<(String, SinkKind, SinkId)>> = const { RefCell::new(None) };
}

/// The id under which a sink stands in every row of the log.
///
/// It is a hash of the name and not a key of `sea_mq.streams`, so that the first event of a context does not have to
/// wait for a concurrent transaction that creates the context's stream. Contexts can come from anybody who may emit, so it is
/// a hash to which nobody finds another name with the same value; should two names have one, the second is refused.
pub fn sink_id(context: &str, kind: SinkKind) -> SinkId {
    LAST.with_borrow_mut(|last| {
        if let Some((name, of, id)) = last
            && name == context
            && *of == kind
        {
            return *id;
        }
        let id = first_bits(&format!("{context}.{}", kind.token()));
        *last = Some((context.to_owned(), kind, id));
        id
    })
}

/// The first 64 bits of the SHA-256 of a name. The values are stored, so they must never change.
fn first_bits(name: &str) -> SinkId {
    let digest = ring::digest::digest(&ring::digest::SHA256, name.as_bytes());
    digest.as_ref().iter().take(8).fold(0, |bits, byte| (bits << 8) | i64::from(*byte))
}

/// FNV-1a, 64 bits (<http://www.isthe.com/chongo/tech/comp/fnv/>): the values are stored, so they must never change.
pub fn stable_hash(bytes: impl Iterator<Item = u8>) -> u64 {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    bytes.fold(OFFSET_BASIS, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_ids_never_change() {
        assert_eq!(sink_id("orders", SinkKind::Event), -6_261_037_628_114_152_376);
        assert_ne!(sink_id("orders", SinkKind::Event), sink_id("orders", SinkKind::DeadLetter));
    }

    #[test]
    fn names_that_were_made_to_have_one_simple_hash_have_two_ids() {
        let [one, other] = ["hq6nehk80yy4mqid", "n4kk89x203ozp3ac"];
        assert_eq!(stable_hash(one.bytes()), stable_hash(other.bytes()));
        assert_ne!(sink_id(one, SinkKind::Event), sink_id(other, SinkKind::Event));
    }
}
