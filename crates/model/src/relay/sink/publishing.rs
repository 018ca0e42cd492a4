//! From a chunk of the log to what is sent.

use std::collections::HashSet;

use uuid::Uuid;

use super::{Ordering, Sink};
use crate::broker::{Outgoing, Request};
use crate::domain::envelope::Publication;
use crate::domain::event::Logged;
use crate::domain::position::Position;
use crate::relay::segment::{Entry, Fate, Segment};
use crate::relay::transactions::{Extent, Group, Placed, SplitReason};

impl Sink {
    /// Hands a chunk on. `events` are those between the position last read and `after`. `open`: the transactions that
    /// have further events behind it, if that is wanted.
    pub fn publish(&mut self, events: Vec<Logged>, after: Position, open: &HashSet<u64>) -> Option<Request> {
        let upto = after.batch.as_ref().map_or(&after.done, |batch| &batch.upto.snapshot).clone();
        let done = self.read.done.clone();
        self.exhausted = after.batch.is_none() && events.is_empty();
        self.read = after.clone();
        let waiting = !self.segments.is_empty() || !self.early.is_empty() || !self.transactions.is_empty();
        if events.is_empty() && !waiting {
            // Nothing is stored and nothing is recorded: an idle relay writes nothing.
            let before = (self.settled.tail_from, self.settled.refilling);
            self.settle_at(after);
            self.unsaved |= before != (self.settled.tail_from, self.settled.refilling);
            return None;
        }
        let entries = Vec::with_capacity(events.len());
        let mut segment = Segment { done, upto, after, entries, next: 0, bytes: 0, early: false };
        let mut messages = Vec::with_capacity(events.len());
        let mut batches = Vec::new();
        let first = self.place;
        self.place += events.len() as u64;
        let placed = events.into_iter().zip(first..).map(|(logged, place)| Placed { place, logged });
        if self.wants_whole() {
            for group in self.transactions.take(placed, open) {
                self.enter_group(group, &mut segment, &mut messages, &mut batches);
            }
            segment.keep_behind(self.transactions.first());
        } else {
            placed.for_each(|event| self.enter(event, &mut segment, &mut messages));
        }
        self.in_flight += messages.len();
        self.bytes += segment.bytes;
        self.segments.push_back(segment);
        self.settle();
        self.request(messages, batches)
    }

    fn enter(&mut self, event: Placed, segment: &mut Segment, messages: &mut Vec<Outgoing>) {
        let Placed { place, logged } = event;
        let ready_at = logged.ready_at();
        let Logged { seq, event, schema, .. } = logged;
        let fate = self.fate_of(event.id, seq);
        segment.entries.push(Entry { id: event.id, seq, place, ready_at, fate });
        if fate == Fate::InFlight {
            let message = Publication::new(&event, schema.as_deref()).message(self.described.form);
            segment.bytes += message.body.len();
            messages.push(message);
        }
    }

    fn enter_group(
        &mut self,
        group: Group,
        segment: &mut Segment,
        messages: &mut Vec<Outgoing>,
        batches: &mut Vec<usize>,
    ) {
        let (xid, extent, before) = (group.xid, group.extent, messages.len());
        let (first, several) = (group.events.first().map(|event| event.logged.seq), group.events.len() > 1);
        let apart = !self.apart.is_empty() && group.events.iter().any(|event| self.apart.contains(&event.logged.seq));
        group.events.into_iter().for_each(|event| self.enter(event, segment, messages));
        let sent = messages.len() - before;
        let reason = match extent {
            // Also if some of it, or all, is stored already: it counts when it is settled.
            Extent::Whole if several && apart => Some(SplitReason::Refused),
            Extent::Whole if several && !self.batches => Some(SplitReason::NotAllowed),
            Extent::Whole => {
                batches.extend((sent > 0).then_some(sent));
                return;
            }
            Extent::Begun => Some(SplitReason::TooLarge),
            Extent::Continued => None,
        };
        batches.extend(std::iter::repeat_n(1, sent));
        if let (Some(reason), Some(first)) = (reason, first) {
            self.splitting.insert(first, (xid, reason));
        }
    }

    fn fate_of(&mut self, id: Uuid, seq: i64) -> Fate {
        if self.refused.contains(&seq) {
            return Fate::Refused;
        }
        if let Some(&sequence) = self.duplicates.get(&id) {
            return Fate::Stored(sequence);
        }
        self.tail.take(id).map_or(Fate::InFlight, Fate::Stored)
    }

    fn request(&mut self, messages: Vec<Outgoing>, batches: Vec<usize>) -> Option<Request> {
        if messages.is_empty() {
            return None;
        }
        let expected_last = (self.ordering == Ordering::Strict).then_some(self.last_sequence);
        self.last_sequence += messages.len() as u64;
        let stream = self.described.spec.name.clone();
        Some(Request::Publish { sink: self.id(), epoch: self.epoch, stream, expected_last, messages, batches })
    }
}
