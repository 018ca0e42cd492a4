//! Messages that are handled as they are delivered: taking them, and what follows when they are dealt with.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::pool::Brought;
use super::served::Served;
use super::worker::Worker;
use crate::host::door::Manner;
use crate::host::session::{self, Failed};
use crate::inbox::subscriptions::Subscription;
use crate::log::progress::{self, Progress};
use sea_mq_model::broker::{Delivery, Request, Resume};
use sea_mq_model::consume::Consumer;
use sea_mq_model::consume::intake::{Intake, Taken};
use sea_mq_model::domain::subject::covers;
use sea_mq_model::pipeline::task::Report;
use sea_mq_model::pipeline::{Lane, Plan, Tally};

/// For how long a subscription waits for one that goes first and has not handled the message yet.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

impl Worker {
    /// Takes the next messages that were delivered for a lane, and says how they are to be handled.
    pub(super) fn take_delivered(&mut self, place: usize, lane: Lane, now: Instant) -> (Brought, Plan) {
        let none = (Brought::Nothing, Plan::Alone(0));
        if !self.served[place].has_room(now) {
            return none;
        }
        let free = self.not_after_others(place, now);
        let served = &mut self.served[place];
        let care = served.lane_mut(lane.number).care;
        let Some(intake) = self.consumer.intake(served.subscription.id) else { return none };
        let plan = care.plan(intake.suspects(lane));
        let taken = intake.take(lane, plan.most(), free);
        if taken.deliveries.is_empty() { none } else { (Brought::Delivered(taken), plan) }
    }

    /// Notes progress, acknowledges what was dealt with, and keeps the rest.
    /// `here`: this process has handled it, and saved progress with what was handled together.
    pub(super) fn settle_delivered(
        &mut self,
        place: usize,
        taken: Taken,
        report: &Report,
        here: bool,
    ) -> Result<(), Failed> {
        let subscription = std::rc::Rc::clone(&self.served[place].subscription);
        let Some(intake) = self.consumer.intake(subscription.id) else { return Ok(()) };
        let handled = report.brought.handled;
        if handled > 0 && !here {
            let reached = Cell::new(None);
            // What was handled is counted and committed. Should this get lost, some messages come once more, and are known.
            let tally = Tally { processed: 0, ..report.brought };
            session::transaction_in(Manner { commit: Some(c"off"), ..Manner::default() }, || {
                reached.set(save(&subscription, intake, &taken, &tally));
            })?;
            intake.advanced(reached.get());
        }
        let done = intake.settle(taken, handled);
        let tokens: Vec<u64> = done.into_iter().map(|delivery| delivery.token).collect();
        if here {
            self.acknowledge(subscription.id, tokens);
        } else if !tokens.is_empty() {
            // The process that handled them has flushed its commits.
            self.io.send(Request::Ack { subscription: subscription.id, tokens });
        }
        Ok(())
    }

    /// How many messages of the queue can be handled without overtaking a subscription that goes first.
    fn not_after_others(&mut self, place: usize, now: Instant) -> usize {
        let (before, rest) = self.served.split_at_mut(place);
        let Some(served) = rest.first_mut() else { return 0 };
        let free = free_of_others(before, served, &mut self.consumer);
        if free > 0 {
            served.held_since = None;
            return free;
        }
        // One that is behind does not hold the others up.
        let since = *served.held_since.get_or_insert(now);
        if now.duration_since(since) >= PATIENCE { usize::MAX } else { 0 }
    }
}

/// The messages at the front of the queue that all that go first have got already, or will never get.
fn free_of_others(before: &[Served], served: &Served, consumer: &mut Consumer) -> usize {
    let firsts: Vec<(&str, u64)> = before
        .iter()
        .filter(|first| {
            first.subscription.priority > served.subscription.priority
                && first.subscription.stream == served.subscription.stream
                && first.has_room(Instant::now())
        })
        .filter_map(|first| {
            let intake = consumer.intake(first.subscription.id)?;
            intake.is_consuming().then(|| (first.subscription.subject_filter.as_str(), intake.reach()))
        })
        .collect();
    let Some(intake) = consumer.intake(served.subscription.id) else { return 0 };
    if firsts.is_empty() {
        return usize::MAX;
    }
    let overtakes = |delivery: &&Delivery| {
        firsts.iter().any(|(filter, reach)| delivery.sequence > *reach && covers(filter, &delivery.subject))
    };
    let free = intake.queue().take_while(|delivery| !overtakes(delivery)).count();
    // An empty queue holds nobody up.
    if intake.first().is_none() { usize::MAX } else { free }
}

/// Notes progress, once the first so many of what was taken are dealt with. Returns how far the intake is once that has committed.
pub(super) fn save(subscription: &Subscription, intake: &Intake, taken: &Taken, tally: &Tally) -> Option<Resume> {
    let done = taken.deliveries.get(..tally.handled).unwrap_or_default();
    let redelivered = done.iter().filter(|delivery| delivery.delivered > 1).count();
    let progress = Progress {
        processed: tally.processed,
        duplicates: tally.duplicates,
        redelivered: i64::try_from(redelivered).unwrap_or(0),
        pending: done.last().map(|delivery| delivery.pending),
        resume: intake.advance(taken, tally.handled),
        position: None,
    };
    progress::save(subscription.id, &progress);
    progress.resume
}
