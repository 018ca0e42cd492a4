use std::path::Path;
use std::process::{Command, Stdio};

use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::process::{give, make_for_server};

/// From here on, what the calling thread mounts is seen by it alone and by what it starts, and goes with the last of them.
/// Needs root; whether it can be done.
pub fn isolate_mounts() -> bool {
    // SAFETY: a thread's file system context is its own afterwards; nothing here relies on sharing it with others.
    let isolated = unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.is_ok();
    isolated && succeeds(Command::new("mount").args(["--make-rprivate", "/"]))
}

/// Mounts a file system in memory for the servers to write to. After [`isolate_mounts`], in the same thread.
///
/// # Panics
/// When that fails.
pub fn mount_small(path: &Path, megabytes: u32) {
    if !path.exists() {
        make_for_server(path);
    }
    let size = format!("size={megabytes}m,mode=0755");
    let mounted = succeeds(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(path));
    assert!(mounted, "cannot mount {}", path.display());
    give(path);
}

/// Takes it away, used or not.
pub fn unmount(path: &Path) {
    succeeds(Command::new("umount").arg("--lazy").arg(path));
}

fn succeeds(command: &mut Command) -> bool {
    command.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
