//! A handler's process: one lane of every subscription that has so many workers.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pgrx::{log, warning};

use super::served::Served;
use super::waiting::serve_lane;
use crate::pg::gucs;
use crate::pg::shmem::{Phase as Life, Role};
use crate::pg::store::{inbox, subscriptions};
use crate::pg::worker::process::Process;
use crate::pg::worker::session::{self, Failed};

/// Pause after an error of the database.
const AFTER_ERROR: Duration = Duration::from_secs(1);
/// As for the consumer.
const RECYCLE: Duration = Duration::from_secs(3600);

/// Handles its lane until something ends it. Returns what is to follow.
pub(super) fn run(process: &Process) -> Life {
    let Role::Handler(lane) = process.role else { return Life::Absent };
    log!("sea_mq handler started");
    let mut handler = Handler { lane: i16::from(lane), served: Vec::new(), fingerprint: None, poll_at: Instant::now() };
    let started = Instant::now();
    loop {
        if let Some(next) = process.told_to_end() {
            log!("sea_mq handler ended");
            return next;
        }
        if started.elapsed() > RECYCLE {
            return Life::Wanted;
        }
        session::process_interrupts();
        session::take_reload();
        // Cleared before anything is read: what is committed afterwards is seen in the next pass.
        let work = process.seat().is_some_and(|seat| seat.work.swap(false, Ordering::AcqRel));
        match handler.run_once(process, work) {
            Ok(Some(pause)) => {
                session::report_activity(c"", false);
                session::wait(None, pause);
            }
            Ok(None) => {}
            Err(error) => {
                if let Some(next) = process.extension_changed() {
                    return next;
                }
                warning!("sea_mq handler: {error}");
                session::wait(None, AFTER_ERROR);
            }
        }
    }
}

struct Handler {
    lane: i16,
    served: Vec<Served>,
    /// Of the descriptions that are in force.
    fingerprint: Option<String>,
    poll_at: Instant,
}

impl Handler {
    /// One pass. Returns how long to sleep; `None`: not at all.
    fn run_once(&mut self, process: &Process, work: bool) -> Result<Option<Duration>, Failed> {
        let now = Instant::now();
        if work || now >= self.poll_at {
            if now >= self.poll_at && process.extension_changed().is_some() {
                return Err(Failed("the extension was dropped or installed anew".into()));
            }
            self.poll_at = now + gucs::poll_interval();
            self.refresh()?;
        }
        let mut more = false;
        for served in self
            .served
            .iter_mut()
            .filter(|served| !served.subscription.paused && served.blocked_until.is_none_or(|until| until <= now))
        {
            if serve_lane(served, self.lane)? {
                more = true;
                // The consumer may have stopped at max_ack_pending.
                if let Some(database) = process.database {
                    database.note_room();
                }
            }
        }
        if more {
            return Ok(None);
        }
        let due = self.due_in()?.map_or(gucs::poll_interval(), |due| due.min(gucs::poll_interval()));
        Ok(Some(due))
    }

    /// Reads the descriptions, if they have changed.
    fn refresh(&mut self) -> Result<(), Failed> {
        let lane = self.lane;
        let print = session::transaction(subscriptions::fingerprint)?;
        if self.fingerprint.replace(print.clone()) == Some(print) {
            self.served.iter_mut().for_each(|served| served.blocked_until = None);
            return Ok(());
        }
        let described = session::transaction(subscriptions::all)?.into_iter().map(|(subscription, _)| subscription);
        let mut before = std::mem::take(&mut self.served);
        for subscription in described.filter(|one| one.has_handler && one.workers > 1 && one.workers > lane) {
            let known = before.iter().position(|served| served.subscription.id == subscription.id);
            let mut served = match known.map(|place| before.swap_remove(place)) {
                Some(served) => served,
                None => {
                    session::transaction(|| inbox::conclude_crashed(&subscription.name, lane))?;
                    Served::new(Rc::new(subscription.clone()))
                }
            };
            if *served.subscription != subscription {
                served.subscription = Rc::new(subscription);
                served.blocked_until = None;
            }
            self.served.push(served);
        }
        Ok(())
    }

    /// How long until something is due.
    fn due_in(&self) -> Result<Option<Duration>, Failed> {
        let lane = self.lane;
        session::transaction(|| {
            self.served.iter().filter_map(|served| subscriptions::due_in(&served.subscription.name, lane)).min()
        })
    }
}
