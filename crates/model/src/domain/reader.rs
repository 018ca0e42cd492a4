//! Readers of the log: who has read it how far. For whom a row is, its sink says.

use crate::broker::{SinkId, SubscriptionId};

/// Somebody who reads the log from a position of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReaderId {
    /// The relay, for the stream of a sink.
    Stream(SinkId),
    /// A subscription of this database, where there is no broker.
    Subscription(SubscriptionId),
    /// The dispatcher, for an endpoint and a context; a number of `sea_mq.endpoint_readers`.
    Endpoint(i64),
}

impl ReaderId {
    /// The kind, as in `sea_mq.cursors.reader_kind`.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Stream(_) => "stream",
            Self::Subscription(_) => "subscription",
            Self::Endpoint(_) => "endpoint",
        }
    }

    /// The number among those of its kind, as in `sea_mq.cursors.reader`.
    pub const fn number(self) -> i64 {
        match self {
            Self::Stream(number) | Self::Subscription(number) | Self::Endpoint(number) => number,
        }
    }

    /// From what [`Self::kind`] and [`Self::number`] give.
    pub fn new(kind: &str, number: i64) -> Option<Self> {
        let kinds = [Self::Stream(number), Self::Subscription(number), Self::Endpoint(number)];
        kinds.into_iter().find(|reader| reader.kind() == kind)
    }
}

/// How long a reader holds back the rows that it has not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Until it has read them. What waits counts as unpublished.
    UntilRead,
    /// Until it has read them, or passes them over: what is outside is nobody's fault here, so it does not count.
    UntilPassed,
    /// Not longer than its stream would have kept them: there is no broker, but one may come.
    WhileFresh,
}

/// The readers that hold back the rows of `sink`: its endpoints; its stream where there is a broker, and otherwise the
/// subscriptions of this database that read it. `others`: all readers but the stream.
pub fn holding(sink: SinkId, has_broker: bool, others: Vec<ReaderId>) -> Vec<(ReaderId, Hold)> {
    let stream = (ReaderId::Stream(sink), if has_broker { Hold::UntilRead } else { Hold::WhileFresh });
    let hold = |reader: ReaderId| match reader {
        ReaderId::Endpoint(_) => Some((reader, Hold::UntilPassed)),
        ReaderId::Subscription(_) if !has_broker => Some((reader, Hold::UntilRead)),
        ReaderId::Subscription(_) | ReaderId::Stream(_) => None,
    };
    others.into_iter().filter_map(hold).chain([stream]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_is_found_by_its_kind_and_number() {
        for reader in [ReaderId::Stream(-7), ReaderId::Subscription(7), ReaderId::Endpoint(7)] {
            assert_eq!(ReaderId::new(reader.kind(), reader.number()), Some(reader));
        }
        assert_eq!(ReaderId::new("nobody", 7), None);
    }

    #[test]
    fn with_a_broker_the_stream_and_endpoints_hold_rows_back_and_subscriptions_read_the_stream() {
        let others = || vec![ReaderId::Subscription(1), ReaderId::Endpoint(2)];
        let endpoint = (ReaderId::Endpoint(2), Hold::UntilPassed);
        assert_eq!(holding(7, true, others()), [endpoint, (ReaderId::Stream(7), Hold::UntilRead)]);
        let held = [(ReaderId::Subscription(1), Hold::UntilRead), endpoint, (ReaderId::Stream(7), Hold::WhileFresh)];
        assert_eq!(holding(7, false, others()), held);
    }
}
