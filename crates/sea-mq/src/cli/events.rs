//! `sea-mq events`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::output;
use super::session::Session;
use super::{Format, Verdict};
use crate::db::call::Call;

#[derive(Subcommand)]
pub enum Events {
    /// Emit an event
    Emit(Box<Emit>),
    /// What became of an event
    Show {
        /// The event
        id: uuid::Uuid,
    },
}

#[derive(Args)]
pub struct Emit {
    /// Type of the aggregate that changed
    aggregate_type: String,
    /// Its id
    aggregate_id: String,
    /// Name of the event
    event_type: String,
    /// Content: JSON
    payload: String,
    /// Bounded context; the database's unless said
    #[arg(long)]
    context: Option<String>,
    /// Version of the event type
    #[arg(long = "event-version")]
    version: Option<i64>,
    /// Makes the command repeatable
    #[arg(long)]
    event_id: Option<uuid::Uuid>,
    /// Correlation id
    #[arg(long)]
    correlation_id: Option<String>,
    /// Id of the event that caused it
    #[arg(long)]
    causation_id: Option<String>,
    /// More headers: a JSON object of texts
    #[arg(long)]
    headers: Option<String>,
    /// internal, partner, public or sensitive; internal unless said
    #[arg(long)]
    visibility: Option<String>,
    /// Held back until then
    #[arg(long)]
    available_at: Option<String>,
}

pub async fn run(session: &Session, format: Format, events: Events) -> Verdict {
    match events {
        Events::Emit(event) => {
            let call = Call::of("sea_mq.emit")
                .with("aggregate_type", "text", event.aggregate_type)
                .with("aggregate_id", "text", event.aggregate_id)
                .with("event_type", "text", event.event_type)
                .with("payload", "jsonb", event.payload)
                .with("context", "text", event.context)
                .with("event_version", "integer", event.version.map(|version| version.to_string()))
                .with("event_id", "uuid", event.event_id.map(|id| id.to_string()))
                .with("correlation_id", "text", event.correlation_id)
                .with("causation_id", "text", event.causation_id)
                .with("headers", "jsonb", event.headers)
                .with("visibility", "text", event.visibility)
                .with("available_at", "timestamptz", event.available_at);
            let id = session.rows(&call.value()).await?.pop().unwrap_or_default();
            output::row(format, &json!({"id": id}));
            Ok(ExitCode::SUCCESS)
        }
        Events::Show { id } => {
            let rows =
                session.rows(&Call::of("sea_mq.event_status").with("event_id", "uuid", id.to_string()).rows()).await?;
            let Some(row) = rows.first() else { return Err(format!("event {id} is not, or no longer, in the log")) };
            output::row(format, row);
            Ok(if row["status"] == "failed" { ExitCode::from(1) } else { ExitCode::SUCCESS })
        }
    }
}
