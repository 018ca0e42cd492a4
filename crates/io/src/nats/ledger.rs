//! The messages of one `Consume`: how many were asked for, which wait for their ack, and which are held back.
//!
//! Pure state, no I/O. The sum of what was asked for and what waits never exceeds the window, nor its share of the memory
//! (except by what an earlier session left, which is taken all at once and reported as room permits, and by one message that
//! is larger than the share). So nothing lies in a buffer without the broker being told that it is in progress.
//!
//! Bytes are counted as the server counts them for `max_bytes`: subject, reply subject, headers and body.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_nats::Subject;

use super::delivery::Arrived;
use sea_mq_model::broker::Delivery;

/// The next token. It outlives sessions: an ack that comes late must not meet another message's token.
static NEXT_TOKEN: AtomicU64 = AtomicU64::new(1);

/// What a message takes beside its bytes, about.
const OVERHEAD: usize = 256;

/// What to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// So many messages …
    pub(super) count: usize,
    /// … of so many bytes together; `None`: however large they are.
    pub(super) bytes: Option<usize>,
}

#[derive(Debug)]
pub(super) struct Ledger {
    /// Most messages that may be reported and wait for their ack.
    window: usize,
    /// How long the broker is left without a word about a message.
    interval: Duration,
    /// Asked for and not arrived.
    asked: usize,
    /// Bytes of what was asked for and has not arrived.
    asked_bytes: usize,
    /// Bytes of `open`.
    bytes: usize,
    /// The next message is larger than this.
    larger_than: Option<usize>,
    /// By token: what waits for its ack, reported or held.
    open: BTreeMap<u64, Open>,
    /// Not yet reported, in order.
    held: VecDeque<Delivery>,
    /// When the next word to the broker is due, or a moment before that.
    due: Option<Instant>,
}

#[derive(Debug)]
struct Open {
    sequence: u64,
    reply: Subject,
    bytes: usize,
    /// When the broker delivered the message, or was last told that it is in progress.
    told: Instant,
}

impl Ledger {
    pub(super) fn new(window: usize, ack_wait: Duration) -> Self {
        Self {
            window: window.max(1),
            interval: ack_wait / 2,
            asked: 0,
            asked_bytes: 0,
            bytes: 0,
            larger_than: None,
            open: BTreeMap::new(),
            held: VecDeque::new(),
            due: None,
        }
    }

    /// What to ask for now, of a share of so many bytes, of which no more than `line` are to be on their way. Few messages at
    /// a time only if nothing else is on its way: each request costs a message. Few bytes not even then: what is under way
    /// makes room.
    pub(super) fn wanted(&self, share: usize, line: usize) -> Option<Wanted> {
        let count = self.window.saturating_sub(self.open.len() + self.asked);
        let room = share.saturating_sub(self.bytes.saturating_add(self.asked_bytes));
        let bytes = room.min(line.saturating_sub(self.asked_bytes));
        let little = (self.asked > 0 && count < self.window.div_ceil(4)) || bytes < share.min(line).div_ceil(4);
        if count == 0 || little {
            return None;
        }
        match self.larger_than {
            Some(size) if bytes <= size => self.is_idle().then_some(Wanted { count: 1, bytes: None }),
            _ => Some(Wanted { count, bytes: Some(bytes) }),
        }
    }

    /// Nothing was asked for, and nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.asked == 0 && self.open.is_empty()
    }

    /// Notes what was asked for.
    pub(super) fn ask(&mut self, asked: Wanted) {
        self.asked += asked.count;
        // One that may be of any size is alone on its way.
        self.asked_bytes = self.asked_bytes.saturating_add(asked.bytes.unwrap_or(usize::MAX));
    }

    /// Notes that so many of the messages asked for will not come, as the next one is larger than what was left to ask for.
    pub(super) fn too_large(&mut self, left: usize, bytes: Option<usize>) {
        let bytes = bytes.unwrap_or(self.asked_bytes);
        self.asked_bytes = self.asked_bytes.saturating_sub(bytes);
        self.give_up(Some(left));
        self.larger_than = Some(bytes);
    }

    /// Whether the broker owes an answer.
    pub(super) fn expects(&self) -> bool {
        self.asked > 0
    }

    /// Notes that so many of the messages asked for will not come; `None` for all.
    pub(super) fn give_up(&mut self, count: Option<usize>) {
        // The next message may be another one by now.
        self.larger_than = None;
        self.asked = count.map_or(0, |count| self.asked.saturating_sub(count));
        if self.asked == 0 {
            self.asked_bytes = 0;
        }
    }

    /// A message that was asked for is there. One that takes the last byte ends its request, and the server says no word.
    fn take_in(&mut self, arrived: &Arrived) {
        self.larger_than = None;
        self.asked_bytes = self.asked_bytes.saturating_sub(arrived.message.length);
        let left = if self.asked_bytes == 0 { 0 } else { self.asked.saturating_sub(1) };
        self.asked = left;
        if left == 0 {
            self.asked_bytes = 0;
        }
    }

    /// Takes what was asked for. Returns what to report: nothing, if the message waits for its ack already. That one
    /// was redelivered although it is in progress; its ack goes where the broker now expects it.
    pub(super) fn arrived(&mut self, arrived: Arrived, now: Instant) -> Option<Delivery> {
        self.take_in(&arrived);
        if arrived.metadata.delivered > 1 {
            let sequence = arrived.metadata.sequence;
            if let Some(open) = self.open.values_mut().find(|open| open.sequence == sequence) {
                open.reply = arrived.reply;
                open.told = now;
                return None;
            }
        }
        if !self.held.is_empty() {
            // A late answer to the requests of the beginning: it does not overtake what waits.
            self.hold(arrived, now);
            return None;
        }
        Some(self.enter(arrived, now))
    }

    /// Takes what an earlier session left. It is reported by [`release`](Self::release).
    pub(super) fn hold(&mut self, arrived: Arrived, now: Instant) {
        let delivery = self.enter(arrived, now);
        self.held.push_back(delivery);
    }

    fn enter(&mut self, arrived: Arrived, now: Instant) -> Delivery {
        let token = NEXT_TOKEN.fetch_add(1, Ordering::Relaxed);
        let bytes = arrived.message.length + OVERHEAD;
        let open = Open { sequence: arrived.metadata.sequence, reply: arrived.reply.clone(), bytes, told: now };
        self.bytes += bytes;
        self.open.insert(token, open);
        self.due.get_or_insert(now + self.interval);
        arrived.into_delivery(token)
    }

    /// What was held back and may be reported now.
    pub(super) fn release(&mut self) -> Vec<Delivery> {
        let reported = self.open.len() - self.held.len();
        let room = self.window.saturating_sub(reported).min(self.held.len());
        self.held.drain(..room).collect()
    }

    /// Takes a message out. Returns where to send its ack.
    pub(super) fn settle(&mut self, token: u64) -> Option<Subject> {
        let open = self.open.remove(&token)?;
        self.bytes -= open.bytes;
        Some(open.reply)
    }

    /// When [`overdue`](Self::overdue) is to be asked.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// The messages about which the broker should hear that they are in progress. They count as told.
    pub(super) fn overdue(&mut self, now: Instant) -> Vec<Subject> {
        let mut replies = Vec::new();
        if self.due.is_none_or(|due| due > now) {
            return replies;
        }
        let mut earliest: Option<Instant> = None;
        for open in self.open.values_mut() {
            if open.told + self.interval <= now {
                open.told = now;
                replies.push(open.reply.clone());
            }
            earliest = Some(earliest.map_or(open.told, |earliest| earliest.min(open.told)));
        }
        self.due = earliest.map(|told| told + self.interval);
        replies
    }
}

#[cfg(test)]
mod tests;
