//! The place in shared memory through which the consumer gives a task to a handler process, and gets the report.
//!
//! ```text
//!             open              give             take             finish
//!   Closed ─────────► Open ──────────► Given ──────────► Taken ──────────► Done
//!     ▲   close, leave │ ▲  withdraw     │                 │                │
//!     │ ◄──────────────┘ └───────────────┘                 │                │ collect: Open
//!     │                                  │ leave           │ leave          │ leave: Ended
//!     └────────────── collect ───────────┴──── Lost ◄──────┘                ▼ collect: Closed
//! ```
//!
//! The bytes of tasks and reports are in a segment that the consumer has made; here is who may touch it.

use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU32, AtomicUsize, Ordering};

const CLOSED: u32 = 0;
const OPEN: u32 = 1;
const GIVEN: u32 = 2;
const TAKEN: u32 = 3;
const DONE: u32 = 4;
const ENDED: u32 = 5;
const LOST: u32 = 6;

#[derive(Default)]
pub struct TaskSlot {
    state: AtomicU32,
    /// Of the segment. Written by the consumer.
    segment: AtomicU32,
    /// Whose task it is. Written by the consumer.
    subscription: AtomicI64,
    lane: AtomicI32,
    /// Bytes of the task, written by the consumer; then those of the report, written by the process.
    bytes: AtomicUsize,
}

/// A task for the process.
pub struct Taken {
    pub segment: u32,
    pub bytes: usize,
}

/// What has come of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The report has so many bytes.
    Done(usize),
    /// The process has ended, and nobody knows how far it came.
    Lost,
}

impl TaskSlot {
    fn advance(&self, from: u32, to: u32) -> bool {
        self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// For the process: takes tasks from now on. `false`: what came of the one before was not collected yet.
    pub fn open(&self) -> bool {
        self.advance(CLOSED, OPEN)
    }

    /// For the process: the task that it was given.
    pub fn take(&self) -> Option<Taken> {
        self.advance(GIVEN, TAKEN)
            .then(|| Taken { segment: self.segment.load(Ordering::Acquire), bytes: self.bytes.load(Ordering::Acquire) })
    }

    /// For the process: the report is written, of so many bytes.
    pub fn finish(&self, bytes: usize) {
        self.bytes.store(bytes, Ordering::Release);
        self.advance(TAKEN, DONE);
    }

    /// For the process: takes no more tasks. `false`: it was just given one.
    pub fn close(&self) -> bool {
        self.advance(OPEN, CLOSED) || self.state.load(Ordering::Acquire) == CLOSED
    }

    /// For the process, on its way out, whatever it was doing.
    pub fn leave(&self) {
        let _ = self.advance(OPEN, CLOSED)
            || self.advance(GIVEN, LOST)
            || self.advance(TAKEN, LOST)
            || self.advance(DONE, ENDED);
    }

    /// For the consumer: whether it can give a task.
    pub fn is_open(&self) -> bool {
        self.state.load(Ordering::Acquire) == OPEN
    }

    /// For the consumer: gives a task, which is in the segment. `false`: the process is just closing.
    pub fn give(&self, segment: u32, bytes: usize, subscription: i64, lane: i16) -> bool {
        self.segment.store(segment, Ordering::Release);
        self.bytes.store(bytes, Ordering::Release);
        self.subscription.store(subscription, Ordering::Release);
        self.lane.store(lane.into(), Ordering::Release);
        self.advance(OPEN, GIVEN)
    }

    /// For the consumer: what has come of the task, if it is over. Taken.
    pub fn collect(&self) -> Option<Outcome> {
        let bytes = self.bytes.load(Ordering::Acquire);
        if self.advance(ENDED, CLOSED) || self.advance(DONE, OPEN) {
            return Some(Outcome::Done(bytes));
        }
        self.advance(LOST, CLOSED).then_some(Outcome::Lost)
    }

    /// For a consumer that begins: takes back a task of another one's that nobody has begun.
    pub fn withdraw(&self) {
        self.advance(GIVEN, OPEN);
    }

    /// Whose task is under way (subscription, lane), or is over and not collected.
    pub fn under_way(&self) -> Option<(i64, i16)> {
        let is_free = [CLOSED, OPEN].contains(&self.state.load(Ordering::Acquire));
        let lane = i16::try_from(self.lane.load(Ordering::Acquire)).unwrap_or(0);
        (!is_free).then(|| (self.subscription.load(Ordering::Acquire), lane))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given() -> TaskSlot {
        let slot = TaskSlot::default();
        assert!(!slot.give(1, 2, 3, 4), "nobody takes it");
        assert!(slot.open() && slot.is_open() && slot.give(1, 2, 3, 4) && !slot.is_open());
        slot
    }

    #[test]
    fn a_task_is_given_taken_and_reported() {
        let slot = given();
        assert_eq!((slot.under_way(), slot.collect()), (Some((3, 4)), None));
        let taken = slot.take().expect("given");
        assert_eq!((taken.segment, taken.bytes), (1, 2));
        assert!(slot.take().is_none() && !slot.close());
        slot.finish(9);
        assert_eq!((slot.collect(), slot.collect()), (Some(Outcome::Done(9)), None));
        assert!(slot.is_open() && slot.close() && slot.under_way().is_none());
    }

    #[test]
    fn a_process_that_ends_leaves_behind_what_is_to_be_known() {
        let slot = given();
        slot.leave();
        assert!(!slot.open(), "it was not collected");
        assert_eq!(slot.collect(), Some(Outcome::Lost));
        assert!(slot.open() && slot.give(1, 2, 3, 4));
        slot.take();
        slot.leave();
        assert_eq!(slot.collect(), Some(Outcome::Lost));
        assert!(slot.open() && slot.give(1, 2, 3, 4));
        slot.take();
        slot.finish(9);
        slot.leave();
        assert_eq!(slot.collect(), Some(Outcome::Done(9)));
        assert!(!slot.is_open(), "nobody is there any more");
    }

    #[test]
    fn another_consumer_takes_back_what_nobody_has_begun() {
        let slot = given();
        slot.withdraw();
        assert!(slot.is_open() && slot.take().is_none());
        assert!(slot.give(1, 2, 3, 4));
        slot.take();
        slot.withdraw();
        assert_eq!(slot.under_way(), Some((3, 4)));
    }
}
