use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Directory of one test's servers, removed when the test has passed and kept, logs and all, when it has not.
/// What an earlier process left is removed by the next one.
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    /// # Panics
    /// When it cannot be made.
    pub fn new(name: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let base = base();
        if NUMBER.load(Ordering::Relaxed) == 0 {
            remove_abandoned(&base);
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = base.join(format!("e2e-{}-{number}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap_or_else(|error| panic!("cannot make {}: {error}", path.display()));
        Self { path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the servers' logs are kept until the next run: {}", self.path.display());
        } else {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn base() -> PathBuf {
    std::env::var_os("SEA_MQ_RUN_DIR").map_or_else(std::env::temp_dir, PathBuf::from)
}

/// Removes the directories whose process is gone.
fn remove_abandoned(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.strip_prefix("e2e-")?.split('-').next()) else {
            continue;
        };
        if !Path::new("/proc").join(pid).exists() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
