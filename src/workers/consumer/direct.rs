//! Messages that are handled as they are delivered: the common case.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::attempt::InTurn;
use super::delivered::Delivered;
use super::served::Served;
use super::worker::Worker;
use crate::host::session::Failed;
use crate::inbox::subscriptions::Subscription;
use crate::log::progress::{self, Progress};
use sea_mq_model::broker::{Delivery, Resume};
use sea_mq_model::consume::Consumer;
use sea_mq_model::consume::intake::Intake;
use sea_mq_model::domain::message::Message;
use sea_mq_model::domain::subject::covers;
use sea_mq_model::pipeline::{self, Tally};

/// For how long a subscription waits for one that goes first and has not got the message yet.
pub(super) const PATIENCE: Duration = Duration::from_millis(100);

impl Worker {
    /// Handles what was delivered for a subscription. Returns whether there may be more.
    pub(super) fn serve_direct(&mut self, place: usize) -> Result<bool, Failed> {
        let now = Instant::now();
        if !self.served[place].has_room(now) {
            return Ok(false);
        }
        let free = self.not_after_others(place, now);
        let served = &mut self.served[place];
        let subscription = std::rc::Rc::clone(&served.subscription);
        let Some(intake) = self.consumer.intake(subscription.id) else { return Ok(false) };
        let plan = served.care.plan(intake.suspects());
        let room = served.retry_room();
        let deliveries = intake.take(free.min(plan.most()));
        if deliveries.is_empty() {
            return Ok(false);
        }
        let messages: Vec<Message> =
            deliveries.iter().map(|delivery| Message::from_delivery(delivery, &subscription.stream)).collect();
        let reached = Cell::new(None);
        let save = |tally: &Tally| {
            let (done, undone) = deliveries.split_at(tally.handled);
            reached.set(save(&subscription, intake, (done, undone), tally.processed, tally.duplicates));
        };
        let mut shell = InTurn::new(&subscription, Delivered::new(save));
        let turn = pipeline::take_turn(&mut served.care, plan, room, &messages, &mut shell);
        let is_saved = shell.source.is_saved;
        let turn = turn.map_err(|failure| Failed(failure.message))?;
        if is_saved {
            intake.advanced(reached.get());
        }
        let handled = served.note(turn)?;
        self.handled_anything |= handled > 0;
        self.settle(&subscription, deliveries, handled);
        Ok(handled > 0)
    }

    /// Acknowledges what was dealt with, and keeps the rest.
    pub(super) fn settle(&mut self, subscription: &Subscription, mut deliveries: Vec<Delivery>, handled: usize) {
        let rest = deliveries.split_off(handled);
        if let Some(intake) = self.consumer.intake(subscription.id) {
            intake.put_back(rest);
        }
        self.acknowledge(subscription.id, deliveries.into_iter().map(|delivery| delivery.token).collect());
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

/// Notes progress in the transaction of the batch. `deliveries`: what was dealt with, and what was not. Returns how far the
/// intake is once that has committed.
pub(super) fn save(
    subscription: &Subscription,
    intake: &Intake,
    deliveries: (&[Delivery], &[Delivery]),
    processed: i64,
    duplicates: i64,
) -> Option<Resume> {
    let (done, undone) = deliveries;
    let redelivered = done.iter().filter(|delivery| delivery.delivered > 1).count();
    let progress = Progress {
        processed,
        duplicates,
        redelivered: i64::try_from(redelivered).unwrap_or(0),
        pending: done.last().map(|delivery| delivery.pending),
        resume: intake.advance(done, undone),
        position: None,
    };
    progress::save(subscription.id, &progress);
    progress.resume
}
