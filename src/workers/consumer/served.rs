//! A subscription that is served, and what the consumer remembers of it.

use std::rc::Rc;
use std::time::{Duration, Instant};

use pgrx::{log, warning};

use super::chunk::Chunk;
use crate::host::session::{self, Failed};
use crate::inbox::subscriptions::{self, Subscription};
use crate::inbox::waiting;
use crate::streams::consumers::Trouble;
use sea_mq_model::domain::outcome::{Failure, Outcome};
use sea_mq_model::domain::position::Position;
use sea_mq_model::pipeline::{Care, Effect};

/// SQLSTATE `system_error`.
const SYSTEM_ERROR: &str = "58000";
/// How often a handler that cannot be run is looked at again.
const BLOCKED: Duration = Duration::from_secs(2);
/// How often all first attempts are looked at.
const FLOOR: Duration = Duration::from_secs(30);

/// What the consumer remembers of one of a subscription's lanes.
#[derive(Default)]
pub struct LaneState {
    /// Whether its next messages are handled together or alone.
    pub care: Care,
    /// When the next message that waits in the table is due.
    pub due_at: Option<Instant>,
    /// An error of the database that may have cut off an attempt of which it was noted that it is under way.
    interrupted: Option<String>,
}

pub struct Served {
    pub subscription: Rc<Subscription>,
    lanes: Vec<LaneState>,
    /// Messages that wait in the table, as of the last look; counted up to `max_ack_pending`.
    pub waiting: usize,
    /// Those of them that wait for another attempt.
    retrying: usize,
    /// Whether some wait for their first one.
    has_firsts: bool,
    /// No message waits for its first attempt with a smaller number. Looks enter the index there: what was handled stays in it for
    /// as long as any snapshot is older. The consumer alone stores such messages, one transaction after the other.
    floor: i64,
    /// Since when the floor has only risen.
    floor_since: Instant,
    /// Not to be handled before this.
    pub blocked_until: Option<Instant>,
    /// Since when it has waited for one that goes first.
    pub held_since: Option<Instant>,
    /// How far it has come in this database's log, where there is no broker.
    pub position: Option<Position>,
    /// What was read of the log and is not dealt with yet.
    pub chunk: Option<Chunk>,
    /// There is nothing more in the log for now.
    pub exhausted: bool,
    /// The state that is recorded.
    state: Option<(&'static str, Option<Trouble>)>,
}

impl Served {
    pub fn new(subscription: Rc<Subscription>) -> Self {
        Self {
            subscription,
            lanes: Vec::new(),
            waiting: 0,
            retrying: 0,
            has_firsts: false,
            floor: 0,
            floor_since: Instant::now(),
            blocked_until: None,
            held_since: None,
            position: None,
            chunk: None,
            exhausted: false,
            state: None,
        }
    }

    pub fn lane_mut(&mut self, lane: i16) -> &mut LaneState {
        let place = usize::try_from(lane).unwrap_or(0);
        if place >= self.lanes.len() {
            self.lanes.resize_with(place + 1, LaneState::default);
        }
        &mut self.lanes[place]
    }

    /// Whether something that waits in the table is due in a lane.
    pub fn is_due(&self, lane: i16, now: Instant) -> bool {
        self.due_at(lane).is_some_and(|at| at <= now)
    }

    pub fn due_at(&self, lane: i16) -> Option<Instant> {
        usize::try_from(lane).ok().and_then(|place| self.lanes.get(place)).and_then(|lane| lane.due_at)
    }

    /// Whether it can take more messages now.
    pub fn has_room(&self, now: Instant) -> bool {
        !self.subscription.paused
            && self.subscription.workers == self.subscription.wanted_workers
            && !self.is_held_up(now)
            && self.waiting < self.subscription.max_ack_pending
            && self.retry_room() > 0
    }

    /// Whether it waits until nothing is under way, to have another number of workers.
    pub fn is_changing(&self) -> bool {
        self.subscription.workers != self.subscription.wanted_workers && !self.has_firsts
    }

    /// How many more messages may fail and wait for another attempt.
    pub fn retry_room(&self) -> usize {
        self.subscription.max_retrying.saturating_sub(self.retrying)
    }

    /// From which number on first attempts may be made now: none, while as many messages as may wait for another one.
    fn open_floor(&mut self) -> i64 {
        if self.retry_room() == 0 { i64::MAX } else { self.floor() }
    }

    /// Whether it is to be left alone for a while.
    pub fn is_held_up(&self, now: Instant) -> bool {
        self.blocked_until.is_some_and(|until| until > now)
    }

    /// From which number on first attempts are looked for. Now and then that is all of them, so that nothing is missed for long
    /// whatever has happened.
    pub fn floor(&mut self) -> i64 {
        if self.floor_since.elapsed() > FLOOR {
            self.forget_floor();
        }
        self.floor
    }

    /// No message waits for its first attempt with a smaller number than this.
    pub fn raise_floor(&mut self, floor: i64) {
        self.floor = self.floor.max(floor);
    }

    pub fn forget_floor(&mut self) {
        (self.floor, self.floor_since) = (0, Instant::now());
    }

    /// Ends attempts of a lane whose outcome could not be recorded. Nothing of them is in effect, and others follow.
    pub fn recover(&mut self, lane: i16) -> Result<(), Failed> {
        let Some(error) = &self.lane_mut(lane).interrupted else { return Ok(()) };
        let message = format!("the outcome could not be recorded: {error}");
        let outcome = Outcome::Failed(Failure { sqlstate: SYSTEM_ERROR.into(), message, detail: None });
        let name = self.subscription.name.clone();
        session::transaction(|| waiting::conclude_abandoned(&name, lane, Duration::ZERO, &outcome))?;
        self.lane_mut(lane).interrupted = None;
        self.look()
    }

    /// Records how the subscription is doing, if that has changed.
    pub fn set_state(&mut self, state: &'static str, trouble: Option<Trouble>) -> Result<(), Failed> {
        let new = Some((state, trouble));
        if self.state == new {
            return Ok(());
        }
        let name = &self.subscription.name;
        let trouble = new.as_ref().and_then(|(_, trouble)| trouble.as_ref());
        match trouble {
            Some(trouble) if state == "waiting" => {
                log!("sea_mq consumer: subscription {name} waits: {}", trouble.error)
            }
            Some(trouble) => warning!("sea_mq consumer: subscription {name} is {state}: {}", trouble.error),
            None => {}
        }
        session::transaction(|| subscriptions::save_state(name, state, trouble))?;
        self.state = new;
        Ok(())
    }

    /// Whether the subscription is recorded as one whose handler cannot be run.
    pub fn is_blocked(&self) -> bool {
        matches!(self.state, Some(("blocked", _)))
    }

    /// The handler cannot be run, and no message is to blame.
    pub fn block(&mut self, trouble: Trouble) -> Result<(), Failed> {
        self.blocked_until = Some(Instant::now() + BLOCKED);
        self.forget_floor();
        self.set_state("blocked", Some(trouble))
    }

    /// An error of the database has kept it from its turn, in some lanes.
    pub fn set_back(&mut self, lanes: impl IntoIterator<Item = i16>, error: &Failed) -> Result<(), Failed> {
        lanes.into_iter().for_each(|lane| self.lane_mut(lane).interrupted = Some(error.0.clone()));
        self.position = None;
        self.chunk = None;
        let hint = Some("It is tried again by itself; the server's log may say more.".into());
        self.block(Trouble { kind: "Database".into(), error: error.0.clone(), hint })
    }

    /// Looks at what waits in the table.
    pub fn look(&mut self) -> Result<(), Failed> {
        let floor = self.floor();
        let found = session::transaction(|| subscriptions::waiting(&self.subscription, floor))?;
        (self.waiting, self.retrying, self.has_firsts) = (found.messages, found.retrying, found.first.is_some());
        self.floor = found.first.unwrap_or_else(|| floor.max(waiting::greatest_stored() + 1));
        let floor = self.open_floor();
        let asks = self.subscription.effect() == Effect::Handler && self.waiting > 0;
        for lane in 0..self.subscription.workers.max(1) {
            let due_in = || subscriptions::due_in(&self.subscription.name, lane, floor);
            let due = if asks { session::transaction(due_in)? } else { None };
            self.lane_mut(lane).due_at = due.map(|wait| Instant::now() + wait);
        }
        Ok(())
    }
}

/// A batch was undone, and its messages are handled one by one. The log says so once.
pub fn tell_undone(subscription: &Subscription, failure: &Failure) {
    warning!(
        "sea_mq consumer: a batch of subscription {} is handled one by one, since: {} ({})",
        subscription.name,
        failure.message,
        failure.sqlstate
    );
}
