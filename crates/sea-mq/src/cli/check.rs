//! `sea-mq check`: for monitoring. One line, and an exit status: 0 well, 1 warning, 2 critical or not to be found out.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::Verdict;
use super::session::Session;
use crate::db::call::Ask;

#[derive(Args)]
pub struct Arguments {
    /// How to print
    #[arg(long = "as", value_enum, default_value = "nagios")]
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// `SEA_MQ OK - all is well | pending=0 …`
    Nagios,
    /// An object
    Json,
    /// Gauges
    Prometheus,
}

/// What is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Ok,
    Warning,
    Critical,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
        }
    }
}

pub async fn run(arguments: &Arguments, connection: Option<&str>) -> Verdict {
    let found = ask(connection).await.unwrap_or_else(|error| (Level::Critical, error.replace('\n', " "), Value::Null));
    print(arguments.form, &found);
    Ok(ExitCode::from(found.0 as u8))
}

async fn ask(connection: Option<&str>) -> Result<(Level, String, Value), String> {
    let session = Session::open(connection).await?;
    let status = session.rows(&Ask::new("SELECT * FROM sea_mq.status").rows_of()).await?.pop().unwrap_or_default();
    let worst = session
        .rows(&Ask::new("SELECT min(p.rank)::text FROM sea_mq.problems p"))
        .await?
        .pop()
        .and_then(|rank| rank.as_i64());
    let summary = status["summary"].as_str().unwrap_or("nothing is known").to_owned();
    Ok((level(worst), summary, status))
}

/// By the most urgent problem: 1 to 3 stop events, the others wait for somebody.
fn level(worst: Option<i64>) -> Level {
    match worst {
        None => Level::Ok,
        Some(..=3) => Level::Critical,
        Some(_) => Level::Warning,
    }
}

fn print(form: Form, (level, summary, status): &(Level, String, Value)) {
    match form {
        Form::Json => println!("{}", json!({"level": level.word(), "summary": summary, "status": status})),
        Form::Prometheus => println!(
            "# TYPE sea_mq_check_level gauge\n# HELP sea_mq_check_level 0 well, 1 warning, 2 critical\nsea_mq_check_level {}",
            *level as u8
        ),
        Form::Nagios => {
            let data: Vec<String> = ["problems", "pending", "failed", "scheduled"]
                .iter()
                .filter_map(|name| Some(format!("{name}={}", status[*name].as_i64()?)))
                .collect();
            let data = if data.is_empty() { String::new() } else { format!(" | {}", data.join(" ")) };
            println!("SEA_MQ {} - {}{data}", level.word(), summary.replace('|', "/"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stops_events_is_critical() {
        assert_eq!(
            [None, Some(1), Some(3), Some(4)].map(level),
            [Level::Ok, Level::Critical, Level::Critical, Level::Warning]
        );
    }
}
