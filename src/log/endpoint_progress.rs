//! Endpoints' progress: how far each of their readers has come in the log, and what was delivered so far.

use pgrx::pg_sys::Datum;

use super::positions::{self, Columns, Ring};
use crate::host::spi::{self, Arg};
use crate::sys::clock;
use sea_mq_model::broker::SinkId;
use sea_mq_model::domain::position::Position;

const COLUMNS: usize = 14;
const RING: Ring<COLUMNS> = Ring {
    table: "endpoint_progress",
    current_sql: "SELECT slot FROM sea_mq.endpoint_progress ORDER BY number DESC LIMIT 1",
    keys_sql: "SELECT reader FROM sea_mq.endpoint_readers",
};

/// Places of the columns behind those of the position in the log.
mod column {
    pub const READER: usize = 2;
    pub const DELIVERED: usize = 10;
    pub const FAILED: usize = 11;
    pub const ATTEMPTS: usize = 12;
    pub const LAST_DELIVERED_AT: usize = 13;
}

/// What was done since it was noted last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub delivered: i64,
    pub failed: i64,
    pub attempts: i64,
}

/// The ring of progress, for the dispatcher's housekeeping.
pub fn ring() -> &'static Ring<COLUMNS> {
    &RING
}

/// How far a reader has come.
pub fn position(reader: i64) -> Position {
    RING.newest(reader).and_then(|row| positions::position(&row)).unwrap_or_else(Position::start)
}

/// How far those have come that read a sink's events for an endpoint.
pub fn positions_of(sink: SinkId) -> Vec<Position> {
    let sql =
        "SELECT reader FROM sea_mq.endpoint_readers WHERE context <> '' AND sea_mq.sink_id(context, 'event') = $1";
    spi::query(sql, &[Arg::Int8(sink)]).iter().map(|row| position(spi::parsed(row, 0))).collect()
}

/// Notes how far a reader has come.
pub fn save(reader: i64, position: &Position) {
    let mut row = newest(reader);
    positions::set_position(&mut row, position);
    RING.append(row);
}

/// Adds to the counts that the reader has.
pub fn add(reader: i64, tally: Tally) {
    let mut row = newest(reader);
    let counts =
        [(column::DELIVERED, tally.delivered), (column::FAILED, tally.failed), (column::ATTEMPTS, tally.attempts)];
    for (column, more) in counts {
        row[column] = int8(row[column].map_or(0, |datum| datum.value() as i64).saturating_add(more));
    }
    if tally.delivered > 0 {
        row[column::LAST_DELIVERED_AT] = int8(clock::now());
    }
    RING.append(row);
}

fn newest(reader: i64) -> Columns<COLUMNS> {
    RING.newest(reader).unwrap_or_else(|| {
        let mut row = [None; COLUMNS];
        row[column::READER] = int8(reader);
        [column::DELIVERED, column::FAILED, column::ATTEMPTS].into_iter().for_each(|count| row[count] = int8(0));
        row
    })
}

fn int8(value: i64) -> Option<Datum> {
    Some(Datum::from(value))
}
