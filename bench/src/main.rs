//! `make bench`. See the crate's documentation for what is measured and how.

use std::process::ExitCode;

use sea_mq_bench::{Options, USAGE, run};

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("sea-mq-bench: {error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    // Blocking on this thread matters: the servers end when the thread that started them ends.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(run(&options))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sea-mq-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
