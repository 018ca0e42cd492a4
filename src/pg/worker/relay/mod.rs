//! The relay's process: what it needs before it can work, and what follows when it ends.
//!
//! This thread alone talks to PostgreSQL; `NatsIo`'s thread alone talks to NATS. No transaction is open while anything
//! waits for the network.

mod effects;
mod pass;
mod worker;

use std::sync::atomic::Ordering;

use pgrx::bgworkers::BackgroundWorker;
use pgrx::{FromDatum, log, pg_guard, pg_sys, warning};

use super::session;
use crate::pg::commit::{LockClass, lock_tag};
use crate::pg::shmem::{self, Database, Phase as Life};
use worker::Worker;

#[unsafe(no_mangle)]
#[doc(hidden)]
#[pg_guard]
pub extern "C-unwind" fn sea_mq_relay_main(arg: pg_sys::Datum) {
    session::attach_signals();
    // SAFETY: the launcher passes the OID of the database.
    let oid = unsafe { pg_sys::Oid::from_datum(arg, false) }.unwrap_or(pg_sys::InvalidOid);
    BackgroundWorker::connect_worker_to_spi_by_oid(Some(oid), None);
    let database = shmem::database(oid);
    prepare_session();
    let extension = match session::transaction(extension) {
        Ok(Some(extension)) => extension,
        Ok(None) => return leave(database, Life::Absent),
        Err(error) => {
            warning!("sea_mq relay: {error}");
            return leave(database, Life::Failed);
        }
    };
    if let Err(error) = session::transaction(lock_relay) {
        log!("sea_mq relay: another relay serves this database: {error}");
        return leave(database, Life::Failed);
    }
    if let Some(database) = database {
        // SAFETY: this process's own latch and id; the callback runs before both are given away.
        unsafe {
            database.attach(Some(pg_sys::MyLatch), pg_sys::MyProcPid);
            pg_sys::before_shmem_exit(Some(detach), pg_sys::Datum::from(0));
        }
    }
    match Worker::new(database, extension) {
        Ok(mut worker) => {
            let next = worker.run();
            leave(database, next);
        }
        Err(error) => {
            warning!("sea_mq relay: cannot start its I/O thread: {error}");
            leave(database, Life::Failed);
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn detach(_code: i32, _arg: pg_sys::Datum) {
    // SAFETY: read by the main thread, constant in a process.
    if let Some(database) = shmem::database(unsafe { pg_sys::MyDatabaseId }) {
        database.max_payload.store(0, Ordering::Release);
        database.attach(None, 0);
    }
}

/// Notes what is to follow, unless somebody else has decided that already. Returning ends the process with code 0.
fn leave(database: Option<&Database>, next: Life) {
    if let Some(database) = database {
        database.advance(Life::Running, next);
        shmem::wake_launcher();
    }
}

fn prepare_session() {
    let settings = [
        (c"search_path", c"pg_catalog"),
        // A lost save of a cursor repeats nothing: the stream's tail is read before anything is published again.
        (c"synchronous_commit", c"off"),
        (c"statement_timeout", c"0"),
        (c"lock_timeout", c"5s"),
        (c"idle_in_transaction_session_timeout", c"0"),
        (c"default_transaction_isolation", c"read committed"),
        (c"default_transaction_read_only", c"off"),
        (c"jit", c"off"),
        (c"plan_cache_mode", c"force_generic_plan"),
    ];
    for (name, value) in settings {
        // SAFETY: C strings; the settings exist in every supported version.
        unsafe {
            pg_sys::SetConfigOption(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_SUSET,
                pg_sys::GucSource::PGC_S_OVERRIDE,
            );
        }
    }
}

/// The extension, if it is installed.
fn extension() -> Option<pg_sys::Oid> {
    // SAFETY: a catalog look-up in a transaction.
    let oid = unsafe { pg_sys::get_extension_oid(c"sea_mq".as_ptr(), true) };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

/// Waits for the lock that one relay of a database has. Kept until the process ends.
fn lock_relay() {
    let tag = lock_tag(0, 0, LockClass::Relay);
    // SAFETY: a session lock; `lock_timeout` bounds the wait.
    unsafe { pg_sys::LockAcquire(&tag, pg_sys::ExclusiveLock as _, true, false) };
}
