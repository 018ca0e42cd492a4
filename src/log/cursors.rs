//! Cursors: how far each sink has come; and the journal of what was stored where.

use std::collections::HashMap;
use std::time::Duration;

use pgrx::pg_sys::Datum;
use uuid::Uuid;

use super::positions::{self, Columns, Ring};
use crate::host::spi::{self, Arg, TextRow};
use crate::sys::clock;
use crate::sys::datum::{text, text_datum};
use sea_mq_model::broker::SinkId;
use sea_mq_model::domain::position::{Batch, Moment, Position, Snapshot};
use sea_mq_model::domain::runs::Run;
use sea_mq_model::relay::sink::Cursor;
use sea_mq_model::relay::transactions::Splits;

const COLUMNS: usize = 18;
const RING: Ring<COLUMNS> = Ring {
    table: "cursor_log",
    current_sql: "SELECT slot FROM sea_mq.cursor_log ORDER BY number DESC LIMIT 1",
    keys_sql: "SELECT DISTINCT sink FROM sea_mq.cursor_log",
};

/// Places of the columns behind those of the position in the log.
mod column {
    pub const SINK: usize = 2;
    pub const STREAM_SEQUENCE: usize = 10;
    pub const STREAM_CREATED_US: usize = 11;
    pub const PUBLISHED: usize = 12;
    pub const TAIL_FROM: usize = 13;
    pub const REFILLING: usize = 14;
    pub const NOT_ATOMIC: usize = 15;
    pub const LAST_NOT_ATOMIC: usize = 16;
    pub const UPDATED_AT: usize = 17;
}

/// The ring of cursors, for the janitor.
pub fn ring() -> &'static Ring<COLUMNS> {
    &RING
}

/// The cursor of a sink; that of the beginning if it has none.
pub fn load(sink: SinkId) -> Cursor {
    let Some(row) = RING.newest(sink) else { return Cursor::start() };
    let int8 = |column: usize| row[column].map(|datum| datum.value() as i64);
    Cursor {
        position: positions::position(&row).unwrap_or_else(Position::start),
        stream_sequence: int8(column::STREAM_SEQUENCE).map_or(0, i64::cast_unsigned),
        stream_created_us: int8(column::STREAM_CREATED_US),
        tail_from: int8(column::TAIL_FROM).map(i64::cast_unsigned),
        refilling: row[column::REFILLING].is_some_and(|datum| datum.value() != 0),
    }
}

/// Saves a cursor and what was stored since it was saved last. `slot`: the current slot of the log's ring.
pub fn save(sink: SinkId, cursor: &Cursor, runs: &[Run], slot: i16) {
    let stored: u64 = runs.iter().filter(|run| run.first_stream_seq.is_some()).map(|run| run.events).sum();
    let mut row = newest(sink);
    positions::set_position(&mut row, &cursor.position);
    row[column::STREAM_SEQUENCE] = int8(cursor.stream_sequence.cast_signed());
    row[column::STREAM_CREATED_US] = cursor.stream_created_us.and_then(int8);
    add(&mut row, column::PUBLISHED, stored);
    row[column::TAIL_FROM] = cursor.tail_from.and_then(|tail| int8(tail.cast_signed()));
    row[column::REFILLING] = Some(Datum::from(cursor.refilling));
    row[column::UPDATED_AT] = int8(clock::now());
    RING.append(row);
    for run in runs {
        append_run(sink, run, slot);
    }
}

/// Records that transactions were not published as one. One that a restart cut in two counts once.
pub fn save_splits(sink: SinkId, splits: &Splits) {
    let what = format!("transaction {}: {}", splits.xid, splits.reason.words());
    let mut row = newest(sink);
    // SAFETY: the column has the type text.
    let last = row[column::LAST_NOT_ATOMIC].map(|datum| unsafe { text(datum) });
    if last.as_ref() != Some(&what) {
        add(&mut row, column::NOT_ATOMIC, splits.count);
        row[column::LAST_NOT_ATOMIC] = Some(text_datum(&what));
        RING.append(row);
    }
}

/// The newest row of a sink; that of the beginning if it has none.
fn newest(sink: SinkId) -> Columns<COLUMNS> {
    RING.newest(sink).unwrap_or_else(|| {
        let mut row = [None; COLUMNS];
        row[column::SINK] = int8(sink);
        positions::set_position(&mut row, &Position::start());
        for counter in [column::STREAM_SEQUENCE, column::PUBLISHED, column::NOT_ATOMIC] {
            row[counter] = int8(0);
        }
        row[column::REFILLING] = Some(Datum::from(false));
        row[column::UPDATED_AT] = int8(clock::now());
        row
    })
}

fn int8(value: i64) -> Option<Datum> {
    Some(Datum::from(value))
}

fn add(row: &mut Columns<COLUMNS>, column: usize, more: u64) {
    row[column] = int8(row[column].map_or(0, |datum| datum.value() as i64).saturating_add(more.cast_signed()));
}

fn append_run(sink: SinkId, run: &Run, slot: i16) {
    spi::execute(
        "INSERT INTO sea_mq.relay_journal (slot, sink, done, upto, first_seq, last_seq, events, first_stream_seq, published_at)
         VALUES ($1, $2, $3::pg_snapshot, $4::pg_snapshot, $5, $6, $7, $8, clock_timestamp())",
        &[
            Arg::Int8(i64::from(slot)),
            Arg::Int8(sink),
            Arg::Text(&run.done.to_string()),
            Arg::Text(&run.upto.to_string()),
            Arg::Int8(run.first_seq),
            Arg::Int8(run.last_seq),
            Arg::Int8(run.events.cast_signed()),
            Arg::OptionalInt8(run.first_stream_seq.map(u64::cast_signed)),
        ],
    );
}

/// Finds the position from which the events with a stream sequence above `last` have to be published again, and the stream
/// sequence before it, and forgets what the journal says of what is read again. `None`: the journal does not reach back that
/// far. Where transactions are stored as one, an event that was lost may stand in the log before one that was stored earlier
/// and is left: it is read again as well, and found in the stream's tail.
pub fn rewind(sink: SinkId, last: u64) -> Option<(Position, u64)> {
    let rows = spi::query(
        "SELECT f.done, f.upto, a.first_seq, a.first_stream_seq
         FROM (SELECT done, upto FROM sea_mq.relay_journal
               WHERE sink = $1 AND first_stream_seq IS NOT NULL AND first_stream_seq + events > $2 + 1
               ORDER BY first_stream_seq, published_at LIMIT 1) f,
            LATERAL (SELECT min(first_seq) AS first_seq FROM sea_mq.relay_journal
               WHERE sink = $1 AND first_stream_seq + events > $2 + 1 AND done::text = f.done::text) l,
            LATERAL (SELECT l.first_seq, min(first_stream_seq) AS first_stream_seq FROM sea_mq.relay_journal
               WHERE sink = $1 AND done::text = f.done::text AND first_seq >= l.first_seq) a",
        &[Arg::Int8(sink), Arg::Int8(last.cast_signed())],
    );
    let again = rows.first().map(|row| (spi::parsed::<String>(row, 0), spi::parsed::<i64>(row, 2))).unzip();
    spi::execute(
        "DELETE FROM sea_mq.relay_journal WHERE sink = $1 AND first_stream_seq IS NOT NULL
            AND (first_stream_seq + events > $2 + 1 OR (done::text = $3 AND first_seq >= $4))",
        &[
            Arg::Int8(sink),
            Arg::Int8(last.cast_signed()),
            Arg::OptionalText(again.0.as_deref()),
            Arg::OptionalInt8(again.1),
        ],
    );
    let row = rows.first()?;
    let done: Snapshot = spi::optional(row, 0)?;
    let upto: Snapshot = spi::optional(row, 1)?;
    let first_seq: i64 = spi::parsed(row, 2);
    // What had begun by then is not known any more, so the floor is the lowest, and stays so for this batch.
    let upto = Moment { snapshot: upto, next_xid: 0, ceiling: i64::MAX };
    let position = Position { done, next_xid: 0, floor: 0, batch: Some(Batch { upto, at: first_seq - 1 }) };
    Some((position, spi::parsed::<u64>(row, 3).saturating_sub(1)))
}

/// Sinks whose streams are to be refilled, and from which place in the log on.
pub fn refills() -> Vec<(SinkId, i64)> {
    let sql = "SELECT sink, from_seq FROM sea_mq.republish_requests";
    spi::query(sql, &[]).iter().map(|row| (spi::parsed(row, 0), spi::parsed(row, 1))).collect()
}

/// Where a refill from place `seq` has to begin so that it is about whole runs, and the stream sequence beyond which they
/// are stored, if any is.
pub fn refill_start(sink: SinkId, mut seq: i64) -> (i64, Option<u64>) {
    let sql =
        "SELECT min(first_seq), min(first_stream_seq) FROM sea_mq.relay_journal WHERE sink = $1 AND last_seq >= $2";
    loop {
        let rows = spi::query(sql, &[Arg::Int8(sink), Arg::Int8(seq)]);
        let Some(row) = rows.first() else { return (seq, None) };
        match spi::optional::<i64>(row, 0).filter(|&first| first < seq) {
            Some(first) => seq = first,
            None => return (seq, spi::optional::<u64>(row, 1).map(|first| first.saturating_sub(1))),
        }
    }
}

/// Forgets the request for a refill, and what the journal says of the runs that are looked at once more.
pub fn begin_refill(sink: SinkId, seq: i64) {
    spi::execute(
        "DELETE FROM sea_mq.relay_journal WHERE sink = $1 AND last_seq >= $2",
        &[Arg::Int8(sink), Arg::Int8(seq)],
    );
    spi::execute("DELETE FROM sea_mq.republish_requests WHERE sink = $1", &[Arg::Int8(sink)]);
}

/// Records an event that the broker will never take.
pub fn save_failure(sink: SinkId, id: Uuid, seq: i64, error: &str) {
    let args = [Arg::Text(&id.to_string()), Arg::Int8(seq), Arg::Int8(sink), Arg::Text(error)];
    spi::execute("SELECT sea_mq.set_aside($1::uuid, $2, $3, $4)", &args);
}

/// Places in the log of a sink's events that the broker will never take.
pub fn failures(sink: SinkId) -> Vec<i64> {
    let sql = "SELECT seq FROM sea_mq.publish_failures WHERE sink = $1";
    spi::query(sql, &[Arg::Int8(sink)]).iter().filter_map(|row| spi::optional(row, 0)).collect()
}

/// Forgets refused events about which something was decided longer ago than the log is kept.
pub fn forget_resolved(retention: Duration) {
    let sql = "SELECT sea_mq.forget_failures(make_interval(secs => $1))";
    spi::execute(sql, &[Arg::Int8(i64::try_from(retention.as_secs()).unwrap_or(i64::MAX))]);
}

/// Of these message ids, those that are events of the log, with their (last) place in it.
pub fn places(ids: &[String]) -> HashMap<String, i64> {
    let json = serde_json::to_string(ids).unwrap_or_else(|_| "[]".into());
    let sql = "SELECT l.id, max(l.seq) FROM sea_mq.outbox_log l
        JOIN (SELECT t.id::uuid AS id FROM json_array_elements_text($1::json) AS t(id)
              WHERE t.id ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$') wanted ON wanted.id = l.id
        GROUP BY l.id";
    spi::query(sql, &[Arg::Text(&json)]).iter().map(|row| (spi::parsed(row, 0), spi::parsed(row, 1))).collect()
}

/// Runs that were stored beyond stream sequence `after` and begin up to `upto`, in the order of the stream.
pub fn runs(sink: SinkId, after: u64, upto: u64, limit: i64) -> Vec<Run> {
    let rows = spi::query(
        "SELECT done, upto, first_seq, last_seq, events, first_stream_seq FROM sea_mq.relay_journal
         WHERE sink = $1 AND first_stream_seq > $2 AND first_stream_seq <= $3 ORDER BY first_stream_seq LIMIT $4",
        &[Arg::Int8(sink), Arg::Int8(after.cast_signed()), Arg::Int8(upto.cast_signed()), Arg::Int8(limit)],
    );
    let run = |row: &TextRow| Run {
        done: spi::optional(row, 0).unwrap_or_else(Snapshot::empty),
        upto: spi::optional(row, 1).unwrap_or_else(Snapshot::empty),
        first_seq: spi::parsed(row, 2),
        last_seq: spi::parsed(row, 3),
        events: spi::parsed(row, 4),
        place: 0,
        first_stream_seq: spi::optional(row, 5),
    };
    rows.iter().map(run).collect()
}
