//! `/event-types`.

use std::collections::HashMap;

use axum::extract::{Path, Query as Search};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::{get, post, put};
use serde_json::json;

use super::operation::{AFTER, Answer, LIMIT, Object, Operation, Query, Shape, limit, may, must};
use super::problem::Problem;
use super::request::{Ctx, Json, Names, Optional, answer};
use super::shapes::{EVENT_TYPE, VALIDATION};
use super::subscriptions::etag;
use crate::db::call::{Ask, Call};
use crate::db::pool::Access;

const CONTRACT: Shape = Shape {
    name: "Contract",
    members: &[
        must("schema", "jsonb", "JSON Schema (draft 2020-12) of the payload"),
        may("visibility", "text", "Widest audience: public, partner, internal or sensitive"),
        may("description", "text", "What the event says"),
    ],
};
const DEPRECATION: Shape = Shape { name: "Deprecation", members: &[may("reason", "text", "What to use instead")] };
const CANDIDATE: Shape = Shape { name: "Candidate", members: &[must("payload", "jsonb", "A payload to check")] };
const COLUMNS: &str =
    "t.context, t.event_type, t.version, t.visibility, t.description, t.registered_at, t.registered_by,
    t.deprecated_at, t.deprecation, t.subject";

pub fn operations() -> Vec<Operation> {
    let all: &[&str] = &["producer", "consumer", "operator", "monitor"];
    let one = "/event-types/{context}/{type}/{version}";
    vec![
        Operation::get("/event-types", get(list))
            .says("Registered event types")
            .roles(all)
            .query(&[AFTER, LIMIT, Query { name: "context", kind: "text", says: "Only those of this context" }])
            .answers(Answer::Page(EVENT_TYPE)),
        Operation::get(one, get(show))
            .says("The contract of a version")
            .roles(all)
            .headers(&[("If-None-Match", "The ETag of what the caller has: 304")])
            .success(&[200, 304])
            .answers(Answer::Object(EVENT_TYPE)),
        Operation::put(one, put(register))
            .says("Register a version")
            .roles(&["operator"])
            .body(CONTRACT)
            .answers(Answer::Object(EVENT_TYPE)),
        Operation::post("/event-types/{context}/{type}/{version}/deprecations", post(deprecate))
            .says("Say that a version is to be left")
            .roles(&["operator"])
            .body(DEPRECATION)
            .answers(Answer::Object(EVENT_TYPE)),
        Operation::post("/event-types/{context}/{type}/{version}/validations", post(validate))
            .says("Check a payload against the contract")
            .roles(all)
            .body(CANDIDATE)
            .success(&[200])
            .answers(Answer::Object(VALIDATION)),
    ]
}

async fn list(ctx: Ctx, Search(query): Search<HashMap<String, String>>) -> Result<Response, Problem> {
    let limit = limit(query.get("limit").map(String::as_str))?;
    let parts: Vec<&str> = query.get("after").map(|text| text.split('/').collect()).unwrap_or_default();
    let (context, name, version) = match parts[..] {
        [] => ("", "", "0"),
        [context, name, version] if version.parse::<i32>().is_ok() => (context, name, version),
        _ => return Err(Problem::invalid("after must be the `next` of the page before")),
    };
    let ask = Ask::new(format!(
        "SELECT {COLUMNS} FROM sea_mq.event_types t WHERE (t.context, t.event_type, t.version) > ($1, $2, $3::text::integer)
            AND ($4::text IS NULL OR t.context = sea_mq.context_name($4)) ORDER BY t.context, t.event_type, t.version LIMIT $5::text::bigint"
    ));
    let ask = ask.with(context).with(name).with(version).with(query.get("context").cloned()).with(limit + 1);
    let mut rows = ctx.rows(Access::Read, Names::InBody, ask.rows_of()).await?;
    let more = i64::try_from(rows.len()).is_ok_and(|count| count > limit);
    rows.truncate(usize::try_from(limit).unwrap_or_default());
    let last = rows.last().filter(|_| more).and_then(|row| serde_json::from_str::<serde_json::Value>(row).ok());
    let next = last.map(|row| {
        format!(
            "{}/{}/{}",
            row["context"].as_str().unwrap_or_default(),
            row["event_type"].as_str().unwrap_or_default(),
            row["version"]
        )
    });
    Ok(answer(StatusCode::OK, format!("{{\"items\":[{}],\"next\":{}}}", rows.join(","), json!(next))))
}

type Key = Path<(String, String, i32)>;

async fn shown(ctx: &Ctx, (context, name, version): &(String, String, i32)) -> Result<String, Problem> {
    let ask = Ask::new(format!(
        "SELECT {COLUMNS}, t.schema FROM sea_mq.event_types t
         WHERE t.context = sea_mq.context_name($1) AND t.event_type = sea_mq.event_name($2) AND t.version = $3::text::integer"
    ));
    let ask = ask.with(context).with(name).with(i64::from(*version)).rows_of();
    ctx.one(Access::Read, ask, "this version is not registered").await
}

async fn show(ctx: Ctx, Path(key): Key, headers: HeaderMap) -> Result<Response, Problem> {
    let row = shown(&ctx, &key).await?;
    let tag = etag(&row);
    let had = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let fresh = had.is_some_and(|had| had == "*" || had.split(',').any(|one| one.trim() == tag));
    let mut response = if fresh { answer(StatusCode::NOT_MODIFIED, "") } else { answer(StatusCode::OK, row) };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    Ok(response)
}

fn of_key(call: Call, (context, name, version): &(String, String, i32), version_name: &str) -> Call {
    call.with("context", "text", context).with("event_type", "text", name).with(
        version_name,
        "integer",
        i64::from(*version),
    )
}

async fn register(ctx: Ctx, Path(key): Key, Json(body): Json<Object>) -> Result<Response, Problem> {
    let call = of_key(CONTRACT.call("sea_mq.register_event", &body)?, &key, "version");
    let new = ctx.one(Access::Write, call.value(), "").await? == "true";
    let row = shown(&ctx, &key).await?;
    Ok(answer(if new { StatusCode::CREATED } else { StatusCode::OK }, row))
}

async fn deprecate(ctx: Ctx, Path(key): Key, Optional(body): Optional<Object>) -> Result<Response, Problem> {
    let call = of_key(DEPRECATION.call("sea_mq.deprecate_event", &body)?, &key, "version");
    ctx.rows(Access::Write, Names::InPath, call.value()).await?;
    Ok(answer(StatusCode::CREATED, shown(&ctx, &key).await?))
}

async fn validate(ctx: Ctx, Path(key): Key, Json(body): Json<Object>) -> Result<Response, Problem> {
    let call = of_key(CANDIDATE.call("sea_mq.contract_violations", &body)?, &key, "event_version");
    shown(&ctx, &key).await?;
    let rows = ctx.rows(Access::Read, Names::InPath, call.rows()).await?;
    Ok(answer(StatusCode::OK, format!("{{\"valid\":{},\"violations\":[{}]}}", rows.is_empty(), rows.join(","))))
}
