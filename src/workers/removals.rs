//! Consumers that are to be removed at the broker: which were asked for in this session, and when those that failed are
//! asked for again.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use pgrx::warning;

use sea_mq_model::broker::{Fault, FaultKind};

/// Pause before a removal that has failed is asked for again.
const PAUSE: Duration = Duration::from_secs(10);

/// By stream and name: until when it is not asked for; `None` while there is no answer.
#[derive(Default)]
pub struct Removals(HashMap<(String, String), Option<Instant>>);

/// How a removal went: without an error, there is nothing left to remove.
pub struct Removal {
    pub stream: String,
    pub name: String,
    pub error: Option<String>,
}

impl Removals {
    /// Whether none is under way or is to be asked for again.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The session is gone, and its answers with it.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether it is to be asked for now. Notes that it is.
    pub fn begin(&mut self, stream: &str, name: &str, now: Instant) -> bool {
        let key = (stream.to_owned(), name.to_owned());
        if self.0.get(&key).is_some_and(|until| until.is_none_or(|until| until > now)) {
            return false;
        }
        self.0.insert(key, None);
        true
    }

    /// There is an answer. What is somebody else's stays, and is no longer ours to remove.
    pub fn end(&mut self, stream: String, name: String, fault: Option<Fault>, now: Instant) -> Removal {
        let error = match fault {
            Some(fault) if fault.kind == FaultKind::Foreign => {
                warning!("sea_mq: {fault}");
                None
            }
            fault => fault.map(|fault| fault.message),
        };
        let key = (stream, name);
        match &error {
            Some(_) => drop(self.0.insert(key.clone(), Some(now + PAUSE))),
            None => drop(self.0.remove(&key)),
        }
        let (stream, name) = key;
        Removal { stream, name, error }
    }
}
