//! Messages that are stored for applications, which receive them.

use std::cell::Cell;
use std::time::Instant;

use super::attempt::{is_for_another, unfit};
use super::direct;
use super::worker::Worker;
use crate::host::door::Manner;
use crate::host::roles::Reasons;
use crate::host::session::Failed;
use crate::inbox::subscriptions::Subscription;
use crate::inbox::waiting::{self, Standing};
use crate::inbox::{done, handler};
use sea_mq_model::domain::message::Message;
use sea_mq_model::domain::outcome::{Failure, Outcome};
use sea_mq_model::domain::policy::ContractPolicy;
use sea_mq_model::pipeline::{AT_ONCE, Lane, Tally};

impl Worker {
    /// Stores what was delivered for a subscription, as far as there is room. Returns whether there may be more.
    pub(super) fn serve_stored(&mut self, place: usize) -> Result<bool, Failed> {
        let served = &mut self.served[place];
        if !served.has_room(Instant::now()) {
            return Ok(false);
        }
        let subscription = std::rc::Rc::clone(&served.subscription);
        let room = subscription.max_ack_pending - served.waiting;
        let Some(intake) = self.consumer.intake(subscription.id) else { return Ok(false) };
        let taken = intake.take(Lane::ONLY, room.min(AT_ONCE), usize::MAX);
        let handled = taken.deliveries.len();
        if handled == 0 {
            return Ok(false);
        }
        let messages: Vec<Message> =
            taken.deliveries.iter().map(|delivery| Message::from_delivery(delivery, &subscription.stream)).collect();
        let reached = Cell::new(None);
        let save = |duplicates| {
            let tally = Tally { handled, duplicates, ..Tally::default() };
            reached.set(direct::save(&subscription, intake, &taken, &tally));
        };
        store(&subscription, &messages, save).map_err(|failure| Failed(failure.message))?;
        intake.advanced(reached.get());
        let done = intake.settle(taken, handled);
        served.look()?;
        self.wake_dispatcher();
        self.acknowledge(subscription.id, done.into_iter().map(|delivery| delivery.token).collect());
        Ok(true)
    }

    /// Has the dispatcher look whether an endpoint handles what was stored.
    pub(super) fn wake_dispatcher(&self) {
        if let Some(database) = self.process.database {
            database.note(Reasons::MESSAGES);
        }
    }
}

/// Stores those messages that the inbox does not have. What PostgreSQL cannot store as it is becomes a dead letter.
pub(super) fn store(subscription: &Subscription, messages: &[Message], save: impl FnOnce(i64)) -> Result<(), Failure> {
    // The commit is flushed before the messages are acknowledged, and a handler's commit flushes what came before it.
    handler::transaction_in(Manner { commit: Some(c"off"), ..Manner::default() }, || {
        let wanted: Vec<&Message> = messages.iter().filter(|message| !is_for_another(message, subscription)).collect();
        let mut seen = std::collections::HashSet::new();
        let new: Vec<&Message> = wanted
            .iter()
            .filter(|message| {
                seen.insert(message.message_id.as_str()) && !done::holds(&message.message_id, &subscription.name)
            })
            .copied()
            .collect();
        let (mut sound, mut poison) = (Vec::new(), Vec::new());
        for message in &new {
            match unfit(message, subscription.contracts) {
                None => sound.push(*message),
                Some(failure) => poison.push((*message, failure)),
            }
        }
        let refused = handler::savepoint(|| drop(waiting::store(&subscription.name, &sound, Standing::Received)));
        if refused.is_some() {
            sound.iter().for_each(|message| store_alone(subscription, message));
        }
        poison.into_iter().for_each(|(message, failure)| bury(subscription, message, failure));
        save(i64::try_from(wanted.len() - new.len()).unwrap_or(0));
    })
}

fn store_alone(subscription: &Subscription, message: &Message) {
    let refused = handler::savepoint(|| drop(waiting::store(&subscription.name, &[message], Standing::Received)));
    if let Some(failure) = refused {
        let mut message = message.clone();
        message.refuse_payload(&failure.message);
        if let Some(failure) = unfit(&message, ContractPolicy::Off) {
            bury(subscription, &message, failure);
        }
    }
}

fn bury(subscription: &Subscription, message: &Message, failure: Failure) {
    for id in waiting::store(&subscription.name, &[message], Standing::Processing(0)) {
        waiting::conclude(id, 1, &Outcome::Poison(failure.clone()));
    }
}
