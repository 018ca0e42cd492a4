//! When a process ends although nothing is wrong: it has had nothing to do for long, or others wait for its worker slot.
//!
//! ```text
//! nothing to do for sea_mq.idle_timeout ─────────────► Resting ── a reason, its time ──► Wanted
//! nothing to do for a moment, and others wait ───────► Resting
//! had the slot for a turn, and others wait ──────────► Wanted, behind the others
//! ```

use std::time::{Duration, Instant};

use super::process::Process;
use crate::host::roles::{Reasons, Role};
use crate::host::seat::Life;
use crate::host::{gucs, shmem};

/// How long a process stays with nothing to do while others wait for a worker slot.
const MOMENT: Duration = Duration::from_secs(1);
/// How long a process that has something to do keeps its worker slot while others wait for one.
const TURN: Duration = Duration::from_secs(30);
/// A process that rests comes back after so many times `sea_mq.idle_timeout`, within bounds, to look around: slots of the log that are
/// old, a broker that has lost data, what came with a dump.
const LOOK_AROUND: u32 = 6;
const LOOK_AROUND_AT_LEAST: Duration = Duration::from_secs(60);
/// The longest time that a process rests.
pub const LONGEST: Duration = Duration::from_secs(3600);

/// A process that has nothing to do just now.
pub struct Idle {
    pub since: Instant,
    /// When there is something to do, if that is known.
    pub until: Option<Instant>,
    /// What it is to come back for.
    pub hears: Reasons,
}

/// How a process ends to come back later.
#[derive(Clone, Copy)]
pub struct Rest {
    pub hears: Reasons,
    /// For how long, at most.
    pub pause: Duration,
}

/// What follows, if the process is to end for now. `idle`: it has nothing to do.
pub fn next(process: &Process, idle: Option<Idle>) -> Option<(Life, Option<Rest>)> {
    // Without the launcher nobody would start it again.
    process.database?;
    let others_wait = shmem::waiting() > 0;
    if let Some(rest) = idle.zip(gucs::idle_timeout()).and_then(|(idle, timeout)| rest(&idle, timeout, others_wait)) {
        return Some((Life::Resting, Some(rest)));
    }
    // A handler has a task to end; it is gone soon after.
    let has_turns = !matches!(process.role, Role::Handler(_));
    (others_wait && has_turns && process.started.elapsed() >= TURN).then_some((Life::Wanted, None))
}

fn rest(idle: &Idle, timeout: Duration, others_wait: bool) -> Option<Rest> {
    let now = Instant::now();
    let patience = if others_wait { timeout.min(MOMENT) } else { timeout };
    let left = idle.until.map(|until| until.saturating_duration_since(now));
    // What is to be done so soon is waited for.
    if now.saturating_duration_since(idle.since) < patience || left.is_some_and(|left| left <= patience) {
        return None;
    }
    let around = timeout.saturating_mul(LOOK_AROUND).clamp(LOOK_AROUND_AT_LEAST, LONGEST);
    let pause = left.map_or(around, |left| left.min(around));
    Some(Rest { hears: idle.hears, pause })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn idle(age: Duration, left: Option<Duration>) -> Idle {
        let now = Instant::now();
        Idle {
            since: now.checked_sub(age).expect("the machine runs for longer"),
            until: left.map(|left| now + left),
            hears: Reasons::EVENTS,
        }
    }

    #[test]
    fn nobody_rests_too_early() {
        let rests = |age, left, others| rest(&idle(age, left), 2 * MINUTE, others).is_some();
        assert!(rests(2 * MINUTE, None, false) && !rests(MINUTE, None, false));
        assert!(rests(MOMENT, None, true) && !rests(Duration::ZERO, None, true), "others wait");
        assert!(!rests(3 * MINUTE, Some(MINUTE), false), "there is something to do in a minute");
        assert!(rests(3 * MINUTE, Some(MINUTE), true) && rests(3 * MINUTE, Some(3 * MINUTE), false));
    }

    #[test]
    fn it_comes_back_for_what_is_due_and_now_and_then() {
        let pause = |left, timeout| {
            let rest = rest(&idle(MINUTE, left), timeout, false).expect("rests");
            rest.pause.as_secs_f64().round()
        };
        assert_eq!(pause(None, MINUTE), 360.0);
        assert_eq!(pause(Some(2 * MINUTE), MINUTE), 120.0);
        assert_eq!(pause(Some(60 * MINUTE), MINUTE), 360.0);
        assert_eq!(pause(None, Duration::from_millis(10)), 60.0);
    }
}
