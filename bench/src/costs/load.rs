//! Events at a steady rate, an event a transaction that does nothing else.

use std::time::{Duration, Instant};

use harness::{Connector, cpu_seconds};
use tokio::task::JoinSet;

use crate::pace::SESSIONS;
use crate::{Outcome, workload};

/// What is emitted, and how fast.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Events per second of all sessions.
    pub rate: u32,
    pub count: u32,
    pub payload_bytes: usize,
}

impl Load {
    /// Emits all of it. Returns the microseconds that the sessions' backends have computed meanwhile.
    ///
    /// # Errors
    /// When a session does not connect, or an event is refused.
    pub async fn run(self, connector: &Connector) -> Outcome<f64> {
        let mut sessions = JoinSet::new();
        // Time for the sessions to connect.
        let begin = Instant::now() + Duration::from_millis(300);
        for number in 0..SESSIONS {
            sessions.spawn(session(self, connector.clone(), number, begin));
        }
        let mut microseconds = 0.0;
        while let Some(session) = sessions.join_next().await {
            microseconds += session??;
        }
        Ok(microseconds)
    }
}

/// Emits every [`SESSIONS`]th event of the load.
async fn session(load: Load, connector: Connector, number: u32, begin: Instant) -> Outcome<f64> {
    let db = connector.try_connect().await?;
    let emit = db.prepare(&format!("SELECT {}", workload::emit_of("$1::bigint", load.payload_bytes))).await?;
    let pid: i32 = db.value("SELECT pg_backend_pid()", &[]).await;
    let before = cpu_seconds(pid);
    for event in (number..load.count).step_by(SESSIONS as usize) {
        let due = begin + Duration::from_secs_f64(f64::from(event) / f64::from(load.rate));
        tokio::time::sleep_until(due.into()).await;
        db.execute(&emit, &[&i64::from(100_000 + event % 900_000)]).await?;
    }
    Ok((cpu_seconds(pid) - before) * 1e6)
}
