//! Prints the last messages of a JetStream stream as it stored them: subject, sequence, headers, body.
//!
//! `sea-mq-peek NATS_URL STREAM [COUNT]` (COUNT is 1 unless given; user and password go into the URL)

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use async_nats::jetstream;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (url, stream, count) = match arguments.as_slice() {
        [url, stream] => (url, stream, Ok(1)),
        [url, stream, count] => (url, stream, count.parse()),
        _ => return usage(),
    };
    let Ok(count) = count else { return usage() };
    let run = async {
        let client = async_nats::connect(url).await?;
        print_last(&jetstream::new(client), stream, count).await
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    match runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(run)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sea-mq-peek: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: sea-mq-peek NATS_URL STREAM [COUNT]");
    ExitCode::from(2)
}

async fn print_last(jetstream: &jetstream::Context, name: &str, count: u64) -> Result<(), Box<dyn Error>> {
    let stream = jetstream.get_stream(name).await?;
    let state = &stream.cached_info().state;
    let first = state.first_sequence.max((state.last_sequence + 1).saturating_sub(count));
    let mut out = std::io::stdout().lock();
    writeln!(out, "{name} holds {} messages", state.messages)?;
    for sequence in first..=state.last_sequence {
        // A message may have been removed since, by age or by hand.
        let Ok(message) = stream.get_raw_message(sequence).await else { continue };
        let (hour, minute, second) = message.time.to_hms();
        let time =
            format!("{} {hour:02}:{minute:02}:{second:02}.{:06} UTC", message.time.date(), message.time.microsecond());
        writeln!(out, "\n#{sequence}  {}  stored {time}", message.subject)?;
        let mut headers: Vec<_> = message.headers.iter().collect();
        headers.sort_by_key(|(name, _)| name.to_string());
        for (name, values) in headers {
            for value in values {
                writeln!(out, "    {:<28} {value}", format!("{name}:"))?;
            }
        }
        writeln!(out, "    {}", String::from_utf8_lossy(&message.payload))?;
    }
    Ok(())
}
