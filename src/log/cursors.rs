//! Cursors: how far each reader has come in the log, and which readers hold a row back.

use std::marker::PhantomData;

use pgrx::pg_sys::{self, Datum};

use super::positions::{Columns, Ring};
use crate::host::installation;
use crate::host::spi::{self, Arg};
use crate::sys::clock;
use crate::sys::datum::text_datum;
use sea_mq_model::broker::SinkId;
use sea_mq_model::domain::position::{Batch, Moment, Position, Snapshot};
use sea_mq_model::domain::reader::{self, Hold, ReaderId};

const COLUMNS: usize = 12;
const RING: Ring<ReaderId, COLUMNS> = Ring {
    table: "cursor_log",
    current_sql: "SELECT slot FROM sea_mq.cursor_log ORDER BY number DESC LIMIT 1",
    // Of those that are gone nothing is left once the ring has turned.
    keys_sql: "SELECT reader_kind, reader FROM sea_mq.readers",
    key: PhantomData,
};
const READER_KIND: usize = 2;
const READER: usize = 3;
/// Place of the first of the seven columns of a position.
const POSITION: usize = 4;
const UPDATED_AT: usize = 11;

/// The ring of cursors, for the janitor.
pub fn ring() -> &'static Ring<ReaderId, COLUMNS> {
    &RING
}

/// How far a reader has come; the beginning if nothing is known of it.
pub fn load(reader: ReaderId) -> Position {
    RING.newest(reader).and_then(|row| position(&row)).unwrap_or_else(Position::start)
}

/// Saves how far a reader has come.
pub fn save(reader: ReaderId, position: &Position) {
    let mut row = [None; COLUMNS];
    row[READER_KIND] = Some(text_datum(reader.kind()));
    row[READER] = Some(Datum::from(reader.number()));
    set_position(&mut row, position);
    row[UPDATED_AT] = Some(Datum::from(clock::now()));
    RING.append(row);
}

/// The readers that hold back the rows of a sink, and how long. Janitor and back-pressure ask here.
pub fn holding(sink: SinkId) -> Vec<(ReaderId, Hold)> {
    reader::holding(sink, installation::has_broker(), readers_of(sink))
}

/// The readers of a sink, but for its stream.
fn readers_of(sink: SinkId) -> Vec<ReaderId> {
    let sql = "SELECT reader_kind, reader FROM sea_mq.readers WHERE sink = $1 AND reader_kind <> 'stream'";
    let rows = spi::query(sql, &[Arg::Int8(sink)]);
    rows.iter().filter_map(|row| ReaderId::new(&spi::parsed::<String>(row, 0), spi::parsed(row, 1))).collect()
}

/// The position in the log that a row has, if it has one.
fn position(row: &Columns<COLUMNS>) -> Option<Position> {
    let int8 = |place: usize| row[POSITION + place].map_or(0, |datum| datum.value() as i64);
    let done = snapshot(row[POSITION]?);
    let batch = row[POSITION + 3].map(|upto| Batch {
        upto: Moment { snapshot: snapshot(upto), next_xid: int8(4).cast_unsigned(), ceiling: int8(5) },
        at: int8(6),
    });
    Some(Position { done, next_xid: int8(1).cast_unsigned(), floor: int8(2), batch })
}

/// Puts a position in the log into a row.
fn set_position(row: &mut Columns<COLUMNS>, position: &Position) {
    let Position { done, next_xid, floor, batch } = position;
    let int8 = |value: i64| Some(Datum::from(value));
    let columns = [
        Some(snapshot_datum(done)),
        int8(next_xid.cast_signed()),
        int8(*floor),
        batch.as_ref().map(|batch| snapshot_datum(&batch.upto.snapshot)),
        batch.as_ref().and_then(|batch| int8(batch.upto.next_xid.cast_signed())),
        batch.as_ref().and_then(|batch| int8(batch.upto.ceiling)),
        batch.as_ref().and_then(|batch| int8(batch.at)),
    ];
    row[POSITION..POSITION + columns.len()].copy_from_slice(&columns);
}

/// Nothing is visible in the empty snapshot, so an unreadable one would delay and not lose.
fn snapshot(datum: Datum) -> Snapshot {
    // SAFETY: the datum is a pg_snapshot.
    let text = unsafe {
        let text = pgrx::direct_function_call_as_datum(pg_sys::pg_snapshot_out, &[Some(datum)]);
        text.map(|text| std::ffi::CStr::from_ptr(text.cast_mut_ptr()).to_string_lossy().into_owned())
    };
    text.and_then(|text| text.parse().ok()).unwrap_or_else(Snapshot::empty)
}

fn snapshot_datum(snapshot: &Snapshot) -> Datum {
    let text = std::ffi::CString::new(snapshot.to_string()).unwrap_or_default();
    // SAFETY: the function takes a C string, which outlives the call, and gives a pg_snapshot or an ERROR.
    unsafe { pgrx::direct_function_call_as_datum(pg_sys::pg_snapshot_in, &[Some(Datum::from(text.as_ptr()))]) }
        .unwrap_or(Datum::from(0))
}
