//! The processes: one launcher for the server; for each database that has the extension one relay, one consumer, as many
//! handlers as the consumer asks for, and a dispatcher if there are endpoints.

mod consumer;
mod dispatcher;
mod identity;
mod launcher;
mod library;
mod process;
mod relay;
mod removals;
mod rest;

use std::time::Duration;

use pgrx::bgworkers::{BackgroundWorkerBuilder, BgWorkerStartTime, DynamicBackgroundWorker};
use pgrx::pg_sys;

use crate::host::roles::Role;
use crate::sys::backends;

/// Registers the launcher. To be called from `_PG_init` while the postmaster preloads.
pub fn register_launcher() {
    BackgroundWorkerBuilder::new("sea_mq launcher")
        .set_type("sea_mq launcher")
        .set_library("sea_mq")
        .set_function("sea_mq_launcher_main")
        // Not on a standby: there it starts with the promotion.
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        .set_restart_time(Some(Duration::from_secs(5)))
        .enable_spi_access()
        .load();
}

/// Asks the postmaster for a worker of a database. `None`: no worker slot is free.
fn start(role: Role, database: pg_sys::Oid, notify: i32) -> Option<DynamicBackgroundWorker> {
    BackgroundWorkerBuilder::new(role.kind().name)
        .set_type(role.kind().name)
        .set_library("sea_mq")
        .set_function(role.kind().entry_point)
        .set_argument(Some(process::argument(role, database)))
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        // The launcher decides about restarts.
        .set_restart_time(None)
        .set_notify_pid(notify)
        .enable_spi_access()
        .load_dynamic()
        .ok()
}

/// Starts this database's relay and consumer without a launcher. Returns whether there was a worker slot for each.
pub fn start_by_hand() -> bool {
    // SAFETY: read by the main thread, constant in a process.
    let database = unsafe { pg_sys::MyDatabaseId };
    Role::standing().map(|role| start(role, database, 0)).filter(Option::is_none).count() == 0
}

/// Ends this database's workers without a launcher. Returns whether there was one.
///
/// The signal comes from the server itself: whoever may call `sea_mq.stop()` needs no right to end processes.
pub fn terminate_by_hand() -> bool {
    // SAFETY: read by the main thread, constant in a process.
    let workers = backends::workers_of(unsafe { pg_sys::MyDatabaseId });
    // SAFETY: to a worker of ours that was there a moment ago.
    workers.iter().filter(|&&pid| backends::is_there(pid) && unsafe { libc::kill(pid, libc::SIGTERM) } == 0).count() > 0
}
