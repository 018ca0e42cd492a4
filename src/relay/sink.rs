//! One sink of the relay: from a position in the log to a sequence in a stream, and back after a failure.
//!
//! ```text
//!          connect            stream ready            tail read
//!   Down ───────────► Ensuring ───────────► Tailing ───────────► Flowing
//!    ▲                 ▲    │                  │                    │
//!    │ disconnect      │    └───────► Waiting ◄┴────────────────────┘ a publish failed
//!    └── (from all)    └───── retry ─────┘
//! ```
//!
//! Paused is left by `sea_mq.reload()` only. Whatever fails, the way back is the same: begin again at the position last
//! settled, read what the stream holds beyond the sequence last settled, and skip what is found there.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::broker::{Ack, Fault, FaultKind, Outgoing, Request, SinkId, Stored, StreamInfo, StreamSpec};
use crate::domain::envelope::{BodyFormat, Publication};
use crate::domain::event::Logged;
use crate::domain::position::{Position, Snapshot};
use crate::domain::retry::Backoff;
use crate::domain::runs::{Run, Runs};
use crate::relay::transactions::{Extent, Group, Placed, Transactions};

/// What a sink's cursor says: a position in the log, and the place in the stream that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub position: Position,
    /// Stream sequence of the last event stored; 0 for none.
    pub stream_sequence: u64,
    /// Creation time of the stream in microseconds since 1970, once known.
    pub stream_created_us: Option<i64>,
}

impl Cursor {
    pub fn start() -> Self {
        Self { position: Position::start(), stream_sequence: 0, stream_created_us: None }
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
    Flowing,
    Waiting { until: Instant },
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
    /// Some of the entries stand behind `after` in the log.
    early: bool,
}

struct Entry {
    id: Uuid,
    seq: i64,
    /// Number in the order of the log.
    place: u64,
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

/// Why a transaction was not published as one, though the stream's description wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SplitReason {
    /// It has more events or bytes than a batch takes.
    TooLarge,
    /// The server or the stream does not take batches.
    NotAllowed,
    /// The broker refused the batch: it knows one of the messages already, or has a lower limit.
    Refused,
}

impl SplitReason {
    pub const fn words(self) -> &'static str {
        match self {
            Self::TooLarge => "it has more than 1000 events or 32 MB of payload",
            Self::NotAllowed => "the server or the stream does not take atomic batches",
            Self::Refused => {
                "the broker refused the batch, which holds a message that it has already or is too large for it"
            }
        }
    }
}

/// Transactions that were not published as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Splits {
    pub count: u64,
    /// Id of the last of them, and why.
    pub xid: u64,
    pub reason: SplitReason,
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
    backoff: Backoff,
    runs: Runs,
    unsaved: bool,
    differences: BTreeMap<String, (String, String)>,
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
            backoff: Backoff::new(Duration::from_millis(200), Duration::from_secs(15)),
            runs: Runs::default(),
            unsaved: false,
            differences: BTreeMap::new(),
            place: 0,
            batches: false,
            transactions: Transactions::default(),
            early: Vec::new(),
            doubled: None,
            apart: HashSet::new(),
            splitting: HashMap::new(),
            splits: None,
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
        self.batches = info.atomic;
        let recorded = self.settled.stream_sequence;
        let created_anew = self.settled.stream_created_us.is_some_and(|created| created != info.created_us);
        let changed = self.settled.stream_created_us != Some(info.created_us);
        self.settled.stream_created_us = Some(info.created_us);
        self.unsaved |= changed;
        self.last_sequence = info.last_sequence;
        if recorded > 0 && (created_anew || info.last_sequence < recorded) {
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

    pub fn pause(&mut self) {
        self.forget_in_flight();
        self.link = Link::Paused;
    }

    /// The stream cannot be used as it is; tries again later.
    pub fn stream_refused(&mut self, now: Instant, jitter: f64) {
        self.wait(now, jitter);
    }

    /// The tail of the stream was read. Returns message ids that may be those of other publishers, if that matters.
    pub fn tail_read(&mut self, messages: Vec<Stored>, last_sequence: u64) -> Vec<String> {
        if !matches!(self.link, Link::Tailing) {
            return Vec::new();
        }
        let ids = messages.iter().map(|message| message.message_id.clone().unwrap_or_default());
        let doubtful = if self.suspicious { ids.collect() } else { Vec::new() };
        self.tail = messages.into_iter().filter_map(|message| Some((message.message_id?, message.sequence))).collect();
        self.last_sequence = last_sequence;
        self.link = Link::Flowing;
        self.exhausted = false;
        doubtful
    }

    /// Others publish to the stream as well.
    pub fn share(&mut self) {
        self.ordering = Ordering::Shared;
    }

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
            self.settled.position = after;
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
        let Placed { place, logged: Logged { seq, event, schema, .. } } = event;
        let fate = self.fate_of(event.id, seq);
        segment.entries.push(Entry { id: event.id, seq, place, fate });
        if fate == Fate::InFlight {
            let message = Publication::new(&event, schema.as_deref()).message(self.described.body);
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

    /// Some of what is in flight is stored.
    pub fn acked(&mut self, epoch: u64, acks: Vec<Ack>) {
        if epoch != self.epoch {
            return;
        }
        self.backoff.reset();
        for ack in acks {
            let Some(entry) = self.first_in_flight() else { break };
            entry.fate = Fate::Stored(ack.sequence);
            let id = entry.id;
            self.in_flight -= 1;
            if ack.duplicate {
                self.duplicates.insert(id, ack.sequence);
            }
        }
        self.settle();
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
            (FaultKind::WrongSequence, _) => self.suspicious = true,
            // As after a lost ack, the tail shows what is stored. If it does not, the messages go one by one.
            (FaultKind::DuplicateInBatch, Some((_, seq))) => {
                if self.doubled.replace(seq) == Some(seq) {
                    self.apart.insert(seq);
                }
            }
            (FaultKind::BatchRefused, Some((_, seq))) => {
                self.apart.insert(seq);
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
        self.transactions.clear();
        self.early.clear();
        self.splitting.clear();
        self.read = self.settled.position.clone();
        self.exhausted = false;
    }

    fn read_tail(&mut self) -> Option<Request> {
        if self.last_sequence <= self.settled.stream_sequence {
            self.link = Link::Flowing;
            return None;
        }
        self.link = Link::Tailing;
        let (stream, after) = (self.described.spec.name.clone(), self.settled.stream_sequence);
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

    fn request(&mut self, messages: Vec<Outgoing>, batches: Vec<usize>) -> Option<Request> {
        if messages.is_empty() {
            return None;
        }
        let expected_last = (self.ordering == Ordering::Strict).then_some(self.last_sequence);
        self.last_sequence += messages.len() as u64;
        let stream = self.described.spec.name.clone();
        Some(Request::Publish { sink: self.id(), epoch: self.epoch, stream, expected_last, messages, batches })
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
    fn settle(&mut self) {
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
            let last = segment.entries.iter().filter_map(|entry| entry.fate.sequence()).max().unwrap_or(0);
            // The tail that is read after a failure begins here, and must hold all that is read again.
            let before = self.early.iter().filter_map(|entry| entry.fate.sequence()).min().map(|first| first - 1);
            let reached = before.map_or(last, |before| last.min(before));
            self.settled.stream_sequence = self.settled.stream_sequence.max(reached);
            segment.runs().for_each(|run| self.runs.push(run));
            self.settled.position = segment.after;
            self.unsaved = true;
        }
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

impl Segment {
    /// Up to this place in the log, all events of the batch are settled with the chunk.
    fn end(&self) -> i64 {
        self.after.batch.as_ref().map_or(i64::MAX, |batch| batch.at)
    }

    /// `first`: place of the first event that was read and waits for the rest of its transaction.
    fn keep_behind(&mut self, first: Option<i64>) {
        if let (Some(first), Some(batch)) = (first, &mut self.after.batch) {
            batch.at = batch.at.min(first - 1);
        }
        let end = self.end();
        self.early = self.entries.iter().any(|entry| entry.seq > end);
    }

    fn runs(&self) -> impl Iterator<Item = Run> + '_ {
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
    use crate::domain::position::{Batch, Moment};

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
        sink
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
        let first = sink.publish(vec![logged(1), logged(2)], position("9:9:", 2), &HashSet::new());
        assert_eq!(expected_and_length(first), (Some(0), 2));
        let second = sink.publish(vec![logged(3)], position("10:10:", 3), &HashSet::new());
        assert_eq!(expected_and_length(second), (Some(2), 1));
    }

    #[test]
    fn a_chunk_is_settled_when_all_of_it_is_stored() {
        let mut sink = flowing();
        sink.publish(vec![logged(1), logged(2)], position("9:9:", 2), &HashSet::new());
        sink.acked(sink.epoch, vec![ack(1)]);
        assert_eq!(sink.settled().position, Position::start());
        sink.acked(sink.epoch, vec![ack(2)]);
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
        sink.tail_read(vec![Stored { sequence: 1, message_id: Some(Uuid::from_u128(1).to_string()) }], 1);
        let request = sink.publish(vec![logged(1), logged(2)], position("9:9:", 2), &HashSet::new());
        assert_eq!(expected_and_length(request), (Some(1), 1));
        sink.acked(sink.epoch, vec![ack(2)]);
        assert_eq!(sink.settled().stream_sequence, 2);
    }

    #[test]
    fn after_a_failure_it_begins_where_it_was_settled() {
        let mut sink = flowing();
        sink.publish(vec![logged(1)], position("9:9:", 1), &HashSet::new());
        sink.acked(sink.epoch, vec![ack(1)]);
        sink.publish(vec![logged(2)], position("10:10:", 2), &HashSet::new());
        let now = Instant::now();
        let fault = Fault::new(FaultKind::WrongSequence, "");
        assert_eq!(sink.publish_failed(sink.epoch, 0, &fault, now, 0.5), Some(Failure::Again));
        assert_eq!((sink.in_flight(), sink.read_position()), (0, &position("9:9:", 1)));
        assert!(matches!(sink.tick(now), Some(Request::EnsureStream { .. })));
    }

    #[test]
    fn a_duplicate_is_not_sent_for_ever() {
        let mut sink = flowing();
        sink.publish(vec![logged(1), logged(2)], position("9:9:", 2), &HashSet::new());
        sink.acked(sink.epoch, vec![Ack { sequence: 5, duplicate: true }]);
        let now = Instant::now();
        sink.publish_failed(sink.epoch, 0, &Fault::new(FaultKind::WrongSequence, ""), now, 0.5);
        sink.tick(now);
        assert_eq!(sink.stream_ready(info(0)), Ok(None));
        let again = sink.publish(vec![logged(1), logged(2)], position("9:9:", 2), &HashSet::new());
        assert_eq!(expected_and_length(again), (Some(0), 1));
    }

    #[test]
    fn acks_of_an_earlier_epoch_count_for_nothing() {
        let mut sink = flowing();
        let epoch = sink.epoch;
        sink.publish(vec![logged(1)], position("9:9:", 1), &HashSet::new());
        sink.disconnected();
        sink.acked(epoch, vec![ack(1)]);
        assert_eq!(sink.settled().position, Position::start());
    }

    #[test]
    fn an_event_that_is_too_large_is_left_out_alone() {
        let mut sink = flowing();
        sink.publish(vec![logged(1), logged(2), logged(3)], position("9:9:", 3), &HashSet::new());
        sink.acked(sink.epoch, vec![ack(1)]);
        let now = Instant::now();
        let fault = Fault::new(FaultKind::MessageTooLarge, "");
        let failure = sink.publish_failed(sink.epoch, 0, &fault, now, 0.5);
        assert_eq!(failure, Some(Failure::Refused { id: Uuid::from_u128(2), seq: 2 }));
        sink.tick(now);
        sink.stream_ready(info(1)).unwrap();
        sink.tail_read(vec![Stored { sequence: 1, message_id: Some(Uuid::from_u128(1).to_string()) }], 1);
        let again = sink.publish(vec![logged(1), logged(2), logged(3)], position("9:9:", 3), &HashSet::new());
        assert_eq!(expected_and_length(again), (Some(1), 1));
        sink.acked(sink.epoch, vec![ack(2)]);
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
    fn nothing_new_is_nothing_to_save() {
        let mut sink = flowing();
        sink.take_unsaved();
        assert!(sink.publish(Vec::new(), position("9:9:", 0), &HashSet::new()).is_none());
        assert!(!sink.is_unsaved() && !sink.wants_to_read(10, 10));
        sink.wake();
        assert!(sink.wants_to_read(10, 10));
    }

    /// As [`flowing`], with a description that wants transactions whole, on a server that takes batches or does not.
    fn flowing_whole(atomic: bool) -> Sink {
        let mut described = described();
        described.spec.allow_atomic = true;
        let mut sink = Sink::new(described, Cursor::start(), HashSet::new());
        sink.connected();
        assert_eq!(sink.stream_ready(StreamInfo { atomic, ..info(0) }), Ok(None));
        sink
    }

    fn of(xid: u64, seqs: &[i64]) -> Vec<Logged> {
        seqs.iter().map(|&seq| Logged { xid, ..logged(seq) }).collect()
    }

    /// In the order of the log.
    fn mixed(transactions: &[Vec<Logged>]) -> Vec<Logged> {
        let mut events = transactions.concat();
        events.sort_by_key(|logged| logged.seq);
        events
    }

    /// A position in the middle of a batch.
    fn within(at: i64) -> Position {
        let upto = Moment { snapshot: "9:9:".parse().unwrap(), next_xid: 9, ceiling: 100 };
        Position { batch: Some(Batch { upto, at }), ..Position::start() }
    }

    fn sent(request: Option<Request>) -> (Vec<String>, Vec<usize>) {
        match request {
            Some(Request::Publish { messages, batches, .. }) => {
                let number = |message: &Outgoing| message.headers.id().trim_start_matches(['0', '-']).to_owned();
                (messages.iter().map(number).collect(), batches)
            }
            other => panic!("not a publish: {other:?}"),
        }
    }

    fn run_of(run: &Run) -> (i64, i64, u64, Option<u64>) {
        (run.first_seq, run.last_seq, run.events, run.first_stream_seq)
    }

    fn failed(sink: &mut Sink, kind: FaultKind, ahead: usize) -> Option<Failure> {
        let now = Instant::now();
        let failure = sink.publish_failed(sink.epoch, ahead, &Fault::new(kind, ""), now, 0.5);
        sink.tick(now);
        failure
    }

    #[test]
    fn transactions_are_batches_and_the_journal_knows_where_their_events_are() {
        let mut sink = flowing_whole(true);
        let events = mixed(&[of(7, &[1, 3]), of(8, &[2, 4]), of(9, &[5])]);
        let (ids, batches) = sent(sink.publish(events, position("9:9:", 5), &HashSet::new()));
        assert_eq!((ids.join(" "), batches), ("1 3 2 4 5".into(), vec![2, 2, 1]));
        sink.acked(sink.epoch, (1..=5).map(ack).collect());
        let (cursor, runs) = sink.take_unsaved().unwrap();
        assert_eq!((cursor.position, cursor.stream_sequence), (position("9:9:", 5), 5));
        let runs: Vec<_> = runs.as_slice().iter().map(run_of).collect();
        let one = |seq, stream| (seq, seq, 1, Some(stream));
        assert_eq!(runs, [one(1, 1), one(3, 2), one(2, 3), (4, 5, 2, Some(4))]);
    }

    #[test]
    fn the_cursor_stays_before_a_transaction_that_waits_for_its_rest() {
        let mut sink = flowing_whole(true);
        let events = mixed(&[of(6, &[1]), of(7, &[2]), of(8, &[3, 4])]);
        let (ids, batches) = sent(sink.publish(events, within(4), &HashSet::from([7])));
        assert_eq!((ids.join(" "), batches), ("1 3 4".into(), vec![1, 2]));
        sink.acked(sink.epoch, (1..=3).map(ack).collect());
        // Read again from here, 3 and 4 are found in the tail beyond 1.
        assert_eq!((&sink.settled().position, sink.settled().stream_sequence), (&within(1), 1));
        let runs = sink.take_unsaved().unwrap().1;
        assert_eq!(runs.as_slice().iter().map(run_of).collect::<Vec<_>>(), [(1, 1, 1, Some(1))]);

        let (ids, batches) = sent(sink.publish(of(7, &[5]), position("9:9:", 5), &HashSet::new()));
        assert_eq!((ids.join(" "), batches), ("2 5".into(), vec![2]));
        sink.acked(sink.epoch, vec![ack(4), ack(5)]);
        assert_eq!((&sink.settled().position, sink.settled().stream_sequence), (&position("9:9:", 5), 5));
        let runs = sink.take_unsaved().unwrap().1;
        let runs: Vec<_> = runs.as_slice().iter().map(run_of).collect();
        assert_eq!(runs, [(3, 4, 2, Some(2)), (2, 2, 1, Some(4)), (5, 5, 1, Some(5))]);
    }

    #[test]
    fn a_chunk_of_nothing_but_a_part_moves_nothing_and_is_not_forgotten() {
        let mut sink = flowing_whole(true);
        assert_eq!(sink.publish(of(7, &[1, 2]), within(2), &HashSet::from([7])), None);
        assert_eq!(sink.settled().position, within(0));
        assert_eq!(sent(sink.publish(Vec::new(), position("9:9:", 2), &HashSet::new())).1, [2]);
    }

    #[test]
    fn a_batch_whose_ack_was_lost_is_found_in_the_tail() {
        let mut sink = flowing_whole(true);
        let events = || mixed(&[of(7, &[1, 2]), of(8, &[3, 4])]);
        sink.publish(events(), position("9:9:", 4), &HashSet::new());
        assert_eq!(failed(&mut sink, FaultKind::DuplicateInBatch, 1), Some(Failure::Again));
        sink.stream_ready(StreamInfo { atomic: true, ..info(2) }).unwrap();
        let found = |number| Stored { sequence: number, message_id: Some(Uuid::from_u128(number.into()).to_string()) };
        sink.tail_read(vec![found(1), found(2)], 2);
        let (ids, batches) = sent(sink.publish(events(), position("9:9:", 4), &HashSet::new()));
        assert_eq!((ids.join(" "), batches), ("3 4".into(), vec![2]));
        sink.acked(sink.epoch, vec![ack(3), ack(4)]);
        assert_eq!(sink.settled().stream_sequence, 4);
        assert_eq!(sink.take_splits(), None);
    }

    #[test]
    fn a_duplicate_that_is_not_in_the_tail_takes_its_transaction_apart_and_no_other() {
        let mut sink = flowing_whole(true);
        let events = || mixed(&[of(7, &[1, 2]), of(8, &[3, 4])]);
        for _ in 0..2 {
            assert_eq!(sent(sink.publish(events(), position("9:9:", 4), &HashSet::new())).1, [2, 2]);
            failed(&mut sink, FaultKind::DuplicateInBatch, 1);
            assert_eq!(sink.stream_ready(StreamInfo { atomic: true, ..info(0) }), Ok(None));
        }
        assert_eq!(sent(sink.publish(events(), position("9:9:", 4), &HashSet::new())).1, [1, 1, 2]);
        sink.acked(sink.epoch, (1..=4).map(ack).collect());
        assert_eq!(sink.take_splits(), Some(Splits { count: 1, xid: 7, reason: SplitReason::Refused }));
    }

    #[test]
    fn an_event_that_is_too_large_is_left_out_of_its_batch_alone() {
        let mut sink = flowing_whole(true);
        sink.publish(of(7, &[1, 2, 3]), position("9:9:", 3), &HashSet::new());
        let failure = failed(&mut sink, FaultKind::MessageTooLarge, 1);
        assert_eq!(failure, Some(Failure::Refused { id: Uuid::from_u128(2), seq: 2 }));
        assert_eq!(sink.stream_ready(StreamInfo { atomic: true, ..info(0) }), Ok(None));
        let (ids, batches) = sent(sink.publish(of(7, &[1, 2, 3]), position("9:9:", 3), &HashSet::new()));
        assert_eq!((ids.join(" "), batches), ("1 3".into(), vec![2]));
    }

    #[test]
    fn transactions_that_could_not_be_published_as_one_are_counted_when_they_are_stored() {
        let mut sink = flowing_whole(false);
        let events = mixed(&[of(7, &[1, 2]), of(8, &[3]), of(9, &[4, 5])]);
        let (ids, batches) = sent(sink.publish(events, position("9:9:", 5), &HashSet::new()));
        assert_eq!((ids.join(" "), batches), ("1 2 3 4 5".into(), vec![1; 5]));
        assert_eq!(sink.take_splits(), None);
        sink.acked(sink.epoch, (1..=5).map(ack).collect());
        assert_eq!(sink.take_splits(), Some(Splits { count: 2, xid: 9, reason: SplitReason::NotAllowed }));
    }
}
