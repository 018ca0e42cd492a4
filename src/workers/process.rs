//! What a database's worker processes have in common: what each needs before it can work, and what follows when it ends.

use std::cell::Cell;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pgrx::bgworkers::BackgroundWorker;
use pgrx::{log, pg_guard, pg_sys, warning};

use super::rest::{self, Idle, Rest};
use crate::host::roles::{Reasons, Role};
use crate::host::seat::{Life, Seat};
use crate::host::session::{self, Failed};
use crate::host::settings;
use crate::host::shmem::{self, Database};
use crate::inbox::handler;
use crate::sys::clock;

/// Pause after an error of the database.
const AFTER_ERROR: Duration = Duration::from_secs(1);

/// This process, once it has its seat.
#[derive(Clone, Copy)]
pub struct Process {
    pub role: Role,
    /// `None` without preloading.
    pub database: Option<&'static Database>,
    /// The extension as it was installed when the process started.
    extension: pg_sys::Oid,
    pub started: Instant,
}

impl Process {
    pub fn seat(&self) -> Option<&'static Seat> {
        self.database.map(|database| database.seat(self.role))
    }

    /// Takes those of the reasons that the process was woken for; none without preloading.
    pub fn take(&self, reasons: Reasons) -> Reasons {
        self.seat().map_or(Reasons::NONE, |seat| seat.take(reasons))
    }

    /// Whether it was woken for one of the reasons since it last took them. Asked when the end of the log is known: what was described
    /// before an event of it was emitted has been said by then.
    pub fn is_woken_for(&self, reasons: Reasons) -> bool {
        self.seat().is_some_and(|seat| seat.is_woken_for(reasons))
    }

    /// What is to follow if somebody has told the process to end. Taken: the caller ends.
    pub fn told_to_end(&self) -> Option<Life> {
        if session::take_termination() {
            return Some(Life::Failed);
        }
        self.seat().is_some_and(|seat| seat.end.load(Ordering::Acquire)).then_some(Life::Wanted)
    }

    /// What is to follow if the extension is not the one that the process was started for.
    pub fn extension_changed(&self) -> Option<Life> {
        match session::transaction(extension) {
            Ok(Some(found)) if found == self.extension => None,
            Ok(None) => {
                log!("{} ended: the extension was dropped", self.role.kind().name);
                Some(Life::Absent)
            }
            // Installed anew: nothing in memory is true of it.
            Ok(Some(_)) => Some(Life::Wanted),
            Err(_) => Some(Life::Failed),
        }
    }
}

/// What a process does, once it has its seat.
pub trait Work {
    /// Reads settings and descriptions, and begins, or begins anew after an error.
    fn begin(&mut self) -> Result<(), Failed>;

    /// As `begin`, if the settings have changed.
    fn begin_if_changed(&mut self) -> Result<(), Failed>;

    /// One pass. Returns how long to sleep, unless something happens.
    fn run_once(&mut self) -> Result<Duration, Failed>;

    /// Sleeps.
    fn pause(&self, pause: Duration);

    /// The process is told to end.
    fn shut_down(&mut self) {}

    /// What is to follow, if the process is to end by itself.
    fn ends(&mut self) -> Option<Life> {
        None
    }

    /// Since when there is nothing to do, if that is so.
    fn idle(&mut self) -> Option<Idle> {
        None
    }
}

/// What is to follow a process, and if it is to rest, for what it is to come back.
pub type Next = (Life, Option<Rest>);

/// Works, one pass after the other, until something ends it. Returns what is to follow.
pub fn serve(process: &Process, work: &mut impl Work) -> Next {
    let name = process.role.kind().name;
    log!("{name} started");
    let mut begun = false;
    loop {
        let next = process.told_to_end().or_else(|| work.ends()).map(|life| (life, None));
        let next = next.or_else(|| rest::next(process, work.idle().filter(|_| begun)));
        if let Some(next) = next {
            work.shut_down();
            log!("{name} ended{}", if next.1.is_some() { ", having nothing to do" } else { "" });
            return next;
        }
        session::process_interrupts();
        let reload = session::take_reload();
        let result = match begun {
            true if reload => work.begin_if_changed().map(|()| Duration::ZERO),
            true => work.run_once(),
            false => work.begin().map(|()| Duration::ZERO),
        };
        match result {
            Ok(pause) => {
                if begun && let Some(seat) = process.seat() {
                    seat.failures.note_sound(clock::now);
                }
                begun = true;
                if !pause.is_zero() {
                    work.pause(pause);
                }
            }
            Err(error) => {
                if let Some(next) = process.extension_changed() {
                    return (next, None);
                }
                warning!("{name}: {error}");
                if let Some(seat) = process.seat() {
                    seat.failures.note(Some(&error.0), clock::now());
                }
                // What is in memory may not be what is saved.
                begun = false;
                session::wait(None, AFTER_ERROR);
            }
        }
    }
}

/// What a process is told when it is asked for: the database in the lower half, the place of the seat in the upper one.
pub fn argument(role: Role, database: pg_sys::Oid) -> pg_sys::Datum {
    pg_sys::Datum::from((role.index() as u64) << 32 | u64::from(database.to_u32()))
}

fn assignment(argument: pg_sys::Datum) -> Option<(Role, pg_sys::Oid)> {
    let argument = argument.value() as u64;
    let role = usize::try_from(argument >> 32).ok().and_then(Role::at)?;
    Some((role, pg_sys::Oid::from(argument as u32)))
}

/// The life of a worker process: takes its seat, does its `work`, and notes what is to follow, which `work` returns. To
/// return from here ends the process with code 0, after which the postmaster leaves it ended.
pub fn run(argument: pg_sys::Datum, work: impl FnOnce(&Process) -> Next) {
    session::attach_signals();
    let Some((role, oid)) = assignment(argument) else { return };
    BackgroundWorker::connect_worker_to_spi_by_oid(Some(oid), None);
    let database = shmem::database(oid);
    prepare_session(role);
    let next = match sit_down(role, database) {
        Ok(Some(process)) => work(&process),
        Ok(None) => (Life::Absent, None),
        Err(error) => {
            warning!("{}: {error}", role.kind().name);
            if let Some(database) = database {
                database.seat(role).failures.explain(&error.0);
            }
            (Life::Failed, None)
        }
    };
    leave(role, database, next);
}

/// Takes the seat. `None`: the database has no extension.
fn sit_down(role: Role, database: Option<&'static Database>) -> Result<Option<Process>, Failed> {
    let Some(extension) = session::transaction(extension)? else { return Ok(None) };
    let taken = |error| Failed(format!("another process has this one's place in the database: {error}"));
    // SAFETY: the callback runs before this process's latch and id are given away.
    unsafe { pg_sys::before_shmem_exit(Some(stand_up), pg_sys::Datum::from(role.index())) };
    session::transaction(|| lock_seat(role)).map_err(taken)?;
    if let Some(database) = database {
        // SAFETY: this process's own.
        let (latch, pid) = unsafe { (pg_sys::MyLatch, pg_sys::MyProcPid) };
        if !database.seat(role).attach(latch, pid) {
            return Err(taken(Failed("its seat is taken".into())));
        }
        database.seat(role).hear(role.kind().hears);
        // The relay was sent to see whether there is an extension; now its companions can come.
        if role == Role::Relay && database.seat(Role::Consumer).advance(Life::Absent, Life::Wanted) {
            shmem::wake_launcher();
        }
    }
    Ok(Some(Process { role, database, extension, started: Instant::now() }))
}

/// Notes what is to follow, unless somebody else has decided that already.
fn leave(role: Role, database: Option<&Database>, (next, rest): Next) {
    let Some(database) = database else { return };
    let seat = database.seat(role);
    if let Some(Rest { hears, pause }) = rest {
        let now = clock::now();
        seat.rest(hears, now, now + i64::try_from(pause.as_micros()).unwrap_or(i64::MAX >> 1));
    }
    let left = seat.advance(Life::Running, next);
    // Somebody may have installed the extension meanwhile and found this process still in its seat.
    if left && next == Life::Absent && role.kind().standing && matches!(session::transaction(extension), Ok(Some(_))) {
        seat.advance(Life::Absent, Life::Wanted);
    }
    shmem::wake_launcher();
}

#[pg_guard]
unsafe extern "C-unwind" fn stand_up(_code: i32, place: pg_sys::Datum) {
    let Some(role) = Role::at(place.value()) else { return };
    // SAFETY: on the way out, maybe because of an error that came while one was held.
    unsafe { pg_sys::LWLockReleaseAll() };
    if LOCKED.replace(None).is_some() {
        // SAFETY: the process has the lock. PostgreSQL would leave it behind for good.
        unsafe { pg_sys::LockRelease(&seat_lock(role), pg_sys::ExclusiveLock as _, true) };
    }
    // SAFETY: read by the main thread, constant in a process.
    let (oid, pid) = unsafe { (pg_sys::MyDatabaseId, pg_sys::MyProcPid) };
    let Some(database) = shmem::database(oid).filter(|database| database.seat(role).pid() == pid) else { return };
    // While it rests, the broker's limit is what it was.
    if role == Role::Relay && database.seat(role).life() != Life::Resting {
        database.max_payload.store(0, Ordering::Release);
    }
    if let Role::Handler(number) = role
        && let Some(slot) = database.tasks.get(usize::from(number))
    {
        slot.leave();
        database.seat(Role::Consumer).wake();
    }
    database.seat(role).detach();
}

fn prepare_session(role: Role) {
    handler::prepare();
    settings::prepare_worker(role.kind().settings);
}

/// The extension, if it is installed.
fn extension() -> Option<pg_sys::Oid> {
    // SAFETY: a catalog look-up in a transaction.
    let oid = unsafe { pg_sys::get_extension_oid(c"sea_mq".as_ptr(), true) };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

thread_local! {
    /// The seat whose lock this process has.
    static LOCKED: Cell<Option<Role>> = const { Cell::new(None) };
}

/// The lock that one process of a database has for its seat, also without shared memory.
///
/// Not an advisory lock: functions of users run in the consumer, and `pg_advisory_unlock_all` would release it. No
/// extension has the OID 0, so it is in nobody's way, and one that is installed anew does not make it another lock.
fn seat_lock(role: Role) -> pg_sys::LOCKTAG {
    pg_sys::LOCKTAG {
        // SAFETY: read by the main thread, constant in a process.
        locktag_field1: unsafe { pg_sys::MyDatabaseId }.to_u32(),
        locktag_field2: pg_sys::ExtensionRelationId.to_u32(),
        locktag_field3: 0,
        locktag_field4: 1000 + role.index() as u16,
        locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
        locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
    }
}

/// Waits for the seat's lock, for a bounded time; it is kept until the process ends, see `keep_seat`.
fn lock_seat(role: Role) {
    settings::set_local(c"lock_timeout", c"5s");
    // SAFETY: a session lock.
    unsafe { pg_sys::LockAcquire(&seat_lock(role), pg_sys::ExclusiveLock as _, true, false) };
    LOCKED.set(Some(role));
    session::after_each_abort(keep_seat);
}

/// Takes the seat's lock again after an abort: unlike a commit, that releases session locks too, unless they are advisory.
fn keep_seat() {
    let Some(role) = LOCKED.get() else { return };
    let tag = seat_lock(role);
    // SAFETY: does not wait, and needs no transaction, as nothing but the session owns the lock.
    let result = unsafe { pg_sys::LockAcquire(&tag, pg_sys::ExclusiveLock as _, true, true) };
    match result {
        pg_sys::LockAcquireResult::LOCKACQUIRE_OK => {}
        pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL => {
            LOCKED.set(None);
            warning!("{} ends: another process has taken its place in the database", role.kind().name);
            // SAFETY: to the calling thread; the loop then ends as for anybody's SIGTERM.
            unsafe { libc::raise(libc::SIGTERM) };
        }
        // The abort was none, and now it is held twice.
        _ => {
            // SAFETY: the process has the lock.
            unsafe { pg_sys::LockRelease(&tag, pg_sys::ExclusiveLock as _, true) };
        }
    }
}
