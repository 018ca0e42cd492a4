//! Streams' progress: what of a stream's events it has stored, and at which stream sequence.

use std::marker::PhantomData;

use pgrx::pg_sys::Datum;

use super::positions::{Columns, Ring, add, int8};
use super::{cursors, journal};
use crate::sys::clock;
use crate::sys::datum::{text, text_datum};
use sea_mq_model::broker::SinkId;
use sea_mq_model::domain::reader::ReaderId;
use sea_mq_model::domain::runs::Run;
use sea_mq_model::relay::sink::Cursor;
use sea_mq_model::relay::transactions::Splits;

const COLUMNS: usize = 11;
const RING: Ring<SinkId, COLUMNS> = Ring {
    table: "stream_progress_log",
    current_sql: "SELECT slot FROM sea_mq.stream_progress_log ORDER BY number DESC LIMIT 1",
    keys_sql: "SELECT sink FROM sea_mq.sinks",
    key: PhantomData,
};

/// Places of the columns behind slot and number.
mod column {
    pub const SINK: usize = 2;
    pub const STREAM_SEQUENCE: usize = 3;
    pub const STREAM_CREATED_US: usize = 4;
    pub const PUBLISHED: usize = 5;
    pub const TAIL_FROM: usize = 6;
    pub const REFILLING: usize = 7;
    pub const NOT_ATOMIC: usize = 8;
    pub const LAST_NOT_ATOMIC: usize = 9;
    pub const UPDATED_AT: usize = 10;
}

/// The ring of streams' progress, for the janitor.
pub fn ring() -> &'static Ring<SinkId, COLUMNS> {
    &RING
}

/// How far a stream has come, in the log and in JetStream; the beginning if nothing is known of it.
pub fn load(sink: SinkId) -> Cursor {
    let position = cursors::load(ReaderId::Stream(sink));
    let Some(row) = RING.newest(sink) else { return Cursor { position, ..Cursor::start() } };
    let int8 = |column: usize| row[column].map(|datum| datum.value() as i64);
    Cursor {
        position,
        stream_sequence: int8(column::STREAM_SEQUENCE).map_or(0, i64::cast_unsigned),
        stream_created_us: int8(column::STREAM_CREATED_US),
        tail_from: int8(column::TAIL_FROM).map(i64::cast_unsigned),
        refilling: row[column::REFILLING].is_some_and(|datum| datum.value() != 0),
    }
}

/// Saves how far a stream has come, and what was stored since that was saved last. `slot`: the current slot of the log's ring.
pub fn save(sink: SinkId, cursor: &Cursor, runs: &[Run], slot: i16) {
    let stored: u64 = runs.iter().filter(|run| run.first_stream_seq.is_some()).map(|run| run.events).sum();
    cursors::save(ReaderId::Stream(sink), &cursor.position);
    let mut row = newest(sink);
    row[column::STREAM_SEQUENCE] = int8(cursor.stream_sequence.cast_signed());
    row[column::STREAM_CREATED_US] = cursor.stream_created_us.and_then(int8);
    add(&mut row, column::PUBLISHED, stored.cast_signed());
    row[column::TAIL_FROM] = cursor.tail_from.and_then(|tail| int8(tail.cast_signed()));
    row[column::REFILLING] = Some(Datum::from(cursor.refilling));
    row[column::UPDATED_AT] = int8(clock::now());
    RING.append(row);
    runs.iter().for_each(|run| journal::append(sink, run, slot));
}

/// Records that transactions were not published as one. One that a restart cut in two counts once.
pub fn save_splits(sink: SinkId, splits: &Splits) {
    let what = format!("transaction {}: {}", splits.xid, splits.reason.words());
    let mut row = newest(sink);
    // SAFETY: the column has the type text.
    let last = row[column::LAST_NOT_ATOMIC].map(|datum| unsafe { text(datum) });
    if last.as_ref() != Some(&what) {
        add(&mut row, column::NOT_ATOMIC, splits.count.cast_signed());
        row[column::LAST_NOT_ATOMIC] = Some(text_datum(&what));
        RING.append(row);
    }
}

/// The newest row of a stream; that of the beginning if it has none.
fn newest(sink: SinkId) -> Columns<COLUMNS> {
    RING.newest(sink).unwrap_or_else(|| {
        let mut row = [None; COLUMNS];
        row[column::SINK] = int8(sink);
        for counter in [column::STREAM_SEQUENCE, column::PUBLISHED, column::NOT_ATOMIC] {
            row[counter] = int8(0);
        }
        row[column::REFILLING] = Some(Datum::from(false));
        row[column::UPDATED_AT] = int8(clock::now());
        row
    })
}
