//! The broker's side: one thread that talks to NATS JetStream, and the handle by which the main thread talks to it.
//!
//! ```text
//! main thread ── Request ──► io_thread ─► session ─┬─► streams, tail, consumers   (JetStream API, a lane a stream)
//!      ▲                                           ├─► publish ─► pump ─► socket  (pipelined, one inbox for all acks)
//!      │                                           │    acks ◄──────────────┤
//!      │                                           └─► pull ─► socket       │     (an inbox a subscription)
//!      └──── Report + wake_fd ◄──────────────────────── messages ◄──────────┘
//! ```
//!
//! - [`io_thread`]: waits for `Connect`, runs one session after the other, survives their panics.
//! - [`connect`]: addresses, credentials, TLS, and the proof that JetStream answers.
//! - [`session`]: everything that happens on one connection, in one task.
//! - [`publish`]: what is on its way, a [`flow`] per sink; pure, so that its order can be tested without a server.
//! - [`pull`]: one `Consume`, its messages in a [`ledger`] (pure, like [`delivery`] and [`succession`]), [`leftovers`] of an earlier session
//!   first; [`inbound`] is all of them, [`replies`] their acks.
//! - [`calls`], [`lease`], [`streams`], [`tail`], [`consumers`]: the JetStream API; [`spec`] and [`subjects`] compare descriptions.
//! - [`errors`]: every error of the server and of the client library becomes a [`crate::broker::Fault`] here.
//!
//! This is the only zone that imports `async_nats`. It never touches PostgreSQL: its thread runs with all signals blocked
//! and may not call anything of `pgrx`.

mod ack;
mod api;
mod calls;
mod connect;
mod consumers;
mod delivery;
mod errors;
mod flow;
mod inbound;
mod inbox;
mod io_thread;
mod lease;
mod ledger;
mod leftovers;
mod publish;
mod pull;
mod queued;
mod replies;
mod session;
mod spec;
mod streams;
mod subjects;
mod succession;
mod tail;
mod wake;
mod watch;

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::broker::{Report, Request};
use io_thread::Reporter;
use wake::WakeFd;

/// How long dropping the handle waits for the thread. After that the thread is left to the end of the process.
const DROP_WAIT: Duration = Duration::from_secs(1);

/// The main thread's handle to the I/O thread. Dropping it closes the connection and ends the thread.
#[derive(Debug)]
pub struct NatsIo {
    /// `None` only while dropping: closing the channel is what tells the thread to end.
    requests: Option<UnboundedSender<Request>>,
    reports: mpsc::Receiver<Report>,
    wake: Arc<WakeFd>,
    /// Closes when the thread has returned.
    ended: mpsc::Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl NatsIo {
    /// Starts the thread. It does nothing until it is told to connect.
    ///
    /// # Errors
    /// What the system says if there is no room for another thread or file descriptor.
    pub fn spawn() -> io::Result<Self> {
        let wake = Arc::new(WakeFd::new()?);
        let (requests, inbox) = unbounded_channel();
        let (outbox, reports) = mpsc::channel();
        let (alive, ended) = mpsc::channel();
        let reporter = Reporter::new(outbox, Arc::clone(&wake));

        // A thread inherits the mask of its creator, and so do the threads that tokio starts from it (DNS). A signal
        // delivered to any of them would run PostgreSQL's handler where it must not run.
        let unblock = wake::block_signals()?;
        let thread = std::thread::Builder::new().name("sea_mq nats".into()).spawn(move || {
            io_thread::run(inbox, &reporter);
            drop(alive);
        });
        drop(unblock);

        Ok(Self { requests: Some(requests), reports, wake, ended, thread: Some(thread?) })
    }

    /// Hands a request over. Never blocks and never fails: a thread that is gone has reported why.
    pub fn send(&self, request: Request) {
        if let Some(requests) = &self.requests {
            let _ = requests.send(request);
        }
    }

    /// The next report, if one is waiting.
    pub fn try_recv(&self) -> Option<Report> {
        self.reports.try_recv().ok()
    }

    /// An eventfd that is readable while reports may be waiting.
    pub fn wake_fd(&self) -> RawFd {
        self.wake.as_raw_fd()
    }

    /// Makes [`wake_fd`](Self::wake_fd) unreadable again. Call it *before* draining the reports: what arrives during the
    /// drain then makes it readable once more, and no report is left behind.
    pub fn clear_wake(&self) {
        self.wake.clear();
    }
}

impl Drop for NatsIo {
    fn drop(&mut self) {
        self.requests = None;
        let timed_out = matches!(self.ended.recv_timeout(DROP_WAIT), Err(mpsc::RecvTimeoutError::Timeout));
        if let Some(thread) = self.thread.take()
            && !timed_out
        {
            let _ = thread.join();
        }
    }
}
