//! Messages that wait in the inbox: retries and replays.

use std::collections::HashSet;

use super::attempt::{self, Attempts, InTurn, TurnTime};
use crate::host::door;
use crate::host::session::{self, Failed};
use crate::inbox::subscriptions::{self, Subscription};
use crate::inbox::waiting::{self, Waiting};
use crate::inbox::{done, handler};
use crate::streams::consumers::Trouble;
use sea_mq_model::domain::outcome::{Failure, Outcome};
use sea_mq_model::pipeline::{self, AT_ONCE, Accept, Care, Plan, Shell, Tally, Transaction, Turn};

/// Handles what is due in a lane: first attempts together, further ones each alone. `floor`: no first attempt waits with a smaller
/// number; it is raised behind what was dealt with. `room`: so many may wait for another attempt; those that do already may go on to
/// do so.
pub(super) fn serve_due(
    subscription: &Subscription,
    lane: i16,
    (floor, room): (&mut i64, usize),
    care: &mut Care,
) -> Result<Turn<Trouble>, Failed> {
    let from = if room == 0 { i64::MAX } else { *floor };
    // Any of them may have ended a process before.
    let plan = care.plan(AT_ONCE);
    let due = session::transaction(|| waiting::due(&subscription.name, lane, plan.most(), from))?;
    if due.is_empty() {
        return Ok(Turn::Done(Tally::default()));
    }
    let firsts = due.iter().take_while(|one| one.attempts == 0).count();
    let (plan, room, next) = match firsts {
        0 => (Plan::Alone(due.len()), usize::MAX, &due[..]),
        _ => (plan, room, &due[..firsts]),
    };
    let mut shell = InTurn::new(subscription, lane, Kept);
    let turn = pipeline::take_turn(care, plan, room, next, &mut shell).map_err(|failure| Failed(failure.message))?;
    // What follows the last one that was dealt with, in the order of their numbers.
    if let Turn::Done(tally) = &turn
        && let Some(last) = due[..tally.handled].iter().rfind(|one| one.is_first)
    {
        *floor = last.id + 1;
    }
    Ok(turn)
}

/// The pipeline's shell for them.
struct Kept;

impl Shell<Waiting> for InTurn<'_, Kept> {
    fn together(&mut self, messages: &[Waiting], room: usize) -> Result<Turn<Trouble>, Failure> {
        handler::handling(|| {
            let handler = match subscriptions::handler(&self.subscription.name) {
                Ok(handler) => handler,
                Err(trouble) => return Turn::Blocked(trouble),
            };
            // Somebody may have unsubscribed, or dealt the messages out again.
            let held = waiting::lock_waiting(messages).into_iter().collect();
            done::lock_current_slot();
            let mut batch = Batch {
                subscription: self.subscription,
                attempts: Attempts::new(&handler),
                held,
                time: TurnTime::begin(),
                processed: Vec::new(),
                failed: Vec::new(),
            };
            let tally =
                pipeline::together(messages, room, &mut batch).unwrap_or_else(|failure| attempt::undo(&failure));
            let Batch { processed, failed, .. } = batch;
            door::as_owner(|| settle(&processed, &failed));
            Turn::Done(tally)
        })
    }

    fn note(&mut self, one: &Waiting) -> Result<Option<Waiting>, Failure> {
        let there = handler::transaction(|| waiting::begin_attempt(one.id, one.attempts))?;
        Ok(there.then(|| one.clone()))
    }
}

/// A transaction in which they are handled together.
struct Batch<'a> {
    subscription: &'a Subscription,
    attempts: Attempts,
    /// Those that wait still, locked.
    held: HashSet<i64>,
    time: TurnTime,
    processed: Vec<i64>,
    failed: Vec<(i64, Outcome)>,
}

impl Transaction<Waiting> for Batch<'_> {
    fn accept(&mut self, one: &Waiting) -> Accept {
        if self.held.contains(&one.id) { Accept::New } else { Accept::Pass }
    }

    fn attempt(&mut self, one: &Waiting) -> Outcome {
        let outcome = self.attempts.run(&one.message, self.subscription, 1, |_| ()).1;
        if outcome == Outcome::Processed {
            self.processed.push(one.id);
        }
        outcome
    }

    fn failed(&mut self, one: &Waiting, outcome: Outcome) {
        self.failed.push((one.id, outcome));
    }

    fn is_over(&self) -> bool {
        self.time.is_over()
    }
}

fn settle(processed: &[i64], failed: &[(i64, Outcome)]) {
    if !processed.is_empty() {
        waiting::settle_processed(processed);
    }
    for (id, outcome) in failed {
        waiting::begin_attempt(*id, 0);
        waiting::conclude(*id, 1, outcome);
    }
}
