//! What the processes, PostgreSQL and the brokers have used so far.

use harness::{Database, EVENTS, cpu_seconds};

use super::servers::Servers;
use crate::Outcome;

/// What is counted. CPU in microseconds, everything else in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meter {
    /// Of the sessions that emit; they know it themselves.
    Writer,
    Relay,
    Consumer,
    Brokers,
    Background,
    Wal,
    Outbox,
    Inbox,
    /// Of one replica.
    Stream,
    RelaySent,
    RelayReceived,
    ConsumerSent,
    ConsumerReceived,
    Replicated,
}

impl Meter {
    const COUNT: usize = Self::Replicated as usize + 1;
}

/// All meters at a time, or between two times, or for each event.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading([f64; Meter::COUNT]);

impl Reading {
    pub fn at(&self, meter: Meter) -> f64 {
        self.0[meter as usize]
    }

    pub fn set(&mut self, meter: Meter, value: f64) {
        self.0[meter as usize] = value;
    }

    /// For each of so many events since `before`.
    pub fn since(&self, before: &Self, events: u32) -> Self {
        Self(std::array::from_fn(|meter| (self.0[meter] - before.0[meter]) / f64::from(events)))
    }

    /// Reads all meters but the writers'.
    ///
    /// # Errors
    /// When a nats-server does not tell.
    pub async fn take(servers: &Servers, db: &Database) -> Outcome<Self> {
        let mut reading = Self::default();
        let relays = processes(db, "sea_mq relay").await;
        let consumers = processes(db, "sea_mq consumer").await;
        let handlers = processes(db, "sea_mq handler").await;
        reading.set(Meter::Relay, cpu(&relays));
        reading.set(Meter::Consumer, cpu(&consumers) + cpu(&handlers));
        reading.set(Meter::Brokers, cpu(&servers.brokers().collect::<Vec<_>>()));
        reading.set(Meter::Background, cpu(&db.values(BACKGROUND, &[]).await));
        for (meter, sql) in [(Meter::Wal, WAL), (Meter::Outbox, OUTBOX), (Meter::Inbox, INBOX)] {
            reading.set(meter, db.value::<i64>(sql, &[]).await as f64);
        }
        if let Some(stream) = servers.stage.broker.stream(EVENTS).await {
            reading.set(Meter::Stream, stream.cached_info().state.bytes as f64);
        }
        for (pids, sent, received) in [
            (relays, Meter::RelaySent, Meter::RelayReceived),
            (consumers, Meter::ConsumerSent, Meter::ConsumerReceived),
        ] {
            for pid in pids {
                let traffic = servers.traffic(pid)?;
                reading.set(sent, reading.at(sent) + traffic.sent);
                reading.set(received, reading.at(received) + traffic.received);
            }
        }
        reading.set(Meter::Replicated, servers.replicated()?);
        Ok(reading)
    }
}

const BACKGROUND: &str = "SELECT pid FROM pg_stat_activity
    WHERE backend_type IN ('checkpointer', 'background writer', 'walwriter')";
const WAL: &str = "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint";
const OUTBOX: &str =
    "SELECT coalesce(sum(pg_total_relation_size(relid)), 0)::bigint FROM pg_partition_tree('sea_mq.outbox_log')";
const INBOX: &str =
    "SELECT coalesce(sum(pg_total_relation_size(relid)), 0)::bigint FROM pg_partition_tree('sea_mq.inbox_log')";

async fn processes(db: &Database, backend_type: &str) -> Vec<i32> {
    let sql = "SELECT pid FROM pg_stat_activity WHERE backend_type = $1 AND datname = current_database()";
    db.values(sql, &[&backend_type]).await
}

/// Microseconds of all of them together.
fn cpu(pids: &[i32]) -> f64 {
    pids.iter().map(|pid| cpu_seconds(*pid) * 1e6).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_is_divided_among_the_events() {
        let (mut before, mut after) = (Reading::default(), Reading::default());
        before.set(Meter::Wal, 1000.0);
        after.set(Meter::Wal, 9000.0);
        after.set(Meter::Replicated, 40.0);
        let each = after.since(&before, 10);
        assert_eq!((each.at(Meter::Wal), each.at(Meter::Replicated), each.at(Meter::Writer)), (800.0, 4.0, 0.0));
    }
}
