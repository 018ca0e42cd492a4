//! TRUNCATE, told once.
//!
//! TRUNCATE of a partitioned table fires the triggers of the table and of all its partitions: first all that fire before, then
//! all that fire after, a table before its partitions. So what a statement truncates is collected before, and told after
//! by the topmost table of it.

use std::cell::RefCell;
use std::collections::HashMap;

use pgrx::pg_sys;

unsafe extern "C-unwind" {
    /// src/backend/catalog/pg_inherits.c
    fn find_all_inheritors(
        parent: pg_sys::Oid,
        lock: pg_sys::LOCKMODE,
        parents: *mut *mut pg_sys::List,
    ) -> *mut pg_sys::List;
}

struct Statement {
    tables: Vec<pg_sys::Oid>,
    subtransaction: pg_sys::SubTransactionId,
    /// It has come to the triggers that fire after.
    is_ending: bool,
}

thread_local! {
    /// By captured table.
    static STATEMENTS: RefCell<HashMap<u32, Statement>> = RefCell::new(HashMap::new());
}

/// A table of the capture is about to be truncated.
pub fn note(root: u32, table: pg_sys::Oid) {
    // SAFETY: in a transaction.
    let subtransaction = unsafe { pg_sys::GetCurrentSubTransactionId() };
    let begin = || Statement { tables: Vec::new(), subtransaction, is_ending: false };
    STATEMENTS.with_borrow_mut(|statements| {
        let statement = statements.entry(root).or_insert_with(begin);
        if statement.is_ending {
            *statement = begin();
        }
        statement.tables.push(table);
    });
}

/// What the statement has done to a table of a capture. `ancestors`: the tables of the capture that it is a partition of.
/// `None`: this was told of an ancestor. Otherwise whether the whole captured table was truncated.
pub fn outcome(root: u32, table: pg_sys::Oid, ancestors: &[u32]) -> Option<bool> {
    let tables = STATEMENTS.with_borrow_mut(|statements| {
        let Some(statement) = statements.get_mut(&root) else { return Vec::new() };
        statement.is_ending = true;
        statement.tables.clone()
    });
    if tables.iter().any(|other| ancestors.contains(&other.to_u32())) {
        return None;
    }
    Some(table.to_u32() == root && family(table, pg_sys::NoLock).iter().all(|member| tables.contains(member)))
}

/// A table and all its partitions or children, locked until the transaction ends (`NoLock`: by the statement, if it concerns
/// them).
pub fn family(table: pg_sys::Oid, lock: u32) -> Vec<pg_sys::Oid> {
    // SAFETY: in a transaction.
    unsafe {
        if lock != pg_sys::NoLock {
            pg_sys::LockRelationOid(table, lock as _);
        }
        let list = pg_sys::submodules::ffi::pg_guard_ffi_boundary(|| {
            find_all_inheritors(table, lock as _, std::ptr::null_mut())
        });
        let length = usize::try_from((*list).length).unwrap_or(0);
        (0..length).map(|place| (*(*list).elements.add(place)).oid_value).collect()
    }
}

/// A subtransaction was rolled back: what it began will not be told. Must not fail.
pub fn roll_back_to(subtransaction: pg_sys::SubTransactionId) {
    STATEMENTS.with_borrow_mut(|statements| {
        if !statements.is_empty() {
            statements.retain(|_, statement| statement.subtransaction < subtransaction);
        }
    });
}

/// The transaction is over. Must not fail.
pub fn forget() {
    STATEMENTS.with_borrow_mut(|statements| {
        if !statements.is_empty() {
            statements.clear();
        }
    });
}
