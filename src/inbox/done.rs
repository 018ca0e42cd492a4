//! The inbox: what is done, and whether a message was seen before. What waits is in `waiting`.

use std::time::Duration;

use pgrx::pg_sys::{self, Datum};
use uuid::Uuid;

use crate::host::spi::{self, Arg};
use crate::sys::clock;
use crate::sys::datum::{jsonb_datum, text_datum, uuid_datum};
use crate::sys::relation::{self, Appender, Key, Relation};
use sea_mq_model::domain::message::Message;

/// Slots of the ring. `sql/inbox/inbox.sql` creates as many partitions.
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
        drop(Relation::open_for_write(relation::require(&log_table(slot))));
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

/// The tables to look into, opened once for many looks. The current slot is locked: no other gets rows meanwhile, so those
/// that are empty need no look.
pub struct Probe {
    pending: Relation,
    slots: Vec<(Relation, String)>,
}

impl Probe {
    pub fn open() -> Self {
        let current = lock_current_slot();
        let slots = (0..SLOTS)
            .map(|slot| (slot, Relation::open(&log_table(slot))))
            .filter(|(slot, table)| *slot == current || !table.is_empty())
            .map(|(slot, table)| (table, format!("inbox_log_{slot}_message")));
        Self { pending: Relation::open("inbox_pending"), slots: slots.collect() }
    }

    pub fn holds(&self, message_id: &str, subscription: &str) -> bool {
        let (message, name) = (text_datum(message_id), text_datum(subscription));
        let found = |table: &Relation, index: &str, (subscription, message_id): (i16, i16)| {
            let keys = [Key::Text(message_id, message), Key::Text(subscription, name)];
            table.scan(index, &keys, std::ptr::null_mut()).next().is_some()
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
        Self { appender: Appender::open(relation::require(&log_table(slot))), slot, ids: relation::require("inbox_id") }
    }

    /// A message that was handled at the first attempt.
    pub fn append_processed(&mut self, subscription: &str, row: &Row, now: i64) {
        let id = crate::log::outbox::next_seq(self.ids);
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
            Some(Datum::from(clock::now())),
            None,
            None,
        ];
        self.appender.append(columns);
    }
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
            let relation = crate::sys::relation::require("event");
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

/// Gives back messages whose lease has run out, of all subscriptions.
pub fn release_expired() {
    let sql =
        "SELECT sea_mq.release_expired(t.subscription) FROM (SELECT DISTINCT subscription FROM sea_mq.inbox_pending
        WHERE status = 'processing' AND lease_until < clock_timestamp()) t";
    spi::execute(sql, &[]);
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

/// Milliseconds, as the statements here take them.
pub fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
