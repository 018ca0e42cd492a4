//! The processes: one launcher for the server, one relay for each database that has the extension.

mod identity;
mod janitor;
mod launcher;
mod relay;
mod session;

use std::time::Duration;

use pgrx::bgworkers::{BackgroundWorkerBuilder, BgWorkerStartTime, DynamicBackgroundWorker};
use pgrx::{IntoDatum, pg_sys};

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

/// Asks the postmaster for a relay of a database. `None`: no worker slot is free.
fn start_relay(database: pg_sys::Oid, notify: i32) -> Option<DynamicBackgroundWorker> {
    BackgroundWorkerBuilder::new("sea_mq relay")
        .set_type("sea_mq relay")
        .set_library("sea_mq")
        .set_function("sea_mq_relay_main")
        .set_argument(database.into_datum())
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        // The launcher decides about restarts.
        .set_restart_time(None)
        .set_notify_pid(notify)
        .enable_spi_access()
        .load_dynamic()
        .ok()
}

/// Starts this database's relay without a launcher.
pub fn start_by_hand() -> bool {
    // SAFETY: read by the main thread, constant in a process.
    start_relay(unsafe { pg_sys::MyDatabaseId }, 0).is_some()
}

/// Ends this database's relay without a launcher. Returns whether there was one.
pub fn terminate_by_hand() -> bool {
    let mut found = false;
    streams::as_owner(|| {
        let sql = "SELECT pg_catalog.pg_terminate_backend(a.pid) FROM pg_catalog.pg_stat_activity a
            WHERE a.backend_type = 'sea_mq relay' AND a.datid = (SELECT d.oid FROM pg_catalog.pg_database d
                WHERE d.datname = pg_catalog.current_database())";
        found = !spi::execute(sql, &[]).is_empty();
    });
    found
}
