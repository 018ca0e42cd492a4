//! SQL for what is neither written nor read often enough to go around the executor.
//!
//! Plans are prepared once per process. Results come as text, which is what small configuration rows are easiest checked
//! as; nothing here is on the path of an event.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, CString};

use pgrx::pg_sys;

use super::door;
use crate::sys::datum::text_datum;
use crate::sys::error::raise;

/// A parameter of a statement.
#[derive(Clone, Copy)]
pub enum Arg<'a> {
    Int8(i64),
    Text(&'a str),
    OptionalText(Option<&'a str>),
    OptionalInt8(Option<i64>),
}

/// A result row: one text or NULL per column.
pub type TextRow = Vec<Option<String>>;

impl Arg<'_> {
    fn type_oid(self) -> pg_sys::Oid {
        match self {
            Self::Int8(_) | Self::OptionalInt8(_) => pg_sys::INT8OID,
            Self::Text(_) | Self::OptionalText(_) => pg_sys::TEXTOID,
        }
    }

    fn datum(self) -> Option<pg_sys::Datum> {
        match self {
            Self::Int8(value) => Some(pg_sys::Datum::from(value)),
            Self::OptionalInt8(value) => value.map(pg_sys::Datum::from),
            Self::Text(value) => Some(text_datum(value)),
            Self::OptionalText(value) => value.map(text_datum),
        }
    }
}

thread_local! {
    static PLANS: RefCell<HashMap<&'static str, pg_sys::SPIPlanPtr>> = RefCell::new(HashMap::new());
}

/// Runs a query in the current transaction under its active snapshot; assigns no transaction id.
pub fn query(sql: &'static str, args: &[Arg]) -> Vec<TextRow> {
    run(sql, args, true)
}

/// Runs a statement that may write; returns the rows of its RETURNING, if it has one.
pub fn execute(sql: &'static str, args: &[Arg]) -> Vec<TextRow> {
    run(sql, args, false)
}

/// Runs a command whose text is put together, without keeping a plan.
pub fn execute_dynamic(sql: &str) {
    guard(sql);
    let text = CString::new(sql).unwrap_or_default();
    // SAFETY: as in `run`.
    unsafe {
        pg_sys::SPI_connect();
        let code = pg_sys::SPI_execute(text.as_ptr(), false, 0);
        if code < 0 {
            raise(pgrx::PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, format!("SPI error {code} in: {sql}"), "");
        }
        pg_sys::SPI_finish();
    }
}

/// Our statements run inside the door alone: elsewhere a caller's `search_path` would say what their names mean.
fn guard(sql: &str) {
    if !door::is_inside() {
        raise(
            pgrx::PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
            format!("not inside the door: {sql}"),
            "Report this as a bug.",
        );
    }
}

fn run(sql: &'static str, args: &[Arg], read_only: bool) -> Vec<TextRow> {
    // SAFETY: SPI is connected and finished here; an ERROR in between leaves through the transaction's end, which
    // finishes SPI as well.
    guard(sql);
    unsafe {
        pg_sys::SPI_connect();
        let plan = plan(sql, args);
        let mut values: Vec<pg_sys::Datum> =
            args.iter().map(|arg| arg.datum().unwrap_or(pg_sys::Datum::from(0))).collect();
        let nulls: Vec<_> = args.iter().map(|arg| if arg.datum().is_some() { b' ' } else { b'n' } as _).collect();
        let code = pg_sys::SPI_execute_plan(plan, values.as_mut_ptr(), nulls.as_ptr(), read_only, 0);
        if code < 0 {
            raise(pgrx::PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, format!("SPI error {code} in: {sql}"), "");
        }
        let rows = rows();
        pg_sys::SPI_finish();
        rows
    }
}

/// # Safety
/// SPI is connected.
unsafe fn plan(sql: &'static str, args: &[Arg]) -> pg_sys::SPIPlanPtr {
    if let Some(plan) = PLANS.with_borrow(|plans| plans.get(sql).copied()) {
        return plan;
    }
    let text = CString::new(sql).unwrap_or_default();
    let mut types: Vec<pg_sys::Oid> = args.iter().map(|arg| arg.type_oid()).collect();
    // SAFETY: as the caller's; SPI_keepplan moves the plan out of SPI's own memory.
    unsafe {
        let plan = pg_sys::SPI_prepare(text.as_ptr(), i32::try_from(types.len()).unwrap_or(0), types.as_mut_ptr());
        if plan.is_null() || pg_sys::SPI_keepplan(plan) != 0 {
            raise(pgrx::PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, format!("cannot prepare: {sql}"), "");
        }
        PLANS.with_borrow_mut(|plans| plans.insert(sql, plan));
        plan
    }
}

/// # Safety
/// SPI is connected and has just executed a statement.
unsafe fn rows() -> Vec<TextRow> {
    // SAFETY: SPI_tuptable is null or valid until the next SPI call.
    unsafe {
        let table = pg_sys::SPI_tuptable;
        if table.is_null() {
            return Vec::new();
        }
        let descriptor = (*table).tupdesc;
        let column = |tuple, n| {
            let value = pg_sys::SPI_getvalue(tuple, descriptor, n);
            (!value.is_null()).then(|| CStr::from_ptr(value).to_string_lossy().into_owned())
        };
        let count = usize::try_from(pg_sys::SPI_processed).unwrap_or(0);
        (0..count).map(|i| (1..=(*descriptor).natts).map(|n| column(*(*table).vals.add(i), n)).collect()).collect()
    }
}

/// Reads a column that the query never leaves NULL; a default stands for what cannot be read.
pub fn parsed<T: std::str::FromStr + Default>(row: &TextRow, column: usize) -> T {
    optional(row, column).unwrap_or_default()
}

/// Reads a column that may be NULL.
pub fn optional<T: std::str::FromStr>(row: &TextRow, column: usize) -> Option<T> {
    row.get(column).and_then(Option::as_deref).and_then(|text| text.parse().ok())
}

/// Reads a boolean column.
pub fn flag(row: &TextRow, column: usize) -> bool {
    row.get(column).and_then(Option::as_deref) == Some("t")
}
