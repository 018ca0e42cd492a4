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
//! Paused is left by `sea_mq.reload()` and by a refill only. Whatever fails, the way back is the same: begin again at the
//! position last settled, read what the stream holds beyond the sequence last settled (during a refill: beyond where it
//! began), and skip what is found there.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::broker::{Ack, Fault, FaultKind, Outgoing, Request, SinkId, Stored, StreamInfo, StreamSpec};
use crate::domain::envelope::{BodyFormat, Publication};
use crate::domain::event::Logged;
use crate::domain::position::{Position, Snapshot};
use crate::domain::retry::Backoff;
use crate::domain::runs::{Run, Runs};

/// What a sink's cursor says: a position in the log, and the place in the stream that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub position: Position,
    /// Stream sequence of the last event stored; 0 for none.
    pub stream_sequence: u64,
    /// Creation time of the stream in microseconds since 1970, once known.
    pub stream_created_us: Option<i64>,
    /// While what was published is looked at once more: the batch under way may be stored anywhere beyond this sequence.
    pub refill_from: Option<u64>,
}

impl Cursor {
    pub fn start() -> Self {
        Self { position: Position::start(), stream_sequence: 0, stream_created_us: None, refill_from: None }
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
    pub body: BodyFormat,
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

/// A chunk that was read and handed to the broker.
struct Segment {
    done: Snapshot,
    upto: Snapshot,
    after: Position,
    entries: Vec<Entry>,
    /// Entries before this one are settled.
    next: usize,
    bytes: usize,
}

struct Entry {
    id: Uuid,
    seq: i64,
    fate: Fate,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    InFlight,
    Stored(u64),
    /// The broker will never take it.
    Refused,
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
    /// Message ids that the stream was found to hold beyond what is settled.
    tail: HashMap<String, u64>,
    /// Places in the log of events that the broker will never take.
    refused: HashSet<i64>,
    /// Events that the broker said it had already: kept until they are settled, since what follows them in flight fails.
    duplicates: HashMap<Uuid, u64>,
    ordering: Ordering,
    /// A publish met a sequence that it did not expect: somebody else may be publishing.
    suspicious: bool,
    /// The stream is our own and the one that the cursor knows: what was counted in it, a relay of ours has published.
    own: bool,
    /// Something of what was handed on since the sink was made is stored: the database is no older than the stream.
    proven: bool,
    backoff: Backoff,
    runs: Runs,
    unsaved: bool,
    differences: BTreeMap<String, (String, String)>,
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
            tail: HashMap::new(),
            refused,
            duplicates: HashMap::new(),
            ordering: Ordering::Strict,
            suspicious: false,
            own: false,
            proven: false,
            backoff: Backoff::new(Duration::from_millis(200), Duration::from_secs(15)),
            runs: Runs::default(),
            unsaved: false,
            differences: BTreeMap::new(),
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

    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether there may be something to read and room for it.
    pub fn wants_to_read(&self, max_in_flight: usize, max_bytes: usize) -> bool {
        matches!(self.link, Link::Flowing)
            && !self.exhausted
            && self.in_flight < max_in_flight
            && self.bytes < max_bytes
    }

    /// New events may have been committed.
    pub fn wake(&mut self) {
        self.exhausted = false;
    }

    /// The description has changed.
    pub fn describe(&mut self, described: Described) -> Option<Request> {
        self.described = described;
        (!matches!(self.link, Link::Down)).then(|| self.begin())
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
        self.read = self.settled.position.clone();
        self.exhausted = false;
        self.unsaved = true;
        self.read_tail()
    }

    /// Looks once more at what was published from place `seq` in the log on, and publishes what the stream does not hold.
    /// What it does hold of it lies beyond `stream_sequence`.
    pub fn refill(&mut self, seq: i64, stream_sequence: u64) -> Option<Request> {
        let beyond = stream_sequence.min(self.settled.refill_from.unwrap_or(u64::MAX));
        if matches!(self.link, Link::Paused) {
            // Somebody has seen what was lost: what is recorded of the stream is not true any more.
            self.forget_stream();
        } else {
            self.settled.refill_from = Some(beyond);
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
        self.settled.refill_from.is_some()
    }

    fn forget_stream(&mut self) {
        self.settled.stream_sequence = self.settled.stream_sequence.min(self.last_sequence);
        self.settled.stream_created_us = None;
        self.settled.refill_from = Some(0);
    }

    pub fn pause(&mut self) {
        self.forget_in_flight();
        self.link = Link::Paused;
    }

    /// The stream cannot be used as it is; tries again later.
    pub fn stream_refused(&mut self, now: Instant, jitter: f64) {
        self.wait(now, jitter);
    }

    /// The tail of the stream was read. Returns the messages that may be none of the log's events, if that matters; then
    /// `judged` is to be called.
    pub fn tail_read(&mut self, messages: Vec<Stored>, last_sequence: u64) -> Vec<Stored> {
        if !matches!(self.link, Link::Tailing) {
            return Vec::new();
        }
        // What was recorded is no news; the tail that a refill reads begins before it, and before what the log knows.
        let recorded = self.settled.stream_sequence;
        let is_doubtful =
            |message: &&Stored| message.sequence > recorded && (self.suspicious || (self.own && message.counted));
        let doubtful: Vec<Stored> = messages.iter().filter(is_doubtful).cloned().collect();
        self.tail = messages.into_iter().filter_map(|message| Some((message.message_id?, message.sequence))).collect();
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

    /// Hands a chunk on. `events` are those between the position last read and `after`.
    pub fn publish(&mut self, events: Vec<Logged>, after: Position) -> Option<Request> {
        let upto = after.batch.as_ref().map_or(&after.done, |batch| &batch.upto.snapshot).clone();
        let done = self.read.done.clone();
        self.exhausted = after.batch.is_none() && events.is_empty();
        self.read = after.clone();
        if events.is_empty() && self.segments.is_empty() {
            // Nothing is stored and nothing is recorded: an idle relay writes nothing.
            self.unsaved |= self.settled.refill_from.is_some();
            self.settle_at(after);
            return None;
        }
        let mut segment = Segment { done, upto, after, entries: Vec::with_capacity(events.len()), next: 0, bytes: 0 };
        let mut messages = Vec::with_capacity(events.len());
        for Logged { seq, event, schema, .. } in events {
            let fate = self.fate_of(event.id, seq);
            segment.entries.push(Entry { id: event.id, seq, fate });
            if fate == Fate::InFlight {
                let message = Publication::new(&event, schema.as_deref()).message(self.described.body);
                segment.bytes += message.body.len();
                messages.push(message);
            }
        }
        self.in_flight += messages.len();
        self.bytes += segment.bytes;
        self.segments.push_back(segment);
        self.settle();
        self.request(messages)
    }

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
            let Some(entry) = self.first_in_flight() else { break };
            entry.fate = Fate::Stored(ack.sequence);
            let id = entry.id;
            self.in_flight -= 1;
            if ack.duplicate {
                self.duplicates.insert(id, ack.sequence);
            }
        }
        self.settle();
        None
    }

    /// The first message in flight failed, and all behind it with it.
    pub fn publish_failed(&mut self, epoch: u64, fault: &Fault, now: Instant, jitter: f64) -> Option<Failure> {
        if epoch != self.epoch || !matches!(self.link, Link::Flowing) {
            return None;
        }
        let first = self.first_in_flight().map(|entry| (entry.id, entry.seq));
        match (fault.kind, first) {
            // The event's own fault: it is set aside, and the others go on.
            (FaultKind::MessageTooLarge | FaultKind::InvalidMessage, Some((id, seq))) => {
                self.refused.insert(seq);
                self.forget_in_flight();
                self.link = Link::Waiting { until: now };
                Some(Failure::Refused { id, seq })
            }
            (FaultKind::WrongSequence, _) => {
                self.suspicious = true;
                self.forget_in_flight();
                self.link = Link::Waiting { until: now };
                Some(Failure::Again)
            }
            _ => {
                self.wait(now, jitter);
                Some(Failure::Again)
            }
        }
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
        Request::EnsureStream { sink: self.id(), spec: Box::new(self.described.spec.clone()) }
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
        self.tail.clear();
        self.read = self.settled.position.clone();
        self.exhausted = false;
    }

    fn read_tail(&mut self) -> Option<Request> {
        let after = self.settled.refill_from.unwrap_or(self.settled.stream_sequence);
        if self.last_sequence <= after {
            self.link = Link::AtLease { asked: false };
            return None;
        }
        self.link = Link::Tailing;
        let stream = self.described.spec.name.clone();
        Some(Request::ReadTail { sink: self.id(), stream, after })
    }

    fn fate_of(&mut self, id: Uuid, seq: i64) -> Fate {
        if self.refused.contains(&seq) {
            return Fate::Refused;
        }
        if let Some(&sequence) = self.duplicates.get(&id) {
            return Fate::Stored(sequence);
        }
        if self.tail.is_empty() {
            return Fate::InFlight;
        }
        self.tail.remove(&id.to_string()).map_or(Fate::InFlight, Fate::Stored)
    }

    fn request(&mut self, messages: Vec<Outgoing>) -> Option<Request> {
        if messages.is_empty() {
            return None;
        }
        let expected_last = (self.ordering == Ordering::Strict).then_some(self.last_sequence);
        self.last_sequence += messages.len() as u64;
        let stream = self.described.spec.name.clone();
        Some(Request::Publish { sink: self.id(), epoch: self.epoch, stream, expected_last, messages })
    }

    fn first_in_flight(&mut self) -> Option<&mut Entry> {
        self.segments.iter_mut().find_map(|segment| {
            while segment.entries.get(segment.next).is_some_and(|entry| entry.fate != Fate::InFlight) {
                segment.next += 1;
            }
            segment.entries.get_mut(segment.next)
        })
    }

    /// Takes the chunks at the front of which every event has met its fate.
    fn settle(&mut self) {
        self.first_in_flight();
        while self.segments.front().is_some_and(|segment| segment.next == segment.entries.len()) {
            let Some(segment) = self.segments.pop_front() else { return };
            self.bytes -= segment.bytes;
            let last = segment.entries.iter().filter_map(|entry| entry.fate.sequence()).max();
            self.settled.stream_sequence = self.settled.stream_sequence.max(last.unwrap_or(0));
            segment.runs().for_each(|run| self.runs.push(run));
            if !self.duplicates.is_empty() {
                segment.entries.iter().for_each(|entry| {
                    self.duplicates.remove(&entry.id);
                });
            }
            self.settle_at(segment.after);
            self.unsaved = true;
        }
    }

    fn settle_at(&mut self, position: Position) {
        if position.batch.is_none() {
            self.settled.refill_from = None;
        }
        self.settled.position = position;
    }
}

impl Segment {
    fn runs(&self) -> impl Iterator<Item = Run> + '_ {
        let follows = |a: &Entry, b: &Entry| match (a.fate.sequence(), b.fate.sequence()) {
            (Some(a), Some(b)) => a + 1 == b,
            _ => false,
        };
        self.entries.chunk_by(follows).map(|entries| Run {
            done: self.done.clone(),
            upto: self.upto.clone(),
            first_seq: entries[0].seq,
            last_seq: entries[entries.len() - 1].seq,
            events: entries.len() as u64,
            first_stream_seq: entries[0].fate.sequence(),
        })
    }
}

impl Fate {
    fn sequence(self) -> Option<u64> {
        match self {
            Self::Stored(sequence) => Some(sequence),
            Self::InFlight | Self::Refused => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{Retention, Storage};
    use crate::domain::event::{Defaults, EmitArgs, Event};
    use crate::domain::position::Batch;

    fn described() -> Described {
        let spec = StreamSpec {
            name: "ORDERS_EVENTS".into(),
            subjects: vec!["orders.event.>".into()],
            description: String::new(),
            retention: Retention::Limits,
            max_age: Duration::ZERO,
            max_bytes: -1,
            max_msgs: -1,
            max_msg_size: -1,
            storage: Storage::File,
            replicas: 1,
            duplicate_window: Duration::from_secs(120),
            allow_atomic: false,
            managed: true,
            owner: Uuid::nil(),
            take_over: false,
        };
        Described { sink: 1, body: BodyFormat::Payload, spec }
    }

    fn logged(seq: i64) -> Logged {
        let args = EmitArgs {
            aggregate_type: Some("order".into()),
            aggregate_id: Some(seq.to_string()),
            event_type: Some("created".into()),
            payload: Some("{}".into()),
            event_version: Some(1),
            context: Some("orders".into()),
            visibility: Some("internal".into()),
            event_id: Some(Uuid::from_u128(seq.unsigned_abs().into())),
            ..EmitArgs::default()
        };
        Logged { seq, xid: 700, event: Event::new(args, &Defaults::default()).unwrap(), schema: None }
    }

    fn position(snapshot: &str, floor: i64) -> Position {
        Position { done: snapshot.parse().unwrap(), next_xid: 0, floor, batch: None }
    }

    fn info(last_sequence: u64) -> StreamInfo {
        StreamInfo { last_sequence, created_us: 7, ..StreamInfo::default() }
    }

    /// A sink that publishes, its stream empty.
    fn flowing() -> Sink {
        let mut sink = Sink::new(described(), Cursor::start(), HashSet::new());
        sink.connected();
        assert_eq!(sink.stream_ready(info(0)), Ok(None));
        assert!(!sink.wants_to_read(10, 10), "not before the lease is made sure of");
        lease(&mut sink);
        sink
    }

    fn lease(sink: &mut Sink) {
        sink.note_claim();
        sink.admit();
    }

    /// A message that has the id of `logged(n)`.
    fn stored(n: u128, counted: bool) -> Stored {
        Stored { sequence: n as u64, message_id: Some(Uuid::from_u128(n).to_string()), counted }
    }

    fn expected_and_length(request: Option<Request>) -> (Option<u64>, usize) {
        match request {
            Some(Request::Publish { expected_last, messages, .. }) => (expected_last, messages.len()),
            other => panic!("not a publish: {other:?}"),
        }
    }

    fn ack(sequence: u64) -> Ack {
        Ack { sequence, duplicate: false }
    }

    #[test]
    fn the_expected_sequence_counts_up_across_chunks() {
        let mut sink = flowing();
        let first = sink.publish(vec![logged(1), logged(2)], position("9:9:", 2));
        assert_eq!(expected_and_length(first), (Some(0), 2));
        let second = sink.publish(vec![logged(3)], position("10:10:", 3));
        assert_eq!(expected_and_length(second), (Some(2), 1));
    }

    #[test]
    fn a_chunk_is_settled_when_all_of_it_is_stored() {
        let mut sink = flowing();
        sink.publish(vec![logged(1), logged(2)], position("9:9:", 2));
        sink.acked(sink.epoch, vec![ack(1)], Instant::now(), 0.5);
        assert_eq!(sink.settled().position, Position::start());
        sink.acked(sink.epoch, vec![ack(2)], Instant::now(), 0.5);
        assert_eq!(sink.settled().position, position("9:9:", 2));
        let (cursor, runs) = sink.take_unsaved().unwrap();
        assert_eq!(cursor.stream_sequence, 2);
        assert_eq!(
            runs.as_slice().iter().map(|run| (run.first_seq, run.last_seq, run.events)).collect::<Vec<_>>(),
            [(1, 2, 2)]
        );
    }

    #[test]
    fn what_the_stream_holds_already_is_skipped() {
        let mut sink = Sink::new(described(), Cursor::start(), HashSet::new());
        sink.connected();
        assert!(matches!(sink.stream_ready(info(1)), Ok(Some(Request::ReadTail { after: 0, .. }))));
        assert_eq!(sink.tail_read(vec![stored(1, true)], 1), []);
        lease(&mut sink);
        let request = sink.publish(vec![logged(1), logged(2)], position("9:9:", 2));
        assert_eq!(expected_and_length(request), (Some(1), 1));
        sink.acked(sink.epoch, vec![ack(2)], Instant::now(), 0.5);
        assert_eq!(sink.settled().stream_sequence, 2);
    }

    #[test]
    fn what_a_relay_of_ours_has_stored_is_judged_before_anything_is_published() {
        let mut sink = Sink::new(described(), Cursor::start(), HashSet::new());
        sink.connected();
        sink.stream_ready(StreamInfo { own: true, ..info(2) }).unwrap();
        assert_eq!(sink.tail_read(vec![stored(1, true), stored(2, false)], 2), [stored(1, true)]);
        lease(&mut sink);
        assert!(!sink.wants_to_read(10, 10));
        sink.judged();
        assert!(sink.waits_for_lease());
        lease(&mut sink);
        assert!(sink.wants_to_read(10, 10));
    }

    #[test]
    fn an_answer_about_the_lease_from_before_the_tail_was_read_admits_nobody() {
        let mut sink = flowing();
        sink.publish(vec![logged(1)], position("9:9:", 1));
        let now = Instant::now();
        sink.publish_failed(sink.epoch, &Fault::new(FaultKind::WrongSequence, ""), now, 0.5);
        sink.tick(now);
        sink.note_claim();
        sink.stream_ready(info(0)).unwrap();
        sink.admit();
        assert!(sink.waits_for_lease() && !sink.wants_to_read(10, 10));
    }

    #[test]
    fn after_a_failure_it_begins_where_it_was_settled() {
        let mut sink = flowing();
        sink.publish(vec![logged(1)], position("9:9:", 1));
        sink.acked(sink.epoch, vec![ack(1)], Instant::now(), 0.5);
        sink.publish(vec![logged(2)], position("10:10:", 2));
        let now = Instant::now();
        let fault = Fault::new(FaultKind::WrongSequence, "");
        assert_eq!(sink.publish_failed(sink.epoch, &fault, now, 0.5), Some(Failure::Again));
        assert_eq!((sink.in_flight(), sink.read_position()), (0, &position("9:9:", 1)));
        assert!(matches!(sink.tick(now), Some(Request::EnsureStream { .. })));
    }

    #[test]
    fn a_duplicate_is_not_sent_for_ever() {
        let mut sink = flowing();
        sink.publish(vec![logged(1), logged(2)], position("9:9:", 2));
        sink.acked(sink.epoch, vec![Ack { sequence: 5, duplicate: true }], Instant::now(), 0.5);
        let now = Instant::now();
        sink.publish_failed(sink.epoch, &Fault::new(FaultKind::WrongSequence, ""), now, 0.5);
        sink.tick(now);
        assert_eq!(sink.stream_ready(info(0)), Ok(None));
        lease(&mut sink);
        let again = sink.publish(vec![logged(1), logged(2)], position("9:9:", 2));
        assert_eq!(expected_and_length(again), (Some(0), 1));
    }

    #[test]
    fn acks_of_an_earlier_epoch_count_for_nothing() {
        let mut sink = flowing();
        let epoch = sink.epoch;
        sink.publish(vec![logged(1)], position("9:9:", 1));
        sink.disconnected();
        sink.acked(epoch, vec![ack(1)], Instant::now(), 0.5);
        assert_eq!(sink.settled().position, Position::start());
    }

    #[test]
    fn an_event_that_is_too_large_is_left_out_alone() {
        let mut sink = flowing();
        sink.publish(vec![logged(1), logged(2), logged(3)], position("9:9:", 3));
        sink.acked(sink.epoch, vec![ack(1)], Instant::now(), 0.5);
        let now = Instant::now();
        let fault = Fault::new(FaultKind::MessageTooLarge, "");
        let failure = sink.publish_failed(sink.epoch, &fault, now, 0.5);
        assert_eq!(failure, Some(Failure::Refused { id: Uuid::from_u128(2), seq: 2 }));
        sink.tick(now);
        sink.stream_ready(info(1)).unwrap();
        sink.tail_read(vec![stored(1, false)], 1);
        lease(&mut sink);
        let again = sink.publish(vec![logged(1), logged(2), logged(3)], position("9:9:", 3));
        assert_eq!(expected_and_length(again), (Some(1), 1));
        sink.acked(sink.epoch, vec![ack(2)], Instant::now(), 0.5);
        assert_eq!(sink.settled().position, position("9:9:", 3));
    }

    #[test]
    fn a_stream_that_lost_data_is_noticed() {
        let cursor = Cursor { stream_sequence: 10, stream_created_us: Some(7), ..Cursor::start() };
        let mut sink = Sink::new(described(), cursor.clone(), HashSet::new());
        sink.connected();
        assert_eq!(sink.stream_ready(info(4)), Err(Loss { recorded: 10, left: 4 }));
        let mut sink = Sink::new(described(), cursor, HashSet::new());
        sink.connected();
        let anew = StreamInfo { created_us: 8, ..info(30) };
        assert_eq!(sink.stream_ready(anew), Err(Loss { recorded: 10, left: 0 }));
    }

    #[test]
    fn a_refill_finds_what_is_stored_until_it_is_through() {
        let mut sink = flowing();
        sink.publish(vec![logged(1), logged(2), logged(3)], position("9:9:", 3));
        sink.acked(sink.epoch, vec![ack(1), ack(2), ack(3)], Instant::now(), 0.5);
        assert!(matches!(sink.refill(1, 0), Some(Request::EnsureStream { .. })));
        let begun = sink.read_position().clone();
        let held = |n: u128| Stored { sequence: n as u64, message_id: Some(Uuid::from_u128(n).to_string()) };
        assert!(matches!(sink.stream_ready(info(3)), Ok(Some(Request::ReadTail { after: 0, .. }))));
        sink.tail_read(vec![held(2), held(3)], 3);
        let first = Position { batch: begun.batch.clone().map(|batch| Batch { at: 1, ..batch }), ..begun };
        assert_eq!(expected_and_length(sink.publish(vec![logged(1)], first)), (Some(3), 1));
        sink.acked(sink.epoch, vec![ack(4)], Instant::now(), 0.5);
        // Here the relay may end: the others are still looked for where they are.
        assert_eq!((sink.settled().refill_from, sink.settled().stream_sequence), (Some(0), 4));
        assert_eq!(sink.publish(vec![logged(2), logged(3)], position("9:9:", 3)), None);
        assert_eq!((sink.settled().refill_from, sink.settled().stream_sequence), (None, 4));
    }

    #[test]
    fn what_the_broker_takes_for_a_duplicate_and_does_not_hold_is_sent_again() {
        let mut sink = flowing();
        sink.publish(vec![logged(1)], position("9:9:", 1));
        sink.acked(sink.epoch, vec![ack(1)], Instant::now(), 0.5);
        sink.refill(1, 0);
        assert!(matches!(sink.stream_ready(info(1)), Ok(Some(_))));
        sink.tail_read(Vec::new(), 1);
        let (now, end) = (Instant::now(), position("9:9:", 1));
        sink.publish(vec![logged(1)], end.clone());
        assert!(sink.acked(sink.epoch, vec![Ack { sequence: 1, duplicate: true }], now, 0.5).is_some());
        sink.tick(now + Duration::from_secs(60));
        sink.stream_ready(info(1)).unwrap();
        sink.tail_read(Vec::new(), 1);
        assert_eq!(expected_and_length(sink.publish(vec![logged(1)], end)), (Some(1), 1));
    }

    #[test]
    fn nothing_new_is_nothing_to_save() {
        let mut sink = flowing();
        sink.take_unsaved();
        assert!(sink.publish(Vec::new(), position("9:9:", 0)).is_none());
        assert!(!sink.is_unsaved() && !sink.wants_to_read(10, 10));
        sink.wake();
        assert!(sink.wants_to_read(10, 10));
    }
}
