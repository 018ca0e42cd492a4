//! What forms do. Each ends with a page that says what was done.

use std::collections::HashMap;

use axum::Form;
use axum::extract::Path;
use axum::response::{IntoResponse, Redirect, Response};
use serde_json::Value;

use super::Viewer;
use super::view::{Confirm, Field, Frame, html, trouble, values};
use crate::db::call::{Ask, Call};
use crate::db::pool::Access;
use crate::rest::dead_letters::FILTERS;
use crate::rest::operation::segment;
use crate::rest::request::{Ctx, Names};

type Fields = Form<HashMap<String, String>>;

pub async fn done(ctx: Ctx, here: &'static str, ask: Ask, to: String) -> Response {
    match ctx.rows(Access::Write, Names::InPath, ask).await {
        Ok(_) => Redirect::to(&ctx.app.link(&to)).into_response(),
        Err(problem) => trouble(&ctx, here, &problem),
    }
}

pub async fn pause(Viewer(ctx): Viewer, Path(name): Path<String>) -> Response {
    let to = format!("/subscriptions/{}", segment(&name));
    done(ctx, "/subscriptions", Call::of("sea_mq.pause_subscription").with("subscription", "text", name).value(), to)
        .await
}

pub async fn resume(Viewer(ctx): Viewer, Path(name): Path<String>) -> Response {
    let to = format!("/subscriptions/{}", segment(&name));
    done(ctx, "/subscriptions", Call::of("sea_mq.resume_subscription").with("subscription", "text", name).value(), to)
        .await
}

/// The payload is sent only if it was edited: what JSON's spelling means to somebody stays as it was.
pub async fn replay(Viewer(ctx): Viewer, Path(id): Path<i64>, Form(fields): Fields) -> Response {
    let edited = fields
        .get("payload")
        .filter(|payload| fields.get("before").map(|before| lines(before)) != Some(lines(payload)));
    let call = Call::of("sea_mq.dlq_replay").with("id", "bigint", id).with("payload", "jsonb", edited.cloned());
    done(ctx, "/dead-letters", call.value(), format!("/dead-letters/{id}")).await
}

/// Browsers send the ends of lines as CR LF.
fn lines(text: &str) -> String {
    text.replace("\r\n", "\n").trim().to_owned()
}

pub async fn discard(Viewer(ctx): Viewer, Path(id): Path<i64>, Form(fields): Fields) -> Response {
    let reason = fields.get("reason").filter(|reason| !reason.is_empty()).cloned();
    let call = Call::of("sea_mq.dlq_discard").with("id", "bigint", id).with("reason", "text", reason);
    done(ctx, "/dead-letters", call.value(), format!("/dead-letters/{id}")).await
}

/// A page of letters; the answer's form goes on with the next.
pub async fn replay_all(Viewer(ctx): Viewer, Form(fields): Fields) -> Response {
    let mut call = Call::of("sea_mq.dlq_replay_batch");
    for (name, kind) in FILTERS {
        call = call.with(name, kind, fields.get(name).filter(|value| !value.is_empty()).cloned());
    }
    call = call.with("after_id", "bigint", fields.get("after_id").filter(|id| !id.is_empty()).cloned());
    let rows = match ctx.rows(Access::Write, Names::InBody, call.rows()).await {
        Ok(rows) => values(&rows),
        Err(problem) => return trouble(&ctx, "/dead-letters", &problem),
    };
    let failed: Vec<&Value> = rows.iter().filter(|row| !row["sqlstate"].is_null()).collect();
    let replayed = rows.len() - failed.len();
    let mut question = format!("{replayed} dead letters were replayed.");
    if let Some(first) = failed.first() {
        question += &format!(
            " {} could not be; letter {}: {}",
            failed.len(),
            first["id"],
            first["error_text"].as_str().unwrap_or_default()
        );
    }
    if rows.len() < 500 {
        return html(&super::pages::told(&ctx, question));
    }
    let mut hidden = super::pages::filter_fields(&fields);
    hidden.push(Field {
        label: "",
        name: "after_id",
        value: rows.last().map(|row| row["id"].to_string()).unwrap_or_default(),
    });
    let (button, action) = ("Go on with the next 500".to_owned(), ctx.app.link("/dead-letters/replay"));
    let back = ctx.app.link("/dead-letters");
    html(&Confirm { frame: Frame::new(&ctx, "/dead-letters", "Replay"), question, action, hidden, button, back })
}
