//! Running a subscription's handler: as its owner, in a savepoint, bounded in time, its settings undone.
//!
//! The role is set for the whole transaction and kept through its commit, so that deferred triggers and constraints run as
//! the owner as well. What the bookkeeping does in between with SQL it does as the worker and with a safe `search_path`
//! ([`as_worker`]); rows that are appended directly need no rights.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::time::Duration;

use pgrx::pg_sys::panic::CaughtError;
use pgrx::{PgTryBuilder, pg_sys, warning};

use super::worker::session::{self, Failed};
use crate::domain::message::Message;
use crate::domain::outcome::{Failure, Outcome};

unsafe extern "C-unwind" {
    /// src/backend/utils/misc/timeout.c. Not in pgrx's bindings.
    fn enable_timeout_after(id: c_int, delay_ms: c_int);
    fn disable_timeout(id: c_int, keep_indicator: bool);
    fn RegisterTimeout(id: c_int, handler: unsafe extern "C-unwind" fn()) -> c_int;
    /// src/backend/commands/async.c.
    fn Async_UnlistenAll();
    /// src/backend/utils/error/elog.c. Called raw: pgrx's guard would run in the middle of an error.
    fn CopyErrorData() -> *mut pg_sys::ErrorData;
    fn FreeErrorData(data: *mut pg_sys::ErrorData);
}

/// `STATEMENT_TIMEOUT` of src/include/utils/timeout.h, the same since PostgreSQL 9.3.
const STATEMENT_TIMEOUT: c_int = 3;
/// Any number beyond PostgreSQL's own timeouts asks for one that is free.
const FREE_TIMEOUT: c_int = 1000;
/// A handler that catches its timeout and goes on has twice its time and so much more; then its process ends.
const LAST_GRACE_MS: c_int = 1000;

/// Errors of one savepoint that are kept.
const NOTED: usize = 64;

/// What the emits of the current handler take from the event that is handled.
#[derive(Clone, Debug, Default)]
pub struct Cause {
    pub correlation_id: Option<String>,
    pub causation_id: Option<String>,
    pub traceparent: Option<String>,
}

thread_local! {
    static CAUSE: RefCell<Option<Cause>> = const { RefCell::new(None) };
    /// Errors since the transaction or savepoint began, caught ones included, the newest last.
    static ERRORS: RefCell<VecDeque<Failure>> = const { RefCell::new(VecDeque::new()) };
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
}

/// The cause of what is emitted now, in a handler.
pub fn cause() -> Option<Cause> {
    CAUSE.with_borrow(Clone::clone)
}

/// A handler and how to run it. Found anew in each transaction: it may change or go at any time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handler {
    pub function: pg_sys::Oid,
    pub owner: pg_sys::Oid,
    pub timeout: Duration,
}

/// Runs `f` in a transaction; if it takes another role, the role is kept through the commit and given back afterwards.
///
/// # Errors
/// The ERROR that rolled it back, that of the commit included.
pub fn transaction<T>(f: impl FnOnce() -> T) -> Result<T, Failure> {
    let (mut user, mut context) = (pg_sys::InvalidOid, 0);
    ERRORS.take();
    // SAFETY: reads and writes the identity of this process; after an ERROR the transaction's abort has restored it.
    unsafe {
        pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
        let result = noting_errors(|| session::transaction(f));
        pg_sys::SetUserIdAndSecContext(user, context);
        result.map_err(|Failed(message)| {
            noted(&message).unwrap_or(Failure { sqlstate: "XX000".into(), message, detail: None })
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
    set_default(c"default_transaction_isolation", &isolation);
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
        disable_timeout(STATEMENT_TIMEOUT, false);
        if let Some(last) = LAST_TIMEOUT.get() {
            disable_timeout(last, false);
        }
        pg_sys::QueryCancelPending = 0;
    }
    set_default(c"default_transaction_isolation", c"read committed");
    if TIME_MS.take().is_some() {
        clear_session();
    }
    result
}

/// Sets what the session's transactions begin with.
fn set_default(name: &CStr, value: &CStr) {
    // SAFETY: C strings; outside of a transaction.
    unsafe {
        pg_sys::SetConfigOption(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_OVERRIDE,
        );
    }
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
    SETTINGS.with_borrow(|settings| set_local(c"search_path", &settings.search_path));
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
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        let result = f();
        pg_sys::PopActiveSnapshot();
        pg_sys::AtEOXact_GUC(true, nest);
        pg_sys::SetUserIdAndSecContext(user, context);
        result
    }
}

/// A handler, ready to be called in the current transaction.
pub struct Runner {
    call: *mut pg_sys::FunctionCallInfoBaseData,
    timeout_ms: c_int,
}

impl Runner {
    /// Looks the function up. Lives as long as the current memory context.
    pub fn new(handler: &Handler) -> Self {
        let size = size_of::<pg_sys::FunctionCallInfoBaseData>() + size_of::<pg_sys::NullableDatum>();
        // SAFETY: the memory is zeroed and large enough for a call with one argument.
        let call = unsafe {
            let function = pg_sys::palloc0(size_of::<pg_sys::FmgrInfo>()).cast::<pg_sys::FmgrInfo>();
            pg_sys::fmgr_info(handler.function, function);
            let call = pg_sys::palloc0(size).cast::<pg_sys::FunctionCallInfoBaseData>();
            (*call).flinfo = function;
            (*call).nargs = 1;
            call
        };
        Self { call, timeout_ms: c_int::try_from(handler.timeout.as_millis()).unwrap_or(c_int::MAX).max(1) }
    }

    /// Runs the handler for a message, and then `then`, in a savepoint. Whatever goes wrong, nothing of it remains.
    pub fn run(&self, message: &Message, event: impl FnOnce() -> pg_sys::Datum, then: impl FnOnce()) -> Outcome {
        CAUSE.with_borrow_mut(|cause| {
            *cause = Some(Cause {
                correlation_id: message.correlation_id.clone().or_else(|| Some(message.message_id.clone())),
                causation_id: Some(message.message_id.clone()),
                traceparent: message.traceparent.clone(),
            });
        });
        let caught = savepoint(|| {
            // SAFETY: the level is popped below, or by the savepoint's end.
            let nest = unsafe { pg_sys::NewGUCNestLevel() };
            self.call(event());
            // SAFETY: as above.
            unsafe { pg_sys::AtEOXact_GUC(false, nest) };
            then();
        });
        // SAFETY: in the main thread; does nothing if the timer is off.
        unsafe { disable_timeout(STATEMENT_TIMEOUT, false) };
        CAUSE.with_borrow_mut(|cause| *cause = None);
        caught.map_or(Outcome::Processed, Outcome::of)
    }

    fn call(&self, event: pg_sys::Datum) {
        // SAFETY: the call was prepared by `new`; one argument follows the struct. The guard turns an ERROR into an unwinding.
        unsafe {
            (*self.call).isnull = false;
            let arguments = (&raw mut (*self.call).args).cast::<pg_sys::NullableDatum>();
            *arguments = pg_sys::NullableDatum { value: event, isnull: false };
            TIME_MS.set(Some(self.timeout_ms));
            if let Some(last) = LAST_TIMEOUT.get() {
                enable_timeout_after(last, self.timeout_ms.saturating_mul(2).saturating_add(LAST_GRACE_MS));
            }
            enable_timeout_after(STATEMENT_TIMEOUT, self.timeout_ms);
            if let Some(function) = (*(*self.call).flinfo).fn_addr {
                pg_sys::submodules::ffi::pg_guard_ffi_boundary(|| function(self.call));
            }
            disable_timeout(STATEMENT_TIMEOUT, false);
            pgrx::check_for_interrupts!();
        }
    }
}

/// Runs `f` in a savepoint. An ERROR undoes it and is returned.
pub fn savepoint(f: impl FnOnce()) -> Option<Failure> {
    ERRORS.take();
    // SAFETY: the protocol of a caught error in a subtransaction (src/pl/plpgsql/src/pl_exec.c): memory context and resource
    // owner are the caller's again afterwards, whatever happened.
    unsafe {
        let context = pg_sys::CurrentMemoryContext;
        let owner = pg_sys::CurrentResourceOwner;
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(context);
        let body = std::panic::AssertUnwindSafe(|| {
            f();
            None
        });
        let caught = noting_errors(|| PgTryBuilder::new(body).catch_others(|error| Some(failure(&error))).execute());
        match caught {
            None => pg_sys::ReleaseCurrentSubTransaction(),
            Some(_) => pg_sys::RollbackAndReleaseCurrentSubTransaction(),
        }
        pg_sys::MemoryContextSwitchTo(context);
        pg_sys::CurrentResourceOwner = owner;
        caught
    }
}

/// Runs `f`, which catches its errors itself, and keeps what they say.
fn noting_errors<T>(f: impl FnOnce() -> T) -> T {
    // SAFETY: the entry is taken off the stack again before it goes out of scope; `f` does not unwind.
    unsafe {
        let mut note = pg_sys::ErrorContextCallback {
            previous: pg_sys::error_context_stack,
            callback: Some(note_error),
            arg: std::ptr::null_mut(),
        };
        pg_sys::error_context_stack = &raw mut note;
        let result = f();
        pg_sys::error_context_stack = note.previous;
        result
    }
}

/// The newest error with this message: others may have been raised and caught after the one that ended it, since a plain
/// RAISE hands the first on without a word.
fn noted(message: &str) -> Option<Failure> {
    ERRORS.take().into_iter().rev().find(|failure| failure.message == message)
}

/// Called by PostgreSQL for each message on its way to the client or the log: keeps the errors, whole. What pgrx hands on
/// has neither the SQLSTATEs that it does not know nor the context.
unsafe extern "C-unwind" fn note_error(_arg: *mut c_void) {
    // SAFETY: called by errfinish with the error on top of its stack. CopyErrorData wants another memory context than the
    // error's own. Nothing here has a destructor that a longjmp could skip.
    unsafe {
        if pg_sys::TopTransactionContext.is_null() {
            return;
        }
        let context = pg_sys::MemoryContextSwitchTo(pg_sys::TopTransactionContext);
        let data = CopyErrorData();
        pg_sys::MemoryContextSwitchTo(context);
        if (*data).elevel >= pgrx::PgLogLevel::ERROR as c_int {
            let detail: Vec<String> =
                [(*data).detail, (*data).context].into_iter().filter_map(|part| text(part)).collect();
            let failure = Failure {
                sqlstate: sqlstate((*data).sqlerrcode),
                message: text((*data).message).unwrap_or_default(),
                detail: (!detail.is_empty()).then(|| detail.join("\n")),
            };
            ERRORS.with_borrow_mut(|errors| {
                if errors.len() == NOTED {
                    errors.pop_front();
                }
                errors.push_back(failure);
            });
        }
        FreeErrorData(data);
    }
}

/// # Safety
/// `value` is null or a C string.
unsafe fn text(value: *const c_char) -> Option<String> {
    // SAFETY: as the caller's.
    (!value.is_null()).then(|| unsafe { CStr::from_ptr(value) }.to_string_lossy().into_owned())
}

/// Five characters of six bits each (src/include/utils/elog.h, `PGUNSIXBIT`).
fn sqlstate(code: c_int) -> String {
    (0..5).map(|i| char::from(((code >> (6 * i)) as u8 & 0x3f) + b'0')).collect()
}

fn failure(error: &CaughtError) -> Failure {
    match error {
        CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => noted(report.message())
            .unwrap_or_else(|| Failure {
                sqlstate: sqlstate(report.sql_error_code() as c_int),
                message: report.message().to_owned(),
                detail: report.detail().map(str::to_owned),
            }),
        CaughtError::RustPanic { ereport, .. } => {
            Failure { sqlstate: "XX000".into(), message: format!("panic: {}", ereport.message()), detail: None }
        }
    }
}

/// The C string of a text without NUL characters.
pub fn c_string(text: &str) -> CString {
    CString::new(text.replace('\0', "\u{fffd}")).unwrap_or_default()
}
