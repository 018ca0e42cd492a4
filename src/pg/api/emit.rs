//! `sea_mq.emit` and its relatives.

use std::sync::atomic::Ordering;

use pgrx::{PgTryBuilder, pg_sys};
use sea_mq_contracts::invalid::{Invalid, InvalidKind};
use sea_mq_contracts::name;
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::pg::capture::readable as captured;
use crate::pg::datum::{Call, jsonb_datum, return_set, sql_function, text_datum, uuid_datum};
use crate::pg::error::{OrRefuse, refuse};
use crate::pg::shmem::{self, Database, limit as doubt};
use crate::pg::store::streams::Facts;
use crate::pg::{backlog, contracts, gucs, pending};
use sea_mq_model::domain::envelope::Publication;
use sea_mq_model::domain::event::{Defaults, EmitArgs, Event, MAX_HEADERS};
use sea_mq_model::domain::policy::ContractPolicy;
use sea_mq_model::domain::sink::{SinkKind, sink_id};

sql_function!(emit_wrapper, pg_finfo_emit_wrapper, |call| {
    let args = EmitArgs {
        aggregate_type: call.text(0),
        aggregate_id: call.text(1),
        event_type: call.text(2),
        payload: call.jsonb(3),
        event_version: call.int4(4),
        context: call.text(5),
        event_id: call.uuid(6),
        correlation_id: call.text(7),
        causation_id: call.text(8),
        headers: call.jsonb(9),
        visibility: call.text(10),
        available_at: call.timestamp(11),
    };
    let defaults = defaults();
    uuid_datum(emit(args, &defaults).or_refuse())
});

sql_function!(emit_many_wrapper, pg_finfo_emit_many_wrapper, |call| {
    let events = call.jsonb_array(0).ok_or_else(|| Invalid::missing("events", "Pass an array of objects.")).or_refuse();
    let defaults = defaults();
    let mut ids = Vec::with_capacity(events.len());
    for (place, json) in (1..).zip(events) {
        let parsed = json.ok_or_else(|| Invalid::missing("event", "Pass an object.")).and_then(|json| parse(&json));
        let id = parsed.and_then(|args| emit(args, &defaults));
        ids.push(id.unwrap_or_else(|invalid| refuse(at_place(place, invalid))));
    }
    return_set(call, |row| ids.into_iter().for_each(|id| row(&mut [uuid_datum(id)], &mut [false])))
});

sql_function!(pending_events_wrapper, pg_finfo_pending_events_wrapper, |call| {
    let hidden = captured::unreadable();
    return_set(call, |row| {
        pending::visit(|event| {
            if !captured::is_one_of(&hidden, event) {
                show(event, row);
            }
        });
    })
});

fn show(event: &Event, row: &mut dyn FnMut(&mut [pg_sys::Datum], &mut [bool])) {
    let headers = event.headers.as_deref().map(jsonb_datum);
    let available_at = event.available_at.map(pg_sys::Datum::from);
    let columns = [
        Some(uuid_datum(event.id)),
        Some(text_datum(&event.context)),
        Some(text_datum(&event.subject())),
        Some(text_datum(&event.aggregate_type)),
        Some(text_datum(&event.aggregate_id)),
        Some(text_datum(&event.event_type)),
        Some(pg_sys::Datum::from(event.event_version)),
        Some(jsonb_datum(&event.payload)),
        headers,
        Some(pg_sys::Datum::from(event.created_at)),
        available_at,
    ];
    row(&mut columns.map(|value| value.unwrap_or(pg_sys::Datum::from(0))), &mut columns.map(|value| value.is_none()));
}

sql_function!(event_name_wrapper, pg_finfo_event_name_wrapper, |call| normalised(call, name::event_name));
sql_function!(context_name_wrapper, pg_finfo_context_name_wrapper, |call| normalised(call, name::context_name));

sql_function!(sink_id_wrapper, pg_finfo_sink_id_wrapper, |call| {
    let kind = sink_kind(&call.text(1).unwrap_or_default()).or_refuse();
    pg_sys::Datum::from(sink_id(&call.text(0).unwrap_or_default(), kind))
});

/// The kind that a call names.
pub fn sink_kind(token: &str) -> Result<SinkKind, Invalid> {
    SinkKind::from_token(token).ok_or_else(|| Invalid::value("the kind of a sink is event or dlq", "Pass one of them."))
}

fn normalised(call: Call, normalise: fn(&str) -> Result<String, Invalid>) -> pg_sys::Datum {
    text_datum(&normalise(&call.text(0).unwrap_or_default()).or_refuse())
}

/// Checks that the transaction may write, and asks the session for what arguments leave out.
fn defaults() -> Defaults {
    // SAFETY: raises an ERROR in a read-only transaction and during recovery; the clock can always be read.
    unsafe {
        pg_sys::PreventCommandIfReadOnly(c"sea_mq.emit()".as_ptr());
        pg_sys::PreventCommandDuringRecovery(c"sea_mq.emit()".as_ptr());
        gucs::emit_defaults(pg_sys::GetCurrentTimestamp())
    }
}

/// Checks an event and keeps it until the transaction commits.
fn emit(args: EmitArgs, defaults: &Defaults) -> Result<Uuid, Invalid> {
    let (given_id, given_visibility) = (args.event_id.is_some(), args.visibility.is_some());
    let mut event = Event::new(args, defaults)?;
    let facts = required_facts(&event)?;
    contracts::apply(&mut event, given_visibility)?;
    check_size(&event, &facts)?;
    let id = event.id;
    if given_id && let Some(stored) = pending::find(id) {
        return if stored.same_content(&event) { Ok(id) } else { Err(pending::reused(id)) };
    }
    backlog::check(defaults.now);
    pending::add(event, given_id);
    Ok(id)
}

/// Many events of one type that differ in aggregate and payload alone: the rest is checked once.
pub struct Series {
    /// The last one, and what the next one is like.
    event: Event,
    facts: Facts,
    has_policy: bool,
}

impl Series {
    pub fn begin(args: EmitArgs) -> Result<Self, Invalid> {
        let defaults = defaults();
        backlog::check(defaults.now);
        let mut event = Event::new(args, &defaults)?;
        let facts = required_facts(&event)?;
        if let Some(contract) = contracts::find(&event.key()) {
            event.visibility.clone_from(&contract.visibility);
        }
        Ok(Self { event, facts, has_policy: gucs::contracts() != ContractPolicy::Off })
    }

    /// Checks the next event and keeps it until the transaction commits. The aggregate's id fits a header.
    pub fn emit(&mut self, aggregate_id: String, payload: String) -> Result<(), Invalid> {
        let event = &mut self.event;
        (event.id, event.aggregate_id, event.payload) = (Uuid::now_v7(), aggregate_id, payload);
        if self.has_policy {
            contracts::apply(event, false)?;
        }
        check_size(event, &self.facts)?;
        pending::add_copy(event);
        Ok(())
    }
}

/// What is to be known of the stream that an event goes to, which must be there or come by itself.
fn required_facts(event: &Event) -> Result<Facts, Invalid> {
    let facts = pending::facts(event.sink, &event.context, SinkKind::Event);
    if facts.described || gucs::auto_create_streams() { Ok(facts) } else { Err(no_stream(&event.context)) }
}

fn no_stream(context: &str) -> Invalid {
    Invalid::new(
        InvalidKind::Unknown,
        format!("context \"{context}\" has no stream"),
        "Create it with sea_mq.create_stream, or set sea_mq.auto_create_streams = on.",
    )
}

/// Refuses what the broker would refuse.
pub fn check_size(event: &Event, facts: &Facts) -> Result<(), Invalid> {
    let limit = size_limit(facts);
    // An upper bound that is cheap: headers say a text up to five times, at worst in thrice as many bytes.
    let texts = [&event.aggregate_type, &event.aggregate_id, &event.event_type, &event.context];
    let optional = [&event.headers, &event.correlation_id, &event.causation_id];
    let rough = texts.iter().map(|text| text.len()).sum::<usize>()
        + optional.iter().map(|text| text.as_ref().map_or(0, String::len)).sum::<usize>();
    if event.payload.len() + 16 * rough + 2048 <= limit.min(event.payload.len() + MAX_HEADERS) {
        return Ok(());
    }
    // Its type may be registered until it is published.
    let size = Publication::new(event, Some(&event.key().uri())).size(facts.body);
    if size.headers > MAX_HEADERS {
        return Err(Invalid::new(
            InvalidKind::TooLarge,
            format!("the headers would be {} bytes long, the limit is {MAX_HEADERS}", size.headers),
            "Long content belongs into the payload.",
        ));
    }
    let size = size.headers + size.body;
    if size <= limit {
        return Ok(());
    }
    if let Some(database) = here().filter(|database| database.max_payload.load(Ordering::Relaxed) == limit as u64) {
        let _ = database.limit.compare_exchange(doubt::KNOWN, doubt::DOUBTED, Ordering::Relaxed, Ordering::Relaxed);
    }
    Err(Invalid::new(
        InvalidKind::TooLarge,
        format!("the message would be {size} bytes long with its headers, the limit is {limit}"),
        "Send a reference to large content instead of the content, or raise sea_mq.max_message_size and, in NATS, max_payload. What was raised in NATS is known after sea_mq.reload(), or within a minute.",
    ))
}

/// Bytes: the least of the setting, the connected server's limit and the stream's.
fn size_limit(facts: &Facts) -> usize {
    let server = here().map_or(0, |database| database.max_payload.load(Ordering::Relaxed));
    let server = usize::try_from(server).ok().filter(|&limit| limit > 0);
    gucs::max_message_size().min(server.unwrap_or(usize::MAX)).min(facts.max_msg_size.unwrap_or(usize::MAX))
}

/// This database's entry in shared memory.
fn here() -> Option<&'static Database> {
    // SAFETY: read by the main thread, constant in a process.
    shmem::database(unsafe { pg_sys::MyDatabaseId })
}

/// One event of `emit_many`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Item<'a> {
    aggregate_type: Option<String>,
    aggregate_id: Option<String>,
    event_type: Option<String>,
    #[serde(borrow, default, deserialize_with = "present")]
    payload: Option<&'a RawValue>,
    event_version: Option<i32>,
    context: Option<String>,
    event_id: Option<Uuid>,
    correlation_id: Option<String>,
    causation_id: Option<String>,
    #[serde(borrow)]
    headers: Option<&'a RawValue>,
    visibility: Option<String>,
    available_at: Option<String>,
}

/// A JSON null is a payload; only a missing key is none.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

fn parse(json: &str) -> Result<EmitArgs, Invalid> {
    let item: Item = serde_json::from_str(json).map_err(|error| {
        Invalid::value(
            format!("the event cannot be read: {error}"),
            "The keys are emit's parameters, with values of their types.",
        )
    })?;
    Ok(EmitArgs {
        aggregate_type: item.aggregate_type,
        aggregate_id: item.aggregate_id,
        event_type: item.event_type,
        payload: item.payload.map(|payload| payload.get().to_owned()),
        event_version: item.event_version.or(Some(1)),
        context: item.context,
        event_id: item.event_id,
        correlation_id: item.correlation_id,
        causation_id: item.causation_id,
        headers: item.headers.map(|headers| headers.get().to_owned()),
        visibility: item.visibility,
        available_at: item.available_at.as_deref().map(timestamp).transpose()?,
    })
}

/// What PostgreSQL reads as a `timestamptz`.
fn timestamp(text: &str) -> Result<i64, Invalid> {
    let refused = || Invalid::value("available_at is not a time", "As in \"2030-01-31 12:00:00+00\".");
    let c_text = std::ffi::CString::new(text).map_err(|_| refused())?;
    let read = move || {
        // SAFETY: timestamptz_in takes a C string, an OID that it ignores, and a type modifier.
        let datum = unsafe {
            pgrx::direct_function_call_as_datum(
                pg_sys::timestamptz_in,
                &[
                    Some(pg_sys::Datum::from(c_text.as_ptr())),
                    Some(pg_sys::Datum::from(0)),
                    Some(pg_sys::Datum::from(-1)),
                ],
            )
        };
        datum.map(|datum| datum.value() as i64)
    };
    // Its ERROR becomes ours, which says where; the transaction fails with the one as it would with the other.
    PgTryBuilder::new(read).catch_others(|_| None).execute().ok_or_else(refused)
}

fn at_place(place: usize, invalid: Invalid) -> Invalid {
    Invalid { message: format!("event {place} of the array: {}", invalid.message), ..invalid }
}
