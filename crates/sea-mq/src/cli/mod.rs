//! The command line. Except for `serve`, each command asks the database directly, with the caller's own role.

mod check;
mod contracts;
mod dlq;
mod doctor;
mod endpoints;
mod events;
mod look;
mod output;
mod progress;
mod session;
mod token;
mod top;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};

use crate::serve::options::Options;
use crate::{rest, serve};
use session::Session;

#[derive(Parser)]
#[command(name = "sea-mq", version, about = "REST, console, metrics and command line of sea_mq", after_help = EXITS)]
struct Cli {
    /// Database to ask; libpq's environment (PGHOST, PGUSER, PGPASSFILE, PGSSLMODE …) says it too
    #[arg(
        long,
        short,
        global = true,
        env = "SEA_MQ_DATABASE",
        hide_env_values = true,
        id = "of_database",
        value_name = "CONNECTION"
    )]
    connection: Option<String>,
    /// How to print
    #[arg(long, global = true, value_enum, default_value = "human")]
    format: Format,
    #[command(subcommand)]
    command: Command,
}

const EXITS: &str = "Exit status: 0 all is well, 1 something is not, 2 it could not be found out.";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Human,
    /// For programs
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Is everything all right, and if not, what
    Status {
        /// Again every so many seconds, until it is ended
        #[arg(long, value_name = "SECONDS")]
        watch: Option<u64>,
    },
    /// What goes on: streams, subscriptions, endpoints and their rates, until q is pressed
    Top(top::Arguments),
    /// Status for monitoring: one line and an exit status, in the manner of Nagios
    Check(check::Arguments),
    /// What is wrong, from the library to the broker, with the command that fixes it
    Doctor,
    /// Events: emit one, or see what became of one
    #[command(subcommand)]
    Events(events::Events),
    /// Streams and how they are
    Streams,
    /// Subscriptions and how they are
    Subscriptions,
    /// Endpoints and how they are; show, check, pause, resume, deliveries, redeliver
    Endpoints {
        #[command(subcommand)]
        what: Option<endpoints::Endpoints>,
    },
    /// What a stream stores, as it is stored
    Tail(look::Tail),
    /// Dead letters: list, show, replay, discard
    #[command(subcommand)]
    Dlq(dlq::Dlq),
    /// Event contracts in a directory: lint, compare; and a registry: import, export
    #[command(subcommand)]
    Contracts(contracts::Contracts),
    /// Compare a stream with the log
    Verify {
        /// Its name
        stream: String,
    },
    /// Refill a stream from the log
    Republish(look::Republish),
    /// Serve REST, console, health and metrics
    Serve(Box<Options>),
    /// Make a token for the file of `serve --tokens`
    Token(token::Arguments),
    /// Print the OpenAPI document
    Openapi,
    /// Print a shell's completions
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

/// How a command ended: whether all is well.
type Verdict = Result<ExitCode, String>;

/// 0: all is well; 1: something is not; 2: it could not be found out.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    obey(cli).unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::from(2)
    })
}

fn obey(cli: Cli) -> Verdict {
    match cli.command {
        Command::Serve(options) => {
            let database = cli.connection.or(options.database.clone());
            serve::run(Options { database, ..*options }).map(|()| ExitCode::SUCCESS)
        }
        Command::Token(arguments) => token::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Openapi => {
            print!("{}", rest::document());
            Ok(ExitCode::SUCCESS)
        }
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "sea-mq", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::Man => {
            let page = clap_mangen::Man::new(Cli::command());
            page.render(&mut std::io::stdout()).map_err(|error| error.to_string())?;
            Ok(ExitCode::SUCCESS)
        }
        command => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map_err(|error| error.to_string())?.block_on(asking(command, cli.format, cli.connection.as_deref()))
        }
    }
}

async fn asking(command: Command, format: Format, connection: Option<&str>) -> Verdict {
    match command {
        // These two are to say what is wrong, a database that is away included.
        Command::Doctor => return doctor::run(format, connection).await,
        Command::Check(arguments) => return check::run(&arguments, connection).await,
        // Half of them ask no database.
        Command::Contracts(contracts) => return contracts::run(connection, format, contracts).await,
        // Whether there is a terminal is looked at before the database is.
        Command::Top(arguments) => return top::run(connection, format, &arguments).await,
        _ => {}
    }
    let session = Session::open(connection).await?;
    match command {
        Command::Status { watch } => look::status(&session, format, watch).await,
        Command::Streams => look::streams(&session, format).await,
        Command::Subscriptions => look::subscriptions(&session, format).await,
        Command::Endpoints { what } => endpoints::run(&session, format, what).await,
        Command::Tail(arguments) => look::tail(&session, format, &arguments).await,
        Command::Verify { stream } => look::verify(&session, format, &stream).await,
        Command::Republish(arguments) => look::republish(&session, format, &arguments).await,
        Command::Events(events) => events::run(&session, format, events).await,
        Command::Dlq(dlq) => dlq::run(&session, format, dlq).await,
        _ => Err("this command asks no database".into()),
    }
}
