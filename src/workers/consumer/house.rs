//! Housekeeping of the inbox: leases that have run out, counters, and the space of what is done and old.

use std::time::{Duration, Instant};

use pgrx::log;

use super::worker::Worker;
use crate::host::gucs;
use crate::host::session::{self, Failed};
use crate::inbox::{dead_letters, done};
use crate::log::{janitor, progress};
use sea_mq_model::pipeline::Effect;

/// An attempt that began so long ago and has not ended is nobody's any more; settings allow a day at most.
const STALE: Duration = Duration::from_secs(3 * 86_400);
/// Longest pause between looks at old dead letters.
const LETTERS: Duration = Duration::from_secs(60);
/// Pause between rounds.
const ROUND: Duration = Duration::from_secs(1);

impl Worker {
    /// Removes dead letters that were decided about long ago.
    fn forget_letters(&mut self) -> Result<(), Failed> {
        let (now, age) = (Instant::now(), gucs::dlq_retention());
        if now >= self.letters_at {
            self.letters_at = now + (age / 8).clamp(ROUND, LETTERS);
            session::transaction(|| dead_letters::forget_old(age))?;
        }
        Ok(())
    }

    pub(super) fn keep_house(&mut self) -> Result<(), Failed> {
        self.house_at = Instant::now() + ROUND;
        if self.served.iter().any(|served| served.subscription.effect() == Effect::Pull) {
            session::transaction(done::release_expired)?;
        }
        for slot in session::transaction(progress::grown_outcomes)? {
            // Failing to get the lock is no failure, here and below: somebody uses the slot, and another round tries again.
            let _ = session::transaction(|| progress::add_outcomes(slot));
        }
        session::transaction(dead_letters::fold_tally)?;
        janitor::turn(progress::ring())?;
        // No handler runs for so long that its process is not gone.
        self.recover(STALE)?;
        let retention = gucs::inbox_retention();
        if session::transaction(|| done::advance_if_old(retention / 2)).is_ok_and(|advanced| advanced) {
            log!("sea_mq: the inbox moved on to its next slot");
        }
        for slot in session::transaction(|| done::spent_slots(retention))? {
            if session::transaction(|| done::truncate(slot)).is_ok() {
                log!("sea_mq: slot {slot} of the inbox was emptied");
            }
        }
        self.forget_letters()
    }
}
