//! Commands that look: status, streams, subscriptions, tail, verify; and republish.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::output;
use super::progress::while_it_runs;
use super::session::Session;
use super::{Format, Verdict};
use crate::db::call::{Ask, Call};

#[derive(Args)]
pub struct Tail {
    /// Its name
    stream: String,
    /// Stream sequence to begin behind; from now on unless said
    #[arg(long)]
    after: Option<i64>,
    /// Only what is there now
    #[arg(long)]
    no_follow: bool,
}

#[derive(Args)]
pub struct Republish {
    /// Its name
    stream: String,
    /// From this time on; all that is retained unless said
    #[arg(long)]
    from_time: Option<String>,
    /// From this place in the log on
    #[arg(long)]
    from_seq: Option<i64>,
}

pub async fn status(session: &Session, format: Format, watch: Option<u64>) -> Verdict {
    loop {
        let status = session.rows(&Ask::new("SELECT * FROM sea_mq.status").rows_of()).await?.pop().unwrap_or_default();
        let problems =
            session.rows(&Ask::new("SELECT * FROM sea_mq.problems p ORDER BY p.rank, p.problem").rows_of()).await?;
        if watch.is_some() && format == Format::Human {
            // To the top left, and nothing below.
            print!("\x1b[H\x1b[2J");
        }
        match format {
            Format::Json => println!("{}", json!({"status": status, "problems": problems})),
            Format::Human => {
                output::row(format, &status);
                if !problems.is_empty() {
                    println!();
                    output::rows(format, &problems, &["rank", "problem", "hint"]);
                }
            }
        }
        let Some(seconds) = watch else {
            return Ok(if status["ok"] == true { ExitCode::SUCCESS } else { ExitCode::from(1) });
        };
        std::io::stdout().flush().map_err(|error| error.to_string())?;
        tokio::time::sleep(Duration::from_secs(seconds.max(1))).await;
    }
}

pub async fn streams(session: &Session, format: Format) -> Verdict {
    let rows = session.rows(&Ask::new("SELECT * FROM sea_mq.stream_status s ORDER BY s.stream").rows_of()).await?;
    output::rows(
        format,
        &rows,
        &["stream", "kind", "state", "pending", "published", "last_sequence", "losses", "error"],
    );
    let well = rows.iter().all(|row| row["state"] == "ready" || row["state"] == "pending");
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

pub async fn subscriptions(session: &Session, format: Format) -> Verdict {
    let rows =
        session.rows(&Ask::new("SELECT * FROM sea_mq.subscription_status s ORDER BY s.subscription").rows_of()).await?;
    output::rows(
        format,
        &rows,
        &[
            "subscription",
            "stream",
            "state",
            "pending",
            "received",
            "processing",
            "retrying",
            "processed",
            "dead",
            "error",
        ],
    );
    let well = rows.iter().all(|row| ["active", "pending", "paused"].iter().any(|state| row["state"] == *state));
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Events of one question, and the pause between two.
const PAGE: i64 = 500;
const PAUSE: Duration = Duration::from_millis(300);

pub async fn tail(session: &Session, format: Format, arguments: &Tail) -> Verdict {
    let mut after = match arguments.after {
        Some(after) => after,
        None if arguments.no_follow => 0,
        None => {
            let ask =
                Ask::new("SELECT coalesce(s.last_sequence, 0)::text FROM sea_mq.stream_status s WHERE s.stream = $1")
                    .with(&arguments.stream);
            let last = session.rows(&ask).await?.pop().and_then(|last| last.as_i64());
            last.ok_or_else(|| format!("there is no stream {}", arguments.stream))?
        }
    };
    loop {
        let rows = session.rows(&crate::rest::streams::events_after(&arguments.stream, after, PAGE, false)).await?;
        for row in &rows {
            after = row["stream_seq"].as_i64().unwrap_or(after);
            match format {
                Format::Json => println!("{row}"),
                Format::Human => println!(
                    "{after:>10}  {}  {}  {}",
                    text(&row["published_at"]),
                    text(&row["subject"]),
                    row["payload"]
                ),
            }
        }
        let full = i64::try_from(rows.len()).is_ok_and(|count| count == PAGE);
        if arguments.no_follow && !full {
            return Ok(ExitCode::SUCCESS);
        }
        if !full {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

pub async fn verify(session: &Session, format: Format, stream: &str) -> Verdict {
    let ask = Call::of("sea_mq.verify_stream").with("stream", "text", stream).rows();
    let rows = while_it_runs(format, &format!("comparing {stream} with the log"), session.rows(&ask)).await?;
    if rows.is_empty() && format == Format::Human {
        println!("{stream} holds what the log says");
    } else {
        output::rows(format, &rows, &["kind", "event_id", "seq", "stream_seq", "detail"]);
    }
    Ok(if rows.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

pub async fn republish(session: &Session, format: Format, arguments: &Republish) -> Verdict {
    let call = Call::of("sea_mq.republish")
        .with("stream", "text", &arguments.stream)
        .with("from_time", "timestamptz", arguments.from_time.clone())
        .with("from_seq", "bigint", arguments.from_seq.map(|seq| seq.to_string()));
    let doing = format!("looking for what is to be in {}", arguments.stream);
    let count = while_it_runs(format, &doing, session.rows(&call.value())).await?.pop().unwrap_or_default();
    output::row(format, &json!({"events": count}));
    Ok(ExitCode::SUCCESS)
}
