//! Savepoints, and what the errors say that they catch.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ffi::{CStr, c_char, c_int, c_void};

use pgrx::pg_sys::panic::CaughtError;
use pgrx::{PgTryBuilder, pg_sys};

use sea_mq_model::domain::outcome::Failure;

unsafe extern "C-unwind" {
    /// src/backend/utils/error/elog.c. Called raw: pgrx's guard would run in the middle of an error.
    fn CopyErrorData() -> *mut pg_sys::ErrorData;
    fn FreeErrorData(data: *mut pg_sys::ErrorData);
}

/// Errors of one savepoint that are kept.
const NOTED: usize = 64;

thread_local! {
    /// Errors since the transaction or savepoint began, caught ones included, the newest last.
    static ERRORS: RefCell<VecDeque<Failure>> = const { RefCell::new(VecDeque::new()) };
}

/// Forgets the errors so far.
pub fn forget() {
    ERRORS.take();
}

/// Runs `f` in a savepoint. An ERROR undoes it and is returned.
pub fn savepoint(f: impl FnOnce()) -> Option<Failure> {
    forget();
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
pub fn noting_errors<T>(f: impl FnOnce() -> T) -> T {
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
pub fn noted(message: &str) -> Option<Failure> {
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
pub unsafe fn text(value: *const c_char) -> Option<String> {
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
