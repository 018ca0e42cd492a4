//! Attempts to handle messages: what the pipeline's shells have in common.
//!
//! - [`super::delivered`]: messages that were just delivered; [`super::kept`]: those that wait in the inbox.

use std::cell::Cell;
use std::time::{Duration, Instant};

use pgrx::PgSqlErrorCode;

use crate::host::door;
use crate::host::shmem::{self, Database};
use crate::inbox::done::{EventShape, Row};
use crate::inbox::handler::{self, Handler, Runner};
use crate::inbox::subscriptions::{self, Subscription};
use crate::inbox::waiting::{self, Waiting};
use crate::registry::contracts;
use crate::streams::consumers::Trouble;
use crate::sys::clock;
use crate::sys::error::raise;
use crate::sys::relation::Scratch;
use sea_mq_model::domain::message::Message;
use sea_mq_model::domain::outcome::{Failure, Outcome};
use sea_mq_model::domain::policy::ContractPolicy;
use sea_mq_model::pipeline::{Attempt, Hands};

/// How long one turn of a subscription goes on taking messages. Other subscriptions wait meanwhile, and so do others for the
/// locks of a transaction.
const TURN: Duration = Duration::from_millis(50);

/// The time of a turn.
pub struct TurnTime(Instant);

impl TurnTime {
    pub fn begin() -> Self {
        Self(Instant::now())
    }

    pub fn is_over(&self) -> bool {
        self.0.elapsed() > TURN
    }
}

/// A subscription that has its turn with messages of a source.
pub struct InTurn<'a, S> {
    pub subscription: &'a Subscription,
    pub lane: i16,
    pub source: S,
    time: TurnTime,
}

impl<'a, S> InTurn<'a, S> {
    pub fn new(subscription: &'a Subscription, lane: i16, source: S) -> Self {
        Self { subscription, lane, source, time: TurnTime::begin() }
    }
}

impl<S> Hands for InTurn<'_, S> {
    type Noted = Waiting;
    type Trouble = Trouble;

    fn attempt(&mut self, noted: &Waiting, last: bool) -> Result<Attempt<Trouble>, Failure> {
        alone(self.subscription, noted, last)
    }

    fn conclude(&mut self, noted: &Waiting, outcome: &Outcome) -> Result<(), Failure> {
        handler::transaction(|| waiting::conclude(noted.id, noted.attempts + 1, outcome))
    }

    fn pause(&mut self, turn: u32) {
        std::thread::sleep(Duration::from_millis(u64::from(turn * turn)));
    }

    fn is_over(&self) -> bool {
        self.time.is_over()
    }

    fn between(&mut self) {
        pgrx::check_for_interrupts!();
    }

    fn undone(&mut self, failure: &Failure, _: usize) {
        super::served::tell_undone(self.subscription, failure);
        // Those that follow one by one have a turn of their own.
        self.time = TurnTime::begin();
    }
}

/// Makes the attempt of a message that was noted as under way, and records its outcome. `waiting.attempts`: those before this one.
fn alone(subscription: &Subscription, waiting: &Waiting, last: bool) -> Result<Attempt<Trouble>, Failure> {
    let again = Cell::new(false);
    match handler::handling(|| attempt(subscription, waiting, last, &again)) {
        Err(_) if again.get() => Ok(Attempt::Again),
        result => result,
    }
}

fn attempt(subscription: &Subscription, waiting: &Waiting, last: bool, again: &Cell<bool>) -> Attempt<Trouble> {
    let handler = match subscriptions::handler(&subscription.name) {
        Ok(handler) => handler,
        Err(trouble) => {
            waiting::take_attempt_back(waiting.id);
            return Attempt::Blocked(trouble);
        }
    };
    let outcome = Attempts::new(&handler).run(&waiting.message, subscription, waiting.attempts + 1, |_| ()).1;
    if let Outcome::Again(failure) = &outcome
        && !last
    {
        again.set(true);
        undo(failure);
    }
    door::as_owner(|| waiting::conclude(waiting.id, waiting.attempts + 1, &outcome));
    Attempt::Concluded { processed: outcome == Outcome::Processed }
}

/// Rolls the transaction back.
pub fn undo(failure: &Failure) -> ! {
    raise(PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE, failure.message.clone(), "It is tried again at once.")
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

/// Makes attempts in the current transaction. The process acts as the handler's owner from here on.
pub struct Attempts {
    runner: Runner,
    shape: EventShape,
    pub scratch: Scratch,
    /// Where it is counted how long attempts take; none without preloading.
    database: Option<&'static Database>,
}

impl Attempts {
    pub fn new(handler: &Handler) -> Self {
        let (runner, shape, database) = (Runner::new(handler), EventShape::look_up(), shmem::here());
        let attempts = Self { runner, shape, scratch: Scratch::new(), database };
        door::become_role(handler.owner);
        attempts
    }

    /// Runs the handler, and then `then`, in a savepoint. A payload that PostgreSQL refuses is marked so in the message.
    pub fn run(
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
        if let Some(database) = self.database {
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
