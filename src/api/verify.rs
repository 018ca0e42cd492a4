//! The session's side of `sea_mq.verify_stream`: asks the relay, which alone talks to the broker, and waits.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pgrx::{PgSqlErrorCode, notice, pg_sys, warning};
use uuid::Uuid;

use crate::host::door::as_owner;
use crate::host::roles::Role;
use crate::host::seat::Life;
use crate::host::shmem::{self, Database};
use crate::host::{inquiry, installation, session, spi};
use crate::streams::findings;
use crate::sys::datum::{return_set, sql_function, text_datum, uuid_datum};
use crate::sys::error::raise;

/// Between two looks whether the answer is there.
const LOOK: Duration = Duration::from_millis(50);
/// How long a relay that rests may take to start.
const START: Duration = Duration::from_secs(10);
/// Between two notices of the progress.
const NOTICE: Duration = Duration::from_secs(5);

sql_function!(compare_stream_wrapper, pg_finfo_compare_stream_wrapper, |call| {
    let database = database();
    inquiry::lock();
    wait(database, call.int8(0).unwrap_or_default());
    let (trouble, found) = as_owner(|| (findings::trouble(), findings::all()));
    inquiry::unlock();
    if let Some((message, hint)) = trouble {
        raise(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, message, hint);
    }
    let (all, shown) = (database.inquiry.findings.load(Ordering::Relaxed), found.len());
    if all > shown as u64 {
        warning!("only {shown} of {all} differences are shown");
    }
    return_set(call, |row| {
        for finding in found {
            let number = |column| spi::optional::<i64>(&finding, column).map(pg_sys::Datum::from);
            let id = spi::optional::<Uuid>(&finding, 1).map(uuid_datum);
            let text = |column| Some(text_datum(&spi::parsed::<String>(&finding, column)));
            let columns = [text(0), id, number(2), number(3), text(4)];
            row(
                &mut columns.map(|value| value.unwrap_or(pg_sys::Datum::from(0))),
                &mut columns.map(|value| value.is_none()),
            );
        }
    })
});

/// The database's entry, if its relay can be asked.
fn database() -> &'static Database {
    let refuse = |what: &str, hint: &str| raise(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, what, hint);
    if !as_owner(installation::has_broker) {
        refuse("there is no broker that holds the stream", "Set sea_mq.nats_url.");
    }
    match shmem::here().filter(|database| has_relay(database)) {
        Some(database) => database,
        None if shmem::preloaded() => refuse("the relay is not running", "Call sea_mq.start(), then ask again."),
        None => refuse(
            "the relay can only be asked through shared memory",
            "Add sea_mq to shared_preload_libraries and restart the server.",
        ),
    }
}

/// Whether the relay is there. One that rests is started.
fn has_relay(database: &Database) -> bool {
    let relay = database.seat(Role::Relay);
    database.rouse(Role::Relay);
    let is_there = || relay.has_process() && relay.life() != Life::Resting;
    session::wait_until(START, LOOK, || is_there() || !matches!(relay.life(), Life::Wanted | Life::Running));
    is_there()
}

/// Asks about a sink, and waits for the answer.
fn wait(database: &Database, sink: i64) {
    let relay = database.seat(Role::Relay);
    let mut asked = relay.pid();
    database.inquiry.ask(sink);
    relay.wake();
    let mut noticed = Instant::now();
    while !database.inquiry.is_answered() {
        if relay.pid() != asked && database.inquiry.is_asked() && has_relay(database) {
            // It had gone to rest just then, and the next one finds the question.
            asked = relay.pid();
        } else if relay.pid() != asked {
            raise(
                PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                "the relay has ended meanwhile",
                "Ask again when it runs: see sea_mq.relay_status.",
            );
        }
        session::wait(None, LOOK);
        pgrx::check_for_interrupts!();
        if noticed.elapsed() >= NOTICE {
            noticed = Instant::now();
            let [compared, whole, findings] =
                [&database.inquiry.compared, &database.inquiry.whole, &database.inquiry.findings]
                    .map(|number| number.load(Ordering::Relaxed));
            notice!("compared {compared} of {whole} stream sequences, {findings} differences so far");
        }
    }
}
