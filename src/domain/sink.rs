//! Sinks: where the events of a context go.

use crate::broker::SinkId;

/// What a sink is. The first two are the streams that a context has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SinkKind {
    /// `{CONTEXT}_EVENTS` on `{context}.event.>`.
    Event,
    /// `{CONTEXT}_DLQ` on `{context}.dlq.>`.
    DeadLetter,
    /// A subscription of the same database that is served without a broker; its name stands where a context would.
    Local,
}

impl SinkKind {
    /// The subject token, and the value of `sea_mq.streams.kind`.
    pub const fn token(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::DeadLetter => "dlq",
            Self::Local => "local",
        }
    }

    pub fn from_token(token: &str) -> Option<Self> {
        [Self::Event, Self::DeadLetter, Self::Local].into_iter().find(|kind| kind.token() == token)
    }
}

/// The id under which a sink stands in every row of the log.
///
/// It is a hash of the name and not a key of `sea_mq.streams`, so that the first event of a context does not have to
/// wait for a concurrent transaction that creates the context's stream.
pub fn sink_id(context: &str, kind: SinkKind) -> SinkId {
    stable_hash(context.bytes().chain([b'.']).chain(kind.token().bytes())).cast_signed()
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
        assert_eq!(sink_id("orders", SinkKind::Event), 2_394_925_156_745_849_234);
        assert_ne!(sink_id("orders", SinkKind::Event), sink_id("orders", SinkKind::DeadLetter));
    }
}
