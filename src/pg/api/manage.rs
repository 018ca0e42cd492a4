//! `sea_mq.start`, `stop`, `reload`, and what descriptions call when they change.

use pgrx::{PgSqlErrorCode, pg_sys};

use crate::pg::commit::owe;
use crate::pg::datum::{nullable_text, return_set, sql_function, text_datum};
use crate::pg::error::raise;
use crate::pg::shmem::{self, Database, Phase, Role};
use crate::pg::worker;

sql_function!(wake_at_commit_wrapper, pg_finfo_wake_at_commit_wrapper, |_call| {
    owe(|owed| owed.descriptions = true);
    pg_sys::Datum::from(0)
});

sql_function!(restart_at_commit_wrapper, pg_finfo_restart_at_commit_wrapper, |_call| {
    owe(|owed| owed.restart = true);
    pg_sys::Datum::from(0)
});

sql_function!(announce_wrapper, pg_finfo_announce_wrapper, |_call| {
    owe(|owed| owed.announce = true);
    pg_sys::Datum::from(0)
});

sql_function!(preloaded_wrapper, pg_finfo_preloaded_wrapper, |_call| pg_sys::Datum::from(shmem::preloaded()));

// How the processes of this database have failed of late.
sql_function!(worker_failures_wrapper, pg_finfo_worker_failures_wrapper, |call| return_set(call, |row| {
    // SAFETY: read by the main thread, constant in a process.
    let Some(database) = shmem::database(unsafe { pg_sys::MyDatabaseId }) else { return };
    for role in Role::all() {
        let Some(found) = database.seat(role).failures.found() else { continue };
        let (error, no_error) = nullable_text(found.error.as_deref());
        let count = i32::try_from(found.count).unwrap_or(i32::MAX);
        let name = role.backend_type().trim_start_matches("sea_mq ");
        row(
            &mut [text_datum(name), count.into(), found.since.into(), found.last_at.into(), error],
            &mut [false, false, false, false, no_error],
        );
    }
}));

sql_function!(start_wrapper, pg_finfo_start_wrapper, |_call| {
    refuse_on_standby("sea_mq.start()");
    text_datum(match entry() {
        Some(database) => start_by_launcher(database),
        None => start_by_hand(),
    })
});

sql_function!(stop_wrapper, pg_finfo_stop_wrapper, |_call| {
    refuse_on_standby("sea_mq.stop()");
    let was_running = entry().map_or_else(worker::terminate_by_hand, Database::stop);
    text_datum(if was_running { "stopping" } else { "was not running" })
});

sql_function!(reload_wrapper, pg_finfo_reload_wrapper, |_call| {
    refuse_on_standby("sea_mq.reload()");
    let Some(database) = entry() else {
        return text_datum(if worker::terminate_by_hand() { start_by_hand() } else { "is not running" });
    };
    database.restart();
    shmem::wake_launcher();
    let stopped = database.seat(Role::Relay).phase() == Phase::Stopped;
    text_datum(if stopped { "is stopped" } else { "reloading" })
});

/// A standby has no workers, and a promotion starts them by itself.
fn refuse_on_standby(what: &str) {
    // SAFETY: reads shared memory.
    if unsafe { pg_sys::RecoveryInProgress() } {
        raise(
            PgSqlErrorCode::ERRCODE_READ_ONLY_SQL_TRANSACTION,
            format!("cannot execute {what} on a standby"),
            "Call it on the primary. Here, the workers start by themselves when this server is promoted.",
        );
    }
}

/// This database's entry in shared memory, taken if need be. `None` without preloading.
fn entry() -> Option<&'static Database> {
    // SAFETY: read by the main thread, constant in a process.
    let database = shmem::claim(unsafe { pg_sys::MyDatabaseId });
    if database.is_none() && shmem::preloaded() {
        raise(
            PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
            format!("{} databases have a relay already, which is the limit", shmem::MAX_DATABASES),
            "Spread the contexts over several servers.",
        );
    }
    database
}

fn start_by_launcher(database: &Database) -> &'static str {
    if !database.start() {
        return "is running";
    }
    shmem::wake_launcher();
    "starting"
}

fn start_by_hand() -> &'static str {
    if worker::start_by_hand() {
        return "starting";
    }
    raise(
        PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
        "no worker slot is free",
        "Raise max_worker_processes and restart the server.",
    )
}
