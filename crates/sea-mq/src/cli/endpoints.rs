//! `sea-mq endpoints`.

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;

use super::output;
use super::session::Session;
use super::{Format, Verdict};
use crate::db::call::{Ask, Call};
use crate::rest::endpoints::{deliveries_of, one};

#[derive(Subcommand)]
pub enum Endpoints {
    /// An endpoint: what is described, and how it is
    Show {
        /// Its name
        endpoint: String,
    },
    /// Send a ping, and say how far it came
    Check {
        /// Its name
        endpoint: String,
    },
    /// Stop delivering
    Pause {
        /// Its name
        endpoint: String,
    },
    /// Let it go on
    Resume {
        /// Its name
        endpoint: String,
    },
    /// What was tried, the newest events first
    Deliveries {
        /// Its name
        endpoint: String,
        /// Only those in this state
        #[arg(long)]
        status: Option<String>,
        /// Rows at most
        #[arg(long, default_value_t = 50)]
        limit: i64,
    },
    /// Send an event once more
    Redeliver {
        /// Its name
        endpoint: String,
        /// Id of the event
        event: String,
    },
}

/// Without a command: all of them.
pub async fn run(session: &Session, format: Format, endpoints: Option<Endpoints>) -> Verdict {
    let change = async |function, endpoint: String| {
        session.rows(&Call::of(function).with("endpoint", "text", &endpoint).value()).await?;
        output::row(format, &json!({"endpoint": endpoint}));
        Ok(ExitCode::SUCCESS)
    };
    match endpoints {
        None => list(session, format).await,
        Some(Endpoints::Show { endpoint }) => {
            let rows = session.rows(&one(&endpoint)).await?;
            output::row(format, rows.first().ok_or_else(|| format!("there is no endpoint {endpoint}"))?);
            Ok(ExitCode::SUCCESS)
        }
        Some(Endpoints::Check { endpoint }) => check(session, format, &endpoint).await,
        Some(Endpoints::Pause { endpoint }) => change("sea_mq.pause_endpoint", endpoint).await,
        Some(Endpoints::Resume { endpoint }) => change("sea_mq.resume_endpoint", endpoint).await,
        Some(Endpoints::Deliveries { endpoint, status, limit }) => {
            let rows = session.rows(&deliveries_of(&endpoint, None, status.as_deref(), limit)).await?;
            let columns = ["event_id", "status", "attempts", "http_status", "delivered_at", "next_attempt_at", "error"];
            output::rows(format, &rows, &columns);
            Ok(ExitCode::SUCCESS)
        }
        Some(Endpoints::Redeliver { endpoint, event }) => {
            let call =
                Call::of("sea_mq.redeliver").with("event_id", "uuid", &event).with("endpoint", "text", &endpoint);
            session.rows(&call.value()).await?;
            output::row(format, &json!({"event_id": event, "endpoint": endpoint}));
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn list(session: &Session, format: Format) -> Verdict {
    let ask = Ask::new("SELECT * FROM sea_mq.endpoint_status s ORDER BY s.endpoint").rows_of();
    let rows = session.rows(&ask).await?;
    let columns = ["endpoint", "kind", "state", "lag", "in_flight", "retrying", "delivered", "failed", "error"];
    output::rows(format, &rows, &columns);
    let well = rows.iter().all(|row| ["active", "paused"].iter().any(|state| row["state"] == *state));
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

async fn check(session: &Session, format: Format, endpoint: &str) -> Verdict {
    let rows = session.rows(&Call::of("sea_mq.check_endpoint").with("endpoint", "text", endpoint).rows()).await?;
    output::rows(format, &rows, &["step", "ok", "detail"]);
    Ok(if rows.iter().all(|row| row["ok"] == true) { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
