//! A handler's process: one lane of every subscription that has so many workers.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::kept::serve_lane;
use super::served::Served;
use super::worker::RECYCLE;
use crate::host::gucs;
use crate::host::roles::{Reasons, Role};
use crate::host::seat::Life;
use crate::host::session::{self, Failed};
use crate::inbox::{subscriptions, waiting};
use crate::workers::process::{self, Process, Work};
use sea_mq_model::domain::outcome::Outcome;
use sea_mq_model::pipeline::Effect;

/// Handles its lane until something ends it. Returns what is to follow.
pub(super) fn run(process: &Process) -> Life {
    let Role::Handler(lane) = process.role else { return Life::Absent };
    let now = Instant::now();
    let mut handler = Handler {
        process: *process,
        lane: i16::from(lane),
        served: Vec::new(),
        fingerprint: None,
        poll_at: now,
        started: now,
    };
    process::serve(process, &mut handler)
}

struct Handler {
    process: Process,
    lane: i16,
    served: Vec<Served>,
    /// Of the descriptions that are in force.
    fingerprint: Option<String>,
    poll_at: Instant,
    started: Instant,
}

impl Work for Handler {
    fn begin(&mut self) -> Result<(), Failed> {
        self.fingerprint = None;
        self.served.clear();
        self.refresh()
    }

    fn begin_if_changed(&mut self) -> Result<(), Failed> {
        Ok(())
    }

    fn run_once(&mut self) -> Result<Duration, Failed> {
        let now = Instant::now();
        // Cleared before anything is read: what is committed afterwards is seen in the next pass.
        let work = self.process.take(Reasons::LANES).has(Reasons::LANES);
        if work || now >= self.poll_at {
            if now >= self.poll_at && self.process.extension_changed().is_some() {
                return Err(Failed("the extension was dropped or installed anew".into()));
            }
            self.poll_at = now + gucs::poll_interval();
            self.refresh()?;
        }
        let lane = self.lane;
        let free = |served: &&mut Served| !served.subscription.paused && !served.is_held_up(now);
        let mut more = false;
        for served in self.served.iter_mut().filter(free) {
            let result = served.recover(lane).and_then(|()| serve_lane(served, lane));
            more |= result.or_else(|error| served.set_back(&error).map(|()| false))?;
        }
        // The consumer may have stopped at max_ack_pending.
        if more && let Some(database) = self.process.database {
            database.note(Reasons::INBOX);
        }
        if more {
            return Ok(Duration::ZERO);
        }
        Ok(self.due_in()?.map_or(gucs::poll_interval(), |due| due.min(gucs::poll_interval())))
    }

    fn pause(&self, pause: Duration) {
        session::report_activity(c"", false);
        session::wait(None, pause);
    }

    fn is_worn_out(&self) -> bool {
        self.started.elapsed() > RECYCLE
    }
}

impl Handler {
    /// Reads the descriptions, if they have changed.
    fn refresh(&mut self) -> Result<(), Failed> {
        let lane = self.lane;
        let print = session::transaction(subscriptions::fingerprint)?;
        if self.fingerprint.replace(print.clone()) == Some(print) {
            self.served.iter_mut().for_each(|served| served.blocked_until = None);
            return Ok(());
        }
        let described =
            session::transaction(subscriptions::all)?.sound.into_iter().map(|(subscription, _)| subscription);
        let mut before = std::mem::take(&mut self.served);
        for subscription in described.filter(|one| one.effect() == Effect::Lanes && one.workers > lane) {
            let known = before.iter().position(|served| served.subscription.id == subscription.id);
            let mut served = match known.map(|place| before.swap_remove(place)) {
                Some(served) => served,
                None => {
                    session::transaction(|| {
                        waiting::conclude_abandoned(&subscription.name, lane, Duration::ZERO, &Outcome::Crashed)
                    })?;
                    Served::new(Rc::new(subscription.clone()))
                }
            };
            if *served.subscription != subscription {
                served.subscription = Rc::new(subscription);
                served.forget_floor();
                served.blocked_until = None;
            }
            self.served.push(served);
        }
        Ok(())
    }

    /// How long until something is due.
    fn due_in(&mut self) -> Result<Option<Duration>, Failed> {
        let (lane, served) = (self.lane, &mut self.served);
        session::transaction(|| {
            let due_in = |one: &mut Served| {
                let floor = one.floor();
                subscriptions::due_in(&one.subscription.name, lane, floor)
            };
            served.iter_mut().filter_map(due_in).min()
        })
    }
}
