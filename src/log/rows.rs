//! Events as rows of `sea_mq.outbox_log` and `sea_mq.scheduled_events`.

use pgrx::pg_sys;
use pgrx::pg_sys::Datum;

use super::ring::Ring;
use crate::sys::datum::{text, text_datum, uuid, uuid_datum};
use sea_mq_model::domain::event::{Event, Logged};

/// Columns of `sea_mq.outbox_log`.
pub const LOG_COLUMNS: usize = 19;
/// Columns of `sea_mq.scheduled_events`.
pub const SCHEDULED_COLUMNS: usize = 16;

/// Attribute numbers of the indexed columns of `sea_mq.outbox_log`.
pub mod log_column {
    pub const SEQ: i16 = 1;
    pub const XID: i16 = 2;
    pub const SINK: i16 = 3;
    pub const ID: i16 = 6;
}

/// Attribute number of `id` in `sea_mq.scheduled_events`.
pub const SCHEDULED_ID: i16 = 3;

pub type Columns<const N: usize> = [Option<Datum>; N];

fn optional_text(value: &Option<String>) -> Option<Datum> {
    value.as_deref().map(text_datum)
}

/// A row for the log, in the current memory context.
pub fn log_row(event: &Event, seq: i64, xid: u64, ring: Ring) -> Columns<LOG_COLUMNS> {
    [
        Some(Datum::from(seq)),
        Some(Datum::from(xid)),
        Some(Datum::from(event.sink)),
        Some(Datum::from(event.created_at)),
        event.available_at.map(Datum::from),
        Some(uuid_datum(event.id)),
        Some(Datum::from(event.event_version)),
        Some(Datum::from(ring.origin)),
        Some(Datum::from(ring.current_slot)),
        Some(text_datum(&event.context)),
        optional_text(&event.subject),
        Some(text_datum(&event.aggregate_type)),
        Some(text_datum(&event.aggregate_id)),
        Some(text_datum(&event.event_type)),
        Some(text_datum(&event.payload)),
        optional_text(&event.headers),
        optional_text(&event.correlation_id),
        optional_text(&event.causation_id),
        Some(text_datum(&event.visibility)),
    ]
}

/// A row for the log from one of the scheduled events' form.
pub fn log_row_of(
    [
        available_at,
        _,
        id,
        created_at,
        sink,
        version,
        context,
        subject,
        aggregate_type,
        aggregate_id,
        event_type,
        payload,
        headers,
        correlation_id,
        causation_id,
        visibility,
    ]: Columns<SCHEDULED_COLUMNS>,
    seq: i64,
    xid: u64,
    ring: Ring,
) -> Columns<LOG_COLUMNS> {
    let (seq, xid) = (Some(Datum::from(seq)), Some(Datum::from(xid)));
    let (origin, slot) = (Some(Datum::from(ring.origin)), Some(Datum::from(ring.current_slot)));
    [
        seq,
        xid,
        sink,
        created_at,
        available_at,
        id,
        version,
        origin,
        slot,
        context,
        subject,
        aggregate_type,
        aggregate_id,
        event_type,
        payload,
        headers,
        correlation_id,
        causation_id,
        visibility,
    ]
}

/// About how many bytes an event in the scheduled events' form takes as a row.
pub fn row_bytes(columns: Columns<SCHEDULED_COLUMNS>) -> usize {
    const FIXED: usize = 256;
    // SAFETY: these columns have types of variable length.
    let texts = columns[6..].iter().flatten().map(|datum| unsafe { pgrx::varsize_any(datum.cast_mut_ptr()) });
    FIXED + texts.sum::<usize>()
}

/// What decides where an event in the scheduled events' form goes: `available_at`, `id` and `sink`.
pub fn scheduled_key(columns: Columns<SCHEDULED_COLUMNS>) -> (Option<i64>, uuid::Uuid, i64) {
    let r = Reader(columns);
    (r.optional_int8(0), r.uuid(2), r.int8(4))
}

/// A row for the scheduled events, in the current memory context.
pub fn scheduled_row(event: &Event, available_at: i64, seq: i64) -> Columns<SCHEDULED_COLUMNS> {
    [
        Some(Datum::from(available_at)),
        Some(Datum::from(seq)),
        Some(uuid_datum(event.id)),
        Some(Datum::from(event.created_at)),
        Some(Datum::from(event.sink)),
        Some(Datum::from(event.event_version)),
        Some(text_datum(&event.context)),
        optional_text(&event.subject),
        Some(text_datum(&event.aggregate_type)),
        Some(text_datum(&event.aggregate_id)),
        Some(text_datum(&event.event_type)),
        Some(text_datum(&event.payload)),
        optional_text(&event.headers),
        optional_text(&event.correlation_id),
        optional_text(&event.causation_id),
        Some(text_datum(&event.visibility)),
    ]
}

struct Reader<const N: usize>(Columns<N>);

impl<const N: usize> Reader<N> {
    fn int8(&self, i: usize) -> i64 {
        self.0[i].map_or(0, |datum| datum.value() as i64)
    }

    fn optional_int8(&self, i: usize) -> Option<i64> {
        self.0[i].map(|datum| datum.value() as i64)
    }

    fn int4(&self, i: usize) -> i32 {
        self.0[i].map_or(0, |datum| datum.value() as i32)
    }

    fn uuid(&self, i: usize) -> uuid::Uuid {
        // SAFETY: the callers name columns of type uuid.
        self.0[i].map_or_else(uuid::Uuid::nil, |datum| unsafe { uuid(datum) })
    }

    fn optional_text(&self, i: usize) -> Option<String> {
        // SAFETY: the callers name columns of type text or json.
        self.0[i].map(|datum| unsafe { text(datum) })
    }

    fn text(&self, i: usize) -> String {
        self.optional_text(i).unwrap_or_default()
    }
}

/// What decides about a row before the whole event is read: `seq`, `xid` and `origin`.
pub fn log_key(columns: Columns<LOG_COLUMNS>) -> (i64, u64, i32) {
    let r = Reader(columns);
    (r.int8(0), r.int8(1).cast_unsigned(), r.int4(7))
}

/// The sink of a row of the log.
pub fn log_sink(columns: Columns<LOG_COLUMNS>) -> i64 {
    Reader(columns).int8(2)
}

/// When a row of the log was emitted: microseconds since 2000-01-01 UTC.
pub fn log_created_at(columns: Columns<LOG_COLUMNS>) -> i64 {
    Reader(columns).int8(3)
}

/// Bytes of a row of the log that are stored apart from it.
pub fn log_bytes_apart(columns: Columns<LOG_COLUMNS>) -> u64 {
    const FIRST_TEXT: usize = 9;
    let apart = |datum: &Datum| {
        // SAFETY: these columns have types of variable length.
        unsafe { pgrx::varlena::varatt_is_1b_e(datum.cast_mut_ptr()).then(|| pg_sys::toast_datum_size(*datum) as u64) }
    };
    columns[FIRST_TEXT..].iter().flatten().filter_map(apart).sum()
}

/// An event of the log, without its schema.
pub fn read_logged(columns: Columns<LOG_COLUMNS>) -> Logged {
    let r = Reader(columns);
    let event = Event {
        sink: r.int8(2),
        created_at: r.int8(3),
        available_at: r.optional_int8(4),
        id: r.uuid(5),
        event_version: r.int4(6),
        context: r.text(9),
        subject: r.optional_text(10),
        aggregate_type: r.text(11),
        aggregate_id: r.text(12),
        event_type: r.text(13),
        payload: r.text(14),
        headers: r.optional_text(15),
        correlation_id: r.optional_text(16),
        causation_id: r.optional_text(17),
        visibility: r.text(18),
    };
    Logged { seq: r.int8(0), xid: r.int8(1).cast_unsigned(), committed_at: None, event, schema: None }
}

/// A scheduled event.
pub fn read_scheduled(columns: Columns<SCHEDULED_COLUMNS>) -> Event {
    let r = Reader(columns);
    Event {
        available_at: r.optional_int8(0),
        id: r.uuid(2),
        created_at: r.int8(3),
        sink: r.int8(4),
        event_version: r.int4(5),
        context: r.text(6),
        subject: r.optional_text(7),
        aggregate_type: r.text(8),
        aggregate_id: r.text(9),
        event_type: r.text(10),
        payload: r.text(11),
        headers: r.optional_text(12),
        correlation_id: r.optional_text(13),
        causation_id: r.optional_text(14),
        visibility: r.text(15),
    }
}
