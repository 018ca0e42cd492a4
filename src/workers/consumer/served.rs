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
/// Messages that are handled one by one after a start: one of them may be what ended the process before.
const CAREFUL: usize = 100;

pub struct Served {
    pub subscription: Rc<Subscription>,
    /// Messages that wait in the table, as of the last look; counted up to `max_ack_pending`.
    pub waiting: usize,
    /// When the next of them is due.
    pub due_at: Option<Instant>,
    /// Not to be handled before this.
    pub blocked_until: Option<Instant>,
    /// An error of the database that may have cut off an attempt of which it was noted that it is under way.
    interrupted: Option<String>,
    /// Messages that are still to be handled one by one.
    pub careful: usize,
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
            blocked_until: None,
            interrupted: None,
            careful: CAREFUL,
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
        let hint = Some("It is tried again by itself; the server's log may say more.".into());
        self.set_state("blocked", Some(Trouble { kind: "Database".into(), error: error.0.clone(), hint }))
    }

    /// Looks at what waits in the table.
    pub fn look(&mut self) -> Result<(), Failed> {
        let Subscription { name, max_ack_pending, .. } = &*self.subscription;
        let direct = self.subscription.is_direct();
        let (waiting, due) = session::transaction(|| {
            let waiting = subscriptions::waiting(name, *max_ack_pending);
            (waiting, if direct && waiting > 0 { subscriptions::due_in(name, 0) } else { None })
        })?;
        self.waiting = waiting;
        self.due_at = due.map(|wait| Instant::now() + wait);
        Ok(())
    }
}
