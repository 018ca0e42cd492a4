//! The processes: one launcher for the server; for each database that has the extension one relay, one consumer, and as
//! many handlers as the consumer asks for.

mod consumer;
mod identity;
mod janitor;
mod launcher;
mod process;
mod relay;
mod removals;
pub mod session;

use std::time::Duration;

use pgrx::bgworkers::{BackgroundWorkerBuilder, BgWorkerStartTime, DynamicBackgroundWorker};
use pgrx::pg_sys;

use super::shmem::Role;
use super::store::{spi, streams};

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
    BackgroundWorkerBuilder::new(role.backend_type())
        .set_type(role.backend_type())
        .set_library("sea_mq")
        .set_function(role.entry_point())
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
    Role::STANDING.map(|role| start(role, database, 0)).iter().all(Option::is_some)
}

/// Ends this database's workers without a launcher. Returns whether there was one.
pub fn terminate_by_hand() -> bool {
    let mut found = false;
    streams::as_owner(|| {
        let sql = "SELECT pg_catalog.pg_terminate_backend(a.pid) FROM pg_catalog.pg_stat_activity a
            WHERE a.backend_type IN ('sea_mq relay', 'sea_mq consumer', 'sea_mq handler')
                AND a.datid = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())";
        found = !spi::execute(sql, &[]).is_empty();
    });
    found
}
