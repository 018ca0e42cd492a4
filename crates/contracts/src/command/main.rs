//! `sea-mq-contracts`: event contracts in a directory, without a server; and between a directory and a registry.

mod database;
mod directory;
mod release;
mod report;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use sea_mq_contracts::compare::{Difference, compare};
use sea_mq_contracts::lint::{Severity, lint};
use sea_mq_contracts::schema;
use serde_json::Value;

use release::Release;

/// Event contracts of sea_mq, kept in git: JSON Schemas (draft 2020-12) in DIR/{context}/{name}.v{version}.schema.json.
///
/// Exit status: 0 nothing is wrong, 1 something is, 2 the command could not do its work.
#[derive(Parser)]
#[command(name = "sea-mq-contracts", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
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
        #[arg(long, value_enum, default_value_t = Format::Human)]
        format: Format,
    },
    /// Compare two versions of a schema: what breaks those who were written for the old one
    ///
    /// Exit status: 0 nothing breaks, 1 something does, 2 a file cannot be read.
    Compare {
        #[arg(value_name = "OLD.json")]
        old: PathBuf,
        #[arg(value_name = "NEW.json")]
        new: PathBuf,
        #[arg(long, value_enum, default_value_t = Format::Human)]
        format: Format,
    },
    /// Register the contracts of a directory in a database, all or nothing; what is registered already is left alone
    Import {
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        #[command(flatten)]
        database: Database,
    },
    /// Write the contracts that are registered in a database into a directory; what is there already is left alone
    Export {
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        #[command(flatten)]
        database: Database,
    },
}

#[derive(clap::Args)]
struct Database {
    /// As in postgresql://user@host/database; what it leaves out is taken from PGHOST, PGPORT, PGUSER, PGPASSWORD and
    /// PGDATABASE. The connection is not encrypted: over a network use psql and sea_mq.import_contracts
    #[arg(long = "database", value_name = "URL", default_value = "postgresql://")]
    url: String,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Lines for people
    Human,
    /// One JSON object
    Json,
}

/// Whether something is wrong, or why that cannot be said.
type Outcome = Result<bool, String>;

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Lint { directory, release, format } => lint_directory(&directory, release.as_deref(), format),
        Command::Compare { old, new, format } => compare_files(&old, &new, format),
        Command::Import { directory, database } => import(&directory, &database.url),
        Command::Export { directory, database } => export(&directory, &database.url),
    };
    match outcome {
        Ok(false) => ExitCode::SUCCESS,
        Ok(true) => ExitCode::from(1),
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::from(2)
        }
    }
}

fn lint_directory(path: &Path, release: Option<&str>, format: Format) -> Outcome {
    let set = directory::read(path)?;
    let release = release.map_or_else(|| Release::last(path), |name| Release::named(path, name))?;
    let findings = lint(&set, release.contracts());
    let text = match format {
        Format::Human => report::findings(path, &set, &findings, &release),
        Format::Json => report::findings_json(&set, &findings, &release),
    };
    report::print(&text)?;
    Ok(findings.iter().any(|finding| finding.severity == Severity::Error))
}

fn compare_files(old: &Path, new: &Path, format: Format) -> Outcome {
    let differences = compare(&read_schema(old)?, &read_schema(new)?);
    report::print(&match format {
        Format::Human => report::differences(&differences),
        Format::Json => report::differences_json(&differences),
    })?;
    Ok(differences.iter().any(Difference::is_breaking))
}

fn read_schema(path: &Path) -> Result<Value, String> {
    let said = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let content = std::fs::read(path).map_err(|error| said(&error))?;
    let value: Value = serde_json::from_slice(&content).map_err(|error| said(&error))?;
    schema::check(&value).map_err(|invalid| said(&invalid))?;
    Ok(value)
}

fn import(path: &Path, url: &str) -> Outcome {
    let set = directory::read(path)?;
    if let Some((file, why)) = set.unusable.iter().next() {
        return Err(format!("{}: {why}", path.join(file).display()));
    }
    let results = database::import(url, set.schemas)?;
    let lines: Vec<String> = results.iter().map(|(path, result)| format!("{result:<10} {path}\n")).collect();
    report::print(&lines.concat())?;
    Ok(false)
}

fn export(path: &Path, url: &str) -> Outcome {
    let mut lines = String::new();
    for (file, schema) in database::export(url)? {
        let what = directory::write(path, &file, &schema)?;
        lines.push_str(&format!("{what:<10} {file}\n"));
    }
    report::print(&lines)?;
    Ok(false)
}
