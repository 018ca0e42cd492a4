//! An endpoint, its ledger and what the tables keep, against a receiver that is modelled, with failures and crashes in random
//! places: nothing is lost, aggregates stay in order, and nothing is sent twice but what was in flight.
//!
//! `SEA_MQ_FUZZ_SEED` makes another run.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use uuid::Uuid;

use super::endpoint::{Endpoint, Item, Next, Outcome, Policy};
use super::health::{Health, State};
use super::ledger::Ledger;
use super::order::Ordering;
use super::outcome::{Answer, FaultKind};
use super::schedule::Schedule;
use crate::domain::position::{Moment, Position, Snapshot};

const CHUNK: usize = 7;
const STEPS: usize = 800;

/// A row of the table of what is tried again.
#[derive(Clone)]
struct Row {
    item: Item,
    due: Option<Instant>,
    counted: u32,
    begun: Option<Instant>,
}

/// What a crash leaves.
#[derive(Clone)]
struct Tables {
    position: Position,
    done: HashMap<Uuid, Outcome>,
    rows: BTreeMap<Uuid, Row>,
}

struct World {
    rng: StdRng,
    policy: Policy,
    log: Vec<Item>,
    tables: Tables,
    /// What was done since the tables were written.
    unsaved: Vec<(Item, Outcome, Option<Row>)>,
    endpoint: Endpoint,
    ledger: Ledger,
    in_flight: Vec<Item>,
    /// What the receiver has accepted.
    received: Vec<Uuid>,
    /// Deliveries that may be repeated: they were in flight, or answered and not saved, when the process ended.
    excused: usize,
    now: Instant,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let ordering = [Ordering::None, Ordering::Key, Ordering::Strict][rng.random_range(0..3)];
        let waits = (0..40).map(|n| Duration::from_secs(n * 5)).collect();
        let policy = Policy {
            ordering,
            max_in_flight: rng.random_range(1..20),
            rate: rng.random_bool(0.3).then(|| rng.random_range(5.0..200.0)),
            schedule: Schedule::new(waits, Duration::from_secs(1_000_000)),
            pauses: false,
        };
        let tables = Tables { position: Position::start(), done: HashMap::new(), rows: BTreeMap::new() };
        let mut world = Self {
            endpoint: Endpoint::new(policy.clone(), Health::default(), false),
            ledger: Ledger::new(tables.position.clone()),
            rng,
            policy,
            log: Vec::new(),
            tables,
            unsaved: Vec::new(),
            in_flight: Vec::new(),
            received: Vec::new(),
            excused: 0,
            now: Instant::now(),
        };
        world.start();
        world
    }

    /// A process begins with what the tables say.
    fn start(&mut self) {
        let state = self.endpoint.state();
        let health = Health::saved(if state == State::Refused { "active" } else { state.token() });
        self.endpoint = Endpoint::new(self.policy.clone(), health, false);
        self.ledger = Ledger::new(self.tables.position.clone());
        let mut rows: Vec<Row> = self.tables.rows.values().cloned().collect();
        rows.sort_by_key(|row| (row.due.is_none(), row.item.seq));
        self.endpoint.set_retrying(rows.len());
        for Row { item, due, counted, begun } in rows {
            self.endpoint.restore(item, due, counted, begun);
        }
        self.endpoint.restored(self.now);
    }

    fn crash(&mut self) {
        let answered = self.unsaved.iter().filter(|(_, outcome, _)| *outcome == Outcome::Delivered).count();
        self.excused += self.in_flight.len() + answered;
        // Some of what was in flight has arrived.
        for item in std::mem::take(&mut self.in_flight) {
            if self.rng.random() {
                self.received.push(item.event);
            }
        }
        self.unsaved.clear();
        self.start();
    }

    fn emit(&mut self) {
        let seq = self.log.len() as i64 + 1;
        let key = self.rng.random_range(0..5).to_string();
        self.log.push(Item { event: Uuid::now_v7(), seq, key: Some(key.as_str().into()) });
    }

    fn moment(&self) -> Moment {
        let xmax = self.log.len() as u64 + 1;
        let snapshot = Snapshot { xmin: xmax, xmax, in_progress: Vec::new() };
        Moment { snapshot, next_xid: xmax, ceiling: self.log.len() as i64 }
    }

    fn read(&mut self) {
        let room = self.endpoint.room(self.now).min(CHUNK);
        if room == 0 {
            return;
        }
        let moment = self.moment();
        let at = self.ledger.read_from().clone();
        let batch = at.batch_or(&moment);
        let rest = self.log.iter().filter(|item| {
            !at.done.shows(item.seq as u64) && batch.upto.snapshot.shows(item.seq as u64) && item.seq > batch.at
        });
        let read: Vec<Item> = rest.take(room + 1).cloned().collect();
        let finished = read.len() <= room;
        let read = &read[..read.len().min(room)];
        let after = at.after(batch, read.last().map(|item| item.seq), finished);
        // What is settled beyond the position was settled before a crash.
        let known = |event: &Uuid| self.tables.done.contains_key(event) || self.tables.rows.contains_key(event);
        let wanted: Vec<Item> = read.iter().filter(|item| !known(&item.event)).cloned().collect();
        self.ledger.read(&moment, wanted.iter().map(|item| item.seq).collect(), after);
        wanted.into_iter().for_each(|item| self.endpoint.offer(item));
    }

    fn send(&mut self) {
        match self.endpoint.next(self.now) {
            Some(Next::Send { item, .. }) => {
                let same_key = |other: &&Item| self.policy.ordering != Ordering::None && other.key == item.key;
                assert!(self.in_flight.iter().find(same_key).is_none(), "two of a key are in flight");
                assert!(self.in_flight.len() < self.policy.max_in_flight.max(1));
                self.in_flight.push(item);
            }
            Some(Next::Park(item)) => {
                let row = Row { item: item.clone(), due: None, counted: 0, begun: None };
                self.unsaved.push((item, Outcome::Retry { wait: Duration::ZERO, counted: false }, Some(row)));
            }
            None => {}
        }
    }

    fn answer(&mut self, calm: bool) {
        if self.in_flight.is_empty() {
            return;
        }
        let item = self.in_flight.swap_remove(self.rng.random_range(0..self.in_flight.len()));
        let status = |code| Answer::Status { code, retry_after: None };
        let answer = match self.rng.random_range(0..100) {
            _ if calm => status(200),
            0..60 => status(204),
            60..75 => status(500),
            75..85 => Answer::Fault(FaultKind::Timeout),
            85..90 => Answer::Status { code: 429, retry_after: Some(Duration::from_secs(3)) },
            90..95 => status(422),
            _ => Answer::Fault(FaultKind::Connect),
        };
        // Of some that fail the receiver has the whole request.
        let arrives = answer == status(200) || answer == status(204);
        if arrives {
            self.received.push(item.event);
        }
        let outcome = self.endpoint.answered(item.event, answer, self.now, self.rng.random()).unwrap();
        let row = match &outcome {
            Outcome::Retry { wait, .. } => {
                let counted = self.tables.rows.get(&item.event).map_or(0, |row| row.counted) + 1;
                Some(Row { item: item.clone(), due: Some(self.now + *wait), counted, begun: Some(self.now) })
            }
            _ => None,
        };
        self.unsaved.push((item, outcome, row));
    }

    fn save(&mut self) {
        for (item, outcome, row) in std::mem::take(&mut self.unsaved) {
            match row {
                Some(row) => _ = self.tables.rows.insert(item.event, row),
                None => {
                    self.tables.rows.remove(&item.event);
                    self.tables.done.insert(item.event, outcome);
                }
            }
            self.ledger.settle(item.seq);
            self.endpoint.recorded(item.event, self.now);
        }
        if let Some(position) = self.ledger.moved() {
            self.tables.position = position;
        }
    }

    fn step(&mut self, calm: bool) {
        self.now += Duration::from_millis(self.rng.random_range(0..if calm { 20_000 } else { 400 }));
        match self.rng.random_range(if calm { 10..98 } else { 0..100 }) {
            0..10 => self.emit(),
            10..25 => self.read(),
            25..60 => self.send(),
            60..85 => self.answer(calm),
            85..98 => self.save(),
            _ if self.rng.random_bool(0.3) => self.crash(),
            _ => {}
        }
    }

    fn is_done(&self) -> bool {
        self.tables.done.len() == self.log.len() && self.unsaved.is_empty()
    }

    fn check(&self) {
        let done = &self.tables.done;
        assert_eq!(done.len(), self.log.len(), "lost: {:?}", self.endpoint.state());
        assert!(self.tables.rows.is_empty());
        let received: HashSet<Uuid> = self.received.iter().copied().collect();
        for item in &self.log {
            let delivered = done[&item.event] == Outcome::Delivered;
            assert!(!delivered || received.contains(&item.event), "{item:?} was not received");
        }
        assert!(self.received.len() - received.len() <= self.excused, "doubled without an excuse");
        if self.policy.ordering != Ordering::None {
            self.check_order();
        }
    }

    /// Of each key, what is received for the first time comes in the order of the log.
    fn check_order(&self) {
        let by_id: HashMap<Uuid, &Item> = self.log.iter().map(|item| (item.event, item)).collect();
        let (mut last, mut seen) = (HashMap::new(), HashSet::new());
        for event in self.received.iter().filter(|event| seen.insert(**event)) {
            let item = by_id[event];
            let before = last.insert(item.key.clone(), item.seq);
            assert!(before.is_none_or(|before| before < item.seq), "{item:?} after {before:?}");
        }
    }
}

#[test]
fn whatever_fails_nothing_is_lost_or_reordered_or_doubled_without_an_excuse() {
    let seed = std::env::var("SEA_MQ_FUZZ_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1_u64);
    for run in 0..200 {
        let seed = seed.wrapping_mul(1000).wrapping_add(run);
        let result = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            (0..STEPS).for_each(|_| world.step(false));
            for _ in 0..20_000 {
                if world.is_done() {
                    break;
                }
                world.step(true);
            }
            world.check();
        });
        assert!(result.is_ok(), "seed {seed}");
    }
}
