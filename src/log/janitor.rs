//! Housekeeping of the ring: moves writers on to the next slot, and gives back the space of what is published and old.
//!
//! Reads only, unless there is something to do.

use std::time::Duration;

use pgrx::{log, pg_sys};

use super::positions::{self, Ring, RingKey};
use super::{cursors, outbox, refused, ring, stream_progress};
use crate::host::session::{self, Failed};
use crate::host::{gucs, spi};
use crate::sys::relation::Relation;
use sea_mq_model::domain::reader::Hold;

/// How often there can be something to do.
pub fn interval() -> Duration {
    (gucs::retention() / 8).clamp(Duration::from_millis(250), Duration::from_secs(10))
}

/// One round.
pub fn run_once() -> Result<(), Failed> {
    let (current, old) = session::transaction(|| {
        let current = ring::current_slot();
        if must_advance(current) {
            ring::advance(current);
            log!("sea_mq: the outbox log moved on from slot {current}");
        }
        (current, ring::closed_before(current, gucs::retention()))
    })?;
    for slot in old.into_iter().filter(|&slot| slot != current) {
        let spent = session::transaction(|| !is_empty(slot) && is_spent(slot))?;
        // A failure to get the lock is no failure: somebody reads the slot, and the next round tries again.
        if spent && session::transaction(|| truncate(slot)).is_ok_and(|truncated| truncated) {
            log!("sea_mq: slot {slot} of the outbox log was emptied");
        }
    }
    turn(cursors::ring())?;
    turn(stream_progress::ring())?;
    session::transaction(|| refused::forget_resolved(gucs::retention()))
}

/// Lets a ring of positions move on to its other slot, if it has grown.
pub fn turn<K: RingKey, const N: usize>(ring: &'static Ring<K, N>) -> Result<(), Failed> {
    if session::transaction(|| ring.has_grown())? {
        // A failure to get the locks is no failure: somebody uses the slots, and the next round tries again.
        if let Ok(moved) = session::transaction(|| ring.move_on()) {
            moved.remember();
        }
    }
    Ok(())
}

fn must_advance(current: i16) -> bool {
    if is_empty(current) || !is_empty((current + 1) % ring::SLOTS) {
        return false;
    }
    size(current) >= gucs::slot_size()
        || ring::current_is_older_than(current, gucs::retention() / (ring::SLOTS as u32 / 2))
}

fn is_empty(slot: i16) -> bool {
    Relation::open(&ring::log_table(slot)).is_empty()
}

/// Bytes of the table itself, without indexes.
fn size(slot: i16) -> u64 {
    u64::from(Relation::open(&ring::log_table(slot)).blocks()) * u64::from(pg_sys::BLCKSZ)
}

/// Whether no reader holds anything of the slot back, as far as the saved cursors say.
fn is_spent(slot: i16) -> bool {
    !is_held(slot, |_| true)
}

/// Whether a reader with such a hold holds anything of the slot back.
fn is_held(slot: i16, counts: impl Fn(Hold) -> bool) -> bool {
    let now = outbox::now();
    let holds = |sink, (reader, hold)| {
        counts(hold)
            && outbox::slot_has_unread(slot, sink, &cursors::load(reader), &now)
            && match hold {
                Hold::UntilRead | Hold::UntilPassed => true,
                Hold::WhileFresh => !ring::outlived(slot, sink),
            }
    };
    outbox::sinks_in(slot).into_iter().any(|sink| cursors::holding(sink).into_iter().any(|reader| holds(sink, reader)))
}

/// Events emitted before this (microseconds since 2000-01-01 UTC) no longer wait for endpoints, if the log is as large as
/// `most`: those of its oldest slot, if endpoints alone hold it back.
pub fn crowded_out(most: u64) -> Option<i64> {
    // Whoever learned late that the slot was closed has appended to it for a moment.
    const LATE: i64 = 60_000_000;
    if ring::bytes() < most {
        return None;
    }
    let old = ring::closed_before(ring::current_slot(), gucs::retention());
    let slot = old.into_iter().find(|&slot| !is_empty(slot))?;
    if is_held(slot, |hold| hold != Hold::UntilPassed) { None } else { ring::closed_at(slot).map(|at| at + LATE) }
}

/// Empties a slot, unless something in it is unread or somebody uses it. Under the lock no transaction that wrote to the
/// slot is still open, so a fresh snapshot shows all there is.
fn truncate(slot: i16) -> bool {
    spi::execute_dynamic(&format!(
        "LOCK TABLE ONLY sea_mq.outbox_log_{slot}, ONLY sea_mq.relay_journal_{slot} IN ACCESS EXCLUSIVE MODE NOWAIT"
    ));
    let spent = positions::with_latest_snapshot(|| is_spent(slot));
    if spent {
        spi::execute_dynamic(&format!("TRUNCATE ONLY sea_mq.outbox_log_{slot}, ONLY sea_mq.relay_journal_{slot}"));
    }
    spent
}
