//! Tables of which processes keep in memory what they have read, and the news that one of them has changed.
//!
//! A trigger on each sends a relation cache invalidation with the commit that changes it. That reaches every process of
//! the database: what is kept costs a hash, not a query.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::Hash;

use pgrx::{PgSqlErrorCode, pg_guard, pg_sys};

use super::datum::{Call, sql_function};
use super::error::raise;
use super::relation;

/// A watched table; each has the trigger `changed`.
#[derive(Clone, Copy)]
pub enum Table {
    EventTypes,
    SchemaDefinitions,
    Streams,
    OutboxRing,
}

impl Table {
    const COUNT: usize = 4;

    const fn name(self) -> &'static str {
        match self {
            Self::EventTypes => "event_types",
            Self::SchemaDefinitions => "schema_definitions",
            Self::Streams => "streams",
            Self::OutboxRing => "outbox_ring",
        }
    }
}

struct Watched {
    /// As of the last look; a table that is dropped and made again has another.
    oid: Cell<pg_sys::Oid>,
    /// Something may have changed since the last look.
    changed: Cell<bool>,
}

thread_local! {
    static WATCHED: [Watched; Table::COUNT] = const {
        [const { Watched { oid: Cell::new(pg_sys::InvalidOid), changed: Cell::new(true) } }; Table::COUNT]
    };
}

/// Registers for the news. Called once per process, from `_PG_init`.
pub fn register() {
    // SAFETY: the callback has static lifetime and takes no argument.
    unsafe { pg_sys::CacheRegisterRelcacheCallback(Some(on_invalidation), pg_sys::Datum::from(0)) }
}

/// Must not fail.
#[pg_guard]
unsafe extern "C-unwind" fn on_invalidation(_arg: pg_sys::Datum, relation: pg_sys::Oid) {
    WATCHED.with(|watched| {
        for table in watched {
            if relation == pg_sys::InvalidOid || relation == table.oid.get() {
                table.changed.set(true);
            }
        }
    });
}

/// Whether the table may have changed since this was last asked: then what is kept of it must be forgotten before it is read
/// anew. True the first time.
fn has_changed(table: Table) -> bool {
    // SAFETY: in a transaction. Takes up the news that have come since it began; a look at a flag where there are none.
    unsafe { pg_sys::AcceptInvalidationMessages() }
    WATCHED.with(|watched| {
        let watched = &watched[table as usize];
        if !watched.changed.get() {
            return false;
        }
        // Before anything is read, so that no later change is missed.
        watched.oid.set(relation::require(table.name()));
        watched.changed.set(false);
        true
    })
}

/// Entries that are kept at most; who asks for more makes them be read anew.
const KEPT: usize = 10_000;

/// What this process has read of watched tables, until one of them changes.
pub struct Kept<K, V> {
    tables: &'static [Table],
    entries: RefCell<HashMap<K, V>>,
}

impl<K: Eq + Hash + Clone, V: Clone> Kept<K, V> {
    pub fn new(tables: &'static [Table]) -> Self {
        Self { tables, entries: RefCell::default() }
    }

    /// The entry, read if it is not known.
    pub fn get(&self, key: &K, read: impl FnOnce() -> V) -> V {
        // All are asked, so that each change is noted once; and it is heeded at once, since asking for the next may fail.
        for table in self.tables {
            if has_changed(*table) {
                self.entries.borrow_mut().clear();
            }
        }
        if let Some(known) = self.entries.borrow().get(key) {
            return known.clone();
        }
        // Nothing is borrowed meanwhile: an ERROR may pass.
        let found = read();
        let mut entries = self.entries.borrow_mut();
        if entries.len() >= KEPT {
            entries.clear();
        }
        entries.insert(key.clone(), found.clone());
        found
    }
}

sql_function!(table_changed_wrapper, pg_finfo_table_changed_wrapper, |call: Call| {
    let Some(trigger) = call.trigger() else {
        raise(
            PgSqlErrorCode::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED,
            "sea_mq.table_changed() is a trigger function",
            "It is for the tables of sea_mq.",
        );
    };
    // SAFETY: in a transaction that has written to the table, which is open.
    unsafe { pg_sys::CacheInvalidateRelcache(trigger.tg_relation) };
    pg_sys::Datum::from(0)
});
