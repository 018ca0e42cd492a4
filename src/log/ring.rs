//! The ring of slots: which one writers append to, and when the next one takes over.

use std::time::Duration;

use pgrx::pg_sys;

use crate::host::spi::{self, Arg};
use crate::sys::relation::{self, Relation};
use crate::sys::watch::{Kept, Table};

/// Slots of the ring. `sql/log/outbox.sql` creates as many partitions.
pub const SLOTS: i16 = 8;

/// The table of a slot.
pub fn log_table(slot: i16) -> String {
    format!("outbox_log_{slot}")
}

/// What a writer must know of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ring {
    /// The slot to append to.
    pub current_slot: i16,
    /// The mark of this installation on its rows.
    pub origin: i32,
}

/// Where a writer appends to.
#[derive(Clone, Copy)]
pub struct Place {
    pub ring: Ring,
    /// The table of the current slot.
    pub table: pg_sys::Oid,
    /// The sequence that gives places in the log.
    pub sequence: pg_sys::Oid,
}

thread_local! {
    static PLACE: Kept<(), Place> = Kept::new(&[Table::OutboxRing]);
}

/// Where to append to, as this process knows it. A writer that learns too late that the slot has changed appends to the slot
/// before, which is as good: nothing is truncated without looking again under a lock.
pub fn place() -> Place {
    let look = || {
        let ring = read();
        let table = relation::require(&log_table(ring.current_slot));
        Place { ring, table, sequence: relation::require("outbox_seq") }
    };
    PLACE.with(|place| place.get(&(), look))
}

/// The ring as of now.
pub fn read() -> Ring {
    let ring = Relation::open("outbox_ring");
    let read = ring.only_row(|row| {
        let [_, slot, origin] = row.values::<3>();
        Ring {
            current_slot: slot.map_or(0, |slot| slot.value() as i16),
            origin: origin.map_or(0, |origin| origin.value() as i32),
        }
    });
    read.unwrap_or(Ring { current_slot: 0, origin: 0 })
}

/// The slot that writers append to now.
pub fn current_slot() -> i16 {
    read().current_slot
}

/// Makes the next slot the current one.
pub fn advance(current: i16) {
    let next = i64::from((current + 1) % SLOTS);
    spi::execute("UPDATE sea_mq.outbox_ring SET current_slot = $1", &[Arg::Int8(next)]);
    spi::execute(
        "INSERT INTO sea_mq.outbox_slots AS s (slot, opened_at, closed_at)
         SELECT $1, installed_at, clock_timestamp() FROM sea_mq.installation
         ON CONFLICT (slot) DO UPDATE SET closed_at = excluded.closed_at",
        &[Arg::Int8(i64::from(current))],
    );
    spi::execute(
        "INSERT INTO sea_mq.outbox_slots AS s (slot, opened_at) VALUES ($1, clock_timestamp())
         ON CONFLICT (slot) DO UPDATE SET opened_at = excluded.opened_at, closed_at = NULL",
        &[Arg::Int8(next)],
    );
}

/// Whether the current slot has been open for longer than `age`.
pub fn current_is_older_than(current: i16, age: Duration) -> bool {
    let rows = spi::query(
        "SELECT clock_timestamp() - coalesce((SELECT s.opened_at FROM sea_mq.outbox_slots s WHERE s.slot = $1),
             (SELECT i.installed_at FROM sea_mq.installation i)) > make_interval(secs => $2)",
        &[Arg::Int8(i64::from(current)), Arg::Int8(seconds(age))],
    );
    rows.first().is_some_and(|row| spi::flag(row, 0))
}

/// Slots, but for the current one, that were closed longer than `age` ago, oldest first.
pub fn closed_before(current: i16, age: Duration) -> Vec<i16> {
    let rows = spi::query(
        "SELECT slot FROM sea_mq.outbox_slots
         WHERE slot <> $1 AND closed_at < clock_timestamp() - make_interval(secs => $2) ORDER BY closed_at",
        &[Arg::Int8(i64::from(current)), Arg::Int8(seconds(age))],
    );
    rows.iter().map(|row| spi::parsed(row, 0)).collect()
}

/// When a slot was closed (microseconds since 2000-01-01 UTC).
pub fn closed_at(slot: i16) -> Option<i64> {
    let sql =
        "SELECT (extract(epoch FROM closed_at - '2000-01-01 00:00:00+00') * 1000000)::bigint FROM sea_mq.outbox_slots
        WHERE slot = $1";
    spi::query(sql, &[Arg::Int8(i64::from(slot))]).first().and_then(|row| spi::optional(row, 0))
}

/// What the log takes, indexes included.
pub fn bytes() -> u64 {
    let rows = spi::query("SELECT bytes FROM sea_mq.log_size()", &[]);
    rows.first().and_then(|row| spi::optional(row, 0)).unwrap_or(0)
}

/// Whether a closed slot is older than a sink's stream would keep what is in it.
pub fn outlived(slot: i16, sink: i64) -> bool {
    let rows = spi::query(
        "SELECT EXISTS (SELECT FROM sea_mq.outbox_slots o, sea_mq.streams s WHERE o.slot = $1 AND s.sink = $2
            AND s.max_age > '0' AND o.closed_at < clock_timestamp() - least(s.max_age, '100 years'))",
        &[Arg::Int8(i64::from(slot)), Arg::Int8(sink)],
    );
    rows.first().is_some_and(|row| spi::flag(row, 0))
}

fn seconds(age: Duration) -> i64 {
    i64::try_from(age.as_secs()).unwrap_or(i64::MAX)
}
