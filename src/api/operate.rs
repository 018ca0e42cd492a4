//! What callers and operators ask of the relay's work.

use std::sync::atomic::Ordering;
use std::time::Duration;

use pgrx::pg_sys;
use uuid::Uuid;

use crate::emit::pending;
use crate::host::door::as_owner;
use crate::host::roles::Reasons;
use crate::host::shmem::{self, limit};
use crate::host::spi::{self, Arg};
use crate::host::{installation, session};
use crate::log::{backlog, fate, unread};
use crate::sys::datum::{Call, nullable_text, return_set, sql_function, text_datum};

/// How long a session waits for the relay to have asked the broker, and how often it looks.
const LEARN: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(20);

sql_function!(publication_now_wrapper, pg_finfo_publication_now_wrapper, |call| {
    let found = publication(call.uuid(0).unwrap_or_default());
    return_set(call, |row| {
        if let Some(columns) = found {
            let columns: [_; 3] = std::array::from_fn(|at| nullable_text(columns.get(at).and_then(Option::as_deref)));
            row(&mut columns.map(|(value, _)| value), &mut columns.map(|(_, is_null)| is_null));
        }
    })
});

sql_function!(unpublished_bytes_wrapper, pg_finfo_unpublished_bytes_wrapper, |call| {
    let bytes = as_owner(|| call.int8(0).map_or_else(backlog::bytes, backlog::bytes_of));
    pg_sys::Datum::from(i64::try_from(bytes).unwrap_or(i64::MAX))
});

sql_function!(backlog_of_wrapper, pg_finfo_backlog_of_wrapper, |call| {
    let found = unread::of(call.int8(0).unwrap_or_default(), call.int8(1).unwrap_or_default());
    return_set(call, |row| {
        let (seq, created_at) = found.first.unzip();
        let columns = [Some(found.count), seq, created_at];
        row(
            &mut columns.map(|value| pg_sys::Datum::from(value.unwrap_or_default())),
            &mut columns.map(|value| value.is_none()),
        );
    })
});

sql_function!(fate_of_wrapper, pg_finfo_fate_of_wrapper, |call| {
    let found = fate::of(call.uuid(0).unwrap_or_default());
    return_set(call, |row| {
        if let Some(fate) = &found {
            let event = &fate.logged.event;
            let (published_at, stream_seq) = fate.stored.unzip();
            let columns = [
                Some(pg_sys::Datum::from(fate.logged.seq)),
                Some(pg_sys::Datum::from(event.sink)),
                Some(pg_sys::Datum::from(fate.passed)),
                Some(text_datum(&event.subject())),
                Some(pg_sys::Datum::from(event.created_at)),
                event.available_at.map(pg_sys::Datum::from),
                published_at.map(pg_sys::Datum::from),
                stream_seq.map(pg_sys::Datum::from),
            ];
            let mut nulls = columns.map(|value| value.is_none());
            row(&mut columns.map(|value| value.unwrap_or(pg_sys::Datum::from(0))), &mut nulls);
        }
    })
});

sql_function!(is_passed_wrapper, pg_finfo_is_passed_wrapper, |call| {
    let place = call.int8(0).zip(call.int8(1)).zip(call.int8(2));
    pg_sys::Datum::from(place.is_some_and(|((sink, seq), xid)| unread::is_passed(sink, seq, xid.cast_unsigned())))
});

sql_function!(stored_at_wrapper, pg_finfo_stored_at_wrapper, |call| {
    stored(call).map_or_else(|| call.null(), |(published_at, _)| pg_sys::Datum::from(published_at))
});

sql_function!(stored_as_wrapper, pg_finfo_stored_as_wrapper, |call| {
    stored(call).map_or_else(|| call.null(), |(_, stream_seq)| pg_sys::Datum::from(stream_seq))
});

/// When and where the event at a place of the log was stored.
fn stored(call: Call) -> Option<(i64, i64)> {
    fate::stored(call.int8(0)?, call.int8(1)?, call.int8(2)?.cast_unsigned())
}

sql_function!(unpublished_sinks_wrapper, pg_finfo_unpublished_sinks_wrapper, |call| {
    let found = unread::sinks();
    return_set(call, |row| {
        for (sink, first) in &found {
            row(&mut [pg_sys::Datum::from(*sink), pg_sys::Datum::from(*first)], &mut [false; 2]);
        }
    })
});

// Has the relay ask for the broker's limits once more, and waits for that, for a bounded time.
sql_function!(learn_limits_wrapper, pg_finfo_learn_limits_wrapper, |_call| {
    if let Some(database) = shmem::here()
        && database.max_payload.load(Ordering::Acquire) > 0
    {
        database.limit.store(limit::AWAITED, Ordering::Release);
        database.note(Reasons::DESCRIPTIONS);
        session::wait_until(LEARN, LOOK, || database.limit.load(Ordering::Acquire) == limit::KNOWN);
    }
    pg_sys::Datum::from(0)
});

/// State, error and time until which it is held back; `None` for an event that is not known.
fn publication(id: Uuid) -> Option<Vec<Option<String>>> {
    let state = |word: &str| Some(vec![Some(word.to_owned())]);
    if !as_owner(installation::has_broker) {
        return state("unconfigured");
    }
    if pending::holds(id) {
        return state("pending");
    }
    let sql = "SELECT * FROM sea_mq.publication($1)";
    as_owner(|| spi::query(sql, &[Arg::Text(&id.to_string())]).into_iter().next())
}
