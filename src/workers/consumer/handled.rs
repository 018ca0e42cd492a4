//! Subscriptions with a handler: the next task of each lane, who does it, and what follows from its report.

use std::borrow::Cow;
use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::pool::{Brought, Given, Over};
use super::worker::Worker;
use super::{direct, local, task};
use crate::host::gucs;
use crate::host::session::{self, Failed};
use crate::inbox::subscriptions::Subscription;
use crate::inbox::waiting;
use crate::streams::consumers::Trouble;
use sea_mq_model::broker::SubscriptionId;
use sea_mq_model::domain::message::Message;
use sea_mq_model::domain::outcome::Outcome;
use sea_mq_model::domain::position::Moment;
use sea_mq_model::pipeline::task::{Batch, Ending, Report, Task, encode};
use sea_mq_model::pipeline::{Care, Lane, Plan, Tally};

/// A task that is to be done.
struct Next {
    due: bool,
    plan: Plan,
    given: Given,
    /// What it brings along of this database's own log.
    logged: Vec<Message>,
}

impl Worker {
    /// Whether handlers run in the pool: where one subscription has one worker, there is nobody who could be kept waiting, and the
    /// consumer is faster itself.
    pub(super) fn is_pooled(&self) -> bool {
        let several = self.served.len() > 1 || self.served.iter().any(|served| served.subscription.workers > 1);
        several && gucs::handler_processes() > 0 && self.pool.is_there(Instant::now())
    }

    /// Gives each lane of a subscription its turn. Returns whether there may be more at once.
    pub(super) fn serve_handler(&mut self, place: usize, moment: Option<&Moment>) -> Result<bool, Failed> {
        let now = Instant::now();
        let subscription = Rc::clone(&self.served[place].subscription);
        let served = &self.served[place];
        if subscription.paused || served.is_held_up(now) || served.is_changing() {
            return Ok(false);
        }
        let mut more = false;
        for lane in Lane::all(subscription.workers) {
            if self.pool.has(subscription.id, lane.number) {
                continue;
            }
            self.served[place].recover(lane.number)?;
            more |= self.serve_lane(place, lane, moment, now)?;
        }
        Ok(more)
    }

    fn serve_lane(&mut self, place: usize, lane: Lane, moment: Option<&Moment>, now: Instant) -> Result<bool, Failed> {
        let is_pooled = self.is_pooled();
        let free = if is_pooled { self.pool.free() } else { None };
        if is_pooled && free.is_none() {
            if self.has_work(place, lane, now) {
                self.waits = true;
                self.pool.call(now);
            }
            return Ok(false);
        }
        let due = self.served[place].is_due(lane.number, now);
        let (brought, plan) = match moment {
            Some(moment) => self.take_logged(place, lane, moment, now)?,
            None => self.take_delivered(place, lane, now),
        };
        if !due && matches!(brought, Brought::Nothing) {
            return Ok(false);
        }
        let subscription = Rc::clone(&self.served[place].subscription);
        let logged = self.logged(place, &brought);
        let next = Next { due, plan, given: Given { subscription: subscription.id, lane, brought }, logged };
        match free {
            None => self.do_itself(place, &subscription, next),
            Some(number) => {
                let bytes = encode(&self.task(place, &next));
                match self.pool.give(number, bytes, next.given) {
                    Ok(()) => Ok(false),
                    // There is no memory to share, or the process has just ended.
                    Err(given) => self.do_itself(place, &subscription, Next { given, ..next }),
                }
            }
        }
    }

    /// Whether a lane has something to do, as far as that can be seen from here.
    fn has_work(&mut self, place: usize, lane: Lane, now: Instant) -> bool {
        let served = &self.served[place];
        if served.is_due(lane.number, now) {
            return true;
        }
        if !served.has_room(now) {
            return false;
        }
        match &served.chunk {
            Some(chunk) => chunk.has_some(lane),
            None if self.is_local() => !self.served[place].exhausted,
            None => {
                let id = served.subscription.id;
                self.consumer.intake(id).is_some_and(|intake| intake.has_some(lane))
            }
        }
    }

    fn logged(&self, place: usize, brought: &Brought) -> Vec<Message> {
        match (brought, &self.served[place].chunk) {
            (Brought::Logged(places), Some(chunk)) => chunk.messages(places),
            _ => Vec::new(),
        }
    }

    fn task<'a>(&mut self, place: usize, next: &'a Next) -> Task<'a> {
        let served = &mut self.served[place];
        let lane = next.given.lane;
        Task {
            subscription: next.given.subscription,
            lane,
            fingerprint: self.fingerprint.clone().unwrap_or_default(),
            due: next.due,
            floor: served.floor(),
            care: served.lane_mut(lane.number).care,
            plan: next.plan,
            room: served.retry_room(),
            batch: match &next.given.brought {
                Brought::Nothing => Batch::Nothing,
                Brought::Delivered(taken) => Batch::Delivered(Cow::Borrowed(&taken.deliveries)),
                Brought::Logged(_) => Batch::Logged(Cow::Borrowed(&next.logged)),
            },
        }
    }

    /// Does a task in this process.
    fn do_itself(&mut self, place: usize, subscription: &Subscription, next: Next) -> Result<bool, Failed> {
        let task = self.task(place, &next);
        let reached = Cell::new(None);
        let intake = self.consumer.intakes.iter().find(|intake| intake.id() == subscription.id);
        let chunk = self.served[place].chunk.as_ref();
        let save = |tally: &Tally| match (&next.given.brought, intake, chunk) {
            (Brought::Delivered(taken), Some(intake), _) => {
                reached.set(direct::save(subscription, intake, taken, tally));
            }
            (Brought::Logged(places), _, Some(chunk)) => local::save(subscription.id, chunk, places, tally),
            _ => {}
        };
        let report = task::perform(subscription, &task, save);
        self.handled_anything = true;
        if let Some(intake) = self.consumer.intake(subscription.id) {
            intake.advanced(reached.get());
        }
        let handled = report.due.handled + report.brought.handled;
        self.conclude(next.given, report, true)?;
        Ok(handled > 0)
    }

    /// What follows from the reports of the pool. Returns whether there was one.
    pub(super) fn collect(&mut self) -> Result<bool, Failed> {
        let over = self.pool.collect();
        let any = !over.is_empty();
        for Over { given, subscription, lane, report } in over {
            match (given, report) {
                (Some(given), Some(report)) => self.conclude(given, report, false)?,
                (Some(given), None) => self.lost(given)?,
                // Nobody waits for it but its lane.
                (None, _) => self.end_attempts(subscription, lane)?,
            }
        }
        Ok(any)
    }

    /// The process that had a task has ended.
    fn lost(&mut self, given: Given) -> Result<(), Failed> {
        let Given { subscription: id, lane, brought } = given;
        let Some(place) = self.place(id) else { return Ok(()) };
        let count = match brought {
            Brought::Nothing => 0,
            Brought::Delivered(taken) => {
                let count = taken.deliveries.len();
                if let Some(intake) = self.consumer.intake(id) {
                    intake.settle(taken, 0);
                }
                count
            }
            Brought::Logged(places) => {
                if let Some(chunk) = &mut self.served[place].chunk {
                    chunk.settle(&places, 0);
                }
                places.len()
            }
        };
        self.served[place].lane_mut(lane.number).care = Care::after_a_loss(count);
        self.end_attempts(id, lane.number)
    }

    /// Ends the attempts of a lane whose process is gone.
    fn end_attempts(&mut self, id: SubscriptionId, lane: i16) -> Result<(), Failed> {
        let Some(place) = self.place(id) else { return Ok(()) };
        let served = &mut self.served[place];
        let name = served.subscription.name.clone();
        session::transaction(|| waiting::conclude_abandoned(&name, lane, Duration::ZERO, &Outcome::Crashed))?;
        self.look_due = true;
        served.look()
    }

    fn place(&self, id: SubscriptionId) -> Option<usize> {
        self.served.iter().position(|served| served.subscription.id == id)
    }

    /// Takes in what has come of a task. `here`: this process has done it.
    fn conclude(&mut self, given: Given, report: Report, here: bool) -> Result<(), Failed> {
        let Given { subscription: id, lane, brought } = given;
        let Some(place) = self.place(id) else { return Ok(()) };
        let served = &mut self.served[place];
        served.lane_mut(lane.number).care = report.care;
        if lane.is_only() {
            // Of several lanes, another one may have something to do before that.
            served.raise_floor(report.floor);
        }
        let was_due = served.is_due(lane.number, Instant::now());
        match brought {
            Brought::Nothing => {}
            Brought::Delivered(taken) => self.settle_delivered(place, taken, &report, here)?,
            Brought::Logged(places) => self.settle_logged(place, &places, &report, here)?,
        }
        let served = &mut self.served[place];
        // A change of the number of workers waits for what is under way.
        self.look_due |= served.subscription.workers != served.subscription.wanted_workers;
        match report.ending {
            Ending::Done => {
                if was_due || report.due.handled > 0 || report.brought.failed > 0 {
                    served.look()?;
                }
                if served.is_blocked() {
                    served.set_state("active", None)?;
                }
                Ok(())
            }
            Ending::Blocked { kind, error, hint } => served.block(Trouble { kind, error, hint }),
            Ending::Failed(error) => self.set_back(place, Some(lane.number), &Failed(error)),
        }
    }
}
