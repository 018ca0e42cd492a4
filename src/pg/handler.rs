//! Running a subscription's handler: as its owner, in a savepoint, bounded in time, its settings undone.
//!
//! The role is set for the whole transaction and kept through its commit, so that deferred triggers and constraints run as
//! the owner as well. What the bookkeeping does in between with SQL it does as the worker and with a safe `search_path`
//! ([`as_worker`]); rows that are appended directly need no rights.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::time::Duration;

use pgrx::pg_sys::panic::CaughtError;
use pgrx::{PgTryBuilder, pg_sys};

use super::worker::session::{self, Failed};
use crate::domain::message::Message;
use crate::domain::outcome::{Failure, Outcome};

unsafe extern "C-unwind" {
    /// src/backend/utils/misc/timeout.c. Not in pgrx's bindings.
    fn enable_timeout_after(id: c_int, delay_ms: c_int);
    fn disable_timeout(id: c_int, keep_indicator: bool);
    /// src/backend/utils/error/elog.c. Called raw: pgrx's guard would run in the middle of an error.
    fn CopyErrorData() -> *mut pg_sys::ErrorData;
    fn FreeErrorData(data: *mut pg_sys::ErrorData);
}

/// `STATEMENT_TIMEOUT` of src/include/utils/timeout.h, the same since PostgreSQL 9.3.
const STATEMENT_TIMEOUT: c_int = 3;

/// What the emits of the current handler take from the event that is handled.
#[derive(Clone, Debug, Default)]
pub struct Cause {
    pub correlation_id: Option<String>,
    pub causation_id: Option<String>,
    pub traceparent: Option<String>,
}

thread_local! {
    static CAUSE: RefCell<Option<Cause>> = const { RefCell::new(None) };
    static LAST_ERROR: RefCell<Option<Failure>> = const { RefCell::new(None) };
    static SEARCH_PATH: RefCell<CString> = RefCell::new(CString::default());
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
    LAST_ERROR.set(None);
    // SAFETY: reads and writes the identity of this process; after an ERROR the transaction's abort has restored it.
    unsafe {
        pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
        let result = noting_errors(|| session::transaction(f));
        pg_sys::SetUserIdAndSecContext(user, context);
        result.map_err(|Failed(message)| {
            LAST_ERROR.take().unwrap_or(Failure { sqlstate: "XX000".into(), message, detail: None })
        })
    }
}

/// Keeps the search path that this session began with for the handlers. To be called before it is set to something else.
pub fn remember_search_path() {
    // SAFETY: the setting exists; its value is copied at once.
    let path = unsafe { text(pg_sys::GetConfigOption(c"search_path".as_ptr(), false, false)) };
    SEARCH_PATH.set(c_string(&path.unwrap_or_default()));
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
    SEARCH_PATH.with_borrow(|path| set_local(c"search_path", path));
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
    LAST_ERROR.set(None);
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

/// Runs `f`, which catches its errors itself, and keeps the last of them.
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
            LAST_ERROR.set(Some(failure));
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
    let noted = LAST_ERROR.take();
    match error {
        CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => noted.unwrap_or_else(|| Failure {
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
