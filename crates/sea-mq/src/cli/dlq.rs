//! `sea-mq dlq`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::session::Session;
use super::{Format, Verdict, output, progress};
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
        /// A corrected payload (JSON), for one letter
        #[arg(long)]
        payload: Option<String>,
        /// All that the filters let pass
        #[arg(long)]
        all: bool,
        /// Say how many there are, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Give dead letters up: some by their numbers, or all that filters let pass
    Discard {
        /// Their numbers
        ids: Vec<i64>,
        #[command(flatten)]
        filters: Filters,
        /// Why
        #[arg(long)]
        reason: Option<String>,
        /// All that the filters let pass
        #[arg(long)]
        all: bool,
        /// Say how many there are, and do nothing
        #[arg(long)]
        dry_run: bool,
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
        Dlq::Discard { ids, filters, reason, all, dry_run } => {
            let which = Which::new(ids, filters, all)?;
            if dry_run { which.count(session, format).await } else { discard(session, format, &which, reason).await }
        }
        Dlq::Replay { ids, payload: Some(payload), .. } => {
            let [id] = ids[..] else { return Err("a corrected payload is for one letter: give its number".into()) };
            let call = Call::of("sea_mq.dlq_replay").with("id", "bigint", id).with("payload", "jsonb", payload);
            let event = session.rows(&call.value()).await?.pop().unwrap_or_default();
            output::row(format, &json!({"id": id, "event_id": event}));
            Ok(ExitCode::SUCCESS)
        }
        Dlq::Replay { ids, filters, all, dry_run, .. } => {
            let which = Which::new(ids, filters, all)?;
            if dry_run { which.count(session, format).await } else { replay(session, format, &which).await }
        }
    }
}

/// The letters that a command is about.
struct Which {
    /// Empty: all that the filters let pass.
    ids: Vec<i64>,
    filters: Filters,
}

impl Which {
    fn new(ids: Vec<i64>, filters: Filters, all: bool) -> Result<Self, String> {
        if ids.is_empty() && !all {
            return Err("say which: numbers, or --all with filters".into());
        }
        Ok(Self { ids, filters })
    }

    /// Of so many at most there is a count.
    const COUNTED: u64 = 1000;

    async fn matching(&self, session: &Session) -> Result<u64, String> {
        if !self.ids.is_empty() {
            return Ok(self.ids.len() as u64);
        }
        let call = self.filters.apply(Call::of("sea_mq.dlq_page")).with("max", "integer", Self::COUNTED.cast_signed());
        let count = session.rows(&call.select("count(*)::text", "r")).await?.pop();
        Ok(count.and_then(|count| count.as_u64()).unwrap_or_default())
    }

    async fn count(&self, session: &Session, format: Format) -> Verdict {
        output::row(format, &json!({"matching": self.matching(session).await?}));
        Ok(ExitCode::SUCCESS)
    }

    /// A bar for what will be done. Where there is no count of all that match, it counts what is done.
    async fn bar(&self, session: &Session, format: Format, doing: &str) -> Result<ProgressBar, String> {
        let matching = self.matching(session).await?;
        Ok(progress::bar(format, doing, (matching < Self::COUNTED).then_some(matching)))
    }
}

/// Whether that was the last page, as far as its length says.
fn is_last(rows: &[Value]) -> bool {
    !i64::try_from(rows.len()).is_ok_and(|count| count == PAGE)
}

async fn discard(session: &Session, format: Format, which: &Which, reason: Option<String>) -> Verdict {
    let bar = which.bar(session, format, "discarding").await?;
    let mut discarded = 0;
    for id in &which.ids {
        let call = Call::of("sea_mq.dlq_discard").with("id", "bigint", *id).with("reason", "text", reason.clone());
        session.rows(&call.value()).await?;
        discarded += 1;
        bar.inc(1);
    }
    while which.ids.is_empty() {
        // What is discarded is on no page any more.
        let call = which.filters.apply(Call::of("sea_mq.dlq_page")).with("max", "integer", PAGE);
        let mut ask = call.select("", "r").with(reason.clone());
        ask.sql = ask.sql.replacen(
            "SELECT ",
            &format!("SELECT r.id::text, sea_mq.dlq_discard(r.id, ${})", ask.params.len()),
            1,
        );
        let rows = session.rows(&ask).await?;
        discarded += rows.len();
        bar.inc(rows.len() as u64);
        if is_last(&rows) {
            break;
        }
    }
    bar.finish_and_clear();
    output::row(format, &json!({"discarded": discarded}));
    Ok(ExitCode::SUCCESS)
}

async fn replay(session: &Session, format: Format, which: &Which) -> Verdict {
    let bar = which.bar(session, format, "replaying").await?;
    let (mut replayed, mut failed, mut after): (usize, Vec<Value>, Option<String>) = (0, Vec::new(), None);
    loop {
        let call = which
            .filters
            .apply(Call::of("sea_mq.dlq_replay_batch"))
            .with("after_id", "bigint", after.clone())
            .with("max", "integer", PAGE);
        let call = if which.ids.is_empty() { call } else { call.with("ids", "bigint[]", json!(which.ids).to_string()) };
        let rows = session.rows(&call.rows()).await?;
        let (bad, good): (Vec<Value>, Vec<Value>) = rows.iter().cloned().partition(|row| !row["sqlstate"].is_null());
        replayed += good.len();
        failed.extend(bad);
        bar.inc(rows.len() as u64);
        after = rows.last().map(|row| row["id"].to_string());
        if is_last(&rows) {
            break;
        }
    }
    bar.finish_and_clear();
    match format {
        Format::Json => println!("{}", json!({"replayed": replayed, "failed": failed})),
        Format::Human if failed.is_empty() => println!("{replayed} replayed"),
        Format::Human => output::rows(format, &failed, &["id", "sqlstate", "error_text", "hint"]),
    }
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
