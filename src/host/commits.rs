//! When transactions committed: the last of the server's, in shared memory. PostgreSQL itself keeps that only with
//! `track_commit_timestamp`. Only atomics: it is noted in a commit callback.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// A relay that keeps up asks for transactions of the last moment. Of older ones it knows when their events were emitted.
const SLOTS: usize = 4096;

/// The time of a transaction stands in the slot of its id, until another one comes by.
pub struct Commits([Slot; SLOTS]);

#[derive(Default)]
struct Slot {
    /// 0: being written, or never. Written after `at`, so that whoever finds it before and after finds its time between.
    xid: AtomicU64,
    /// Microseconds since 2000.
    at: AtomicI64,
}

impl Default for Commits {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Slot::default()))
    }
}

impl Commits {
    fn slot(&self, xid: u64) -> &Slot {
        &self.0[xid as usize % SLOTS]
    }

    pub fn note(&self, xid: u64, at: i64) {
        let slot = self.slot(xid);
        slot.xid.store(0, Ordering::Release);
        slot.at.store(at, Ordering::Release);
        slot.xid.store(xid, Ordering::Release);
    }

    /// When a transaction committed, unless that is long ago.
    pub fn at(&self, xid: u64) -> Option<i64> {
        let slot = self.slot(xid);
        let is_its = || slot.xid.load(Ordering::Acquire) == xid;
        let at = is_its().then(|| slot.at.load(Ordering::Acquire))?;
        is_its().then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_transactions_are_known_and_those_before_are_not_mistaken_for_them() {
        let commits = Commits::default();
        let last = 3 * SLOTS as u64;
        (1..=last).for_each(|xid| commits.note(xid, xid.cast_signed() * 10));
        assert_eq!(commits.at(last), Some(last.cast_signed() * 10));
        assert_eq!(commits.at(last + 1 - SLOTS as u64), Some((last.cast_signed() + 1 - SLOTS as i64) * 10));
        assert_eq!([commits.at(1), commits.at(last - SLOTS as u64), commits.at(last + 1)], [None; 3]);
    }
}
