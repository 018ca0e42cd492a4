//! `/endpoints`, `/deliveries`.

use std::collections::HashMap;

use axum::extract::{Path, Query as Search};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{delete, get, patch, post, put};
use serde_json::{Value, json};

use super::endpoint_shapes::{
    CHANGED, CHECKS, DELIVERIES, DELIVERY, DELIVERY_REF, ENDPOINT, ENDPOINT_REF, NEW, NEW_DELIVERY, NEW_SECRET,
    REDELIVERIES, REDELIVERY, SECRET,
};
use super::operation::{AFTER, Answer, LIMIT, Object, Operation, Query, created, limit, page, segment};
use super::problem::Problem;
use super::request::{Ctx, Json, Names, Optional, answer};
use super::shapes::COUNT;
use crate::db::call::{Ask, Call};
use crate::db::pool::Access;

const ONE: &str = "/endpoints/{endpoint}";

pub fn operations() -> Vec<Operation> {
    let mut all = described();
    all.extend(delivered());
    all
}

fn described() -> Vec<Operation> {
    vec![
        Operation::get("/endpoints", get(list))
            .says("Endpoints and how they are")
            .roles(&["operator", "monitor"])
            .query(&[AFTER, LIMIT])
            .answers(Answer::Page(ENDPOINT)),
        Operation::post("/endpoints", post(create))
            .says("Describe an endpoint")
            .roles(&["operator"])
            .body(NEW)
            .answers(Answer::Object(ENDPOINT_REF)),
        Operation::get(ONE, get(show))
            .says("An endpoint and how it is")
            .roles(&["operator", "monitor"])
            .answers(Answer::Object(ENDPOINT)),
        Operation::patch(ONE, patch(alter))
            .says("Change an endpoint")
            .roles(&["operator"])
            .body(CHANGED)
            .answers(Answer::Object(ENDPOINT)),
        Operation::delete(ONE, delete(drop_one)).says("Give an endpoint up").roles(&["operator"]).query(&[Query {
            name: "discard_pending",
            kind: "boolean",
            says: "Even if events wait for it",
        }]),
        Operation::put("/endpoints/{endpoint}/pause", put(pause))
            .says("Pause an endpoint")
            .roles(&["operator"])
            .success(&[204]),
        Operation::delete("/endpoints/{endpoint}/pause", delete(resume)).says("Let it go on").roles(&["operator"]),
        Operation::post("/endpoints/{endpoint}/secrets", post(secret))
            .says("Set a secret, or make a new one to sign with")
            .roles(&["operator"])
            .body(NEW_SECRET)
            .answers(Answer::Object(SECRET)),
        Operation::post("/endpoints/{endpoint}/checks", post(check))
            .says("Send a ping, and say how far it came")
            .roles(&["operator"])
            .answers(Answer::Object(CHECKS)),
    ]
}

fn delivered() -> Vec<Operation> {
    vec![
        Operation::get("/endpoints/{endpoint}/deliveries", get(deliveries))
            .says("What was tried at an endpoint, the newest events first")
            .roles(&["operator", "monitor"])
            .query(&[AFTER, LIMIT, Query { name: "status", kind: "text", says: "Only those in this state" }])
            .answers(Answer::Page(DELIVERY)),
        Operation::post("/endpoints/{endpoint}/deliveries", post(deliver))
            .says("Send an event to this endpoint alone")
            .roles(&["operator"])
            .body(NEW_DELIVERY)
            .answers(Answer::Object(DELIVERY_REF)),
        Operation::post("/endpoints/{endpoint}/redeliveries", post(redeliver_all))
            .says("Send once more what it got, or did not take, between two times")
            .roles(&["operator"])
            .body(REDELIVERIES)
            .answers(Answer::Object(COUNT)),
        Operation::get("/deliveries/{event}", get(status))
            .says("What became of an event at its endpoints")
            .roles(&["operator", "monitor", "producer"])
            .answers(Answer::Object(DELIVERIES)),
        Operation::post("/deliveries/{event}/redeliveries", post(redeliver))
            .says("Send an event to an endpoint once more")
            .roles(&["operator"])
            .body(REDELIVERY)
            .answers(Answer::Object(DELIVERY_REF)),
        Operation::post("/deliveries/{event}/cancellations", post(cancel))
            .says("Give up a delivery that waits")
            .roles(&["operator"])
            .body(REDELIVERY)
            .answers(Answer::Object(DELIVERY_REF)),
    ]
}

type Search1 = Search<HashMap<String, String>>;

const UNKNOWN: &str = "there is no such endpoint";

/// As described, and how it is doing.
const ROWS: &str = "SELECT e.endpoint, e.kind, e.url, e.source, e.filter, e.audience, e.format, e.method, e.headers, e.body, e.auth,
    e.ordering, e.on_exhausted, e.max_in_flight, e.rate, e.timeout, e.connect_timeout, e.retry_schedule, e.max_age, e.max_size,
    e.keep_response, e.start_from, e.created_by, e.created_at, e.updated_at, s.state, s.error_kind, s.error, s.hint, s.since, s.in_flight,
    s.\"window\", s.retrying, s.lag, s.oldest_undelivered_at, s.delivered, s.failed, s.attempts, s.last_delivered_at, s.p50, s.p99
    FROM sea_mq.endpoints e JOIN sea_mq.endpoint_status s ON s.endpoint = e.endpoint";

async fn list(ctx: Ctx, Search(query): Search1) -> Result<Response, Problem> {
    let limit = limit(query.get("limit").map(String::as_str))?;
    let ask = Ask::new(format!(
        "{ROWS} WHERE $1::text IS NULL OR e.endpoint > $1 ORDER BY e.endpoint LIMIT $2::text::bigint"
    ))
    .with(query.get("after").cloned())
    .with(limit + 1);
    let mut rows = ctx.rows(Access::Read, Names::InBody, ask.rows_of()).await?;
    Ok(answer(StatusCode::OK, page(&mut rows, limit, "endpoint")))
}

/// One endpoint.
pub fn one(name: &str) -> Ask {
    Ask::new(format!("{ROWS} WHERE e.endpoint = $1")).with(name).rows_of()
}

async fn show(ctx: Ctx, Path(name): Path<String>) -> Result<Response, Problem> {
    let row = ctx.one(Access::Read, one(&name), UNKNOWN).await?;
    Ok(answer(StatusCode::OK, row))
}

async fn create(ctx: Ctx, Json(body): Json<Object>) -> Result<Response, Problem> {
    let rows = ctx.rows(Access::Write, Names::InBody, NEW.call("sea_mq.create_endpoint", &body)?.value()).await?;
    let name = rows.into_iter().next().unwrap_or_default();
    Ok(created(&ctx.app.link(&format!("/v1/endpoints/{}", segment(&name))), json!({"endpoint": name}).to_string()))
}

async fn alter(ctx: Ctx, Path(name): Path<String>, Json(body): Json<Object>) -> Result<Response, Problem> {
    let call = CHANGED.call("sea_mq.alter_endpoint", &body)?.with("endpoint", "text", &name);
    ctx.rows(Access::Write, Names::InPath, call.value()).await?;
    show(ctx, Path(name)).await
}

async fn drop_one(ctx: Ctx, Path(name): Path<String>, Search(query): Search1) -> Result<Response, Problem> {
    let discard = query.get("discard_pending").is_some_and(|value| value == "true");
    named(ctx, Call::of("sea_mq.drop_endpoint").with("discard_pending", "boolean", discard), &name).await
}

async fn pause(ctx: Ctx, Path(name): Path<String>) -> Result<Response, Problem> {
    named(ctx, Call::of("sea_mq.pause_endpoint"), &name).await
}

async fn resume(ctx: Ctx, Path(name): Path<String>) -> Result<Response, Problem> {
    named(ctx, Call::of("sea_mq.resume_endpoint"), &name).await
}

async fn named(ctx: Ctx, call: Call, name: &str) -> Result<Response, Problem> {
    ctx.rows(Access::Write, Names::InPath, call.with("endpoint", "text", name).value()).await?;
    Ok(answer(StatusCode::NO_CONTENT, ""))
}

/// With a value it is set; without one, a new one to sign with is made and shown, once.
async fn secret(
    ctx: Ctx,
    Path(endpoint): Path<String>,
    Optional(mut body): Optional<Object>,
) -> Result<Response, Problem> {
    NEW_SECRET.check(&body)?;
    let of_value = body.contains_key("value");
    let (rest, function) = if of_value {
        (["grace", "scheme"].as_slice(), "sea_mq.set_secret")
    } else {
        (["name", "value"].as_slice(), "sea_mq.rotate_secret")
    };
    let mine = body.get("name").and_then(Value::as_str).is_none_or(|name| of_value || name == "signing");
    body.retain(|key, value| !value.is_null() && (key != "name" || of_value));
    if !mine || rest.iter().any(|key| body.contains_key(*key)) {
        return Err(Problem::invalid("a secret is set by name and value, or made anew with grace and scheme")
            .hint("Only the secret to sign with is made here; give a value for any other."));
    }
    let call = NEW_SECRET.call(function, &body)?.with("endpoint", "text", endpoint);
    let value = ctx.one(Access::Write, call.value(), UNKNOWN).await?;
    let made = if of_value { json!({"name": value}) } else { json!({"name": "signing", "secret": value}) };
    Ok(answer(StatusCode::CREATED, made.to_string()))
}

/// The function answers nothing for an endpoint that is not there.
async fn check(ctx: Ctx, Path(name): Path<String>) -> Result<Response, Problem> {
    ctx.one(Access::Read, one(&name), UNKNOWN).await?;
    let call = Call::of("sea_mq.check_endpoint").with("endpoint", "text", name);
    let rows = ctx.rows(Access::Write, Names::InPath, call.rows()).await?;
    Ok(answer(StatusCode::CREATED, format!("{{\"steps\":[{}]}}", rows.join(","))))
}

/// What was tried at an endpoint. Each condition that is there is written out, for the indexes.
pub fn deliveries_of(endpoint: &str, after: Option<&str>, status: Option<&str>, max: i64) -> Ask {
    let mut ask = Ask::new("").with(endpoint).with(max);
    let mut conditions = String::new();
    for (value, condition, kind) in [(after, "d.event_id <", "uuid"), (status, "d.status =", "text")] {
        if let Some(value) = value {
            ask = ask.with(value);
            conditions += &format!(" AND {condition} ${}::text::{kind}", ask.params.len());
        }
    }
    ask.sql = format!(
        "SELECT d.event_id, d.endpoint, d.status, d.attempts, d.http_status, d.error, d.errors, d.next_attempt_at, d.delivered_at,
            d.duration, d.response
         FROM sea_mq.deliveries d WHERE d.endpoint = $1{conditions} ORDER BY d.event_id DESC LIMIT $2::text::bigint"
    );
    ask.rows_of()
}

async fn deliveries(ctx: Ctx, Path(name): Path<String>, Search(query): Search1) -> Result<Response, Problem> {
    let limit = limit(query.get("limit").map(String::as_str))?;
    let of = |key: &str| query.get(key).map(String::as_str);
    let ask = deliveries_of(&name, of("after"), of("status"), limit + 1);
    let mut rows = ctx.rows(Access::Read, Names::InPath, ask).await?;
    if rows.is_empty() {
        // Of an endpoint that is not there, 404.
        ctx.one(Access::Read, one(&name), UNKNOWN).await?;
    }
    Ok(answer(StatusCode::OK, page(&mut rows, limit, "event_id")))
}

async fn deliver(ctx: Ctx, Path(endpoint): Path<String>, Json(body): Json<Object>) -> Result<Response, Problem> {
    let call = NEW_DELIVERY.call("sea_mq.deliver", &body)?.with("endpoint", "text", &endpoint);
    let event = ctx.one(Access::Write, call.value(), UNKNOWN).await?;
    let body = json!({"event_id": event, "endpoint": endpoint}).to_string();
    Ok(created(&ctx.app.link(&format!("/v1/deliveries/{event}")), body))
}

async fn redeliver_all(ctx: Ctx, Path(endpoint): Path<String>, Json(body): Json<Object>) -> Result<Response, Problem> {
    let call = REDELIVERIES.call("sea_mq.redeliver_all", &body)?.with("endpoint", "text", endpoint);
    let count = ctx.one(Access::Write, call.value(), UNKNOWN).await?;
    Ok(answer(StatusCode::CREATED, json!({"events": count.parse::<i64>().unwrap_or_default()}).to_string()))
}

async fn status(ctx: Ctx, Path(event): Path<String>) -> Result<Response, Problem> {
    let call = Call::of("sea_mq.delivery_status").with("event_id", "uuid", &event);
    let rows = ctx.rows(Access::Read, Names::InPath, call.rows()).await?;
    if rows.is_empty() {
        return Err(Problem::missing("no endpoint gets this event, or it is not retained any more"));
    }
    Ok(answer(StatusCode::OK, format!("{{\"event_id\":{},\"deliveries\":[{}]}}", json!(event), rows.join(","))))
}

async fn redeliver(ctx: Ctx, Path(event): Path<String>, Json(body): Json<Object>) -> Result<Response, Problem> {
    let call = REDELIVERY.call("sea_mq.redeliver", &body)?.with("event_id", "uuid", &event);
    let again = ctx.one(Access::Write, call.value(), UNKNOWN).await?;
    Ok(answer(StatusCode::CREATED, json!({"event_id": again, "endpoint": body["endpoint"]}).to_string()))
}

async fn cancel(ctx: Ctx, Path(event): Path<String>, Json(body): Json<Object>) -> Result<Response, Problem> {
    let call = REDELIVERY.call("sea_mq.cancel_delivery", &body)?.with("event_id", "uuid", &event);
    if ctx.one(Access::Write, call.value(), UNKNOWN).await? != "true" {
        return Err(Problem::new(StatusCode::CONFLICT, "this delivery does not wait")
            .hint("It is done, or the event is still in the log: see /v1/deliveries/{event}."));
    }
    Ok(answer(StatusCode::CREATED, json!({"event_id": event, "endpoint": body["endpoint"]}).to_string()))
}
