//! Events that the broker will never take: they are set aside, and the others go on.

use std::time::Duration;

use uuid::Uuid;

use crate::host::spi::{self, Arg};
use sea_mq_model::broker::SinkId;

/// Records an event that the broker will never take.
pub fn save(sink: SinkId, id: Uuid, seq: i64, error: &str) {
    let args = [Arg::Text(&id.to_string()), Arg::Int8(seq), Arg::Int8(sink), Arg::Text(error)];
    spi::execute("SELECT sea_mq.set_aside($1::uuid, $2, $3, $4)", &args);
}

/// Places in the log of a sink's events that the broker will never take.
pub fn places(sink: SinkId) -> Vec<i64> {
    let sql = "SELECT seq FROM sea_mq.publish_failures WHERE sink = $1";
    spi::query(sql, &[Arg::Int8(sink)]).iter().filter_map(|row| spi::optional(row, 0)).collect()
}

/// Forgets refused events about which something was decided longer ago than the log is kept.
pub fn forget_resolved(retention: Duration) {
    let sql = "SELECT sea_mq.forget_failures(make_interval(secs => $1))";
    spi::execute(sql, &[Arg::Int8(i64::try_from(retention.as_secs()).unwrap_or(i64::MAX))]);
}
