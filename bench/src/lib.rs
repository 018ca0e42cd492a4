//! How fast sea_mq is, on throwaway servers that it starts itself (with the harness of the end-to-end tests).
//!
//! - [`drain`]: the relay working off a backlog, against raw pipelined publishing ([`raw`]) and against the relays of
//!   [`conventional`] outbox tables
//! - [`burden`]: the same in a database with a large log, a long transaction or many transactions in progress
//! - [`footprint`]: bytes of WAL, disk and memory
//! - [`latency`]: from the return of COMMIT to the message in the stream, against the floor of its ingredients; and
//!   ([`handled`]) from a commit to the handler's commit in another database
//! - [`writer`]: a transaction with `emit`, against the same one with a conventional outbox table
//! - [`neighbours`]: what a slow handler costs the subscriptions beside it
//! - [`inbox`]: subscriptions working off a stream ([`subscription`]), against raw pulling and acknowledging ([`pull`])
//! - [`contracts`]: what a check against its contract adds to an `emit`
//! - [`capture`]: what it costs a bulk change that its table is captured, against a row trigger and an outbox table
//! - [`gateway`]: REST, metrics and tails of `sea-mq serve`, and what it adds to a statement
//! - [`endpoints`]: deliveries to endpoints outside, against a bare HTTP client; what is looked up there
//! - [`costs`]: what an event costs in each process, with one nats-server and with three; from which [`model`] tells what a
//!   load needs
//! - [`databases`]: memory, processor time and latencies of a server with many databases
//! - [`figures`], [`report`], [`plot`]: repeated values, the table and the JSON, the drawing; [`chart`] draws what `make soak`
//!   records
//!
//! What is compared runs interleaved, after a warm-up, on the same servers; medians and spreads are reported. A slow
//! figure is not an error. What is wrong (an event lost, a server that does not start) is one, and like the harness this
//! panics where the harness does.

pub mod burden;
pub mod capture;
pub mod chart;
pub mod contracts;
pub mod conventional;
pub mod costs;
pub mod databases;
pub mod drain;
pub mod endpoints;
pub mod figures;
pub mod footprint;
pub mod gateway;
pub mod handled;
pub mod inbox;
pub mod latency;
pub mod machine;
pub mod model;
pub mod neighbours;
mod options;
mod pace;
pub mod plot;
pub mod pull;
pub mod raw;
pub mod report;
pub mod subscription;
mod workload;
pub mod writer;

use std::error::Error;
use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

pub use options::{Options, PartName, USAGE};
use report::Report;

/// What can fail here fails for a reason that a person has to read.
pub type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Measures what the options ask for; prints the table and writes the files.
///
/// # Errors
/// When something breaks; never because of a slow figure.
pub async fn run(options: &Options) -> Outcome<()> {
    say("looking at the machine");
    let machine = machine::describe()?;
    let mut report = Report::new(machine);
    for part in &options.parts {
        let measured = match part {
            PartName::Drain => drain::measure(options).await?,
            PartName::Burden => burden::measure(options).await?,
            PartName::Footprint => footprint::measure(options).await?,
            PartName::Latency => latency::measure(options).await?,
            PartName::Writer => writer::measure(options).await?,
            PartName::Inbox => inbox::measure(options).await?,
            PartName::Contracts => contracts::measure(options).await?,
            PartName::Capture => capture::measure(options).await?,
            PartName::Gateway => gateway::measure(options).await?,
            PartName::Neighbours => neighbours::measure(options).await?,
            PartName::Endpoints => endpoints::measure(options).await?,
            PartName::Costs => costs::measure(options).await?,
            PartName::Databases => databases::measure(options).await?,
        };
        report.add(measured);
    }
    print!("{}", report.table());
    for path in report.write(&options.output)? {
        println!("written: {}", path.display());
    }
    Ok(())
}

/// A line of progress, with the seconds since the first one.
pub fn say(text: impl AsRef<str>) {
    static BEGIN: OnceLock<Instant> = OnceLock::new();
    let begin = BEGIN.get_or_init(Instant::now);
    eprintln!("[{:4.0} s] {}", begin.elapsed().as_secs_f64(), text.as_ref());
}

/// Microseconds since 1970, by the clock that nats-server stamps messages with.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
