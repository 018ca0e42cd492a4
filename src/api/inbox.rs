//! What the SQL of the inbox and of the dead letter queue cannot do by itself.

use pgrx::pg_sys;

use super::emit::sink_kind;
use crate::emit::admission::check_size;
use crate::emit::pending;
use crate::host::owed::owe;
use crate::inbox::done;
use crate::log::outbox;
use crate::sys::clock;
use crate::sys::datum::{jsonb_datum, sql_function};
use crate::sys::error::OrRefuse;
use sea_mq_model::domain::event::{self, Event};
use sea_mq_model::domain::sink::{SinkKind, sink_id};

sql_function!(inbox_wake_at_commit_wrapper, pg_finfo_inbox_wake_at_commit_wrapper, |_call| {
    owe(|owed| owed.inbox = true);
    pg_sys::Datum::from(0)
});

sql_function!(inbox_slot_wrapper, pg_finfo_inbox_slot_wrapper, |_call| pg_sys::Datum::from(done::lock_current_slot()));

sql_function!(inbox_holds_wrapper, pg_finfo_inbox_holds_wrapper, |call| {
    let text = |n| call.text(n).unwrap_or_default();
    pg_sys::Datum::from(done::holds(&text(0), &text(1)))
});

sql_function!(log_position_wrapper, pg_finfo_log_position_wrapper, |_call| {
    let (moment, floor) = outbox::end();
    let json = serde_json::json!({ "done": moment.snapshot.to_string(), "next_xid": moment.next_xid, "floor": floor });
    jsonb_datum(&json.to_string())
});

sql_function!(emit_raw_wrapper, pg_finfo_emit_raw_wrapper, |call| {
    let text = |n| call.text(n).unwrap_or_default();
    let kind = sink_kind(&text(0)).or_refuse();
    let (context, subject) = (text(1), text(2));
    let subject = match kind {
        // A dead letter must not fail; X-Original-Subject says what it was.
        SinkKind::DeadLetter => event::fit_subject(&subject),
        SinkKind::Event => {
            event::check_subject(&subject).or_refuse();
            subject
        }
    };
    // It came from somebody else, whose texts may be no headers.
    let line = |n| event::one_line(&text(n));
    let optional = |n| Some(line(n)).filter(|text| !text.is_empty());
    let event = Event {
        id: call.uuid(3).unwrap_or_default(),
        sink: sink_id(&context, kind),
        subject: Some(subject),
        event_type: line(4),
        event_version: call.int4(5).unwrap_or(1),
        aggregate_type: line(6),
        aggregate_id: line(7),
        payload: call.jsonb(8).unwrap_or_else(|| "null".into()),
        headers: event::headers_to_send_on(call.jsonb(9).as_deref()),
        correlation_id: optional(10),
        causation_id: optional(11),
        visibility: optional(12).unwrap_or_else(|| event::DEFAULT_VISIBILITY.into()),
        created_at: call.timestamp(13).unwrap_or_else(clock::now),
        available_at: None,
        context,
    };
    // Describes the stream at pre-commit, should it not be there yet.
    let facts = pending::facts(event.sink, &event.context, kind);
    // A dead letter that does not fit has its row all the same.
    let fits = kind != SinkKind::Event || check_size(&event, &facts).is_ok();
    if fits {
        pending::add(event, false);
    }
    pg_sys::Datum::from(fits)
});
