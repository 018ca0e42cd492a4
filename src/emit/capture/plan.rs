//! What is captured of a table, as this process knows it: read once, forgotten when the table or its capture changes.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::CString;
use std::rc::Rc;

use pgrx::{pg_guard, pg_sys};
use serde::Deserialize;

use super::condition;
use crate::host::door::{as_owner, as_role};
use crate::host::spi::{self, Arg};
use crate::sys::error::raise;
use sea_mq_model::domain::capture::Operation;

/// What `sea_mq.capture_plan` says of a table: the captured table itself, or a partition or child of it.
#[derive(Deserialize)]
pub struct Plan {
    /// The captured table.
    pub root: u32,
    /// The table that is written to, and the tables of the capture that it is a partition or child of.
    pub table: String,
    pub ancestors: Vec<u32>,
    pub context: String,
    pub aggregate_type: String,
    /// Attribute numbers in the table that is written to.
    pub key: Vec<i16>,
    pub columns: Vec<i16>,
    when: Option<String>,
    events: Events,
    /// `when` as a compiled node.
    #[serde(skip)]
    pub condition: Option<CString>,
}

#[derive(Deserialize)]
struct Events {
    insert: Option<EventName>,
    update: Option<EventName>,
    delete: Option<EventName>,
    truncate: Option<EventName>,
}

/// An event type in its version.
#[derive(Deserialize)]
pub struct EventName {
    pub name: String,
    pub version: i32,
}

impl Plan {
    /// The event of an operation, if it is captured.
    pub fn event(&self, operation: Operation) -> Option<&EventName> {
        match operation {
            Operation::Insert => self.events.insert.as_ref(),
            Operation::Update => self.events.update.as_ref(),
            Operation::Delete => self.events.delete.as_ref(),
            Operation::Truncate => self.events.truncate.as_ref(),
        }
    }
}

thread_local! {
    static KNOWN: RefCell<HashMap<pg_sys::Oid, Rc<Plan>>> = RefCell::new(HashMap::new());
    /// Counts invalidations: what was read while one came in is used and not kept.
    static INVALIDATIONS: Cell<u64> = const { Cell::new(0) };
    /// Functions have changed, and a condition may name one.
    static FUNCTIONS_CHANGED: Cell<bool> = const { Cell::new(false) };
}

/// Registers for the news of changes. Called once per process, from `_PG_init`.
pub fn register() {
    let functions = pg_sys::SysCacheIdentifier::PROCOID as i32;
    // SAFETY: the callbacks have static lifetime and take no argument.
    unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(on_table), pg_sys::Datum::from(0));
        pg_sys::CacheRegisterSyscacheCallback(functions, Some(on_function), pg_sys::Datum::from(0));
    }
}

/// Must not fail.
#[pg_guard]
unsafe extern "C-unwind" fn on_table(_arg: pg_sys::Datum, relation: pg_sys::Oid) {
    INVALIDATIONS.set(INVALIDATIONS.get().wrapping_add(1));
    KNOWN.with_borrow_mut(|known| {
        if relation == pg_sys::InvalidOid {
            known.clear();
        } else if !known.is_empty() {
            let changed = relation.to_u32();
            known
                .retain(|table, plan| *table != relation && plan.root != changed && !plan.ancestors.contains(&changed));
        }
    });
}

/// Must not fail.
#[pg_guard]
unsafe extern "C-unwind" fn on_function(_arg: pg_sys::Datum, _cache: std::ffi::c_int, _hash: u32) {
    FUNCTIONS_CHANGED.set(true);
}

/// Tells all processes of the database, when this transaction commits, that the capture of a table has changed.
pub fn announce_change(table: pg_sys::Oid) {
    // SAFETY: in a transaction; a table that is gone is nobody's plan.
    unsafe {
        if pg_sys::get_rel_relkind(table) != 0 {
            pg_sys::CacheInvalidateRelcacheByRelid(table);
        }
    }
}

/// What is captured of an open table, if anything.
pub fn of(relation: pg_sys::Relation) -> Option<Rc<Plan>> {
    if FUNCTIONS_CHANGED.take() {
        KNOWN.with_borrow_mut(|known| known.retain(|_, plan| plan.when.is_none()));
    }
    // SAFETY: the relation is open.
    let table = unsafe { (*relation).rd_id };
    if let Some(plan) = KNOWN.with_borrow(|known| known.get(&table).cloned()) {
        return Some(plan);
    }
    let before = INVALIDATIONS.get();
    let mut plan = read(table)?;
    if let Some(when) = plan.when.as_deref() {
        plan.condition = Some(as_role(owner(plan.root.into()), || condition::compile(relation, when)));
    }
    let plan = Rc::new(plan);
    if before == INVALIDATIONS.get() {
        KNOWN.with_borrow_mut(|known| known.insert(table, Rc::clone(&plan)));
    }
    Some(plan)
}

/// As of now, also where the transaction's snapshot is older: the table's columns are those of now, too.
fn read(table: pg_sys::Oid) -> Option<Plan> {
    let arg = [Arg::Int8(i64::from(table.to_u32()))];
    let rows = as_owner(|| spi::query("SELECT sea_mq.capture_plan($1)", &arg));
    let json = rows.into_iter().next()?.into_iter().next()??;
    match serde_json::from_str(&json) {
        Ok(plan) => Some(plan),
        Err(error) => raise(
            pgrx::PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
            format!("what is captured of table {} cannot be read: {error}", table.to_u32()),
            "Capture it again with sea_mq.capture_table.",
        ),
    }
}

/// The role that owns a table, and as which a condition on it is read and evaluated.
pub fn owner(table: pg_sys::Oid) -> pg_sys::Oid {
    // SAFETY: a catalog look-up in a transaction; the tuple is released after its last use.
    let owner = unsafe {
        let cache = pg_sys::SysCacheIdentifier::RELOID as i32;
        let tuple = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(table));
        (!tuple.is_null()).then(|| {
            let owner = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>()).relowner;
            pg_sys::ReleaseSysCache(tuple);
            owner
        })
    };
    owner.unwrap_or_else(|| {
        raise(
            pgrx::PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
            format!("table {} does not exist", table.to_u32()),
            "It was dropped meanwhile.",
        )
    })
}

/// Whether an open table is on its way out of a captured one: DETACH PARTITION CONCURRENTLY has begun. What is written to it is
/// captured no more, and the triggers go when it ends.
pub fn is_being_detached(relation: pg_sys::Relation) -> bool {
    // SAFETY: the relation is open.
    let table = unsafe { (*relation).rd_id };
    let arg = [Arg::Int8(i64::from(table.to_u32()))];
    let rows = as_owner(|| spi::query("SELECT sea_mq.capture_left($1)", &arg));
    rows.first().is_some_and(|row| spi::flag(row, 0))
}
