//! `/subscriptions`, `/leases`.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use axum::extract::{Path, Query as Search};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::{delete, get, patch, post, put};
use ring::digest;
use serde_json::{Value, json};

use super::events::duration;
use super::operation::{
    AFTER, Answer, LIMIT, Object, Operation, Query, Shape, created, limit, may, must, page, segment,
};
use super::problem::Problem;
use super::request::{Ctx, Json, Names, Optional, answer};
use super::shapes::{LEASE, LEASES, MESSAGE, SUBSCRIPTION, SUBSCRIPTION_REF};
use crate::db::call::{Ask, Call};
use crate::db::pool::Access;

const NEW: Shape = Shape {
    name: "NewSubscription",
    members: &[
        must("subscription", "text", "Its name: {service}__{purpose}"),
        must("source", "text", "A context or a stream"),
        may("handler", "regproc", "Function that handles; neither that nor an endpoint: messages wait for leases"),
        may("endpoint", "text", "Endpoint that handles"),
        may("filter", "text", "Event types or subjects"),
        may("priority", "integer", "The greater number goes first"),
        may("max_deliver", "integer", "Attempts before a message is a dead letter; -1: no limit"),
        may("ack_wait", "interval", "How long an attempt may take"),
        may("max_ack_pending", "integer", "Messages under way at most"),
        may("max_retrying", "integer", "Messages that wait for another attempt at most; then nothing new is tried"),
        may("start_from", "text", "new, all, a time or a sequence"),
        may("workers", "integer", "Messages that are handled at the same time"),
        may("timeout", "interval", "How long the handler may run"),
        may("retry_delay", "interval", "Before the second attempt"),
        may("retry_delay_max", "interval", "Between attempts at most"),
        may("context", "text", "Context of its dead letters"),
        may("contracts", "text", "off, warn or enforce"),
    ],
};
/// What `PUT` takes: the path has the name.
const PUT: Shape = Shape { name: "PutSubscription", members: NEW.members.split_at(1).1 };
const CHANGED: Shape = Shape {
    name: "ChangedSubscription",
    members: &[
        may("handler", "regproc", "Function that handles"),
        may("endpoint", "text", "Endpoint that handles"),
        may("filter", "text", "Event types or subjects"),
        may("priority", "integer", "The greater number goes first"),
        may("max_deliver", "integer", "Attempts before a message is a dead letter; -1: no limit"),
        may("ack_wait", "interval", "How long an attempt may take"),
        may("max_ack_pending", "integer", "Messages under way at most"),
        may("max_retrying", "integer", "Messages that wait for another attempt at most; then nothing new is tried"),
        may("workers", "integer", "Messages that are handled at the same time"),
        may("timeout", "interval", "How long the handler may run"),
        may("retry_delay", "interval", "Before the second attempt"),
        may("retry_delay_max", "interval", "Between attempts at most"),
        may("context", "text", "Context of its dead letters"),
        may("owner", "name", "Role that it belongs to"),
        may("contracts", "text", "off, warn or enforce"),
    ],
};
const RECEIVE: Shape = Shape {
    name: "NewLeases",
    members: &[
        may("max", "integer", "Messages at most"),
        may("lease", "interval", "How long they are the caller's"),
        may("per_aggregate", "boolean", "One message of an aggregate at a time"),
        may("wait", "text", "How long to wait for the first, as in 5s; 8s at most"),
    ],
};
const FAILURE: Shape = Shape {
    name: "Failure",
    members: &[must("error", "text", "What went wrong"), may("retry_in", "interval", "When to try again")],
};
const REJECTION: Shape = Shape { name: "Rejection", members: &[must("reason", "text", "Why it can never be handled")] };
const EXTENSION: Shape = Shape { name: "Extension", members: &[may("lease", "interval", "How long from now on")] };

const IF_MATCH: (&str, &str) = ("If-Match", "The ETag that GET gave: changed meanwhile is 412");

pub fn operations() -> Vec<Operation> {
    let lookers: &[&str] = &["viewer", "consumer", "operator", "monitor"];
    let managers: &[&str] = &["consumer", "operator"];
    let one = "/subscriptions/{subscription}";
    vec![
        Operation::get("/subscriptions", get(list))
            .says("Subscriptions and how they are")
            .roles(lookers)
            .query(&[AFTER, LIMIT])
            .answers(Answer::Page(SUBSCRIPTION)),
        Operation::post("/subscriptions", post(create))
            .says("Subscribe")
            .roles(managers)
            .body(NEW)
            .answers(Answer::Object(SUBSCRIPTION_REF)),
        Operation::get(one, get(show))
            .says("A subscription and how it is")
            .roles(lookers)
            .answers(Answer::Object(SUBSCRIPTION)),
        Operation::put(one, put(replace))
            .says("Subscribe under this name")
            .roles(managers)
            .body(PUT)
            .answers(Answer::Object(SUBSCRIPTION_REF)),
        Operation::patch(one, patch(alter))
            .says("Change a subscription")
            .roles(managers)
            .headers(&[IF_MATCH])
            .body(CHANGED)
            .answers(Answer::Object(SUBSCRIPTION))
            .errors(&[409, 412]),
        Operation::delete(one, delete(unsubscribe)).says("Unsubscribe").roles(managers),
        Operation::put("/subscriptions/{subscription}/pause", put(pause))
            .says("Pause a subscription")
            .roles(managers)
            .success(&[204]),
        Operation::delete("/subscriptions/{subscription}/pause", delete(resume)).says("Let it go on").roles(managers),
        Operation::get("/subscriptions/{subscription}/messages", get(messages))
            .says("Messages of its inbox, the newest first")
            .roles(&["operator", "monitor"])
            .query(&[AFTER, LIMIT, Query { name: "status", kind: "text", says: "Only those in this state" }])
            .answers(Answer::Page(MESSAGE)),
        Operation::post("/subscriptions/{subscription}/leases", post(receive))
            .says("Receive messages")
            .roles(&["consumer"])
            .body(RECEIVE)
            .answers(Answer::Object(LEASES)),
        Operation::patch("/leases/{id}", patch(extend))
            .says("Keep a message longer")
            .roles(&["consumer"])
            .body(EXTENSION)
            .answers(Answer::Object(LEASE)),
        Operation::post("/leases/{id}/completions", post(complete))
            .says("It is done")
            .roles(&["consumer"])
            .answers(Answer::Object(LEASE)),
        Operation::post("/leases/{id}/failures", post(fail))
            .says("It failed, and is tried again")
            .roles(&["consumer"])
            .body(FAILURE)
            .answers(Answer::Object(LEASE)),
        Operation::post("/leases/{id}/rejections", post(reject))
            .says("It can never be handled")
            .roles(&["consumer"])
            .body(REJECTION)
            .answers(Answer::Object(LEASE)),
    ]
}

type Search1 = Search<HashMap<String, String>>;

async fn list(ctx: Ctx, Search(query): Search1) -> Result<Response, Problem> {
    let limit = limit(query.get("limit").map(String::as_str))?;
    let of = |view: &str| {
        Ask::new(format!("SELECT * FROM {view} s WHERE $1::text IS NULL OR s.subscription > $1 ORDER BY s.subscription LIMIT $2::text::bigint"))
            .with(query.get("after").cloned()).with(limit + 1).rows_of()
    };
    let mut rows =
        ctx.rows_or(Names::InBody, of("sea_mq.subscription_status"), of("sea_mq.subscription_overview")).await?;
    Ok(answer(StatusCode::OK, page(&mut rows, limit, "subscription")))
}

async fn shown(ctx: &Ctx, name: &str) -> Result<String, Problem> {
    let of = |view: &str| Ask::new(format!("SELECT * FROM {view} s WHERE s.subscription = $1")).with(name).rows_of();
    let rows = ctx.rows_or(Names::InPath, of("sea_mq.subscription_status"), of("sea_mq.subscription_overview")).await?;
    rows.into_iter()
        .next()
        .ok_or_else(|| Problem::missing("there is no such subscription").hint("See /v1/subscriptions."))
}

async fn show(ctx: Ctx, Path(name): Path<String>) -> Result<Response, Problem> {
    let row = shown(&ctx, &name).await?;
    let tag = tag(&ctx, &name).await.ok();
    let mut response = answer(StatusCode::OK, row);
    if let Some(tag) = tag.and_then(|tag| HeaderValue::from_str(&tag).ok()) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    Ok(response)
}

/// Of what is described, and not of how it goes.
async fn tag(ctx: &Ctx, name: &str) -> Result<String, Problem> {
    let ask = Ask::new("SELECT * FROM sea_mq.subscriptions s WHERE s.subscription = $1").with(name).rows_of();
    let row = ctx.one(Access::Read, ask, "there is no such subscription").await?;
    Ok(etag(&row))
}

pub fn etag(text: &str) -> String {
    let hash = digest::digest(&digest::SHA256, text.as_bytes());
    format!("\"{}\"", hash.as_ref().iter().take(12).map(|byte| format!("{byte:02x}")).collect::<String>())
}

async fn create(ctx: Ctx, Json(body): Json<Object>) -> Result<Response, Problem> {
    let rows = ctx.rows(Access::Write, Names::InBody, NEW.call("sea_mq.subscribe", &body)?.value()).await?;
    let name = rows.into_iter().next().unwrap_or_default();
    Ok(created(
        &ctx.app.link(&format!("/v1/subscriptions/{}", segment(&name))),
        json!({"subscription": name}).to_string(),
    ))
}

async fn replace(ctx: Ctx, Path(name): Path<String>, Json(body): Json<Object>) -> Result<Response, Problem> {
    let call = PUT.call("sea_mq.subscribe", &body)?.with("subscription", "text", &name);
    let known = tag(&ctx, &name).await.is_ok();
    ctx.rows(Access::Write, Names::InBody, call.value()).await?;
    let body = json!({"subscription": name}).to_string();
    if known {
        return Ok(answer(StatusCode::OK, body));
    }
    Ok(created(&ctx.app.link(&format!("/v1/subscriptions/{}", segment(&name))), body))
}

async fn alter(
    ctx: Ctx,
    Path(name): Path<String>,
    headers: HeaderMap,
    Json(body): Json<Object>,
) -> Result<Response, Problem> {
    let call = CHANGED.call("sea_mq.alter_subscription", &body)?.with("subscription", "text", &name);
    if let Some(wanted) = headers.get(header::IF_MATCH).and_then(|value| value.to_str().ok()) {
        let now = tag(&ctx, &name).await?;
        if wanted != "*" && !wanted.split(',').any(|one| one.trim() == now) {
            return Err(Problem::new(StatusCode::PRECONDITION_FAILED, "the subscription was changed meanwhile")
                .hint("GET it, and decide anew."));
        }
    }
    ctx.rows(Access::Write, Names::InPath, call.value()).await?;
    show(ctx, Path(name)).await
}

async fn named(ctx: Ctx, function: &'static str, name: String) -> Result<Response, Problem> {
    ctx.rows(Access::Write, Names::InPath, Call::of(function).with("subscription", "text", name).value()).await?;
    Ok(answer(StatusCode::NO_CONTENT, ""))
}

async fn unsubscribe(ctx: Ctx, Path(name): Path<String>) -> Result<Response, Problem> {
    named(ctx, "sea_mq.unsubscribe", name).await
}

async fn pause(ctx: Ctx, Path(name): Path<String>) -> Result<Response, Problem> {
    named(ctx, "sea_mq.pause_subscription", name).await
}

async fn resume(ctx: Ctx, Path(name): Path<String>) -> Result<Response, Problem> {
    named(ctx, "sea_mq.resume_subscription", name).await
}

async fn messages(ctx: Ctx, Path(name): Path<String>, Search(query): Search1) -> Result<Response, Problem> {
    let limit = limit(query.get("limit").map(String::as_str))?;
    let after = query
        .get("after")
        .map(|text| text.parse::<i64>())
        .transpose()
        .map_err(|_| Problem::invalid("after must be a number"))?;
    let status = query.get("status").cloned();
    // Each condition that is there is written out, for the indexes.
    let mut ask = Ask::new("").with(&name).with(limit + 1);
    let mut conditions = String::new();
    if let Some(after) = after {
        ask = ask.with(after);
        conditions += &format!(" AND m.id < ${}::text::bigint", ask.params.len());
    }
    if let Some(status) = status {
        ask = ask.with(status);
        conditions += &format!(" AND m.status = ${}", ask.params.len());
    }
    ask.sql = format!(
        "SELECT m.id, m.message_id, m.subscription, m.event_type, m.event_version, m.subject, m.aggregate_type, m.aggregate_id, m.status,
            m.processing_error, m.attempts, m.next_attempt_at, m.created_at, m.delivered_at, m.processed_at, m.stream_seq
         FROM sea_mq.inbox_messages m WHERE m.subscription = $1{conditions} ORDER BY m.id DESC LIMIT $2::text::bigint"
    );
    let mut rows = ctx.rows(Access::Read, Names::InPath, ask.rows_of()).await?;
    if rows.is_empty() {
        // Of a subscription that is not there, 404.
        shown(&ctx, &name).await?;
    }
    Ok(answer(StatusCode::OK, page(&mut rows, limit, "id")))
}

const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(8);

async fn receive(
    ctx: Ctx,
    Path(name): Path<String>,
    Optional(mut body): Optional<Object>,
) -> Result<Response, Problem> {
    RECEIVE.check(&body)?;
    let wait = match body.remove("wait") {
        Some(Value::String(text)) => duration(&text)?.min(LONGEST_WAIT),
        _ => Duration::ZERO,
    };
    let until = Instant::now() + wait;
    loop {
        let call = RECEIVE.call("sea_mq.receive", &body)?.with("subscription", "text", &name);
        let rows = ctx.rows(Access::Write, Names::InPath, call.rows()).await?;
        if !rows.is_empty() || Instant::now() + PAUSE > until {
            return Ok(answer(StatusCode::CREATED, format!("{{\"leases\":[{}]}}", rows.join(","))));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn lease(ctx: Ctx, call: Call, id: i64, says: &str, status: StatusCode) -> Result<Response, Problem> {
    let value = ctx.one(Access::Write, call.with("id", "bigint", id).value(), "there is no such message").await?;
    Ok(answer(status, json!({"id": id, says: value}).to_string()))
}

async fn extend(ctx: Ctx, Path(id): Path<i64>, Optional(body): Optional<Object>) -> Result<Response, Problem> {
    let call = EXTENSION.call("sea_mq.extend_lease", &body)?;
    let mut ask = call.with("id", "bigint", id).value();
    ask.sql = ask.sql.replacen("r::text", "to_jsonb(r) #>> '{}'", 1);
    let until = ctx.one(Access::Write, ask, "there is no such message").await?;
    Ok(answer(StatusCode::OK, json!({"id": id, "lease_until": until}).to_string()))
}

async fn complete(ctx: Ctx, Path(id): Path<i64>) -> Result<Response, Problem> {
    lease(ctx, Call::of("sea_mq.complete"), id, "status", StatusCode::CREATED).await
}

async fn fail(ctx: Ctx, Path(id): Path<i64>, Json(body): Json<Object>) -> Result<Response, Problem> {
    lease(ctx, FAILURE.call("sea_mq.fail", &body)?, id, "status", StatusCode::CREATED).await
}

async fn reject(ctx: Ctx, Path(id): Path<i64>, Json(body): Json<Object>) -> Result<Response, Problem> {
    lease(ctx, REJECTION.call("sea_mq.reject", &body)?, id, "status", StatusCode::CREATED).await
}
