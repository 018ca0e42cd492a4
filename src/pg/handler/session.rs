//! The transactions that handlers run in: role, settings, time, and a clean session afterwards.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString, c_int};

use pgrx::{pg_sys, warning};

use super::caught::{self, c_string, text};
use crate::domain::outcome::Failure;
use crate::pg::worker::session::{self, Failed};

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
    /// What the session began with, for the handlers.
    static SETTINGS: RefCell<Settings> = RefCell::new(Settings::default());
    /// The timeout that ends the process.
    static LAST_TIMEOUT: Cell<Option<c_int>> = const { Cell::new(None) };
    /// The time that the handler has which ran last in the current transaction.
    static TIME_MS: Cell<Option<c_int>> = const { Cell::new(None) };
}

#[derive(Default)]
struct Settings {
    search_path: CString,
    isolation: CString,
    seq_scans: CString,
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

/// Runs `f` in a transaction; if it takes another role, the role is kept through the commit and given back afterwards.
///
/// # Errors
/// The ERROR that rolled it back, that of the commit included.
pub fn transaction<T>(f: impl FnOnce() -> T) -> Result<T, Failure> {
    let (mut user, mut context) = (pg_sys::InvalidOid, 0);
    caught::forget();
    // SAFETY: reads and writes the identity of this process; after an ERROR the transaction's abort has restored it.
    unsafe {
        pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
        let result = caught::noting_errors(|| session::transaction(f));
        pg_sys::SetUserIdAndSecContext(user, context);
        result.map_err(|Failed(message)| {
            caught::noted(&message).unwrap_or(Failure { sqlstate: "XX000".into(), message, detail: None })
        })
    }
}

/// Makes this process ready to run handlers: keeps the settings that its session began with for them, before they are set
/// to something else, and gets a timeout.
pub fn prepare() {
    // SAFETY: the settings exist; their values are copied at once. The function that ends the process is safe in a signal
    // handler.
    unsafe {
        let setting =
            |name: &CStr| c_string(&text(pg_sys::GetConfigOption(name.as_ptr(), false, false)).unwrap_or_default());
        SETTINGS.set(Settings {
            search_path: setting(c"search_path"),
            isolation: setting(c"default_transaction_isolation"),
            seq_scans: setting(c"enable_seqscan"),
        });
        LAST_TIMEOUT.set(Some(RegisterTimeout(FREE_TIMEOUT, end_process)));
    }
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
    let isolation = SETTINGS.with_borrow(|settings| settings.isolation.clone());
    session::set_default(c"default_transaction_isolation", &isolation);
    let result = transaction(|| {
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
    session::set_default(c"default_transaction_isolation", c"read committed");
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

/// Changes a setting until the current level of settings ends, at the latest with the transaction.
pub fn set_local(name: &CStr, value: &CStr) {
    // SAFETY: C strings; in a transaction.
    unsafe {
        pg_sys::set_config_option(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_SAVE,
            true,
            0,
            false,
        );
    }
}

/// From here to the end of the transaction the process acts as `owner`, with the search path that its session began with.
pub fn become_owner(owner: pg_sys::Oid) {
    let (mut user, mut context) = (pg_sys::InvalidOid, 0);
    // SAFETY: in a transaction; the flag makes SET ROLE and SET SESSION AUTHORIZATION fail.
    unsafe {
        pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
        pg_sys::SetUserIdAndSecContext(owner, context | pg_sys::SECURITY_LOCAL_USERID_CHANGE as c_int);
    }
    SETTINGS.with_borrow(|settings| {
        set_local(c"search_path", &settings.search_path);
        set_local(c"enable_seqscan", &settings.seq_scans);
    });
}

/// Runs `f` as the worker's own role, with a search path that nobody else has a say in.
pub fn as_worker<T>(f: impl FnOnce() -> T) -> T {
    let (mut user, mut context) = (pg_sys::InvalidOid, 0);
    // SAFETY: identity and settings are put back below; after an ERROR the transaction's end does it.
    unsafe {
        pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
        pg_sys::SetUserIdAndSecContext(pg_sys::GetSessionUserId(), 0);
        let nest = pg_sys::NewGUCNestLevel();
        set_local(c"search_path", c"pg_catalog, pg_temp");
        set_local(c"enable_seqscan", c"off");
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        let result = f();
        pg_sys::PopActiveSnapshot();
        pg_sys::AtEOXact_GUC(true, nest);
        pg_sys::SetUserIdAndSecContext(user, context);
        result
    }
}
