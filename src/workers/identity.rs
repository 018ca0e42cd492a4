//! Whether this database is the one that the extension was installed in, or a copy of it, and what it shows of itself at
//! the broker.

use pgrx::pg_sys;
use uuid::Uuid;

use crate::host::{gucs, installation, spi};
use crate::streams::consumers::Trouble;
use crate::streams::descriptions;
use sea_mq_model::broker::{BrokerConfig, FaultKind};
use sea_mq_model::domain::lease::Claimant;

/// The broker that this database's workers connect to, if they are to.
pub fn broker() -> Option<BrokerConfig> {
    gucs::broker(client_name()).filter(|_| !installation::is_in_test_mode())
}

/// What is wrong with the identity, if anything is. Without a broker, a copy is in nobody's way; but the log of a restored dump
/// is in terms of another cluster.
pub fn trouble(has_broker: bool) -> Option<Trouble> {
    if has_broker && descriptions::is_copied() {
        return Some(copied("the data directory or the database is a copy"));
    }
    if let Some(why) = installation::fenced().filter(|_| has_broker) {
        return Some(fenced(&why));
    }
    descriptions::any_foreign().then(|| copied("the database was restored from a dump of another one"))
}

/// A copy stays quiet until somebody says that it takes the original's place.
pub fn copied(what: &str) -> Trouble {
    Trouble {
        kind: "Copied".into(),
        error: format!("{what}; nothing is published, so that the original's streams are left alone"),
        hint: Some(
            "If this database takes the place of the original, call sea_mq.adopt(). If it is for tests, call sea_mq.test_mode()."
                .into(),
        ),
    }
}

fn fenced(why: &str) -> Trouble {
    Trouble {
        kind: FaultKind::Fenced.token().into(),
        error: format!("{why}; nothing is published here"),
        hint: FaultKind::Fenced.hint().map(str::to_owned),
    }
}

/// Whether receiving has to wait: the messages of a subscription are the original's too, so the consumer begins when the
/// relay knows that there is no other.
pub fn unclear() -> Option<Trouble> {
    let waiting = || Trouble {
        kind: "Starting".into(),
        error: "the relay has not found out yet whether another one publishes for this installation".into(),
        hint: Some("Wait a moment; if it lasts, see sea_mq.relay_status.".into()),
    };
    (!installation::is_cleared()).then(waiting)
}

/// What the relay shows when it asks for the lease.
pub fn claimant(relay: Uuid) -> Claimant {
    Claimant { relay, ..installation::claimant(&host_name()) }
}

/// The machine's name; empty if it has none.
fn host_name() -> String {
    let mut name = [0_u8; 256];
    // SAFETY: writes into the array, and no more than its size.
    unsafe { libc::gethostname(name.as_mut_ptr().cast(), name.len() - 1) };
    let length = name.iter().position(|&byte| byte == 0).unwrap_or(0);
    String::from_utf8_lossy(&name[..length]).into_owned()
}

/// The connection name shown in the broker's monitoring.
fn client_name() -> String {
    let database = spi::query("SELECT current_database()", &[]);
    let name: String = database.first().map(|row| spi::parsed(row, 0)).unwrap_or_default();
    // SAFETY: read by the main thread.
    format!("sea_mq {name} {}", unsafe { pg_sys::MyProcPid })
}
