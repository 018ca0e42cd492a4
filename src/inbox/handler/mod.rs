//! Running a subscription's handler: as its owner, in a savepoint, bounded in time, its settings undone.
//!
//! The role is set for the whole transaction and kept through its commit, so that deferred triggers and constraints run as
//! the owner as well. What the bookkeeping does in between with SQL it does as the worker and with a safe `search_path`
//! ([`crate::host::door`]); rows that are appended directly need no rights.
//!
//! - [`session`]: transactions, roles, settings and time; [`caught`]: savepoints and what their errors say

mod caught;
mod session;

use std::ffi::c_int;
use std::time::Duration;

use pgrx::pg_sys;

pub use caught::savepoint;
pub use session::{handling, prepare, transaction, transaction_in};

use crate::host::cause::{self, Cause};
use sea_mq_model::domain::message::Message;
use sea_mq_model::domain::outcome::Outcome;

/// A handler and how to run it. Found anew in each transaction: it may change or go at any time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handler {
    pub function: pg_sys::Oid,
    pub owner: pg_sys::Oid,
    pub timeout: Duration,
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
        let in_force = cause::InForce::begin(Cause {
            correlation_id: message.correlation_id.clone().or_else(|| Some(message.message_id.clone())),
            causation_id: Some(message.message_id.clone()),
            traceparent: message.traceparent.clone(),
        });
        let caught = savepoint(|| {
            // SAFETY: the level is popped below, or by the savepoint's end.
            let nest = unsafe { pg_sys::NewGUCNestLevel() };
            self.call(event());
            // SAFETY: as above.
            unsafe { pg_sys::AtEOXact_GUC(false, nest) };
            then();
        });
        session::end_timeout();
        drop(in_force);
        caught.map_or(Outcome::Processed, Outcome::of)
    }

    fn call(&self, event: pg_sys::Datum) {
        // SAFETY: the call was prepared by `new`; one argument follows the struct. The guard turns an ERROR into an unwinding.
        unsafe {
            (*self.call).isnull = false;
            let arguments = (&raw mut (*self.call).args).cast::<pg_sys::NullableDatum>();
            *arguments = pg_sys::NullableDatum { value: event, isnull: false };
            session::begin_timeout(self.timeout_ms);
            if let Some(function) = (*(*self.call).flinfo).fn_addr {
                pg_sys::submodules::ffi::pg_guard_ffi_boundary(|| function(self.call));
            }
            session::end_timeout();
            pgrx::check_for_interrupts!();
        }
    }
}
