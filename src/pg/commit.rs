//! What happens with a transaction's events when it ends.
//!
//! One permanent callback per process (never one per transaction: those survive PREPARE TRANSACTION and fire at the next
//! unrelated commit). Only its pre-commit arms may fail. The others run when the outcome is decided: an error there
//! would take the server down, so they touch atomics and free memory, and nothing else.

use std::cell::Cell;
use std::sync::atomic::Ordering;

use pgrx::{pg_guard, pg_sys};

use super::shmem::{self, Role};
use super::{capture, door, exclusive, pending};

/// Our classes in the lock space of advisory locks; SQL functions use 1 and 2, so nobody else's locks are met.
#[derive(Clone, Copy)]
#[repr(u16)]
pub enum LockClass {
    /// One event id.
    EventId = 0x5EA0,
    /// All event ids: shared by those who lock some, exclusive for those who would have to lock too many.
    AllEventIds = 0x5EA1,
    /// The description of one stream.
    Stream = 0x5EA2,
    /// What sessions ask of the relay, one at a time.
    Inquiry = 0x5EA3,
}

/// A lock of the current database.
pub fn lock_tag(key1: u32, key2: u32, class: LockClass) -> pg_sys::LOCKTAG {
    pg_sys::LOCKTAG {
        // SAFETY: read by the main thread, constant in a process.
        locktag_field1: unsafe { pg_sys::MyDatabaseId }.to_u32(),
        locktag_field2: key1,
        locktag_field3: key2,
        locktag_field4: class as u16,
        locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
        locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
    }
}

/// What the current transaction owes to the workers when it commits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Owed {
    /// It stored events.
    pub events: bool,
    /// It changed descriptions or scheduled events.
    pub descriptions: bool,
    /// It made work for the consumer or the handlers: changed subscriptions, or left something to handle.
    pub inbox: bool,
    /// The workers are to start anew.
    pub restart: bool,
    /// The launcher is to look at this database.
    pub announce: bool,
    /// The launcher is to look what databases there are.
    pub databases: bool,
}

impl Owed {
    const NOTHING: Self =
        Self { events: false, descriptions: false, inbox: false, restart: false, announce: false, databases: false };
}

thread_local! {
    static OWED: Cell<Owed> = const { Cell::new(Owed::NOTHING) };
}

/// Notes something that the current transaction owes when it commits.
pub fn owe(note: impl FnOnce(&mut Owed)) {
    let mut owed = OWED.get();
    note(&mut owed);
    OWED.set(owed);
}

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
            pay(OWED.replace(Owed::NOTHING));
        }
        pg_sys::XactEvent::XACT_EVENT_ABORT | pg_sys::XactEvent::XACT_EVENT_PREPARE => {
            door::abandon(0);
            pending::forget();
            capture::forget();
            exclusive::release();
            OWED.set(Owed::NOTHING);
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

/// Runs after the transaction has become visible: whoever is woken sees its rows.
fn pay(owed: Owed) {
    if owed == Owed::NOTHING {
        return;
    }
    // SAFETY: read by the main thread, constant in a process.
    let oid = unsafe { pg_sys::MyDatabaseId };
    // A database that the launcher has not met yet was copied from another one a moment ago.
    let is_new = owed.events && shmem::database(oid).is_none() && shmem::claim(oid).is_some();
    if owed.announce || is_new {
        shmem::want(oid);
        shmem::wake_launcher();
    }
    if owed.databases {
        shmem::databases_changed();
    }
    let Some(database) = shmem::database(oid) else { return };
    if owed.events {
        database.note_events();
    }
    if owed.descriptions {
        database.descriptions.store(true, Ordering::Release);
        // What waits already may be concerned.
        database.events.store(true, Ordering::Release);
        database.seat(Role::Relay).wake();
    }
    if owed.inbox {
        database.note_inbox();
    }
    if owed.restart {
        database.restart();
    }
}
