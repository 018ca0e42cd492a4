//! Positions in the outbox log.
//!
//! What a reader has taken is not a number but a snapshot: everything that is visible in it has been handed over. A batch is
//! what the next snapshot shows and this one does not; it is read in chunks by `seq`. `docs/concepts.md` says why this
//! loses nothing and keeps the serialisation order.

use std::fmt;
use std::str::FromStr;

/// A snapshot of the set of finished transactions, in PostgreSQL's `pg_snapshot` notation `xmin:xmax:xip,…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub xmin: u64,
    pub xmax: u64,
    /// Transactions in progress, ascending, all in `xmin..xmax`.
    pub in_progress: Vec<u64>,
}

impl Snapshot {
    /// The snapshot in which nothing is visible.
    pub fn empty() -> Self {
        Self { xmin: 1, xmax: 1, in_progress: Vec::new() }
    }

    /// Whether a transaction that committed is visible: the rule of `pg_visible_in_snapshot`.
    pub fn shows(&self, xid: u64) -> bool {
        xid < self.xmin || (xid < self.xmax && self.in_progress.binary_search(&xid).is_err())
    }

    /// The transactions that were in progress here and have ended in `later`.
    pub fn ended_in(&self, later: &Snapshot) -> Vec<u64> {
        self.in_progress.iter().copied().filter(|&xid| later.shows(xid)).collect()
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:", self.xmin, self.xmax)?;
        for (i, xid) in self.in_progress.iter().enumerate() {
            write!(f, "{}{xid}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// A text that is not a `pg_snapshot`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a snapshot: \"{0}\"")]
pub struct NotASnapshot(String);

impl FromStr for Snapshot {
    type Err = NotASnapshot;

    fn from_str(text: &str) -> Result<Self, NotASnapshot> {
        let fail = || NotASnapshot(text.to_owned());
        let number = |part: &str| part.parse::<u64>().map_err(|_| fail());
        let mut parts = text.splitn(3, ':');
        let xmin = number(parts.next().ok_or_else(fail)?)?;
        let xmax = number(parts.next().ok_or_else(fail)?)?;
        let list = parts.next().ok_or_else(fail)?;
        let in_progress = list.split(',').filter(|part| !part.is_empty()).map(number).collect::<Result<_, _>>()?;
        Ok(Self { xmin, xmax, in_progress })
    }
}

/// A moment of the log: what was visible, and bounds for what was not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    pub snapshot: Snapshot,
    /// Read after the snapshot was taken: transactions with this id or a greater one began later. It can be well above
    /// the snapshot's `xmax`, which is only one more than the last id that had *ended*. 0: not known.
    pub next_xid: u64,
    /// Read after the snapshot was taken: no row that it shows has a greater `seq`.
    pub ceiling: i64,
}

/// How far a reader has come.
///
/// Invariant of `floor`: every row whose transaction has an id of at least `next_xid` has a greater `seq`. So what is new lies
/// above `floor`, but for the rows of the few transactions that had begun and not ended when `done` was taken: those in
/// progress in `done`, and those from its `xmax` up to `next_xid`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// All that is visible here has been handed over.
    pub done: Snapshot,
    /// As in [`Moment`], of when `done` was taken.
    pub next_xid: u64,
    /// A lower bound for the `seq` of what was not yet begun.
    pub floor: i64,
    /// The batch that is being handed over, if it was not finished in one chunk.
    pub batch: Option<Batch>,
}

/// A batch under way: the rows that `upto` shows and `done` does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub upto: Moment,
    /// Rows of this batch up to this `seq` have been handed over.
    pub at: i64,
}

impl Position {
    /// Before the first event.
    pub fn start() -> Self {
        Self { done: Snapshot::empty(), next_xid: 0, floor: 0, batch: None }
    }

    /// Where to begin again so that what was handed over from place `seq` on is looked at once more. All of that is one
    /// batch, with what is left of the batch under way; what comes after it is as new as it was.
    pub fn back_to(&self, seq: i64) -> Self {
        // Nothing that was not handed over may lie before the new batch, nor its beginning raise the floor.
        let (upto, at) = match &self.batch {
            Some(batch) => (batch.upto.clone(), batch.at),
            None => {
                let upto = Moment { snapshot: self.done.clone(), next_xid: self.next_xid, ceiling: i64::MAX };
                (upto, self.floor)
            }
        };
        let batch = Batch { upto, at: at.min(seq - 1) };
        Self { done: Snapshot::empty(), next_xid: 0, floor: 0, batch: Some(batch) }
    }

    /// Whether an event has been handed over.
    pub fn is_past(&self, xid: u64, seq: i64) -> bool {
        self.done.shows(xid)
            || self.batch.as_ref().is_some_and(|batch| seq <= batch.at && batch.upto.snapshot.shows(xid))
    }

    /// The batch to read from: the one under way, or a new one up to `now`.
    pub fn batch_or(&self, now: &Moment) -> Batch {
        self.batch.clone().unwrap_or_else(|| Batch { upto: now.clone(), at: 0 })
    }

    /// The position after a chunk of `batch` whose last event is `last` (`None`: there was none).
    pub fn after(&self, batch: Batch, last: Option<i64>, finished: bool) -> Self {
        let at = last.unwrap_or(batch.at);
        if finished {
            let Moment { snapshot, next_xid, .. } = batch.upto;
            let floor = if next_xid == 0 { self.floor } else { self.floor.max(at) };
            return Self { done: snapshot, next_xid, floor, batch: None };
        }
        Self { batch: Some(Batch { at, ..batch }), ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(text: &str) -> Snapshot {
        text.parse().unwrap()
    }

    #[test]
    fn a_snapshot_reads_and_writes_postgres_notation() {
        for text in ["1:1:", "10:20:10,14,15", "748:748:"] {
            assert_eq!(snapshot(text).to_string(), text);
        }
        for text in ["", "1", "1:2", "a:b:", "1:2:x"] {
            assert!(text.parse::<Snapshot>().is_err(), "{text}");
        }
    }

    #[test]
    fn visibility_is_that_of_pg_visible_in_snapshot() {
        let s = snapshot("10:20:10,14");
        let shown: Vec<u64> = (8..22).filter(|&xid| s.shows(xid)).collect();
        assert_eq!(shown, [8, 9, 11, 12, 13, 15, 16, 17, 18, 19]);
        assert!(!Snapshot::empty().shows(1));
    }

    #[test]
    fn transactions_that_ended_are_found() {
        let earlier = snapshot("10:20:10,14,15");
        assert_eq!(earlier.ended_in(&snapshot("14:30:14,25")), [10, 15]);
        assert_eq!(earlier.ended_in(&earlier), Vec::<u64>::new());
    }

    fn moment(text: &str, ceiling: i64) -> Moment {
        let snapshot = snapshot(text);
        Moment { next_xid: snapshot.xmax + 3, snapshot, ceiling }
    }

    fn position(text: &str, floor: i64) -> Position {
        let Moment { snapshot, next_xid, .. } = moment(text, 0);
        Position { done: snapshot, next_xid, floor, batch: None }
    }

    #[test]
    fn a_batch_is_handed_over_in_chunks() {
        let start = position("10:10:", 5);
        let half = start.after(start.batch_or(&moment("20:20:", 100)), Some(50), false);
        assert!(half.is_past(15, 50) && !half.is_past(15, 51) && half.is_past(9, 900) && !half.is_past(20, 1));
        let whole = half.after(half.batch_or(&moment("99:99:", 999)), Some(80), true);
        assert_eq!(whole, position("20:20:", 80));
    }

    #[test]
    fn the_floor_rises_only_if_it_is_known_what_had_begun() {
        let start = position("10:10:", 5);
        let unknown = Moment { next_xid: 0, ..moment("20:20:", 100) };
        assert_eq!(start.after(Batch { upto: unknown, at: 0 }, Some(50), true).floor, 5);
    }

    #[test]
    fn going_back_hands_over_again_what_was_and_then_what_was_not() {
        let idle = position("10:20:12", 50);
        let back = idle.back_to(30);
        assert!(back.is_past(9, 29) && !back.is_past(9, 30) && !back.is_past(12, 7));
        let whole = back.after(back.batch_or(&moment("99:99:", 99)), Some(48), true);
        assert_eq!((whole.done, whole.next_xid, whole.floor), (idle.done.clone(), idle.next_xid, 48));
        assert_eq!(idle.back_to(1000).batch.map(|batch| batch.at), Some(50), "the floor is not raised");
        // What is left of a batch under way is not passed over.
        let half = idle.after(idle.batch_or(&moment("20:20:", 100)), Some(60), false);
        let back = half.back_to(1000);
        assert!(back.is_past(12, 60) && !back.is_past(12, 61) && !back.is_past(20, 1));
        assert_eq!(back.back_to(30).batch.map(|batch| batch.at), Some(29));
    }

    #[test]
    fn an_empty_batch_keeps_the_floor() {
        let start = position("10:10:", 5);
        let after = start.after(start.batch_or(&moment("20:20:", 100)), None, true);
        assert_eq!((after.floor, after.batch), (5, None));
    }
}
