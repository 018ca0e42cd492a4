//! Small file systems that can be filled, for the servers to be on.
//!
//! Making one needs root. The program moves to a mount namespace of its own first ([`isolate`]), so that whatever is mounted goes
//! with its last process.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Set where the mounts are ours alone.
const ISOLATED: &str = "SEA_MQ_CHAOS_ISOLATED";

/// Starts this program again in a mount namespace of its own, if that can be done and is not done yet.
pub fn isolate() {
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "--"]);
        command
    };
    let possible = || unshare().arg("true").stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    if std::env::var_os(ISOLATED).is_none() && possible() {
        let Ok(program) = std::env::current_exe() else { return };
        // Returns only when it fails; then it goes without.
        let _ = unshare().arg(program).args(std::env::args_os().skip(1)).env(ISOLATED, "1").exec();
    }
}

/// A file system in memory, at a path of its own.
pub struct Disk {
    path: PathBuf,
}

impl Disk {
    /// `None` where that is not permitted.
    ///
    /// # Panics
    /// When its directory cannot be made.
    pub fn new(path: &Path, megabytes: u32) -> Option<Self> {
        std::env::var_os(ISOLATED)?;
        fs::create_dir(path).unwrap_or_else(|error| panic!("cannot make {}: {error}", path.display()));
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={megabytes}m,mode=0755"), "tmpfs"])
            .arg(path)
            .stderr(Stdio::null())
            .status();
        mounted.is_ok_and(|status| status.success()).then(|| Self { path: path.to_owned() })
    }

    /// Leaves no space.
    ///
    /// # Panics
    /// When it cannot be written to for another reason.
    pub fn fill(&self) {
        let mut file = File::create(self.filler()).expect("cannot make the file that fills the disk");
        let zeros = vec![0; 1 << 16];
        for size in [1 << 16, 1 << 12] {
            loop {
                match file.write(&zeros[..size]) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => panic!("cannot fill {}: {error}", self.path.display()),
                }
            }
        }
    }

    /// Gives the space back.
    pub fn free(&self) {
        let _ = fs::remove_file(self.filler());
    }

    fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // After a failure somebody wants to read the logs that are there; the mount ends with the process.
        if !std::thread::panicking() {
            let _ = Command::new("umount").arg("--lazy").arg(&self.path).status();
        }
    }
}
