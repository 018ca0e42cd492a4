//! `sea-mq dlq`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::output;
use super::session::Session;
use super::{Format, Verdict};
use crate::db::call::Call;

#[derive(Subcommand)]
pub enum Dlq {
    /// Dead letters, the newest first
    List {
        #[command(flatten)]
        filters: Filters,
        /// Rows at most
        #[arg(long, default_value_t = 50)]
        limit: i64,
        /// Those that were replayed too
        #[arg(long)]
        all: bool,
    },
    /// A dead letter with its payload
    Show {
        /// Its number
        id: i64,
        /// Show what contracts call sensitive
        #[arg(long)]
        reveal: bool,
    },
    /// Replay dead letters: some by their numbers, or all that filters let pass
    Replay {
        /// Their numbers
        ids: Vec<i64>,
        #[command(flatten)]
        filters: Filters,
        /// A mended payload (JSON), for one letter
        #[arg(long)]
        payload: Option<String>,
        /// All that the filters let pass
        #[arg(long)]
        all: bool,
        /// Say how many there are, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Give a dead letter up
    Discard {
        /// Its number
        id: i64,
        /// Why
        #[arg(long)]
        reason: Option<String>,
    },
}

#[derive(Args)]
pub struct Filters {
    /// Only those of this context
    #[arg(long)]
    context: Option<String>,
    /// Only those of this subscription
    #[arg(long)]
    subscription: Option<String>,
    /// Only those of this event type
    #[arg(long)]
    event_type: Option<String>,
    /// Only those whose error has this in it
    #[arg(long)]
    error: Option<String>,
    /// Only those that failed last longer ago, as in '1 hour'
    #[arg(long)]
    older_than: Option<String>,
}

impl Filters {
    fn apply(&self, call: Call) -> Call {
        call.with("context", "text", self.context.clone())
            .with("subscription", "text", self.subscription.clone())
            .with("event_type", "text", self.event_type.clone())
            .with("error", "text", self.error.clone())
            .with("older_than", "interval", self.older_than.clone())
    }
}

/// Letters of a transaction: what is replayed stays so when the command is ended.
const PAGE: i64 = 500;

pub async fn run(session: &Session, format: Format, dlq: Dlq) -> Verdict {
    match dlq {
        Dlq::List { filters, limit, all } => {
            let call = filters
                .apply(Call::of("sea_mq.dlq_page"))
                .with("descending", "boolean", true)
                .with("max", "integer", limit);
            let call = if all { call.null("replayed") } else { call };
            let rows = session.rows(&call.rows()).await?;
            output::rows(
                format,
                &rows,
                &["id", "state", "subscription", "event_type", "reason", "failure_count", "last_failed_at", "error"],
            );
            Ok(ExitCode::SUCCESS)
        }
        Dlq::Show { id, reveal } => {
            let rows = session.rows(&crate::rest::dead_letters::letter(id, reveal)).await?;
            output::row(format, rows.first().ok_or_else(|| format!("there is no dead letter {id}"))?);
            Ok(ExitCode::SUCCESS)
        }
        Dlq::Discard { id, reason } => {
            let call = Call::of("sea_mq.dlq_discard").with("id", "bigint", id).with("reason", "text", reason);
            session.rows(&call.value()).await?;
            output::row(format, &json!({"id": id}));
            Ok(ExitCode::SUCCESS)
        }
        Dlq::Replay { ids, payload: Some(payload), .. } => {
            let [id] = ids[..] else { return Err("a mended payload is for one letter: give its number".into()) };
            let call = Call::of("sea_mq.dlq_replay").with("id", "bigint", id).with("payload", "jsonb", payload);
            let event = session.rows(&call.value()).await?.pop().unwrap_or_default();
            output::row(format, &json!({"id": id, "event_id": event}));
            Ok(ExitCode::SUCCESS)
        }
        Dlq::Replay { ids, filters, all, dry_run, .. } => {
            if ids.is_empty() && !all {
                return Err("say which: numbers, or --all with filters".into());
            }
            replay(session, format, &ids, &filters, dry_run).await
        }
    }
}

async fn replay(session: &Session, format: Format, ids: &[i64], filters: &Filters, dry_run: bool) -> Verdict {
    if dry_run {
        let call = filters.apply(Call::of("sea_mq.dlq_page")).with("max", "integer", 1000);
        let count = if ids.is_empty() {
            session.rows(&call.select("count(*)::text", "r")).await?.pop()
        } else {
            Some(json!(ids.len()))
        };
        output::row(format, &json!({"matching": count}));
        return Ok(ExitCode::SUCCESS);
    }
    let (mut replayed, mut failed, mut after): (usize, Vec<Value>, Option<String>) = (0, Vec::new(), None);
    loop {
        let call = filters
            .apply(Call::of("sea_mq.dlq_replay_batch"))
            .with("after_id", "bigint", after.clone())
            .with("max", "integer", PAGE);
        let call = if ids.is_empty() { call } else { call.with("ids", "bigint[]", json!(ids).to_string()) };
        let rows = session.rows(&call.rows()).await?;
        let (bad, good): (Vec<Value>, Vec<Value>) = rows.iter().cloned().partition(|row| !row["sqlstate"].is_null());
        replayed += good.len();
        failed.extend(bad);
        if format == Format::Human {
            eprintln!("{replayed} replayed, {} failed", failed.len());
        }
        after = rows.last().map(|row| row["id"].to_string());
        if !i64::try_from(rows.len()).is_ok_and(|count| count == PAGE) {
            break;
        }
    }
    match format {
        Format::Json => println!("{}", json!({"replayed": replayed, "failed": failed})),
        Format::Human if failed.is_empty() => println!("{replayed} replayed"),
        Format::Human => output::rows(format, &failed, &["id", "sqlstate", "error_text", "hint"]),
    }
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
