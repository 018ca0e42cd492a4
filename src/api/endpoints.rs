//! What the SQL of endpoints cannot do by itself.

use pgrx::{PgSqlErrorCode, pg_sys};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::deliver::network::network;
use crate::deliver::vault::{self, Label};
use crate::host::owed::owe;
use crate::log::{cursors, unread};
use crate::sys::datum::{bytea_datum, jsonb_datum, return_set, sql_function, text_array, text_datum};
use crate::sys::error::raise;
use sea_mq_model::deliver::body::{self, Visible};
use sea_mq_model::deliver::message;
use sea_mq_model::deliver::place::Place;
use sea_mq_model::deliver::signature::{self, Secret};
use sea_mq_model::domain::event::Event;
use sea_mq_model::domain::reader::ReaderId;
use sea_mq_model::domain::sink::{SinkKind, sink_id};
use sea_mq_model::domain::subject::covers;

/// Events before a reader are counted up to this.
const COUNTED: i64 = 1001;

fn refuse(message: impl Into<String>, hint: &str) -> ! {
    raise(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message, hint)
}

sql_function!(dispatch_at_commit_wrapper, pg_finfo_dispatch_at_commit_wrapper, |_call| {
    owe(|owed| owed.endpoints = true);
    pg_sys::Datum::from(0)
});

sql_function!(endpoint_url_wrapper, pg_finfo_endpoint_url_wrapper, |call| {
    let text = call.text(0).unwrap_or_default();
    let network = network().unwrap_or_else(|error| {
        raise(PgSqlErrorCode::ERRCODE_CONFIG_FILE_ERROR, error, "Have a superuser correct the setting.")
    });
    match network.endpoint_url(&text) {
        Ok(url) => text_datum(url.as_str()),
        Err(why) => refuse(
            format!("the URL cannot be that of an endpoint: {why}"),
            "Use https://host/path. A superuser can allow http:// with sea_mq.endpoint_allow_http, and networks that are not public with sea_mq.endpoint_allowed_networks.",
        ),
    }
});

sql_function!(broker_url_wrapper, pg_finfo_broker_url_wrapper, |call| {
    match call.text(0).unwrap_or_default().parse::<Place>() {
        Ok(place) => text_datum(&place.to_string()),
        Err(why) => refuse(
            format!("the URL cannot be that of a broker: {why}"),
            "Use nats://host:port or tls://host:port; after a /, the subject to publish to, in which {subject} stands for the event's own.",
        ),
    }
});

sql_function!(data_place_wrapper, pg_finfo_data_place_wrapper, |_call| text_datum(&vault::place()));

sql_function!(seal_secret_wrapper, pg_finfo_seal_secret_wrapper, |call| {
    let (endpoint, version) = (call.int8(0).unwrap_or_default(), call.int8(2).unwrap_or_default());
    let (name, text) = (call.text(1).unwrap_or_default(), call.text(3).unwrap_or_default());
    match vault::seal(&Label { endpoint, name: &name, version }, &text) {
        Ok(sealed) => bytea_datum(&sealed),
        Err(error) => raise(
            PgSqlErrorCode::ERRCODE_IO_ERROR,
            error,
            "sea_mq.secret_key_file names a file of 32 bytes that the server can read; it is made if there is none.",
        ),
    }
});

sql_function!(generate_secret_wrapper, pg_finfo_generate_secret_wrapper, |call| {
    match signature::generate(call.boolean(0)) {
        Some(secret) => text_datum(&secret),
        None => raise(PgSqlErrorCode::ERRCODE_IO_ERROR, "the system gives no random numbers", "Try again."),
    }
});

sql_function!(public_key_wrapper, pg_finfo_public_key_wrapper, |call| {
    let text = call.text(0).unwrap_or_default();
    match text.parse::<Secret>() {
        Ok(secret) => text_datum(&secret.public().unwrap_or(text)),
        Err(error) => refuse(error.to_string(), "Have sea_mq.rotate_secret make one."),
    }
});

/// An event as `sea_mq.outgoing` hands it over.
#[derive(Deserialize)]
struct Outgoing<'a> {
    message_id: String,
    source_context: String,
    event_type: String,
    event_version: Option<i64>,
    subject: String,
    aggregate_type: Option<String>,
    aggregate_id: Option<String>,
    #[serde(borrow)]
    payload: &'a RawValue,
    correlation_id: Option<String>,
    created_at: String,
    causation_id: Option<String>,
    visibility: Option<String>,
    #[serde(borrow)]
    headers: Option<&'a RawValue>,
    /// Microseconds since 2000-01-01 UTC; where it goes to a broker.
    created_us: Option<i64>,
}

impl Outgoing<'_> {
    fn visible(self) -> Visible {
        Visible {
            id: self.message_id,
            source_context: self.source_context,
            event_type: self.event_type,
            event_version: self.event_version.unwrap_or(1),
            subject: self.subject,
            aggregate_type: self.aggregate_type.unwrap_or_default(),
            aggregate_id: self.aggregate_id.unwrap_or_default(),
            payload: self.payload.get().to_owned(),
            correlation_id: self.correlation_id,
            created_at: self.created_at,
            ..Visible::default()
        }
    }

    /// As the log has events. `None`: the id is none.
    fn whole(self) -> Option<Event> {
        Some(Event {
            id: self.message_id.parse().ok()?,
            sink: sink_id(&self.source_context, SinkKind::Event),
            context: self.source_context,
            subject: Some(self.subject),
            aggregate_type: self.aggregate_type.unwrap_or_default(),
            aggregate_id: self.aggregate_id.unwrap_or_default(),
            event_type: self.event_type,
            event_version: self.event_version.and_then(|version| version.try_into().ok()).unwrap_or(1),
            payload: self.payload.get().to_owned(),
            headers: self.headers.map(|headers| headers.get().to_owned()),
            correlation_id: self.correlation_id,
            causation_id: self.causation_id,
            visibility: self.visibility.unwrap_or_default(),
            created_at: self.created_us.unwrap_or_default(),
            available_at: None,
        })
    }
}

sql_function!(render_event_wrapper, pg_finfo_render_event_wrapper, |call| {
    let (json, format) = (call.jsonb(0).unwrap_or_default(), call.text(1).unwrap_or_default());
    let event = serde_json::from_str::<Outgoing>(&json).ok();
    let rendered = event.and_then(|event| match format.strip_prefix(message::PREFIX) {
        Some(format) => message::render(&event.whole()?, format),
        None => body::render(&event.visible(), format.parse().ok()?, None),
    });
    let Some(body) = rendered else { return call.null() };
    let headers: serde_json::Map<String, serde_json::Value> =
        body.headers.into_iter().map(|(name, value)| (name, value.into())).collect();
    let whole = serde_json::json!({ "body": String::from_utf8_lossy(&body.bytes), "headers": headers });
    jsonb_datum(&whole.to_string())
});

sql_function!(covers_subject_wrapper, pg_finfo_covers_subject_wrapper, |call| {
    let subject = call.text(1).unwrap_or_default();
    pg_sys::Datum::from(text_array(call, 0).iter().any(|filter| covers(filter, &subject)))
});

sql_function!(reader_passed_wrapper, pg_finfo_reader_passed_wrapper, |call| {
    let int8 = |n| call.int8(n).unwrap_or_default();
    pg_sys::Datum::from(cursors::load(ReaderId::Endpoint(int8(0))).is_past(int8(1).cast_unsigned(), int8(2)))
});

sql_function!(reader_unread_wrapper, pg_finfo_reader_unread_wrapper, |call| {
    let at = cursors::load(ReaderId::Endpoint(call.int8(0).unwrap_or_default()));
    let sink = sink_id(&call.text(1).unwrap_or_default(), SinkKind::Event);
    let found = unread::ahead_of(sink, at, COUNTED);
    return_set(call, |row| {
        let oldest = found.first.map(|(_, at)| pg_sys::Datum::from(at));
        row(
            &mut [pg_sys::Datum::from(found.count), oldest.unwrap_or(pg_sys::Datum::from(0))],
            &mut [false, oldest.is_none()],
        );
    })
});
