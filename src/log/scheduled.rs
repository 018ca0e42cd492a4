//! Events that are held back until their time.

use std::time::Duration;

use uuid::Uuid;

use super::rows::{self, SCHEDULED_ID};
use super::{outbox, ring};
use crate::host::spi::{self, Arg};
use crate::sys::datum::uuid_datum;
use crate::sys::relation::{self, Appender, Key, Relation, Scratch};
use sea_mq_model::domain::event::Event;

/// Stores an event that is to be held back.
pub fn append(event: &Event) {
    let mut table = Appender::open(relation::require("scheduled_events"));
    let available_at = event.available_at.unwrap_or(event.created_at);
    let seq = outbox::next_seq(ring::place().sequence);
    Scratch::new().within(|| table.append(rows::scheduled_row(event, available_at, seq)));
}

/// The event with this id that is held back, as of now.
pub fn find(id: Uuid) -> Option<Event> {
    let table = Relation::open("scheduled_events");
    let mut scan = table.scan("scheduled_events_id", &[Key::Uuid(SCHEDULED_ID, uuid_datum(id))], std::ptr::null_mut());
    let found = scan.next().map(|row| rows::read_scheduled(row.values()));
    drop(scan);
    found
}

/// How long until the next event is due, zero if it is overdue; `None` if none is held back.
pub fn due_in() -> Option<Duration> {
    // It is looked at again long before the day is over; and nobody subtracts from infinity.
    let sql = "SELECT ceil(extract(epoch FROM least(e.first, clock_timestamp() + '1 day') - clock_timestamp()) * 1000)::bigint
        FROM (SELECT greatest(min(available_at), 'epoch') AS first, min(available_at) IS NULL AS none FROM sea_mq.scheduled_events) e
        WHERE NOT e.none";
    let millis: i64 = spi::query(sql, &[]).first().and_then(|row| spi::optional(row, 0))?;
    Some(Duration::from_millis(u64::try_from(millis).unwrap_or(0)))
}

/// Takes up to `limit` due events out, in the order in which they are to enter the log.
pub fn take_due(limit: i64) -> Vec<Event> {
    let sql = "WITH due AS (
            SELECT ctid FROM sea_mq.scheduled_events WHERE available_at <= clock_timestamp()
            ORDER BY available_at, seq LIMIT $1),
        taken AS (DELETE FROM sea_mq.scheduled_events e USING due WHERE e.ctid = due.ctid RETURNING e.*)
        SELECT (extract(epoch FROM greatest(available_at, created_at) - '2000-01-01 00:00:00+00') * 1000000)::bigint, id,
            (extract(epoch FROM created_at - '2000-01-01 00:00:00+00') * 1000000)::bigint, sink, event_version, context, subject,
            aggregate_type, aggregate_id, event_type, payload, headers, correlation_id, causation_id, visibility
        FROM taken ORDER BY available_at, seq";
    let text = |row: &spi::TextRow, column: usize| spi::parsed::<String>(row, column);
    spi::execute(sql, &[Arg::Int8(limit)])
        .iter()
        .map(|row| Event {
            available_at: spi::optional(row, 0),
            id: spi::optional(row, 1).unwrap_or_default(),
            created_at: spi::parsed(row, 2),
            sink: spi::parsed(row, 3),
            event_version: spi::parsed(row, 4),
            context: text(row, 5),
            subject: spi::optional(row, 6),
            aggregate_type: text(row, 7),
            aggregate_id: text(row, 8),
            event_type: text(row, 9),
            payload: text(row, 10),
            headers: spi::optional(row, 11),
            correlation_id: spi::optional(row, 12),
            causation_id: spi::optional(row, 13),
            visibility: text(row, 14),
        })
        .collect()
}
