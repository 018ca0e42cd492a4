//! `make bench`, and `make scaling`. See the crate's documentation for what is measured and how.

use std::process::ExitCode;

use sea_mq_bench::{Options, Outcome, USAGE, model, run};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).peekable();
    if arguments.next_if(|first| first == "model").is_some() {
        return match model::ModelOptions::parse(arguments) {
            Ok(options) => ended(model::run(&options)),
            Err(error) => misunderstood(&error, model::USAGE),
        };
    }
    match Options::parse(arguments) {
        Ok(options) => ended(measure(&options)),
        Err(error) => misunderstood(&error, USAGE),
    }
}

fn measure(options: &Options) -> Outcome<()> {
    // Blocking on this thread matters: the servers end when the thread that started them ends.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(run(options))
}

fn ended(outcome: Outcome<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sea-mq-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn misunderstood(error: &str, usage: &str) -> ExitCode {
    eprintln!("sea-mq-bench: {error}\n\n{usage}");
    ExitCode::from(2)
}
