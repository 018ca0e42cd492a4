//! What a transaction owes to the workers when it commits. Touches atomics alone: it is paid in a commit callback.

use std::cell::Cell;

use pgrx::pg_sys;

use super::roles::Reasons;
use super::shmem;

/// What the current transaction owes to the workers when it commits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Owed {
    /// It stored events.
    pub events: bool,
    /// It changed descriptions or scheduled events.
    pub descriptions: bool,
    /// It made work for the consumer or the handlers: changed subscriptions, or left something to handle.
    pub inbox: bool,
    /// It changed endpoints or made deliveries.
    pub endpoints: bool,
    /// The workers are to start anew.
    pub restart: bool,
    /// The launcher is to look at this database.
    pub announce: bool,
    /// The launcher is to look what databases there are.
    pub databases: bool,
}

impl Owed {
    const NOTHING: Self = Self {
        events: false,
        descriptions: false,
        inbox: false,
        endpoints: false,
        restart: false,
        announce: false,
        databases: false,
    };
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

/// Forgets what the transaction owed: it was rolled back, or prepared.
pub fn forget() {
    OWED.set(Owed::NOTHING);
}

/// Wakes whom the transaction has to wake. Runs after it has become visible: whoever is woken sees its rows.
pub fn pay() {
    let owed = OWED.replace(Owed::NOTHING);
    if owed == Owed::NOTHING {
        return;
    }
    // SAFETY: read by the main thread, constant in a process.
    let oid = unsafe { pg_sys::MyDatabaseId };
    let mut entry = shmem::database(oid);
    // A database that the launcher has not met yet was copied from another one a moment ago.
    let is_new = owed.events && entry.is_none() && shmem::claim(oid).is_some();
    if owed.announce || is_new {
        shmem::want(oid);
        shmem::wake_launcher();
        entry = shmem::database(oid);
    }
    if owed.databases {
        shmem::databases_changed();
    }
    let Some(database) = entry else { return };
    if owed.events {
        note_commit();
        database.note(Reasons::EVENTS);
    }
    if owed.descriptions {
        // What waits already may be concerned.
        database.note(Reasons::DESCRIPTIONS.and(Reasons::EVENTS));
    }
    if owed.inbox {
        database.note(Reasons::INBOX);
    }
    if owed.endpoints {
        database.want_dispatcher();
        database.note(Reasons::ENDPOINTS);
    }
    if owed.restart {
        database.restart();
    }
}

/// Before the relay is woken, which wants to know.
fn note_commit() {
    // SAFETY: both are kept until the transaction's callbacks have run.
    let (xid, at) =
        unsafe { (pg_sys::GetTopFullTransactionIdIfAny().value, pg_sys::GetCurrentTransactionStopTimestamp()) };
    shmem::note_commit(xid, at);
}
