//! What a session asks of the relay and waits for: to compare a stream with the log. One at a time in a database.
//!
//! ```text
//! Idle ── ask ──► Asked ── take ──► Running ── answer ──► Answered ── (the session has read it) ──► Idle
//! ```
//!
//! The session holds a lock all the while, by which the relay knows that somebody still waits. What was found is in
//! `sea_mq.stream_findings`.

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};

use pgrx::pg_sys;

use super::locks::{LockClass, lock_tag};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum State {
    Idle,
    Asked,
    Running,
    Answered,
}

#[derive(Default)]
pub struct Inquiry {
    /// A [`State`]. Written by the session that has the lock, and by the relay.
    state: AtomicU32,
    /// The stream's sink. Written by the session.
    sink: AtomicI64,
    /// Messages of the stream that were compared, of how many. Written by the relay.
    pub compared: AtomicU64,
    pub whole: AtomicU64,
    /// How many differences there are. Written by the relay.
    pub findings: AtomicU64,
}

impl Inquiry {
    /// For the session, which has the lock.
    pub fn ask(&self, sink: i64) {
        self.sink.store(sink, Ordering::Relaxed);
        self.state.store(State::Asked as u32, Ordering::Release);
    }

    /// Whether somebody has asked, and the relay has not looked yet.
    pub fn is_asked(&self) -> bool {
        self.state.load(Ordering::Acquire) == State::Asked as u32
    }

    /// For the relay: the sink that was asked about.
    pub fn take(&self) -> Option<i64> {
        self.pass(State::Asked, State::Running).then(|| {
            for number in [&self.compared, &self.whole, &self.findings] {
                number.store(0, Ordering::Relaxed);
            }
            self.sink.load(Ordering::Relaxed)
        })
    }

    /// For the relay. Nothing happens if another question was asked meanwhile.
    pub fn answer(&self) {
        self.pass(State::Running, State::Answered);
    }

    /// For the session. Takes the answer, if there is one.
    pub fn is_answered(&self) -> bool {
        self.pass(State::Answered, State::Idle)
    }

    fn pass(&self, from: State, to: State) -> bool {
        self.state.compare_exchange(from as u32, to as u32, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// Waits for the right to ask, which the transaction then has.
pub fn lock() {
    // SAFETY: a lock of the transaction, released with it at the latest.
    unsafe { pg_sys::LockAcquire(&tag(), pg_sys::ExclusiveLock as _, false, false) };
}

pub fn unlock() {
    // SAFETY: the transaction has the lock.
    unsafe { pg_sys::LockRelease(&tag(), pg_sys::ExclusiveLock as _, false) };
}

/// For the relay, in a transaction of its own: whether somebody waits for an answer.
pub fn is_awaited() -> bool {
    // SAFETY: does not wait; a lock of the transaction, released with it.
    let result = unsafe { pg_sys::LockAcquire(&tag(), pg_sys::ShareLock as _, false, true) };
    result == pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
}

fn tag() -> pg_sys::LOCKTAG {
    lock_tag(0, 0, LockClass::Inquiry)
}
