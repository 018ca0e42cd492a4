//! The transactions that handlers run in: their time, and a clean session afterwards.

use std::cell::Cell;
use std::ffi::c_int;

use pgrx::{pg_sys, warning};

use super::caught;
use crate::host::door::Manner;
use crate::host::session::{self, Failed};
use sea_mq_model::domain::outcome::Failure;

unsafe extern "C-unwind" {
    /// src/backend/utils/misc/timeout.c. Not in pgrx's bindings.
    fn enable_timeout_after(id: c_int, delay_ms: c_int);
    fn disable_timeout(id: c_int, keep_indicator: bool);
    fn RegisterTimeout(id: c_int, handler: unsafe extern "C-unwind" fn()) -> c_int;
    /// src/backend/commands/async.c.
    fn Async_UnlistenAll();
}

/// `STATEMENT_TIMEOUT` of src/include/utils/timeout.h, the same since PostgreSQL 9.3.
const STATEMENT_TIMEOUT: c_int = 3;
/// Any number beyond PostgreSQL's own timeouts asks for one that is free.
const FREE_TIMEOUT: c_int = 1000;
/// A handler that catches its timeout and goes on has twice its time and so much more; then its process ends.
const LAST_GRACE_MS: c_int = 1000;

thread_local! {
    /// The timeout that ends the process.
    static LAST_TIMEOUT: Cell<Option<c_int>> = const { Cell::new(None) };
    /// The time that the handler has which ran last in the current transaction.
    static TIME_MS: Cell<Option<c_int>> = const { Cell::new(None) };
}

/// A handler begins that may run for so long.
pub fn begin_timeout(time_ms: c_int) {
    TIME_MS.set(Some(time_ms));
    // SAFETY: in the main thread.
    unsafe {
        if let Some(last) = LAST_TIMEOUT.get() {
            enable_timeout_after(last, time_ms.saturating_mul(2).saturating_add(LAST_GRACE_MS));
        }
        enable_timeout_after(STATEMENT_TIMEOUT, time_ms);
    }
}

/// The handler has ended. What it leaves for the commit has time of its own.
pub fn end_timeout() {
    // SAFETY: in the main thread; does nothing if the timer is off.
    unsafe { disable_timeout(STATEMENT_TIMEOUT, false) };
}

/// Runs `f` in a transaction.
///
/// # Errors
/// The ERROR that rolled it back, that of the commit included.
pub fn transaction<T>(f: impl FnOnce() -> T) -> Result<T, Failure> {
    transaction_in(Manner::default(), f)
}

/// As [`transaction`], in another manner.
///
/// # Errors
/// As [`transaction`].
pub fn transaction_in<T>(manner: Manner, f: impl FnOnce() -> T) -> Result<T, Failure> {
    caught::forget();
    let result = caught::noting_errors(|| session::transaction_in(manner, f));
    result.map_err(|Failed(message)| {
        caught::noted(&message).unwrap_or(Failure { sqlstate: "XX000".into(), message, detail: None })
    })
}

/// Makes this process ready to run handlers: it gets a timeout.
pub fn prepare() {
    // SAFETY: the function that ends the process is safe in a signal handler.
    LAST_TIMEOUT.set(Some(unsafe { RegisterTimeout(FREE_TIMEOUT, end_process) }));
}

/// Runs in the handler of a signal.
unsafe extern "C-unwind" fn end_process() {
    // SAFETY: to this very thread; allowed in a signal handler.
    unsafe { libc::raise(libc::SIGTERM) };
}

/// Runs `f` in a transaction as handlers are to find it: at the database's isolation level, bounded in time up to and
/// including the commit. What they leave in the session is cleared away afterwards.
///
/// # Errors
/// As [`transaction`].
pub fn handling<T>(f: impl FnOnce() -> T) -> Result<T, Failure> {
    let result = transaction_in(Manner { isolated: true, ..Manner::default() }, || {
        let result = f();
        if let Some(time) = TIME_MS.get() {
            // SAFETY: in the main thread.
            unsafe { enable_timeout_after(STATEMENT_TIMEOUT, time) };
        }
        result
    });
    // SAFETY: in the main thread; what was meant for the handler is not to meet what comes after it.
    unsafe {
        end_timeout();
        if let Some(last) = LAST_TIMEOUT.get() {
            disable_timeout(last, false);
        }
        pg_sys::QueryCancelPending = 0;
    }
    if TIME_MS.take().is_some() {
        clear_session();
    }
    result
}

/// Another owner's handler may be the next, and must not find a table of this one's where it looks for its own.
fn clear_session() {
    let cleared = session::transaction(|| {
        // SAFETY: what DISCARD does (src/backend/commands/discard.c), but for plans and sequences; the locks that this
        // process has for itself are not advisory ones.
        unsafe {
            let temporary = pgrx::direct_function_call_as_datum(pg_sys::pg_my_temp_schema, &[]);
            if temporary.is_some_and(|schema| schema.value() != 0) {
                pg_sys::ResetTempTableNamespace();
            }
            pg_sys::PortalHashTableDeleteAll();
            pg_sys::DropAllPreparedStatements();
            pg_sys::submodules::ffi::pg_guard_ffi_boundary(|| Async_UnlistenAll());
            pg_sys::LockReleaseAll(pg_sys::USER_LOCKMETHOD as _, true);
        }
    });
    if let Err(error) = cleared {
        warning!("sea_mq consumer: ends, since what a handler left in its session cannot be cleared away: {error}");
        // SAFETY: to the calling thread; the loop then ends as for anybody's SIGTERM.
        unsafe { libc::raise(libc::SIGTERM) };
    }
}
