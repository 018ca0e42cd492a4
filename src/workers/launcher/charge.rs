//! A process in the launcher's care: whose it is, and when it is started again after it has failed.

use std::time::{Duration, Instant};

use pgrx::bgworkers::DynamicBackgroundWorker;

use crate::host::roles::Role;
use sea_mq_model::domain::retry::Backoff;

/// Longest pause before a process is started again that has failed. A handler process may have ended of a message, and the others'
/// messages want it back.
const LONGEST: Duration = Duration::from_secs(30);
const LONGEST_OF_HANDLER: Duration = Duration::from_secs(2);
/// A worker that has run for so long is no longer failing.
const SOUND: Duration = Duration::from_secs(60);

/// A seat of a database.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Post {
    /// OID of the database.
    pub(super) database: u32,
    pub(super) role: Role,
}

/// A process in the launcher's care.
pub(super) struct Charge {
    pub(super) worker: Option<DynamicBackgroundWorker>,
    started: Instant,
    backoff: Backoff,
    retry_at: Option<Instant>,
}

impl Post {
    pub(super) fn is_handler(self) -> bool {
        matches!(self.role, Role::Handler(_))
    }
}

impl Charge {
    pub(super) fn new(role: Role) -> Self {
        let longest = if matches!(role, Role::Handler(_)) { LONGEST_OF_HANDLER } else { LONGEST };
        Self {
            worker: None,
            started: Instant::now(),
            backoff: Backoff::new(Duration::from_millis(500), longest),
            retry_at: None,
        }
    }

    pub(super) fn has_worker(&self) -> bool {
        self.worker.is_some()
    }

    pub(super) fn begin(&mut self, worker: Option<DynamicBackgroundWorker>) {
        self.worker = worker;
        self.started = Instant::now();
        self.retry_at = None;
    }

    /// How long to wait before the next process, after one that has failed.
    /// `note` is called once for each.
    pub(super) fn pause(&mut self, note: impl FnOnce()) -> Duration {
        if self.started.elapsed() > SOUND {
            self.backoff.reset();
        }
        let now = Instant::now();
        let retry_at = *self.retry_at.get_or_insert_with(|| {
            note();
            now + self.backoff.next(rand::random())
        });
        retry_at.saturating_duration_since(now)
    }
}
