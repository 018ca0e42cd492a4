//! `_PG_init`: runs once in every process that loads the library.

use pgrx::{pg_guard, pg_sys};

use crate::emit::capture;
use crate::host::{gucs, shmem, utility};
use crate::sys::watch;
use crate::{commit, workers};

#[allow(non_snake_case)]
#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    gucs::define();
    commit::register();
    watch::register();
    capture::register();
    // SAFETY: read by the main thread.
    let preloading = unsafe { pg_sys::process_shared_preload_libraries_in_progress };
    // SAFETY: as above.
    let upgrading = unsafe { pg_sys::IsBinaryUpgrade };
    if preloading && !upgrading {
        shmem::init();
        utility::install();
        workers::register_launcher();
    }
}
