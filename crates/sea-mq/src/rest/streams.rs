//! `/streams`.

use std::collections::HashMap;

use axum::extract::{Path, Query as Search};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{delete, get, patch, post, put};
use serde_json::json;

use super::operation::{
    AFTER, Answer, LIMIT, Object, Operation, Query, Shape, created, limit, may, must, page, segment,
};
use super::problem::Problem;
use super::request::{Ctx, Json, Names, Optional, answer};
use super::shapes::{CONSUMER, COUNT, FINDINGS, STORED_EVENT, STREAM, STREAM_REF};
use super::tail;
use crate::db::call::{Ask, Call};
use crate::db::pool::Access;
use crate::serve::log;

const NEW: Shape = Shape {
    name: "NewStream",
    members: &[
        must("context", "text", "Bounded context"),
        may("name", "text", "Name in JetStream; {CONTEXT}_EVENTS unless said"),
        may("subjects", "text[]", "Subjects; {context}.event.> unless said"),
        may("kind", "text", "event or dlq"),
        may("retention", "text", "limits, interest or workqueue"),
        may("max_age", "interval", "How long messages stay"),
        may("max_bytes", "bigint", "Bytes at most"),
        may("max_msgs", "bigint", "Messages at most; -1: no limit"),
        may("max_msg_size", "integer", "Bytes of a message at most; -1: no limit"),
        may("storage", "text", "file or memory"),
        may("replicas", "integer", "Copies in a cluster"),
        may("duplicate_window", "interval", "How long JetStream recognises duplicates"),
        may("body", "text", "payload or envelope"),
        may("managed", "boolean", "Whether the relay creates and updates it"),
        may("atomic_transactions", "boolean", "Whether transactions are published as one"),
        may("metadata", "text", "Headers that say what an event is: minimal, cloudevents or full"),
    ],
};
const CHANGED: Shape = Shape {
    name: "ChangedStream",
    members: &[
        may("subjects", "text[]", "Subjects"),
        may("max_age", "interval", "How long messages stay"),
        may("max_bytes", "bigint", "Bytes at most"),
        may("max_msgs", "bigint", "Messages at most; -1: no limit"),
        may("max_msg_size", "integer", "Bytes of a message at most; -1: no limit"),
        may("storage", "text", "file or memory"),
        may("retention", "text", "limits, interest or workqueue"),
        may("replicas", "integer", "Copies in a cluster"),
        may("duplicate_window", "interval", "How long JetStream recognises duplicates"),
        may("body", "text", "payload or envelope"),
        may("managed", "boolean", "Whether the relay creates and updates it"),
        may("atomic_transactions", "boolean", "Whether transactions are published as one"),
        may("metadata", "text", "Headers that say what an event is: minimal, cloudevents or full"),
    ],
};
const REPUBLICATION: Shape = Shape {
    name: "Republication",
    members: &[
        may("from_time", "timestamptz", "From this time on; all that is retained unless said"),
        may("from_seq", "bigint", "From this place in the log on"),
    ],
};
const NEW_CONSUMER: Shape = Shape {
    name: "NewConsumer",
    members: &[
        may("filter", "text", "Subjects that it receives"),
        may("ack_wait", "interval", "How long it waits for an acknowledgement"),
        may("max_deliver", "integer", "Deliveries at most; -1: no limit"),
        may("max_ack_pending", "integer", "Unacknowledged messages at most; -1: no limit"),
        may("deliver_policy", "text", "all or new"),
    ],
};
const REVEAL: Query =
    Query { name: "reveal", kind: "boolean", says: "Show what contracts call sensitive. That is logged" };

pub fn operations() -> Vec<Operation> {
    let lookers: &[&str] = &["viewer", "operator", "monitor"];
    let (one, consumer) = ("/streams/{name}", "/streams/{name}/consumers/{consumer}");
    vec![
        Operation::get("/streams", get(list))
            .says("Streams and how they are")
            .roles(lookers)
            .query(&[AFTER, LIMIT])
            .answers(Answer::Page(STREAM)),
        Operation::post("/streams", post(create))
            .says("Describe a stream")
            .roles(&["operator"])
            .body(NEW)
            .answers(Answer::Object(STREAM_REF)),
        Operation::get(one, get(show)).says("A stream and how it is").roles(lookers).answers(Answer::Object(STREAM)),
        Operation::patch(one, patch(alter))
            .says("Change a stream's description")
            .roles(&["operator"])
            .body(CHANGED)
            .answers(Answer::Object(STREAM)),
        Operation::delete(one, delete(drop_one)).says("Give a stream up").roles(&["operator"]).query(&[
            Query { name: "delete_remote", kind: "boolean", says: "Delete it in NATS too" },
            Query { name: "discard_pending", kind: "boolean", says: "Even if events wait to be published" },
        ]),
        Operation::get("/streams/{name}/events", get(events))
            .says("What the stream has stored, as far as the log retains it")
            .roles(&["operator", "monitor"])
            .query(&[AFTER, LIMIT, REVEAL])
            .answers(Answer::Page(STORED_EVENT)),
        Operation::get("/streams/{name}/tail", get(tail::tail))
            .says("What the stream stores, as server-sent events")
            .roles(&["operator", "monitor"])
            .headers(&[("Last-Event-ID", "Stream sequence to go on behind")])
            .answers(Answer::Events),
        Operation::post("/streams/{name}/republications", post(republish))
            .says("Refill a stream from the log")
            .roles(&["operator"])
            .body(REPUBLICATION)
            .answers(Answer::Object(COUNT)),
        Operation::post("/streams/{name}/verifications", post(verify))
            .says("Compare a stream with the log")
            .roles(&["operator"])
            .answers(Answer::Object(FINDINGS)),
        Operation::get(consumer, get(show_consumer))
            .says("A durable consumer")
            .roles(&["operator", "monitor"])
            .answers(Answer::Object(CONSUMER)),
        Operation::put(consumer, put(put_consumer))
            .says("Describe a durable consumer")
            .roles(&["operator"])
            .body(NEW_CONSUMER)
            .answers(Answer::Object(CONSUMER)),
        Operation::delete(consumer, delete(drop_consumer)).says("Give a durable consumer up").roles(&["operator"]),
    ]
}

type Search1 = Search<HashMap<String, String>>;

const UNKNOWN: &str = "there is no such stream";

async fn list(ctx: Ctx, Search(query): Search1) -> Result<Response, Problem> {
    let limit = limit(query.get("limit").map(String::as_str))?;
    let of = |view: &str| {
        Ask::new(format!(
            "SELECT * FROM {view} s WHERE $1::text IS NULL OR s.stream > $1 ORDER BY s.stream LIMIT $2::text::bigint"
        ))
        .with(query.get("after").cloned())
        .with(limit + 1)
        .rows_of()
    };
    let mut rows = ctx.rows_or(Names::InBody, of("sea_mq.stream_status"), of("sea_mq.stream_overview")).await?;
    Ok(answer(StatusCode::OK, page(&mut rows, limit, "stream")))
}

async fn show(ctx: Ctx, Path(name): Path<String>) -> Result<Response, Problem> {
    shown(&ctx, &name).await.map(|row| answer(StatusCode::OK, row))
}

async fn shown(ctx: &Ctx, name: &str) -> Result<String, Problem> {
    let of = |view: &str| Ask::new(format!("SELECT * FROM {view} s WHERE s.stream = $1")).with(name).rows_of();
    let rows = ctx.rows_or(Names::InPath, of("sea_mq.stream_status"), of("sea_mq.stream_overview")).await?;
    rows.into_iter().next().ok_or_else(|| Problem::missing(UNKNOWN).hint("See /v1/streams."))
}

async fn create(ctx: Ctx, Json(body): Json<Object>) -> Result<Response, Problem> {
    let rows = ctx.rows(Access::Write, Names::InBody, NEW.call("sea_mq.create_stream", &body)?.value()).await?;
    let name = rows.into_iter().next().unwrap_or_default();
    Ok(created(&ctx.app.link(&format!("/v1/streams/{}", segment(&name))), json!({"stream": name}).to_string()))
}

async fn alter(ctx: Ctx, Path(name): Path<String>, Json(body): Json<Object>) -> Result<Response, Problem> {
    let call = CHANGED.call("sea_mq.alter_stream", &body)?.with("name", "text", &name);
    ctx.rows(Access::Write, Names::InPath, call.value()).await?;
    show(ctx, Path(name)).await
}

async fn drop_one(ctx: Ctx, Path(name): Path<String>, Search(query): Search1) -> Result<Response, Problem> {
    let flag = |key: &str| query.get(key).map(|value| value == "true").unwrap_or_default();
    let call = Call::of("sea_mq.drop_stream")
        .with("name", "text", name)
        .with("delete_remote", "boolean", flag("delete_remote"))
        .with("discard_pending", "boolean", flag("discard_pending"));
    ctx.rows(Access::Write, Names::InPath, call.value()).await?;
    Ok(answer(StatusCode::NO_CONTENT, ""))
}

/// Events behind a sequence, masked unless they are to be revealed.
pub fn events_after(stream: &str, after: i64, max: i64, reveal: bool) -> Ask {
    let payload =
        if reveal { "r.payload" } else { "sea_mq.masked_payload(r.context, r.event_type, r.event_version, r.payload)" };
    Ask::new(format!(
        "SELECT (to_jsonb(r) || jsonb_build_object('payload', {payload}))::text
         FROM sea_mq.events_after($1, $2::text::bigint, $3::text::integer) r ORDER BY r.stream_seq"
    ))
    .with(stream)
    .with(after)
    .with(max)
}

async fn events(ctx: Ctx, Path(name): Path<String>, Search(query): Search1) -> Result<Response, Problem> {
    let limit = limit(query.get("limit").map(String::as_str))?;
    let after = query
        .get("after")
        .map_or(Ok(0), |text| text.parse::<i64>())
        .map_err(|_| Problem::invalid("after must be a stream sequence"))?;
    let reveal = query.get("reveal").is_some_and(|value| value == "true");
    if reveal {
        log::act(&ctx.ids, &ctx.caller, &format!("reveals events of stream {name} behind {after}"));
    }
    let mut rows = ctx.rows(Access::Read, Names::InPath, events_after(&name, after, limit + 1, reveal)).await?;
    Ok(answer(StatusCode::OK, page(&mut rows, limit, "stream_seq")))
}

async fn republish(ctx: Ctx, Path(name): Path<String>, Optional(body): Optional<Object>) -> Result<Response, Problem> {
    let call = REPUBLICATION.call("sea_mq.republish", &body)?.with("stream", "text", name);
    let count = ctx.one(Access::Write, call.value(), UNKNOWN).await?;
    Ok(answer(StatusCode::CREATED, json!({"events": count.parse::<i64>().unwrap_or_default()}).to_string()))
}

async fn verify(ctx: Ctx, Path(name): Path<String>) -> Result<Response, Problem> {
    let rows = ctx
        .rows(Access::Write, Names::InPath, Call::of("sea_mq.verify_stream").with("stream", "text", name).rows())
        .await?;
    Ok(answer(StatusCode::CREATED, format!("{{\"findings\":[{}]}}", rows.join(","))))
}

fn consumer(name: &str, consumer: &str) -> Ask {
    Ask::new("SELECT c.stream, c.name, c.filter, c.ack_wait, c.max_deliver, c.max_ack_pending, c.deliver_policy, c.state, c.error, c.updated_at
        FROM sea_mq.consumers c WHERE c.stream = $1 AND c.name = $2 AND c.state <> 'removing'").with(name).with(consumer).rows_of()
}

async fn show_consumer(ctx: Ctx, Path((name, of)): Path<(String, String)>) -> Result<Response, Problem> {
    let row = ctx.one(Access::Read, consumer(&name, &of), "there is no such consumer").await?;
    Ok(answer(StatusCode::OK, row))
}

async fn put_consumer(
    ctx: Ctx,
    Path((name, of)): Path<(String, String)>,
    Optional(body): Optional<Object>,
) -> Result<Response, Problem> {
    let call = NEW_CONSUMER.call("sea_mq.create_consumer", &body)?.with("name", "text", &of);
    let known = !ctx.rows(Access::Read, Names::InPath, consumer(&name, &of)).await?.is_empty();
    let ask = Ask::new("SELECT s.context FROM sea_mq.streams s WHERE s.name = $1").with(&name);
    let context = ctx.one(Access::Read, ask, UNKNOWN).await?;
    ctx.rows(Access::Write, Names::InPath, call.with("context", "text", context).value()).await?;
    let row = ctx
        .one(Access::Read, consumer(&name, &of), "the stream is a dead letter stream, which has no such consumers")
        .await?;
    Ok(answer(if known { StatusCode::OK } else { StatusCode::CREATED }, row))
}

async fn drop_consumer(ctx: Ctx, Path((stream, name)): Path<(String, String)>) -> Result<Response, Problem> {
    let call = Call::of("sea_mq.drop_consumer").with("stream", "text", stream).with("name", "text", name);
    ctx.rows(Access::Write, Names::InPath, call.value()).await?;
    Ok(answer(StatusCode::NO_CONTENT, ""))
}
