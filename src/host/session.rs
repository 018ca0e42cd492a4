//! What the processes share: signals, transactions that survive errors, waiting.

use std::cell::Cell;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use pgrx::bgworkers::{BackgroundWorker, SignalWakeFlags};
use pgrx::pg_sys::panic::CaughtError;
use pgrx::{PgTryBuilder, pg_sys};

use super::door::{self, Manner};
use crate::sys::versions;

unsafe extern "C-unwind" {
    /// src/backend/tcop/postgres.c; the SIGTERM handler of ordinary sessions, which interrupts queries and lock waits.
    fn die(signal: std::ffi::c_int);
    /// src/backend/postmaster/interrupt.c; sets a flag and the latch.
    fn SignalHandlerForShutdownRequest(signal: std::ffi::c_int);
}

/// Sets up signals. SIGTERM interrupts what runs in a transaction; outside of one it shows in `terminating`.
pub fn attach_signals() {
    // First: pgrx lets signals through, and one that came before must find its handler. A server that is told to stop while its
    // workers start would wait for them for ever.
    // SAFETY: a handler of PostgreSQL's own for a signal of PostgreSQL's own.
    unsafe {
        versions::handle_signal(libc::SIGTERM, die);
    }
    BackgroundWorker::attach_signal_handlers(SignalWakeFlags::SIGHUP);
}

/// From here on SIGTERM lets the transaction that runs just now come to its end: for a process that has to record what it has done
/// outside. Its transactions are short, but for the locks of others.
pub fn finish_transactions() {
    // SAFETY: as in `attach_signals`.
    unsafe { versions::handle_signal(libc::SIGTERM, end_after_transaction) }
}

/// A plain frame, in a signal handler. Whoever waits for a lock may wait for as long as a session is open, and is interrupted.
unsafe extern "C-unwind" fn end_after_transaction(signal: std::ffi::c_int) {
    // SAFETY: reads a word of this process's own entry, and calls handlers of PostgreSQL's own. The second sets a flag at which
    // nothing looks but we.
    unsafe {
        if (*pg_sys::MyProc).waitLock.is_null() {
            SignalHandlerForShutdownRequest(signal);
        } else {
            die(signal);
        }
    }
}

/// Whether SIGTERM has come. Taken: the process then ends in its own way, transactions included.
pub fn take_termination() -> bool {
    // SAFETY: flags that a signal handler of this thread sets.
    unsafe {
        let pending = pg_sys::ProcDiePending != 0 || pg_sys::ShutdownRequestPending != 0;
        pg_sys::ProcDiePending = 0;
        pg_sys::ShutdownRequestPending = 0;
        pending
    }
}

/// Does what other processes ask of this one: above all, acknowledges barriers, for which DROP DATABASE of any database waits.
pub fn process_interrupts() {
    // SAFETY: outside of a query there is nothing to cancel; a signal handler of this thread sets the flag.
    unsafe { pg_sys::QueryCancelPending = 0 };
    pgrx::check_for_interrupts!();
}

/// Reads the configuration anew if SIGHUP has come. Returns whether it has.
pub fn take_reload() -> bool {
    let reload = BackgroundWorker::sighup_received();
    if reload {
        // SAFETY: outside of a transaction, as in every process's main loop.
        unsafe { pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP) }
    }
    reload
}

/// An error that was caught; the transaction was rolled back.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Failed(pub String);

/// Runs `f` in a transaction with a snapshot, as the owner of the extension. An ERROR rolls it back and is returned.
///
/// Assigns no transaction id unless `f` writes.
pub fn transaction<T>(f: impl FnOnce() -> T) -> Result<T, Failed> {
    transaction_in(Manner::default(), f)
}

/// As `transaction`, in another manner.
pub fn transaction_in<T>(manner: Manner, f: impl FnOnce() -> T) -> Result<T, Failed> {
    let body = std::panic::AssertUnwindSafe(|| {
        // SAFETY: the transaction protocol of a background worker's main loop (src/test/modules/worker_spi).
        unsafe {
            pg_sys::SetCurrentStatementStartTimestamp();
            pg_sys::StartTransactionCommand();
            door::enter(manner);
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
            let result = f();
            pg_sys::PopActiveSnapshot();
            pg_sys::CommitTransactionCommand();
            door::leave();
            pg_sys::pgstat_report_stat(false);
            Ok(result)
        }
    });
    PgTryBuilder::new(body)
        .catch_others(|error| {
            abort();
            Err(Failed(message(error)))
        })
        .execute()
}

thread_local! {
    static AFTER_ABORT: Cell<Option<fn()>> = const { Cell::new(None) };
}

/// Registers what is to follow each rollback of this process: an abort releases session locks that are not advisory.
pub fn after_each_abort(hook: fn()) {
    AFTER_ABORT.set(Some(hook));
}

/// Rolls the open transaction back; without it the next one would find this one still open. Nothing in a worker may call
/// `AbortCurrentTransaction` but this: it takes a lock of the session away, which must come back at once.
pub fn abort() {
    // SAFETY: on the main thread, outside of PostgreSQL's own code.
    unsafe { pg_sys::AbortCurrentTransaction() };
    door::leave();
    if let Some(hook) = AFTER_ABORT.get() {
        hook();
    }
}

fn message(error: CaughtError) -> String {
    match error {
        CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => report.message().to_owned(),
        CaughtError::RustPanic { ereport, .. } => format!("panic: {}", ereport.message()),
    }
}

/// Waits until the latch is set, `fd` is readable, or the time has passed. The process ends if the postmaster has died.
pub fn wait(fd: Option<RawFd>, timeout: Duration) {
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    let readable = if fd.is_some() { pg_sys::WL_SOCKET_READABLE } else { 0 };
    let millis = i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX).max(i64::from(!timeout.is_zero()));
    // SAFETY: MyLatch is this process's own.
    unsafe {
        pg_sys::WaitLatchOrSocket(
            pg_sys::MyLatch,
            (events | readable) as i32,
            fd.unwrap_or(-1),
            millis as _,
            pg_sys::PG_WAIT_EXTENSION,
        );
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
}

/// For a session: waits until `done`, for `limit` at most, and looks every `look`. A cancelled statement ends it with its ERROR.
pub fn wait_until(limit: Duration, look: Duration, done: impl Fn() -> bool) {
    let begin = Instant::now();
    while !done() && begin.elapsed() < limit {
        wait(None, look);
        pgrx::check_for_interrupts!();
    }
}

/// The longest [`nap`].
const NAP: Duration = Duration::from_millis(10);

/// Waits until `fd` is readable or the time has passed, up to 10 ms; the latch stays as it is, so setting it wakes nobody.
/// `WaitLatch` counts in whole milliseconds, which is longer than most naps.
pub fn nap(fd: RawFd, timeout: Duration) {
    let timeout = timeout.min(NAP);
    let time = libc::timespec { tv_sec: 0, tv_nsec: timeout.subsec_nanos().into() };
    let mut readable = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one descriptor, and a time that is there until it returns. A signal ends the nap, which is as well.
    unsafe { libc::ppoll(&raw mut readable, 1, &raw const time, std::ptr::null()) };
}

/// What `pg_stat_activity` shows.
pub fn report_activity(what: &std::ffi::CStr, running: bool) {
    let state = if running { pg_sys::BackendState::STATE_RUNNING } else { pg_sys::BackendState::STATE_IDLE };
    // SAFETY: a C string.
    unsafe { pg_sys::pgstat_report_activity(state, what.as_ptr()) }
}
