//! The way of everything that is delivered: source → accept → attempt → outcome → done, again, or dead letter.
//!
//! | source | messages | accept |
//! |---|---|---|
//! | [`Source::Stream`] | just delivered by the broker | the inbox does not know them |
//! | [`Source::Log`] | just read in this database's log | as above |
//! | [`Source::Inbox`] | stored before: retries, replays, a lane's share | they wait still |
//!
//! | effect | what an attempt is |
//! |---|---|
//! | [`Effect::Handler`] | the handler is run: by the consumer, or by a process of the pool, which gets a [`task`] |
//! | [`Effect::Pull`] | the message is stored; an application receives it |
//!
//! A message that is stored comes back from the inbox. One that is handled is handled *together* with its neighbours, in one
//! transaction with a savepoint each; or *alone*, in transactions of its own, and then it is noted first that its attempt is under
//! way, so that a process that dies of it leaves behind which one it was. [`Care`] decides which; [`take_turn`] does it.
//!
//! Nothing here knows PostgreSQL: a [`Shell`] carries out. [`simulation`] runs the same code against a model of a database, with
//! random failures, crashes and redeliveries.

mod alone;
mod batch;
mod care;
mod lane;
#[cfg(test)]
mod simulation;
pub mod task;

pub use alone::Attempt;
pub use batch::{Accept, Transaction, together};
pub use care::{Care, Plan};
pub use lane::{Lane, LaneKey};

use crate::domain::outcome::{Failure, Outcome};

/// Messages that are handled together at most, or read at once.
pub const AT_ONCE: usize = 500;
/// Messages that are taken at once to be handled alone: about as many as fit into a turn.
pub const ALONE: usize = 32;

/// Where messages come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Stream,
    Log,
    Inbox,
}

/// What is done with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Handler,
    Pull,
}

impl Effect {
    pub const fn of(has_handler: bool) -> Self {
        if has_handler { Self::Handler } else { Self::Pull }
    }
}

/// What a turn has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Tally {
    /// The first so many messages are dealt with.
    pub handled: usize,
    pub processed: i64,
    /// Known already, or somebody else's.
    pub duplicates: i64,
    /// Messages whose attempt did not succeed: something waits.
    pub failed: usize,
}

/// How a turn ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn<T> {
    Done(Tally),
    /// The handler cannot be run, and no message is to blame.
    Blocked(T),
}

/// Carries out what the pipeline decides about one message, whatever its source.
pub trait Hands {
    /// A message that was noted as under way.
    type Noted;
    /// Why the handler cannot be run.
    type Trouble;

    /// Makes the attempt and records its outcome, in a transaction of its own. `last`: [`Attempt::Again`] is not an answer.
    ///
    /// # Errors
    /// What undid it, at the commit too.
    fn attempt(&mut self, noted: &Self::Noted, last: bool) -> Result<Attempt<Self::Trouble>, Failure>;

    /// Records the outcome of an attempt that was undone, in a transaction of its own.
    ///
    /// # Errors
    /// An error of the database that is nobody's fault.
    fn conclude(&mut self, noted: &Self::Noted, outcome: &Outcome) -> Result<(), Failure>;

    /// Waits a little before an attempt that is made once more.
    fn pause(&mut self, turn: u32);

    /// Whether the turn has taken its time. Others wait meanwhile.
    fn is_over(&self) -> bool;

    /// Between two messages: nothing is open.
    fn between(&mut self);

    /// All that was handled together was undone.
    fn undone(&mut self, failure: &Failure, messages: usize);
}

/// Carries out what is different for each source.
pub trait Shell<M>: Hands {
    /// Handles the first messages in one transaction, by [`together`], which `room` is for.
    ///
    /// # Errors
    /// What undid all of it.
    fn together(&mut self, messages: &[M], room: usize) -> Result<Turn<Self::Trouble>, Failure>;

    /// Notes that a message is under way, in a transaction of its own. `None`: it is known already, or waits no longer.
    ///
    /// # Errors
    /// An error of the database that is nobody's fault.
    fn note(&mut self, message: &M) -> Result<Option<Self::Noted>, Failure>;
}

/// Gives a subscription its turn with messages from any source. It ends when `room` messages have failed: so many may wait for
/// another attempt.
///
/// # Errors
/// An error of the database that is nobody's fault. What was dealt with before stays so.
pub fn take_turn<M, S: Shell<M>>(
    care: &mut Care,
    plan: Plan,
    room: usize,
    messages: &[M],
    shell: &mut S,
) -> Result<Turn<S::Trouble>, Failure> {
    if let Plan::Together(most) = plan {
        let messages = &messages[..most.min(messages.len())];
        match shell.together(messages, room) {
            Ok(turn) => {
                if let Turn::Done(tally) = &turn {
                    care.measure(messages.len(), tally.handled);
                }
                return Ok(turn);
            }
            Err(failure) => {
                shell.undone(&failure, messages.len());
                care.undone(messages.len());
            }
        }
    }
    let turn = one_by_one(messages, room, shell)?;
    if let Turn::Done(tally) = &turn {
        care.handled_alone(tally.handled);
    }
    Ok(turn)
}

fn one_by_one<M, S: Shell<M>>(messages: &[M], room: usize, shell: &mut S) -> Result<Turn<S::Trouble>, Failure> {
    let mut tally = Tally::default();
    for message in messages {
        if tally.handled > 0 && (tally.failed >= room || shell.is_over()) {
            break;
        }
        match alone::alone(shell, message)? {
            None => tally.duplicates += 1,
            Some(Attempt::Blocked(trouble)) if tally.handled == 0 => return Ok(Turn::Blocked(trouble)),
            // What was dealt with before stays so; the next turn meets this again.
            Some(Attempt::Blocked(_)) => break,
            Some(Attempt::Again) => tally.failed += 1,
            Some(Attempt::Concluded { processed }) => {
                tally.processed += i64::from(processed);
                tally.failed += usize::from(!processed);
            }
        }
        tally.handled += 1;
        shell.between();
    }
    Ok(Turn::Done(tally))
}
