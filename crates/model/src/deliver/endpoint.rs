//! One endpoint: what is sent to it next, and what follows from its answers.

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::health::{Health, Leave, State};
use super::order::{Key, Lines, Ordering, Turn};
use super::outcome::{Answer, Effect, Fate, judge};
use super::rate::Rate;
use super::schedule::Schedule;
use super::window::Window;

/// Parked events of an endpoint, after which nothing more is read for it.
pub const PARKED: usize = 1000;
/// Deliveries that are tried again, after which nothing more is read for it.
pub const RETRYING: usize = 10_000;
/// Events that were read and are not sent yet.
const AHEAD: usize = 256;
/// The key of all deliveries that are made one at a time.
const ALL: &str = "";

/// How an endpoint is to be treated.
#[derive(Clone, Debug)]
pub struct Policy {
    pub ordering: Ordering,
    pub max_in_flight: usize,
    /// Deliveries a second.
    pub rate: Option<f64>,
    pub schedule: Schedule,
    /// Nothing more is sent once a delivery was given up.
    pub pauses: bool,
}

/// A delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub event: Uuid,
    /// Its place in the log; behind all that wait, for one of its own.
    pub seq: i64,
    pub key: Option<Key>,
}

/// A delivery that was tried, or is to be tried apart from the log.
#[derive(Clone, Debug)]
struct Waiting {
    item: Item,
    /// Attempts that count.
    counted: u32,
    /// When the first attempt began.
    begun: Option<Instant>,
    /// `None`: parked, or in flight.
    due: Option<Instant>,
    parked: bool,
}

#[derive(Clone, Debug)]
struct Flight {
    item: Item,
    began: Instant,
    /// It was tried before.
    is_retry: bool,
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// To be sent. `retry`: its bytes are kept in the table.
    Send { item: Item, retry: bool },
    /// One of its aggregate has failed: it is to be kept in the table, and the log goes on.
    Park(Item),
}

/// What became of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Delivered,
    /// It is tried again after this time.
    Retry {
        wait: Duration,
        counted: bool,
    },
    /// It is given up: the endpoint does not want it.
    Failed,
    /// It is given up: there is no further attempt.
    Exhausted,
}

pub struct Endpoint {
    policy: Policy,
    health: Health,
    /// Nobody wants it to be served just now: paused, disabled, a copy.
    held: bool,
    window: Window,
    rate: Option<Rate>,
    fresh: VecDeque<Item>,
    flights: HashMap<Uuid, Flight>,
    retries_in_flight: usize,
    waiting: HashMap<Uuid, Waiting>,
    due: BTreeSet<(Instant, i64, Uuid)>,
    lines: Lines,
    /// Given up, and not recorded yet: until then their keys go no further, since after a crash they would be sent once more.
    closing: HashMap<Uuid, Key>,
    /// Deliveries that are tried again, in memory or not.
    retrying: usize,
}

impl Endpoint {
    pub fn new(policy: Policy, health: Health, held: bool) -> Self {
        Self {
            window: Window::new(policy.max_in_flight),
            rate: policy.rate.and_then(Rate::per_second),
            policy,
            health,
            held,
            fresh: VecDeque::new(),
            flights: HashMap::new(),
            retries_in_flight: 0,
            waiting: HashMap::new(),
            due: BTreeSet::new(),
            lines: Lines::default(),
            closing: HashMap::new(),
            retrying: 0,
        }
    }

    /// Its description has changed.
    pub fn describe(&mut self, policy: Policy, health: Option<Health>, held: bool) {
        self.window.set_max(policy.max_in_flight);
        if self.policy.rate != policy.rate {
            self.rate = policy.rate.and_then(Rate::per_second);
        }
        self.policy = policy;
        self.held = held;
        if let Some(health) = health {
            self.health = health;
        }
    }

    pub fn state(&self) -> State {
        self.health.state()
    }

    pub fn is_held(&self) -> bool {
        self.held
    }

    pub fn window(&self) -> usize {
        self.window.size()
    }

    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    pub fn retrying(&self) -> usize {
        self.retrying
    }

    /// How many deliveries the table has that are tried again.
    pub fn set_retrying(&mut self, retrying: usize) {
        self.retrying = retrying;
    }

    /// Of how many more events of the log it can make something. While nothing can be sent, the log keeps what comes.
    pub fn room(&self, now: Instant) -> usize {
        let stopped = self.held
            || !matches!(self.health.leave(now), Leave::Window | Leave::Probe)
            || self.lines.parked() >= PARKED
            || self.retrying >= RETRYING;
        if stopped { 0 } else { AHEAD.max(self.window.size()).saturating_sub(self.fresh.len()) }
    }

    /// Takes an event of the log, the next one.
    pub fn offer(&mut self, item: Item) {
        self.fresh.push_back(self.keyed(item));
    }

    /// Takes a delivery that the table has. `due`: when it is tried again; `None`: it is parked. `begun`: its first attempt.
    pub fn restore(&mut self, item: Item, due: Option<Instant>, counted: u32, begun: Option<Instant>) {
        if let Some(waiting) = self.waiting.get_mut(&item.event) {
            // Somebody may want it sooner.
            if let (Some(known), Some(due)) = (waiting.due, due)
                && due < known
            {
                waiting.due = Some(due);
                self.due.remove(&(known, waiting.item.seq, item.event));
                self.due.insert((due, waiting.item.seq, item.event));
            }
            return;
        }
        if self.flights.contains_key(&item.event) {
            return;
        }
        let item = self.keyed(item);
        // What is behind another one of its key waits for it, whenever it is due.
        let parked = match &item.key {
            Some(key) if due.is_none() || self.lines.turn(key).is_some() => {
                self.lines.park(key, item.seq, item.event);
                true
            }
            Some(key) => {
                self.lines.take(key, Turn::Failed);
                false
            }
            None => false,
        };
        let (event, seq) = (item.event, item.seq);
        // One of its own, which was not counted with those that are tried again.
        self.retrying += usize::from(due.is_some() && begun.is_none());
        self.waiting.insert(event, Waiting { item, counted, begun, due: None, parked });
        if !parked {
            self.set_due(event, seq, due.unwrap_or_else(Instant::now));
        }
    }

    /// All was restored: of each key the first one gets its turn.
    pub fn restored(&mut self, now: Instant) {
        for key in self.lines.idle() {
            self.pass(&key, now);
        }
    }

    fn keyed(&self, item: Item) -> Item {
        let key = match self.policy.ordering {
            Ordering::None => None,
            Ordering::Key => item.key,
            Ordering::Strict => Some(ALL.into()),
        };
        Item { key, ..item }
    }

    fn set_due(&mut self, event: Uuid, seq: i64, at: Instant) {
        if let Some(waiting) = self.waiting.get_mut(&event) {
            waiting.due = Some(at);
            waiting.parked = false;
            self.due.insert((at, seq, event));
        }
    }

    /// The key's turn goes on.
    fn pass(&mut self, key: &Key, now: Instant) {
        if let Some(event) = self.lines.pass(key)
            && let Some(seq) = self.waiting.get(&event).map(|waiting| waiting.item.seq)
        {
            self.set_due(event, seq, now);
        }
    }

    /// What is to be done now. `None`: nothing, before [`Self::due_at`] or something happens.
    pub fn next(&mut self, now: Instant) -> Option<Next> {
        if self.held {
            return None;
        }
        let leave = self.health.leave(now);
        let room = match leave {
            Leave::Window => self.window.size(),
            Leave::Probe => self.flights.len() + 1,
            Leave::Nothing(_) => return None,
        };
        if self.flights.len() >= room || self.rate.as_ref().is_some_and(|rate| rate.next(now) > now) {
            return None;
        }
        let next = self.next_retry(now, room).or_else(|| self.next_fresh());
        if let Some(Next::Send { item, retry }) = &next {
            if leave == Leave::Probe {
                self.health.probe();
            }
            self.begin(item.clone(), *retry, now);
        }
        next
    }

    fn begin(&mut self, item: Item, is_retry: bool, now: Instant) {
        if let Some(rate) = &mut self.rate {
            rate.take(now);
        }
        if let Some(key) = &item.key {
            self.lines.take(key, Turn::Sent);
        }
        self.retries_in_flight += usize::from(is_retry);
        self.flights.insert(item.event, Flight { item, began: now, is_retry });
    }

    /// Retries take half of the slots at most.
    fn next_retry(&mut self, now: Instant, room: usize) -> Option<Next> {
        let (at, seq, event) = *self.due.first()?;
        if at > now || self.retries_in_flight >= (room / 2).max(1) {
            return None;
        }
        self.due.remove(&(at, seq, event));
        let waiting = self.waiting.get_mut(&event)?;
        waiting.due = None;
        Some(Next::Send { item: waiting.item.clone(), retry: true })
    }

    fn next_fresh(&mut self) -> Option<Next> {
        let mut skipped: Vec<Key> = Vec::new();
        for place in 0..self.fresh.len() {
            let Some(key) = &self.fresh[place].key else { return self.take_fresh(place) };
            if skipped.contains(key) {
                continue;
            }
            match self.lines.turn(key) {
                None if !self.lines.is_taken(key) => return self.take_fresh(place),
                Some(Turn::Failed) if self.parks() => {
                    let item = self.fresh.remove(place)?;
                    let key = item.key.clone()?;
                    self.lines.park(&key, item.seq, item.event);
                    self.retrying += 1;
                    self.waiting.insert(
                        item.event,
                        Waiting { item: item.clone(), counted: 0, begun: None, due: None, parked: true },
                    );
                    return Some(Next::Park(item));
                }
                _ if self.policy.ordering == Ordering::Strict => return None,
                _ => skipped.push(key.clone()),
            }
        }
        None
    }

    fn take_fresh(&mut self, place: usize) -> Option<Next> {
        let item = self.fresh.remove(place)?;
        Some(Next::Send { item, retry: false })
    }

    fn parks(&self) -> bool {
        self.policy.ordering == Ordering::Key && self.lines.parked() < PARKED
    }

    /// An answer has come, or there will be none. `None`: nothing is known of the delivery any more. `jitter`: a random number
    /// in `0.0..1.0`.
    pub fn answered(&mut self, event: Uuid, answer: Answer, now: Instant, jitter: f64) -> Option<Outcome> {
        let flight = self.flights.remove(&event)?;
        self.retries_in_flight -= usize::from(flight.is_retry);
        let (fate, effect) = judge(answer);
        self.take_in(effect, flight.began, now);
        let mut waiting = self.waiting.remove(&event).unwrap_or(Waiting {
            item: flight.item.clone(),
            counted: 0,
            begun: None,
            due: None,
            parked: false,
        });
        let begun = *waiting.begun.get_or_insert(flight.began);
        let outcome = self.outcome(fate, &mut waiting, now.saturating_duration_since(begun), jitter);
        match outcome {
            Outcome::Retry { wait, .. } => {
                self.retrying += usize::from(!flight.is_retry);
                if let Some(key) = &flight.item.key {
                    self.lines.take(key, Turn::Failed);
                }
                self.waiting.insert(event, waiting);
                self.set_due(event, flight.item.seq, now + wait);
            }
            Outcome::Delivered | Outcome::Failed | Outcome::Exhausted => {
                self.retrying = self.retrying.saturating_sub(usize::from(flight.is_retry));
                let lost = outcome != Outcome::Delivered;
                self.held |= self.policy.pauses && lost;
                match flight.item.key {
                    Some(key) if lost => _ = self.closing.insert(event, key),
                    Some(key) => self.pass(&key, now),
                    None => {}
                }
            }
        }
        Some(outcome)
    }

    /// It is recorded what became of a delivery.
    pub fn recorded(&mut self, event: Uuid, now: Instant) {
        if let Some(key) = self.closing.remove(&event) {
            self.pass(&key, now);
        }
    }

    fn take_in(&mut self, effect: Effect, began: Instant, now: Instant) {
        match effect {
            Effect::Sound => self.window.grow(),
            Effect::Strained | Effect::Throttled(_) => self.window.halve(began, now),
            Effect::Unwilling | Effect::Refused | Effect::Gone | Effect::None => {}
        }
        if self.health.note(effect, now) {
            self.window.reset();
        }
    }

    fn outcome(&self, fate: Fate, waiting: &mut Waiting, age: Duration, jitter: f64) -> Outcome {
        let schedule = &self.policy.schedule;
        let (counted, wait) = match fate {
            Fate::Delivered => return Outcome::Delivered,
            Fate::Failed => return Outcome::Failed,
            Fate::Again { counted: true, not_before } => {
                waiting.counted += 1;
                (true, schedule.after(waiting.counted, not_before, age, jitter))
            }
            Fate::Again { counted: false, not_before } => (false, schedule.uncounted(not_before, age)),
        };
        wait.map_or(Outcome::Exhausted, |wait| Outcome::Retry { wait, counted })
    }

    /// One that was to be sent is not there any more: it was taken back.
    pub fn abandon(&mut self, event: Uuid, now: Instant) {
        let Some(flight) = self.flights.remove(&event) else { return };
        self.retries_in_flight -= usize::from(flight.is_retry);
        self.retrying = self.retrying.saturating_sub(usize::from(flight.is_retry));
        self.waiting.remove(&event);
        self.health.not_probed(now);
        if let Some(key) = &flight.item.key {
            self.pass(key, now);
        }
    }

    /// A delivery that waits is taken back. Returns whether it was there; one in flight is not.
    pub fn withdraw(&mut self, event: Uuid, now: Instant) -> bool {
        if self.flights.contains_key(&event) {
            return false;
        }
        let Some(waiting) = self.waiting.remove(&event) else { return false };
        if let Some(at) = waiting.due {
            self.due.remove(&(at, waiting.item.seq, event));
        }
        self.retrying = self.retrying.saturating_sub(1);
        match &waiting.item.key {
            Some(key) if waiting.parked => self.lines.withdraw(key, waiting.item.seq),
            Some(key) => self.pass(&key.clone(), now),
            None => {}
        }
        true
    }

    /// Takes back those events of the log that were not sent yet and are `old`.
    pub fn withdraw_fresh(&mut self, mut old: impl FnMut(Uuid) -> bool) -> Vec<Item> {
        let (old, fresh): (VecDeque<Item>, VecDeque<Item>) = self.fresh.drain(..).partition(|item| old(item.event));
        self.fresh = fresh;
        old.into()
    }

    /// When there is something to do, unless something happens before. Nothing, if it waits for an answer or for a person.
    pub fn due_at(&self, now: Instant) -> Option<Instant> {
        if self.held {
            return None;
        }
        let allowed = match self.health.leave(now) {
            Leave::Window | Leave::Probe => now,
            Leave::Nothing(at) => at?,
        };
        if self.flights.len() >= self.window.size() {
            return None;
        }
        let retry = self.due.first().map(|(at, ..)| *at).filter(|_| self.retries_in_flight == 0);
        let fresh = (!self.fresh.is_empty()).then_some(now);
        let paced = self.rate.as_ref().map_or(now, |rate| rate.next(now));
        retry.into_iter().chain(fresh).min().map(|at| at.max(allowed).max(paced)).filter(|at| *at > now)
    }
}
