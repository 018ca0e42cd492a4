//! Dead letters: the mirror of the DLQ streams, and what is to be removed from them.

use std::time::Duration;

use serde_json::json;

use super::done::millis;
use crate::host::spi::{self, Arg};
use sea_mq_model::broker::SinkId;
use sea_mq_model::domain::message::Message;

/// A DLQ stream of this database's contexts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirroredStream {
    pub sink: SinkId,
    pub name: String,
}

/// The DLQ streams to mirror.
pub fn mirrored_streams() -> Vec<MirroredStream> {
    let rows = spi::query("SELECT sink, name FROM sea_mq.streams WHERE kind = 'dlq' ORDER BY name", &[]);
    rows.iter().map(|row| MirroredStream { sink: spi::parsed(row, 0), name: spi::parsed(row, 1) }).collect()
}

/// Notes a message of a DLQ stream.
pub fn mirror(stream: &str, sequence: u64, message: &Message) {
    spi::execute(
        "SELECT sea_mq.mirror_dead_letter($1, $2, $3, $4,
            '2000-01-01 00:00:00+00'::timestamptz + $5 * interval '1 microsecond', $6, $7::integer, $8, $9, $10::jsonb, $11::jsonb)",
        &[
            Arg::Text(stream),
            Arg::Int8(sequence.cast_signed()),
            Arg::Text(&message.subject),
            Arg::Text(&message.message_id),
            Arg::Int8(message.event_at),
            Arg::Text(&message.event_type),
            Arg::OptionalInt8(message.event_version.map(i64::from)),
            Arg::OptionalText(message.aggregate_type.as_deref()),
            Arg::OptionalText(message.aggregate_id.as_deref()),
            Arg::Text(&message.payload),
            Arg::Text(&message.headers),
        ],
    );
}

/// Messages that are to be removed from their streams, some at once.
pub fn removals() -> Vec<(String, u64)> {
    let rows = spi::query("SELECT stream, sequence FROM sea_mq.next_removals()", &[]);
    rows.iter().map(|row| (spi::parsed(row, 0), spi::parsed(row, 1))).collect()
}

/// How a removal went.
pub struct Removal {
    pub stream: String,
    pub sequence: u64,
    pub error: Option<String>,
}

/// Notes how removals went.
pub fn save_removals(removals: &[Removal]) {
    let list = |failed: bool| {
        let some = removals.iter().filter(|removal| removal.error.is_some() == failed);
        let values = some
            .map(|removal| json!({ "stream": removal.stream, "sequence": removal.sequence, "error": removal.error }));
        serde_json::Value::Array(values.collect()).to_string()
    };
    spi::execute("SELECT sea_mq.note_removals($1::json, $2::json)", &[Arg::Text(&list(false)), Arg::Text(&list(true))]);
}

/// Removes dead letters that were replayed or discarded longer ago than this.
pub fn forget_old(age: Duration) {
    let sql = "SELECT sea_mq.forget_letters(make_interval(secs => $1::float8 / 1000))";
    spi::execute(sql, &[Arg::Int8(millis(age))]);
}

/// Adds up the numbers of dead letters.
pub fn fold_tally() {
    spi::execute("SELECT sea_mq.fold_dlq_tally()", &[]);
}
