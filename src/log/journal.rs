//! The journal: which events were stored at which stream sequences, run by run; and from where to publish again.

use crate::host::spi::{self, Arg, TextRow};
use sea_mq_model::broker::SinkId;
use sea_mq_model::domain::position::{Batch, Moment, Position, Snapshot};
use sea_mq_model::domain::runs::Run;

/// Appends a run. `slot`: the current slot of the log's ring.
pub fn append(sink: SinkId, run: &Run, slot: i16) {
    spi::execute(
        "INSERT INTO sea_mq.relay_journal (slot, sink, done, upto, first_seq, last_seq, events, first_stream_seq, published_at)
         VALUES ($1, $2, $3::pg_snapshot, $4::pg_snapshot, $5, $6, $7, $8, clock_timestamp())",
        &[
            Arg::Int8(i64::from(slot)),
            Arg::Int8(sink),
            Arg::Text(&run.done.to_string()),
            Arg::Text(&run.upto.to_string()),
            Arg::Int8(run.first_seq),
            Arg::Int8(run.last_seq),
            Arg::Int8(run.events.cast_signed()),
            Arg::OptionalInt8(run.first_stream_seq.map(u64::cast_signed)),
        ],
    );
}

/// Runs that were stored beyond stream sequence `after` and begin up to `upto`, in the order of the stream.
pub fn runs(sink: SinkId, after: u64, upto: u64, limit: i64) -> Vec<Run> {
    let rows = spi::query(
        "SELECT done, upto, first_seq, last_seq, events, first_stream_seq FROM sea_mq.relay_journal
         WHERE sink = $1 AND first_stream_seq > $2 AND first_stream_seq <= $3 ORDER BY first_stream_seq LIMIT $4",
        &[Arg::Int8(sink), Arg::Int8(after.cast_signed()), Arg::Int8(upto.cast_signed()), Arg::Int8(limit)],
    );
    let run = |row: &TextRow| Run {
        done: spi::optional(row, 0).unwrap_or_else(Snapshot::empty),
        upto: spi::optional(row, 1).unwrap_or_else(Snapshot::empty),
        first_seq: spi::parsed(row, 2),
        last_seq: spi::parsed(row, 3),
        events: spi::parsed(row, 4),
        place: 0,
        first_stream_seq: spi::optional(row, 5),
    };
    rows.iter().map(run).collect()
}

/// Finds the position from which the events with a stream sequence above `last` have to be published again, and the stream
/// sequence before it, and forgets what the journal says of what is read again. `None`: the journal does not reach back that
/// far. Where transactions are stored as one, an event that was lost may stand in the log before one that was stored earlier
/// and is left: it is read again as well, and found in the stream's tail.
pub fn rewind(sink: SinkId, last: u64) -> Option<(Position, u64)> {
    let rows = spi::query(
        "SELECT f.done, f.upto, a.first_seq, a.first_stream_seq
         FROM (SELECT done, upto FROM sea_mq.relay_journal
               WHERE sink = $1 AND first_stream_seq IS NOT NULL AND first_stream_seq + events > $2 + 1
               ORDER BY first_stream_seq, published_at LIMIT 1) f,
            LATERAL (SELECT min(first_seq) AS first_seq FROM sea_mq.relay_journal
               WHERE sink = $1 AND first_stream_seq + events > $2 + 1 AND done::text = f.done::text) l,
            LATERAL (SELECT l.first_seq, min(first_stream_seq) AS first_stream_seq FROM sea_mq.relay_journal
               WHERE sink = $1 AND done::text = f.done::text AND first_seq >= l.first_seq) a",
        &[Arg::Int8(sink), Arg::Int8(last.cast_signed())],
    );
    let again = rows.first().map(|row| (spi::parsed::<String>(row, 0), spi::parsed::<i64>(row, 2))).unzip();
    spi::execute(
        "DELETE FROM sea_mq.relay_journal WHERE sink = $1 AND first_stream_seq IS NOT NULL
            AND (first_stream_seq + events > $2 + 1 OR (done::text = $3 AND first_seq >= $4))",
        &[
            Arg::Int8(sink),
            Arg::Int8(last.cast_signed()),
            Arg::OptionalText(again.0.as_deref()),
            Arg::OptionalInt8(again.1),
        ],
    );
    let row = rows.first()?;
    let done: Snapshot = spi::optional(row, 0)?;
    let upto: Snapshot = spi::optional(row, 1)?;
    let first_seq: i64 = spi::parsed(row, 2);
    // What had begun by then is not known any more, so the floor is the lowest, and stays so for this batch.
    let upto = Moment { snapshot: upto, next_xid: 0, ceiling: i64::MAX };
    let position = Position { done, next_xid: 0, floor: 0, batch: Some(Batch { upto, at: first_seq - 1 }) };
    Some((position, spi::parsed::<u64>(row, 3).saturating_sub(1)))
}

/// Sinks whose streams are to be refilled, and from which place in the log on.
pub fn refills() -> Vec<(SinkId, i64)> {
    let sql = "SELECT sink, from_seq FROM sea_mq.republish_requests";
    spi::query(sql, &[]).iter().map(|row| (spi::parsed(row, 0), spi::parsed(row, 1))).collect()
}

/// Where a refill from place `seq` has to begin so that it is about whole runs, and the stream sequence beyond which they
/// are stored, if any is.
pub fn refill_start(sink: SinkId, mut seq: i64) -> (i64, Option<u64>) {
    let sql =
        "SELECT min(first_seq), min(first_stream_seq) FROM sea_mq.relay_journal WHERE sink = $1 AND last_seq >= $2";
    loop {
        let rows = spi::query(sql, &[Arg::Int8(sink), Arg::Int8(seq)]);
        let Some(row) = rows.first() else { return (seq, None) };
        match spi::optional::<i64>(row, 0).filter(|&first| first < seq) {
            Some(first) => seq = first,
            None => return (seq, spi::optional::<u64>(row, 1).map(|first| first.saturating_sub(1))),
        }
    }
}

/// Forgets the request for a refill, and what the journal says of the runs that are looked at once more.
pub fn begin_refill(sink: SinkId, seq: i64) {
    spi::execute(
        "DELETE FROM sea_mq.relay_journal WHERE sink = $1 AND last_seq >= $2",
        &[Arg::Int8(sink), Arg::Int8(seq)],
    );
    spi::execute("DELETE FROM sea_mq.republish_requests WHERE sink = $1", &[Arg::Int8(sink)]);
}
