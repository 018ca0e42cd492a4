//! Streams: their descriptions, and what the relay found when it provisioned them.

use std::collections::BTreeMap;
use std::time::Duration;

use pgrx::{PgSqlErrorCode, pg_sys, warning};
use uuid::Uuid;

use crate::host::door::as_owner;
use crate::host::locks::{LockClass, lock_tag};
use crate::host::spi::{self, Arg, TextRow};
use crate::log::outbox::next_seq;
use crate::sys::datum::{text, text_datum};
use crate::sys::error::raise;
use crate::sys::relation::{self, Appender, Compare, Key, Relation};
use crate::sys::watch::{Kept, Table};
use sea_mq_model::broker::{Fault, Retention, SinkId, Storage, StreamSpec};
use sea_mq_model::domain::envelope::Form;
use sea_mq_model::domain::sink::{SinkKind, sink_id, stable_hash};
use sea_mq_model::relay::sink::Described;

/// Columns of `sea_mq.streams`, and where `emit` finds what it must know.
const COLUMNS: usize = 21;
const CONTEXT: usize = 1;
const KIND: usize = 2;
const SINK: i16 = 4;
const MAX_MSG_SIZE: usize = 9;
const BODY: usize = 13;
const METADATA: usize = 14;

/// What `emit` must know of the stream that an event goes to.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// The stream is described.
    pub described: bool,
    /// Bytes, headers included, if the stream sets a limit.
    pub max_msg_size: Option<usize>,
    pub form: Form,
}

thread_local! {
    static KNOWN: Kept<(SinkId, u64), Facts> = Kept::new(&[Table::Streams]);
}

/// The facts as this process knows them.
pub fn known_facts(sink: SinkId, context: &str, kind: SinkKind) -> Facts {
    // By another hash of the name as well, so that one name does not stand for another.
    let name = stable_hash(context.bytes().chain([b'.']).chain(kind.token().bytes()));
    KNOWN.with(|known| known.get(&(sink, name), || facts(sink, context, kind)))
}

/// Looks the facts up as of now.
fn facts(sink: SinkId, context: &str, kind: SinkKind) -> Facts {
    let table = Relation::open("streams");
    let mut scan = table.scan("streams_sink_key", &[Key::Int8(SINK, Compare::Equal, sink)], std::ptr::null_mut());
    let row = scan.next().map(|row| row.values::<COLUMNS>());
    // SAFETY: the columns have the type text.
    let is = |column: usize, name: &str| row.and_then(|row| row[column]).is_none_or(|it| unsafe { text(it) } == name);
    if !is(CONTEXT, context) || !is(KIND, kind.token()) {
        raise(
            PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT,
            format!("context \"{context}\" ({}) has the sink id of another context", kind.token()),
            "Give the context another name.",
        );
    }
    let facts = Facts {
        described: row.is_some(),
        max_msg_size: row
            .and_then(|row| row[MAX_MSG_SIZE])
            .and_then(|datum| usize::try_from(datum.value() as i32).ok()),
        // SAFETY: both columns have the type text.
        form: row
            .and_then(|row| Some(unsafe { (text(row[BODY]?), text(row[METADATA]?)) }))
            .and_then(|(body, metadata)| Form::from_tokens(&body, &metadata))
            .unwrap_or_default(),
    };
    drop(scan);
    facts
}

/// Describes a context's stream with the defaults in the current transaction, without ever waiting for another one that
/// is doing the same: then a request is left for the relay.
pub fn describe_default(context: &str, kind: SinkKind, sink: SinkId) {
    if !try_lock(sink) {
        let mut requests = Appender::open(relation::require("stream_requests"));
        let number = next_seq(relation::require("position_number"));
        requests.append([Some(text_datum(context)), Some(text_datum(kind.token())), Some(pg_sys::Datum::from(number))]);
        return;
    }
    describe_locked(context, kind, sink);
}

/// Whoever had the lock before has committed or rolled back.
fn describe_locked(context: &str, kind: SinkKind, sink: SinkId) {
    if !facts(sink, context, kind).described {
        as_owner(|| {
            spi::execute(
                "SELECT sea_mq.describe_default_stream($1, $2)::text",
                &[Arg::Text(context), Arg::Text(kind.token())],
            );
        });
    }
}

/// Takes the transaction's lock on the description of a sink, if nobody has it.
fn try_lock(sink: SinkId) -> bool {
    let [_, _, _, _, b4, b5, b6, b7] = sink.to_le_bytes();
    let tag = lock_tag(sink as u32, u32::from_le_bytes([b4, b5, b6, b7]), LockClass::Stream);
    // SAFETY: a lock of the transaction, released with it.
    let result = unsafe { pg_sys::LockAcquire(&tag, pg_sys::ExclusiveLock as _, false, true) };
    result != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
}

/// All streams: those described, and those requested, which are as good as described with the defaults.
pub fn all() -> Vec<Described> {
    let rows = spi::query(
        "SELECT s.sink, s.name, array_to_json(s.subjects), s.retention, (extract(epoch FROM least(s.max_age, '100 years')) * 1000)::bigint, s.max_bytes,
            s.max_msgs, s.max_msg_size, s.storage, s.replicas, (extract(epoch FROM least(s.duplicate_window, '100 years')) * 1000)::bigint, s.body,
            s.managed, i.install_id, s.take_over, s.context, s.atomic_transactions, s.metadata
         FROM sea_mq.installation i, (
            SELECT * FROM sea_mq.streams
            UNION ALL
            SELECT d.* FROM (SELECT DISTINCT context, kind FROM sea_mq.stream_requests) r, sea_mq.default_stream(r.context, r.kind) d
            WHERE NOT EXISTS (SELECT FROM sea_mq.streams t WHERE t.sink = d.sink)) s
         ORDER BY s.name",
        &[],
    );
    rows.iter().map(described).collect()
}

fn described(row: &TextRow) -> Described {
    let string = |column| spi::parsed::<String>(row, column);
    let millis = |column| Duration::from_millis(spi::parsed(row, column));
    let spec = StreamSpec {
        name: string(1),
        subjects: serde_json::from_str(&string(2)).unwrap_or_default(),
        description: format!("Outbox of context {}, written by sea_mq", string(15)),
        retention: match string(3).as_str() {
            "interest" => Retention::Interest,
            "workqueue" => Retention::WorkQueue,
            _ => Retention::Limits,
        },
        max_age: millis(4),
        max_bytes: spi::parsed(row, 5),
        max_msgs: spi::parsed(row, 6),
        max_msg_size: spi::parsed(row, 7),
        storage: if string(8) == "memory" { Storage::Memory } else { Storage::File },
        replicas: spi::parsed(row, 9),
        duplicate_window: millis(10),
        allow_atomic: spi::flag(row, 16),
        managed: spi::flag(row, 12),
        owner: spi::optional::<Uuid>(row, 13).unwrap_or_default(),
        take_over: spi::flag(row, 14),
        marked_us: None,
        fewer_replicas: false,
    };
    Described { sink: spi::parsed(row, 0), form: Form::from_tokens(&string(11), &string(17)).unwrap_or_default(), spec }
}

/// Whether a description was made by another installation: the database is a restored copy.
pub fn any_foreign() -> bool {
    let sql = "SELECT EXISTS (SELECT FROM sea_mq.streams s, sea_mq.installation i WHERE s.owner <> i.install_id)";
    spi::query(sql, &[]).first().is_some_and(|row| spi::flag(row, 0))
}

/// The stream was taken over; from now on another owner is a conflict again.
pub fn taken_over(sink: SinkId) {
    spi::execute("UPDATE sea_mq.streams SET take_over = false WHERE sink = $1 AND take_over", &[Arg::Int8(sink)]);
}

/// Whether the data directory or the database is a copy of the one that the extension was installed in.
pub fn is_copied() -> bool {
    let sql = "SELECT EXISTS (SELECT FROM sea_mq.installation i, pg_catalog.pg_control_system() c, pg_catalog.pg_database d
        WHERE d.datname = current_database() AND (i.system_identifier, i.database_oid) <> (c.system_identifier, d.oid))";
    spi::query(sql, &[]).first().is_some_and(|row| spi::flag(row, 0))
}

/// Requests that emitters left for streams.
pub fn requests() -> Vec<(String, SinkKind)> {
    let rows = spi::query("SELECT DISTINCT context, kind FROM sea_mq.stream_requests", &[]);
    let request = |row: &TextRow| Some((spi::parsed(row, 0), SinkKind::from_token(&spi::parsed::<String>(row, 1))?));
    rows.iter().filter_map(request).collect()
}

/// Turns a request into a description, unless an open transaction is doing so: then it stays for a later time.
pub fn grant(context: &str, kind: SinkKind) {
    let sink = sink_id(context, kind);
    if belongs_to_another(sink, context, kind) {
        warning!("sea_mq relay: context \"{context}\" ({}) has the sink id of another context", kind.token());
        return forget_request(context, kind);
    }
    if !facts(sink, context, kind).described {
        if !try_lock(sink) {
            return;
        }
        describe_locked(context, kind, sink);
    }
    forget_request(context, kind);
}

fn forget_request(context: &str, kind: SinkKind) {
    spi::execute(
        "DELETE FROM sea_mq.stream_requests WHERE context = $1 AND kind = $2",
        &[Arg::Text(context), Arg::Text(kind.token())],
    );
}

fn belongs_to_another(sink: SinkId, context: &str, kind: SinkKind) -> bool {
    let sql = "SELECT EXISTS (SELECT FROM sea_mq.sinks WHERE sink = $1 AND (context, kind) <> ($2, $3))";
    let args = [Arg::Int8(sink), Arg::Text(context), Arg::Text(kind.token())];
    spi::query(sql, &args).first().is_some_and(|row| spi::flag(row, 0))
}

/// The state of a stream, for `sea_mq.stream_status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// `ready`, `refused` or `paused`.
    pub state: &'static str,
    pub fault: Option<Fault>,
    /// `strict` or `shared`.
    pub ordering: &'static str,
    pub differences: BTreeMap<String, (String, String)>,
    /// Creation time of the stream if it carries our mark.
    pub marked_us: Option<i64>,
}

/// Creation time of the stream when it last carried our mark.
pub fn marked_us(sink: SinkId) -> Option<i64> {
    let sql = "SELECT s.marked_us FROM sea_mq.stream_state s WHERE s.sink = $1";
    spi::query(sql, &[Arg::Int8(sink)]).first().and_then(|row| spi::optional(row, 0))
}

/// Records the state of a stream.
pub fn save_state(sink: SinkId, state: &State) {
    let kind = state.fault.as_ref().map(|fault| fault.kind.token());
    let differences = serde_json::to_string(&state.differences).unwrap_or_else(|_| "{}".into());
    spi::execute(
        "INSERT INTO sea_mq.stream_state AS s (sink, state, error_kind, error, hint, ordering, differences, marked_us)
         VALUES ($1, $2, $3, $4, $5, $6, $7::jsonb, $8)
         ON CONFLICT (sink) DO UPDATE SET state = excluded.state, error_kind = excluded.error_kind, error = excluded.error,
            hint = excluded.hint, ordering = excluded.ordering, differences = excluded.differences,
            marked_us = coalesce(excluded.marked_us, s.marked_us), since = now()",
        &[
            Arg::Int8(sink),
            Arg::Text(state.state),
            Arg::OptionalText(kind),
            Arg::OptionalText(state.fault.as_ref().map(|fault| fault.message.as_str())),
            Arg::OptionalText(state.fault.as_ref().and_then(|fault| fault.kind.hint())),
            Arg::Text(state.ordering),
            Arg::Text(&differences),
            Arg::OptionalInt8(state.marked_us),
        ],
    );
}

/// Records that the broker had lost data.
pub fn save_loss(sink: SinkId, what: &str) {
    spi::execute(
        "INSERT INTO sea_mq.stream_state AS s (sink, state, losses, last_loss) VALUES ($1, 'ready', 1, $2)
         ON CONFLICT (sink) DO UPDATE SET losses = s.losses + 1, last_loss = excluded.last_loss",
        &[Arg::Int8(sink), Arg::Text(what)],
    );
}

/// A stream that is to be deleted in NATS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deletion {
    pub name: String,
    pub owner: Uuid,
    /// When it was created, if that is known: a later one of the same name is another stream.
    pub created_us: Option<i64>,
}

/// Streams that are to be deleted in NATS. Of one that is described again it must be known which one is meant.
pub fn deletions() -> Vec<Deletion> {
    let rows = spi::query(
        "SELECT d.name, i.install_id, d.stream_created_us FROM sea_mq.stream_deletions d, sea_mq.installation i
         WHERE d.stream_created_us IS NOT NULL OR NOT EXISTS (SELECT FROM sea_mq.streams s WHERE s.name = d.name)",
        &[],
    );
    let deletion = |row: &TextRow| Deletion {
        name: spi::parsed(row, 0),
        owner: spi::optional(row, 1).unwrap_or_default(),
        created_us: spi::optional(row, 2),
    };
    rows.iter().map(deletion).collect()
}

/// Records how a deletion went. Returns whether that was known.
pub fn save_deletion(name: &str, error: Option<&str>) -> bool {
    let changed = match error {
        None => spi::execute("DELETE FROM sea_mq.stream_deletions WHERE name = $1 RETURNING 1", &[Arg::Text(name)]),
        Some(error) => spi::execute(
            "UPDATE sea_mq.stream_deletions SET error = $2 WHERE name = $1 AND error IS DISTINCT FROM $2 RETURNING 1",
            &[Arg::Text(name), Arg::Text(error)],
        ),
    };
    changed.is_empty()
}
