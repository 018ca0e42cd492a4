//! The two things that need the system by name: the eventfd that wakes the main thread, and the signal mask.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// A nonblocking eventfd, for `WaitLatchOrSocket`.
#[derive(Debug)]
pub(crate) struct WakeFd(OwnedFd);

impl WakeFd {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: eventfd takes no pointers; the descriptor it returns is new and owned by nobody else.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: fd was just opened, is valid, and is handed over here and nowhere else.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Makes the descriptor readable. Failure means that the counter is full, so that it is readable already.
    pub(crate) fn signal(&self) {
        let one = 1_u64;
        // SAFETY: the buffer is a live u64 and its size is given; the descriptor is open as long as self lives.
        unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), size_of::<u64>()) };
    }

    /// Makes the descriptor unreadable.
    pub(crate) fn clear(&self) {
        let mut count = 0_u64;
        // SAFETY: the buffer is a live u64 and its size is given; the descriptor is open as long as self lives.
        unsafe { libc::read(self.0.as_raw_fd(), (&raw mut count).cast(), size_of::<u64>()) };
    }
}

impl AsRawFd for WakeFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Restores the calling thread's signal mask when dropped.
pub(crate) struct SignalMask(libc::sigset_t);

/// Blocks every signal on the calling thread until the guard is dropped.
pub(crate) fn block_signals() -> io::Result<SignalMask> {
    let mut all = MaybeUninit::uninit();
    let mut before = MaybeUninit::uninit();
    // SAFETY: sigfillset initialises the set it is given, and pthread_sigmask reads that and writes the other.
    let status = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr())
    };
    if status != 0 {
        return Err(io::Error::from_raw_os_error(status));
    }
    // SAFETY: pthread_sigmask succeeded, so it wrote the former mask.
    Ok(SignalMask(unsafe { before.assume_init() }))
}

impl Drop for SignalMask {
    fn drop(&mut self) {
        // SAFETY: the set is the initialised mask that this thread had before; the old mask is not asked for.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut()) };
    }
}
