//! Shared memory: how a commit wakes the workers, and how the launcher and the workers know of each other.
//!
//! Exists only if the library was preloaded. Everything in it is an atomic, so nothing here can block or fail, and it may be
//! used from a commit callback. It holds no truth about events: what is lost with it (a restart of the server) is found
//! again by the workers' polls and the launcher's scan.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicPtr, AtomicU32, AtomicU64, Ordering};

// `pg_guard` is used by `pg_shmem_init!`.
use pgrx::{PGRXSharedMemory, PgAtomic, pg_guard, pg_shmem_init, pg_sys};

use super::inquiry::Inquiry;
pub use super::seat::{Phase, Role, Seat};
use super::seat::{SEATS, set_latch};

/// Databases with workers that one server can have.
pub const MAX_DATABASES: usize = 64;

/// Whether this process inherited the shared memory from a preloading postmaster.
static PRELOADED: AtomicBool = AtomicBool::new(false);

// SAFETY: the name is this library's own.
static SHARED: PgAtomic<Shared> = unsafe { PgAtomic::new(c"sea_mq") };

/// One database.
#[derive(Default)]
pub struct Database {
    /// OID of the database; 0: the entry is free. Written by the launcher, or by whoever announces a database first.
    pub oid: AtomicU32,
    seats: [Seat; SEATS],
    /// A transaction with events has committed since the relay looked. Set by commits, cleared by the relay.
    pub events: AtomicBool,
    /// A transaction has changed stream or consumer descriptions, or has scheduled events. Set by commits, cleared by the relay.
    pub descriptions: AtomicBool,
    /// A transaction has made work for the consumer or the handlers: it changed subscriptions, or there is something to
    /// handle. Set by commits, cleared by the consumer.
    pub inbox: AtomicBool,
    /// The relay has found or made a stream that consumers may wait for. Set by the relay, cleared by the consumer.
    pub streams: AtomicBool,
    /// The consumer delivers inside the database and is to hear of events. Written by the consumer.
    pub hears_events: AtomicBool,
    /// As `events`, for a consumer that hears of them. Set by commits, cleared by the consumer.
    pub consumer_events: AtomicBool,
    /// Largest message of the connected server in bytes; 0: not known. Written by the relay.
    pub max_payload: AtomicU64,
    /// Estimated bytes that are not published yet, and when the estimate was made (microseconds since 2000; 0: never).
    /// Written by the relay while `sea_mq.max_outbox_size` is set.
    pub backlog: AtomicU64,
    pub backlog_at: AtomicI64,
    /// What a session asks of the relay.
    pub inquiry: Inquiry,
    /// The launcher leaves the database alone until then: somebody is dropping or moving it. Microseconds since 2000.
    pub held_until: AtomicI64,
}

struct Shared {
    /// The launcher's latch; null: there is none. Written by the launcher.
    launcher: AtomicPtr<pg_sys::Latch>,
    databases: [Database; MAX_DATABASES],
}

// SAFETY: consists of atomics only; the pointers in it point into shared memory that is mapped at the same address in
// every process of the cluster.
unsafe impl PGRXSharedMemory for Shared {}

impl Default for Shared {
    fn default() -> Self {
        Self { launcher: AtomicPtr::default(), databases: std::array::from_fn(|_| Database::default()) }
    }
}

impl Database {
    pub fn seat(&self, role: Role) -> &Seat {
        &self.seats[role.index()]
    }

    pub fn has_process(&self) -> bool {
        self.seats.iter().any(Seat::has_process)
    }

    /// Whether no process is there, and none is wanted.
    pub fn is_idle(&self) -> bool {
        self.seats.iter().all(|seat| seat.phase() == Phase::Absent && !seat.has_process())
    }

    /// Events were committed: wakes those who read them, unless they were woken since they last looked.
    pub fn note_events(&self) {
        // Each clears its flag before it takes its snapshot, so only the first commit since then has to wake it.
        if !self.events.swap(true, Ordering::AcqRel) {
            self.seat(Role::Relay).wake();
        }
        if self.hears_events.load(Ordering::Acquire) && !self.consumer_events.swap(true, Ordering::AcqRel) {
            self.seat(Role::Consumer).wake();
        }
    }

    /// There is work for the consumer or the handlers.
    pub fn note_inbox(&self) {
        self.note_room();
        self.wake_handlers();
    }

    /// There is room for more in the inbox: wakes the consumer.
    pub fn note_room(&self) {
        self.inbox.store(true, Ordering::Release);
        self.seat(Role::Consumer).wake();
    }

    /// A stream is ready: wakes the consumer.
    pub fn note_stream(&self) {
        self.streams.store(true, Ordering::Release);
        self.seat(Role::Consumer).wake();
    }

    /// There is something to handle: wakes the handlers.
    pub fn wake_handlers(&self) {
        for seat in Role::handlers().map(|role| self.seat(role)).filter(|seat| seat.has_process()) {
            seat.work.store(true, Ordering::Release);
            seat.wake();
        }
    }

    /// Makes the first `count` handlers run, and the others end. For the consumer; without preloading there are none.
    pub fn want_handlers(&self, count: usize) {
        let mut changed = false;
        for (place, role) in Role::handlers().enumerate() {
            let seat = self.seat(role);
            if place < count {
                changed |= seat.advance(Phase::Absent, Phase::Wanted);
            } else {
                seat.advance(Phase::Wanted, Phase::Absent);
                seat.advance(Phase::Failed, Phase::Absent);
                seat.dismiss(Phase::Absent);
            }
        }
        if changed {
            wake_launcher();
        }
    }

    /// Tells all processes to end and the launcher to start others. The consumer that comes asks for its handlers itself.
    pub fn restart(&self) {
        for role in Role::all() {
            let next = if matches!(role, Role::Handler(_)) { Phase::Absent } else { Phase::Wanted };
            self.seat(role).dismiss(next);
        }
    }

    /// Ends all processes for as long as nobody calls `start`. Returns whether there was one.
    pub fn stop(&self) -> bool {
        let was_running = self.seats.iter().any(|seat| seat.phase() == Phase::Running);
        for seat in &self.seats {
            seat.failures.forget();
            seat.set_phase(Phase::Stopped);
            seat.end.store(true, Ordering::Release);
            seat.wake();
        }
        was_running
    }

    /// Asks for the processes that are not running. Returns whether one is not.
    pub fn start(&self) -> bool {
        let mut starting = false;
        for seat in Role::STANDING.map(|role| self.seat(role)) {
            let phase = seat.phase();
            if phase != Phase::Running || seat.end.load(Ordering::Acquire) {
                // Not if the launcher has come first.
                seat.advance(phase, Phase::Wanted);
                starting = true;
            }
        }
        for seat in Role::handlers().map(|role| self.seat(role)) {
            seat.advance(Phase::Stopped, Phase::Absent);
        }
        starting
    }
}

/// Reserves the shared memory. To be called from `_PG_init` while the postmaster preloads.
pub fn init() {
    pg_shmem_init!(SHARED = Shared::default());
    PRELOADED.store(true, Ordering::Relaxed);
}

pub fn preloaded() -> bool {
    PRELOADED.load(Ordering::Relaxed)
}

/// All entries; none without preloading.
pub fn databases() -> &'static [Database] {
    if preloaded() { &SHARED.get().databases } else { &[] }
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

/// Asks for a database's relay and consumer, unless they are there or were stopped. Returns `false` if all entries are
/// taken.
pub fn want(oid: pg_sys::Oid) -> bool {
    ask(oid, &Role::STANDING)
}

/// Asks for a database's relay alone, which looks whether there is an extension, and then asks for the others.
pub fn scout(oid: pg_sys::Oid) -> bool {
    ask(oid, &[Role::Relay])
}

fn ask(oid: pg_sys::Oid, roles: &[Role]) -> bool {
    loop {
        let Some(database) = claim(oid) else { return !preloaded() };
        for &role in roles {
            database.seat(role).advance(Phase::Absent, Phase::Wanted);
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
    database.oid.store(0, Ordering::Release);
    let wanted = database.seats.iter().filter(|seat| seat.clear() == Phase::Wanted).count() > 0;
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

pub fn wake_launcher() {
    if preloaded() {
        set_latch(SHARED.get().launcher.load(Ordering::Acquire));
    }
}

/// The calling process is the launcher (or, with `None`, no longer is).
pub fn set_launcher(latch: Option<*mut pg_sys::Latch>) {
    if preloaded() {
        SHARED.get().launcher.store(latch.unwrap_or(std::ptr::null_mut()), Ordering::Release);
    }
}
