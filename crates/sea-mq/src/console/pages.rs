//! The pages.

use std::collections::HashMap;

use askama::Template;
use axum::extract::{Path, Query};
use axum::response::Response;
use serde_json::Value;

use super::Viewer;
use super::view::{Confirm, Field, Form, Frame, List, Spec, Table, facts, html, text, trouble, values};
use crate::db::call::Ask;
use crate::db::pool::Access;
use crate::rest::dead_letters::{FILTERS, letter as ask_letter, of_query};
use crate::rest::operation::segment;
use crate::rest::problem::Problem;
use crate::rest::request::{Ctx, Names};
use crate::rest::streams::events_after;
use crate::serve::log;

type Search = Query<HashMap<String, String>>;

/// A page, or the one that says why there is none.
pub async fn page<T: Template>(
    ctx: &Ctx,
    here: &'static str,
    made: impl Future<Output = Result<T, Problem>>,
) -> Response {
    match made.await {
        Ok(page) => html(&page),
        Err(problem) => trouble(ctx, here, &problem),
    }
}

async fn read(ctx: &Ctx, sql: &str) -> Result<Vec<Value>, Problem> {
    ctx.rows(Access::Read, Names::InPath, Ask::new(sql).rows_of()).await.map(|rows| values(&rows))
}

/// The second view is for those who may not read the first.
async fn read_or(ctx: &Ctx, view: &str, lesser: &str, rest: &str, name: &str) -> Result<Vec<Value>, Problem> {
    let of = |view: &str| {
        let ask = Ask::new(format!("SELECT * FROM {view} s {rest}"));
        if rest.contains("$1") { ask.with(name) } else { ask }.rows_of()
    };
    ctx.rows_or(Names::InPath, of(view), of(lesser)).await.map(|rows| values(&rows))
}

#[derive(Template)]
#[template(path = "overview.html")]
struct Overview {
    frame: Frame,
    ok: bool,
    summary: String,
    numbers: Vec<(&'static str, String)>,
    problems: Table,
}

pub async fn overview(Viewer(ctx): Viewer) -> Response {
    page(&ctx, "/", async {
        let status = read_or(&ctx, "sea_mq.status", "sea_mq.overview", "", "").await?.pop().unwrap_or_default();
        // Of those who may not read them, the number is enough.
        let problems = read(&ctx, "SELECT * FROM sea_mq.problems p ORDER BY p.rank, p.problem LIMIT 100")
            .await
            .unwrap_or_default();
        let letters = read(&ctx, "SELECT coalesce(sum(d.open), 0) AS open FROM sea_mq.dlq_status d")
            .await
            .ok()
            .and_then(|mut rows| rows.pop());
        let ok = status["ok"] == true;
        let summary = status["summary"]
            .as_str()
            .map_or_else(|| if ok { "All is well".into() } else { "Something is not well".into() }, capital);
        let dead = letters.map_or_else(|| status["dead_letters"].clone(), |row| row["open"].clone());
        let numbers = vec![
            ("Events that wait", text(&status["pending"])),
            ("Events published", text(&status["published"])),
            ("Held back", text(&status["scheduled"])),
            ("Refused by the broker", text(&status["failed"])),
            ("Dead letters", text(&dead)),
            ("Streams", text(&status["streams"])),
            ("Relay", text(&status["relay"])),
            ("Version", text(&status["version"])),
        ];
        let specs: [Spec; 3] =
            [("Rank", "rank", "number"), ("Problem", "problem", "text"), ("What to do", "hint", "text")];
        let problems = Table::new("Problems", "There are none.", &specs, &problems, |_| String::new());
        Ok(Overview { frame: Frame::new(&ctx, "/", "Overview"), ok, summary, numbers, problems })
    })
    .await
}

fn capital(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map(|first| first.to_uppercase().chain(characters).collect()).unwrap_or_default()
}

const STREAM: [Spec; 7] = [
    ("Stream", "stream", "text"),
    ("Context", "context", "text"),
    ("Kind", "kind", "text"),
    ("State", "state", "state"),
    ("Waiting", "pending", "number"),
    ("Published", "published", "number"),
    ("Last sequence", "last_sequence", "number"),
];

pub async fn streams(Viewer(ctx): Viewer) -> Response {
    page(&ctx, "/streams", async {
        let rows =
            read_or(&ctx, "sea_mq.stream_status", "sea_mq.stream_overview", "ORDER BY s.stream LIMIT 1000", "").await?;
        let link = |row: &Value| ctx.app.link(&format!("/streams/{}", segment(&text(&row["stream"]))));
        let table = Table::new(
            "Streams",
            "There are none: the first event of a context makes its streams.",
            &STREAM,
            &rows,
            link,
        );
        Ok(List::new(Frame::new(&ctx, "/streams", "Streams"), table))
    })
    .await
}

pub async fn stream(Viewer(ctx): Viewer, Path(name): Path<String>) -> Response {
    page(&ctx, "/streams", async {
        let row =
            read_or(&ctx, "sea_mq.stream_status", "sea_mq.stream_overview", "WHERE s.stream = $1", &name).await?.pop();
        let row = row.ok_or_else(|| Problem::missing("There is no such stream."))?;
        let last = row["last_sequence"].as_i64().unwrap_or_default();
        let events = ctx.rows(Access::Read, Names::InPath, events_after(&name, (last - 50).max(0), 50, false)).await;
        let may = events.is_ok();
        let mut events = values(&events.unwrap_or_default());
        events.reverse();
        let specs: [Spec; 6] = [
            ("Sequence", "stream_seq", "number"),
            ("Stored", "published_at", "time"),
            ("Subject", "subject", "text"),
            ("Aggregate", "aggregate_id", "text"),
            ("Correlation", "correlation_id", "text"),
            ("Payload", "payload", "code"),
        ];
        let none = if may { "Nothing that the log retains." } else { "This role may not read events." };
        let mut list = List::new(
            Frame::new(&ctx, "/streams", name.clone()),
            Table::new("The latest events", none, &specs, &events, |_| String::new()),
        );
        list.facts = facts(
            &row,
            &[
                STREAM[1],
                STREAM[2],
                STREAM[3],
                STREAM[4],
                STREAM[5],
                STREAM[6],
                ("Since", "since", "time"),
                ("Ordering", "ordering", "text"),
                ("Losses", "losses", "number"),
                ("Error", "error", "text"),
                ("What to do", "hint", "text"),
            ],
        );
        if may {
            list.tail = ctx.app.link(&format!("/v1/streams/{}/tail", segment(&name)));
        }
        Ok(list)
    })
    .await
}

const SUBSCRIPTION: [Spec; 8] = [
    ("Subscription", "subscription", "text"),
    ("Stream", "stream", "text"),
    ("State", "state", "state"),
    ("In the stream", "pending", "number"),
    ("Received", "received", "number"),
    ("Retrying", "retrying", "number"),
    ("Processed", "processed", "number"),
    ("Dead", "dead", "number"),
];

pub async fn subscriptions(Viewer(ctx): Viewer) -> Response {
    page(&ctx, "/subscriptions", async {
        let rows = read_or(
            &ctx,
            "sea_mq.subscription_status",
            "sea_mq.subscription_overview",
            "ORDER BY s.subscription LIMIT 1000",
            "",
        )
        .await?;
        let link = |row: &Value| ctx.app.link(&format!("/subscriptions/{}", segment(&text(&row["subscription"]))));
        let table = Table::new(
            "Subscriptions",
            "There are none: SELECT sea_mq.subscribe(…) makes one.",
            &SUBSCRIPTION,
            &rows,
            link,
        );
        Ok(List::new(Frame::new(&ctx, "/subscriptions", "Subscriptions"), table))
    })
    .await
}

pub async fn subscription(Viewer(ctx): Viewer, Path(name): Path<String>) -> Response {
    page(&ctx, "/subscriptions", async {
        let row = read_or(&ctx, "sea_mq.subscription_status", "sea_mq.subscription_overview", "WHERE s.subscription = $1", &name).await?.pop();
        let row = row.ok_or_else(|| Problem::missing("There is no such subscription."))?;
        let sql = "SELECT m.id, m.message_id, m.status, m.attempts, m.event_type, m.created_at, m.processed_at, m.processing_error
            FROM sea_mq.inbox_messages m WHERE m.subscription = $1 ORDER BY m.id DESC LIMIT 50";
        let messages = ctx.rows(Access::Read, Names::InPath, Ask::new(sql).with(&name).rows_of()).await;
        let none = if messages.is_ok() { "Its inbox is empty." } else { "This role may not read messages." };
        let specs: [Spec; 7] = [("Number", "id", "number"), ("Event type", "event_type", "text"), ("State", "status", "state"), ("Attempts", "attempts", "number"),
            ("Received", "created_at", "time"), ("Done", "processed_at", "time"), ("Error", "processing_error", "text")];
        let table = Table::new("The latest messages", none, &specs, &values(&messages.unwrap_or_default()), |_| String::new());
        let mut list = List::new(Frame::new(&ctx, "/subscriptions", name.clone()), table);
        list.facts = facts(&row, &[SUBSCRIPTION[1], SUBSCRIPTION[2], ("Handler", "handler", "text"), ("Owner", "owner", "text"), ("Since", "since", "time"),
            SUBSCRIPTION[3], SUBSCRIPTION[4], ("Processing", "processing", "number"), SUBSCRIPTION[5], SUBSCRIPTION[6], ("Failed attempts", "failures", "number"),
            SUBSCRIPTION[7], ("Duplicates", "duplicates", "number"), ("Last handled", "last_processed_at", "time"), ("Error", "error", "text"), ("What to do", "hint", "text")]);
        let (verb, button) = if row["state"] == "paused" { ("resume", "Let it go on") } else { ("pause", "Pause") };
        list.forms = vec![Form { action: ctx.app.link(&format!("/subscriptions/{}/{verb}", segment(&name))), hidden: Vec::new(), button: button.into(), danger: verb == "pause", get: false }];
        Ok(list)
    })
    .await
}

const LABELS: [(&str, &str); 5] = [
    ("context", "Context"),
    ("subscription", "Subscription"),
    ("event_type", "Event type"),
    ("error", "Error has in it"),
    ("older_than", "Failed longer ago than"),
];

pub fn filter_fields(query: &HashMap<String, String>) -> Vec<Field> {
    LABELS
        .iter()
        .map(|(name, label)| Field { label, name, value: query.get(*name).cloned().unwrap_or_default() })
        .collect()
}

fn encoded(query: &HashMap<String, String>) -> String {
    let pairs = FILTERS.iter().filter_map(|(name, _)| {
        Some(format!("{name}={}", segment(query.get(*name).filter(|value| !value.is_empty())?)))
    });
    pairs.collect::<Vec<_>>().join("&")
}

pub async fn letters(Viewer(ctx): Viewer, Query(query): Search) -> Response {
    page(&ctx, "/dead-letters", async {
        let mut asked = query.clone();
        asked.insert("order".into(), "desc".into());
        let mut ask = of_query(&asked)?.with("max", "integer", 51).rows();
        ask.sql += " ORDER BY r.id DESC";
        let mut rows = values(&ctx.rows(Access::Read, Names::InBody, ask).await?);
        let more = rows.len() > 50;
        rows.truncate(50);
        let specs: [Spec; 7] = [
            ("Number", "id", "number"),
            ("Subscription", "subscription", "text"),
            ("Event type", "event_type", "text"),
            ("Reason", "reason", "text"),
            ("Attempts", "failure_count", "number"),
            ("Failed last", "last_failed_at", "time"),
            ("Error", "error", "text"),
        ];
        let table = Table::new("Dead letters", "There are none.", &specs, &rows, |row| {
            ctx.app.link(&format!("/dead-letters/{}", row["id"]))
        });
        let mut list = List::new(Frame::new(&ctx, "/dead-letters", "Dead letters"), table);
        list.filters = filter_fields(&query);
        if !rows.is_empty() {
            let action = ctx.app.link("/dead-letters/replay");
            list.next = if more {
                format!("{}?{}&after={}", ctx.app.link("/dead-letters"), encoded(&query), rows[49]["id"])
            } else {
                String::new()
            };
            list.frame.notice = query.get("done").cloned().unwrap_or_default();
            list.forms = vec![Form {
                action,
                hidden: filter_fields(&query),
                button: "Replay all that match …".into(),
                danger: false,
                get: true,
            }];
        }
        Ok(list)
    })
    .await
}

/// The count first: what is replayed is not taken back.
pub async fn confirm_replay(Viewer(ctx): Viewer, Query(query): Search) -> Response {
    page(&ctx, "/dead-letters", async {
        let ask = of_query(&query)?.with("max", "integer", 1000).select("count(*)::text", "r");
        let count = ctx.one(Access::Read, ask, "").await?;
        let many = if count == "1000" { "1,000 or more".to_owned() } else { count };
        Ok(Confirm {
            frame: Frame::new(&ctx, "/dead-letters", "Replay all that match"),
            question: format!("{many} dead letters match. They are replayed in pages of 500."),
            action: ctx.app.link("/dead-letters/replay"),
            hidden: filter_fields(&query),
            button: "Replay them".into(),
            back: format!("{}?{}", ctx.app.link("/dead-letters"), encoded(&query)),
        })
    })
    .await
}

pub fn told(ctx: &Ctx, what: String) -> List {
    let table = Table {
        name: "Nothing",
        none: "See the dead letters for what is left.",
        columns: Vec::new(),
        rows: Vec::new(),
    };
    List::new(Frame::new(ctx, "/dead-letters", "Replay").notice(what), table)
}

#[derive(Template)]
#[template(path = "letter.html")]
struct Letter {
    frame: Frame,
    facts: Vec<(&'static str, String)>,
    open: bool,
    masked: bool,
    action: String,
    payload: String,
    headers: String,
    history: Table,
}

pub async fn letter(Viewer(ctx): Viewer, Path(id): Path<i64>, Query(query): Search) -> Response {
    page(&ctx, "/dead-letters", async {
        let reveal = query.get("reveal").is_some_and(|value| value == "true");
        if reveal {
            log::act(&ctx.ids, &ctx.caller, &format!("reveals dead letter {id}"));
        }
        let row = ctx.one(Access::Read, ask_letter(id, reveal), &format!("There is no dead letter {id}.")).await?;
        let row: Value = serde_json::from_str(&row).unwrap_or_default();
        let pretty = |value: &Value| serde_json::to_string_pretty(value).unwrap_or_default();
        let payload = pretty(&row["payload"]);
        let errors: Vec<Value> = row["errors"].as_array().cloned().unwrap_or_default();
        let history: [Spec; 5] = [
            ("At", "at", "time"),
            ("Attempt", "attempt", "number"),
            ("Kind", "kind", "text"),
            ("SQLSTATE", "sqlstate", "text"),
            ("Error", "error", "text"),
        ];
        Ok(Letter {
            frame: Frame::new(&ctx, "/dead-letters", format!("Dead letter {id}")),
            facts: facts(
                &row,
                &[
                    ("State", "state", "text"),
                    ("Subscription", "subscription", "text"),
                    ("Subject", "original_subject", "text"),
                    ("Reason", "reason", "text"),
                    ("Error", "error", "text"),
                    ("Attempts", "failure_count", "number"),
                    ("Failed first", "first_failed_at", "time"),
                    ("Failed last", "last_failed_at", "time"),
                    ("Message", "message_id", "text"),
                    ("Aggregate", "aggregate_id", "text"),
                    ("Replayed", "replayed_at", "time"),
                    ("Replayed by", "replayed_by", "text"),
                    ("As message", "replay_event_id", "text"),
                    ("Discarded", "discarded_at", "time"),
                    ("Discarded by", "discarded_by", "text"),
                    ("Because", "discard_reason", "text"),
                    ("For", "actor", "text"),
                ],
            ),
            open: row["state"] == "open",
            masked: !reveal && payload.contains("\"***\""),
            action: ctx.app.link(&format!("/dead-letters/{id}")),
            payload,
            headers: pretty(&row["headers"]),
            history: Table::new("History", "No attempt is known.", &history, &errors, |_| String::new()),
        })
    })
    .await
}

pub async fn contracts(Viewer(ctx): Viewer) -> Response {
    page(&ctx, "/contracts", async {
        let rows = read(&ctx, "SELECT t.subject, t.visibility, t.description, t.registered_at, t.registered_by, t.deprecation,
            CASE WHEN t.deprecated_at IS NULL THEN 'in use' ELSE 'deprecated' END AS state FROM sea_mq.event_types t ORDER BY t.subject LIMIT 1000").await?;
        let specs: [Spec; 7] = [("Subject", "subject", "text"), ("State", "state", "state"), ("Visibility", "visibility", "text"), ("Description", "description", "text"),
            ("Registered", "registered_at", "time"), ("By", "registered_by", "text"), ("Instead", "deprecation", "text")];
        let table = Table::new("Contracts", "There are none: SELECT sea_mq.register_event(…) registers one.", &specs, &rows, |_| String::new());
        Ok(List::new(Frame::new(&ctx, "/contracts", "Contracts"), table))
    })
    .await
}
