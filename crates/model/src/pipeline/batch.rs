//! Messages that are handled together, in one transaction.
//!
//! Each has a savepoint, so that one that fails takes nothing of its neighbours along. What a savepoint cannot contain undoes the
//! batch: a deferred constraint that fails at the commit, a deadlock with locks of the whole batch.

use super::Tally;
use crate::domain::outcome::{Failure, Outcome};

/// SQLSTATE `duplicate_table`: a message before it has left a temporary table, which is there until the commit.
const LEFT_BY_A_NEIGHBOUR: &str = "42P07";

/// Whether a message is to be attempted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accept {
    New,
    Known,
    /// It is for another subscription, or waits no longer.
    Pass,
}

/// A transaction in which messages are handled.
pub trait Transaction<M> {
    fn accept(&mut self, message: &M) -> Accept;
    /// The attempt, in a savepoint. One that succeeds is recorded in it.
    fn attempt(&mut self, message: &M) -> Outcome;
    /// Keeps the outcome of an attempt that did not succeed, to be recorded at the end.
    fn failed(&mut self, message: &M, outcome: Outcome);
    /// Whether the turn has taken its time.
    fn is_over(&self) -> bool;
}

/// Handles the first messages, as many as a turn has time for.
///
/// # Errors
/// What the whole transaction is to be undone for.
pub fn together<M>(messages: &[M], transaction: &mut impl Transaction<M>) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    for message in messages {
        if tally.handled > 0 && transaction.is_over() {
            break;
        }
        tally.handled += 1;
        match transaction.accept(message) {
            Accept::New => {}
            Accept::Known => {
                tally.duplicates += 1;
                continue;
            }
            Accept::Pass => continue,
        }
        match transaction.attempt(message) {
            Outcome::Processed => tally.processed += 1,
            Outcome::Again(failure) => return Err(failure),
            outcome => match outcome.failure() {
                Some(failure) if tally.processed > 0 && failure.sqlstate == LEFT_BY_A_NEIGHBOUR => {
                    return Err(failure.clone());
                }
                _ => {
                    transaction.failed(message, outcome);
                    tally.failed = true;
                }
            },
        }
    }
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Messages are SQLSTATEs; "" succeeds, "known" and "pass" are not attempted.
    #[derive(Default)]
    struct Script {
        failed: Vec<&'static str>,
        attempts: usize,
        time: usize,
    }

    impl Transaction<&'static str> for Script {
        fn accept(&mut self, message: &&'static str) -> Accept {
            match *message {
                "known" => Accept::Known,
                "pass" => Accept::Pass,
                _ => Accept::New,
            }
        }

        fn attempt(&mut self, message: &&'static str) -> Outcome {
            self.attempts += 1;
            let failure = |sqlstate: &str| Failure { sqlstate: sqlstate.into(), ..Failure::default() };
            if message.is_empty() { Outcome::Processed } else { Outcome::of(failure(message)) }
        }

        fn failed(&mut self, message: &&'static str, _: Outcome) {
            self.failed.push(message);
        }

        fn is_over(&self) -> bool {
            self.attempts >= self.time
        }
    }

    fn run(messages: &[&'static str], time: usize) -> (Result<Tally, String>, Vec<&'static str>) {
        let mut script = Script { time, ..Script::default() };
        let result = together(messages, &mut script).map_err(|failure| failure.sqlstate);
        (result, script.failed)
    }

    #[test]
    fn one_that_fails_takes_nothing_of_its_neighbours_along() {
        let (tally, failed) = run(&["", "23505", "known", "pass", ""], 9);
        assert_eq!(tally, Ok(Tally { handled: 5, processed: 2, duplicates: 1, failed: true }));
        assert_eq!(failed, ["23505"]);
    }

    #[test]
    fn what_others_are_in_the_way_of_and_what_a_neighbour_left_undoes_all() {
        assert_eq!(run(&["", "40P01", ""], 9).0, Err("40P01".to_owned()));
        assert_eq!(run(&["", "42P07"], 9).0, Err("42P07".to_owned()));
        assert_eq!(run(&["42P07", ""], 9).1, ["42P07"], "without a neighbour it is its own");
    }

    #[test]
    fn a_turn_ends_when_its_time_is_over_and_deals_with_one_at_least() {
        assert_eq!(run(&["", "", ""], 2).0.map(|tally| tally.handled), Ok(2));
        assert_eq!(run(&["", "", ""], 0).0.map(|tally| tally.handled), Ok(1));
    }
}
