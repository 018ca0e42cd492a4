//! A handler process: does what the consumer gives it, one task after the other, and ends when there has been none for a while.

use std::rc::Rc;
use std::time::{Duration, Instant};

use pgrx::pg_sys;

use super::pool::{REPORT_AT, REPORT_BYTES, TASK_AT};
use super::task;
use super::worker::RECYCLE;
use crate::host::gucs;
use crate::host::roles::Role;
use crate::host::seat::Life;
use crate::host::session::{self, Failed};
use crate::host::shmem::Database;
use crate::host::spi::{self, Arg};
use crate::host::task_slot::{Taken, TaskSlot};
use crate::inbox::subscriptions::{self, Subscription};
use crate::sys::segment::Segment;
use crate::workers::process::{self, Process, Work};
use sea_mq_model::broker::SubscriptionId;
use sea_mq_model::pipeline::Tally;
use sea_mq_model::pipeline::task::{Ending, Report, Task, decode, encode};

/// After so long without a task the process ends.
const IDLE: Duration = Duration::from_secs(60);
/// After so long it does if there are more than are wanted.
const SPARE: Duration = Duration::from_secs(2);

/// Does tasks until something ends it. Returns what is to follow.
pub(super) fn run(process: &Process) -> Life {
    let (Role::Handler(number), Some(database)) = (process.role, process.database) else { return Life::Absent };
    let Some(slot) = database.tasks.get(usize::from(number)) else { return Life::Absent };
    let now = Instant::now();
    let mut handler = Handler {
        process: *process,
        database,
        number: usize::from(number),
        slot,
        is_open: false,
        segment: None,
        subscriptions: Vec::new(),
        fingerprint: None,
        poll_at: now,
        started: now,
        idle_since: now,
    };
    process::serve(process, &mut handler).0
}

struct Handler {
    process: Process,
    database: &'static Database,
    number: usize,
    slot: &'static TaskSlot,
    /// Whether the consumer can give it tasks.
    is_open: bool,
    segment: Option<Segment>,
    subscriptions: Vec<Rc<Subscription>>,
    /// Of the descriptions that were read.
    fingerprint: Option<String>,
    poll_at: Instant,
    started: Instant,
    idle_since: Instant,
}

impl Work for Handler {
    fn begin(&mut self) -> Result<(), Failed> {
        self.fingerprint = None;
        Ok(())
    }

    fn begin_if_changed(&mut self) -> Result<(), Failed> {
        Ok(())
    }

    fn run_once(&mut self) -> Result<Duration, Failed> {
        let now = Instant::now();
        if !self.is_open && self.slot.open() {
            self.is_open = true;
            self.call_consumer();
        }
        if let Some(taken) = self.slot.take() {
            self.serve(&taken);
            self.idle_since = Instant::now();
            return Ok(Duration::ZERO);
        }
        if now >= self.poll_at {
            self.poll_at = now + gucs::poll_interval();
            if self.process.extension_changed().is_some() {
                return Err(Failed("the extension was dropped or installed anew".into()));
            }
        }
        Ok(gucs::poll_interval())
    }

    fn pause(&self, pause: Duration) {
        session::report_activity(c"", false);
        session::wait(None, pause);
    }

    fn ends(&mut self) -> Option<Life> {
        let idle = if self.number < gucs::handler_processes() { IDLE } else { SPARE };
        let next = match (self.started.elapsed() > RECYCLE, self.idle_since.elapsed() > idle) {
            (_, true) => Life::Absent,
            (true, false) => Life::Wanted,
            (false, false) => return None,
        };
        // Not if it was just given a task.
        if !self.slot.close() {
            return None;
        }
        self.is_open = false;
        Some(next)
    }
}

impl Handler {
    fn call_consumer(&self) {
        self.database.seat(Role::Consumer).wake();
    }

    /// Does a task, and reports, whatever has come of it.
    fn serve(&mut self, taken: &Taken) {
        let bytes = match self.do_task(taken) {
            Ok(report) => encode(&report.shortened()).filter(|bytes| bytes.len() <= REPORT_BYTES),
            Err(error) => {
                pgrx::warning!("sea_mq handler: {error}");
                None
            }
        };
        let written =
            bytes.filter(|bytes| self.segment.as_mut().is_some_and(|segment| segment.write(REPORT_AT, bytes)));
        // A report without bytes says that nothing is known.
        self.slot.finish(written.map_or(0, |bytes| bytes.len()));
        self.call_consumer();
    }

    fn do_task(&mut self, taken: &Taken) -> Result<Report, Failed> {
        let segment = self.map(taken.segment)?;
        let bytes = segment.read(TASK_AT, taken.bytes);
        let task: Task = decode(&bytes).ok_or_else(|| Failed("a task cannot be read".into()))?;
        let subscription = match self.subscription(&task) {
            Ok(Some(subscription)) => subscription,
            Ok(None) => return Ok(Report::nothing(&task, Ending::Done)),
            Err(error) => return Ok(Report::nothing(&task, Ending::Failed(error.0))),
        };
        let report = task::perform(&subscription, &task, |tally| count(&subscription.name, tally));
        // With synchronous_commit = off a crash could take back what is then acknowledged.
        // SAFETY: the end of this process's last commit record; returns at once if that much is flushed already.
        unsafe { pg_sys::XLogFlush(pg_sys::XactLastCommitEnd) };
        Ok(report)
    }

    /// The segment with this handle, mapped.
    fn map(&mut self, handle: u32) -> Result<&Segment, Failed> {
        if self.segment.as_ref().is_none_or(|segment| segment.handle() != handle) {
            self.segment = None;
            self.segment = session::transaction(|| Segment::attach(handle))?;
        }
        self.segment.as_ref().ok_or_else(|| Failed("the consumer that gave a task is gone".into()))
    }

    /// The subscription of a task. `None`: it is gone.
    fn subscription(&mut self, task: &Task) -> Result<Option<Rc<Subscription>>, Failed> {
        if self.fingerprint.as_deref() != Some(&task.fingerprint) {
            let described = session::transaction(subscriptions::all)?.sound;
            self.subscriptions = described.into_iter().map(|(subscription, _)| Rc::new(subscription)).collect();
            self.fingerprint = Some(task.fingerprint.clone());
        }
        let has_id = |id: SubscriptionId| move |one: &&Rc<Subscription>| one.id == id;
        Ok(self.subscriptions.iter().find(has_id(task.subscription)).cloned())
    }
}

/// Counts what was handled, in its transaction. How far the subscription has come is the consumer's to note.
fn count(subscription: &str, tally: &Tally) {
    if tally.processed > 0 {
        let sql = "SELECT sea_mq.count_outcomes($1, processed => $2)";
        spi::execute(sql, &[Arg::Text(subscription), Arg::Int8(tally.processed)]);
    }
}
