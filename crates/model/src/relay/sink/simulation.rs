//! A sink against a log and a stream that are modelled, with failures in random places: what is stored is stored once and in
//! the order of serialisation, whatever is read again and however late a lost message arrives.
//!
//! The stream knows no duplicate window: what is doubled stays doubled. `SEA_MQ_FUZZ_SEED` makes another run.

use std::collections::{BTreeMap, VecDeque};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::tests::{described, info, lease, logged};
use super::*;
use crate::broker::{Ack, Fault, FaultKind, Outgoing};
use crate::domain::event::Logged;
use crate::domain::position::{Moment, Snapshot};

/// Events of a chunk at most.
const CHUNK: usize = 4;
const MAX_IN_FLIGHT: usize = 12;
const STEPS: usize = 600;

/// A transaction of the writers.
struct Writer {
    seqs: Vec<i64>,
    /// Transactions that were visible when its events got their places: it may have waited for them.
    after: Vec<u64>,
    committed: bool,
}

/// A message on its way, or several of which all or none are stored.
struct Sent {
    epoch: u64,
    expected: u64,
    /// The last message must be this one.
    behind: Option<i64>,
    events: Vec<i64>,
}

enum Reply {
    Stored { epoch: u64, sequences: Vec<u64> },
    Failed { epoch: u64, kind: FaultKind },
}

struct World {
    rng: StdRng,
    /// By transaction id.
    writers: BTreeMap<u64, Writer>,
    next_xid: u64,
    next_seq: i64,
    stream: Vec<i64>,
    described: Described,
    sink: Sink,
    /// What a relay that begins anew finds.
    saved: Cursor,
    /// Requests that are not answered.
    requests: VecDeque<Request>,
    /// Messages expect the id of the one before them, as on a server that is in no cluster.
    chained: bool,
    /// What is to be sent in the present epoch. Nothing is sent before the first message is stored.
    queue: VecDeque<Sent>,
    /// What was queued last, and in which epoch.
    last: Option<(u64, i64)>,
    /// The first message of this epoch is sent, or (and) stored.
    begun: Option<(u64, bool)>,
    /// What was sent, one queue a connection; the last one is the present one's.
    pipes: Vec<VecDeque<Sent>>,
    replies: VecDeque<Reply>,
    now: Instant,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut described = described();
        described.spec.allow_atomic = rng.random();
        let chained = !described.spec.allow_atomic && rng.random();
        let mut world = Self {
            rng,
            chained,
            queue: VecDeque::new(),
            last: None,
            begun: None,
            writers: BTreeMap::new(),
            next_xid: 1,
            next_seq: 1,
            stream: Vec::new(),
            sink: Sink::new(described.clone(), Cursor::start(), HashSet::new()),
            described,
            saved: Cursor::start(),
            requests: VecDeque::new(),
            pipes: vec![VecDeque::new()],
            replies: VecDeque::new(),
            now: Instant::now(),
        };
        world.connect();
        world
    }

    /// `calm`: nobody writes and nothing fails.
    fn step(&mut self, calm: bool) {
        match self.rng.random_range(if calm { 22..97 } else { 0..100 }) {
            0..6 => self.begin(),
            6..14 => self.write(),
            14..22 => self.commit(),
            22..40 => self.read(),
            40..60 => self.store(),
            60..76 => self.reply(),
            76..86 => self.answer(),
            86..92 => self.save(),
            92..97 => self.tick(),
            97 if self.rng.random() => self.refuse(),
            97 => self.time_out(),
            98 => self.reconnect(),
            _ if self.rng.random() => self.crash(),
            _ => self.look_again(),
        }
    }

    fn begin(&mut self) {
        self.writers.insert(self.next_xid, Writer { seqs: Vec::new(), after: Vec::new(), committed: false });
        self.next_xid += 1;
    }

    /// Some transaction is about to commit and writes its events.
    fn write(&mut self) {
        let Some(xid) = self.some_writer(|writer| writer.seqs.is_empty()) else { return };
        let after = self.writers.iter().filter(|(_, other)| other.committed).map(|(xid, _)| *xid).collect();
        let count = self.rng.random_range(1..6);
        let seqs = (self.next_seq..).take(count).collect();
        self.next_seq += count as i64;
        self.writers.insert(xid, Writer { seqs, after, committed: false });
    }

    fn commit(&mut self) {
        let Some(xid) = self.some_writer(|writer| !writer.seqs.is_empty() && !writer.committed) else { return };
        self.writers.entry(xid).and_modify(|writer| writer.committed = true);
        self.sink.wake();
    }

    fn some_writer(&mut self, fits: impl Fn(&Writer) -> bool) -> Option<u64> {
        let fitting: Vec<u64> = self.writers.iter().filter(|(_, writer)| fits(writer)).map(|(xid, _)| *xid).collect();
        (!fitting.is_empty()).then(|| fitting[self.rng.random_range(0..fitting.len())])
    }

    fn moment(&self) -> Moment {
        let in_progress: Vec<u64> =
            self.writers.iter().filter(|(_, writer)| !writer.committed).map(|(xid, _)| *xid).collect();
        let xmin = in_progress.first().copied().unwrap_or(self.next_xid);
        let snapshot = Snapshot { xmin, xmax: self.next_xid, in_progress };
        Moment { snapshot, next_xid: self.next_xid, ceiling: self.next_seq }
    }

    /// Reads a chunk as `pg::store::log` does, and hands it on.
    fn read(&mut self) {
        if !self.sink.wants_to_read(MAX_IN_FLIGHT, usize::MAX) {
            return;
        }
        let at = self.sink.read_position().clone();
        let batch = at.batch_or(&self.moment());
        let shown = |xid: u64| !at.done.shows(xid) && batch.upto.snapshot.shows(xid);
        let rows = self.writers.iter().filter(|(xid, _)| shown(**xid));
        let rows = rows.flat_map(|(xid, writer)| writer.seqs.iter().map(|seq| (*seq, *xid)));
        let mut rows: Vec<(i64, u64)> = rows.filter(|(seq, _)| *seq > batch.at).collect();
        rows.sort_unstable();
        let behind = rows.split_off(rows.len().min(self.rng.random_range(1..=CHUNK)));
        let events: Vec<Logged> = rows.iter().map(|(seq, xid)| Logged { xid: *xid, ..logged(*seq) }).collect();
        let after = at.after(batch.clone(), rows.last().map(|(seq, _)| *seq), behind.is_empty());
        let open = behind.into_iter().map(|(_, xid)| xid).collect();
        match self.sink.publish(events, after, &open) {
            Some(Request::Publish { epoch, expected_last: Some(expected), messages, batches, .. }) => {
                self.send(epoch, expected, &messages, batches);
            }
            None => {}
            other => panic!("not a publish: {other:?}"),
        }
    }

    fn send(&mut self, epoch: u64, mut expected: u64, messages: &[Outgoing], batches: Vec<usize>) {
        let number = |message: &Outgoing| message.headers.id().parse::<Uuid>().unwrap().as_u128() as i64;
        let mut rest: VecDeque<i64> = messages.iter().map(number).collect();
        let batches = if batches.is_empty() { vec![1; rest.len()] } else { batches };
        self.queue.retain(|sent| sent.epoch == epoch);
        let mut behind = self.last.filter(|(of, _)| self.chained && *of == epoch).map(|(_, event)| event);
        for length in batches {
            let events: Vec<i64> = rest.drain(..length).collect();
            let last = events.last().copied();
            self.queue.push_back(Sent { epoch, expected, behind, events });
            behind = last.filter(|_| self.chained);
            self.last = last.map(|event| (epoch, event));
            expected += length as u64;
        }
        self.pump();
    }

    /// Sends what may be sent: see `nats::flow`.
    fn pump(&mut self) {
        while let Some(next) = self.queue.front() {
            match self.begun {
                Some((epoch, stored)) if epoch == next.epoch && !stored => return,
                Some((epoch, _)) if epoch == next.epoch => {}
                _ => self.begun = Some((next.epoch, false)),
            }
            let next = self.queue.pop_front().unwrap();
            self.pipes.last_mut().unwrap().push_back(next);
        }
    }

    /// The stream takes what comes next on one of the connections, also on one that was given up.
    fn store(&mut self) {
        let pipe = self.rng.random_range(0..self.pipes.len());
        let present = pipe + 1 == self.pipes.len();
        let Some(Sent { epoch, expected, behind, events }) = self.pipes[pipe].pop_front() else { return };
        let fits = behind.is_none() || behind.as_ref() == self.stream.last();
        let reply = if fits && expected == self.stream.len() as u64 {
            self.stream.extend(&events);
            Reply::Stored { epoch, sequences: (expected + 1..).take(events.len()).collect() }
        } else {
            Reply::Failed { epoch, kind: FaultKind::WrongSequence }
        };
        if present {
            self.replies.push_back(reply);
        }
    }

    fn reply(&mut self) {
        match self.replies.pop_front() {
            Some(Reply::Stored { epoch, sequences }) => {
                if self.begun == Some((epoch, false)) {
                    self.begun = Some((epoch, true));
                    self.pump();
                }
                let acks = sequences.into_iter().map(|sequence| Ack { sequence, duplicate: false }).collect();
                assert_eq!(self.sink.acked(epoch, acks, self.now, 0.5), None);
            }
            Some(Reply::Failed { epoch, kind }) => self.fail(epoch, kind),
            None => {}
        }
    }

    fn fail(&mut self, epoch: u64, kind: FaultKind) {
        self.sink.publish_failed(epoch, 0, &Fault::new(kind, ""), self.now, 0.5);
    }

    fn answer(&mut self) {
        let last = self.stream.len() as u64;
        let request = match self.requests.pop_front() {
            Some(Request::EnsureStream { .. }) => {
                self.give_up_stale();
                let info = StreamInfo { atomic: self.described.spec.allow_atomic, own: true, ..info(last) };
                self.sink.stream_ready(info).unwrap()
            }
            Some(Request::ReadTail { after, .. }) => {
                let message = |(event, sequence): (&i64, u64)| Stored {
                    sequence,
                    message_id: Some(Uuid::from_u128(event.unsigned_abs().into()).to_string()),
                    counted: true,
                };
                let messages = self.stream.iter().zip(1..).map(message).filter(|stored| stored.sequence > after);
                self.sink.tail_read(messages.collect(), last);
                None
            }
            Some(other) => panic!("not expected: {other:?}"),
            None => {
                self.sink.judged();
                None
            }
        };
        self.requests.extend(request);
        lease(&mut self.sink);
    }

    /// The stream cannot be had, or not be read, just now.
    fn refuse(&mut self) {
        if self.requests.pop_front().is_some() {
            self.sink.stream_refused(&Fault::new(FaultKind::Timeout, "no answer"), self.now, 0.5);
        }
    }

    /// Where messages are not chained, a stream is used when what earlier connections brought is over: see `nats::streams`.
    fn give_up_stale(&mut self) {
        let present = self.pipes.len() - 1;
        if !self.chained {
            self.pipes.drain(..present);
        }
    }

    fn save(&mut self) {
        if let Some((cursor, _)) = self.sink.take_unsaved() {
            self.saved = cursor;
        }
    }

    fn tick(&mut self) {
        self.now += Duration::from_millis(500);
        self.requests.extend(self.sink.tick(self.now));
    }

    fn connect(&mut self) {
        self.requests = VecDeque::from([self.sink.connected()]);
    }

    /// What was sent may still arrive, and what is asked now is answered before.
    fn time_out(&mut self) {
        self.fail(self.sink.epoch, FaultKind::Timeout);
    }

    fn reconnect(&mut self) {
        self.sink.disconnected();
        self.queue.clear();
        self.begun = None;
        self.pipes.push(VecDeque::new());
        self.replies.clear();
        self.connect();
    }

    fn crash(&mut self) {
        self.sink = Sink::new(self.described.clone(), self.saved.clone(), HashSet::new());
        self.reconnect();
    }

    /// Somebody asks for a refill, for which there is no reason.
    fn look_again(&mut self) {
        let seq = self.rng.random_range(1..=self.next_seq);
        let request = self.sink.refill(seq, 0);
        self.save();
        self.requests.extend(request);
    }

    fn is_through(&self) -> bool {
        let written: usize = self.writers.values().map(|writer| writer.seqs.len()).sum();
        self.stream.len() == written && self.sink.in_flight() == 0 && !self.sink.is_unsaved()
    }

    fn check_nothing_doubled(&self) {
        let distinct: HashSet<i64> = self.stream.iter().copied().collect();
        assert_eq!(distinct.len(), self.stream.len(), "doubled: {:?}", self.stream);
    }

    fn check_order(&self) {
        let place: HashMap<i64, usize> = self.stream.iter().copied().zip(0..).collect();
        for writer in self.writers.values().filter(|writer| !writer.seqs.is_empty()) {
            assert!(writer.seqs.is_sorted_by_key(|seq| place[seq]), "{:?} in {:?}", writer.seqs, self.stream);
            let earlier = writer.after.iter().filter_map(|xid| self.writers[xid].seqs.last());
            let first = place[&writer.seqs[0]];
            assert!(earlier.map(|seq| place[seq]).all(|earlier| earlier < first), "{:?}", self.stream);
        }
    }
}

fn simulate(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step(false);
        world.check_nothing_doubled();
    }
    // Whoever has written commits.
    world.writers.retain(|_, writer| !writer.seqs.is_empty());
    world.writers.values_mut().for_each(|writer| writer.committed = true);
    for _ in 0..100 * STEPS {
        if world.is_through() {
            break;
        }
        world.sink.wake();
        world.step(true);
    }
    world.check_nothing_doubled();
    assert!(world.is_through(), "it does not come to an end");
    world.check_order();
}

#[test]
fn whatever_fails_each_event_is_stored_once_and_in_the_order_of_serialisation() {
    let first = std::env::var("SEA_MQ_FUZZ_SEED").map_or(0, |seed| seed.parse().unwrap());
    for seed in (0..300).map(|run| run ^ first) {
        let result = std::panic::catch_unwind(|| simulate(seed));
        assert!(result.is_ok(), "with seed {seed}");
    }
}
