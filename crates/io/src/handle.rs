//! The handle by which the main thread talks to an I/O thread: requests one way, reports the other, and a file descriptor that
//! wakes the main thread out of its latch.
//!
//! An I/O thread runs with all signals blocked, never touches PostgreSQL, and may not call anything of `pgrx`.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::wake::{self, WakeFd};

/// How long dropping the handle waits for the thread. After that the thread is left to the end of the process.
const DROP_WAIT: Duration = Duration::from_secs(1);

/// The main thread's handle to an I/O thread. Dropping it ends the thread.
#[derive(Debug)]
pub struct Handle<Request, Report> {
    /// `None` only while dropping: closing the channel is what tells the thread to end.
    requests: Option<UnboundedSender<Request>>,
    reports: mpsc::Receiver<Report>,
    wake: Arc<WakeFd>,
    /// Closes when the thread has returned.
    ended: mpsc::Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

/// The thread's end of the report channel.
pub struct Outbox<Report> {
    reports: mpsc::Sender<Report>,
    wake: Arc<WakeFd>,
}

impl<Report> Outbox<Report> {
    /// Sends reports and wakes the main thread once.
    pub fn send_all(&self, reports: impl IntoIterator<Item = Report>) {
        let mut any = false;
        for report in reports {
            // A failure means that the handle is gone; the closed request channel ends the thread.
            let _ = self.reports.send(report);
            any = true;
        }
        if any {
            self.wake.signal();
        }
    }
}

impl<Request: Send + 'static, Report: Send + 'static> Handle<Request, Report> {
    /// Starts a thread with this name that runs `body`, which is to return when its channel of requests closes.
    ///
    /// # Errors
    /// What the system says if there is no room for another thread or file descriptor.
    pub fn spawn(
        name: &str,
        body: impl FnOnce(UnboundedReceiver<Request>, Outbox<Report>) + Send + 'static,
    ) -> io::Result<Self> {
        let wake = Arc::new(WakeFd::new()?);
        let (requests, inbox) = unbounded_channel();
        let (sender, reports) = mpsc::channel();
        let (alive, ended) = mpsc::channel();
        let outbox = Outbox { reports: sender, wake: Arc::clone(&wake) };

        // A thread inherits the mask of its creator, and so do the threads that tokio starts from it (DNS). A signal
        // delivered to any of them would run PostgreSQL's handler where it must not run.
        let unblock = wake::block_signals()?;
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
            body(inbox, outbox);
            drop(alive);
        });
        drop(unblock);

        Ok(Self { requests: Some(requests), reports, wake, ended, thread: Some(thread?) })
    }
}

impl<Request, Report> Handle<Request, Report> {
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

impl<Request, Report> Drop for Handle<Request, Report> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn is_readable(fd: RawFd) -> bool {
        let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // SAFETY: one descriptor, which is open.
        unsafe { libc::poll(&raw mut poll, 1, 5000) == 1 }
    }

    #[test]
    fn requests_are_answered_and_dropping_the_handle_ends_the_thread() {
        let (alive, ended) = mpsc::channel::<()>();
        let handle = Handle::<u32, u32>::spawn("test", move |mut requests, outbox| {
            while let Some(number) = requests.blocking_recv() {
                outbox.send_all([number + 1, number + 2]);
            }
            drop(alive);
        })
        .expect("no thread");
        handle.send(1);
        assert!(is_readable(handle.wake_fd()));
        handle.clear_wake();
        assert_eq!([handle.try_recv(), handle.try_recv(), handle.try_recv()], [Some(2), Some(3), None]);
        drop(handle);
        assert_eq!(ended.recv_timeout(Duration::from_secs(5)), Err(mpsc::RecvTimeoutError::Disconnected));
    }

    #[test]
    fn the_thread_has_all_signals_blocked_and_its_creator_has_not() {
        let blocked = || {
            let mut set = std::mem::MaybeUninit::uninit();
            // SAFETY: the mask is written by the call, and nothing is changed.
            unsafe {
                libc::pthread_sigmask(libc::SIG_SETMASK, std::ptr::null(), set.as_mut_ptr());
                libc::sigismember(&set.assume_init(), libc::SIGTERM) == 1
            }
        };
        let handle =
            Handle::<(), bool>::spawn("test", move |_, outbox| outbox.send_all([blocked()])).expect("no thread");
        assert!(is_readable(handle.wake_fd()));
        assert_eq!(handle.try_recv(), Some(true));
        assert!(!blocked());
    }
}
