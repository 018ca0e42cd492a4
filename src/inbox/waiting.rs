//! Messages of the inbox that wait: to be received, for another attempt, or while they are processed.

use std::cell::Cell;
use std::time::Duration;

use serde_json::json;

use super::done::millis;
use crate::host::spi::{self, Arg, TextRow};
use sea_mq_model::domain::message::Message;
use sea_mq_model::domain::outcome::Outcome;

/// A message that waits in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub id: i64,
    /// The consumer has stored it, and no attempt was made.
    pub is_first: bool,
    /// Attempts made so far.
    pub attempts: i32,
    pub message: Message,
}

/// Bytes that are read at once, as the table stores them: compressed, if they were large.
const READ_BYTES: i64 = 1 << 20;

thread_local! {
    /// The greatest number of a message that this process has stored.
    static GREATEST: Cell<i64> = const { Cell::new(0) };
}

/// The greatest number of a message that this process has stored; 0: none.
pub fn greatest_stored() -> i64 {
    GREATEST.get()
}

/// The messages of a subscription's lane that are due, few if they are large: those without an attempt in the order in which they
/// were stored, replays among them; then the one that has waited longest. `floor`: no first attempt waits with a smaller number, so
/// the index is entered there, behind what was deleted.
pub fn due(subscription: &str, lane: i16, max: usize, floor: i64) -> Vec<Waiting> {
    let rows = spi::query(
        "SELECT id, attempts, message_id, subject, source_context, event_type, event_version, aggregate_type, aggregate_id,
            payload, headers, stream_seq, (extract(epoch FROM event_at - '2000-01-01 00:00:00+00') * 1000000)::bigint,
            headers ->> 'X-Correlation-Id', headers ->> 'X-Causation-Id', headers ->> 'traceparent', headers ->> 'X-Sea-Visibility',
            due_at = 'epoch'
         FROM (SELECT d.*, sum(pg_column_size(d.payload) + pg_column_size(d.headers)) OVER (ROWS UNBOUNDED PRECEDING) AS size,
                row_number() OVER () AS place
            FROM (SELECT * FROM (
                    (SELECT * FROM sea_mq.inbox_pending WHERE subscription = $1 AND lane = $2 AND status <> 'processing'
                        AND due_at = 'epoch' AND id >= $5 ORDER BY id LIMIT $3)
                    UNION ALL
                    (SELECT * FROM sea_mq.inbox_pending WHERE subscription = $1 AND lane = $2 AND status <> 'processing'
                        AND due_at > 'epoch' AND due_at <= clock_timestamp() ORDER BY attempts > 0, due_at, id LIMIT $3)) w
                ORDER BY attempts > 0, CASE attempts WHEN 0 THEN id END, due_at, id LIMIT $3) d) d
         WHERE size <= $4 OR place = 1
         ORDER BY place",
        &[
            Arg::Text(subscription),
            Arg::Int8(i64::from(lane)),
            Arg::Int8(i64::try_from(max).unwrap_or(i64::MAX)),
            Arg::Int8(READ_BYTES),
            Arg::Int8(floor),
        ],
    );
    rows.iter().map(waiting).collect()
}

fn waiting(row: &TextRow) -> Waiting {
    let text = |column| spi::parsed::<String>(row, column);
    Waiting {
        id: spi::parsed(row, 0),
        is_first: spi::flag(row, 17),
        attempts: spi::parsed(row, 1),
        message: Message {
            message_id: text(2),
            subject: text(3),
            source_context: spi::optional(row, 4),
            event_type: text(5),
            event_version: spi::optional(row, 6),
            aggregate_type: spi::optional(row, 7),
            aggregate_id: spi::optional(row, 8),
            payload: text(9),
            headers: text(10),
            stream_seq: spi::optional(row, 11),
            event_at: spi::parsed(row, 12),
            correlation_id: spi::optional(row, 13),
            causation_id: spi::optional(row, 14),
            traceparent: spi::optional(row, 15),
            visibility: spi::optional(row, 16),
            replay_for: None,
            defect: None,
        },
    }
}

/// How the messages of [`store`] stand.
#[derive(Clone, Copy)]
pub enum Standing {
    /// They wait for their first attempt.
    Received,
    /// Their first attempt is under way, in this lane.
    Processing(i16),
}

/// Stores messages among what waits, and returns their numbers in the same order.
pub fn store(subscription: &str, messages: &[&Message], standing: Standing) -> Vec<i64> {
    let list: Vec<serde_json::Value> = messages.iter().map(|message| as_json(message)).collect();
    let json = serde_json::Value::Array(list).to_string();
    let (status, lane) = match standing {
        Standing::Received => ("received", None),
        Standing::Processing(lane) => ("processing", Some(i64::from(lane))),
    };
    let sql = "SELECT id FROM sea_mq.store_messages($1, $2, $3::json, $4::smallint) AS t(id)";
    let args = [Arg::Text(subscription), Arg::Text(status), Arg::Text(&json), Arg::OptionalInt8(lane)];
    let rows = spi::execute(sql, &args);
    let ids: Vec<i64> = rows.iter().map(|row| spi::parsed(row, 0)).collect();
    GREATEST.set(ids.iter().copied().fold(GREATEST.get(), i64::max));
    ids
}

fn as_json(message: &Message) -> serde_json::Value {
    json!({
        "message_id": message.message_id,
        "source_context": message.source_context,
        "event_type": message.event_type,
        "event_version": message.event_version,
        "subject": message.subject,
        "aggregate_type": message.aggregate_type,
        "aggregate_id": message.aggregate_id,
        // As text, so that nothing between here and jsonb reads numbers in its own way.
        "payload": message.payload,
        "headers": message.headers,
        "stream_seq": message.stream_seq,
        "event_at": message.event_at,
    })
}

/// Marks a waiting message as being handled, and counts the attempt. `false`: it is gone, or somebody else has made an
/// attempt meanwhile. `attempts`: those before this one.
pub fn begin_attempt(id: i64, attempts: i32) -> bool {
    let sql = "UPDATE sea_mq.inbox_pending SET status = 'processing', lease_until = NULL, attempts = attempts + 1,
        delivered_at = clock_timestamp() WHERE id = $1 AND attempts = $2 AND status <> 'processing' RETURNING 1";
    !spi::execute(sql, &[Arg::Int8(id), Arg::Int8(i64::from(attempts))]).is_empty()
}

/// The attempt was none: the handler could not be run.
pub fn take_attempt_back(id: i64) {
    let sql = "UPDATE sea_mq.inbox_pending SET attempts = attempts - 1,
            status = CASE WHEN attempts > 1 THEN 'failed' ELSE 'received' END
        WHERE id = $1 AND status = 'processing'";
    spi::execute(sql, &[Arg::Int8(id)]);
}

/// Locks those of the messages that still wait for their first attempt, until the transaction ends.
pub fn lock_waiting(waiting: &[Waiting]) -> Vec<i64> {
    let ids: Vec<i64> = waiting.iter().map(|one| one.id).collect();
    let list = serde_json::to_string(&ids).unwrap_or_else(|_| "[]".into());
    let sql = "SELECT p.id FROM sea_mq.inbox_pending p
        WHERE p.id = ANY (ARRAY(SELECT i.value::text::bigint FROM json_array_elements($1::json) i)) AND p.status <> 'processing'
            AND p.attempts = 0
        ORDER BY p.id FOR UPDATE";
    spi::execute(sql, &[Arg::Text(&list)]).iter().map(|row| spi::parsed(row, 0)).collect()
}

/// Does what follows from an attempt that was counted. An ERROR if the message was handled successfully but is not this
/// attempt's any more.
pub fn conclude(id: i64, attempt: i32, outcome: &Outcome) {
    let failure = outcome.failure();
    let text = |take: fn(&sea_mq_model::domain::outcome::Failure) -> &str| failure.map(take);
    spi::execute(
        "SELECT sea_mq.conclude($1, $2::integer, $3, $4, $5, $6)",
        &[
            Arg::Int8(id),
            Arg::Int8(i64::from(attempt)),
            Arg::Text(outcome.token()),
            Arg::OptionalText(text(|failure| &failure.sqlstate)),
            Arg::OptionalText(match outcome {
                Outcome::Crashed => Some("the process ended while it handled the message"),
                _ => text(|failure| &failure.message),
            }),
            Arg::OptionalText(failure.and_then(|failure| failure.detail.as_deref())),
        ],
    );
}

/// Moves waiting messages that were handled at the first attempt to what is done.
pub fn settle_processed(ids: &[i64]) {
    let list = serde_json::to_string(ids).unwrap_or_else(|_| "[]".into());
    spi::execute("SELECT sea_mq.settle_processed($1::json)", &[Arg::Text(&list)]);
}

/// Makes due what would wait for as long as the clock was set back: retries that were planned by the clock as it was. Returns
/// how many.
pub fn make_due_after_step_back() -> usize {
    let sql = "UPDATE sea_mq.inbox_pending SET due_at = clock_timestamp()
        WHERE status <> 'processing' AND due_at > clock_timestamp() AND coalesce(delivered_at, created_at) > clock_timestamp()
        RETURNING 1";
    spi::execute(sql, &[]).len()
}

/// Ends the attempts that nobody makes any more: those of a lane that began longer ago than `age`, or after now, before the
/// clock was set back.
pub fn conclude_abandoned(subscription: &str, lane: i16, age: Duration, outcome: &Outcome) -> usize {
    let sql = "SELECT id, attempts FROM sea_mq.inbox_pending
        WHERE subscription = $1 AND lane = $2 AND status = 'processing' AND lease_until IS NULL
            AND (delivered_at <= clock_timestamp() - make_interval(secs => $3::float8 / 1000) OR delivered_at > clock_timestamp())
        ORDER BY id";
    let rows = spi::query(sql, &[Arg::Text(subscription), Arg::Int8(i64::from(lane)), Arg::Int8(millis(age))]);
    rows.iter().for_each(|row| conclude(spi::parsed(row, 0), spi::parsed(row, 1), outcome));
    rows.len()
}

/// Puts another number of lanes in force. `false`: first attempts still wait that were dealt out to the number before.
pub fn assign_lanes(subscription: &str, lanes: i16) -> bool {
    let sql = "SELECT sea_mq.assign_lanes($1, $2::integer)";
    let rows = spi::execute(sql, &[Arg::Text(subscription), Arg::Int8(i64::from(lanes))]);
    rows.first().is_some_and(|row| spi::flag(row, 0))
}
