//! Seats: the place in shared memory of each worker process that a database can have.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicPtr, AtomicU32, Ordering};

use pgrx::pg_sys;

use super::failures::Failures;
use super::roles::Reasons;

/// Where a process is in its life. Written by the launcher (`Running`), the process, and those who ask for it or stop it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Life {
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
    /// The process has ended, since there was nothing to do: see [`Seat::rest`]. It comes back when somebody has something for it, and
    /// at a time of its own.
    Resting = 5,
}

impl Life {
    fn from_u32(value: u32) -> Self {
        match value {
            1 => Self::Wanted,
            2 => Self::Running,
            3 => Self::Failed,
            4 => Self::Stopped,
            5 => Self::Resting,
            _ => Self::Absent,
        }
    }
}

#[derive(Default)]
pub struct Seat {
    life: AtomicU32,
    /// Id of the process; 0: none. Written by the process.
    pid: AtomicI32,
    /// The process's latch; null: none. Written by the process; it lies in shared memory at the same address everywhere.
    latch: AtomicPtr<pg_sys::Latch>,
    /// The process is to end; what follows depends on the life. Set by anyone, cleared by the launcher before it asks for
    /// the next process.
    pub end: AtomicBool,
    /// [`Reasons`] that the process was woken for and has not looked after yet. Set by anyone, cleared by the process.
    reasons: AtomicU32,
    /// [`Reasons`] that the process wants to be woken for; none without a process. Written by the process.
    hears: AtomicU32,
    /// Since when it waits for a free worker slot; 0: it does not. Microseconds since 2000. Written by the launcher, and cleared by
    /// whoever wants no process any more.
    pub waits_since: AtomicI64,
    /// While it rests: since when, and when the launcher is to start a process at the latest. Microseconds since 2000. Written by the
    /// process before it rests.
    pub rests_since: AtomicI64,
    pub rests_until: AtomicI64,
    /// How its processes have failed of late. Noted by the process and by the launcher.
    pub failures: Failures,
}

impl Seat {
    pub fn life(&self) -> Life {
        Life::from_u32(self.life.load(Ordering::Acquire))
    }

    pub fn set_life(&self, life: Life) {
        self.life.store(life as u32, Ordering::Release);
    }

    /// Changes it only if it still is `from`.
    pub fn advance(&self, from: Life, to: Life) -> bool {
        self.life.compare_exchange(from as u32, to as u32, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Leaves the seat to nobody. Returns what it was.
    pub fn clear(&self) -> Life {
        self.failures.forget();
        self.waits_since.store(0, Ordering::Release);
        Life::from_u32(self.life.swap(Life::Absent as u32, Ordering::AcqRel))
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

    /// Wakes the process if it hears of one of the reasons, and was not woken for it since it last looked. Returns whether it rests,
    /// and the launcher is to start it.
    #[must_use]
    pub fn note(&self, reasons: Reasons) -> bool {
        let heard = reasons.bits() & self.hears.load(Ordering::Acquire);
        if self.is_news(heard) {
            self.wake();
        }
        heard != 0 && self.rouse()
    }

    /// Keeps what the process hears of until it looks. Returns whether it was not woken for all of that yet.
    fn is_news(&self, heard: u32) -> bool {
        heard != 0 && self.reasons.fetch_or(heard, Ordering::SeqCst) & heard != heard
    }

    /// Asks for a process if it rests. Returns whether the launcher is to start it.
    #[must_use]
    pub fn rouse(&self) -> bool {
        self.life.load(Ordering::SeqCst) == Life::Resting as u32 && self.advance(Life::Resting, Life::Wanted)
    }

    /// For the process, which then ends: it is wanted again when somebody has one of the reasons, and at a time (microseconds since
    /// 2000). Nothing is missed: whoever notes a reason sees afterwards that it rests, or has noted it before, which is seen here.
    pub fn rest(&self, hears: Reasons, since: i64, until: i64) {
        self.hear(hears);
        self.rests_since.store(since, Ordering::Release);
        self.rests_until.store(until, Ordering::Release);
        let (from, to) = (Life::Running as u32, Life::Resting as u32);
        let rests = self.life.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if rests && self.reasons.load(Ordering::SeqCst) & hears.bits() != 0 {
            self.advance(Life::Resting, Life::Wanted);
        }
    }

    /// For the process: takes those of the reasons that it was woken for. Before it reads anything: what is committed
    /// afterwards wakes it again.
    pub fn take(&self, reasons: Reasons) -> Reasons {
        let found = self.reasons.fetch_and(!reasons.bits(), Ordering::AcqRel);
        Reasons::from_bits(found & reasons.bits())
    }

    /// For the process: whether it was woken for one of the reasons since it last took them.
    pub fn is_woken_for(&self, reasons: Reasons) -> bool {
        Reasons::from_bits(self.reasons.load(Ordering::Acquire)).has(reasons)
    }

    /// For the process: what it wants to be woken for from now on.
    pub fn hear(&self, reasons: Reasons) {
        self.hears.store(reasons.bits(), Ordering::Release);
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
        if self.life() != Life::Resting {
            self.hear(Reasons::NONE);
        }
        self.latch.store(std::ptr::null_mut(), Ordering::Release);
        self.pid.store(0, Ordering::Release);
    }

    /// Tells the process to end, if there is one or is to be one; then `next` applies.
    pub fn dismiss(&self, next: Life) {
        if self.advance(Life::Running, next) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn resting(noted: Reasons) -> Seat {
        let seat = Seat::default();
        seat.set_life(Life::Running);
        assert!(seat.attach(std::ptr::null_mut(), 7));
        seat.hear(Reasons::EVENTS.and(Reasons::INBOX));
        assert!(seat.is_news(noted.bits()) && !seat.rouse(), "it runs");
        seat.rest(Reasons::EVENTS, 1, 2);
        seat.detach();
        seat
    }

    #[test]
    fn who_rests_is_wanted_again_once() {
        let seat = resting(Reasons::INBOX);
        assert_eq!(seat.life(), Life::Resting, "it does not hear of that any more");
        assert!(seat.rouse());
        assert_eq!(seat.life(), Life::Wanted);
        assert!(!seat.rouse(), "once is enough");
    }

    #[test]
    fn what_was_noted_before_is_not_slept_over() {
        assert_eq!(resting(Reasons::EVENTS).life(), Life::Wanted);
    }

    #[test]
    fn who_is_told_to_end_does_not_rest() {
        let seat = Seat::default();
        seat.set_life(Life::Stopped);
        seat.rest(Reasons::EVENTS, 1, 2);
        assert_eq!(seat.life(), Life::Stopped);
    }
}
