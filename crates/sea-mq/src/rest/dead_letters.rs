//! `/dead-letters`, `/dead-letter-replays`.

use std::collections::HashMap;

use axum::extract::{Path, Query as Search};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::{Value, json};

use super::operation::{AFTER, Answer, LIMIT, Object, Operation, Query, Shape, limit, may, page};
use super::problem::Problem;
use super::request::{Ctx, Json, Names, Optional, answer};
use super::shapes::{DISCARD, LETTER, REPLAY, REPLAYS};
use crate::db::call::{Ask, Call};
use crate::db::pool::Access;
use crate::serve::log;

/// The filters of `sea_mq.dlq_page`.
pub const FILTERS: [(&str, &str); 5] = [
    ("context", "text"),
    ("subscription", "text"),
    ("event_type", "text"),
    ("error", "text"),
    ("older_than", "interval"),
];
const QUERY: &[Query] = &[
    AFTER,
    LIMIT,
    Query { name: "context", kind: "text", says: "Only those of this context" },
    Query { name: "subscription", kind: "text", says: "Only those of this subscription" },
    Query { name: "event_type", kind: "text", says: "Only those of this event type" },
    Query { name: "error", kind: "text", says: "Only those whose error has this in it" },
    Query { name: "older_than", kind: "text", says: "Only those that failed last longer ago, as in 1 hour" },
    Query { name: "state", kind: "text", says: "open (unless said), replayed or all" },
    Query { name: "order", kind: "text", says: "asc (unless said) or desc" },
];
const CORRECTION: Shape =
    Shape { name: "Correction", members: &[may("payload", "jsonb", "A corrected payload; the old one unless said")] };
const REASON: Shape = Shape { name: "Reason", members: &[may("reason", "text", "Why it is given up")] };
const BULK: Shape = Shape {
    name: "NewReplays",
    members: &[
        may("context", "text", "Only those of this context"),
        may("subscription", "text", "Only those of this subscription"),
        may("event_type", "text", "Only those of this event type"),
        may("error", "text", "Only those whose error has this in it"),
        may("older_than", "interval", "Only those that failed last longer ago"),
        may("ids", "bigint[]", "These, instead of filters"),
        may("after_id", "bigint", "Only those behind: the `next` of the page before"),
        may("max", "integer", "Letters of a page: 1 to 500, 500 unless said"),
        may("dry_run", "boolean", "Say how many there are, and do nothing"),
    ],
};

pub fn operations() -> Vec<Operation> {
    vec![
        Operation::get("/dead-letters", get(list))
            .says("Dead letters, without payloads")
            .roles(&["operator", "monitor"])
            .query(QUERY)
            .answers(Answer::Page(LETTER)),
        Operation::get("/dead-letters/{id}", get(show))
            .says("A dead letter")
            .roles(&["operator", "monitor"])
            .query(&[Query {
                name: "reveal",
                kind: "boolean",
                says: "Show what contracts call sensitive. That is logged",
            }])
            .answers(Answer::Object(LETTER)),
        Operation::post("/dead-letters/{id}/replays", post(replay))
            .says("Replay a dead letter")
            .roles(&["operator"])
            .body(CORRECTION)
            .answers(Answer::Object(REPLAY)),
        Operation::post("/dead-letters/{id}/discards", post(discard))
            .says("Give a dead letter up")
            .roles(&["operator"])
            .body(REASON)
            .answers(Answer::Object(DISCARD)),
        Operation::post("/dead-letter-replays", post(replay_page))
            .says("Replay a page of dead letters")
            .roles(&["operator"])
            .body(BULK)
            .success(&[201, 200])
            .answers(Answer::Object(REPLAYS)),
    ]
}

async fn list(ctx: Ctx, Search(query): Search<HashMap<String, String>>) -> Result<Response, Problem> {
    let limit = limit(query.get("limit").map(String::as_str))?;
    let call = of_query(&query)?.with("max", "integer", limit + 1);
    let mut ask = call.rows();
    ask.sql +=
        if query.get("order").is_some_and(|order| order == "desc") { " ORDER BY r.id DESC" } else { " ORDER BY r.id" };
    let mut rows = ctx.rows(Access::Read, Names::InBody, ask).await?;
    Ok(answer(StatusCode::OK, page(&mut rows, limit, "id")))
}

/// A page of dead letters, as the query says.
pub fn of_query(query: &HashMap<String, String>) -> Result<Call, Problem> {
    let mut call = Call::of("sea_mq.dlq_page");
    for (name, kind) in FILTERS {
        call = call.with(name, kind, query.get(name).filter(|value| !value.is_empty()).cloned());
    }
    call = match query.get("state").map(String::as_str) {
        None | Some("" | "open") => call,
        Some("replayed") => call.with("replayed", "boolean", true),
        // Not left out, since the default is another.
        Some("all") => call.null("replayed"),
        Some(_) => return Err(Problem::invalid("state must be open, replayed or all")),
    };
    match query.get("order").map(String::as_str) {
        None | Some("asc") => {}
        Some("desc") => call = call.with("descending", "boolean", true),
        Some(_) => return Err(Problem::invalid("order must be asc or desc")),
    }
    let after = query.get("after").map(|text| text.parse::<i64>()).transpose();
    let after = after.map_err(|_| Problem::invalid("after must be the number of a dead letter"))?;
    Ok(call.with("after_id", "bigint", after.map(|id| id.to_string())))
}

/// One letter with payload, headers and history.
pub fn letter(id: i64, reveal: bool) -> Ask {
    let payload = if reveal {
        "d.payload"
    } else {
        "sea_mq.masked_payload(coalesce(d.source_context, d.context), d.event_type, d.event_version, d.payload)"
    };
    Ask::new(format!(
        "SELECT d.id, CASE WHEN d.replayed_at IS NOT NULL THEN 'replayed' WHEN d.discarded_at IS NOT NULL THEN 'discarded' ELSE 'open' END AS state,
            d.context, d.original_subject, d.subscription, d.message_id, d.source_context, d.event_type, d.event_version, d.aggregate_type,
            d.aggregate_id, d.reason, d.failure_count, d.error, d.first_failed_at, d.last_failed_at, d.created_at, d.replayed_at,
            d.replay_event_id, d.replayed_by, d.discarded_at, d.discard_reason, d.discarded_by, d.actor, {payload} AS payload, d.headers, d.errors
         FROM sea_mq.dlq_messages d WHERE d.id = $1::text::bigint"
    ))
    .with(id).rows_of()
}

async fn show(
    ctx: Ctx,
    Path(id): Path<i64>,
    Search(query): Search<HashMap<String, String>>,
) -> Result<Response, Problem> {
    let reveal = query.get("reveal").is_some_and(|value| value == "true");
    if reveal {
        log::act(&ctx.ids, &ctx.caller, &format!("reveals dead letter {id}"));
    }
    let row = ctx.one(Access::Read, letter(id, reveal), &format!("there is no dead letter {id}")).await?;
    Ok(answer(StatusCode::OK, row))
}

async fn replay(ctx: Ctx, Path(id): Path<i64>, Optional(body): Optional<Object>) -> Result<Response, Problem> {
    let call = CORRECTION.call("sea_mq.dlq_replay", &body)?.with("id", "bigint", id);
    let event = ctx.one(Access::Write, call.value(), "there is no such dead letter").await?;
    Ok(answer(StatusCode::CREATED, json!({"id": id, "event_id": event}).to_string()))
}

async fn discard(ctx: Ctx, Path(id): Path<i64>, Optional(body): Optional<Object>) -> Result<Response, Problem> {
    let call = REASON.call("sea_mq.dlq_discard", &body)?.with("id", "bigint", id);
    ctx.rows(Access::Write, Names::InPath, call.value()).await?;
    Ok(answer(StatusCode::CREATED, json!({"id": id}).to_string()))
}

/// Letters that a dry run counts at most.
const COUNTED: i64 = 1000;

async fn replay_page(ctx: Ctx, Json(mut body): Json<Object>) -> Result<Response, Problem> {
    BULK.check(&body)?;
    if body.remove("dry_run") == Some(Value::Bool(true)) {
        return dry_run(&ctx, &body).await;
    }
    let max = body.get("max").and_then(Value::as_i64).unwrap_or(500);
    let call = BULK.call("sea_mq.dlq_replay_batch", &body)?;
    let rows = ctx.rows(Access::Write, Names::InBody, call.rows()).await?;
    let rows: Vec<Value> = rows.iter().filter_map(|row| serde_json::from_str(row).ok()).collect();
    let failed: Vec<Value> = rows.iter().filter(|row| !row["sqlstate"].is_null())
        .map(|row| json!({"id": row["id"], "sqlstate": row["sqlstate"], "error": row["error_text"], "hint": row["hint"]})).collect();
    let full = i64::try_from(rows.len()).is_ok_and(|count| count >= max);
    let next = rows.last().filter(|_| full).map(|row| row["id"].to_string());
    let replayed = rows.len() - failed.len();
    Ok(answer(StatusCode::CREATED, json!({"replayed": replayed, "failed": failed, "next": next}).to_string()))
}

async fn dry_run(ctx: &Ctx, body: &Object) -> Result<Response, Problem> {
    let matching = if let Some(ids) = body.get("ids") {
        let ask = Ask::new(
            "SELECT count(*)::text FROM sea_mq.dlq_messages d WHERE d.replayed_at IS NULL AND d.discarded_at IS NULL
            AND d.id = ANY (ARRAY(SELECT e::bigint FROM jsonb_array_elements_text($1::text::jsonb) e))",
        )
        .with(ids.to_string());
        ctx.one(Access::Read, ask, "").await?
    } else {
        let call = Call::of("sea_mq.dlq_page")
            .body(&FILTERS, body)
            .body(&[("after_id", "bigint")], body)
            .with("max", "integer", COUNTED);
        ctx.one(Access::Read, call.select("count(*)::text", "r"), "").await?
    };
    let matching = matching.parse::<i64>().unwrap_or_default();
    Ok(answer(StatusCode::OK, json!({"matching": matching, "capped": matching >= COUNTED}).to_string()))
}
