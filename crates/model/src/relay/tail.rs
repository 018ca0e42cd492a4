//! What a stream was found to hold beyond what is settled.
//!
//! Events that were stored in one order may be read again in another: a batch that is read anew ends later than it did, and
//! what was committed late has its place among what was stored before. So an event that is read later may be stored
//! earlier, and the tail that the next failure makes necessary must begin before the first that is not settled.

use std::collections::{BTreeSet, HashMap};

use crate::broker::Stored;

#[derive(Default)]
pub(super) struct Tail {
    /// Sequences of the messages that were not met in the log, by id.
    unmet: HashMap<String, u64>,
    /// Sequences of the messages that may be events that are not settled.
    unsettled: BTreeSet<u64>,
    /// Ends of batches until all of the tail's events have been met: what is left then is nobody's.
    batches: u8,
}

impl Tail {
    /// `within_batch`: what is not settled begins in the middle of a batch, which was begun before the tail was read. Then
    /// the one behind it as well may have been begun.
    pub(super) fn new(messages: Vec<Stored>, within_batch: bool) -> Self {
        let unmet: HashMap<_, _> =
            messages.into_iter().filter_map(|message| Some((message.message_id?, message.sequence))).collect();
        Self { unsettled: unmet.values().copied().collect(), unmet, batches: 1 + u8::from(within_batch) }
    }

    /// An event was met in the log. Returns its sequence if the stream holds it.
    pub(super) fn take(&mut self, id: impl ToString) -> Option<u64> {
        if self.unmet.is_empty() { None } else { self.unmet.remove(&id.to_string()) }
    }

    /// The event with this sequence is settled.
    pub(super) fn settle(&mut self, sequence: u64) {
        if !self.unsettled.is_empty() {
            self.unsettled.remove(&sequence);
        }
    }

    /// All events of a batch are settled.
    pub(super) fn end_batch(&mut self) {
        self.batches = self.batches.saturating_sub(1);
        if self.batches == 0 {
            *self = Self::default();
        }
    }

    /// Sequence of the first message that may be an event that is not settled.
    pub(super) fn first(&self) -> Option<u64> {
        self.unsettled.first().copied()
    }
}
