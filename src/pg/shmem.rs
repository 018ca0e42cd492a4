//! Shared memory: how a commit wakes the relay, and how the launcher and the relays know of each other.
//!
//! Exists only if the library was preloaded. Everything in it is an atomic, so nothing here can block or fail, and it may be
//! used from a commit callback. It holds no truth about events: what is lost with it (a restart of the server) is found
//! again by the relay's poll and the launcher's scan.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicPtr, AtomicU32, AtomicU64, Ordering};

// `pg_guard` is used by `pg_shmem_init!`.
use pgrx::{PGRXSharedMemory, PgAtomic, pg_guard, pg_shmem_init, pg_sys};

/// Databases with a relay that one server can have.
pub const MAX_DATABASES: usize = 64;

/// Whether this process inherited the shared memory from a preloading postmaster.
static PRELOADED: AtomicBool = AtomicBool::new(false);

// SAFETY: the name is this library's own.
static SHARED: PgAtomic<Shared> = unsafe { PgAtomic::new(c"sea_mq") };

/// Where a relay's process is in its life. Written by the launcher (`Requested`), the relay and `stop`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Phase {
    /// No process, and none wanted: the database has no extension, or is gone.
    Absent = 0,
    /// The launcher is to start a process.
    Wanted = 1,
    /// A process was asked for or is there.
    Running = 2,
    /// The process failed; the launcher starts another after a pause.
    Failed = 3,
    /// Stopped by `sea_mq.stop()`; stays so until `sea_mq.start()`.
    Stopped = 4,
}

impl Phase {
    fn from_u32(value: u32) -> Self {
        match value {
            1 => Self::Wanted,
            2 => Self::Running,
            3 => Self::Failed,
            4 => Self::Stopped,
            _ => Self::Absent,
        }
    }
}

/// One database.
#[derive(Default)]
pub struct Database {
    /// OID of the database; 0: the entry is free. Written by the launcher, or by whoever announces a database first.
    pub oid: AtomicU32,
    phase: AtomicU32,
    /// Process id of the relay; 0: none. Written by the relay.
    pub pid: AtomicI32,
    /// The relay's latch; null: none. Written by the relay; it lies in shared memory at the same address everywhere.
    latch: AtomicPtr<pg_sys::Latch>,
    /// A transaction with events has committed since the relay looked. Set by commits, cleared by the relay.
    pub events: AtomicBool,
    /// A transaction has changed stream or consumer descriptions, or has scheduled events. Set by commits, cleared by the relay.
    pub descriptions: AtomicBool,
    /// The relay is to end; what follows depends on the phase. Set by anyone, cleared by the starting relay.
    pub end: AtomicBool,
    /// Largest message of the connected server in bytes; 0: not known. Written by the relay.
    pub max_payload: AtomicU64,
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
    pub fn phase(&self) -> Phase {
        Phase::from_u32(self.phase.load(Ordering::Acquire))
    }

    pub fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u32, Ordering::Release);
    }

    /// Changes the phase only if it still is `from`.
    pub fn advance(&self, from: Phase, to: Phase) -> bool {
        self.phase.compare_exchange(from as u32, to as u32, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Wakes the relay, if there is one.
    pub fn wake(&self) {
        set_latch(self.latch.load(Ordering::Acquire));
    }

    /// The calling relay takes the entry, or gives it back with `None`.
    pub fn attach(&self, latch: Option<*mut pg_sys::Latch>, pid: i32) {
        self.latch.store(latch.unwrap_or(std::ptr::null_mut()), Ordering::Release);
        self.pid.store(pid, Ordering::Release);
    }
}

fn set_latch(latch: *mut pg_sys::Latch) {
    if !latch.is_null() {
        // SAFETY: a latch of a PGPROC, which stays mapped as long as the server runs. If its process has ended, whoever
        // owns the PGPROC now is woken once for nothing.
        unsafe { pg_sys::SetLatch(latch) }
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

/// Asks for a relay of a database, unless it has one or was stopped. Returns `false` if all entries are taken.
pub fn want(oid: pg_sys::Oid) -> bool {
    loop {
        let Some(database) = claim(oid) else { return !preloaded() };
        database.advance(Phase::Absent, Phase::Wanted);
        // The launcher may have given the entry up in between; see `release`.
        if database.oid.load(Ordering::Acquire) == oid.to_u32() {
            return true;
        }
    }
}

/// Gives the entry of a database up that needs no relay. To be called by the launcher, when no process uses the entry.
pub fn release(database: &Database, oid: u32) {
    database.held_until.store(0, Ordering::Release);
    database.oid.store(0, Ordering::Release);
    let phase = database.phase.swap(Phase::Absent as u32, Ordering::AcqRel);
    // Somebody asked for a relay just before the entry was given up: ask anew.
    if phase == Phase::Wanted as u32 {
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
