//! Calls of services that handle messages: which are on their way, and what was answered.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::served::Trouble;
use crate::deliver::calls::Health;
use sea_mq_io::http::target::Answered;
use sea_mq_model::deliver::calls::{Caller, verdict};
use sea_mq_model::deliver::outcome::{Answer, Effect, judge};

/// How often all first attempts are looked at.
const FLOOR: Duration = Duration::from_secs(30);

/// A subscription that an endpoint handles.
pub(super) struct Called {
    pub id: i64,
    pub name: String,
    pub endpoint: i64,
    /// The endpoint's description that `caller` follows.
    pub print: String,
    pub caller: Caller,
    /// When it is looked next for messages.
    pub look_at: Instant,
    /// No message waits for its first attempt with a smaller number, and since when that has only risen: what was handled stays in
    /// the index for as long as any snapshot is older.
    pub floor: i64,
    pub floor_since: Instant,
    pub trouble: Option<Trouble>,
    pub shown: Option<Health>,
    pub shown_at: Instant,
}

/// A call on its way.
pub(super) struct Flight {
    pub subscription: i64,
    pub message: i64,
    pub began: Instant,
    /// It shows whether the service is back.
    pub probing: bool,
}

#[derive(Default)]
pub(super) struct Calls {
    pub called: Vec<Called>,
    pub flights: HashMap<u64, Flight>,
    /// What is not recorded yet.
    pub answers: Vec<Value>,
}

/// The number under which the I/O thread knows an endpoint that is called.
pub(super) fn target_number(endpoint: i64) -> i64 {
    -endpoint
}

impl Called {
    /// From which number on first attempts are looked for. Now and then that is all of them, so that nothing is missed for long
    /// whatever has happened.
    pub(super) fn floor(&mut self, now: Instant) -> i64 {
        if now.duration_since(self.floor_since) >= FLOOR {
            self.floor = 0;
            self.floor_since = now;
        }
        self.floor
    }
}

impl Calls {
    /// The messages of a subscription that are on their way.
    pub(super) fn flying(&self, subscription: i64) -> Vec<i64> {
        let own = self.flights.values().filter(|flight| flight.subscription == subscription);
        own.map(|flight| flight.message).collect()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.flights.is_empty()
    }

    /// There may be something new for all.
    pub(super) fn look_now(&mut self, now: Instant) {
        self.called.iter_mut().for_each(|called| called.look_at = now);
    }

    /// Takes in an answer, if it is one to a call.
    pub(super) fn answered(&mut self, token: u64, answered: &Answered) -> bool {
        let Some(flight) = self.flights.remove(&token) else { return false };
        let now = Instant::now();
        let (error, response) = (answered.error.as_deref(), answered.response.as_deref());
        let verdict = verdict(answered.answer, error, response, flight.probing);
        if let Some(called) = self.called.iter_mut().find(|called| called.id == flight.subscription) {
            called.caller.answered(answered.answer, &verdict, flight.began, now);
            called.trouble = match judge(answered.answer).1 {
                Effect::Sound | Effect::None => None,
                _ => Some(Trouble::of(answered)),
            };
            called.look_at = now;
        }
        let (kind, detail) = match answered.answer {
            Answer::Status { .. } | Answer::Stored => ("http", response.filter(|_| error.is_some())),
            Answer::Fault(kind) => (kind.token(), None),
        };
        self.answers.push(verdict.record(flight.message, kind, detail));
        true
    }

    /// When there is something to do.
    pub(super) fn due_at(&self, now: Instant) -> Option<Instant> {
        let due = |called: &Called| match called.caller.room(now) {
            0 => called.caller.due_at(now),
            _ => Some(called.look_at),
        };
        self.called.iter().filter_map(due).min()
    }
}
