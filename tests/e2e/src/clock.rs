use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::cluster::workspace;
use crate::process;

/// A wall clock of one server, in all its processes.
pub struct Clock {
    library: PathBuf,
    path: PathBuf,
    file: File,
    /// Microseconds.
    offset: AtomicI64,
}

impl Clock {
    /// A clock that shows what all others do.
    ///
    /// # Panics
    /// When what is to be loaded into the server does not compile, or the directory cannot be written to.
    pub fn new(directory: &Path) -> Self {
        let (library, path) = (directory.join("clock.so"), directory.join("clock"));
        process::run(
            Command::new("rustc")
                .args(["--crate-type=cdylib", "--edition=2024", "-Copt-level=1", "-Cpanic=abort", "-o"])
                .arg(&library)
                .arg(workspace().join("tests/e2e/preload/clock.rs")),
        );
        let file = File::create(&path).unwrap_or_else(|error| panic!("cannot make {}: {error}", path.display()));
        let clock = Self { library, path, file, offset: AtomicI64::new(0) };
        clock.set(0);
        clock
    }

    /// Sets it back, for processes that run and those that are yet to start.
    ///
    /// # Panics
    /// When its file cannot be written to.
    pub fn set_back(&self, by: Duration) {
        let micros = i64::try_from(by.as_micros()).expect("some hours at most");
        self.set(self.offset.fetch_sub(micros, Ordering::Relaxed) - micros);
    }

    fn set(&self, offset: i64) {
        self.file.write_all_at(&offset.to_ne_bytes(), 0).expect("cannot set the clock");
    }

    /// What the server's environment has to say.
    pub(crate) fn environment(&self) -> [String; 2] {
        [format!("LD_PRELOAD={}", self.library.display()), format!("SEA_MQ_TEST_CLOCK={}", self.path.display())]
    }
}
