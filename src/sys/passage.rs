//! Errors of others on their way through our functions: of a capture's condition, of a type's output function.
//!
//! pgrx turns an ERROR into a panic, so that Rust cleans up, and raises another one at the function's end. That has neither
//! the SQLSTATEs of users nor constraint, table and context. So each error is noted whole when it is raised, and the one
//! that comes out at the end is raised again as it was, by the function's outermost frame, which has nothing to clean up.

use std::cell::Cell;
use std::ffi::{CStr, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use pgrx::pg_sys;
use pgrx::pg_sys::panic::CaughtError;

use super::datum::Call;

unsafe extern "C-unwind" {
    /// src/backend/utils/error/elog.c. Called raw: pgrx's guard would run in the middle of an error, and catch it.
    fn CopyErrorData() -> *mut pg_sys::ErrorData;
    fn FreeErrorData(data: *mut pg_sys::ErrorData);
    fn ReThrowError(data: *mut pg_sys::ErrorData) -> !;
}

thread_local! {
    /// The error raised last, caught ones included; null: none yet. Lives until the next one.
    static LAST: Cell<*mut pg_sys::ErrorData> = const { Cell::new(std::ptr::null_mut()) };
    /// What `raise_noted` is to raise.
    static OWED: Cell<*mut pg_sys::ErrorData> = const { Cell::new(std::ptr::null_mut()) };
}

/// Runs a function's body. An error of PostgreSQL's that comes out of it is left to `raise_noted`; anything else unwinds.
pub fn run(call: Call, body: fn(Call) -> pg_sys::Datum) -> pg_sys::Datum {
    let mut note = pg_sys::ErrorContextCallback {
        previous: std::ptr::null_mut(),
        callback: Some(note_error),
        arg: std::ptr::null_mut(),
    };
    // SAFETY: the frames of the other entries are those of our callers. Ours is taken off before this one ends: whatever
    // leaves the body, unwinds.
    let outcome = unsafe {
        // The last to be called: then the context is complete.
        let mut link = &raw mut pg_sys::error_context_stack;
        while !(*link).is_null() {
            link = &raw mut (**link).previous;
        }
        *link = &raw mut note;
        let outcome = catch_unwind(AssertUnwindSafe(|| body(call)));
        *link = std::ptr::null_mut();
        outcome
    };
    match outcome {
        Ok(value) => value,
        Err(panic) if is_noted(&*panic) => {
            OWED.set(LAST.get());
            pg_sys::Datum::from(0)
        }
        Err(panic) => resume_unwind(panic),
    }
}

/// Raises the error with which the function's body ended, if it did.
///
/// # Safety
/// The frames from the caller to PostgreSQL's own have nothing to clean up.
pub unsafe fn raise_noted() {
    let error = OWED.replace(std::ptr::null_mut());
    if !error.is_null() {
        // SAFETY: noted whole; it is copied to where errors are.
        unsafe { ReThrowError(error) }
    }
}

/// Others may have been raised since and caught: then it is not the last one, and is left to pgrx.
fn is_noted(panic: &(dyn std::any::Any + Send)) -> bool {
    let Some(CaughtError::PostgresError(report)) = panic.downcast_ref::<CaughtError>() else { return false };
    // SAFETY: null, or noted whole.
    unsafe {
        LAST.get().as_ref().is_some_and(|last| {
            !last.message.is_null() && CStr::from_ptr(last.message).to_string_lossy() == report.message()
        })
    }
}

/// Called by PostgreSQL for each message on its way to the client or the log. A plain frame.
unsafe extern "C-unwind" fn note_error(_arg: *mut c_void) {
    // SAFETY: called by errfinish with the error on top of its stack. CopyErrorData wants another memory context than the
    // error's own.
    unsafe {
        let context = pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
        let data = CopyErrorData();
        pg_sys::MemoryContextSwitchTo(context);
        let is_error = (*data).elevel == pgrx::PgLogLevel::ERROR as c_int;
        let useless = if is_error { LAST.replace(data) } else { data };
        if !useless.is_null() {
            FreeErrorData(useless);
        }
    }
}
