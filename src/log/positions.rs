//! Rings of positions, which are appended and never updated: `sea_mq.cursor_log` (readers of the log),
//! `sea_mq.stream_progress_log` and `sea_mq.progress_log` (what streams and subscriptions have got).
//!
//! A row that is updated for ever leaves its dead versions behind for as long as any snapshot is older, and each look for the
//! newest walks past them. Here the row with the greatest number counts, which one step in an index finds. There are two
//! slots: when the one that is appended to has grown, the other is emptied by TRUNCATE and gets the newest row of each key.
//! That is one transaction, which excludes all who append; so it does not matter which slot anybody appends to, and none is
//! wrong.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::marker::PhantomData;

use pgrx::pg_sys::{self, Datum};

use super::outbox::next_seq;
use crate::host::spi::{self, TextRow};
use crate::sys::datum::text_datum;
use crate::sys::relation::{self, Appender, Compare, Key, Relation};
use sea_mq_model::domain::reader::ReaderId;

/// Slots of a ring. `sql/streams/streams.sql` and `sql/inbox/subscriptions.sql` create as many partitions.
const SLOTS: i16 = 2;
/// A slot has grown when it takes so many blocks, and so many times what it began with.
const GROWN_BLOCKS: u32 = 256;
const GROWN_TIMES: u32 = 4;
/// Attribute number of the key's first column. Slot and number come before it.
const KEY: i16 = 3;
const NUMBER: usize = 1;

/// A ring of positions, whose rows have `N` columns: slot, number, those of the key, and others.
pub struct Ring<K, const N: usize> {
    pub table: &'static str,
    /// A query for the slot of the newest row.
    pub current_sql: &'static str,
    /// A query for the keys that are still needed.
    pub keys_sql: &'static str,
    pub key: PhantomData<K>,
}

/// Whose a position is.
pub trait RingKey: Copy + Ord {
    /// The columns of the key, in the current memory context.
    fn columns(self) -> Vec<Key>;
    /// The key that a query has found.
    fn read(row: &TextRow) -> Option<Self>;
}

impl RingKey for i64 {
    fn columns(self) -> Vec<Key> {
        vec![Key::Int8(KEY, Compare::Equal, self)]
    }

    fn read(row: &TextRow) -> Option<Self> {
        spi::optional(row, 0)
    }
}

impl RingKey for ReaderId {
    fn columns(self) -> Vec<Key> {
        vec![Key::Text(KEY, text_datum(self.kind())), Key::Int8(KEY + 1, Compare::Equal, self.number())]
    }

    fn read(row: &TextRow) -> Option<Self> {
        Self::new(&spi::optional::<String>(row, 0)?, spi::optional(row, 1)?)
    }
}

/// The columns of a row.
pub type Columns<const N: usize> = [Option<Datum>; N];

/// A column of the type bigint, or of a timestamp in microseconds.
pub fn int8(value: i64) -> Option<Datum> {
    Some(Datum::from(value))
}

/// Adds to a counter: a column of the type bigint, NULL being zero.
pub fn add<const N: usize>(row: &mut Columns<N>, column: usize, more: i64) {
    row[column] = int8(row[column].map_or(0, |datum| datum.value() as i64).saturating_add(more));
}

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

impl<K: RingKey, const N: usize> Ring<K, N> {
    /// The newest row of a key, as of now, in the current memory context.
    pub fn newest(&self, key: K) -> Option<Columns<N>> {
        let rows = (0..SLOTS).filter_map(|slot| self.newest_in(slot, key));
        rows.max_by_key(|row| row[NUMBER].map_or(0, |number| number.value() as i64))
    }

    fn newest_in(&self, slot: i16, key: K) -> Option<Columns<N>> {
        let table = Relation::open(&self.slot_table(slot));
        if table.is_empty() {
            return None;
        }
        let index = format!("{}_pkey", self.slot_table(slot));
        let mut scan = table.scan(&index, &key.columns(), std::ptr::null_mut());
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
        let keys = keys.iter().filter_map(K::read);
        let rows: BTreeMap<K, Columns<N>> = keys.filter_map(|key| Some((key, self.newest(key)?))).collect();
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
