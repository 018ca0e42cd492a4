//! How much of the log is not published yet, in bytes: estimated from samples, so that it costs the same whatever waits.
//!
//! As of the cursors last saved. Each slot's places that a sink has before it are cut into strata, and the first rows of
//! each tell how dense the rest of it is; a stratum with few rows is counted. What a transaction wrote that was in progress
//! when the cursor passed is left out.

use pgrx::pg_sys;

use super::ring::{SLOTS, log_table};
use super::rows::{self, log_column};
use super::{cursors, outbox};
use crate::sys::relation::{Compare, Key, Relation};
use sea_mq_model::broker::SinkId;
use sea_mq_model::domain::position::Position;
use sea_mq_model::domain::reader::Hold;

const STRATA: i64 = 64;
/// Rows read of each stratum.
const SAMPLE: usize = 16;

/// Of all sinks.
pub fn bytes() -> u64 {
    let mut sinks: Vec<SinkId> = (0..SLOTS).flat_map(outbox::sinks_in).collect();
    sinks.sort_unstable();
    sinks.dedup();
    sinks.into_iter().map(bytes_of).sum()
}

/// Of one sink: what the reader that is furthest behind has before it. A stream that gets nothing, since there is no broker,
/// counts only where nobody else reads; endpoints never do.
pub fn bytes_of(sink: SinkId) -> u64 {
    let mut readers = cursors::holding(sink);
    if readers.iter().any(|(_, hold)| *hold != Hold::WhileFresh) {
        readers.retain(|(_, hold)| *hold == Hold::UntilRead);
    }
    let ahead_of = |at: Position| (0..SLOTS).map(|slot| bytes_in(slot, sink, &at)).sum();
    readers.into_iter().map(|(reader, _)| ahead_of(cursors::load(reader))).max().unwrap_or(0)
}

fn bytes_in(slot: i16, sink: SinkId, at: &Position) -> u64 {
    let table = Relation::open(&log_table(slot));
    if table.is_empty() {
        return 0;
    }
    let passed = at.batch.as_ref().map_or(at.floor, |batch| batch.at.max(at.floor));
    let sample = Sample { index: format!("outbox_log_{slot}_sink_seq"), table, sink, at };
    let Some((first, last)) = sample.bounds(passed) else { return 0 };
    let width = (last - first) / STRATA + 1;
    (0..STRATA)
        .map(|stratum| first + stratum * width)
        .take_while(|&from| from <= last)
        .map(|from| sample.stratum(from, (from + width - 1).min(last)))
        .sum()
}

struct Sample<'a> {
    table: Relation,
    index: String,
    sink: SinkId,
    at: &'a Position,
}

impl Sample<'_> {
    fn keys(&self, above: i64, up_to: i64) -> [Key; 3] {
        [
            Key::Int8(log_column::SINK, Compare::Equal, self.sink),
            Key::Int8(log_column::SEQ, Compare::Above, above),
            Key::Int8(log_column::SEQ, Compare::UpTo, up_to),
        ]
    }

    /// The first and the last place beyond `passed`.
    fn bounds(&self, passed: i64) -> Option<(i64, i64)> {
        let keys = self.keys(passed, i64::MAX);
        let mut ahead = self.table.scan(&self.index, &keys, snapshot());
        let first = ahead.next().map(|row| rows::log_key(row.values()).0);
        drop(ahead);
        let mut back = self.table.scan(&self.index, &keys, snapshot());
        let last = back.previous().map(|row| rows::log_key(row.values()).0);
        drop(back);
        first.zip(last)
    }

    /// About how many bytes the unread rows from place `from` to `to` take.
    fn stratum(&self, from: i64, to: i64) -> u64 {
        let mut scan = self.table.scan(&self.index, &self.keys(from - 1, to), snapshot());
        let (mut bytes, mut seen, mut reached) = (0, 0, from);
        while seen < SAMPLE {
            let Some(row) = scan.next() else {
                drop(scan);
                return bytes;
            };
            let columns = row.values();
            let (seq, xid, _) = rows::log_key(columns);
            if !self.at.is_past(xid, seq) {
                bytes += row.bytes() + rows::log_bytes_apart(columns);
            }
            (seen, reached) = (seen + 1, seq);
        }
        drop(scan);
        let part = (reached - from + 1).unsigned_abs();
        let whole = (to - from + 1).unsigned_abs();
        u64::try_from(u128::from(bytes) * u128::from(whole) / u128::from(part.max(1))).unwrap_or(u64::MAX)
    }
}

fn snapshot() -> pg_sys::Snapshot {
    // SAFETY: called in a transaction with an active snapshot.
    unsafe { pg_sys::GetActiveSnapshot() }
}
