//! From an acknowledgement, or a failure, to how far the sink has come.

use std::time::{Duration, Instant};

use uuid::Uuid;

use super::{Failure, Link, Sink};
use crate::broker::{Ack, Fault, FaultKind};
use crate::domain::position::Position;
use crate::relay::segment::{Entry, Fate, Segment};
use crate::relay::transactions::Splits;

/// For so long a stream may be without a leader before that is told.
const ELECTION: Duration = Duration::from_secs(5);

impl Sink {
    /// Some of what is in flight is stored. Returns what is wrong if the broker says so of a message that it does not hold:
    /// for as long as its duplicate window it knows the ids of messages that were deleted. Then the sink begins again later.
    pub fn acked(&mut self, epoch: u64, acks: Vec<Ack>, now: Instant, jitter: f64) -> Option<Fault> {
        if epoch != self.epoch {
            return None;
        }
        self.proven |= !acks.is_empty();
        for ack in acks {
            // What is stored of a refill was found when the tail was read.
            if ack.duplicate && self.is_refilling() {
                self.settle();
                self.wait(now, jitter);
                let words = "the broker still knows the ids of messages that were deleted, and takes them for stored";
                return Some(Fault::new(FaultKind::Server, words));
            }
            self.backoff.reset();
            self.deserted = None;
            self.stumbled = false;
            let Some(entry) = self.first_in_flight() else { break };
            entry.fate = Fate::Stored(ack.sequence);
            let (id, ready_at) = (entry.id, entry.ready_at);
            self.in_flight -= 1;
            if ack.duplicate {
                self.duplicates.insert(id, ack.sequence);
            } else if !self.is_refilling() {
                self.stored.push(ready_at);
            }
        }
        self.settle();
        None
    }

    /// A message failed, and all in flight with it. `ahead` messages in flight stand before it, of the same batch.
    pub fn publish_failed(
        &mut self,
        epoch: u64,
        ahead: usize,
        fault: &Fault,
        now: Instant,
        jitter: f64,
    ) -> Option<Failure> {
        if epoch != self.epoch || !matches!(self.link, Link::Flowing) {
            return None;
        }
        // A batch fails as a whole: then its first message stands for it.
        let whole = matches!(fault.kind, FaultKind::DuplicateInBatch | FaultKind::BatchRefused);
        let mut failure = Failure::Again;
        match (fault.kind, self.nth_in_flight(if whole { 0 } else { ahead })) {
            // The event's own fault: it is set aside, and the others go on.
            (FaultKind::MessageTooLarge | FaultKind::InvalidMessage, Some((id, seq))) => {
                self.refused.insert(seq);
                failure = Failure::Refused { id, seq };
            }
            // Once more, it is waited for: in a cluster without a quorum messages on their way count, and are not in the tail.
            (FaultKind::WrongSequence, _) if !self.stumbled => {
                self.suspicious = true;
                self.stumbled = true;
            }
            // As after a lost ack, the tail shows what is stored. If it does not, the messages go one by one.
            (FaultKind::DuplicateInBatch, Some((_, seq))) => {
                if self.doubled.replace(seq) == Some(seq) {
                    self.apart.insert(seq);
                }
            }
            (FaultKind::BatchRefused, Some((_, seq))) => {
                self.apart.insert(seq);
            }
            // For a moment it is no news: a cluster elects the stream's leader.
            (FaultKind::StreamMissing | FaultKind::Leaderless, _) if self.is_brief(now) => {
                self.wait(now, jitter);
                return None;
            }
            _ => {
                self.wait(now, jitter);
                return Some(Failure::Again);
            }
        }
        self.forget_in_flight();
        self.link = Link::Waiting { until: now };
        Some(failure)
    }

    /// Whether the stream has been without a leader for a moment only.
    pub(super) fn is_brief(&mut self, now: Instant) -> bool {
        now.saturating_duration_since(*self.deserted.get_or_insert(now)) < ELECTION
    }

    fn first_in_flight(&mut self) -> Option<&mut Entry> {
        self.segments.iter_mut().find_map(|segment| {
            while segment.entries.get(segment.next).is_some_and(|entry| entry.fate != Fate::InFlight) {
                segment.next += 1;
            }
            segment.entries.get_mut(segment.next)
        })
    }

    fn nth_in_flight(&mut self, ahead: usize) -> Option<(Uuid, i64)> {
        self.first_in_flight();
        let unsettled = self.segments.iter().flat_map(|segment| segment.entries.iter().skip(segment.next));
        unsettled.filter(|entry| entry.fate == Fate::InFlight).nth(ahead).map(|entry| (entry.id, entry.seq))
    }

    /// Takes the chunks at the front of which every event has met its fate.
    pub(super) fn settle(&mut self) {
        self.first_in_flight();
        while self.segments.front().is_some_and(|segment| segment.next == segment.entries.len()) {
            let Some(segment) = self.segments.pop_front() else { return };
            self.bytes -= segment.bytes;
            if !self.duplicates.is_empty() {
                segment.entries.iter().for_each(|entry| {
                    self.duplicates.remove(&entry.id);
                });
            }
            let segment = if segment.early || !self.early.is_empty() { self.without_early(segment) } else { segment };
            if !self.apart.is_empty() || !self.splitting.is_empty() {
                segment.entries.iter().for_each(|entry| self.count_split(entry.seq));
            }
            for sequence in segment.entries.iter().filter_map(|entry| entry.fate.sequence()) {
                self.settled.stream_sequence = self.settled.stream_sequence.max(sequence);
                self.tail.settle(sequence);
            }
            segment.runs().for_each(|run| self.runs.push(run));
            self.settle_at(segment.after);
            self.unsaved = true;
        }
    }

    pub(super) fn settle_at(&mut self, position: Position) {
        if position.batch.is_none() {
            self.settled.refilling = false;
            self.tail.end_batch();
        }
        self.settled.position = position;
        let early = self.early.iter().filter_map(|entry| entry.fate.sequence()).min();
        let first = early.into_iter().chain(self.tail.first()).min();
        self.settled.tail_from = first.map(|first| first - 1).filter(|&from| from < self.settled.stream_sequence);
    }

    /// An event is settled: if its transaction was split, it counts now.
    fn count_split(&mut self, seq: i64) {
        self.apart.remove(&seq);
        if let Some((xid, reason)) = self.splitting.remove(&seq) {
            let count = self.splits.map_or(0, |splits| splits.count) + 1;
            self.splits = Some(Splits { count, xid, reason });
        }
    }

    /// Puts off what stands behind the place that the chunk settles, and adds what was put off and does not any more.
    fn without_early(&mut self, mut segment: Segment) -> Segment {
        let mut entries = std::mem::take(&mut self.early);
        entries.append(&mut segment.entries);
        let end = segment.end();
        (segment.entries, self.early) = entries.into_iter().partition(|entry| entry.seq <= end);
        segment
    }
}
