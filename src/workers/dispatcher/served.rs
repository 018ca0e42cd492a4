//! An endpoint that is served, and what the dispatcher remembers of it.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::deliver::deliveries::Content;
use crate::deliver::endpoints::{Described, Health as Shown};
use crate::log::endpoint_progress::Tally;
use sea_mq_io::http::target::{Answered, Target};
use sea_mq_model::broker::SinkId;
use sea_mq_model::deliver::endpoint::Endpoint;
use sea_mq_model::deliver::health::State;
use sea_mq_model::deliver::ledger::Ledger;
use sea_mq_model::deliver::outcome::Answer;

/// Attempts whose duration is remembered.
const REMEMBERED: usize = 1000;

/// Who reads the log of one context.
pub struct Reader {
    pub id: i64,
    pub sink: SinkId,
    pub ledger: Ledger,
    /// There is nothing more for now.
    pub exhausted: bool,
}

/// What is wrong with an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    pub kind: String,
    pub error: String,
    pub hint: Option<String>,
}

impl Trouble {
    /// What an answer says.
    pub fn of(answered: &Answered) -> Self {
        let (kind, hint) = match answered.answer {
            Answer::Stored => (String::new(), None),
            Answer::Fault(kind) => (kind.token().to_owned(), Some(kind.hint().to_owned())),
            Answer::Status { code, .. } => {
                let hint = match code {
                    401 | 403 => "Look whether its secrets are right, then call sea_mq.resume_endpoint.",
                    300..=399 | 404 | 405 => "Look whether its URL is right, then call sea_mq.resume_endpoint.",
                    410 => "It says that it is gone for good: drop it, or call sea_mq.resume_endpoint.",
                    _ => "Look into the endpoint's log; it is tried again by itself.",
                };
                (format!("http_{code}"), Some(hint.to_owned()))
            }
        };
        Self { kind, error: answered.error.clone().unwrap_or_default(), hint }
    }
}

/// What is sent of an event of the log.
pub struct Kept {
    /// Place of the reader that has read it.
    pub reader: usize,
    pub content: Content,
    /// Microseconds since 2000-01-01 UTC.
    pub emitted_at: i64,
}

pub struct Served {
    pub described: Rc<Described>,
    /// As the I/O thread knows it.
    pub target: Option<Target>,
    pub model: Endpoint,
    pub readers: Vec<Reader>,
    pub tally: Tally,
    /// What is sent of events that are not in the table, or not yet.
    pub contents: HashMap<Uuid, Kept>,
    /// The last answer that was none.
    pub trouble: Option<Trouble>,
    /// As it was saved.
    pub shown: Option<Shown>,
    pub shown_at: Instant,
    durations: Vec<Duration>,
    at: usize,
}

impl Served {
    pub fn new(described: Rc<Described>, model: Endpoint, now: Instant) -> Self {
        Self {
            described,
            target: None,
            model,
            readers: Vec::new(),
            tally: Tally::default(),
            contents: HashMap::new(),
            trouble: None,
            shown: None,
            shown_at: now,
            durations: Vec::new(),
            at: 0,
        }
    }

    pub fn took(&mut self, duration: Duration) {
        if self.durations.len() < REMEMBERED {
            self.durations.push(duration);
        } else {
            self.durations[self.at] = duration;
            self.at = (self.at + 1) % REMEMBERED;
        }
    }

    /// How it is doing. `held`: why nothing is sent to any endpoint.
    pub fn health(&self, held: Option<&Trouble>) -> Shown {
        let mut sorted = self.durations.clone();
        sorted.sort_unstable();
        let at = |part: f64| {
            let place = (sorted.len() as f64 * part) as usize;
            sorted.get(place.min(sorted.len().saturating_sub(1))).map(|took| took.as_secs_f64() * 1000.0)
        };
        let state = match (held, self.model.state()) {
            (Some(held), _) if held.kind == "Copied" => "copied",
            (Some(_), _) => "disabled",
            (None, state) => state.token(),
        };
        let trouble = held.or(match self.model.state() {
            State::Active if self.model.retrying() == 0 => None,
            _ => self.trouble.as_ref(),
        });
        Shown {
            state: state.into(),
            error_kind: trouble.map(|trouble| trouble.kind.clone()),
            error: trouble.map(|trouble| trouble.error.clone()),
            hint: trouble.and_then(|trouble| trouble.hint.clone()),
            in_flight: i64::try_from(self.model.in_flight()).unwrap_or(i64::MAX),
            window: i64::try_from(self.model.window()).unwrap_or(i64::MAX),
            retrying: i64::try_from(self.model.retrying()).unwrap_or(i64::MAX),
            p50: at(0.5),
            p99: at(0.99),
        }
    }
}
