//! Who this installation is, and what it may do beside others of the same identity.

use super::gucs;
use super::spi::{self, Arg};
use sea_mq_model::broker::SinkId;
use sea_mq_model::domain::lease::Claimant;

/// Which run of which server this is, in SQL; of `sea_mq.installation`.
macro_rules! server {
    () => {
        "system_identifier || '-' || (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint"
    };
}

/// Whether the relay of this run of the server has found that no other is in its way, in SQL; of `sea_mq.installation`.
macro_rules! cleared {
    () => {
        concat!("coalesce(cleared_server = ", server!(), ", false)")
    };
}

/// What the relay shows when it asks for the lease; the relay's own id is the caller's to add.
///
/// Which run of the server this is: a copy of the data directory has another start, and a database of one run has one
/// relay at a time. That the cluster was a standby is known from the WAL that it received in this run. Its settings would
/// say so too, but for good, and in each backup of it.
pub fn claimant(host: &str) -> Claimant {
    let sql = concat!(
        "SELECT i.install_id, ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer, ",
        server!(),
        ", $1, pg_last_wal_receive_lsn() IS NOT NULL, i.adopting, i.lease_epoch, current_database(),
         i.fenced IS NULL AND i.lease_epoch > 0 AND ",
        cleared!(),
        " FROM sea_mq.installation i"
    );
    let rows = spi::query(sql, &[Arg::Text(&format!("{host}:{}", data_directory()))]);
    let Some(row) = rows.first() else { return Claimant::default() };
    Claimant {
        install: spi::optional(row, 0).unwrap_or_default(),
        timeline: spi::parsed(row, 1),
        server: spi::parsed(row, 2),
        place: spi::parsed(row, 3),
        was_standby: spi::flag(row, 4),
        forced: spi::flag(row, 5),
        epoch: spi::parsed(row, 6),
        database: spi::parsed(row, 7),
        held_before: spi::flag(row, 8),
        ..Claimant::default()
    }
}

/// Absolute path of the data directory.
fn data_directory() -> String {
    // SAFETY: set once in a process, before anything else runs.
    unsafe { std::ffi::CStr::from_ptr(pgrx::pg_sys::DataDir) }.to_string_lossy().into_owned()
}

/// Whether this database and its copies have no broker, whatever the settings say.
pub fn is_in_test_mode() -> bool {
    spi::query("SELECT test_mode FROM sea_mq.installation", &[]).first().is_some_and(|row| spi::flag(row, 0))
}

/// Whether events go to a broker, and not to the subscriptions of this database.
pub fn has_broker() -> bool {
    gucs::names_broker() && !is_in_test_mode()
}

/// Why another relay is in the way, if one is.
pub fn fenced() -> Option<String> {
    let rows = spi::query("SELECT fenced FROM sea_mq.installation", &[]);
    rows.first().and_then(|row| spi::optional(row, 0))
}

/// Another relay has the lease: from now on this database keeps quiet.
pub fn fence(why: &str) {
    spi::execute("UPDATE sea_mq.installation SET fenced = $1, cleared_server = NULL", &[Arg::Text(why)]);
}

/// No other relay is in the way of this one, as far as can be known; `epoch`: that of its lease.
pub fn clear(server: &str, epoch: Option<u64>) {
    spi::execute(
        "UPDATE sea_mq.installation SET cleared_server = $1, lease_epoch = greatest(lease_epoch, $2),
            adopting = adopting AND $2 IS NULL
         WHERE (cleared_server, lease_epoch, adopting) IS DISTINCT FROM ($1, greatest(lease_epoch, $2), false)",
        &[Arg::Text(server), Arg::OptionalInt8(epoch.map(u64::cast_signed))],
    );
}

/// Whether the relay of this run of the server has found that no other is in its way.
pub fn is_cleared() -> bool {
    let sql = concat!("SELECT ", cleared!(), " FROM sea_mq.installation");
    spi::query(sql, &[]).first().is_some_and(|row| spi::flag(row, 0))
}

/// Events that a stream holds and the database does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Divergence {
    pub stream: String,
    pub stream_created_us: i64,
    pub events: usize,
    /// Id and stream sequence.
    pub first: (String, u64),
    pub last: (String, u64),
}

/// Up to which sequence of a stream it was decided to publish behind what is not known here.
pub fn accepted_up_to(sink: SinkId, stream_created_us: i64) -> u64 {
    let rows = spi::query(
        "SELECT max(last_sequence) FROM sea_mq.stream_divergences
         WHERE sink = $1 AND stream_created_us = $2 AND accepted_at IS NOT NULL",
        &[Arg::Int8(sink), Arg::Int8(stream_created_us)],
    );
    rows.first().map_or(0, |row| spi::parsed(row, 0))
}

/// Notes what was found, and whether that is accepted.
pub fn note_divergence(sink: SinkId, found: &Divergence, accepted: bool) {
    spi::execute(
        "INSERT INTO sea_mq.stream_divergences AS d
            (sink, stream, stream_created_us, events, first_id, first_sequence, last_id, last_sequence, accepted_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, CASE $9 WHEN 1 THEN now() END)
         ON CONFLICT (sink, stream_created_us, last_sequence) DO UPDATE SET accepted_at = coalesce(d.accepted_at, excluded.accepted_at)",
        &[
            Arg::Int8(sink),
            Arg::Text(&found.stream),
            Arg::Int8(found.stream_created_us),
            Arg::Int8(i64::try_from(found.events).unwrap_or(i64::MAX)),
            Arg::Text(&found.first.0),
            Arg::Int8(found.first.1.cast_signed()),
            Arg::Text(&found.last.0),
            Arg::Int8(found.last.1.cast_signed()),
            Arg::Int8(i64::from(accepted)),
        ],
    );
}
