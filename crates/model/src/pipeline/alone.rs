//! A message that is handled alone.

use super::Shell;
use crate::domain::outcome::{Failure, Outcome};

/// How often a message is tried again at once because others were in the way, before that counts as a failure.
pub(super) const TURNS: u32 = 6;

/// What an attempt has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt<T> {
    /// Its outcome is recorded.
    Concluded { processed: bool },
    /// Others were in the way; nothing of it remains, and it is tried again at once.
    Again,
    /// The handler cannot be run: it was no attempt.
    Blocked(T),
}

/// Handles one message in transactions of its own. `None`: it is known already, or waits no longer.
///
/// # Errors
/// An error of the database that is nobody's fault.
pub(super) fn alone<M, S: Shell<M>>(shell: &mut S, message: &M) -> Result<Option<Attempt<S::Trouble>>, Failure> {
    let Some(noted) = shell.note(message)? else { return Ok(None) };
    for turn in 1..=TURNS {
        let last = turn == TURNS;
        match shell.attempt(&noted, last) {
            Ok(Attempt::Again) if !last => shell.pause(turn),
            Ok(attempt) => return Ok(Some(attempt)),
            // It failed at the commit: a deferred constraint or trigger, or an emit that was refused then.
            Err(failure) => match Outcome::of(failure) {
                Outcome::Again(_) if !last => shell.pause(turn),
                outcome => {
                    shell.conclude(&noted, &outcome)?;
                    return Ok(Some(Attempt::Concluded { processed: false }));
                }
            },
        }
    }
    Ok(Some(Attempt::Again))
}
