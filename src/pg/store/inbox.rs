//! The inbox: what waits, what is done, and whether a message was seen before.

use std::time::Duration;

use pgrx::pg_sys::{self, Datum};
use serde_json::json;
use uuid::Uuid;

use super::spi::{self, Arg, TextRow};
use crate::domain::message::Message;
use crate::domain::outcome::Outcome;
use crate::pg::datum::{jsonb_datum, text_datum, uuid_datum};
use crate::pg::relation::{Appender, Key, Relation};

/// Slots of the ring. `sql/07_inbox.sql` creates as many partitions.
pub const SLOTS: i16 = 4;
/// Columns of `sea_mq.inbox_log`.
const LOG_COLUMNS: usize = 21;
/// Attributes of `sea_mq.event`.
const EVENT_COLUMNS: usize = 17;
/// Attribute numbers: subscription and message id, in what waits and in what is done.
const PENDING_KEYS: (i16, i16) = (2, 3);
const LOG_KEYS: (i16, i16) = (3, 4);

fn log_table(slot: i16) -> String {
    format!("inbox_log_{slot}")
}

/// The slot that is appended to.
pub fn current_slot() -> i16 {
    let slot = Relation::open("inbox_ring").only_row(|row| {
        let [_, slot] = row.values::<2>();
        slot.map_or(0, |slot| slot.value() as i16)
    });
    slot.unwrap_or(0)
}

/// The slot to append to, locked until the transaction ends. Whoever moves on to the next slot waits for all who have this
/// lock, so whoever appends to the next sees what they have committed: a message cannot get into two slots.
pub fn lock_current_slot() -> i16 {
    loop {
        let slot = current_slot();
        drop(Relation::open_for_write(&log_table(slot)));
        if current_slot() == slot {
            return slot;
        }
    }
}

/// Whether the inbox has a message for a subscription, as of now. What waits is looked at first: a message moves from
/// there to what is done, never back.
pub fn holds(message_id: &str, subscription: &str) -> bool {
    Probe::open().holds(message_id, subscription)
}

/// The tables to look into, opened once for many looks.
pub struct Probe {
    pending: Relation,
    slots: Vec<(Relation, String)>,
}

impl Probe {
    pub fn open() -> Self {
        let slots = (0..SLOTS).map(|slot| (Relation::open(&log_table(slot)), format!("inbox_log_{slot}_message")));
        Self { pending: Relation::open("inbox_pending"), slots: slots.collect() }
    }

    pub fn holds(&self, message_id: &str, subscription: &str) -> bool {
        let (message, name) = (text_datum(message_id), text_datum(subscription));
        let found = |table: &Relation, index: &str, (subscription, message_id): (i16, i16)| {
            let keys = [Key::Text(message_id, message), Key::Text(subscription, name)];
            !table.is_empty() && table.scan(index, &keys, std::ptr::null_mut()).next().is_some()
        };
        found(&self.pending, "inbox_pending_message", PENDING_KEYS)
            || self.slots.iter().any(|(table, index)| found(table, index, LOG_KEYS))
    }
}

/// Appends messages that are done to the current slot.
pub struct LogWriter {
    appender: Appender,
    slot: i16,
    ids: pg_sys::Oid,
}

impl LogWriter {
    pub fn open() -> Self {
        let slot = lock_current_slot();
        Self { appender: Appender::open(&log_table(slot)), slot, ids: crate::pg::relation::require("inbox_id") }
    }

    /// A message that was handled at the first attempt.
    pub fn append_processed(&mut self, subscription: &str, row: &Row, now: i64) {
        let id = super::log::next_seq(self.ids);
        let columns: [Option<Datum>; LOG_COLUMNS] = [
            Some(Datum::from(self.slot)),
            Some(Datum::from(id)),
            Some(text_datum(subscription)),
            row.message_id,
            Some(text_datum("processed")),
            Some(Datum::from(1_i32)),
            row.source_context,
            row.event_type,
            row.event_version,
            row.subject,
            row.aggregate_type,
            row.aggregate_id,
            Some(row.payload),
            Some(row.headers),
            row.stream_seq,
            Some(Datum::from(row.event_at)),
            Some(Datum::from(now)),
            Some(Datum::from(now)),
            Some(Datum::from(clock())),
            None,
            None,
        ];
        self.appender.append(columns);
    }
}

/// Microseconds since 2000-01-01 UTC.
pub fn clock() -> i64 {
    // SAFETY: reads the clock.
    unsafe { pg_sys::GetCurrentTimestamp() }
}

/// A message as PostgreSQL values, in the memory context in which it was made.
pub struct Row {
    message_id: Option<Datum>,
    source_context: Option<Datum>,
    event_type: Option<Datum>,
    event_version: Option<Datum>,
    subject: Option<Datum>,
    aggregate_type: Option<Datum>,
    aggregate_id: Option<Datum>,
    payload: Datum,
    headers: Datum,
    stream_seq: Option<Datum>,
    event_at: i64,
}

impl Row {
    /// An ERROR if PostgreSQL refuses the payload.
    pub fn new(message: &Message) -> Self {
        let optional = |value: &Option<String>| value.as_deref().map(text_datum);
        Self {
            message_id: Some(text_datum(&message.message_id)),
            source_context: optional(&message.source_context),
            event_type: Some(text_datum(&message.event_type)),
            event_version: message.event_version.map(Datum::from),
            subject: Some(text_datum(&message.subject)),
            aggregate_type: optional(&message.aggregate_type),
            aggregate_id: optional(&message.aggregate_id),
            payload: jsonb_datum(&message.payload),
            headers: jsonb_datum(&message.headers),
            stream_seq: message.stream_seq.map(Datum::from),
            event_at: message.event_at,
        }
    }

    /// The message as a value of the type `sea_mq.event`.
    pub fn event(&self, message: &Message, subscription: &str, attempt: i32, shape: &EventShape) -> Datum {
        let optional = |value: &Option<String>| value.as_deref().map(text_datum);
        let columns: [Option<Datum>; EVENT_COLUMNS] = [
            message.message_id.parse::<Uuid>().ok().map(uuid_datum),
            self.message_id,
            Some(text_datum(subscription)),
            self.source_context,
            self.event_type,
            self.event_version,
            self.subject,
            self.aggregate_type,
            self.aggregate_id,
            Some(self.payload),
            Some(self.headers),
            optional(&message.correlation_id),
            optional(&message.causation_id),
            optional(&message.visibility),
            Some(Datum::from(attempt)),
            self.stream_seq,
            Some(Datum::from(self.event_at)),
        ];
        shape.form(columns)
    }
}

/// The row type `sea_mq.event`, looked up once in a transaction.
pub struct EventShape(pg_sys::TupleDesc);

impl EventShape {
    pub fn look_up() -> Self {
        // SAFETY: a catalog look-up in a transaction; the type of a composite's pg_class entry is its row type. The copy
        // lives as long as the current memory context.
        Self(unsafe {
            let relation = crate::pg::relation::require("event");
            let row_type = pg_sys::get_rel_type_id(relation);
            pg_sys::lookup_rowtype_tupdesc_copy(row_type, -1)
        })
    }

    fn form(&self, columns: [Option<Datum>; EVENT_COLUMNS]) -> Datum {
        let mut nulls = columns.map(|value| value.is_none());
        let mut values = columns.map(|value| value.unwrap_or(Datum::from(0)));
        // SAFETY: the descriptor has as many attributes, of these types.
        unsafe {
            assert_eq!((*self.0).natts as usize, EVENT_COLUMNS, "attributes of sea_mq.event");
            let tuple = pg_sys::heap_form_tuple(self.0, values.as_mut_ptr(), nulls.as_mut_ptr());
            pg_sys::HeapTupleHeaderGetDatum((*tuple).t_data)
        }
    }
}

/// A message that waits in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub id: i64,
    /// Attempts made so far.
    pub attempts: i32,
    pub message: Message,
}

/// The messages of a subscription's lane that are due, the one that has waited longest first.
pub fn due(subscription: &str, lane: i16, max: usize) -> Vec<Waiting> {
    let rows = spi::query(
        "SELECT id, attempts, message_id, subject, source_context, event_type, event_version, aggregate_type, aggregate_id,
            payload, headers, stream_seq, (extract(epoch FROM event_at - '2000-01-01 00:00:00+00') * 1000000)::bigint,
            headers ->> 'X-Correlation-Id', headers ->> 'X-Causation-Id', headers ->> 'traceparent', headers ->> 'X-Sea-Visibility'
         FROM sea_mq.inbox_pending
         WHERE subscription = $1 AND lane = $2 AND status <> 'processing' AND due_at <= clock_timestamp()
         ORDER BY attempts > 0, due_at, id LIMIT $3",
        &[Arg::Text(subscription), Arg::Int8(i64::from(lane)), Arg::Int8(i64::try_from(max).unwrap_or(i64::MAX))],
    );
    rows.iter().map(waiting).collect()
}

fn waiting(row: &TextRow) -> Waiting {
    let text = |column| spi::parsed::<String>(row, column);
    Waiting {
        id: spi::parsed(row, 0),
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
    /// Their first attempt is under way.
    Processing,
}

/// Stores messages among what waits, and returns their numbers in the same order.
pub fn store(subscription: &str, messages: &[&Message], standing: Standing) -> Vec<i64> {
    let list: Vec<serde_json::Value> = messages.iter().map(|message| as_json(message)).collect();
    let json = serde_json::Value::Array(list).to_string();
    let status = match standing {
        Standing::Received => "received",
        Standing::Processing => "processing",
    };
    let sql = "SELECT id FROM sea_mq.store_messages($1, $2, $3::json) AS t(id)";
    spi::execute(sql, &[Arg::Text(subscription), Arg::Text(status), Arg::Text(&json)])
        .iter()
        .map(|row| spi::parsed(row, 0))
        .collect()
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

/// Marks a waiting message as being handled, and counts the attempt. `false`: it is not there any more.
pub fn begin_attempt(id: i64) -> bool {
    let sql = "UPDATE sea_mq.inbox_pending SET status = 'processing', lease_until = NULL, attempts = attempts + 1,
        delivered_at = clock_timestamp() WHERE id = $1 AND status <> 'processing' RETURNING 1";
    !spi::execute(sql, &[Arg::Int8(id)]).is_empty()
}

/// The attempt was none: the handler could not be run.
pub fn take_attempt_back(id: i64) {
    let sql = "UPDATE sea_mq.inbox_pending SET attempts = attempts - 1,
            status = CASE WHEN attempts > 1 THEN 'failed' ELSE 'received' END
        WHERE id = $1 AND status = 'processing'";
    spi::execute(sql, &[Arg::Int8(id)]);
}

/// Locks those of the messages that still wait, until the transaction ends.
pub fn lock_waiting(waiting: &[Waiting]) -> Vec<i64> {
    let ids: Vec<i64> = waiting.iter().map(|one| one.id).collect();
    let list = serde_json::to_string(&ids).unwrap_or_else(|_| "[]".into());
    let sql = "SELECT p.id FROM sea_mq.inbox_pending p
        WHERE p.id IN (SELECT i.value::text::bigint FROM json_array_elements($1::json) i) AND p.status <> 'processing'
        ORDER BY p.id FOR UPDATE";
    spi::execute(sql, &[Arg::Text(&list)]).iter().map(|row| spi::parsed(row, 0)).collect()
}

/// Does what follows from an attempt that was counted. An ERROR if the message was handled successfully but is not this
/// attempt's any more.
pub fn conclude(id: i64, attempt: i32, outcome: &Outcome) {
    let failure = outcome.failure();
    let text = |take: fn(&crate::domain::outcome::Failure) -> &str| failure.map(take);
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

/// Ends the attempts of a process that is gone: those of a lane that began longer ago than `age`.
pub fn conclude_crashed(subscription: &str, lane: i16, age: Duration) -> usize {
    let sql = "SELECT id, attempts FROM sea_mq.inbox_pending
        WHERE subscription = $1 AND lane = $2 AND status = 'processing' AND lease_until IS NULL
            AND delivered_at <= clock_timestamp() - make_interval(secs => $3::float8 / 1000) ORDER BY id";
    let rows = spi::query(sql, &[Arg::Text(subscription), Arg::Int8(i64::from(lane)), Arg::Int8(millis(age))]);
    rows.iter().for_each(|row| conclude(spi::parsed(row, 0), spi::parsed(row, 1), &Outcome::Crashed));
    rows.len()
}

/// Puts another number of lanes in force. `false`: first attempts still wait that were dealt out to the number before.
pub fn assign_lanes(subscription: &str, lanes: i16) -> bool {
    let sql = "SELECT sea_mq.assign_lanes($1, $2::integer)";
    let rows = spi::execute(sql, &[Arg::Text(subscription), Arg::Int8(i64::from(lanes))]);
    rows.first().is_some_and(|row| spi::flag(row, 0))
}

/// Gives back messages whose lease has run out, of all subscriptions.
pub fn release_expired() {
    let sql =
        "SELECT sea_mq.release_expired(t.subscription) FROM (SELECT DISTINCT subscription FROM sea_mq.inbox_pending
        WHERE status = 'processing' AND lease_until < clock_timestamp()) t";
    spi::execute(sql, &[]);
}

/// Adds up what was counted since the last time. Returns whether there was anything.
pub fn fold_tally() -> bool {
    if !spi::query("SELECT EXISTS (SELECT FROM sea_mq.inbox_tally)", &[]).first().is_some_and(|row| spi::flag(row, 0)) {
        return false;
    }
    spi::execute("SELECT sea_mq.fold_tally()", &[]);
    true
}

/// Moves on to the next slot if the current one is old and the next is empty. `false`: not now.
pub fn advance_if_old(age: Duration) -> bool {
    let current = current_slot();
    let next = (current + 1) % SLOTS;
    if Relation::open(&log_table(current)).is_empty() || !Relation::open(&log_table(next)).is_empty() {
        return false;
    }
    let sql = "SELECT clock_timestamp() - coalesce((SELECT s.opened_at FROM sea_mq.inbox_slots s WHERE s.slot = $1),
        (SELECT i.installed_at FROM sea_mq.installation i)) > make_interval(secs => $2::float8 / 1000)";
    let old = spi::query(sql, &[Arg::Int8(i64::from(current)), Arg::Int8(millis(age))]);
    if !old.first().is_some_and(|row| spi::flag(row, 0)) {
        return false;
    }
    // Waits for nobody: as long as somebody has appended and not committed, the slot stays.
    spi::execute_dynamic(&format!("LOCK TABLE ONLY sea_mq.inbox_log_{current} IN SHARE MODE NOWAIT"));
    spi::execute(
        "SELECT sea_mq.advance_inbox($1::smallint, $2::smallint)",
        &[Arg::Int8(i64::from(current)), Arg::Int8(i64::from(next))],
    );
    true
}

/// The slots that are not needed any more, the current one left out.
pub fn spent_slots(retention: Duration) -> Vec<i16> {
    let sql = "SELECT slot FROM sea_mq.spent_inbox_slots(make_interval(secs => $1::float8 / 1000)) AS t(slot)";
    let rows = spi::query(sql, &[Arg::Int8(millis(retention))]);
    let slots = rows.iter().map(|row| spi::parsed::<i16>(row, 0));
    slots.filter(|&slot| !Relation::open(&log_table(slot)).is_empty()).collect()
}

/// Empties a slot, unless somebody uses it: then an ERROR.
pub fn truncate(slot: i16) {
    spi::execute_dynamic(&format!("LOCK TABLE ONLY sea_mq.inbox_log_{slot} IN ACCESS EXCLUSIVE MODE NOWAIT"));
    spi::execute_dynamic(&format!("TRUNCATE ONLY sea_mq.inbox_log_{slot}"));
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
