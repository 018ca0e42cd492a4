//! Messages that were just delivered, by the broker or by this database's log: they are handled, and the inbox has them then.

use std::collections::HashSet;

use super::attempt::{self, Attempts, InTurn, TurnTime, is_for_another};
use crate::host::door;
use crate::inbox::done::{self, LogWriter, Probe};
use crate::inbox::handler;
use crate::inbox::subscriptions::{self, Subscription};
use crate::inbox::waiting::{self, Standing, Waiting};
use crate::streams::consumers::Trouble;
use crate::sys::clock;
use sea_mq_model::domain::message::Message;
use sea_mq_model::domain::outcome::{Failure, Outcome};
use sea_mq_model::pipeline::{self, Accept, Shell, Tally, Transaction, Turn};

/// SQLSTATE `unique_violation`.
const UNIQUE_VIOLATION: &str = "23505";

/// The pipeline's shell for them. `save` runs in the transaction of those that are handled together, as the worker.
pub struct Delivered<F: FnMut(&Tally)> {
    save: F,
    /// They were handled together, and that has committed.
    pub is_saved: bool,
}

impl<F: FnMut(&Tally)> Delivered<F> {
    pub fn new(save: F) -> Self {
        Self { save, is_saved: false }
    }
}

impl<F: FnMut(&Tally)> Shell<Message> for InTurn<'_, Delivered<F>> {
    fn together(&mut self, messages: &[Message], room: usize) -> Result<Turn<Trouble>, Failure> {
        let turn = handler::handling(|| {
            let handler = match subscriptions::handler(&self.subscription.name) {
                Ok(handler) => handler,
                Err(trouble) => return Turn::Blocked(trouble),
            };
            let mut batch = Batch {
                subscription: self.subscription,
                attempts: Attempts::new(&handler),
                probe: Probe::open(),
                writer: LogWriter::open(),
                begun_at: clock::now(),
                time: TurnTime::begin(),
                seen: HashSet::new(),
                refused: None,
                failed: Vec::new(),
            };
            let tally =
                pipeline::together(messages, room, &mut batch).unwrap_or_else(|failure| attempt::undo(&failure));
            let Batch { failed, writer, probe, .. } = batch;
            drop((writer, probe));
            door::as_owner(|| {
                store_failed(self.subscription, self.lane, &failed);
                (self.source.save)(&tally);
            });
            Turn::Done(tally)
        });
        self.source.is_saved = matches!(turn, Ok(Turn::Done(_)));
        turn
    }

    fn note(&mut self, message: &Message) -> Result<Option<Waiting>, Failure> {
        if is_for_another(message, self.subscription) {
            return Ok(None);
        }
        let noted = note(self.subscription, self.lane, message)?;
        Ok(noted.map(|(id, message)| Waiting { id, is_first: false, attempts: 0, message }))
    }
}

/// A transaction in which they are handled together.
struct Batch<'a> {
    subscription: &'a Subscription,
    attempts: Attempts,
    probe: Probe,
    writer: LogWriter,
    begun_at: i64,
    time: TurnTime,
    seen: HashSet<String>,
    /// The message attempted last, as it is to be stored if that failed.
    refused: Option<Message>,
    failed: Vec<(Message, Outcome)>,
}

impl Batch<'_> {
    fn has(&self, message: &Message) -> bool {
        self.attempts.scratch.within(|| self.probe.holds(&message.message_id, &self.subscription.name))
    }
}

impl Transaction<Message> for Batch<'_> {
    fn accept(&mut self, message: &Message) -> Accept {
        if is_for_another(message, self.subscription) {
            return Accept::Pass;
        }
        let known = !self.seen.insert(message.message_id.clone()) || self.has(message);
        if known { Accept::Known } else { Accept::New }
    }

    fn attempt(&mut self, message: &Message) -> Outcome {
        let Self { subscription, attempts, writer, begun_at, .. } = self;
        let record = |row: &done::Row| writer.append_processed(&subscription.name, row, *begun_at);
        let (attempted, outcome) = attempts.run(message, subscription, 1, record);
        self.refused = (outcome != Outcome::Processed).then_some(attempted);
        match outcome {
            // Another lane has just handled a copy of it that names another aggregate.
            Outcome::Failed(failure) if failure.sqlstate == UNIQUE_VIOLATION && self.has(message) => {
                Outcome::Again(failure)
            }
            outcome => outcome,
        }
    }

    fn failed(&mut self, message: &Message, outcome: Outcome) {
        self.failed.push((self.refused.take().unwrap_or_else(|| message.clone()), outcome));
    }

    fn is_over(&self) -> bool {
        self.time.is_over()
    }
}

/// Stores messages whose first attempt did not succeed, with what follows from that.
fn store_failed(subscription: &Subscription, lane: i16, failed: &[(Message, Outcome)]) {
    let messages: Vec<&Message> = failed.iter().map(|(message, _)| message).collect();
    if !messages.is_empty() {
        let ids = waiting::store(&subscription.name, &messages, Standing::Processing(lane));
        ids.into_iter().zip(failed).for_each(|(id, (_, outcome))| waiting::conclude(id, 1, outcome));
    }
}

/// Notes that a message is under way. `None`: the inbox has it already.
fn note(subscription: &Subscription, lane: i16, message: &Message) -> Result<Option<(i64, Message)>, Failure> {
    let store = |message: &Message| {
        handler::transaction(|| {
            if done::holds(&message.message_id, &subscription.name) {
                return None;
            }
            waiting::store(&subscription.name, &[message], Standing::Processing(lane)).first().copied()
        })
    };
    match store(message) {
        Ok(id) => Ok(id.map(|id| (id, message.clone()))),
        // Another lane has just noted a copy of it that names another aggregate.
        Err(failure) if failure.sqlstate == UNIQUE_VIOLATION => Ok(None),
        // Data exceptions and limits of PostgreSQL, as for what is nested too deeply: what cannot be stored as it is.
        Err(failure) if ["22", "54"].iter().any(|class| failure.sqlstate.starts_with(class)) => {
            let mut message = message.clone();
            message.refuse_payload(&failure.message);
            store(&message).map(|id| id.map(|id| (id, message)))
        }
        Err(failure) => Err(failure),
    }
}
