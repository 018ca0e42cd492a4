//! Lanes: what of a subscription's messages may be handled at the same time.
//!
//! All messages of an aggregate are in one lane, and a lane's messages are handled one after the other.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::domain::message::Message;

/// One of a subscription's lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Lane {
    /// From 0.
    pub number: i16,
    /// How many the subscription has: its `workers`.
    pub of: i16,
}

/// What a message's lane follows from: its aggregate, or itself where it has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneKey(u64);

impl LaneKey {
    pub fn of(message: &Message) -> Self {
        // The same in each process of one build, which is all that is needed.
        let mut hasher = DefaultHasher::new();
        match (&message.aggregate_type, &message.aggregate_id) {
            (Some(aggregate_type), Some(aggregate_id)) => (aggregate_type, aggregate_id).hash(&mut hasher),
            _ => message.message_id.hash(&mut hasher),
        }
        Self(hasher.finish())
    }
}

impl Lane {
    /// That of a subscription that has one.
    pub const ONLY: Self = Self { number: 0, of: 1 };

    pub fn all(workers: i16) -> impl Iterator<Item = Self> {
        (0..workers.max(1)).map(move |number| Self { number, of: workers.max(1) })
    }

    pub const fn is_only(self) -> bool {
        self.of <= 1
    }

    pub fn has(self, key: LaneKey) -> bool {
        self.is_only() || key.0 % u64::from(self.of.unsigned_abs()) == u64::from(self.number.unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(aggregate: Option<&str>, id: &str) -> Message {
        let aggregate_type = aggregate.map(|_| "order".to_owned());
        let aggregate_id = aggregate.map(str::to_owned);
        Message { aggregate_type, aggregate_id, message_id: id.into(), ..Message::default() }
    }

    #[test]
    fn an_aggregate_is_in_one_lane_and_others_are_spread() {
        for workers in 1..=6 {
            let lanes = |message: &Message| {
                let key = LaneKey::of(message);
                Lane::all(workers).filter(|lane| lane.has(key)).map(|lane| lane.number).collect::<Vec<_>>()
            };
            let one = lanes(&message(Some("1"), "a"));
            assert_eq!(one.len(), 1);
            assert_eq!(one, lanes(&message(Some("1"), "b")));
            let spread: std::collections::BTreeSet<_> =
                (0..100).flat_map(|n| lanes(&message(None, &n.to_string()))).collect();
            assert_eq!(spread.len(), usize::try_from(workers).unwrap());
        }
    }
}
