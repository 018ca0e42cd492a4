//! The pages of endpoints, and what their forms do.

use axum::extract::{Form as Posted, Path};
use axum::response::Response;
use serde_json::Value;
use std::collections::HashMap;

use super::Viewer;
use super::act::done;
use super::pages::page;
use super::view::{Field, Form, Frame, List, Spec, Table, facts, text, values};
use crate::db::call::{Ask, Call};
use crate::db::pool::Access;
use crate::rest::endpoints::{deliveries_of, one};
use crate::rest::operation::segment;
use crate::rest::problem::Problem;
use crate::rest::request::Names;

const HERE: &str = "/endpoints";

const ENDPOINT: [Spec; 8] = [
    ("Endpoint", "endpoint", "text"),
    ("Kind", "kind", "text"),
    ("State", "state", "state"),
    ("Before it", "lag", "number"),
    ("In flight", "in_flight", "number"),
    ("Retrying", "retrying", "number"),
    ("Delivered", "delivered", "number"),
    ("Given up", "failed", "number"),
];

pub async fn endpoints(Viewer(ctx): Viewer) -> Response {
    page(&ctx, HERE, async {
        let ask = Ask::new("SELECT * FROM sea_mq.endpoint_status s ORDER BY s.endpoint LIMIT 1000").rows_of();
        let rows = values(&ctx.rows(Access::Read, Names::InPath, ask).await?);
        let link = |row: &Value| ctx.app.link(&format!("/endpoints/{}", segment(&text(&row["endpoint"]))));
        let none = "There are none: SELECT sea_mq.create_endpoint(…) makes one.";
        let table = Table::new("Endpoints", none, &ENDPOINT, &rows, link);
        Ok(List::new(Frame::new(&ctx, HERE, "Endpoints"), table))
    })
    .await
}

const FACTS: [Spec; 21] = [
    ENDPOINT[1],
    ENDPOINT[2],
    ("Since", "since", "time"),
    ("Error", "error", "text"),
    ("What to do", "hint", "text"),
    ("Address", "url", "text"),
    ("Context", "source", "text"),
    ("Events", "filter", "text"),
    ("Audience", "audience", "text"),
    ("Format", "format", "text"),
    ("Order", "ordering", "text"),
    ENDPOINT[3],
    ("Oldest", "oldest_undelivered_at", "time"),
    ENDPOINT[4],
    ("May be in flight", "window", "number"),
    ENDPOINT[5],
    ENDPOINT[6],
    ENDPOINT[7],
    ("Attempts", "attempts", "number"),
    ("Last delivered", "last_delivered_at", "time"),
    ("99 of 100 within ms", "p99", "number"),
];

const DELIVERY: [Spec; 7] = [
    ("Event", "event_id", "text"),
    ("State", "status", "state"),
    ("Attempts", "attempts", "number"),
    ("Answer", "http_status", "number"),
    ("Delivered", "delivered_at", "time"),
    ("Next attempt", "next_attempt_at", "time"),
    ("Error", "error", "text"),
];

pub async fn endpoint(Viewer(ctx): Viewer, Path(name): Path<String>) -> Response {
    page(&ctx, HERE, async {
        let row = ctx.one(Access::Read, one(&name), "There is no such endpoint.").await?;
        let row: Value = serde_json::from_str(&row).map_err(|_| Problem::missing("There is no such endpoint."))?;
        let tried = ctx.rows(Access::Read, Names::InPath, deliveries_of(&name, None, None, 50)).await?;
        let tried = values(&tried);
        let table = Table::new("The latest deliveries", "Nothing was tried yet.", &DELIVERY, &tried, |_| String::new());
        let mut list = List::new(Frame::new(&ctx, HERE, name.clone()), table);
        list.facts = facts(&row, &FACTS);
        let at = |verb: &str| ctx.app.link(&format!("/endpoints/{}/{verb}", segment(&name)));
        let (verb, button) = if row["state"] == "paused" { ("resume", "Let it go on") } else { ("pause", "Pause") };
        let form =
            |action, button: &str, danger, hidden| Form { action, hidden, button: button.into(), danger, get: false };
        list.forms.push(form(at(verb), button, verb == "pause", Vec::new()));
        if let Some(event) = tried.iter().find(|row| row["status"] == "exhausted" || row["status"] == "failed") {
            let hidden = vec![Field { label: "", name: "event_id", value: text(&event["event_id"]) }];
            list.forms.push(form(at("redeliver"), "Send the latest that was given up once more", false, hidden));
        }
        Ok(list)
    })
    .await
}

pub async fn pause(Viewer(ctx): Viewer, Path(name): Path<String>) -> Response {
    let to = format!("/endpoints/{}", segment(&name));
    done(ctx, HERE, Call::of("sea_mq.pause_endpoint").with("endpoint", "text", name).value(), to).await
}

pub async fn resume(Viewer(ctx): Viewer, Path(name): Path<String>) -> Response {
    let to = format!("/endpoints/{}", segment(&name));
    done(ctx, HERE, Call::of("sea_mq.resume_endpoint").with("endpoint", "text", name).value(), to).await
}

pub async fn redeliver(
    Viewer(ctx): Viewer,
    Path(name): Path<String>,
    Posted(fields): Posted<HashMap<String, String>>,
) -> Response {
    let to = format!("/endpoints/{}", segment(&name));
    let event = fields.get("event_id").cloned();
    let call = Call::of("sea_mq.redeliver").with("event_id", "uuid", event).with("endpoint", "text", name);
    done(ctx, HERE, call.value(), to).await
}
