//! One sink of the relay: from a position in the log to a sequence in a stream, and back after a failure.
//!
//! ```text
//!          connect            stream ready            tail read            the lease is ours
//!   Down ───────────► Ensuring ───────────► Tailing ───────────► AtLease ───────────────────► Flowing
//!    ▲                 ▲    │                  │ ╲  what is it?   ▲                              │
//!    │ disconnect      │    └───────► Waiting ◄┘   ╲► Judging ────┘        a publish failed      │
//!    └── (from all)    └───── retry ────┘▲───────────────────────────────────────────────────────┘
//! ```
//!
//! [`publishing`]: what is sent; [`settling`]: what comes back.
//!
//! Paused is left by `sea_mq.reload()` and by a refill only. Whatever fails, the way back is the same: begin again at the
//! position last settled, read what the stream holds beyond the sequence last settled (or from further back: see
//! [`Cursor::tail_from`]), and skip what is found there.

mod drift;
mod publishing;
mod settling;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::broker::{Fault, FaultKind, Request, SinkId, Stored, StreamInfo, StreamSpec};
use crate::domain::drift::Drift;
use crate::domain::envelope::Form;
use crate::domain::position::Position;
use crate::domain::retry::Backoff;
use crate::domain::runs::Runs;
use crate::relay::segment::{Entry, Segment};
use crate::relay::tail::Tail;
use crate::relay::transactions::{SplitReason, Splits, Transactions};

/// What a sink's cursor says: a position in the log, and the place in the stream that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub position: Position,
    /// The greatest stream sequence of what lies before `position`; 0 for none.
    pub stream_sequence: u64,
    /// Creation time of the stream in microseconds since 1970, once known.
    pub stream_created_us: Option<i64>,
    /// What lies beyond `position` may be stored anywhere beyond this sequence; `None`: beyond `stream_sequence`.
    pub tail_from: Option<u64>,
    /// The batch under way was published before, and is looked at once more.
    pub refilling: bool,
}

impl Cursor {
    pub fn start() -> Self {
        Self {
            position: Position::start(),
            stream_sequence: 0,
            stream_created_us: None,
            tail_from: None,
            refilling: false,
        }
    }
}

/// How the order in the stream is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ordering {
    /// Every publish names the sequence that it expects, so nothing can overtake a message that was lost.
    Strict,
    /// Others publish to the stream as well. Order is that of the connection; what a failure tears apart is put right
    /// by publishing again, which may store an event behind later ones.
    Shared,
}

impl Ordering {
    /// The value of `sea_mq.stream_state.ordering`.
    pub const fn token(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Shared => "shared",
        }
    }
}

/// A stream, as described in the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    pub sink: SinkId,
    pub form: Form,
    pub spec: StreamSpec,
}

/// What the stream has lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Last sequence that was acknowledged.
    pub recorded: u64,
    /// Last sequence that is left; 0 if the stream was created anew.
    pub left: u64,
}

enum Link {
    Down,
    Ensuring,
    Tailing,
    /// Somebody looks whether all that the tail holds is known.
    Judging,
    /// The lease has to be made sure of. `asked`: an answer is on its way that is later than what is known of the stream.
    AtLease {
        asked: bool,
    },
    Flowing,
    Waiting {
        until: Instant,
    },
    Paused,
}

/// What became of a failed publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The event itself is at fault; it is left out from now on.
    Refused { id: Uuid, seq: i64 },
    /// The sink begins again, now or after a pause.
    Again,
}

/// One sink.
pub struct Sink {
    described: Described,
    link: Link,
    settled: Cursor,
    read: Position,
    exhausted: bool,
    segments: VecDeque<Segment>,
    in_flight: usize,
    bytes: usize,
    epoch: u64,
    /// Last sequence of the stream once everything in flight is stored.
    last_sequence: u64,
    tail: Tail,
    /// Places in the log of events that the broker will never take.
    refused: HashSet<i64>,
    /// Events that the broker said it had already: kept until they are settled, since what follows them in flight fails.
    duplicates: HashMap<Uuid, u64>,
    ordering: Ordering,
    /// A publish met a sequence that it did not expect: somebody else may be publishing.
    suspicious: bool,
    /// That was the last thing that happened; nothing was stored since.
    stumbled: bool,
    /// The stream is our own and the one that the cursor knows: what was counted in it, a relay of ours has published.
    own: bool,
    /// Something of what was handed on since the sink was made is stored: the database is no older than the stream.
    proven: bool,
    backoff: Backoff,
    runs: Runs,
    unsaved: bool,
    differences: BTreeMap<String, (String, String)>,
    /// Creation time of the stream when it carried our mark.
    marked_us: Option<i64>,
    /// The description asks for fewer copies than before.
    fewer_replicas: bool,
    /// Why the broker did not bring the stream to its description.
    declined: Option<Fault>,
    drift: Drift,
    /// Since when nobody takes what is published: the stream may have no leader just now.
    deserted: Option<Instant>,
    /// Events read so far: the number of the next one.
    place: u64,
    /// The stream takes batches.
    batches: bool,
    /// Events that wait for the rest of their transaction.
    transactions: Transactions,
    /// Settled before their turn: events with a smaller place in the log are not published yet.
    early: Vec<Entry>,
    /// First event of a batch that held a duplicate. If it holds one again, the stream's tail does not show which.
    doubled: Option<i64>,
    /// Places in the log of events that no batch is to hold.
    apart: HashSet<i64>,
    /// Transactions in flight that are not published as one, by the place of their first event.
    splitting: HashMap<i64, (u64, SplitReason)>,
    /// Those that were stored so.
    splits: Option<Splits>,
    /// Of events that were stored now, and for the first time: since when they could have been.
    stored: Vec<i64>,
}

impl Sink {
    pub fn new(described: Described, cursor: Cursor, refused: HashSet<i64>) -> Self {
        Self {
            described,
            link: Link::Down,
            read: cursor.position.clone(),
            settled: cursor,
            exhausted: false,
            segments: VecDeque::new(),
            in_flight: 0,
            bytes: 0,
            epoch: 0,
            last_sequence: 0,
            tail: Tail::default(),
            refused,
            duplicates: HashMap::new(),
            ordering: Ordering::Strict,
            suspicious: false,
            stumbled: false,
            own: false,
            proven: false,
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(5)),
            runs: Runs::default(),
            unsaved: false,
            differences: BTreeMap::new(),
            marked_us: None,
            fewer_replicas: false,
            declined: None,
            drift: Drift::default(),
            deserted: None,
            place: 0,
            batches: false,
            transactions: Transactions::default(),
            early: Vec::new(),
            doubled: None,
            apart: HashSet::new(),
            splitting: HashMap::new(),
            splits: None,
            stored: Vec::new(),
        }
    }

    pub fn id(&self) -> SinkId {
        self.described.sink
    }

    pub fn described(&self) -> &Described {
        &self.described
    }

    pub fn settled(&self) -> &Cursor {
        &self.settled
    }

    pub fn ordering(&self) -> Ordering {
        self.ordering
    }

    pub fn differences(&self) -> &BTreeMap<String, (String, String)> {
        &self.differences
    }

    /// Where the next read begins.
    pub fn read_position(&self) -> &Position {
        &self.read
    }

    /// The stream is there and takes events.
    pub fn is_flowing(&self) -> bool {
        matches!(self.link, Link::Flowing)
    }

    /// The stream takes events, and nothing is on its way there or is held back.
    pub fn is_at_rest(&self) -> bool {
        self.is_flowing() && self.in_flight == 0 && !self.is_refilling() && self.transactions.xids().next().is_none()
    }

    /// Whether transactions are to be stored all or none.
    fn wants_whole(&self) -> bool {
        self.described.spec.allow_atomic
    }

    /// The transactions of which events were read and wait for the rest, if the stream's transactions are to be whole.
    pub fn kept(&self) -> Option<HashSet<u64>> {
        self.wants_whole().then(|| self.transactions.xids().collect())
    }

    /// The transactions that were not published as one since this was asked last.
    pub fn take_splits(&mut self) -> Option<Splits> {
        self.splits.take()
    }

    /// Of the events that were stored since this was asked last: since when they could have been.
    pub fn take_stored(&mut self) -> Vec<i64> {
        std::mem::take(&mut self.stored)
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether there may be something to read and room for it.
    pub fn wants_to_read(&self, max_in_flight: usize, max_bytes: usize) -> bool {
        self.is_flowing() && !self.exhausted && self.in_flight < max_in_flight && self.bytes < max_bytes
    }

    /// New events may have been committed.
    pub fn wake(&mut self) {
        self.exhausted = false;
    }

    /// The description has changed.
    pub fn describe(&mut self, described: Described) -> Option<Request> {
        self.fewer_replicas |= described.spec.replicas < self.described.spec.replicas;
        let renamed = described.spec.name != self.described.spec.name;
        self.described = described;
        if renamed {
            self.meet_another_stream();
        }
        (!matches!(self.link, Link::Down)).then(|| self.begin())
    }

    /// Where events stand in the stream of the new name is not known, and nothing of it was lost.
    fn meet_another_stream(&mut self) {
        self.forget_in_flight();
        (self.settled.stream_sequence, self.settled.stream_created_us, self.settled.tail_from) = (0, None, None);
        (self.marked_us, self.unsaved) = (None, true);
    }

    /// The session is up: provisions the stream first.
    pub fn connected(&mut self) -> Request {
        self.backoff.reset();
        self.begin()
    }

    /// The session is gone.
    pub fn disconnected(&mut self) {
        self.forget_in_flight();
        self.link = Link::Down;
    }

    /// Begins again if it is time.
    pub fn tick(&mut self, now: Instant) -> Option<Request> {
        let due = matches!(self.link, Link::Waiting { until } if until <= now);
        due.then(|| self.begin())
    }

    /// When `tick` has something to do.
    pub fn due_at(&self) -> Option<Instant> {
        match self.link {
            Link::Waiting { until } => Some(until),
            _ => None,
        }
    }

    /// The stream is there. If it has lost what it had acknowledged, the caller decides and calls `rewind` or `pause`.
    pub fn stream_ready(&mut self, info: StreamInfo) -> Result<Option<Request>, Loss> {
        if !matches!(self.link, Link::Ensuring) {
            return Ok(None);
        }
        self.differences = info.differences;
        self.declined = info.declined;
        self.fewer_replicas &= self.declined.is_some();
        if info.own {
            self.marked_us = Some(info.created_us);
        }
        self.batches = info.atomic;
        let recorded = self.settled.stream_sequence;
        let created_anew = self.settled.stream_created_us.is_some_and(|created| created != info.created_us);
        let changed = self.settled.stream_created_us != Some(info.created_us);
        self.settled.stream_created_us = Some(info.created_us);
        self.unsaved |= changed;
        self.last_sequence = info.last_sequence;
        let lost = created_anew || info.last_sequence < recorded;
        self.own = info.own && !lost;
        if recorded > 0 && lost {
            return Err(Loss { recorded, left: if created_anew { 0 } else { info.last_sequence } });
        }
        Ok(self.read_tail())
    }

    /// Goes back to where the lost events begin.
    pub fn rewind(&mut self, position: Position, stream_sequence: u64) -> Option<Request> {
        self.settled.position = position;
        self.settled.stream_sequence = stream_sequence;
        self.settled.tail_from = self.settled.tail_from.filter(|&from| from < stream_sequence);
        self.read = self.settled.position.clone();
        self.exhausted = false;
        self.unsaved = true;
        self.read_tail()
    }

    /// Looks once more at what was published from place `seq` in the log on, and publishes what the stream does not hold.
    /// What it does hold of it lies beyond `stream_sequence`.
    pub fn refill(&mut self, seq: i64, stream_sequence: u64) -> Option<Request> {
        self.settled.tail_from = Some(stream_sequence.min(self.settled.tail_from.unwrap_or(u64::MAX)));
        self.settled.refilling = true;
        if matches!(self.link, Link::Paused) {
            // Somebody has seen what was lost: what is recorded of the stream is not true any more.
            self.forget_stream();
        }
        self.settled.position = self.settled.position.back_to(seq);
        self.unsaved = true;
        self.forget_in_flight();
        (!matches!(self.link, Link::Down)).then(|| self.begin())
    }

    /// The stream has lost data while it was being refilled: looks at everything that is retained.
    pub fn refill_anew(&mut self) -> Option<Request> {
        self.forget_stream();
        self.refill(1, 0)
    }

    /// Whether what was published is being looked at once more.
    pub fn is_refilling(&self) -> bool {
        self.settled.refilling
    }

    fn forget_stream(&mut self) {
        self.settled.stream_sequence = self.settled.stream_sequence.min(self.last_sequence);
        self.settled.stream_created_us = None;
        self.settled.tail_from = Some(0);
    }

    pub fn pause(&mut self) {
        self.forget_in_flight();
        self.link = Link::Paused;
    }

    /// The stream cannot be used as it is; tries again later. Returns whether that is to be told.
    pub fn stream_refused(&mut self, fault: &Fault, now: Instant, jitter: f64) -> bool {
        self.wait(now, jitter);
        fault.kind != FaultKind::Leaderless || !self.is_brief(now)
    }

    /// The tail of the stream was read. Returns the messages that may be none of the log's events, if that matters; then
    /// `judged` is to be called.
    pub fn tail_read(&mut self, messages: Vec<Stored>, last_sequence: u64) -> Vec<Stored> {
        if !matches!(self.link, Link::Tailing) {
            return Vec::new();
        }
        // What was recorded is no news; the tail that a refill reads begins before it, and before what the log knows.
        let recorded = self.settled.stream_sequence;
        // In a stream of our own a relay of ours counts; whoever does not count there, or anywhere, is somebody else.
        let is_doubtful =
            |message: &&Stored| message.sequence > recorded && (self.suspicious || self.own || !message.counted);
        let doubtful: Vec<Stored> = messages.iter().filter(is_doubtful).cloned().collect();
        self.tail = Tail::new(messages, self.settled.position.batch.is_some());
        self.last_sequence = last_sequence;
        self.link = if doubtful.is_empty() { Link::AtLease { asked: false } } else { Link::Judging };
        doubtful
    }

    /// What the tail holds is known, or no reason to stop.
    pub fn judged(&mut self) {
        if matches!(self.link, Link::Judging) {
            self.link = Link::AtLease { asked: false };
        }
    }

    /// Whether a message that was counted is one that a relay of this installation has published.
    pub fn is_own(&self) -> bool {
        self.own
    }

    pub fn is_proven(&self) -> bool {
        self.proven
    }

    /// Whether the lease has to be made sure of, and nobody has asked.
    pub fn waits_for_lease(&self) -> bool {
        matches!(self.link, Link::AtLease { asked: false })
    }

    /// Whether it will wait for the lease in a moment.
    pub fn is_beginning(&self) -> bool {
        matches!(self.link, Link::Ensuring | Link::Tailing | Link::Judging)
    }

    /// The lease is asked for.
    pub fn note_claim(&mut self) {
        if let Link::AtLease { asked } = &mut self.link {
            *asked = true;
        }
    }

    /// The lease that was asked for is ours.
    pub fn admit(&mut self) {
        if matches!(self.link, Link::AtLease { asked: true }) {
            self.link = Link::Flowing;
            self.exhausted = false;
        }
    }

    /// Others publish to the stream as well.
    pub fn share(&mut self) {
        self.ordering = Ordering::Shared;
    }

    /// What has to be saved, if anything changed since the last time.
    pub fn take_unsaved(&mut self) -> Option<(Cursor, Runs)> {
        (std::mem::take(&mut self.unsaved) || !self.runs.is_empty())
            .then(|| (self.settled.clone(), std::mem::take(&mut self.runs)))
    }

    /// Whether `take_unsaved` would return something.
    pub fn is_unsaved(&self) -> bool {
        self.unsaved || !self.runs.is_empty()
    }

    fn begin(&mut self) -> Request {
        self.forget_in_flight();
        self.link = Link::Ensuring;
        Request::EnsureStream { sink: self.id(), spec: self.spec() }
    }

    fn wait(&mut self, now: Instant, jitter: f64) {
        self.forget_in_flight();
        self.link = Link::Waiting { until: now + self.backoff.next(jitter) };
    }

    fn forget_in_flight(&mut self) {
        self.epoch += 1;
        self.segments.clear();
        self.in_flight = 0;
        self.bytes = 0;
        self.tail = Tail::default();
        self.transactions.clear();
        self.early.clear();
        self.splitting.clear();
        self.read = self.settled.position.clone();
        self.exhausted = false;
    }

    fn read_tail(&mut self) -> Option<Request> {
        let after = self.settled.tail_from.unwrap_or(self.settled.stream_sequence);
        if self.last_sequence <= after {
            self.link = Link::AtLease { asked: false };
            return None;
        }
        self.link = Link::Tailing;
        let stream = self.described.spec.name.clone();
        Some(Request::ReadTail { sink: self.id(), stream, after })
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
