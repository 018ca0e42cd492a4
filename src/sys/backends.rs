//! The processes that are connected to a database, without SQL: whoever asks needs no right to see them.

use std::ffi::CStr;

use pgrx::pg_sys;

use super::versions;

/// A process that is connected to a database, as `pg_stat_activity` knows it.
#[derive(Clone, Copy, Debug)]
pub struct Backend {
    pub pid: i32,
    /// Whom it is logged in as.
    pub user: pg_sys::Oid,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One of our workers.
    Worker,
    /// Autovacuum, which whoever needs the database for himself sends away.
    Autovacuum,
    /// Anything else: sessions, other extensions' workers.
    Session,
}

/// The processes that are connected to a database, the calling one excepted.
pub fn of(database: pg_sys::Oid) -> Vec<Backend> {
    // SAFETY: read by the main thread.
    let me = unsafe { pg_sys::MyProcPid };
    let mut found = Vec::new();
    // SAFETY: the entries are copies in this process's memory, valid until the next look; they count from 1.
    unsafe {
        pg_sys::pgstat_clear_backend_activity_snapshot();
        for number in 1..=pg_sys::pgstat_fetch_stat_numbackends() {
            let Some(entry) = versions::process_entry(number).as_ref() else { continue };
            let status = &entry.backendStatus;
            if status.st_databaseid != database || [0, me].contains(&status.st_procpid) {
                continue;
            }
            if let Some(kind) = kind(status) {
                found.push(Backend { pid: status.st_procpid, user: status.st_userid, kind });
            }
        }
        // What the transaction has seen of it in `pg_stat_activity` is not to be this look.
        pg_sys::pgstat_clear_backend_activity_snapshot();
    }
    found
}

/// Our workers in a database.
pub fn workers_of(database: pg_sys::Oid) -> Vec<i32> {
    of(database).iter().filter(|backend| backend.kind == Kind::Worker).map(|backend| backend.pid).collect()
}

/// Whether a process can still be met by those who need its database for themselves.
pub fn is_there(pid: i32) -> bool {
    // SAFETY: a look at the process array.
    unsafe { !pg_sys::BackendPidGetProc(pid).is_null() }
}

/// Whether a prepared transaction holds the database: it has locks there, and no process.
pub fn has_prepared_transaction(database: pg_sys::Oid) -> bool {
    // SAFETY: the result is a copy, in the current memory context.
    unsafe {
        let data = pg_sys::GetLockStatusData();
        let count = usize::try_from((*data).nelements).unwrap_or(0);
        let held_by_nobody = |lock: &pg_sys::LockInstanceData| {
            lock.pid == 0
                && u32::from(lock.locktag.locktag_type) == pg_sys::LockTagType::LOCKTAG_RELATION
                && lock.locktag.locktag_field1 == database.to_u32()
        };
        (0..count).any(|at| held_by_nobody(&*(*data).locks.add(at)))
    }
}

/// `None`: the process has ended meanwhile.
fn kind(status: &pg_sys::PgBackendStatus) -> Option<Kind> {
    match status.st_backendType {
        pg_sys::BackendType::B_AUTOVAC_WORKER => Some(Kind::Autovacuum),
        pg_sys::BackendType::B_BG_WORKER => {
            // SAFETY: returns null or a C string that is valid until the next call.
            let name = unsafe { pg_sys::GetBackgroundWorkerTypeByPid(status.st_procpid) };
            if name.is_null() {
                return None;
            }
            // SAFETY: as above.
            let is_ours = unsafe { CStr::from_ptr(name) }.to_bytes().starts_with(b"sea_mq ");
            Some(if is_ours { Kind::Worker } else { Kind::Session })
        }
        _ => Some(Kind::Session),
    }
}
