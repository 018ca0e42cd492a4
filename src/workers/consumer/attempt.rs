//! Attempts to handle messages: many in a transaction, or one alone.
//!
//! In a batch each message has a savepoint, so that one that fails takes nothing of its neighbours along. What a savepoint
//! cannot contain (a deferred constraint that fails at the commit, a deadlock with locks of the whole batch) undoes the
//! batch; then its messages are handled one by one. One alone is first noted as under way, in a transaction of its own: if
//! the process dies of it, the next one knows which message it was.

use std::cell::Cell;
use std::collections::HashSet;
use std::time::{Duration, Instant};

use pgrx::PgSqlErrorCode;

use crate::host::door;
use crate::host::shmem;
use crate::inbox::done::{self, EventShape, LogWriter, Probe, Row};
use crate::inbox::handler::{self, Handler, Runner};
use crate::inbox::subscriptions::{self, Subscription};
use crate::inbox::waiting::{self, Standing, Waiting};
use crate::registry::contracts;
use crate::streams::consumers::Trouble;
use crate::sys::clock;
use crate::sys::error::raise;
use crate::sys::relation::Scratch;
use sea_mq_model::domain::message::Message;
use sea_mq_model::domain::outcome::{Failure, Outcome};
use sea_mq_model::domain::policy::ContractPolicy;

/// How long one turn of a subscription goes on taking messages. Other subscriptions wait meanwhile, and so do others for the
/// locks of a transaction.
const TURN: Duration = Duration::from_millis(50);
/// Messages taken at once that are handled one by one: about as many as fit into a turn.
pub const ALONE: usize = 32;
/// How often a message is tried again at once because others were in the way, before that counts as a failure.
const TURNS: u32 = 6;

/// What became of a batch.
#[derive(Debug)]
pub enum Batch {
    /// The first `handled` messages are dealt with.
    Done { handled: usize, processed: i64, duplicates: i64, failed: bool },
    /// The handler cannot be run.
    Blocked(Trouble),
}

/// Handles messages that were just delivered, as many as go into one transaction. `save` runs in it, as the worker.
///
/// # Errors
/// What undid the whole batch.
pub fn batch(
    subscription: &Subscription,
    messages: &[Message],
    save: impl FnOnce(usize, i64, i64),
) -> Result<Batch, Failure> {
    handler::handling(|| {
        let handler = match subscriptions::handler(&subscription.name) {
            Ok(handler) => handler,
            Err(trouble) => return Batch::Blocked(trouble),
        };
        let mut bench = Bench::new(&handler);
        let probe = Probe::open();
        let mut writer = LogWriter::open();
        let (begin, now) = (Instant::now(), clock::now());
        let (mut handled, mut processed, mut duplicates) = (0, 0, 0);
        let mut seen = HashSet::new();
        let mut failed: Vec<(Message, Outcome)> = Vec::new();
        for message in messages {
            if handled > 0 && begin.elapsed() > TURN {
                break;
            }
            handled += 1;
            if is_for_another(message, subscription) {
                continue;
            }
            let known = !seen.insert(message.message_id.as_str())
                || bench.scratch.within(|| probe.holds(&message.message_id, &subscription.name));
            if known {
                duplicates += 1;
                continue;
            }
            let (message, outcome) =
                bench.run(message, subscription, 1, |row| writer.append_processed(&subscription.name, row, now));
            match outcome {
                Outcome::Processed => processed += 1,
                Outcome::Again(failure) => undo(&failure),
                outcome if processed > 0 && is_of_neighbours(&outcome) => undo_for(&outcome),
                outcome => failed.push((message, outcome)),
            }
        }
        drop((writer, probe));
        door::as_owner(|| {
            let messages: Vec<&Message> = failed.iter().map(|(message, _)| message).collect();
            if !messages.is_empty() {
                let ids = waiting::store(&subscription.name, &messages, Standing::Processing);
                ids.into_iter().zip(&failed).for_each(|(id, (_, outcome))| waiting::conclude(id, 1, outcome));
            }
            save(handled, processed, duplicates);
        });
        Batch::Done { handled, processed, duplicates, failed: !failed.is_empty() }
    })
}

/// Handles messages that wait in the table for their first attempt, as many as go into one transaction.
///
/// # Errors
/// What undid the whole batch.
pub fn batch_waiting(subscription: &Subscription, waiting: &[Waiting]) -> Result<Batch, Failure> {
    handler::handling(|| {
        let handler = match subscriptions::handler(&subscription.name) {
            Ok(handler) => handler,
            Err(trouble) => return Batch::Blocked(trouble),
        };
        // Somebody may have unsubscribed, or dealt the messages out anew.
        let held: HashSet<i64> = waiting::lock_waiting(waiting).into_iter().collect();
        done::lock_current_slot();
        let mut bench = Bench::new(&handler);
        let begin = Instant::now();
        let mut handled = 0;
        let (mut processed, mut failed) = (Vec::new(), Vec::new());
        for one in waiting {
            if handled > 0 && begin.elapsed() > TURN {
                break;
            }
            handled += 1;
            if !held.contains(&one.id) {
                continue;
            }
            match bench.run(&one.message, subscription, 1, |_| ()).1 {
                Outcome::Processed => processed.push(one.id),
                Outcome::Again(failure) => undo(&failure),
                outcome if !processed.is_empty() && is_of_neighbours(&outcome) => undo_for(&outcome),
                outcome => failed.push((one.id, outcome)),
            }
        }
        door::as_owner(|| {
            if !processed.is_empty() {
                waiting::settle_processed(&processed);
            }
            for (id, outcome) in &failed {
                waiting::begin_attempt(*id, 0);
                waiting::conclude(*id, 1, outcome);
            }
        });
        let count = i64::try_from(processed.len()).unwrap_or(i64::MAX);
        Batch::Done { handled, processed: count, duplicates: 0, failed: !failed.is_empty() }
    })
}

/// Handles messages that were just delivered, each in transactions of its own, as many as fit into a turn.
///
/// # Errors
/// As [`single`]. What was dealt with before stays so, and is found to be known when it is delivered again.
pub fn one_by_one(subscription: &Subscription, messages: &[Message]) -> Result<Batch, Failure> {
    each(messages, |message| single(subscription, message))
}

/// As [`one_by_one`], for messages that wait in the table.
///
/// # Errors
/// As [`retry`]. What was dealt with before stays so.
pub fn retries(subscription: &Subscription, waiting: &[Waiting]) -> Result<Batch, Failure> {
    each(waiting, |one| retry(subscription, one))
}

fn each<T>(messages: &[T], attempt: impl Fn(&T) -> Result<Option<Batch>, Failure>) -> Result<Batch, Failure> {
    let begin = Instant::now();
    let (mut handled, mut processed, mut duplicates, mut any_failed) = (0, 0, 0, false);
    for message in messages {
        if handled > 0 && begin.elapsed() > TURN {
            break;
        }
        match attempt(message)? {
            Some(Batch::Done { processed: p, duplicates: d, failed, .. }) => {
                processed += p;
                duplicates += d;
                any_failed |= failed;
            }
            // The inbox has it already, or it waits no longer.
            None => duplicates += 1,
            // What was dealt with before stays so; the next turn meets this again.
            Some(Batch::Blocked(_)) if handled > 0 => break,
            Some(blocked) => return Ok(blocked),
        }
        handled += 1;
        pgrx::check_for_interrupts!();
    }
    Ok(Batch::Done { handled, processed, duplicates, failed: any_failed })
}

/// Handles one message that was just delivered alone. `Ok(None)`: the inbox has it already.
///
/// # Errors
/// An error of the database that is nobody's fault.
fn single(subscription: &Subscription, message: &Message) -> Result<Option<Batch>, Failure> {
    if is_for_another(message, subscription) {
        return Ok(None);
    }
    let Some((id, message)) = note(subscription, message)? else { return Ok(None) };
    attempt(subscription, &Waiting { id, is_first: false, attempts: 0, message }).map(Some)
}

/// Notes that a message is under way.
fn note(subscription: &Subscription, message: &Message) -> Result<Option<(i64, Message)>, Failure> {
    let store = |message: &Message| {
        handler::transaction(|| {
            if done::holds(&message.message_id, &subscription.name) {
                return None;
            }
            waiting::store(&subscription.name, &[message], Standing::Processing).first().copied()
        })
    };
    match store(message) {
        Ok(id) => Ok(id.map(|id| (id, message.clone()))),
        // Data exceptions and limits of PostgreSQL, as for what is nested too deeply: what cannot be stored as it is.
        Err(failure) if ["22", "54"].iter().any(|class| failure.sqlstate.starts_with(class)) => {
            let mut message = message.clone();
            message.refuse_payload(&failure.message);
            store(&message).map(|id| id.map(|id| (id, message)))
        }
        Err(failure) => Err(failure),
    }
}

/// Handles a message that waits in the table and for which another attempt is due. `false`: it is gone.
///
/// # Errors
/// An error of the database that is nobody's fault.
fn retry(subscription: &Subscription, waiting: &Waiting) -> Result<Option<Batch>, Failure> {
    let there = handler::transaction(|| waiting::begin_attempt(waiting.id, waiting.attempts))?;
    if there { attempt(subscription, waiting).map(Some) } else { Ok(None) }
}

/// Handles a message that was noted as under way. `waiting.attempts`: those before this one.
fn attempt(subscription: &Subscription, waiting: &Waiting) -> Result<Batch, Failure> {
    for turn in 1..=TURNS {
        let again = Cell::new(false);
        let result = handler::handling(|| attempt_once(subscription, waiting, turn == TURNS, &again));
        match result {
            Ok(batch) => return Ok(batch),
            Err(_) if again.get() => wait_a_little(turn),
            // It failed at the commit: a deferred constraint or trigger, or an emit that was refused then.
            Err(failure) => match Outcome::of(failure) {
                Outcome::Again(_) if turn < TURNS => wait_a_little(turn),
                outcome => {
                    let attempt = waiting.attempts + 1;
                    handler::transaction(|| waiting::conclude(waiting.id, attempt, &outcome))?;
                    return Ok(Batch::Done { handled: 1, processed: 0, duplicates: 0, failed: true });
                }
            },
        }
    }
    Ok(Batch::Done { handled: 1, processed: 0, duplicates: 0, failed: true })
}

fn wait_a_little(turn: u32) {
    std::thread::sleep(Duration::from_millis(u64::from(turn * turn)));
}

fn attempt_once(subscription: &Subscription, waiting: &Waiting, last: bool, again: &Cell<bool>) -> Batch {
    let handler = match subscriptions::handler(&subscription.name) {
        Ok(handler) => handler,
        Err(trouble) => {
            waiting::take_attempt_back(waiting.id);
            return Batch::Blocked(trouble);
        }
    };
    let outcome = Bench::new(&handler).run(&waiting.message, subscription, waiting.attempts + 1, |_| ()).1;
    if let Outcome::Again(failure) = &outcome
        && !last
    {
        again.set(true);
        undo(failure);
    }
    door::as_owner(|| waiting::conclude(waiting.id, waiting.attempts + 1, &outcome));
    let failed = outcome != Outcome::Processed;
    Batch::Done { handled: 1, processed: i64::from(!failed), duplicates: 0, failed }
}

/// Rolls the transaction back.
fn undo(failure: &Failure) -> ! {
    raise(PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE, failure.message.clone(), "It is tried again at once.")
}

/// Whether it failed of what a message before it has left in the same transaction: a temporary table, which is there until
/// the commit.
fn is_of_neighbours(outcome: &Outcome) -> bool {
    // duplicate_table
    outcome.failure().is_some_and(|failure| failure.sqlstate == "42P07")
}

fn undo_for(outcome: &Outcome) -> ! {
    undo(&outcome.failure().cloned().unwrap_or_default())
}

/// A replay is for the subscription that had failed; the others have handled the original.
pub fn is_for_another(message: &Message, subscription: &Subscription) -> bool {
    message.replay_for.as_ref().is_some_and(|name| *name != subscription.name)
}

/// Why no handler needs to be asked: the message can never be handled.
pub fn unfit(message: &Message, contracts: ContractPolicy) -> Option<Failure> {
    let defect = message.defect.as_ref();
    defect
        .map(|defect| Failure { sqlstate: "22P02".into(), message: defect.clone(), detail: None })
        .or_else(|| contracts::refusal(message, contracts))
}

/// What it takes to run a handler in the current transaction. The process acts as the handler's owner from here on.
struct Bench {
    runner: Runner,
    shape: EventShape,
    scratch: Scratch,
}

impl Bench {
    fn new(handler: &Handler) -> Self {
        let bench = Self { runner: Runner::new(handler), shape: EventShape::look_up(), scratch: Scratch::new() };
        door::become_role(handler.owner);
        bench
    }

    /// Runs the handler, and then `then`, in a savepoint. A payload that PostgreSQL refuses is marked so in the message.
    fn run(
        &mut self,
        message: &Message,
        subscription: &Subscription,
        attempt: i32,
        then: impl FnOnce(&Row),
    ) -> (Message, Outcome) {
        let mut message = message.clone();
        if let Some(failure) = unfit(&message, subscription.contracts) {
            return (message, Outcome::Poison(failure));
        }
        let row = Cell::new(None);
        let readable = Cell::new(false);
        let begin = Instant::now();
        let outcome = self.scratch.within(|| {
            let event = || {
                let made = Row::new(&message);
                readable.set(true);
                let event = made.event(&message, &subscription.name, attempt, &self.shape);
                row.set(Some(made));
                event
            };
            let then = || {
                if let Some(row) = row.take() {
                    then(&row);
                }
            };
            self.runner.run(&message, event, then)
        });
        if let Some(database) = shmem::here() {
            database.handlers.count(i64::try_from(begin.elapsed().as_micros()).unwrap_or(i64::MAX));
            if outcome == Outcome::Processed {
                database.handling.count(clock::now() - message.event_at);
            }
        }
        match outcome {
            Outcome::Failed(failure) if !readable.get() => {
                message.refuse_payload(&failure.message);
                (message, Outcome::Poison(failure))
            }
            outcome => (message, outcome),
        }
    }
}
