//! `sea-mq contracts`: event contracts in a directory, without a server; and between a directory and a registry.

mod directory;
mod release;
mod report;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use sea_mq_contracts::compare::{Difference, compare};
use sea_mq_contracts::lint::{Severity, lint};
use sea_mq_contracts::schema;
use serde_json::{Value, json};

use super::progress::while_it_runs;
use super::session::Session;
use super::{Format, Verdict, output};
use crate::db::call::Ask;
use release::Release;

/// Event contracts kept in git: JSON Schemas (draft 2020-12) in DIR/{context}/{name}.v{version}.schema.json
#[derive(Subcommand)]
pub enum Contracts {
    /// Check a directory of contracts: names, versions, references, examples, and that what was released is unchanged
    ///
    /// Exit status: 0 no errors, 1 errors, 2 the directory or the release cannot be read.
    Lint {
        /// The directory, for instance schemas/events
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        /// What consumers have: a git revision (the same directory as of then), or another directory. Otherwise the last
        /// tag before HEAD that has the directory
        #[arg(long, value_name = "REV|DIR")]
        release: Option<String>,
    },
    /// Compare two versions of a schema: what breaks those who were written for the old one
    ///
    /// Exit status: 0 nothing breaks, 1 something does, 2 a file cannot be read.
    Compare {
        #[arg(value_name = "OLD.json")]
        old: PathBuf,
        #[arg(value_name = "NEW.json")]
        new: PathBuf,
    },
    /// Register the contracts of a directory in a database, all or nothing; what is registered already is left alone
    Import {
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
    /// Write the contracts that are registered in a database into a directory; what is there already is left alone
    Export {
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
}

pub async fn run(connection: Option<&str>, format: Format, contracts: Contracts) -> Verdict {
    match contracts {
        Contracts::Lint { directory, release } => lint_directory(&directory, release.as_deref(), format),
        Contracts::Compare { old, new } => compare_files(&old, &new, format),
        Contracts::Import { directory } => import(connection, format, &directory).await,
        Contracts::Export { directory } => export(connection, format, &directory).await,
    }
}

fn verdict(wrong: bool) -> ExitCode {
    if wrong { ExitCode::from(1) } else { ExitCode::SUCCESS }
}

fn lint_directory(path: &Path, release: Option<&str>, format: Format) -> Verdict {
    let set = directory::read(path)?;
    let release = release.map_or_else(|| Release::last(path), |name| Release::named(path, name))?;
    let findings = lint(&set, release.contracts());
    let text = match format {
        Format::Human => report::findings(path, &set, &findings, &release),
        Format::Json => report::findings_json(&set, &findings, &release),
    };
    report::print(&text)?;
    Ok(verdict(findings.iter().any(|finding| finding.severity == Severity::Error)))
}

fn compare_files(old: &Path, new: &Path, format: Format) -> Verdict {
    let differences = compare(&read_schema(old)?, &read_schema(new)?);
    report::print(&match format {
        Format::Human => report::differences(&differences),
        Format::Json => report::differences_json(&differences),
    })?;
    Ok(verdict(differences.iter().any(Difference::is_breaking)))
}

fn read_schema(path: &Path) -> Result<Value, String> {
    let said = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let content = std::fs::read(path).map_err(|error| said(&error))?;
    let value: Value = serde_json::from_slice(&content).map_err(|error| said(&error))?;
    schema::check(&value).map_err(|invalid| said(&invalid))?;
    Ok(value)
}

async fn import(connection: Option<&str>, format: Format, path: &Path) -> Verdict {
    let set = directory::read(path)?;
    if let Some((file, why)) = set.unusable.iter().next() {
        return Err(format!("{}: {why}", path.join(file).display()));
    }
    let doing = format!("registering {} schemas", set.schemas.len());
    let files = Value::Object(set.schemas.into_iter().collect()).to_string();
    let ask = Ask::new("SELECT i.path, i.result FROM sea_mq.import_contracts($1::text::jsonb) i").with(files).rows_of();
    let session = Session::telling(connection).await?;
    let rows = while_it_runs(format, &doing, session.rows(&ask)).await?;
    told(format, &rows)
}

async fn export(connection: Option<&str>, format: Format, path: &Path) -> Verdict {
    let ask = Ask::new("SELECT e.path, e.schema FROM sea_mq.export_contracts() e").rows_of();
    let mut rows = Vec::new();
    for row in Session::telling(connection).await?.rows(&ask).await? {
        let file = row["path"].as_str().unwrap_or_default();
        let result = directory::write(path, file, &row["schema"])?;
        rows.push(json!({"path": file, "result": result}));
    }
    told(format, &rows)
}

/// What became of each file.
fn told(format: Format, rows: &[Value]) -> Verdict {
    match format {
        Format::Json => output::rows(format, rows, &[]),
        Format::Human => {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let line = |row: &Value| format!("{:<10} {}\n", text(&row["result"]), text(&row["path"]));
            report::print(&rows.iter().map(line).collect::<String>())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
