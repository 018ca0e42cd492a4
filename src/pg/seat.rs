//! Seats: the place in shared memory of each worker process that a database can have.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, Ordering};

use pgrx::pg_sys;

use super::failures::Failures;

/// Processes of a database that do nothing but handle messages.
pub const MAX_HANDLERS: usize = 6;
/// Processes that a database can have.
pub const SEATS: usize = 2 + MAX_HANDLERS;

/// What a worker process is there for. Each role has a seat of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Publishes what was emitted.
    Relay,
    /// Takes in what subscriptions deliver, and handles it, or has it handled.
    Consumer,
    /// Handles messages beside the consumer. Numbers count from 0.
    Handler(u8),
}

impl Role {
    /// What every database with the extension has. Handlers come and go as the consumer wants.
    pub const STANDING: [Self; 2] = [Self::Relay, Self::Consumer];

    pub fn all() -> impl Iterator<Item = Self> {
        Self::STANDING.into_iter().chain(Self::handlers())
    }

    pub fn handlers() -> impl Iterator<Item = Self> {
        (0..MAX_HANDLERS as u8).map(Self::Handler)
    }

    /// The place of its seat. Never out of bounds, whatever a handler's number is.
    pub fn index(self) -> usize {
        match self {
            Self::Relay => 0,
            Self::Consumer => 1,
            Self::Handler(number) => 2 + usize::from(number).min(MAX_HANDLERS - 1),
        }
    }

    /// The role whose seat has this place.
    pub fn at(index: usize) -> Option<Self> {
        Self::all().nth(index)
    }

    /// As `pg_stat_activity` shows it.
    pub fn backend_type(self) -> &'static str {
        match self {
            Self::Relay => "sea_mq relay",
            Self::Consumer => "sea_mq consumer",
            Self::Handler(_) => "sea_mq handler",
        }
    }

    /// The function that the process begins with.
    pub fn entry_point(self) -> &'static str {
        match self {
            Self::Relay => "sea_mq_relay_main",
            Self::Consumer => "sea_mq_consumer_main",
            Self::Handler(_) => "sea_mq_handler_main",
        }
    }
}

/// Where a process is in its life. Written by the launcher (`Running`), the process, and those who ask for it or stop it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Phase {
    /// No process, and none wanted: the database has no extension or is gone, or the consumer wants no such handler. One
    /// that was told to end may still be there.
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

#[derive(Default)]
pub struct Seat {
    phase: AtomicU32,
    /// Id of the process; 0: none. Written by the process.
    pid: AtomicI32,
    /// The process's latch; null: none. Written by the process; it lies in shared memory at the same address everywhere.
    latch: AtomicPtr<pg_sys::Latch>,
    /// The process is to end; what follows depends on the phase. Set by anyone, cleared by the launcher before it asks for
    /// the next process.
    pub end: AtomicBool,
    /// There may be something to handle. Set by whoever has something for the handlers, cleared by the handler.
    pub work: AtomicBool,
    /// The server had no worker slot when the launcher last asked for a process. Written by the launcher, and cleared by whoever
    /// asks it to try again.
    pub lacks_slot: AtomicBool,
    /// How its processes have failed of late. Noted by the process and by the launcher.
    pub failures: Failures,
}

impl Seat {
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

    /// Leaves the seat to nobody. Returns the phase that it was in.
    pub fn clear(&self) -> Phase {
        self.failures.forget();
        self.lacks_slot.store(false, Ordering::Release);
        Phase::from_u32(self.phase.swap(Phase::Absent as u32, Ordering::AcqRel))
    }

    /// The process in the seat; 0: none.
    pub fn pid(&self) -> i32 {
        self.pid.load(Ordering::Acquire)
    }

    pub fn has_process(&self) -> bool {
        self.pid() != 0
    }

    /// Wakes the process, if there is one.
    pub fn wake(&self) {
        set_latch(self.latch.load(Ordering::Acquire));
    }

    /// The calling process takes the seat. `false`: another one has it.
    pub fn attach(&self, latch: *mut pg_sys::Latch, pid: i32) -> bool {
        let taken = self.pid.compare_exchange(0, pid, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if taken {
            self.latch.store(latch, Ordering::Release);
        }
        taken
    }

    /// The process that has the seat leaves it.
    pub fn detach(&self) {
        self.latch.store(std::ptr::null_mut(), Ordering::Release);
        self.pid.store(0, Ordering::Release);
    }

    /// Tells the process to end, if there is one or is to be one; then `next` applies.
    pub fn dismiss(&self, next: Phase) {
        if self.advance(Phase::Running, next) {
            self.end.store(true, Ordering::Release);
            self.wake();
        }
    }
}

pub fn set_latch(latch: *mut pg_sys::Latch) {
    if !latch.is_null() {
        // SAFETY: a latch of a PGPROC, which stays mapped as long as the server runs. If its process has ended, whoever
        // owns the PGPROC now is woken once for nothing.
        unsafe { pg_sys::SetLatch(latch) }
    }
}
