//! Records what became of deliveries: many in one transaction, with the positions that follow from them.

use std::time::{Duration, Instant};

use uuid::Uuid;

use super::worker::Worker;
use crate::deliver::deliveries::{self, Undelivered};
use crate::deliver::endpoints;
use crate::host::session::{self, Failed};
use crate::log::cursors;
use crate::log::endpoint_progress::{self, Tally};
use sea_mq_io::http::target::Answered;
use sea_mq_model::deliver::endpoint::Item;
use sea_mq_model::deliver::outcome::Answer;
use sea_mq_model::domain::reader::ReaderId;

/// How a delivery ended, for now.
pub(super) enum End {
    Delivered,
    Retry {
        wait: Duration,
    },
    /// The status with which it is a dead letter.
    GivenUp(&'static str),
    /// It waits behind one of its aggregate.
    Parked,
    /// No attempt is made.
    Unsendable(String),
}

pub(super) struct Result {
    pub endpoint: i64,
    pub event: Uuid,
    pub seq: i64,
    pub key: Option<String>,
    /// It was in the table before.
    pub retried: bool,
    /// The attempt counts against the schedule.
    pub counted: bool,
    /// The endpoint pauses for it.
    pub pauses: bool,
    pub end: End,
    pub answered: Option<Answered>,
}

impl Result {
    pub(super) fn without_attempt(endpoint: i64, item: &Item, end: End) -> Self {
        Self {
            endpoint,
            event: item.event,
            seq: item.seq,
            key: item.key.as_deref().map(str::to_owned),
            retried: false,
            counted: false,
            pauses: false,
            end,
            answered: None,
        }
    }
}

impl Worker {
    /// Records results, and how far the readers have come by them.
    pub(super) fn record(&mut self) -> std::result::Result<(), Failed> {
        let results = std::mem::take(&mut self.results);
        for result in &results {
            self.settle(result);
        }
        let mut positions = Vec::new();
        let mut tallies = Vec::new();
        for served in &mut self.served {
            let moved = served.readers.iter_mut().filter_map(|reader| Some((reader.id, reader.ledger.moved()?)));
            positions.extend(moved);
            let tally = std::mem::take(&mut served.tally);
            if tally != Tally::default() {
                tallies.push((served.described.id, tally));
            }
        }
        if results.is_empty() && positions.is_empty() && tallies.is_empty() {
            return Ok(());
        }
        session::transaction(|| {
            let slot = deliveries::current_slot();
            results.iter().for_each(|result| self.write(slot, result));
            positions.iter().for_each(|(reader, position)| cursors::save(ReaderId::Endpoint(*reader), position));
            tallies.iter().for_each(|(endpoint, tally)| endpoint_progress::add(*endpoint, *tally));
        })?;
        let now = Instant::now();
        for result in &results {
            if let Some(served) = self.served(result.endpoint) {
                served.contents.remove(&result.event);
                served.model.recorded(result.event, now);
            }
            self.look_due |= result.pauses;
        }
        Ok(())
    }

    /// An event of the log is behind its reader once this is recorded.
    fn settle(&mut self, result: &Result) {
        let Some(served) = self.served(result.endpoint) else { return };
        match result.end {
            End::Delivered => served.tally.delivered += 1,
            End::GivenUp(_) | End::Unsendable(_) => served.tally.failed += 1,
            End::Retry { .. } | End::Parked => {}
        }
        if let Some(kept) = served.contents.get(&result.event)
            && let Some(reader) = served.readers.get_mut(kept.reader)
        {
            reader.ledger.settle(result.seq);
        }
    }

    fn write(&self, slot: i64, result: &Result) {
        let answered = result.answered.as_ref();
        let status = answered.and_then(|answered| match answered.answer {
            Answer::Status { code, .. } => Some(code),
            Answer::Stored | Answer::Fault(_) => None,
        });
        let kind = answered.map(|answered| match answered.answer {
            Answer::Status { .. } => "http",
            Answer::Stored => "nats",
            Answer::Fault(kind) => kind.token(),
        });
        let undelivered = |status_word, wait, error: Option<&str>| {
            let served = self.served.iter().find(|served| served.described.id == result.endpoint);
            let content = served.and_then(|served| served.contents.get(&result.event)).map(|kept| &kept.content);
            let what = Undelivered {
                status: status_word,
                attempted: answered.is_some(),
                counted: answered.is_some() && result.counted,
                wait,
                kind: kind.or(error.map(|_| "unsendable")),
                http_status: status,
                error: error.or(answered.and_then(|answered| answered.error.as_deref())),
                response: answered.and_then(|answered| answered.response.as_deref()),
                duration: answered.map(|answered| answered.duration),
            };
            deliveries::undelivered(result.endpoint, result.event, result.seq, result.key.as_deref(), content, &what);
        };
        match &result.end {
            End::Delivered => {
                let (duration, response) = answered
                    .map_or((Duration::ZERO, None), |answered| (answered.duration, answered.response.as_deref()));
                deliveries::delivered(slot, result.endpoint, result.event, result.retried, status, duration, response);
            }
            End::Retry { wait } => undelivered("retrying", Some(*wait), None),
            End::GivenUp(word) => undelivered(word, None, None),
            End::Parked => undelivered("parked", None, None),
            End::Unsendable(error) => undelivered("failed", None, Some(error)),
        }
        if result.pauses {
            endpoints::pause(result.endpoint);
        }
    }
}
