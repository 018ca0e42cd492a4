//! What happens with a transaction's events when it ends.
//!
//! One permanent callback per process (never one per transaction: those survive PREPARE TRANSACTION and fire at the next
//! unrelated commit). Only its pre-commit arms may fail. The others run when the outcome is decided: an error there
//! would take the server down, so they touch atomics and free memory, and nothing else.

use pgrx::{pg_guard, pg_sys};

use crate::emit::{capture, pending};
use crate::host::{door, exclusive, owed};

/// Registers the callbacks. Called once per process, from `_PG_init`.
pub fn register() {
    // SAFETY: the callbacks have static lifetime and take no argument.
    unsafe {
        pg_sys::RegisterXactCallback(Some(at_transaction_end), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(at_subtransaction_end), std::ptr::null_mut());
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn at_transaction_end(event: pg_sys::XactEvent::Type, _arg: *mut std::ffi::c_void) {
    match event {
        pg_sys::XactEvent::XACT_EVENT_PRE_COMMIT | pg_sys::XactEvent::XACT_EVENT_PRE_PREPARE => {
            door::settle();
            pending::write();
        }
        pg_sys::XactEvent::XACT_EVENT_COMMIT => {
            door::abandon(0);
            pending::forget();
            capture::forget();
            exclusive::release();
            owed::pay();
        }
        pg_sys::XactEvent::XACT_EVENT_ABORT | pg_sys::XactEvent::XACT_EVENT_PREPARE => {
            door::abandon(0);
            pending::forget();
            capture::forget();
            exclusive::release();
            owed::forget();
        }
        _ => {}
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn at_subtransaction_end(
    event: pg_sys::SubXactEvent::Type,
    id: pg_sys::SubTransactionId,
    _parent: pg_sys::SubTransactionId,
    _arg: *mut std::ffi::c_void,
) {
    if event == pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB {
        // SAFETY: reads the state of the transaction.
        door::abandon(unsafe { pg_sys::GetCurrentTransactionNestLevel() });
        pending::roll_back_to(id);
        capture::roll_back_to(id);
        exclusive::roll_back_to(id);
    }
}
