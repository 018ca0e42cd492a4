//! `make chaos`. See the crate's documentation for what is done and checked.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use sea_mq_chaos::fault::FAULTS;
use sea_mq_chaos::options::{Options, USAGE, Work, any_seed};
use sea_mq_chaos::plan::Plan;
use sea_mq_chaos::{disk, run, soak};

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "--help") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("sea-mq-chaos: {error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    disk::isolate();
    // Blocking on this thread matters: the servers end when the thread that started them ends.
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("sea-mq-chaos: {error}");
            return ExitCode::FAILURE;
        }
    };
    if runtime.block_on(all(&options)) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs what was asked for; whether all of it held.
async fn all(options: &Options) -> bool {
    let (mut passed, mut failed) = (0, Vec::new());
    let mut run = async |plan: &Plan| match one(plan, options).await {
        true => passed += 1,
        false => failed.push(plan.name.clone()),
    };
    match &options.work {
        Work::List => FAULTS.iter().for_each(|fault| println!("{:20} {}", fault.name, fault.what)),
        Work::Plans(plans) => {
            for plan in plans {
                run(plan).await;
            }
        }
        Work::Soak(span) => return soaked(*span, options).await,
        Work::Minutes(limit) => {
            let begin = Instant::now();
            while begin.elapsed() < *limit {
                run(&Plan::random(any_seed())).await;
            }
        }
    }
    if passed + failed.len() > 0 {
        let verdict = if failed.is_empty() { "ok" } else { "FAILED" };
        println!("test result: {verdict}. {passed} passed; {} failed {}", failed.len(), failed.join(", "));
    }
    failed.is_empty()
}

async fn soaked(span: Duration, options: &Options) -> bool {
    match soak::run(span, &options.output).await {
        Ok(summary) => println!("{summary}"),
        Err(report) => {
            println!("soak: FAILED\n{report}");
            return false;
        }
    }
    true
}

async fn one(plan: &Plan, options: &Options) -> bool {
    match run::run(plan, &options.output).await {
        Ok(passed) => {
            println!("{}: {}: {} events, {:.0} s, ok", plan.name, plan.faults(), passed.events, passed.seconds);
            for (faults, recovery) in &passed.recoveries {
                println!("    {faults}: {recovery}");
            }
            true
        }
        Err(report) => {
            println!("{}: FAILED\n{report}", plan.name);
            false
        }
    }
}
