//! A subscription that is served, and what the consumer remembers of it.

use std::rc::Rc;
use std::time::{Duration, Instant};

use pgrx::{log, warning};

use crate::host::session::{self, Failed};
use crate::inbox::subscriptions::{self, Subscription};
use crate::inbox::waiting;
use crate::streams::consumers::Trouble;
use sea_mq_model::domain::outcome::{Failure, Outcome};
use sea_mq_model::domain::position::Position;
use sea_mq_model::pipeline::{Care, Effect, Turn};

/// SQLSTATE `system_error`.
const SYSTEM_ERROR: &str = "58000";
/// How often a handler that cannot be run is looked at again.
const BLOCKED: Duration = Duration::from_secs(2);
/// How often all first attempts are looked at.
const FLOOR: Duration = Duration::from_secs(30);

pub struct Served {
    pub subscription: Rc<Subscription>,
    /// Messages that wait in the table, as of the last look; counted up to `max_ack_pending`.
    pub waiting: usize,
    /// When the next of them is due.
    pub due_at: Option<Instant>,
    /// No message waits for its first attempt with a smaller number. Looks enter the index there: what was handled stays in it for
    /// as long as any snapshot is older. The consumer alone stores such messages, one transaction after the other.
    floor: i64,
    /// Since when the floor has only risen.
    floor_since: Instant,
    /// Not to be handled before this.
    pub blocked_until: Option<Instant>,
    /// An error of the database that may have cut off an attempt of which it was noted that it is under way.
    interrupted: Option<String>,
    /// Whether the next messages are handled together or alone.
    pub care: Care,
    /// Since when it has waited for one that goes first.
    pub held_since: Option<Instant>,
    /// How far it has come in this database's log, where there is no broker.
    pub position: Option<Position>,
    /// There is nothing more in the log for now.
    pub exhausted: bool,
    /// The state that is recorded.
    state: Option<(&'static str, Option<Trouble>)>,
}

impl Served {
    pub fn new(subscription: Rc<Subscription>) -> Self {
        Self {
            subscription,
            waiting: 0,
            due_at: None,
            floor: 0,
            floor_since: Instant::now(),
            blocked_until: None,
            interrupted: None,
            care: Care::default(),
            held_since: None,
            position: None,
            exhausted: false,
            state: None,
        }
    }

    /// Whether it can take more messages now.
    pub fn has_room(&self, now: Instant) -> bool {
        !self.subscription.paused
            && self.subscription.workers == self.subscription.wanted_workers
            && !self.is_held_up(now)
            && self.waiting < self.subscription.max_ack_pending
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
        self.floor = floor;
    }

    pub fn forget_floor(&mut self) {
        (self.floor, self.floor_since) = (0, Instant::now());
    }

    /// Ends attempts whose outcome could not be recorded. Nothing of them is in effect, and others follow.
    pub fn recover(&mut self, lane: i16) -> Result<(), Failed> {
        let Some(error) = &self.interrupted else { return Ok(()) };
        let message = format!("the outcome could not be recorded: {error}");
        let outcome = Outcome::Failed(Failure { sqlstate: SYSTEM_ERROR.into(), message, detail: None });
        let name = &self.subscription.name;
        session::transaction(|| waiting::conclude_abandoned(name, lane, Duration::ZERO, &outcome))?;
        self.interrupted = None;
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

    /// Records that the subscription receives, and handles what it receives.
    pub fn activate(&mut self, preloaded: bool) -> Result<(), Failed> {
        if preloaded || self.subscription.effect() != Effect::Lanes {
            return self.set_state("active", None);
        }
        let trouble = Trouble {
            kind: "Handler".into(),
            error: "parallel handlers need sea_mq in shared_preload_libraries".into(),
            hint: Some(
                "Preload it, or use sea_mq.alter_subscription(workers => 1); what waits is handled then.".into(),
            ),
        };
        self.set_state("blocked", Some(trouble))
    }

    /// Whether the subscription is recorded as one whose handler cannot be run.
    pub fn is_blocked(&self) -> bool {
        matches!(self.state, Some(("blocked", _)))
    }

    /// Takes in how a turn went. Returns how many messages were dealt with.
    pub fn note(&mut self, turn: Turn<Trouble>) -> Result<usize, Failed> {
        match turn {
            Turn::Done(tally) => {
                if tally.failed {
                    self.look()?;
                }
                if self.is_blocked() {
                    self.set_state("active", None)?;
                }
                Ok(tally.handled)
            }
            Turn::Blocked(trouble) => {
                self.blocked_until = Some(Instant::now() + BLOCKED);
                self.forget_floor();
                self.set_state("blocked", Some(trouble))?;
                Ok(0)
            }
        }
    }

    /// An error of the database has kept it from its turn.
    pub fn set_back(&mut self, error: &Failed) -> Result<(), Failed> {
        self.blocked_until = Some(Instant::now() + BLOCKED);
        self.interrupted = Some(error.0.clone());
        self.position = None;
        self.forget_floor();
        let hint = Some("It is tried again by itself; the server's log may say more.".into());
        self.set_state("blocked", Some(Trouble { kind: "Database".into(), error: error.0.clone(), hint }))
    }

    /// Looks at what waits in the table.
    pub fn look(&mut self) -> Result<(), Failed> {
        let floor = self.floor();
        let subscription = &*self.subscription;
        let direct = subscription.effect() == Effect::Handler;
        let (waiting, first, due) = session::transaction(|| {
            let (waiting, first) = subscriptions::waiting(subscription, subscription.max_ack_pending, floor);
            let due = if direct && waiting > 0 { subscriptions::due_in(&subscription.name, 0, floor) } else { None };
            (waiting, first, due)
        })?;
        self.waiting = waiting;
        self.floor = first.unwrap_or_else(|| floor.max(waiting::greatest_stored() + 1));
        self.due_at = due.map(|wait| Instant::now() + wait);
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
