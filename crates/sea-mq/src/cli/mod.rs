//! The command line.

mod token;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::serve::options::Options;
use crate::{rest, serve};

#[derive(Parser)]
#[command(name = "sea-mq", version, about = "REST, console, metrics and command line of sea_mq")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve REST, console, health and metrics
    Serve(Box<Options>),
    /// Make a token for the file of `serve --tokens`
    Token(token::Arguments),
    /// Print the OpenAPI document
    Openapi,
}

/// 0: all is well; 1: something is not; 2: it could not be found out.
pub fn run() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(options) => serve::run(*options),
        Command::Token(arguments) => token::run(&arguments),
        Command::Openapi => {
            print!("{}", rest::document());
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}
