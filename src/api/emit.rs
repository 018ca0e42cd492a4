//! `sea_mq.emit` and its relatives.

use pgrx::{PgSqlErrorCode, PgTryBuilder, pg_sys};
use sea_mq_contracts::invalid::Invalid;
use sea_mq_contracts::name;
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::emit::admission::{defaults, emit};
use crate::emit::capture::readable as captured;
use crate::emit::pending;
use crate::sys::datum::{Call, jsonb_datum, return_set, sql_function, text_datum, uuid_datum};
use crate::sys::error::{OrRefuse, raise, refuse};
use sea_mq_model::domain::event::{EmitArgs, Event};
use sea_mq_model::domain::sink::{SinkKind, sink_id};

/// The version of an event that does not say.
const DEFAULT_VERSION: i32 = 1;

sql_function!(emit_wrapper, pg_finfo_emit_wrapper, |call| called(call, call.text(1), Call::jsonb));
sql_function!(emit_key_wrapper, pg_finfo_emit_key_wrapper, |call| called(call, key(call), Call::jsonb));
sql_function!(emit_text_wrapper, pg_finfo_emit_text_wrapper, |call| called(call, call.text(1), Call::json));
sql_function!(emit_key_text_wrapper, pg_finfo_emit_key_text_wrapper, |call| called(call, key(call), Call::json));

/// `json` reads an argument that is JSON.
fn called(call: Call, aggregate_id: Option<String>, json: fn(Call, usize) -> Option<String>) -> pg_sys::Datum {
    let args = EmitArgs {
        aggregate_type: call.text(0),
        aggregate_id,
        event_type: call.text(2),
        payload: json(call, 3),
        event_version: call.int4(4).or(Some(DEFAULT_VERSION)),
        context: call.text(5),
        event_id: call.uuid(6),
        correlation_id: call.text(7),
        causation_id: call.text(8),
        headers: json(call, 9),
        visibility: call.text(10),
        available_at: call.timestamp(11),
    };
    let defaults = defaults();
    uuid_datum(emit(args, &defaults).or_refuse())
}

/// An aggregate's id that is no text. Its type has one way to be written, whatever the session's settings are.
fn key(call: Call) -> Option<String> {
    call.written(1).unwrap_or_else(|type_name| {
        raise(
            PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
            format!("aggregate_id is of type {type_name}"),
            "Pass a text, an integer or a uuid; cast to text what is another type.",
        )
    })
}

sql_function!(emit_many_wrapper, pg_finfo_emit_many_wrapper, |call| {
    let events = call.jsonb_array(0).ok_or_else(|| Invalid::missing("events", "Pass an array of objects.")).or_refuse();
    let events: Vec<Option<&str>> = events.iter().map(Option::as_deref).collect();
    emit_all(call, &events)
});

sql_function!(emit_array_wrapper, pg_finfo_emit_array_wrapper, |call| {
    let array = call.jsonb(0).ok_or_else(|| Invalid::missing("events", "Pass an array of objects.")).or_refuse();
    let no_array = |_| Invalid::value("events is no array", "Pass an array of objects, as jsonb_agg gives it.");
    let events: Vec<&RawValue> = serde_json::from_str(&array).map_err(no_array).or_refuse();
    let events: Vec<Option<&str>> = events.iter().map(|event| Some(event.get())).collect();
    emit_all(call, &events)
});

fn emit_all(call: Call, events: &[Option<&str>]) -> pg_sys::Datum {
    let defaults = defaults();
    let mut ids = Vec::with_capacity(events.len());
    for (place, json) in (1..).zip(events) {
        let parsed = json.ok_or_else(|| Invalid::missing("event", "Pass an object.")).and_then(parse);
        let id = parsed.and_then(|args| emit(args, &defaults));
        ids.push(id.unwrap_or_else(|invalid| refuse(at_place(place, invalid))));
    }
    return_set(call, |row| ids.into_iter().for_each(|id| row(&mut [uuid_datum(id)], &mut [false])))
}

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
        Some(text_datum(event.correlation_id.as_deref().unwrap_or(&event.id.to_string()))),
        event.causation_id.as_deref().map(text_datum),
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

/// One event of `emit_many`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Item<'a> {
    aggregate_type: Option<String>,
    #[serde(default, deserialize_with = "text_or_integer")]
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

/// An id as people have it in their data: `"5"`, `5` or null.
fn text_or_integer<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "aggregate_id is neither a string nor an integer")]
    enum Id {
        Text(String),
        Natural(u64),
        Integer(i64),
    }
    Ok(Option::<Id>::deserialize(deserializer)?.map(|id| match id {
        Id::Text(text) => text,
        Id::Natural(number) => number.to_string(),
        Id::Integer(number) => number.to_string(),
    }))
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
        event_version: item.event_version.or(Some(DEFAULT_VERSION)),
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
