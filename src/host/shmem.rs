//! Shared memory: how a commit wakes the workers, and how the launcher and the workers know of each other.
//!
//! Exists only if the library was preloaded. Everything in it is an atomic, so nothing here can block or fail, and it may be
//! used from a commit callback. It holds no truth about events: what is lost with it (a restart of the server) is found
//! again by the workers' polls and the launcher's scan.

use std::mem::size_of;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use pgrx::{pg_guard, pg_sys};

use super::commits::Commits;
use super::gucs;
use super::inquiry::Inquiry;
use super::latency::Histogram;
use super::roles::{HANDLERS, Reasons, Role, SEATS};
use super::seat::{Life, Seat, set_latch};
use super::task_slot::TaskSlot;
use crate::sys::versions;

/// What this process inherited from a preloading postmaster; null: it did not preload.
static SHARED: AtomicPtr<Shared> = AtomicPtr::new(std::ptr::null_mut());
/// The first of `CAPACITY` entries.
static DATABASES: AtomicPtr<Database> = AtomicPtr::new(std::ptr::null_mut());
static CAPACITY: AtomicUsize = AtomicUsize::new(0);
/// Whether the library was preloaded.
static PRELOADED: AtomicBool = AtomicBool::new(false);

/// One database.
#[derive(Default)]
pub struct Database {
    /// OID of the database; 0: the entry is free. Written by the launcher, or by whoever announces a database first.
    pub oid: AtomicU32,
    seats: [Seat; SEATS],
    /// Of the handler processes, by their numbers.
    pub tasks: [TaskSlot; HANDLERS],
    /// Largest message of the connected server in bytes; 0: not known. Written by the relay.
    pub max_payload: AtomicU64,
    /// Whether the relay is to ask for that limit once more: [`limit`]. Written by those who doubt it, cleared by the relay.
    pub limit: AtomicU32,
    /// Estimated bytes that are not published yet, and when the estimate was made (microseconds since 2000; 0: never).
    /// Written by the relay while `sea_mq.max_outbox_size` is set.
    pub backlog: AtomicU64,
    pub backlog_at: AtomicI64,
    /// What a session asks of the relay.
    pub inquiry: Inquiry,
    /// The launcher leaves the database alone until then: somebody is dropping or moving it. Microseconds since 2000.
    pub held_until: AtomicI64,
    /// From an event's commit to the broker's word that it is stored. Counted by the relay.
    pub storing: Histogram,
    /// From the stream's storing of a message (without a broker: from its emit) to the end of its handling. Counted by
    /// those who handle.
    pub handling: Histogram,
    /// How long attempts of handlers took, those that failed included.
    pub handlers: Histogram,
}

/// What [`Database::limit`] says.
pub mod limit {
    /// It is as the relay knows it.
    pub const KNOWN: u32 = 0;
    /// An event was refused for it. It may have been raised since.
    pub const DOUBTED: u32 = 1;
    /// Somebody waits for the answer.
    pub const AWAITED: u32 = 2;
}

/// What is not about one database.
#[derive(Default)]
struct Shared {
    /// The launcher's latch; null: there is none. Written by the launcher.
    launcher: AtomicPtr<pg_sys::Latch>,
    /// Databases were made, changed or dropped since the launcher looked. Set by commits, cleared by the launcher.
    databases_changed: AtomicBool,
    /// Somebody asked for a worker while all entries were taken. Set by commits, cleared by the launcher.
    missed: AtomicBool,
    /// How many processes wait for a worker slot. Written by the launcher.
    waiting: AtomicU32,
    /// When transactions with events committed. Noted by commits, for the relays.
    commits: Commits,
}

impl Database {
    pub fn seat(&self, role: Role) -> &Seat {
        &self.seats[role.index()]
    }

    pub fn has_process(&self) -> bool {
        self.processes() > 0
    }

    /// Whether the server had no worker slot for the relay or the consumer when the launcher last asked for it.
    pub fn lacks_slot(&self) -> bool {
        Role::standing().any(|role| self.seat(role).waits_since.load(Ordering::Acquire) != 0)
    }

    /// How many workers it has.
    pub fn processes(&self) -> usize {
        self.seats.iter().filter(|seat| seat.has_process()).count()
    }

    /// Whether no process is there, and none is wanted.
    pub fn is_idle(&self) -> bool {
        self.seats.iter().all(|seat| seat.life() == Life::Absent && !seat.has_process())
    }

    /// Wakes the processes that hear of one of the reasons, unless they were woken for it since they last looked, and has the launcher
    /// start those that rest.
    pub fn note(&self, reasons: Reasons) {
        if self.seats.iter().filter(|seat| seat.note(reasons)).count() > 0 {
            wake_launcher();
        }
    }

    /// Asks for the processes that rest. For the launcher.
    pub fn rouse_all(&self) {
        for seat in &self.seats {
            let _ = seat.rouse();
        }
    }

    /// Has the launcher start the process in a seat, if it rests.
    pub fn rouse(&self, role: Role) {
        if self.seat(role).rouse() {
            wake_launcher();
        }
    }

    /// Has the first `count` handler processes run. They end by themselves when there is nothing to do. For the consumer; without
    /// preloading there are none.
    pub fn want_handlers(&self, count: usize) {
        let seats = Role::handlers().take(count).map(|role| self.seat(role));
        if seats.filter(|seat| seat.advance(Life::Absent, Life::Wanted)).count() > 0 {
            wake_launcher();
        }
    }

    /// Makes the dispatcher run. It ends by itself where there are no endpoints. Without preloading there is none.
    pub fn want_dispatcher(&self) {
        if self.seat(Role::Dispatcher).advance(Life::Absent, Life::Wanted) {
            wake_launcher();
        }
    }

    /// Tells all processes to end and the launcher to start others. The consumer that comes asks for its handlers itself.
    pub fn restart(&self) {
        for role in Role::all() {
            let next = if role.kind().standing { Life::Wanted } else { Life::Absent };
            self.seat(role).dismiss(next);
            self.rouse(role);
        }
    }

    /// Ends all processes, and asks for no others. For the launcher.
    pub fn turn_away(&self) {
        for seat in &self.seats {
            for phase in [Life::Wanted, Life::Failed, Life::Stopped, Life::Resting] {
                seat.advance(phase, Life::Absent);
            }
            seat.dismiss(Life::Absent);
        }
    }

    /// Ends all processes for as long as nobody calls `start`. Returns whether there was one.
    pub fn stop(&self) -> bool {
        let was_running = self.seats.iter().any(|seat| seat.life() == Life::Running);
        for seat in &self.seats {
            seat.failures.forget();
            seat.waits_since.store(0, Ordering::Release);
            seat.set_life(Life::Stopped);
            seat.end.store(true, Ordering::Release);
            seat.wake();
        }
        was_running
    }

    /// Asks for the processes that are not running. Returns whether one is not.
    pub fn start(&self) -> bool {
        let mut starting = false;
        for seat in Role::standing().map(|role| self.seat(role)) {
            let phase = seat.life();
            if phase != Life::Running || seat.end.load(Ordering::Acquire) {
                // Not if the launcher has come first.
                seat.advance(phase, Life::Wanted);
                starting = true;
            }
        }
        for seat in Role::all().filter(|role| !role.kind().standing).map(|role| self.seat(role)) {
            seat.advance(Life::Stopped, Life::Absent);
        }
        starting
    }
}

/// Reserves the shared memory. To be called from `_PG_init` while the postmaster preloads.
pub fn init() {
    PRELOADED.store(true, Ordering::Relaxed);
    // SAFETY: single-threaded, once.
    unsafe {
        versions::on_shmem_request(request);
        PREVIOUS_STARTUP = pg_sys::shmem_startup_hook;
        pg_sys::shmem_startup_hook = Some(on_startup);
    }
}

static mut PREVIOUS_STARTUP: pg_sys::shmem_startup_hook_type = None;

/// PostgreSQL aligns what it gives to lines of the cache.
fn request() {
    const LINE: usize = 128;
    let size = size_of::<Shared>() + size_of::<Database>() * gucs::max_databases() + 2 * LINE;
    // SAFETY: while the postmaster asks how much shared memory is needed.
    unsafe { pg_sys::RequestAddinShmemSpace(size) }
}

/// Runs in the postmaster before it starts other processes, and again after a crash.
#[pg_guard]
unsafe extern "C-unwind" fn on_startup() {
    let capacity = gucs::max_databases();
    // SAFETY: the hook's own protocol. What is found has been set up.
    unsafe {
        if let Some(previous) = PREVIOUS_STARTUP {
            pg_sys::submodules::ffi::pg_guard_ffi_boundary(|| previous());
        }
        let mut found = false;
        let shared: *mut Shared = pg_sys::ShmemInitStruct(c"sea_mq".as_ptr(), size_of::<Shared>(), &mut found).cast();
        if !found {
            shared.write(Shared::default());
        }
        let size = size_of::<Database>() * capacity;
        let entries: *mut Database = pg_sys::ShmemInitStruct(c"sea_mq databases".as_ptr(), size, &mut found).cast();
        if !found {
            (0..capacity).for_each(|at| entries.add(at).write(Database::default()));
        }
        DATABASES.store(entries, Ordering::Relaxed);
        SHARED.store(shared, Ordering::Relaxed);
    }
    CAPACITY.store(capacity, Ordering::Relaxed);
}

pub fn preloaded() -> bool {
    PRELOADED.load(Ordering::Relaxed)
}

fn shared() -> Option<&'static Shared> {
    // SAFETY: null, or set up before this process was started; consists of atomics only. The pointers in it point into
    // shared memory that is mapped at the same address in every process of the cluster.
    unsafe { SHARED.load(Ordering::Relaxed).as_ref() }
}

/// Notes that a transaction with events has committed.
pub fn note_commit(xid: u64, at: i64) {
    if let Some(shared) = shared() {
        shared.commits.note(xid, at);
    }
}

/// When a transaction with events committed, unless that is long ago.
pub fn commit_time(xid: u64) -> Option<i64> {
    shared()?.commits.at(xid)
}

/// All entries; none without preloading.
pub fn databases() -> &'static [Database] {
    let first = DATABASES.load(Ordering::Relaxed);
    if first.is_null() {
        return &[];
    }
    // SAFETY: as many as were set up, before this process was started; they consist of atomics only.
    unsafe { std::slice::from_raw_parts(first, CAPACITY.load(Ordering::Relaxed)) }
}

/// The entry of the current database, if it has one.
pub fn here() -> Option<&'static Database> {
    // SAFETY: read by the main thread, constant in a process.
    database(unsafe { pg_sys::MyDatabaseId })
}

/// The entry of a database, if it has one.
pub fn database(oid: pg_sys::Oid) -> Option<&'static Database> {
    entries(oid).next()
}

fn entries(oid: pg_sys::Oid) -> impl Iterator<Item = &'static Database> {
    // 0 marks entries that are free.
    let wanted =
        move |entry: &&Database| oid != pg_sys::InvalidOid && entry.oid.load(Ordering::Acquire) == oid.to_u32();
    databases().iter().filter(wanted)
}

/// Asks for a database's relay and consumer, unless they are there or were stopped. If all entries are taken, the
/// launcher comes back to it when one is free.
pub fn want(oid: pg_sys::Oid) {
    if !ask(oid, |role| role.kind().standing)
        && let Some(shared) = shared()
    {
        shared.missed.store(true, Ordering::Release);
    }
}

/// Asks for a database's relay alone, which looks whether there is an extension, and then asks for the others. Returns
/// `false` if all entries are taken.
pub fn scout(oid: pg_sys::Oid) -> bool {
    ask(oid, |role| role == Role::Relay)
}

fn ask(oid: pg_sys::Oid, wanted: impl Fn(Role) -> bool) -> bool {
    loop {
        let Some(database) = claim(oid) else { return !preloaded() };
        for role in Role::all().filter(|&role| wanted(role)) {
            database.seat(role).advance(Life::Absent, Life::Wanted);
            database.seat(role).advance(Life::Resting, Life::Wanted);
        }
        // The launcher may have given the entry up in between; see `release`.
        if database.oid.load(Ordering::Acquire) == oid.to_u32() {
            return true;
        }
    }
}

/// Gives the entry of a database up that needs no worker. To be called by the launcher, when no process uses the entry.
pub fn release(database: &Database, oid: u32) {
    database.held_until.store(0, Ordering::Release);
    database.backlog_at.store(0, Ordering::Release);
    database.storing.clear();
    database.handling.clear();
    database.handlers.clear();
    database.oid.store(0, Ordering::Release);
    let wanted = database.seats.iter().filter(|seat| seat.clear() == Life::Wanted).count() > 0;
    // Somebody asked for a worker just before the entry was given up: ask anew.
    if wanted {
        want(pg_sys::Oid::from(oid));
    }
}

/// The entry of a database, newly taken if need be. `None`: not preloaded, or all are taken.
pub fn claim(oid: pg_sys::Oid) -> Option<&'static Database> {
    loop {
        if let Some(database) = database(oid) {
            return Some(database);
        }
        let take = |entry: &&Database| {
            entry.oid.compare_exchange(0, oid.to_u32(), Ordering::AcqRel, Ordering::Acquire).is_ok()
        };
        let taken = databases().iter().find(take)?;
        if entries(oid).count() == 1 {
            return Some(taken);
        }
        // Somebody else took one for the same database at the same time: one of the two must go.
        taken.oid.store(0, Ordering::Release);
    }
}

/// Whether no entry is free, and each is that of a database that has the extension: none is about to become free.
pub fn is_full() -> bool {
    preloaded() && databases().iter().all(|database| database.seat(Role::Consumer).life() != Life::Absent)
}

pub fn wake_launcher() {
    if let Some(shared) = shared() {
        set_latch(shared.launcher.load(Ordering::Acquire));
    }
}

/// Databases were made, changed or dropped: the launcher looks what there are.
pub fn databases_changed() {
    if let Some(shared) = shared() {
        shared.databases_changed.store(true, Ordering::Release);
        wake_launcher();
    }
}

/// Whether databases were made, changed or dropped since the last call. For the launcher.
pub fn take_databases_changed() -> bool {
    shared().is_some_and(|shared| shared.databases_changed.swap(false, Ordering::AcqRel))
}

/// Whether somebody asked in vain for a worker since the last call. For the launcher.
pub fn take_missed() -> bool {
    shared().is_some_and(|shared| shared.missed.swap(false, Ordering::AcqRel))
}

/// How many processes wait for a worker slot.
pub fn waiting() -> u32 {
    shared().map_or(0, |shared| shared.waiting.load(Ordering::Acquire))
}

/// For the launcher: so many processes wait for a worker slot.
pub fn set_waiting(count: u32) {
    if let Some(shared) = shared() {
        shared.waiting.store(count, Ordering::Release);
    }
}

/// The calling process is the launcher (or, with `None`, no longer is).
pub fn set_launcher(latch: Option<*mut pg_sys::Latch>) {
    if let Some(shared) = shared() {
        shared.launcher.store(latch.unwrap_or(std::ptr::null_mut()), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_takes_what_the_documentation_says() {
        // docs/settings.md: sea_mq.max_databases.
        let size = size_of::<Database>();
        assert!((6500..7500).contains(&size), "{size}");
    }
}
