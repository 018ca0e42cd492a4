//! A subscription that is served, and what the consumer remembers of it.

use std::rc::Rc;
use std::time::{Duration, Instant};

use pgrx::{log, warning};

use super::attempt::Batch;
use crate::host::session::{self, Failed};
use crate::inbox::subscriptions::{self, Subscription};
use crate::inbox::waiting;
use crate::streams::consumers::Trouble;
use sea_mq_model::domain::outcome::{Failure, Outcome};
use sea_mq_model::domain::position::Position;

/// SQLSTATE `system_error`.
const SYSTEM_ERROR: &str = "58000";
/// How often a handler that cannot be run is looked at again.
const BLOCKED: Duration = Duration::from_secs(2);
/// How often all first attempts are looked at.
const FLOOR: Duration = Duration::from_secs(30);
/// Messages handed to one transaction.
pub(super) const AT_ONCE: usize = 500;
/// So many messages are taken at once, at first and at least.
const FIRST_PORTION: usize = 64;
const LEAST_PORTION: usize = 8;
/// Messages that are handled one by one after a start: one of them may be what ended the process before.
const CAREFUL: usize = 100;

pub struct Served {
    pub subscription: Rc<Subscription>,
    /// Messages that wait in the table, as of the last look; counted up to `max_ack_pending`.
    pub waiting: usize,
    /// Those of them that wait for another attempt.
    retrying: usize,
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
    /// Messages that are still to be handled one by one, if they may have been tried before: one of them may be what ended the
    /// process.
    careful: usize,
    /// Messages that are taken at once: about as many as fit into a turn. What is taken beyond that was read in vain.
    portion: usize,
    /// Messages of a batch that was undone, which are still to be handled one by one.
    undone: usize,
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
            retrying: 0,
            due_at: None,
            floor: 0,
            floor_since: Instant::now(),
            blocked_until: None,
            interrupted: None,
            careful: CAREFUL,
            portion: FIRST_PORTION,
            undone: 0,
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
            && self.retry_room() > 0
    }

    /// How many more messages may fail and wait for another attempt.
    pub fn retry_room(&self) -> usize {
        self.subscription.max_retrying.saturating_sub(self.retrying)
    }

    /// How many messages are to be taken at once.
    pub fn portion(&self) -> usize {
        self.portion
    }

    /// So many messages were taken, and so many of them fitted into the turn.
    pub fn measure(&mut self, taken: usize, handled: usize) {
        if handled < taken {
            self.portion = (handled * 2).clamp(LEAST_PORTION, AT_ONCE);
        } else if taken >= self.portion {
            self.portion = (self.portion * 2).min(AT_ONCE);
        }
    }

    /// From which number on first attempts may be made now: none, while as many messages as may wait for another one.
    pub fn open_floor(&mut self) -> i64 {
        if self.retry_room() == 0 { i64::MAX } else { self.floor() }
    }

    /// Whether it is to be left alone for a while.
    pub fn is_held_up(&self, now: Instant) -> bool {
        self.blocked_until.is_some_and(|until| until > now)
    }

    /// Whether the next messages are to be handled one by one. `again`: the first may have been tried before.
    pub fn is_careful(&self, again: bool) -> bool {
        self.undone > 0 || (again && self.careful > 0)
    }

    /// A batch was undone: its messages are handled one by one, in as many turns as that takes. The log says so once.
    pub fn undone(&mut self, failure: &Failure, messages: usize) {
        warning!(
            "sea_mq consumer: a batch of subscription {} is handled one by one, since: {} ({})",
            self.subscription.name,
            failure.message,
            failure.sqlstate
        );
        self.undone = messages;
    }

    /// So many messages were handled one by one.
    pub fn handled_alone(&mut self, messages: usize) {
        self.careful = self.careful.saturating_sub(messages);
        self.undone = self.undone.saturating_sub(messages);
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
        let parallel = self.subscription.has_handler && self.subscription.workers > 1;
        if preloaded || !parallel {
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

    /// Takes in how an attempt went. Returns how many messages were dealt with.
    pub fn note(&mut self, batch: Batch) -> Result<usize, Failed> {
        match batch {
            Batch::Done { handled, failed, .. } => {
                if failed {
                    self.look()?;
                }
                if self.is_blocked() {
                    self.set_state("active", None)?;
                }
                Ok(handled)
            }
            Batch::Blocked(trouble) => {
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
        let found = session::transaction(|| subscriptions::waiting(&self.subscription, floor))?;
        (self.waiting, self.retrying) = (found.messages, found.retrying);
        self.floor = found.first.unwrap_or_else(|| floor.max(waiting::greatest_stored() + 1));
        let floor = self.open_floor();
        let asks = self.subscription.is_direct() && self.waiting > 0;
        let due_in = || subscriptions::due_in(&self.subscription.name, 0, floor);
        let due = if asks { session::transaction(due_in)? } else { None };
        self.due_at = due.map(|wait| Instant::now() + wait);
        Ok(())
    }
}
