//! `sea_mq.start`, `stop`, `reload`, and what descriptions call when they change.

use std::sync::atomic::Ordering;
use std::time::Duration;

use pgrx::{PgSqlErrorCode, pg_sys};

use crate::host::door::as_owner;
use crate::host::owed::owe;
use crate::host::roles::Role;
use crate::host::seat::Life;
use crate::host::shmem::{self, Database};
use crate::host::{gucs, installation, session};
use crate::sys::catalog;
use crate::sys::datum::{nullable_text, return_set, sql_function, text_datum};
use crate::sys::error::raise;
use crate::workers;
use sea_mq_model::domain::address::Urls;

/// How long `start` waits for the launcher, and how often it looks.
const OUTCOME: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(5);

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

// Credentials are part of no path, and are taken out of URLs.
sql_function!(broker_settings_wrapper, pg_finfo_broker_settings_wrapper, |call| return_set(call, |row| {
    for (name, value) in gucs::broker_texts() {
        let value = if name == "sea_mq.nats_url" { Urls::new(&value).redacted() } else { value };
        row(&mut [text_datum(name), text_datum(&value)], &mut [false, false]);
    }
}));

sql_function!(preloaded_wrapper, pg_finfo_preloaded_wrapper, |_call| pg_sys::Datum::from(shmem::preloaded()));

// The library that this process has loaded; after an installation that is not yet the one on disk.
sql_function!(library_version_wrapper, pg_finfo_library_version_wrapper, |_call| text_datum(env!("CARGO_PKG_VERSION")));

sql_function!(has_broker_wrapper, pg_finfo_has_broker_wrapper, |_call| {
    pg_sys::Datum::from(as_owner(installation::has_broker))
});

// How the processes of this database have failed of late.
sql_function!(worker_failures_wrapper, pg_finfo_worker_failures_wrapper, |call| return_set(call, |row| {
    let Some(database) = shmem::here() else { return };
    for role in Role::all() {
        let Some(found) = database.seat(role).failures.found() else { continue };
        let (error, no_error) = nullable_text(found.error.as_deref());
        let count = i32::try_from(found.count).unwrap_or(i32::MAX);
        let name = role.kind().name.trim_start_matches("sea_mq ");
        row(
            &mut [text_datum(name), count.into(), found.since.into(), found.last_at.into(), error],
            &mut [false, false, false, false, no_error],
        );
    }
}));

// Standing workers that are not there although nobody has stopped them, and nothing has failed.
sql_function!(worker_pauses_wrapper, pg_finfo_worker_pauses_wrapper, |call| return_set(call, |row| {
    let Some(database) = shmem::here() else { return };
    for role in Role::standing() {
        let seat = database.seat(role);
        let (life, waits_since) = (seat.life(), seat.waits_since.load(Ordering::Acquire));
        let (state, since) = match life {
            Life::Resting => ("resting", seat.rests_since.load(Ordering::Acquire)),
            Life::Wanted if waits_since != 0 => ("queued", waits_since),
            Life::Wanted | Life::Running if !seat.has_process() => ("starting", 0),
            _ => continue,
        };
        let name = role.kind().name.trim_start_matches("sea_mq ");
        row(&mut [text_datum(name), text_datum(state), since.into()], &mut [false, false, since == 0]);
    }
}));

sql_function!(start_wrapper, pg_finfo_start_wrapper, |_call| {
    refuse_on_standby("sea_mq.start()");
    if let Some(Obstacle { problem, hint }) = unservable(here()) {
        raise(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, problem, hint);
    }
    text_datum(match entry() {
        Some(database) => start_by_launcher(database),
        None => start_by_hand(),
    })
});

sql_function!(stop_wrapper, pg_finfo_stop_wrapper, |_call| {
    refuse_on_standby("sea_mq.stop()");
    let was_running = entry().map_or_else(workers::terminate_by_hand, Database::stop);
    text_datum(if was_running { "stopping" } else { "was not running" })
});

sql_function!(reload_wrapper, pg_finfo_reload_wrapper, |_call| {
    refuse_on_standby("sea_mq.reload()");
    let Some(database) = entry() else {
        return text_datum(if workers::terminate_by_hand() { start_by_hand() } else { "is not running" });
    };
    database.restart();
    shmem::wake_launcher();
    let stopped = database.seat(Role::Relay).life() == Life::Stopped;
    text_datum(if stopped { "is stopped" } else { "reloading" })
});

sql_function!(worker_problem_wrapper, pg_finfo_worker_problem_wrapper, |call| {
    let found = obstacle();
    return_set(call, |row| {
        if let Some(obstacle) = found {
            row(&mut [text_datum(&obstacle.problem), text_datum(obstacle.hint)], &mut [false, false]);
        }
    })
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
    let oid = here();
    let database = shmem::claim(oid);
    if database.is_none() && shmem::preloaded() {
        let Obstacle { problem, hint } = no_place();
        raise(PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED, problem, hint);
    }
    database
}

/// The current database.
fn here() -> pg_sys::Oid {
    // SAFETY: read by the main thread, constant in a process.
    unsafe { pg_sys::MyDatabaseId }
}

/// Why no worker serves a database.
struct Obstacle {
    problem: String,
    hint: &'static str,
}

fn obstacle() -> Option<Obstacle> {
    let oid = here();
    if let Some(obstacle) = unservable(oid) {
        return Some(obstacle);
    }
    match shmem::database(oid) {
        Some(database) => database.lacks_slot().then(no_slot),
        None => shmem::is_full().then(no_place),
    }
}

/// As the launcher sees it.
fn unservable(oid: pg_sys::Oid) -> Option<Obstacle> {
    let database = catalog::database(oid)?;
    if database.is_template {
        return Some(Obstacle {
            problem: "no worker serves a template database".into(),
            hint: "Work in a database that is made from it, or ALTER DATABASE … IS_TEMPLATE false.",
        });
    }
    (!database.takes_connections).then(|| Obstacle {
        problem: "no worker serves a database that takes no connections".into(),
        hint: "ALTER DATABASE … ALLOW_CONNECTIONS true.",
    })
}

fn no_place() -> Obstacle {
    Obstacle {
        problem: format!("all {} places for databases with workers are taken", shmem::databases().len()),
        hint: "Raise sea_mq.max_databases and restart the server.",
    }
}

fn no_slot() -> Obstacle {
    Obstacle { problem: "no worker slot is free".into(), hint: "Raise max_worker_processes and restart the server." }
}

/// Others may have taken the slots; but the usual reason is one of numbers, so they are said.
fn raise_no_slot() -> ! {
    let Obstacle { problem, hint } = no_slot();
    // SAFETY: a setting, fixed when the server starts.
    let slots = unsafe { pg_sys::max_worker_processes };
    let taken: Vec<usize> = shmem::databases().iter().map(Database::processes).filter(|count| *count > 0).collect();
    let (processes, databases) = (taken.iter().sum::<usize>(), taken.len());
    let numbers =
        format!("max_worker_processes is {slots}, and sea_mq has {processes} workers in {databases} databases");
    raise(PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED, format!("{problem}: {numbers}"), hint)
}

fn start_by_launcher(database: &Database) -> &'static str {
    if !database.start() {
        return "is running";
    }
    shmem::wake_launcher();
    // The launcher needs no time to find out that there is no slot.
    session::wait_until(OUTCOME, LOOK, || database.seat(Role::Relay).has_process() || database.lacks_slot());
    if database.lacks_slot() {
        raise_no_slot();
    }
    "starting"
}

fn start_by_hand() -> &'static str {
    if workers::start_by_hand() {
        return "starting";
    }
    raise_no_slot()
}
