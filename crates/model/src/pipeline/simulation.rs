//! A subscription against a stream and a database that are modelled, with failures, crashes and redeliveries in random places: each
//! message is in effect once or a dead letter, and the first attempts of an aggregate's messages are in the order of the stream.
//!
//! A transaction works on a copy of the database, which takes its place at the commit. A crash loses everything but the
//! database and the stream. `SEA_MQ_FUZZ_SEED` makes another run.

mod shell;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use shell::{Kept, Model};

const MESSAGES: usize = 60;
const STEPS: usize = 400;
/// Attempts before a message is given up.
const MAX_ATTEMPTS: usize = 6;
/// Steps after which all must be dealt with once nothing goes wrong any more by chance.
const CALM: usize = 4000;

type MessageId = usize;

/// How an attempt ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Success,
    Failure,
    Poison,
    /// Others are in the way.
    Busy,
    FailureAtCommit,
    /// The process dies of it.
    Crash,
}

/// What is to become of a message: how its attempts end, by their number. Those behind the last succeed.
struct Message {
    aggregate: usize,
    endings: Vec<Ending>,
}

#[derive(Clone, Debug)]
struct Row {
    message: MessageId,
    attempts: usize,
    processing: bool,
}

#[derive(Clone, Default)]
struct Database {
    pending: BTreeMap<i64, Row>,
    next_id: i64,
    done: BTreeSet<MessageId>,
    dead: BTreeSet<MessageId>,
    /// What handlers have left.
    effects: Vec<MessageId>,
    /// Messages in the order of their first attempts.
    firsts: Vec<MessageId>,
}

impl Database {
    fn knows(&self, message: MessageId) -> bool {
        self.done.contains(&message)
            || self.dead.contains(&message)
            || self.pending.values().any(|row| row.message == message)
    }

    fn store(&mut self, message: MessageId, processing: bool) -> i64 {
        self.next_id += 1;
        self.pending.insert(self.next_id, Row { message, attempts: usize::from(processing), processing });
        self.next_id
    }

    fn conclude(&mut self, id: i64, outcome: &Outcome) {
        let Some(row) = self.pending.get_mut(&id) else { return };
        row.processing = false;
        let message = row.message;
        let given_up = match outcome {
            Outcome::Processed | Outcome::Skipped(_) => {
                self.done.insert(message);
                self.pending.remove(&id);
                return;
            }
            Outcome::Poison(_) => true,
            Outcome::Failed(_) | Outcome::TimedOut(_) | Outcome::Crashed | Outcome::Again(_) => {
                row.attempts >= MAX_ATTEMPTS
            }
        };
        if given_up {
            self.dead.insert(message);
            self.pending.remove(&id);
        }
    }
}

fn failure(sqlstate: &str) -> Failure {
    Failure { sqlstate: sqlstate.into(), ..Failure::default() }
}

/// How messages get to their handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// The consumer runs it.
    Itself,
    /// They are stored first.
    Stored,
    /// Processes of the pool run it, in so many lanes.
    Pool(usize),
}

/// A task that a process of the pool has.
struct Given {
    lane: usize,
    /// Of the queue, in order. Nobody waits for them any more once the consumer that gave them is gone.
    taken: Vec<(usize, u32)>,
    is_orphan: bool,
    care: Care,
    plan: Plan,
}

struct World {
    rng: StdRng,
    messages: Vec<Message>,
    /// By stream sequence. Some messages were published twice.
    stream: Vec<MessageId>,
    acknowledged: Vec<bool>,
    /// Stream sequences that were delivered and are not dealt with, and how often each was delivered.
    queue: VecDeque<(usize, u32)>,
    next: usize,
    database: Database,
    /// By lane.
    care: Vec<Care>,
    way: Way,
    given: Vec<Given>,
    crashed: bool,
    /// Nothing goes wrong any more but what the messages themselves do.
    calm: bool,
}

impl Way {
    fn lanes(self) -> usize {
        if let Self::Pool(lanes) = self { lanes } else { 1 }
    }
}

impl World {
    fn new(seed: u64, way: Way) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let messages: Vec<Message> =
            (0..MESSAGES).map(|_| Message { aggregate: rng.random_range(0..4), endings: endings(&mut rng) }).collect();
        let mut stream = Vec::new();
        for message in 0..MESSAGES {
            stream.push(message);
            if rng.random_bool(0.1) {
                stream.push(rng.random_range(0..=message));
            }
        }
        let acknowledged = vec![false; stream.len()];
        Self {
            rng,
            messages,
            stream,
            acknowledged,
            queue: VecDeque::new(),
            next: 0,
            database: Database::default(),
            care: vec![Care::default(); way.lanes()],
            way,
            given: Vec::new(),
            crashed: false,
            calm: false,
        }
    }

    fn happens(&mut self, probability: f64) -> bool {
        !self.calm && self.rng.random_bool(probability)
    }

    /// Runs the handler. What it leaves, it leaves in the transaction's database.
    fn handle(&mut self, database: &mut Database, message: MessageId, attempt: usize) -> (Outcome, bool) {
        let ending = self.messages[message].endings.get(attempt - 1).copied().unwrap_or(Ending::Success);
        let outcome = match ending {
            Ending::Success | Ending::FailureAtCommit => {
                database.effects.push(message);
                Outcome::Processed
            }
            Ending::Failure => Outcome::of(failure("23505")),
            Ending::Poison => Outcome::of(failure("SM001")),
            // Not for ever: others go on.
            Ending::Busy if self.rng.random_bool(0.7) => Outcome::of(failure("40001")),
            Ending::Busy => {
                database.effects.push(message);
                Outcome::Processed
            }
            Ending::Crash => {
                self.crashed = true;
                Outcome::Crashed
            }
        };
        (outcome, ending == Ending::FailureAtCommit)
    }

    /// Commits, unless the process dies before. It may die after it as well.
    fn commit(&mut self, database: Database, fails: bool) -> Result<(), Failure> {
        self.crashed |= self.happens(0.01);
        if self.crashed {
            return Err(failure("57P02"));
        }
        if fails {
            return Err(failure("23514"));
        }
        self.database = database;
        self.crashed |= self.happens(0.01);
        if self.crashed { Err(failure("57P02")) } else { Ok(()) }
    }

    fn begin(&self) -> Result<Database, Failure> {
        if self.crashed { Err(failure("57P02")) } else { Ok(self.database.clone()) }
    }

    fn lane(&self, message: MessageId) -> usize {
        self.messages[message].aggregate % self.way.lanes()
    }

    /// Ends the attempts of a lane that nobody makes any more.
    fn recover(&mut self, lane: usize) {
        let pending = self.database.pending.iter();
        let abandoned: Vec<i64> =
            pending.filter(|(_, row)| row.processing && self.lane(row.message) == lane).map(|(id, _)| *id).collect();
        abandoned.into_iter().for_each(|id| self.database.conclude(id, &Outcome::Crashed));
    }

    /// The consumer begins anew: what was not acknowledged is delivered again, and attempts that nobody makes any more end. What
    /// processes of the pool have goes on, and nobody hears of it.
    fn restart(&mut self) {
        let delivered: BTreeMap<usize, u32> =
            self.queue.drain(..).chain(self.given.iter_mut().flat_map(|given| given.taken.iter().copied())).collect();
        let open = (0..self.next).filter(|&sequence| !self.acknowledged[sequence]);
        self.queue = open.map(|sequence| (sequence, delivered.get(&sequence).map_or(2, |times| times + 1))).collect();
        self.care = vec![Care::default(); self.way.lanes()];
        self.crashed = false;
        self.given.iter_mut().for_each(|given| given.is_orphan = true);
        for lane in
            (0..self.way.lanes()).filter(|lane| self.given.iter().all(|given| given.lane != *lane)).collect::<Vec<_>>()
        {
            self.recover(lane);
        }
    }

    fn deliver(&mut self) {
        for _ in 0..self.rng.random_range(1..8) {
            if self.next < self.stream.len() {
                self.queue.push_back((self.next, 1));
                self.next += 1;
            }
        }
    }

    fn serve_stream(&mut self) {
        match self.way {
            Way::Itself => self.serve_delivered(),
            Way::Stored => self.serve_stored(),
            Way::Pool(lanes) => {
                let lane = self.rng.random_range(0..lanes);
                self.give(lane);
            }
        }
    }

    fn serve_delivered(&mut self) {
        let repeated = self.queue.iter().take_while(|(_, delivered)| *delivered > 1).count();
        let plan = self.care[0].plan(repeated);
        let messages: Vec<MessageId> =
            self.queue.iter().take(plan.most()).map(|(sequence, _)| self.stream[*sequence]).collect();
        let mut care = self.care[0];
        let result = take_turn(&mut care, plan, 3, &messages, &mut Model { world: self, left: 5 });
        self.care[0] = care;
        if let Ok(Turn::Done(tally)) = result {
            self.acknowledge(tally.handled);
        }
    }

    /// Gives a lane's next messages to a process, unless one has some of that lane.
    fn give(&mut self, lane: usize) {
        if self.given.iter().any(|given| given.lane == lane) {
            return;
        }
        let of_lane = |world: &Self, sequence: usize| world.lane(world.stream[sequence]) == lane;
        let queued: Vec<(usize, u32)> = self.queue.iter().copied().filter(|one| of_lane(self, one.0)).collect();
        let repeated = queued.iter().take_while(|(_, delivered)| *delivered > 1).count();
        let (care, plan) = (self.care[lane], self.care[lane].plan(repeated));
        let taken: Vec<(usize, u32)> = queued.into_iter().take(plan.most()).collect();
        self.queue.retain(|one| !taken.contains(one));
        self.given.push(Given { lane, taken, is_orphan: false, care, plan });
    }

    /// A process does what it was given, or dies of it, and the consumer hears of it, if it is still the same.
    fn work(&mut self) {
        if self.given.is_empty() {
            return;
        }
        let place = self.rng.random_range(0..self.given.len());
        let Given { lane, taken, is_orphan, mut care, plan } = self.given.swap_remove(place);
        self.serve_due(Some(lane), &mut care);
        let messages: Vec<MessageId> = taken.iter().map(|(sequence, _)| self.stream[*sequence]).collect();
        let result = match self.crashed {
            true => Err(failure("57P02")),
            false => take_turn(&mut care, plan, 3, &messages, &mut Model { world: self, left: 5 }),
        };
        let died = std::mem::take(&mut self.crashed);
        if is_orphan || died {
            self.recover(lane);
        }
        if is_orphan {
            return;
        }
        self.care[lane] = if died { Care::after_a_loss(taken.len()) } else { care };
        let handled = match result {
            Ok(Turn::Done(tally)) if !died => tally.handled,
            _ => 0,
        };
        let (done, rest) = taken.split_at(handled);
        rest.iter().rev().for_each(|one| self.queue.push_front(*one));
        done.iter().for_each(|one| self.acknowledge_one(*one));
    }

    fn acknowledge(&mut self, handled: usize) {
        for _ in 0..handled {
            let Some(one) = self.queue.pop_front() else { return };
            self.acknowledge_one(one);
        }
    }

    fn acknowledge_one(&mut self, (sequence, delivered): (usize, u32)) {
        if self.happens(0.05) {
            // The acknowledgement gets lost.
            self.queue.push_back((sequence, delivered + 1));
        } else {
            self.acknowledged[sequence] = true;
        }
    }

    fn serve_stored(&mut self) {
        let Ok(mut database) = self.begin() else { return };
        let count = self.queue.len().min(5);
        for place in 0..count {
            let message = self.stream[self.queue[place].0];
            if !database.knows(message) {
                database.store(message, false);
            }
        }
        if self.commit(database, false).is_ok() {
            self.acknowledge(count);
        }
    }

    /// Handles what is due, in a lane or in all.
    fn serve_due(&mut self, lane: Option<usize>, care: &mut Care) {
        let is_in = |row: &Row| lane.is_none_or(|lane| self.lane(row.message) == lane);
        let waiting = self.database.pending.iter().filter(|(_, row)| !row.processing && is_in(row));
        let mut due: Vec<Kept> =
            waiting.map(|(id, row)| Kept { id: *id, message: row.message, attempts: row.attempts }).collect();
        due.sort_by_key(|one| (one.attempts > 0, one.id));
        let firsts = due.iter().take_while(|one| one.attempts == 0).count();
        let plan = if firsts == 0 { Plan::Alone(ALONE) } else { care.plan(usize::MAX) };
        due.truncate(plan.most().min(if firsts == 0 { due.len() } else { firsts }));
        drop(take_turn(care, plan, 3, &due, &mut Model { world: self, left: 5 }));
    }

    fn step(&mut self) {
        match self.rng.random_range(0..10) {
            0..=2 => self.deliver(),
            3..=6 => self.serve_stream(),
            7 | 8 if matches!(self.way, Way::Pool(_)) => self.work(),
            7 | 8 => {
                let mut care = self.care[0];
                self.serve_due(None, &mut care);
                self.care[0] = care;
            }
            _ => self.crashed |= self.happens(0.2),
        }
        if self.crashed {
            self.restart();
        }
        self.check();
    }

    fn is_quiet(&self) -> bool {
        self.acknowledged.iter().all(|acknowledged| *acknowledged)
            && self.database.pending.is_empty()
            && self.given.iter().all(|given| given.taken.is_empty())
    }

    fn check(&self) {
        let database = &self.database;
        let once: BTreeSet<_> = database.effects.iter().collect();
        assert_eq!(once.len(), database.effects.len(), "a message was in effect twice: {:?}", database.effects);
        assert!(database.effects.iter().all(|message| database.done.contains(message)), "in effect and not done");
        assert!(database.done.is_disjoint(&database.dead));
        let mut last = BTreeMap::new();
        for message in &database.firsts {
            let before = last.insert(self.messages[*message].aggregate, *message);
            assert!(before < Some(*message), "first attempts out of order: {:?}", database.firsts);
        }
    }

    fn check_end(&self) {
        let database = &self.database;
        assert_eq!(database.done.len() + database.dead.len(), MESSAGES, "a message is lost");
        assert_eq!(database.effects.len(), database.done.len());
        for (number, message) in self.messages.iter().enumerate() {
            let harmless = message.endings.iter().all(|ending| *ending == Ending::Success);
            assert!(!harmless || database.done.contains(&number), "message {number} was given up for others' faults");
        }
    }
}

fn endings(rng: &mut StdRng) -> Vec<Ending> {
    if rng.random_bool(0.6) {
        return Vec::new();
    }
    let all = [Ending::Failure, Ending::Poison, Ending::Busy, Ending::FailureAtCommit, Ending::Crash];
    let count = rng.random_range(1..=MAX_ATTEMPTS + 1);
    (0..count).map(|_| all[rng.random_range(0..all.len())]).collect()
}

fn run(seed: u64, way: Way) {
    let mut world = World::new(seed, way);
    (0..STEPS).for_each(|_| world.step());
    world.calm = true;
    let quiet = (0..CALM).any(|_| {
        world.step();
        world.is_quiet()
    });
    assert!(quiet, "seed {seed}: {way:?}: still at work: {:?}", world.database.pending);
    world.check_end();
}

#[test]
fn each_message_is_in_effect_once_or_a_dead_letter_whatever_fails() {
    let first = std::env::var("SEA_MQ_FUZZ_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    for seed in first..first + 100 {
        for way in [Way::Itself, Way::Stored, Way::Pool(1), Way::Pool(3)] {
            run(seed, way);
        }
    }
}
