//! `sea_mq.max_outbox_size`: no more events while too much waits to be published.
//!
//! The relay keeps the estimate in shared memory, whether it has a connection or not. Where there is no relay, or no
//! shared memory, each backend makes its own, at most once a second.

use std::cell::Cell;
use std::sync::atomic::Ordering;

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, PgSqlErrorCode};

use crate::host::door::as_owner;
use crate::host::shmem::{self, Database};
use crate::host::{gucs, spi};
use crate::log::backlog;
use crate::sys::clock;

/// How often the relay estimates, and a backend that has to do it itself. Microseconds.
pub const INTERVAL: i64 = 1_000_000;
/// An estimate of the relay that is older than this is not used any more.
const STALE: i64 = 3 * INTERVAL;

thread_local! {
    /// This backend's own estimate, and when it was made.
    static OWN: Cell<(u64, i64)> = const { Cell::new((0, i64::MIN)) };
}

/// Refuses another event if too much waits. `now`: microseconds since 2000-01-01 UTC.
pub fn check(now: i64) {
    let Some(most) = gucs::max_outbox_size() else { return };
    let bytes = kept(now).unwrap_or_else(|| own(now));
    if bytes >= most {
        refuse(bytes, most);
    }
}

/// What the relay found out lately.
fn kept(now: i64) -> Option<u64> {
    let database = shmem::here()?;
    let at = database.backlog_at.load(Ordering::Acquire);
    (now.saturating_sub(at).abs() < STALE).then(|| database.backlog.load(Ordering::Relaxed))
}

fn own(now: i64) -> u64 {
    let (bytes, at) = OWN.get();
    if now.saturating_sub(at).abs() < INTERVAL {
        return bytes;
    }
    let bytes = as_owner(backlog::bytes);
    OWN.set((bytes, now));
    bytes
}

/// For the relay: makes the estimate that all see. In a transaction with a snapshot.
pub fn keep(database: &Database) {
    let bytes = backlog::bytes();
    database.backlog.store(bytes, Ordering::Relaxed);
    database.backlog_at.store(clock::now(), Ordering::Release);
}

fn refuse(bytes: u64, most: u64) -> ! {
    let message = format!(
        "about {} MB of events are not published yet, and sea_mq.max_outbox_size is {} MB",
        bytes >> 20,
        most >> 20
    );
    let report = ErrorReport::new(PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED, message, "sea_mq")
        .set_hint("See sea_mq.status for what holds them up; emit works again when enough of them are published.");
    match as_owner(cause) {
        Some(cause) => report.set_detail(cause).report(PgLogLevel::ERROR),
        None => report.report(PgLogLevel::ERROR),
    }
    unreachable!("an ERROR was raised")
}

/// What the relay has noted about itself or a stream.
fn cause() -> Option<String> {
    let sql = "SELECT coalesce(
        (SELECT concat_ws(': ', 'The relay is ' || r.state, r.error) FROM sea_mq.relay_state r WHERE r.state <> 'connected'),
        (SELECT concat_ws(': ', format('Stream %s is %s', s.name, t.state), t.error)
         FROM sea_mq.stream_state t JOIN sea_mq.streams s ON s.sink = t.sink WHERE t.state <> 'ready' LIMIT 1))";
    spi::query(sql, &[]).first().and_then(|row| spi::optional(row, 0))
}
