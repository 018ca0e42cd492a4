//! What of a sink is committed and not published: found through its stream's cursor, by the log's indexes, without a plan. It costs
//! what waits, whatever is retained.
//!
//! As of the cursor last saved.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};

use pgrx::pg_sys;

use super::ring::{SLOTS, log_table};
use super::rows::{self, log_column};
use super::{cursors, outbox};
use crate::sys::relation::{Compare, Key, Relation};
use sea_mq_model::broker::SinkId;
use sea_mq_model::domain::position::Position;
use sea_mq_model::domain::reader::ReaderId;

#[derive(Clone, Copy, Default)]
pub struct Unread {
    pub count: i64,
    /// Place in the log of the first of all, and when it was emitted (microseconds since 2000-01-01 UTC).
    pub first: Option<(i64, i64)>,
}

/// What the active snapshot shows does not change: what was found out under it holds as long as it is the same.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Instant {
    statement: i64,
    completed: u64,
    command: u32,
    xids: (u32, u32),
}

impl Instant {
    pub fn now() -> Self {
        // SAFETY: called in a transaction with an active snapshot.
        unsafe {
            let snapshot = &*pg_sys::GetActiveSnapshot();
            Self {
                statement: pg_sys::GetCurrentStatementStartTimestamp(),
                completed: snapshot.snapXactCompletionCount,
                command: snapshot.curcid,
                xids: (u32::from(snapshot.xmin), u32::from(snapshot.xmax)),
            }
        }
    }
}

type Positions = HashMap<SinkId, Position>;

thread_local! {
    /// How far the sinks' streams had come under the snapshot used last.
    static POSITIONS: RefCell<Option<(Instant, Positions)>> = const { RefCell::new(None) };
}

/// How far a sink's stream has come, looked up once under a snapshot.
pub fn position(sink: SinkId) -> Position {
    let now = Instant::now();
    let known = POSITIONS.with_borrow(|kept| {
        kept.as_ref().filter(|(at, _)| *at == now).and_then(|(_, positions)| positions.get(&sink).cloned())
    });
    known.unwrap_or_else(|| {
        let position = cursors::load(ReaderId::Stream(sink));
        POSITIONS.with_borrow_mut(|kept| {
            if kept.as_ref().is_none_or(|(at, _)| *at != now) {
                *kept = Some((now, HashMap::new()));
            }
            if let Some((_, positions)) = kept {
                positions.insert(sink, position.clone());
            }
        });
        position
    })
}

/// Whether the cursor of the stream of an event's sink has passed it.
pub fn is_passed(sink: SinkId, seq: i64, xid: u64) -> bool {
    let now = Instant::now();
    let known = POSITIONS.with_borrow(|kept| {
        let (_, positions) = kept.as_ref().filter(|(at, _)| *at == now)?;
        positions.get(&sink).map(|position| position.is_past(xid, seq))
    });
    known.unwrap_or_else(|| position(sink).is_past(xid, seq))
}

/// Counts up to `up_to`.
pub fn of(sink: SinkId, up_to: i64) -> Unread {
    ahead_of(sink, position(sink), up_to)
}

/// What a reader at a position has before it, counted up to `up_to`.
pub fn ahead_of(sink: SinkId, at: Position, up_to: i64) -> Unread {
    let look = Look { sink, at, up_to };
    let mut unread = Unread::default();
    for slot in 0..SLOTS {
        let table = Relation::open(&log_table(slot));
        if !table.is_empty() {
            look.at_slot(slot, &table, &mut unread);
        }
    }
    unread
}

/// The sinks that have something unread in the log, with its first place.
pub fn sinks() -> Vec<(SinkId, i64)> {
    let sinks: BTreeSet<SinkId> = (0..SLOTS).flat_map(outbox::sinks_in).collect();
    sinks.into_iter().filter_map(|sink| of(sink, 1).first.map(|(seq, _)| (sink, seq))).collect()
}

struct Look {
    sink: SinkId,
    at: Position,
    up_to: i64,
}

impl Look {
    fn at_slot(&self, slot: i16, table: &Relation, unread: &mut Unread) {
        let passed = self.at.batch.as_ref().map_or(self.at.floor, |batch| batch.at.max(self.at.floor));
        let ahead = [
            Key::Int8(log_column::SINK, Compare::Equal, self.sink),
            Key::Int8(log_column::SEQ, Compare::Above, passed),
        ];
        self.scan(table, &format!("outbox_log_{slot}_sink_seq"), &ahead, unread);
        if passed > 0 {
            for xid in self.late(slot) {
                let late = [
                    Key::Xid8(log_column::XID, Compare::Equal, xid),
                    Key::Int8(log_column::SEQ, Compare::UpTo, passed),
                ];
                self.scan(table, &format!("outbox_log_{slot}_xid_seq"), &late, unread);
            }
        }
    }

    /// The transactions that may have written at places that the cursor has passed and had not ended by then.
    fn late(&self, slot: i16) -> BTreeSet<u64> {
        let at = &self.at;
        let batch = at.batch.as_ref().map(|batch| (&batch.upto.snapshot, batch.upto.next_xid));
        let mut xids = BTreeSet::new();
        for (snapshot, next_xid) in std::iter::once((&at.done, at.next_xid)).chain(batch) {
            xids.extend(&snapshot.in_progress);
            xids.extend(outbox::xids_in(slot, snapshot.xmax, next_xid));
        }
        xids
    }

    /// In the order of places, so that the first unread row is the first of this scan.
    fn scan(&self, table: &Relation, index: &str, keys: &[Key], unread: &mut Unread) {
        // SAFETY: called in a transaction with an active snapshot.
        let snapshot = unsafe { pg_sys::GetActiveSnapshot() };
        let mut scan = table.scan(index, keys, snapshot);
        while let Some(row) = scan.next() {
            let columns = row.values();
            let (seq, xid, _) = rows::log_key(columns);
            if rows::log_sink(columns) != self.sink || self.at.is_past(xid, seq) {
                continue;
            }
            if unread.first.is_none_or(|(first, _)| seq < first) {
                unread.first = Some((seq, rows::log_created_at(columns)));
            }
            if unread.count >= self.up_to {
                break;
            }
            unread.count += 1;
        }
        drop(scan);
    }
}
