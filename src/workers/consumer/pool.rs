//! The consumer's side of the pool: which handler processes there are, and which task each has.
//!
//! A segment of shared memory for each process holds its report, then its task.

use std::time::{Duration, Instant};

use pgrx::warning;

use crate::host::gucs;
use crate::host::roles::{HANDLERS, Role};
use crate::host::session::{self, Failed};
use crate::host::shmem::Database;
use crate::host::task_slot::Outcome;
use crate::sys::clock;
use crate::sys::segment::Segment;
use sea_mq_model::broker::SubscriptionId;
use sea_mq_model::consume::intake::Taken;
use sea_mq_model::pipeline::Lane;
use sea_mq_model::pipeline::task::{Report, decode};

/// Where a report is in a segment, and how large it may be.
pub(super) const REPORT_AT: usize = 0;
pub(super) const REPORT_BYTES: usize = 32 << 10;
/// Where a task is.
pub(super) const TASK_AT: usize = REPORT_BYTES;
/// Least size of a segment.
const LEAST: usize = 256 << 10;
/// So long a task waits for one of the processes that are there before another one is asked for.
const PATIENCE: Duration = Duration::from_millis(50);
/// So long a task waits for the first process before the consumer does it itself.
const START: Duration = Duration::from_secs(3);
/// So long nothing is given to processes after there was no memory to share with them.
const SHORT: Duration = Duration::from_secs(10);

/// What a task brings along, as the consumer remembers it.
pub(super) enum Brought {
    Nothing,
    Delivered(Taken),
    /// Places among what was read of the log.
    Logged(Vec<usize>),
}

/// A task that a process has.
pub(super) struct Given {
    pub subscription: SubscriptionId,
    pub lane: Lane,
    pub brought: Brought,
}

/// A task that is over.
pub(super) struct Over {
    /// `None`: a consumer before this one gave it, or this one before it began anew.
    pub given: Option<Given>,
    pub subscription: SubscriptionId,
    pub lane: i16,
    /// `None`: the process has ended, and nobody knows how far it came.
    pub report: Option<Report>,
}

pub(super) struct Pool {
    database: Option<&'static Database>,
    segments: [Option<Segment>; HANDLERS],
    given: [Option<Given>; HANDLERS],
    /// Since when a task has waited for a process.
    waits_since: Option<Instant>,
    /// Processes that are wanted beyond `sea_mq.handler_processes`, since all are busy.
    more: usize,
    /// There is no memory to share with processes; when to try again.
    short_until: Option<Instant>,
}

impl Pool {
    pub fn new(database: Option<&'static Database>) -> Self {
        Self {
            database,
            segments: [const { None }; HANDLERS],
            given: [const { None }; HANDLERS],
            waits_since: None,
            more: 0,
            short_until: None,
        }
    }

    /// Nothing is known any more of what processes have. What they have not begun, they do not begin.
    pub fn forget(&mut self) {
        self.given = [const { None }; HANDLERS];
        if let Some(database) = self.database {
            database.tasks.iter().for_each(|slot| slot.withdraw());
        }
    }

    /// Whether a lane has a task under way.
    pub fn has(&self, subscription: SubscriptionId, lane: i16) -> bool {
        self.under_way().any(|one| one == (subscription, lane))
    }

    /// Whether a subscription has one.
    pub fn has_some(&self, subscription: SubscriptionId) -> bool {
        self.under_way().any(|(id, _)| id == subscription)
    }

    fn under_way(&self) -> impl Iterator<Item = (SubscriptionId, i16)> {
        self.database.into_iter().flat_map(|database| database.tasks.iter().filter_map(|slot| slot.under_way()))
    }

    /// Whether there can be processes: the library is preloaded, they are wanted, and the server has a slot for one and memory to
    /// share with it.
    pub fn is_there(&self, now: Instant) -> bool {
        if self.short_until.is_some_and(|until| now < until) {
            return false;
        }
        let Some(database) = self.database.filter(|_| gucs::handler_processes() > 0) else { return false };
        self.has_process()
            || self.waits_since.is_none_or(|since| now.saturating_duration_since(since) < START)
                && database.seat(Role::Handler(0)).waits_since.load(std::sync::atomic::Ordering::Acquire) == 0
    }

    /// A process that can be given a task.
    pub fn free(&self) -> Option<usize> {
        let slots = self.database.into_iter().flat_map(|database| database.tasks.iter().enumerate());
        slots.filter(|(_, slot)| slot.is_open()).map(|(number, _)| number).next()
    }

    /// A task waits for a process: has one come, and another one, if all that are there are busy for long.
    pub fn call(&mut self, now: Instant) {
        let Some(database) = self.database else { return };
        let since = *self.waits_since.get_or_insert(now);
        let running = Role::handlers().filter(|role| database.seat(*role).has_process()).count();
        let usual = gucs::handler_processes().min(HANDLERS);
        if running >= usual + self.more && now.saturating_duration_since(since) >= PATIENCE {
            self.more = (self.more + 1).min(HANDLERS - usual);
            self.waits_since = Some(now);
        }
        // One after the other: most of the time few are needed.
        database.want_handlers((running + 1).min(usual + self.more));
    }

    /// When to look again whether there is a process for a task that waits.
    pub fn due_at(&self) -> Option<Instant> {
        self.waits_since.map(|since| since + PATIENCE)
    }

    /// No task waits for a process. Where none has come, that is remembered: the consumer goes on by itself until there is one, and
    /// does not wait for it again and again.
    pub fn is_enough(&mut self) {
        self.more = 0;
        if self.has_process() {
            self.waits_since = None;
        }
    }

    fn has_process(&self) -> bool {
        self.database.is_some_and(|database| Role::handlers().any(|role| database.seat(role).has_process()))
    }

    /// Gives a task, as bytes, to a process that was free. What it brought along comes back if that fails.
    pub fn give(&mut self, number: usize, task: Option<Vec<u8>>, given: Given) -> Result<(), Given> {
        let (Some(database), Some(bytes)) = (self.database, task) else { return Err(given) };
        let Some(handle) = self.write(number, &bytes) else { return Err(given) };
        if !database.tasks[number].give(handle, bytes.len(), given.subscription, given.lane.number) {
            return Err(given);
        }
        self.given[number] = Some(given);
        database.seat(Role::Handler(u8::try_from(number).unwrap_or(u8::MAX))).wake();
        Ok(())
    }

    /// Writes a task into the segment of a process. `None`: there is no memory for it.
    fn write(&mut self, number: usize, bytes: &[u8]) -> Option<u32> {
        let size = TASK_AT + bytes.len();
        if self.segments[number].as_ref().is_none_or(|segment| segment.size() < size) {
            self.segments[number] = None;
            let made = session::transaction(|| Segment::create(size.next_power_of_two().max(LEAST)));
            self.note_memory(made.as_ref().err());
            self.segments[number] = Some(made.ok()?);
        }
        let segment = self.segments[number].as_mut()?;
        segment.write(TASK_AT, bytes).then(|| segment.handle())
    }

    /// The log says once that there is no memory, and `sea_mq.problems` for as long as it is so.
    fn note_memory(&mut self, error: Option<&Failed>) {
        let Some(database) = self.database else { return };
        let failures = &database.seat(Role::Handler(0)).failures;
        let was_short = self.short_until.take().is_some();
        match error {
            Some(error) => {
                let text = format!(
                    "there is no memory to share with it, so the consumer runs all handlers itself: {}",
                    error.0
                );
                if !was_short {
                    warning!("sea_mq consumer: the pool of handlers does nothing: {text}");
                }
                failures.note(Some(&text), clock::now());
                self.short_until = Some(Instant::now() + SHORT);
            }
            None if was_short => failures.forget(),
            None => {}
        }
    }

    /// The tasks that are over.
    pub fn collect(&mut self) -> Vec<Over> {
        let Some(database) = self.database else { return Vec::new() };
        let mut over = Vec::new();
        for (number, slot) in database.tasks.iter().enumerate() {
            let Some((subscription, lane)) = slot.under_way() else { continue };
            // Read before another task can be written there: by this process alone, after this.
            let Some(outcome) = slot.collect() else { continue };
            let given = self.given[number].take();
            let report = match (outcome, &self.segments[number]) {
                (Outcome::Done(bytes), Some(segment)) if given.is_some() => decode(&segment.read(REPORT_AT, bytes)),
                _ => None,
            };
            over.push(Over { given, subscription, lane, report });
        }
        over
    }
}
