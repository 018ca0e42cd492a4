//! `sea-mq`: REST, metrics and a console in front of a database with the extension, and a command line.
//!
//! * `auth`: who sends a request: tokens, JSON Web Tokens, sessions of the console
//! * `db`: how the database is reached, and how a request becomes one transaction of a role
//! * `rest`: `/v1`, and its OpenAPI document
//! * `console`: the pages
//! * `serve`: listeners, health, metrics, log
//! * `traces`: what became of traced events, for a collector of OpenTelemetry
//! * `cli`: the command line, which asks the database directly
//!
//! Rights are the database's GRANTs and nothing else: nothing in here decides what a role may.

mod auth;
mod cli;
mod console;
mod db;
mod rest;
mod serve;
mod traces;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
