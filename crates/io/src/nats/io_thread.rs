//! The thread's body: waits for `Connect`, runs a session, reports why it ended, waits again.
//!
//! ```text
//! idle ── Connect ──► connecting ── Connected ──► serving ─┬─ lost ──────► idle   (Disconnected)
//!  ▲                      │                                ├─ Connect ───► connecting
//!  └──── Disconnected ────┘                                └─ Shutdown ──► idle
//! ```
//!
//! Each session has a tokio runtime of its own, which is dropped with it. That is what guarantees that nothing of a
//! session outlives it: the client library's tasks, its buffers and its socket all live in that runtime, so a message
//! buffered for a lost connection cannot be sent on the next one.

use std::any::Any;
use std::cell::Cell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::UnboundedReceiver;

use super::connect::{self, Link};
use super::session::{self, End};
use super::sizes::SharedSizes;
use super::witness::Witness;
use crate::handle::Outbox;
use sea_mq_model::broker::{BrokerConfig, Fault, FaultKind, Report, Request};

/// The thread's end of the report channel, and what it has heard from the server.
pub(super) struct Reporter {
    outbox: Outbox<Report>,
    /// When JetStream last did what was asked of it.
    heard: Cell<Instant>,
    /// What is known of how large messages may be.
    pub(super) sizes: SharedSizes,
}

impl Reporter {
    pub(super) fn new(outbox: Outbox<Report>) -> Self {
        Self { outbox, heard: Cell::new(Instant::now()), sizes: SharedSizes::default() }
    }

    /// When JetStream last did what was asked of it.
    pub(super) fn heard(&self) -> Instant {
        self.heard.get()
    }

    /// It did so just now.
    pub(super) fn note_heard(&self) {
        self.heard.set(Instant::now());
    }

    /// Sends a report and wakes the main thread.
    pub(super) fn report(&self, report: Report) {
        self.report_all([report]);
    }

    /// Sends several reports and wakes the main thread once.
    pub(super) fn report_all(&self, reports: impl IntoIterator<Item = Report>) {
        self.outbox.send_all(reports.into_iter().inspect(|report| {
            if shows_life(report) {
                self.note_heard();
            }
        }));
    }
}

/// What a server says of a stream that it led when it was cut off is no sign of life: it may say so for long.
fn shows_life(report: &Report) -> bool {
    matches!(report, Report::Connected(_) | Report::Acked { .. } | Report::Delivered { .. })
}

/// Requests, with those put back that arrived while a connection was being made.
pub(super) struct Requests {
    channel: UnboundedReceiver<Request>,
    held: VecDeque<Request>,
}

impl Requests {
    /// The next request in order, or `None` if the handle was dropped.
    pub(super) async fn next(&mut self) -> Option<Request> {
        match self.held.pop_front() {
            Some(request) => Some(request),
            None => self.channel.recv().await,
        }
    }

    /// Waits outside any runtime for a `Connect`; all else needs a session and is dropped.
    fn wait_for_connect(&mut self) -> Option<Box<BrokerConfig>> {
        self.held.clear();
        loop {
            if let Request::Connect(config) = self.channel.blocking_recv()? {
                return Some(config);
            }
        }
    }

    /// Collects what arrives during a connection attempt, until something arrives that makes the attempt pointless.
    async fn until_superseded(&mut self) -> End {
        loop {
            match self.channel.recv().await {
                None => return End::Closed,
                Some(Request::Shutdown) => return End::Shutdown,
                Some(Request::Connect(config)) => return End::Superseded(config),
                Some(request) => self.held.push_back(request),
            }
        }
    }
}

/// Serves requests until the handle is dropped.
pub(super) fn run(channel: UnboundedReceiver<Request>, reporter: &Reporter) {
    let mut requests = Requests { channel, held: VecDeque::new() };
    let mut next = None;
    while let Some(config) = next.take().or_else(|| requests.wait_for_connect()) {
        let end = catch_unwind(AssertUnwindSafe(|| one_session(&config, &mut requests, reporter)));
        match end {
            Ok(End::Closed) => return,
            Ok(End::Shutdown) => {}
            Ok(End::Superseded(config)) => {
                requests.held.clear();
                next = Some(config);
            }
            Ok(End::Lost(fault)) => reporter.report(Report::Disconnected(fault)),
            Err(panic) => reporter.report(Report::Disconnected(panic_fault(panic.as_ref()))),
        }
    }
}

fn one_session(config: &BrokerConfig, requests: &mut Requests, reporter: &Reporter) -> End {
    // Built here, on the thread whose signals are blocked: the helper threads that it starts inherit that.
    let runtime = match Builder::new_current_thread().enable_io().enable_time().build() {
        Ok(runtime) => RuntimeGuard(Some(runtime)),
        Err(error) => return End::Lost(Fault::new(FaultKind::Server, format!("no I/O runtime: {error}"))),
    };
    let witness = Witness::listen();
    runtime.block_on(async {
        match connecting(config, requests).await {
            Ok(link) => {
                reporter.report(Report::Connected(link.server.clone()));
                session::serve(link, config, requests, reporter, &witness).await
            }
            Err(end) => end,
        }
    })
}

async fn connecting(config: &BrokerConfig, requests: &mut Requests) -> Result<Link, End> {
    tokio::select! {
        biased;
        end = requests.until_superseded() => Err(end),
        link = connect::connect(config) => link.map_err(End::Lost),
    }
}

/// Drops a runtime without waiting for its blocking threads: a name lookup that hangs must not hang the next session.
struct RuntimeGuard(Option<Runtime>);

impl RuntimeGuard {
    fn block_on(&self, session: impl Future<Output = End>) -> End {
        match &self.0 {
            Some(runtime) => runtime.block_on(session),
            None => End::Closed,
        }
    }
}

impl Drop for RuntimeGuard {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

fn panic_fault(panic: &(dyn Any + Send)) -> Fault {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("unknown cause");
    Fault::new(FaultKind::Server, format!("internal error in the NATS thread: {text}"))
}
