//! `make chaos`. See the crate's documentation for what is done and checked.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use sea_mq_chaos::fault::FAULTS;
use sea_mq_chaos::options::{Options, USAGE, Work, any_seed};
use sea_mq_chaos::plan::Plan;
use sea_mq_chaos::{disk, documented, run, soak};

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
    let (mut passed, mut failed, mut slow) = (0, Vec::new(), 0);
    let mut run = async |plan: &Plan| match one(plan, options).await {
        Some(late) => {
            passed += 1;
            slow += late;
        }
        None => failed.push(plan.name.clone()),
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
        if slow > 0 {
            println!(
                "{slow} recoveries took ten times what docs/guarantees.md says; on a quiet machine that is a fault"
            );
        }
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

/// How many recoveries took ten times what is documented, if the promises held.
async fn one(plan: &Plan, options: &Options) -> Option<usize> {
    match run::run(plan, &options.output).await {
        Ok(passed) => {
            println!("{}: {}: {} events, {:.0} s, ok", plan.name, plan.faults(), passed.events, passed.seconds);
            let mut slow = 0;
            for (faults, recovery) in &passed.recoveries {
                println!("    {faults}: {recovery}");
                if let Some(said) = documented::too_slow(faults, recovery) {
                    println!("    SLOW: {faults}: {said}");
                    slow += 1;
                }
            }
            Some(slow)
        }
        Err(report) => {
            println!("{}: FAILED\n{report}", plan.name);
            None
        }
    }
}
