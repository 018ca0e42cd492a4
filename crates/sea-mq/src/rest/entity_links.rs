//! `/entity-links`.

use std::collections::HashMap;

use axum::extract::{Path, Query as Search};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{delete, get, post};
use serde_json::json;

use super::operation::{AFTER, Answer, LIMIT, Object, Operation, Query, Shape, created, limit, may, must, page};
use super::problem::Problem;
use super::request::{Ctx, Json, Names, answer};
use crate::db::call::{Ask, Call};
use crate::db::pool::Access;

const NEW: Shape = Shape {
    name: "NewEntityLink",
    members: &[
        must("source_module", "text", "Module (context) of the entity that the link begins at"),
        must("source_type", "text", "Its type"),
        must("source_id", "text", "Its id"),
        must("target_module", "text", "Module (context) of the entity that it leads to"),
        must("target_type", "text", "Its type"),
        must("target_id", "text", "Its id"),
        may("link_type", "text", "reference (unless said), cascade, aggregate_root or one of your own"),
        may("metadata", "jsonb", "What else is to be known: an object"),
    ],
};
const LINK_REF: Shape = Shape { name: "EntityLinkReference", members: &[must("id", "uuid", "Id of the link")] };
const LINK: Shape = Shape {
    name: "EntityLink",
    members: &[
        must("id", "uuid", "Id of the link"),
        must("source_module", "text", "Module (context) of the entity that the link begins at"),
        must("source_type", "text", "Its type"),
        must("source_id", "text", "Its id"),
        must("target_module", "text", "Module (context) of the entity that it leads to"),
        must("target_type", "text", "Its type"),
        must("target_id", "text", "Its id"),
        must("link_type", "text", "What kind of link it is"),
        must("metadata", "jsonb", "What else is to be known: an object"),
        must("created_at", "timestamptz", "When it was created"),
        must("created_by", "text", "Role that created it"),
    ],
};
const QUERY: &[Query] = &[
    AFTER,
    LIMIT,
    Query { name: "source_module", kind: "text", says: "Only those that begin there; with source_type and source_id" },
    Query { name: "source_type", kind: "text", says: "Type of the entity that they begin at" },
    Query { name: "source_id", kind: "text", says: "Its id" },
    Query { name: "target_module", kind: "text", says: "Only those that lead there; with target_type and target_id" },
    Query { name: "target_type", kind: "text", says: "Type of the entity that they lead to" },
    Query { name: "target_id", kind: "text", says: "Its id" },
    Query { name: "link_type", kind: "text", says: "Only those of this type" },
];

pub fn operations() -> Vec<Operation> {
    let (lookers, makers) = (&["producer", "consumer", "operator", "monitor"], &["producer", "consumer", "operator"]);
    vec![
        Operation::get("/entity-links", get(list))
            .says("Links between entities")
            .roles(lookers)
            .query(QUERY)
            .answers(Answer::Page(LINK)),
        Operation::post("/entity-links", post(create))
            .says("Link an entity to another one")
            .roles(makers)
            .body(NEW)
            .answers(Answer::Object(LINK_REF)),
        Operation::get("/entity-links/{link}", get(show)).says("A link").roles(lookers).answers(Answer::Object(LINK)),
        Operation::delete("/entity-links/{link}", delete(drop_one)).says("Remove a link").roles(makers),
    ]
}

const UNKNOWN: &str = "there is no such link";

/// What a link is outside: not the number of the role that created it.
const COLUMNS: &str = "l.id, l.source_module, l.source_type, l.source_id, l.target_module, l.target_type, l.target_id, l.link_type, \
    l.metadata, l.created_at, l.created_by";

/// Each condition that is there is written out, for the indexes.
async fn list(ctx: Ctx, Search(query): Search<HashMap<String, String>>) -> Result<Response, Problem> {
    let limit = limit(query.get("limit").map(String::as_str))?;
    for end in ["source", "target"] {
        let given = ["module", "type", "id"].map(|part| query.contains_key(&format!("{end}_{part}")));
        if given.contains(&true) && given.contains(&false) {
            return Err(Problem::invalid(format!("{end}_module, {end}_type and {end}_id go together")));
        }
    }
    let mut ask = Ask::new("").with(limit + 1);
    let mut conditions = vec!["true".to_owned()];
    for Query { name, .. } in QUERY.iter().skip(2) {
        if let Some(value) = query.get(*name) {
            ask = ask.with(value);
            conditions.push(format!("l.{name} = ${}::text", ask.params.len()));
        }
    }
    if let Some(after) = query.get("after") {
        ask = ask.with(after);
        conditions.push(format!("l.id > ${}::text::uuid", ask.params.len()));
    }
    ask.sql = format!(
        "SELECT {COLUMNS} FROM sea_mq.entity_links l WHERE {} ORDER BY l.id LIMIT $1::text::bigint",
        conditions.join(" AND ")
    );
    let mut rows = ctx.rows(Access::Read, Names::InBody, ask.rows_of()).await?;
    Ok(answer(StatusCode::OK, page(&mut rows, limit, "id")))
}

async fn show(ctx: Ctx, Path(link): Path<String>) -> Result<Response, Problem> {
    let ask = Ask::new(format!("SELECT {COLUMNS} FROM sea_mq.entity_links l WHERE l.id = $1::text::uuid"))
        .with(link)
        .rows_of();
    Ok(answer(StatusCode::OK, ctx.one(Access::Read, ask, UNKNOWN).await?))
}

async fn create(ctx: Ctx, Json(body): Json<Object>) -> Result<Response, Problem> {
    let rows = ctx.rows(Access::Write, Names::InBody, NEW.call("sea_mq.create_link", &body)?.value()).await?;
    let id = rows.into_iter().next().unwrap_or_default();
    Ok(created(&ctx.app.link(&format!("/v1/entity-links/{id}")), json!({"id": id}).to_string()))
}

async fn drop_one(ctx: Ctx, Path(link): Path<String>) -> Result<Response, Problem> {
    let call = Call::of("sea_mq.drop_link").with("id", "uuid", link);
    if ctx.one(Access::Write, call.value(), UNKNOWN).await? == "true" {
        Ok(answer(StatusCode::NO_CONTENT, ""))
    } else {
        Err(Problem::missing(UNKNOWN))
    }
}
