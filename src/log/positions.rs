//! Positions, which are appended and never updated: `sea_mq.cursor_log` and `sea_mq.progress_log`.
//!
//! A row that is updated for ever leaves its dead versions behind for as long as any snapshot is older, and each look for the
//! newest walks past them. Here the row with the greatest number counts, which one step in an index finds. There are two
//! slots: when the one that is appended to has grown, the other is emptied by TRUNCATE and gets the newest row of each key.
//! That is one transaction, which excludes all who append; so it does not matter which slot anybody appends to, and none is
//! wrong.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};

use pgrx::pg_sys::{self, Datum};

use super::outbox::next_seq;
use crate::host::spi;
use crate::sys::relation::{self, Appender, Compare, Key, Relation};
use sea_mq_model::domain::position::{Batch, Moment, Position, Snapshot};

/// Slots of a ring. `sql/03_streams.sql` and `sql/06_subscriptions.sql` create as many partitions.
const SLOTS: i16 = 2;
/// A slot has grown when it takes so many blocks, and so many times what it began with.
const GROWN_BLOCKS: u32 = 256;
const GROWN_TIMES: u32 = 4;
/// Attribute number of the key. Slot and number come before it.
const KEY: i16 = 3;
const NUMBER: usize = 1;
/// Place of the first of the seven columns of a position in the log.
const POSITION: usize = 3;

/// A ring of positions, whose rows have `N` columns: slot, number, key, those of a position in the log, and others.
pub struct Ring<const N: usize> {
    pub table: &'static str,
    /// A query for the slot of the newest row.
    pub current_sql: &'static str,
    /// A query for the keys that are still needed.
    pub keys_sql: &'static str,
}

/// The columns of a row.
pub type Columns<const N: usize> = [Option<Datum>; N];

/// What this process knows of a ring.
#[derive(Clone, Copy)]
struct Turn {
    /// The slot that it appends to.
    slot: i16,
    /// Blocks that the slot began with.
    began_with: u32,
}

thread_local! {
    static TURNS: RefCell<HashMap<&'static str, Turn>> = RefCell::new(HashMap::new());
}

/// A ring that has moved on, once the transaction has committed.
#[must_use]
pub struct Moved {
    table: &'static str,
    turn: Turn,
}

impl Moved {
    /// The transaction has committed.
    pub fn remember(self) {
        TURNS.with_borrow_mut(|turns| turns.insert(self.table, self.turn));
    }
}

impl<const N: usize> Ring<N> {
    /// The newest row of a key, as of now, in the current memory context.
    pub fn newest(&self, key: i64) -> Option<Columns<N>> {
        let rows = (0..SLOTS).filter_map(|slot| self.newest_in(slot, key));
        rows.max_by_key(|row| row[NUMBER].map_or(0, |number| number.value() as i64))
    }

    fn newest_in(&self, slot: i16, key: i64) -> Option<Columns<N>> {
        let table = Relation::open(&self.slot_table(slot));
        if table.is_empty() {
            return None;
        }
        let index = format!("{}_pkey", self.slot_table(slot));
        let mut scan = table.scan(&index, &[Key::Int8(KEY, Compare::Equal, key)], std::ptr::null_mut());
        let row = scan.previous().map(|row| row.copied_values());
        drop(scan);
        row
    }

    /// Appends a row, whatever slot and number it has so far.
    pub fn append(&self, row: Columns<N>) {
        self.append_to(self.turn().slot, row);
        // SAFETY: in a transaction. What this transaction looks for afterwards, it finds.
        unsafe { pg_sys::CommandCounterIncrement() }
    }

    fn append_to(&self, slot: i16, mut row: Columns<N>) {
        let number = next_seq(relation::require("position_number"));
        row[0] = Some(Datum::from(slot));
        row[NUMBER] = Some(Datum::from(number));
        Appender::open(relation::require(&self.slot_table(slot))).append(row);
    }

    /// Whether the slot that is appended to has grown.
    pub fn has_grown(&self) -> bool {
        let turn = self.turn();
        let blocks = Relation::open(&self.slot_table(turn.slot)).blocks();
        blocks >= GROWN_BLOCKS && blocks / GROWN_TIMES >= turn.began_with
    }

    /// Moves on to the other slot. An ERROR if somebody uses the slots: another time will do.
    pub fn move_on(&self) -> Moved {
        let from = self.turn().slot;
        let to = (from + 1) % SLOTS;
        let [old, new] = [from, to].map(|slot| self.slot_table(slot));
        spi::execute_dynamic(&format!("LOCK TABLE ONLY sea_mq.{new} IN ACCESS EXCLUSIVE MODE NOWAIT"));
        spi::execute_dynamic(&format!("LOCK TABLE ONLY sea_mq.{old} IN SHARE ROW EXCLUSIVE MODE NOWAIT"));
        // Under the locks: it shows all that was ever appended.
        let keys = with_latest_snapshot(|| spi::query(self.keys_sql, &[]));
        let keys = keys.iter().map(|row| spi::parsed::<i64>(row, 0));
        let rows: BTreeMap<i64, Columns<N>> = keys.filter_map(|key| Some((key, self.newest(key)?))).collect();
        spi::execute_dynamic(&format!("TRUNCATE ONLY sea_mq.{new}"));
        rows.into_values().for_each(|row| self.append_to(to, row));
        let began_with = Relation::open(&new).blocks();
        Moved { table: self.table, turn: Turn { slot: to, began_with } }
    }

    fn slot_table(&self, slot: i16) -> String {
        format!("{}_{slot}", self.table)
    }

    fn turn(&self) -> Turn {
        if let Some(turn) = TURNS.with_borrow(|turns| turns.get(self.table).copied()) {
            return turn;
        }
        let slot = spi::query(self.current_sql, &[]).first().map_or(0, |row| spi::parsed(row, 0));
        let turn = Turn { slot, began_with: 0 };
        TURNS.with_borrow_mut(|turns| turns.insert(self.table, turn));
        turn
    }
}

/// Runs `f` under a snapshot taken now: the one that the transaction began with does not show what was committed while it
/// waited for a lock, or before it got one.
pub fn with_latest_snapshot<T>(f: impl FnOnce() -> T) -> T {
    // SAFETY: in a transaction; popped below. If an ERROR passes, the transaction's end pops it.
    unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot()) };
    let result = f();
    // SAFETY: pushed above.
    unsafe { pg_sys::PopActiveSnapshot() };
    result
}

/// The position in the log that a row has, if it has one.
pub fn position<const N: usize>(row: &Columns<N>) -> Option<Position> {
    let int8 = |place: usize| row[POSITION + place].map_or(0, |datum| datum.value() as i64);
    let done = snapshot(row[POSITION]?);
    let batch = row[POSITION + 3].map(|upto| Batch {
        upto: Moment { snapshot: snapshot(upto), next_xid: int8(4).cast_unsigned(), ceiling: int8(5) },
        at: int8(6),
    });
    Some(Position { done, next_xid: int8(1).cast_unsigned(), floor: int8(2), batch })
}

/// Puts a position in the log into a row.
pub fn set_position<const N: usize>(row: &mut Columns<N>, position: &Position) {
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
