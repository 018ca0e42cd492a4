//! `/events`, `/event-batches`.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use axum::extract::{Path, Query as Search};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::{Value, json};
use uuid::Uuid;

use super::operation::{Answer, Object, Operation, Query, Shape, created, may, must};
use super::problem::Problem;
use super::request::{Ctx, Json, Names, answer};
use super::shapes::{EVENT_REF, EVENT_REFS, EVENT_STATUS};
use crate::db::call::{Ask, Call};
use crate::db::pool::Access;

/// Events of a batch.
const MOST: usize = 1000;

const NEW_EVENT: Shape = Shape {
    name: "NewEvent",
    members: &[
        must("aggregate_type", "text", "Type of the aggregate that changed"),
        must("aggregate_id", "text", "Its id; a number is taken as its digits"),
        must("event_type", "text", "Name: OrderCreated and order_created are the same"),
        must("payload", "jsonb", "Content"),
        may("event_version", "integer", "Version of the event type; 1 unless said"),
        may("context", "text", "Bounded context; the database's unless said"),
        may("event_id", "uuid", "Makes the call repeatable: the same id with the same content is one event"),
        may("correlation_id", "text", "Unless said, X-Correlation-Id"),
        may("causation_id", "text", "What caused it"),
        may("headers", "jsonb", "Headers of the message: an object of strings"),
        may("visibility", "text", "public, partner, internal or sensitive"),
        may("available_at", "timestamptz", "Not to be published before"),
    ],
};
const BATCH: Shape =
    Shape { name: "NewEvents", members: &[must("events", "jsonb", "1 to 1,000 NewEvent: all are emitted, or none")] };

const KEY: (&str, &str) =
    ("Idempotency-Key", "A UUID becomes the event's id; anything else, one made of the caller and the key");

pub fn operations() -> Vec<Operation> {
    vec![
        Operation::post("/events", post(emit))
            .says("Emit an event")
            .roles(&["producer"])
            .headers(&[KEY])
            .body(NEW_EVENT)
            .answers(Answer::Object(EVENT_REF)),
        Operation::post("/event-batches", post(emit_many))
            .says("Emit many events: all or none")
            .roles(&["producer"])
            .headers(&[KEY])
            .body(BATCH)
            .answers(Answer::Object(EVENT_REFS)),
        Operation::get("/events/{id}", get(status))
            .says("What became of an event")
            .roles(&["operator", "monitor"])
            .query(&[Query { name: "wait", kind: "text", says: "How long to wait for its end, as in 5s; 8s at most" }])
            .answers(Answer::Object(EVENT_STATUS)),
        Operation::post("/events/{id}/retries", post(retry))
            .says("Send an event again that the broker had refused")
            .roles(&["operator"])
            .answers(Answer::Object(super::shapes::COUNT)),
    ]
}

/// The subject that an event gets, as `emit` makes it: of those who may emit, not all may look.
const SUBJECT: &str =
    "concat_ws('.', sea_mq.context_name(coalesce(e.context, current_setting('sea_mq.context', true))), 'event',
    sea_mq.event_name(e.event_type), 'v' || coalesce(e.event_version, 1))";

async fn emit(ctx: Ctx, headers: HeaderMap, Json(mut event): Json<Object>) -> Result<Response, Problem> {
    if let Some(key) = idempotency_key(&headers)? {
        event.entry("event_id").or_insert_with(|| event_id(&ctx.caller.role, &key, None).to_string().into());
    }
    let mut ask = NEW_EVENT.call("sea_mq.emit", &event)?.value();
    let place = ask.params.len() + 1;
    ask = ask.with(Value::Object(event).to_string());
    ask.sql = format!(
        "SELECT jsonb_build_object('id', i.id, 'subject', {SUBJECT})::text FROM ({}) AS i(id),
            jsonb_to_record(${place}::text::jsonb) AS e(context text, event_type text, event_version integer)",
        ask.sql
    );
    let mut rows = ctx.rows(Access::Write, Names::InBody, ask).await?;
    let body = rows.pop().unwrap_or_default();
    let id = serde_json::from_str::<Value>(&body).ok().and_then(|event| event["id"].as_str().map(str::to_owned));
    Ok(created(&ctx.app.link(&format!("/v1/events/{}", id.unwrap_or_default())), body))
}

async fn emit_many(ctx: Ctx, headers: HeaderMap, Json(mut batch): Json<Object>) -> Result<Response, Problem> {
    BATCH.check(&batch)?;
    let Some(Value::Array(mut events)) = batch.remove("events") else {
        return Err(Problem::invalid("events must be an array"));
    };
    if events.is_empty() || events.len() > MOST {
        return Err(Problem::invalid(format!("a batch has 1 to {MOST} events")));
    }
    let key = idempotency_key(&headers)?;
    for (at, event) in events.iter_mut().enumerate() {
        let Value::Object(event) = event else { return Err(Problem::invalid(format!("event {at} is not an object"))) };
        NEW_EVENT.check_at(event, &format!("/events/{at}"))?;
        if let Some(key) = &key {
            event.entry("event_id").or_insert_with(|| event_id(&ctx.caller.role, key, Some(at)).to_string().into());
        }
    }
    let ask = Ask::new(format!(
        "SELECT jsonb_build_object('events', jsonb_agg(jsonb_build_object('id', i.id, 'subject', {SUBJECT}) ORDER BY i.place))::text
         FROM ROWS FROM (sea_mq.emit_array($1::text::jsonb), jsonb_array_elements($1::text::jsonb)) WITH ORDINALITY AS i(id, event, place),
            jsonb_to_record(i.event) AS e(context text, event_type text, event_version integer)"
    ));
    let rows = ctx.rows(Access::Write, Names::InBody, ask.with(Value::Array(events).to_string())).await?;
    Ok(answer(StatusCode::CREATED, rows.into_iter().next().unwrap_or_default()))
}

/// # Errors
/// 422, if the header is there and says nothing, or too much.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    if text.is_empty() || text.len() > 255 {
        return Err(Problem::invalid("Idempotency-Key must be a text of up to 255 characters"));
    }
    Ok(Some(text.to_owned()))
}

/// The same for the same caller and key. A batch has one for each of its events.
fn event_id(role: &str, key: &str, place: Option<usize>) -> Uuid {
    let own = Uuid::parse_str(key).ok().filter(|_| place.is_none());
    own.unwrap_or_else(|| {
        let place = place.map(|at| at.to_string()).unwrap_or_default();
        Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("sea_mq\n{role}\n{key}\n{place}").as_bytes())
    })
}

const PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(8);

/// Waits between questions, not in one: no transaction is open meanwhile.
async fn status(
    ctx: Ctx,
    Path(id): Path<String>,
    Search(query): Search<HashMap<String, String>>,
) -> Result<Response, Problem> {
    let id = uuid(&id)?;
    let wait = query.get("wait").map_or(Ok(Duration::ZERO), |text| duration(text))?;
    let until = Instant::now() + wait.min(LONGEST_WAIT);
    let mut pause = PAUSE;
    loop {
        let ask = Call::of("sea_mq.event_status").with("event_id", "uuid", id.to_string()).rows();
        let row = ctx.rows(Access::Read, Names::InPath, ask).await?.into_iter().next();
        let ended =
            row.as_deref().is_some_and(|row| ["\"delivered\"", "\"failed\""].iter().any(|end| row.contains(end)));
        if ended || Instant::now() + pause > until {
            return row.map(|row| answer(StatusCode::OK, row)).ok_or_else(|| {
                Problem::missing(format!("event {id} is not known"))
                    .hint("It is known once it has committed, and for as long as it is retained.")
            });
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn retry(ctx: Ctx, Path(id): Path<String>) -> Result<Response, Problem> {
    let id = uuid(&id)?;
    let ask = Call::of("sea_mq.retry_failed").with("event_id", "uuid", id.to_string()).value();
    let count = ctx.one(Access::Write, ask, "the event is not known").await?;
    Ok(answer(StatusCode::CREATED, json!({"events": count.parse::<i64>().unwrap_or_default()}).to_string()))
}

pub fn uuid(text: &str) -> Result<Uuid, Problem> {
    Uuid::parse_str(text).map_err(|_| Problem::invalid("the id in the path is no UUID"))
}

/// `500ms`, `5s`, `5`.
///
/// # Errors
/// 422.
pub fn duration(text: &str) -> Result<Duration, Problem> {
    let bad = || Problem::invalid("wait must be a time as in 5s or 500ms");
    let (number, unit) = text.strip_suffix("ms").map_or((text.trim_end_matches('s'), 1000), |number| (number, 1));
    let millis: u64 = number.parse::<u64>().map_err(|_| bad())?.checked_mul(unit).ok_or_else(bad)?;
    Ok(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_gives_the_same_id_to_the_same_caller_only() {
        let id = Uuid::now_v7();
        assert_eq!(event_id("a", &id.to_string(), None), id);
        assert_eq!(event_id("a", "k", None), event_id("a", "k", None));
        assert_ne!(event_id("a", "k", None), event_id("b", "k", None));
        assert_ne!(event_id("a", &id.to_string(), Some(0)), event_id("a", &id.to_string(), Some(1)));
    }

    #[test]
    fn times_have_units() {
        let of = |text| duration(text).ok();
        assert_eq!(of("5s"), Some(Duration::from_secs(5)));
        assert_eq!(of("250ms"), Some(Duration::from_millis(250)));
        assert_eq!((of("soon"), of("-1s")), (None, None));
    }
}
