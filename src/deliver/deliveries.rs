//! Deliveries in the tables: what waits, what is sent, and what became of it.

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use uuid::Uuid;

use crate::host::spi::{self, Arg, TextRow};

/// A delivery that waits in the table.
pub struct Waiting {
    pub event: Uuid,
    pub seq: i64,
    pub key: Option<String>,
    /// How long until it is due, and for how long it has been; `None`: it is parked.
    pub due: Option<(Duration, Duration)>,
    pub counted: u32,
    /// Since the first attempt.
    pub age: Option<Duration>,
}

/// What is sent, and what the table is told of the event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    pub body: Bytes,
    pub headers: Vec<(String, String)>,
    pub context: String,
    pub event_type: String,
    pub event_version: i64,
    pub aggregate_type: String,
    pub aggregate_id: String,
}

/// What is sent of an event of the log.
pub enum Rendered {
    Body {
        body: Bytes,
        headers: Vec<(String, String)>,
    },
    /// The audience may not see it.
    Invisible,
    /// Why it cannot be made.
    Failed(String),
}

/// An attempt that did not succeed, or (`attempted` false) none.
pub struct Undelivered<'a> {
    pub status: &'static str,
    pub attempted: bool,
    pub counted: bool,
    pub wait: Option<Duration>,
    pub kind: Option<&'a str>,
    pub http_status: Option<u16>,
    pub error: Option<&'a str>,
    pub response: Option<&'a str>,
    pub duration: Option<Duration>,
}

/// Events that were passed over.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dropped {
    pub events: i64,
    /// When the first and the last of them were emitted (microseconds since 2000-01-01 UTC).
    span: Option<(i64, i64)>,
}

impl Dropped {
    pub fn add(&mut self, emitted_at: i64) {
        self.events += 1;
        let (first, last) = self.span.unwrap_or((emitted_at, emitted_at));
        self.span = Some((first.min(emitted_at), last.max(emitted_at)));
    }
}

/// Notes that events were passed over.
pub fn note_dropped(endpoint: i64, dropped: &Dropped) {
    if let Some((first, last)) = dropped.span {
        let args = [endpoint, dropped.events, first, last].map(Arg::Int8);
        spi::execute("SELECT sea_mq.note_dropped($1, $2, $3, $4)", &args);
    }
}

pub(super) fn list<T: std::fmt::Display>(values: &[T]) -> String {
    format!("{{{}}}", values.iter().map(T::to_string).collect::<Vec<_>>().join(","))
}

pub(super) fn headers(json: Option<&str>) -> Vec<(String, String)> {
    let parsed: Option<std::collections::BTreeMap<String, String>> =
        json.and_then(|json| serde_json::from_str(json).ok());
    parsed.unwrap_or_default().into_iter().collect()
}

/// Those of an endpoint that are due soon; `all`: whenever they are.
pub fn due(endpoint: i64, all: bool) -> Vec<Waiting> {
    let rows = spi::query(
        "SELECT * FROM sea_mq.due_deliveries($1, $2 <> 0)",
        &[Arg::Int8(endpoint), Arg::Int8(i64::from(all))],
    );
    let waiting = |row: &TextRow| {
        let millis = |value: i64| Duration::from_millis(value.unsigned_abs());
        Waiting {
            event: spi::parsed(row, 0),
            seq: spi::parsed(row, 1),
            key: spi::optional(row, 2),
            due: spi::optional::<i64>(row, 3)
                .map(|ms| if ms >= 0 { (millis(ms), Duration::ZERO) } else { (Duration::ZERO, millis(ms)) }),
            counted: spi::parsed(row, 4),
            age: spi::optional::<i64>(row, 5).map(millis),
        }
    };
    rows.iter().map(waiting).collect()
}

/// How many of an endpoint wait for another attempt.
pub fn waiting(endpoint: i64) -> usize {
    let rows = spi::query("SELECT sea_mq.waiting_deliveries($1)", &[Arg::Int8(endpoint)]);
    rows.first().map_or(0, |row| spi::parsed(row, 0))
}

/// What is sent of deliveries that wait. One that is not there was taken back.
pub fn bodies(endpoint: i64, events: &[Uuid]) -> Vec<(Uuid, Content)> {
    let rows =
        spi::query("SELECT * FROM sea_mq.delivery_bodies($1, $2)", &[Arg::Int8(endpoint), Arg::Text(&list(events))]);
    let content = |row: &TextRow| {
        let content = Content {
            body: Bytes::from(spi::parsed::<String>(row, 1)),
            headers: headers(row.get(2).and_then(Option::as_deref)),
            context: spi::parsed(row, 3),
            event_type: spi::parsed(row, 4),
            event_version: spi::parsed(row, 5),
            aggregate_type: spi::parsed(row, 6),
            aggregate_id: spi::parsed(row, 7),
        };
        (spi::parsed(row, 0), content)
    };
    rows.iter().map(content).collect()
}

/// Of these events, those that the endpoint has got, or has waiting.
pub fn known(endpoint: i64, events: &[Uuid]) -> Vec<Uuid> {
    let args = [Arg::Int8(endpoint), Arg::Text(&list(events))];
    let rows = spi::query("SELECT * FROM sea_mq.deliveries_known($1, $2)", &args);
    rows.iter().map(|row| spi::parsed(row, 0)).collect()
}

/// What is sent of the events at these places of the log.
pub fn render(seqs: &[i64], audience: &str, format: &str, template: Option<&str>) -> Vec<(i64, Rendered)> {
    let rows = spi::query(
        "SELECT * FROM sea_mq.outgoing_rows($1, $2, $3, $4::jsonb)",
        &[Arg::Text(&list(seqs)), Arg::Text(audience), Arg::Text(format), Arg::OptionalText(template)],
    );
    let rendered = |row: &TextRow| {
        let rendered = match (spi::optional::<String>(row, 1), spi::optional::<String>(row, 3)) {
            (Some(body), _) => {
                Rendered::Body { body: Bytes::from(body), headers: headers(row.get(2).and_then(Option::as_deref)) }
            }
            (None, Some(error)) => Rendered::Failed(error),
            (None, None) => Rendered::Invisible,
        };
        (spi::parsed(row, 0), rendered)
    };
    rows.iter().map(rendered).collect()
}

/// The slot of the log of deliveries that is appended to.
pub fn current_slot() -> i64 {
    let rows = spi::query("SELECT current_slot FROM sea_mq.delivery_ring", &[]);
    rows.first().map_or(0, |row| spi::parsed(row, 0))
}

/// Notes a delivery. `retried`: it was tried before.
pub fn delivered(
    slot: i64,
    endpoint: i64,
    event: Uuid,
    retried: bool,
    status: Option<u16>,
    duration: Duration,
    response: Option<&str>,
) {
    let sql = if retried {
        "SELECT sea_mq.note_redelivered($1, $2, $3::uuid, $4, $5, $6)"
    } else {
        "INSERT INTO sea_mq.delivery_log (slot, http_status, attempts, endpoint_id, finished_at, event_id, duration, status, response)
         VALUES ($1::smallint, $4::smallint, 1, $2, clock_timestamp(), $3::uuid, $5::integer, 'delivered', $6) ON CONFLICT DO NOTHING"
    };
    spi::execute(
        sql,
        &[
            Arg::Int8(slot),
            Arg::Int8(endpoint),
            Arg::Text(&event.to_string()),
            Arg::OptionalInt8(status.map(i64::from)),
            Arg::Int8(micros(duration)),
            Arg::OptionalText(response),
        ],
    );
}

/// Notes that a delivery waits, or is given up. `content`: what is kept of one that was not in the table.
pub fn undelivered(
    endpoint: i64,
    event: Uuid,
    seq: i64,
    key: Option<&str>,
    content: Option<&Content>,
    what: &Undelivered,
) {
    let item = match content {
        None => json!({ "event": event }),
        Some(content) => json!({
            "event": event, "seq": seq, "key": key, "context": content.context, "event_type": content.event_type,
            "event_version": content.event_version, "aggregate_type": content.aggregate_type,
            "aggregate_id": content.aggregate_id,
            "headers": content.headers.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        }),
    };
    let body = content.map(|content| String::from_utf8_lossy(&content.body).into_owned());
    spi::execute(
        "SELECT sea_mq.note_undelivered($1, $2::jsonb, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        &[
            Arg::Int8(endpoint),
            Arg::Text(&item.to_string()),
            Arg::OptionalText(body.as_deref()),
            Arg::Text(what.status),
            Arg::Int8(i64::from(what.attempted)),
            Arg::Int8(i64::from(what.counted)),
            Arg::OptionalInt8(what.wait.map(|wait| i64::try_from(wait.as_millis()).unwrap_or(i64::MAX))),
            Arg::OptionalText(what.kind),
            Arg::OptionalInt8(what.http_status.map(i64::from)),
            Arg::OptionalText(what.error),
            Arg::OptionalText(what.response),
            Arg::OptionalInt8(what.duration.map(micros)),
        ],
    );
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::from(i32::MAX)).min(i64::from(i32::MAX))
}

/// Lets the log of deliveries move on to its next slot, if it is time. An ERROR if somebody uses that one: another time will do.
pub fn turn(retention: Duration) {
    spi::execute(
        "SELECT sea_mq.turn_deliveries($1)",
        &[Arg::Int8(i64::try_from(retention.as_secs()).unwrap_or(i64::MAX))],
    );
}
