//! One sink's messages on their way in one epoch. See [`super::publish`].

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use async_nats::{HeaderMap, Subject};
use bytes::Bytes;

use super::ack;
use super::queued::{self, Next, Place, Queued};
use sea_mq_model::broker::{Ack, Fault, FaultKind, Report, SinkId};

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
    pub(super) queue: VecDeque<Queued>,
    /// Each message expects its predecessor's id.
    chained: bool,
    /// `Nats-Msg-Id` of the message sent last, if `chained`.
    last_id: Option<String>,
    /// Sent and not yet reported, in order; the front is number `base`.
    window: VecDeque<Sent>,
    base: u64,
    bytes: usize,
    /// The first message is stored. Until it is, nothing else is sent: see [`Flow::can_send`].
    pub(super) confirmed: bool,
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
    /// Size of the largest message that was stored.
    pub(super) largest: usize,
}

#[derive(Debug)]
struct Sent {
    at: Instant,
    /// Those that the server has not answered for.
    bytes: usize,
    size: usize,
    place: Place,
    /// Answered before its turn.
    overtook: bool,
    /// Of the subject: an error that the server sends instead of an answer names nothing else.
    subject_hash: u64,
    outcome: Outcome,
}

/// What became of a message.
#[derive(Debug)]
pub(super) enum Outcome {
    Waiting,
    /// The server keeps it aside until the last message of its batch is there.
    Staged,
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
            confirmed: false,
            waiting: false,
            halted: false,
            ended: false,
            overtaken_by: 0,
            gap_since: None,
            acks: Vec::new(),
            largest: 0,
        }
    }

    /// Whether the next message may be sent now.
    ///
    /// What an earlier epoch has sent may still be on its way to the stream. If it gets there after the stream's end was
    /// looked at, the first message is refused; but one of those behind it would find the sequence that it expects, which
    /// says how much is stored and not what. So the first message (with the rest of its batch) goes alone. On a connection
    /// it is behind all that was sent earlier: once it is stored, nothing of that can be stored any more.
    pub(super) fn can_send(&self) -> bool {
        let room = self.window.len() < WINDOW_MESSAGES && self.bytes < WINDOW_BYTES;
        let turn = self.confirmed || self.window.back().is_none_or(|sent| !sent.place.is_last());
        !self.halted && room && turn && !self.queue.is_empty()
    }

    pub(super) fn next(&mut self, slot: u32, reply_prefix: &str, now: Instant) -> Option<Wire> {
        if !self.can_send() {
            return None;
        }
        let queued = self.queue.front_mut()?;
        let Next { message, place, expected } = queued.next()?;
        if queued.is_empty() {
            self.queue.pop_front();
        }

        let index = self.base + self.window.len() as u64;
        let bytes = message.body.len() + message.headers.size();
        self.bytes += bytes;
        let subject_hash = hash(&message.subject);
        let outcome = Outcome::Waiting;
        self.window.push_back(Sent { at: now, bytes, size: bytes, place, overtook: false, subject_hash, outcome });
        let id = self.chained.then(|| message.headers.id().to_owned());
        let previous_id = std::mem::replace(&mut self.last_id, id);
        let reply = |index| format!("{reply_prefix}{}", ack::reply_token(slot, index));
        // No other message ever had the reply subject of its first one. Short, so that it fits in where single messages
        // name their predecessor: emit reckons with that.
        let batch = || format!("{:016x}", hash(&reply(index + 1 - place.number as u64)));
        match queued::headers(message.headers, place, expected, previous_id.as_deref(), batch) {
            Ok(headers) => Some(Wire {
                slot,
                index,
                subject: message.subject.into(),
                reply: reply(index).into(),
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
        let Some((offset, sent)) = self.waiting_for(index) else { return };
        let begin = offset.saturating_sub(sent.place.number - 1);
        if begin > 0 && by_server {
            sent.overtook = true;
            self.overtaken_by += 1;
            self.gap_since.get_or_insert(now);
        }
        match &outcome {
            Outcome::Failed(_) => {
                self.halted = true;
                self.queue.clear();
            }
            // The ack of a batch is that of its last message.
            Outcome::Stored(ack) => {
                for (member, before) in self.window.range_mut(begin..offset).zip((1..=offset - begin).rev()) {
                    member.outcome =
                        Outcome::Stored(Ack { sequence: ack.sequence.saturating_sub(before as u64), ..*ack });
                }
            }
            Outcome::Staged | Outcome::Waiting => {}
        }
        if let Some(sent) = self.window.get_mut(offset) {
            sent.outcome = outcome;
        }
        self.settle(now);
    }

    /// Notes that the server keeps a message aside. It may say so while it has not answered for what comes before.
    pub(super) fn stage(&mut self, index: u64, now: Instant) {
        let Some((_, sent)) = self.waiting_for(index) else { return };
        if sent.place.is_last() {
            let fault = Fault::new(FaultKind::Server, format!("empty answer of stream {}", self.stream));
            return self.resolve(index, Outcome::Failed(Box::new(fault)), true, now);
        }
        sent.outcome = Outcome::Staged;
        self.bytes -= std::mem::take(&mut sent.bytes);
    }

    /// A message without an outcome, and where it stands in the window.
    fn waiting_for(&mut self, index: u64) -> Option<(usize, &mut Sent)> {
        let offset = usize::try_from(index.checked_sub(self.base)?).ok()?;
        let sent = self.window.get_mut(offset)?;
        matches!(sent.outcome, Outcome::Waiting).then_some((offset, sent))
    }

    /// Where the first message stands that is not kept aside.
    fn front(&self) -> Option<usize> {
        self.window.iter().position(|sent| !matches!(sent.outcome, Outcome::Staged))
    }

    /// Size of the message that would be sent next.
    pub(super) fn next_size(&self) -> Option<usize> {
        self.queue.front()?.next_size()
    }

    /// The messages without an answer: their numbers and sizes.
    pub(super) fn all_unanswered(&self) -> impl Iterator<Item = (u64, usize)> {
        let waiting = |sent: &Sent| matches!(sent.outcome, Outcome::Waiting);
        let numbered = (self.base..).zip(&self.window);
        numbered.filter(move |(_, sent)| waiting(sent)).map(|(index, sent)| (index, sent.size))
    }

    /// The first message without an answer whose subject has this hash.
    pub(super) fn unanswered(&self, subject_hash: u64) -> Option<u64> {
        let wanted = |sent: &Sent| sent.subject_hash == subject_hash && matches!(sent.outcome, Outcome::Waiting);
        self.window.iter().position(wanted).map(|offset| self.base + offset as u64)
    }

    /// Takes what is stored from the front of the window.
    fn settle(&mut self, now: Instant) {
        let mut moved = false;
        while let Some(Sent { outcome: Outcome::Stored(ack), bytes, size, overtook, .. }) = self.window.front() {
            self.acks.push(*ack);
            self.confirmed = true;
            self.bytes -= bytes;
            self.largest = self.largest.max(*size);
            self.base += 1;
            self.overtaken_by -= usize::from(*overtook);
            self.window.pop_front();
            moved = true;
        }
        if moved {
            self.gap_since = (self.overtaken_by > 0).then_some(now);
        }
    }

    pub(super) fn deadline(&self, ack_timeout: Duration) -> Option<Instant> {
        let oldest = self.window.get(self.front()?).filter(|sent| matches!(sent.outcome, Outcome::Waiting))?;
        let overdue = oldest.at + ack_timeout;
        Some(self.gap_since.map_or(overdue, |since| overdue.min(since + GAP_GRACE)))
    }

    /// Marks the oldest message as failed: for the reason that a later one failed, or for its silence.
    pub(super) fn give_up(&mut self) {
        let later = self.window.iter().find_map(|sent| match &sent.outcome {
            Outcome::Failed(fault) => Some(fault.as_ref().clone()),
            Outcome::Waiting | Outcome::Staged | Outcome::Stored(_) => None,
        });
        let fault = later.unwrap_or_else(|| {
            let words = if self.gap_since.is_some() { "though a later one was answered" } else { "in time" };
            Fault::new(FaultKind::Timeout, format!("stream {} did not answer a publish {words}", self.stream))
        });
        self.halted = true;
        self.queue.clear();
        if let Some(front) = self.front().and_then(|front| self.window.get_mut(front)) {
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
        let Some(ahead) = self.front() else { return };
        if let Some(Sent { outcome: Outcome::Failed(fault), .. }) = self.window.get(ahead) {
            let (sink, epoch, fault) = (self.sink, self.epoch, fault.as_ref().clone());
            reports.push(Report::PublishFailed { sink, epoch, ahead, fault });
            self.ended = true;
            self.window = VecDeque::new();
        }
    }
}

pub(super) fn hash(subject: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    subject.hash(&mut hasher);
    hasher.finish()
}
