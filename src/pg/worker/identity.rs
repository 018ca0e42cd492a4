//! Whether this database is the one that the extension was installed in, or a copy of it.

use pgrx::pg_sys;

use crate::pg::store::consumers::Trouble;
use crate::pg::store::{spi, streams};

/// What is wrong with the identity, if anything is.
pub fn trouble() -> Option<Trouble> {
    if streams::is_copied() {
        return Some(copied("the data directory or the database is a copy"));
    }
    streams::any_foreign().then(|| copied("the database was restored from a dump of another one"))
}

/// A copy stays quiet until somebody says that it takes the original's place.
pub fn copied(what: &str) -> Trouble {
    Trouble {
        kind: "Copied".into(),
        error: format!("{what}; nothing is published, so that the original's streams are left alone"),
        hint: Some("If this database takes the place of the original, call sea_mq.adopt().".into()),
    }
}

/// The connection name shown in the broker's monitoring.
pub fn client_name() -> String {
    let database = spi::query("SELECT current_database()", &[]);
    let name: String = database.first().map(|row| spi::parsed(row, 0)).unwrap_or_default();
    // SAFETY: read by the main thread.
    format!("sea_mq {name} {}", unsafe { pg_sys::MyProcPid })
}
