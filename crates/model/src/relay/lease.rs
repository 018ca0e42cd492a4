//! When the relay looks after its lease: before it begins, each time that a sink has learned where its stream ends, when
//! somebody says that it is gone, and now and then.

use std::time::{Duration, Instant};

use crate::broker::{Request, Standing};
use crate::domain::lease::Claimant;

/// Pause between looks while nothing happens.
const HEARTBEAT: Duration = Duration::from_secs(10);

pub struct Lease {
    me: Claimant,
    /// An answer is on its way.
    asking: bool,
    /// Another relay says that it has the lease.
    doubted: bool,
    /// Nobody is in the way: the sinks have begun.
    begun: bool,
    /// It was claimed, and nobody was in the way.
    claimed: bool,
    next_look: Option<Instant>,
}

impl Lease {
    pub fn new(me: Claimant) -> Self {
        Self { me, asking: false, doubted: false, begun: false, claimed: false, next_look: None }
    }

    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// Whether an answer is on its way.
    pub fn is_asking(&self) -> bool {
        self.asking
    }

    /// Whether nothing stands between the installation and its messages.
    pub fn is_claimed(&self) -> bool {
        self.claimed
    }

    /// A session has begun. A standby that was promoted stops the primary at once; others look at their streams first.
    pub fn connected(&mut self) -> Request {
        self.begun = false;
        self.ask(self.me.was_standby)
    }

    pub fn disconnected(&mut self) {
        (self.asking, self.begun, self.next_look) = (false, false, None);
    }

    pub fn doubt(&mut self) {
        self.doubted = true;
    }

    /// Whether there is a doubt that no answer has done away with.
    pub fn is_doubted(&self) -> bool {
        self.doubted
    }

    pub fn ask(&mut self, claim: bool) -> Request {
        (self.asking, self.doubted) = (true, false);
        Request::Lease { claimant: Box::new(self.me.clone()), claim }
    }

    /// Takes an answer in; not that of being fenced. Returns whether the sinks are to begin.
    pub fn answered(&mut self, standing: &Standing, claim: bool, now: Instant) -> bool {
        self.asking = false;
        self.next_look = Some(now + HEARTBEAT);
        self.claimed |= claim;
        if let Standing::Held(epoch) = standing {
            (self.me.epoch, self.me.held, self.me.forced, self.claimed) = (*epoch, true, false, true);
        }
        !std::mem::replace(&mut self.begun, true)
    }

    /// Looks, if it is time.
    pub fn tick(&mut self, now: Instant) -> Option<Request> {
        let due = self.begun && !self.asking && self.next_look.is_some_and(|at| at <= now);
        due.then(|| self.ask(true))
    }

    /// When `tick` has something to do.
    pub fn due_at(&self) -> Option<Instant> {
        self.next_look.filter(|_| self.begun && !self.asking)
    }
}
