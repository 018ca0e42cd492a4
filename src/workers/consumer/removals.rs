//! Dead letters about which something was decided are removed from their streams.

use std::collections::HashMap;

use super::worker::Worker;
use crate::host::session::{self, Failed};
use crate::inbox::dead_letters::{self, Removal};
use sea_mq_model::broker::{Fault, Request};

/// While so many are under way, no more are looked for.
const ENOUGH: usize = 500;

/// What was asked of the broker and what it has answered.
#[derive(Default)]
pub(super) struct LetterRemovals {
    /// Messages whose removal was asked for, so that none is asked for twice: whether it was refused.
    asked: HashMap<(String, u64), bool>,
    /// Answers that are not noted yet.
    answers: Vec<Removal>,
}

impl LetterRemovals {
    /// Whether nothing is asked for or to be noted.
    pub(super) fn is_empty(&self) -> bool {
        self.asked.is_empty() && self.answers.is_empty()
    }

    /// What was asked over a connection that is gone may never be answered.
    pub(super) fn forget(&mut self) {
        self.asked.clear();
    }

    /// What was refused is asked for once more.
    pub(super) fn retry(&mut self) {
        self.asked.retain(|_, refused| !*refused);
    }

    pub(super) fn answered(&mut self, stream: String, sequence: u64, fault: Option<Fault>) {
        self.answers.push(Removal { stream, sequence, error: fault.map(|fault| fault.message) });
    }
}

impl Worker {
    /// Has the broker remove messages, those that it was asked for already left out.
    pub(super) fn request_message_removals(&mut self) -> Result<(), Failed> {
        if self.letters.asked.values().filter(|refused| !**refused).count() > ENOUGH {
            return Ok(());
        }
        for (stream, sequence) in session::transaction(dead_letters::removals)? {
            let key = (stream, sequence);
            if !self.letters.asked.contains_key(&key) {
                self.io.send(Request::DeleteMessage { stream: key.0.clone(), sequence });
                self.letters.asked.insert(key, false);
            }
        }
        Ok(())
    }

    /// Notes what the broker has answered, all of it in one transaction.
    pub(super) fn note_removals(&mut self) -> Result<(), Failed> {
        if self.letters.answers.is_empty() {
            return Ok(());
        }
        let answers = std::mem::take(&mut self.letters.answers);
        session::transaction(|| dead_letters::save_removals(&answers))?;
        for Removal { stream, sequence, error } in answers {
            match error {
                None => drop(self.letters.asked.remove(&(stream, sequence))),
                Some(_) => drop(self.letters.asked.insert((stream, sequence), true)),
            }
        }
        // There may be more than are asked for at once.
        self.look_due = true;
        Ok(())
    }
}
