//! `sea_mq.start`, `stop`, `reload`, and what descriptions call when they change.

use pgrx::{PgSqlErrorCode, pg_sys};

use crate::domain::address::Urls;
use crate::pg::commit::owe;
use crate::pg::datum::{sql_function, text_datum};
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

sql_function!(redacted_urls_wrapper, pg_finfo_redacted_urls_wrapper, |call| match call.text(0) {
    Some(urls) => text_datum(&Urls::new(&urls).redacted()),
    None => call.null(),
});

sql_function!(preloaded_wrapper, pg_finfo_preloaded_wrapper, |_call| pg_sys::Datum::from(shmem::preloaded()));

sql_function!(start_wrapper, pg_finfo_start_wrapper, |_call| {
    text_datum(match entry() {
        Some(database) => start_by_launcher(database),
        None => start_by_hand(),
    })
});

sql_function!(stop_wrapper, pg_finfo_stop_wrapper, |_call| {
    let was_running = entry().map_or_else(worker::terminate_by_hand, Database::stop);
    text_datum(if was_running { "stopping" } else { "was not running" })
});

sql_function!(reload_wrapper, pg_finfo_reload_wrapper, |_call| {
    let Some(database) = entry() else {
        return text_datum(if worker::terminate_by_hand() { start_by_hand() } else { "is not running" });
    };
    database.restart();
    shmem::wake_launcher();
    let stopped = database.seat(Role::Relay).phase() == Phase::Stopped;
    text_datum(if stopped { "is stopped" } else { "reloading" })
});

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
