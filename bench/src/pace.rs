//! Events at a steady rate: an event a transaction, by several sessions that take turns.
//!
//! Open loop: event i is due at i / rate, whatever became of the ones before, so that a slow commit delays few.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use harness::Connector;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::{Outcome, now, workload};

/// Connections that emit.
pub const SESSIONS: u32 = 4;
/// Length of a warm-up.
pub const WARM_UP_SECONDS: u32 = 3;

/// One event, all times in microseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    pub due: i64,
    pub commit_sent: i64,
    pub commit_returned: i64,
}

/// Emits `count` events at `rate` a second. They are about the orders from 100,000 on.
pub async fn emit(connector: &Connector, rate: u32, count: u32) -> Outcome<HashMap<Uuid, Sent>> {
    let mut sessions = JoinSet::new();
    // Time for the sessions to connect.
    let begin = Instant::now() + Duration::from_millis(300);
    let begin_at = now() + 300_000;
    for number in 0..SESSIONS {
        sessions.spawn(Session { connector: connector.clone(), number, rate, count, begin, begin_at }.run());
    }
    let mut sent = HashMap::with_capacity(count as usize);
    while let Some(session) = sessions.join_next().await {
        sent.extend(session??);
    }
    Ok(sent)
}

/// Events of a warm-up before `events` at `rate` a second.
pub fn warm_up(rate: u32, events: u32) -> u32 {
    rate * WARM_UP_SECONDS.min(events.div_ceil(rate))
}

pub fn milliseconds(from: i64, to: i64) -> f64 {
    (to - from) as f64 / 1e3
}

/// One connection that emits every [`SESSIONS`]th event.
struct Session {
    connector: Connector,
    number: u32,
    /// Events per second of all sessions.
    rate: u32,
    /// Events of all sessions.
    count: u32,
    begin: Instant,
    /// The same moment in microseconds since 1970.
    begin_at: i64,
}

impl Session {
    async fn run(self) -> Outcome<Vec<(Uuid, Sent)>> {
        let db = self.connector.try_connect().await?;
        let insert = "INSERT INTO orders (number, customer, total) VALUES ($1, 'Ada Lovelace', 42.50)";
        let insert = db.prepare(insert).await?;
        let emit = db.prepare(&format!("SELECT {}", workload::emit("$1::bigint"))).await?;
        let mut events = Vec::new();
        for event in (self.number..self.count).step_by(SESSIONS as usize) {
            let after = Duration::from_secs_f64(f64::from(event) / f64::from(self.rate));
            let due = self.begin_at + i64::try_from(after.as_micros())?;
            tokio::time::sleep_until((self.begin + after).into()).await;
            let number = i64::from(100_000 + event % 900_000);
            db.batch_execute("BEGIN").await?;
            db.execute(&insert, &[&number]).await?;
            let id: Uuid = db.query_one(&emit, &[&number]).await?.get(0);
            let commit_sent = now();
            db.batch_execute("COMMIT").await?;
            let commit_returned = now();
            events.push((id, Sent { due, commit_sent, commit_returned }));
        }
        Ok(events)
    }
}
