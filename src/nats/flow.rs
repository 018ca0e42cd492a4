//! One sink's messages on their way in one epoch. See [`super::publish`].

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use async_nats::header::{NATS_EXPECTED_LAST_MESSAGE_ID, NATS_EXPECTED_LAST_SEQUENCE, NATS_MESSAGE_ID};
use async_nats::{HeaderMap, HeaderValue, Subject};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error, StringDeserializer};

use super::ack;
use crate::broker::{Ack, Fault, FaultKind, Outgoing, Report, SinkId};
use crate::domain::header_block::HeaderBlock;

/// Messages of one sink without an answer. nats-server queues 10,000 per stream before it refuses more, and at 150,000
/// messages a second this is 27 ms of them.
pub(super) const WINDOW_MESSAGES: usize = 4096;
/// Bytes of one sink without an answer: a quarter of what nats-server queues per stream.
const WINDOW_BYTES: usize = 32 << 20;
/// How long an answer may be missing after a later one arrived.
pub(super) const GAP_GRACE: Duration = Duration::from_secs(1);

/// A message as the client library sends it.
#[derive(Debug)]
pub(super) struct Wire {
    /// Which message it is, to be given back if it cannot be sent.
    pub(super) slot: u32,
    pub(super) index: u64,
    pub(super) subject: Subject,
    pub(super) reply: Subject,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// The messages of one sink in one epoch: numbered from zero, answered in the same order.
#[derive(Debug)]
pub(super) struct Flow {
    sink: SinkId,
    pub(super) epoch: u64,
    pub(super) stream: String,
    pub(super) queue: VecDeque<Batch>,
    /// Each message expects its predecessor's id.
    chained: bool,
    /// `Nats-Msg-Id` of the message sent last, if `chained`.
    last_id: Option<String>,
    /// Sent and not yet reported, in order; the front is number `base`.
    window: VecDeque<Sent>,
    base: u64,
    bytes: usize,
    /// In `Publisher::turn`.
    pub(super) waiting: bool,
    /// Something failed; nothing more is sent, and the failure is reported when all before it is answered.
    pub(super) halted: bool,
    /// The failure is reported; nothing more is.
    pub(super) ended: bool,
    /// Entries behind the front that the server answered already.
    overtaken_by: usize,
    gap_since: Option<Instant>,
    acks: Vec<Ack>,
}

/// The messages of one request that are still to be sent.
#[derive(Debug)]
pub(super) struct Batch {
    /// Expected last sequence for the next message.
    pub(super) expected: Option<u64>,
    pub(super) messages: std::vec::IntoIter<Outgoing>,
}

#[derive(Debug)]
struct Sent {
    at: Instant,
    bytes: usize,
    /// Of the subject: an error that the server sends instead of an answer names nothing else.
    subject_hash: u64,
    outcome: Outcome,
}

/// What became of a message.
#[derive(Debug)]
pub(super) enum Outcome {
    Waiting,
    Stored(Ack),
    Failed(Box<Fault>),
}

impl Flow {
    pub(super) fn new(sink: SinkId, epoch: u64, stream: String, chained: bool) -> Self {
        Self {
            chained,
            sink,
            epoch,
            stream,
            queue: VecDeque::new(),
            last_id: None,
            window: VecDeque::new(),
            base: 0,
            bytes: 0,
            waiting: false,
            halted: false,
            ended: false,
            overtaken_by: 0,
            gap_since: None,
            acks: Vec::new(),
        }
    }

    pub(super) fn can_send(&self) -> bool {
        let room = self.window.len() < WINDOW_MESSAGES && self.bytes < WINDOW_BYTES;
        !self.halted && room && !self.queue.is_empty()
    }

    pub(super) fn next(&mut self, slot: u32, reply_prefix: &str, now: Instant) -> Option<Wire> {
        if !self.can_send() {
            return None;
        }
        let batch = self.queue.front_mut()?;
        let message = batch.messages.next()?;
        let expected = batch.expected;
        batch.expected = expected.map(|sequence| sequence + 1);
        if batch.messages.as_slice().is_empty() {
            self.queue.pop_front();
        }

        let index = self.base + self.window.len() as u64;
        let bytes = message.body.len() + message.headers.size();
        self.bytes += bytes;
        let subject_hash = hash(&message.subject);
        self.window.push_back(Sent { at: now, bytes, subject_hash, outcome: Outcome::Waiting });
        let id = self.chained.then(|| message.headers.id().to_owned());
        let previous_id = std::mem::replace(&mut self.last_id, id);
        match headers(message.headers, expected, previous_id.as_deref()) {
            Ok(headers) => Some(Wire {
                slot,
                index,
                subject: message.subject.into(),
                reply: format!("{reply_prefix}{}", ack::reply_token(slot, index)).into(),
                headers,
                body: message.body,
            }),
            Err(fault) => {
                self.resolve(index, Outcome::Failed(Box::new(fault)), false, now);
                None
            }
        }
    }

    /// Notes the outcome of a message, unless it has one already. `by_server` if the server answered.
    pub(super) fn resolve(&mut self, index: u64, outcome: Outcome, by_server: bool, now: Instant) {
        let Some(offset) = index.checked_sub(self.base).and_then(|offset| usize::try_from(offset).ok()) else { return };
        let Some(sent) = self.window.get_mut(offset) else { return };
        if !matches!(sent.outcome, Outcome::Waiting) {
            return;
        }
        if matches!(outcome, Outcome::Failed(_)) {
            self.halted = true;
            self.queue.clear();
        }
        sent.outcome = outcome;
        if offset > 0 && by_server {
            self.overtaken_by += 1;
            self.gap_since.get_or_insert(now);
        }
        self.settle(now);
    }

    /// The first message without an answer whose subject has this hash.
    pub(super) fn unanswered(&self, subject_hash: u64) -> Option<u64> {
        let wanted = |sent: &Sent| sent.subject_hash == subject_hash && matches!(sent.outcome, Outcome::Waiting);
        self.window.iter().position(wanted).map(|offset| self.base + offset as u64)
    }

    /// Takes what is stored from the front of the window.
    fn settle(&mut self, now: Instant) {
        let mut moved = false;
        while let Some(Sent { outcome: Outcome::Stored(ack), bytes, .. }) = self.window.front() {
            self.acks.push(*ack);
            self.bytes -= bytes;
            self.base += 1;
            // Every stored message but the first of this run was answered before its turn.
            self.overtaken_by = self.overtaken_by.saturating_sub(usize::from(moved));
            self.window.pop_front();
            moved = true;
        }
        if moved {
            self.gap_since = (self.overtaken_by > 0).then_some(now);
        }
    }

    pub(super) fn deadline(&self, ack_timeout: Duration) -> Option<Instant> {
        let oldest = self.window.front().filter(|sent| matches!(sent.outcome, Outcome::Waiting))?;
        let overdue = oldest.at + ack_timeout;
        Some(self.gap_since.map_or(overdue, |since| overdue.min(since + GAP_GRACE)))
    }

    /// Marks the oldest message as failed: for the reason that a later one failed, or for its silence.
    pub(super) fn give_up(&mut self) {
        let later = self.window.iter().find_map(|sent| match &sent.outcome {
            Outcome::Failed(fault) => Some(fault.as_ref().clone()),
            Outcome::Waiting | Outcome::Stored(_) => None,
        });
        let fault = later.unwrap_or_else(|| {
            let words = if self.gap_since.is_some() { "though a later one was answered" } else { "in time" };
            Fault::new(FaultKind::Timeout, format!("stream {} did not answer a publish {words}", self.stream))
        });
        self.halted = true;
        self.queue.clear();
        if let Some(front) = self.window.front_mut() {
            front.outcome = Outcome::Failed(Box::new(fault));
        }
    }

    pub(super) fn collect(&mut self, now: Instant, reports: &mut Vec<Report>) {
        if self.ended {
            return;
        }
        self.settle(now);
        if !self.acks.is_empty() {
            reports.push(Report::Acked { sink: self.sink, epoch: self.epoch, acks: std::mem::take(&mut self.acks) });
        }
        if let Some(Sent { outcome: Outcome::Failed(fault), .. }) = self.window.front() {
            reports.push(Report::PublishFailed { sink: self.sink, epoch: self.epoch, fault: fault.as_ref().clone() });
            self.ended = true;
            self.window = VecDeque::new();
        }
    }
}

/// The headers as the library wants them.
fn headers(mut block: HeaderBlock, expected: Option<u64>, previous_id: Option<&str>) -> Result<HeaderMap, Fault> {
    if let Some(sequence) = expected {
        block.push(NATS_EXPECTED_LAST_SEQUENCE.as_ref(), &sequence.to_string());
        if let Some(id) = previous_id {
            block.push(NATS_EXPECTED_LAST_MESSAGE_ID.as_ref(), id);
        }
    }
    let lines = block.into_lines().map_err(|name| {
        Fault::new(FaultKind::InvalidMessage, format!("header {name:?} cannot be sent: not a valid name or value"))
    })?;
    // All lines as the value of the first, which the library writes as it is. Its constructors would not take line ends;
    // that there are none but those between headers is what a block is for.
    let lines: StringDeserializer<Error> = lines.into_deserializer();
    let value = HeaderValue::deserialize(lines).map_err(|error| Fault::new(FaultKind::Server, error.to_string()))?;
    let mut map = HeaderMap::new();
    map.insert(NATS_MESSAGE_ID, value);
    Ok(map)
}

pub(super) fn hash(subject: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    subject.hash(&mut hasher);
    hasher.finish()
}
