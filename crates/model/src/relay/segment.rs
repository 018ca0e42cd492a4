//! What was read of the log and handed to the broker, until it is settled.

use uuid::Uuid;

use crate::domain::position::{Position, Snapshot};
use crate::domain::runs::Run;

/// A chunk that was read and handed to the broker.
pub(super) struct Segment {
    pub(super) done: Snapshot,
    pub(super) upto: Snapshot,
    pub(super) after: Position,
    pub(super) entries: Vec<Entry>,
    /// Entries before this one are settled.
    pub(super) next: usize,
    pub(super) bytes: usize,
    /// Some of the entries stand behind `after` in the log.
    pub(super) early: bool,
}

pub(super) struct Entry {
    pub(super) id: Uuid,
    pub(super) seq: i64,
    /// Number in the order of the log.
    pub(super) place: u64,
    /// Since when it could have been stored.
    pub(super) ready_at: i64,
    pub(super) fate: Fate,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    InFlight,
    Stored(u64),
    /// The broker will never take it.
    Refused,
}

impl Segment {
    /// Up to this place in the log, all events of the batch are settled with the chunk.
    pub(super) fn end(&self) -> i64 {
        self.after.batch.as_ref().map_or(i64::MAX, |batch| batch.at)
    }

    /// `first`: place of the first event that was read and waits for the rest of its transaction.
    pub(super) fn keep_behind(&mut self, first: Option<i64>) {
        if let (Some(first), Some(batch)) = (first, &mut self.after.batch) {
            batch.at = batch.at.min(first - 1);
        }
        let end = self.end();
        self.early = self.entries.iter().any(|entry| entry.seq > end);
    }

    pub(super) fn runs(&self) -> impl Iterator<Item = Run> + '_ {
        let follows = |a: &Entry, b: &Entry| match (a.fate.sequence(), b.fate.sequence()) {
            (Some(first), Some(second)) => first + 1 == second && a.place + 1 == b.place,
            _ => false,
        };
        self.entries.chunk_by(follows).map(|entries| Run {
            done: self.done.clone(),
            upto: self.upto.clone(),
            first_seq: entries[0].seq,
            last_seq: entries[entries.len() - 1].seq,
            events: entries.len() as u64,
            place: entries[0].place,
            first_stream_seq: entries[0].fate.sequence(),
        })
    }
}

impl Fate {
    pub(super) fn sequence(self) -> Option<u64> {
        match self {
            Self::Stored(sequence) => Some(sequence),
            Self::InFlight | Self::Refused => None,
        }
    }
}
