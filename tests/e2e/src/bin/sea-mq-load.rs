//! Emits events, a transaction each, and reports how fast they arrived in the stream.
//!
//! `sea-mq-load STREAM EVENTS SESSIONS [RATE]` with `PGHOST PGPORT PGUSER PGDATABASE NATS_URL` as in `.dev/env`.
//! RATE is in events per second over all sessions; without it, each session emits as fast as it can. The table `orders
//! (id, customer, total)` must exist: every event comes with a row of it.
//!
//! Latency is the time from when the session saw its commit succeed to the time that JetStream gave the message.

use std::collections::HashMap;
use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_nats::jetstream;
use tokio_postgres::{Config, NoTls};
use uuid::Uuid;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const EMIT: &str = "WITH new AS (INSERT INTO orders (customer, total) VALUES ('Ada', 42.50) RETURNING *)
    SELECT sea_mq.emit('order', id::text, 'OrderCreated', to_jsonb(new)) FROM new";

struct Load {
    stream: String,
    events: u32,
    sessions: u32,
    /// Events per second over all sessions.
    rate: Option<f64>,
}

fn main() -> ExitCode {
    let Some(load) = arguments() else {
        eprintln!("usage: sea-mq-load STREAM EVENTS SESSIONS [RATE]");
        return ExitCode::from(2);
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(run(Arc::new(load)))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sea-mq-load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn arguments() -> Option<Load> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (required, rate) = match arguments.as_slice() {
        [required @ .., rate] if required.len() == 3 => (required, Some(rate.parse().ok()?)),
        required => (required, None),
    };
    let [stream, events, sessions] = required else { return None };
    Some(Load { stream: stream.clone(), events: events.parse().ok()?, sessions: sessions.parse().ok()?, rate })
}

async fn run(load: Arc<Load>) -> Outcome<()> {
    let client = async_nats::connect(setting("NATS_URL")?).await?;
    let jetstream = jetstream::new(client);
    let before = match jetstream.get_stream(&load.stream).await {
        Ok(stream) => stream.cached_info().state.last_sequence,
        Err(_) => 0,
    };

    let begin = Instant::now();
    let begin_at = now();
    let mut sessions = tokio::task::JoinSet::new();
    for number in 0..load.sessions {
        sessions.spawn(session(Arc::clone(&load), number, begin));
    }
    let mut committed = HashMap::new();
    while let Some(session) = sessions.join_next().await {
        committed.extend(session??);
    }
    let emitting = begin.elapsed();

    let (latencies, last) = arrivals(&jetstream, &load, before, &committed).await?;
    let count = f64::from(load.events);
    println!(
        "{} events, a transaction each, by {} sessions: {:.0} commits/s, {:.0} stored/s",
        load.events,
        load.sessions,
        count / emitting.as_secs_f64(),
        count / ((last - begin_at) as f64 / 1e6),
    );
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize] as f64 / 1e3;
    println!("commit to stored: p50 {:.2} ms, p99 {:.2} ms, longest {:.2} ms", at(0.5), at(0.99), at(1.0));
    Ok(())
}

/// One session's events with the times, in microseconds since 1970, at which it saw them committed.
async fn session(load: Arc<Load>, number: u32, begin: Instant) -> Outcome<Vec<(Uuid, i128)>> {
    let mut config = Config::new();
    config.host(setting("PGHOST")?).port(setting("PGPORT")?.parse()?);
    config.user(setting("PGUSER")?).dbname(setting("PGDATABASE")?);
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    let emit = client.prepare(EMIT).await?;
    let mut committed = Vec::new();
    for event in (number..load.events).step_by(load.sessions as usize) {
        if let Some(rate) = load.rate {
            tokio::time::sleep_until((begin + Duration::from_secs_f64(f64::from(event) / rate)).into()).await;
        }
        let id = client.query_one(&emit, &[]).await?.get(0);
        committed.push((id, now()));
    }
    Ok(committed)
}

/// Waits until all events are stored. Returns their latencies, sorted, and when the last was stored (microseconds).
async fn arrivals(
    jetstream: &jetstream::Context,
    load: &Load,
    before: u64,
    committed: &HashMap<Uuid, i128>,
) -> Outcome<(Vec<i128>, i128)> {
    let deadline = Instant::now() + Duration::from_secs(60);
    let stream = loop {
        if let Ok(stream) = jetstream.get_stream(&load.stream).await
            && stream.cached_info().state.last_sequence >= before + u64::from(load.events)
        {
            break stream;
        }
        if Instant::now() > deadline {
            return Err(format!("not all events are in {} a minute after the last commit", load.stream).into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let (mut latencies, mut last) = (Vec::with_capacity(committed.len()), 0);
    harness::read(&stream, before + 1, |message| {
        if let Some(at) = committed.get(&message.id()) {
            // It can be stored before the session has heard of its commit.
            latencies.push((message.stored_at - at).max(0));
            last = last.max(message.stored_at);
        }
    })
    .await?;
    if latencies.len() != committed.len() {
        return Err(
            format!("{} events were committed and {} are in the stream", committed.len(), latencies.len()).into()
        );
    }
    latencies.sort_unstable();
    Ok((latencies, last))
}

fn setting(name: &str) -> Outcome<String> {
    std::env::var(name).map_err(|_| format!("{name} is not set; see `make dev`").into())
}

/// Microseconds since 1970.
fn now() -> i128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros().cast_signed())
}
