//! What was delivered to each endpoint so far.

use std::marker::PhantomData;

use super::positions::{self, Ring};
use crate::sys::clock;

const COLUMNS: usize = 7;
const RING: Ring<i64, COLUMNS> = Ring {
    table: "endpoint_progress",
    current_sql: "SELECT slot FROM sea_mq.endpoint_progress ORDER BY number DESC LIMIT 1",
    keys_sql: "SELECT id FROM sea_mq.endpoint_definitions",
    key: PhantomData,
};
const ENDPOINT: usize = 2;
const DELIVERED: usize = 3;
const FAILED: usize = 4;
const ATTEMPTS: usize = 5;
const LAST_DELIVERED_AT: usize = 6;

/// What was done since it was noted last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub delivered: i64,
    pub failed: i64,
    pub attempts: i64,
}

/// The ring of progress, for the dispatcher's housekeeping.
pub fn ring() -> &'static Ring<i64, COLUMNS> {
    &RING
}

/// Adds to the counts of an endpoint.
pub fn add(endpoint: i64, tally: Tally) {
    let mut row = RING.newest(endpoint).unwrap_or([None; COLUMNS]);
    row[ENDPOINT] = positions::int8(endpoint);
    for (column, more) in [(DELIVERED, tally.delivered), (FAILED, tally.failed), (ATTEMPTS, tally.attempts)] {
        positions::add(&mut row, column, more);
    }
    if tally.delivered > 0 {
        row[LAST_DELIVERED_AT] = positions::int8(clock::now());
    }
    RING.append(row);
}
