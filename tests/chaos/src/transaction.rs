//! One transaction of a writer, of every kind that there is.

use std::sync::Arc;
use std::time::Duration;

use harness::{Chance, Database};
use serde_json::json;
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use crate::ledger::{Emitted, Fate, Ledger, Transaction};
use crate::scene::{AGGREGATES, Producer};

/// A prepared transaction and what its writer wants of it. Its name says both, so that whoever finds it can end it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prepared {
    pub key: i64,
    pub commit: bool,
}

impl Prepared {
    fn gid(self) -> String {
        format!("{}-{}", self.key, if self.commit { "commit" } else { "rollback" })
    }

    pub fn from_gid(gid: &str) -> Option<Self> {
        let (key, verb) = gid.split_once('-')?;
        Some(Self { key: key.parse().ok()?, commit: verb == "commit" })
    }

    /// The statement that ends it.
    pub fn end(self) -> String {
        format!("{} PREPARED '{}'", if self.commit { "COMMIT" } else { "ROLLBACK" }, self.gid())
    }
}

/// Events of a transaction that spills, and the length of each: more than a megabyte together.
const SPILLED: i64 = 20;
const SPILLED_LENGTH: i32 = 80_000;

fn has_no_room(error: &Error) -> bool {
    [&SqlState::CONFIGURATION_LIMIT_EXCEEDED, &SqlState::DISK_FULL].iter().any(|code| error.code() == Some(code))
}

/// One session's part of the load.
pub struct Writer {
    producer: &'static Producer,
    ledger: Arc<Ledger>,
    chance: Chance,
    /// Those that it has not ended yet.
    prepared: Vec<Prepared>,
}

impl Writer {
    pub fn new(producer: &'static Producer, ledger: Arc<Ledger>, chance: Chance) -> Self {
        Self { producer, ledger, chance, prepared: Vec::new() }
    }

    pub fn pause(&mut self) -> Duration {
        Duration::from_millis(self.chance.within(0..100))
    }

    /// Some transaction, written down with what became of it.
    ///
    /// # Errors
    /// When the server refused it or went away.
    pub async fn transaction(&mut self, db: &Database) -> Result<(), Error> {
        if !self.prepared.is_empty() && self.chance.one_in(4) {
            let prepared = self.prepared.remove(0);
            return self.end(db, prepared).await;
        }
        let key = self.ledger.next_key();
        let mut work = Transaction {
            key,
            database: self.producer.database,
            fate: Fate::RolledBack,
            committed_at: 0,
            events: Vec::new(),
        };
        let result = self.attempt(db, &mut work).await;
        self.ledger.add(work);
        result
    }

    async fn attempt(&mut self, db: &Database, work: &mut Transaction) -> Result<(), Error> {
        db.batch_execute("BEGIN").await?;
        db.execute("INSERT INTO witness VALUES ($1)", &[&work.key]).await?;
        match self.chance.within(0..100) {
            // A few, since each is as much as thousands of the others.
            0 if self.chance.one_in(2) => self.large(db, work).await?,
            0..2 => self.bulk(db, work).await?,
            2..14 => self.batch(db, work).await?,
            14..22 => return self.prepare(db, work).await,
            22..24 => self.long(db, work).await?,
            _ => self.changes(db, work).await?,
        }
        if self.chance.one_in(7) {
            return db.batch_execute("ROLLBACK").await;
        }
        let lazily = self.chance.one_in(4);
        if lazily {
            db.batch_execute("SET LOCAL synchronous_commit = off").await?;
        }
        work.fate = Fate::Unknown;
        db.batch_execute("COMMIT").await?;
        work.committed_at = sea_mq_bench::now();
        work.fate = if lazily { Fate::CommittedLazily } else { Fate::Committed };
        Ok(())
    }

    fn context(&mut self) -> &'static str {
        self.chance.of::<&str>(self.producer.contexts)
    }

    /// Some of the aggregates that all writers change, in an order in which they do not lock each other out.
    async fn changes(&mut self, db: &Database, work: &mut Transaction) -> Result<(), Error> {
        let count = self.chance.within(1..4);
        let mut aggregates: Vec<(&'static str, i64)> =
            (0..count).map(|_| (self.context(), self.chance.within(1..=AGGREGATES))).collect();
        aggregates.sort_unstable();
        for (context, aggregate) in aggregates {
            if self.chance.one_in(6) {
                db.batch_execute("SAVEPOINT s").await?;
                self.change(db, work.key, context, aggregate).await?;
                db.batch_execute("ROLLBACK TO s").await?;
            }
            let event = self.change(db, work.key, context, aggregate).await?;
            work.events.push(event);
        }
        Ok(())
    }

    /// Emits before or after it has the aggregate's lock: others may come in between.
    async fn change(
        &mut self,
        db: &Database,
        key: i64,
        context: &'static str,
        aggregate: i64,
    ) -> Result<Emitted, Error> {
        let lock = "UPDATE aggregates SET n = n + 1 WHERE context = $1 AND id = $2 RETURNING n";
        let (id, n);
        if self.chance.one_in(2) {
            id = self.emit(db, key, context, aggregate).await?;
            tokio::time::sleep(self.pause() / 20).await;
            n = db.query_one(lock, &[&context, &aggregate]).await?.get(0);
        } else {
            n = db.query_one(lock, &[&context, &aggregate]).await?.get(0);
            tokio::time::sleep(self.pause() / 20).await;
            id = self.emit(db, key, context, aggregate).await?;
        }
        Ok(Emitted { id, context, aggregate, n })
    }

    async fn emit(&mut self, db: &Database, key: i64, context: &str, aggregate: i64) -> Result<Uuid, Error> {
        let text = "x".repeat(self.chance.within(0..400));
        let payload = json!({"tx": key, "text": text});
        let sql = if self.chance.one_in(5) {
            "INSERT INTO sea_mq.outbox_events (aggregate_type, aggregate_id, event_type, payload, context)
             VALUES ('aggregate', $1, 'Changed', $2, $3) RETURNING id"
        } else {
            "SELECT sea_mq.emit('aggregate', $1, 'Changed', $2, context => $3)"
        };
        Ok(db.query_one(sql, &[&aggregate.to_string(), &payload, &context]).await?.get(0))
    }

    /// One aggregate, many changes, one call.
    async fn batch(&mut self, db: &Database, work: &mut Transaction) -> Result<(), Error> {
        let (context, aggregate, count) =
            (self.context(), self.chance.within(1..=AGGREGATES), self.chance.within(2..20));
        let lock = "UPDATE aggregates SET n = n + $3 WHERE context = $1 AND id = $2 RETURNING n";
        let last: i64 = db.query_one(lock, &[&context, &aggregate, &count]).await?.get(0);
        let event = json!({"aggregate_type": "aggregate", "aggregate_id": aggregate.to_string(), "event_type": "Changed",
            "context": context, "payload": {"tx": work.key}});
        let events = vec![event; usize::try_from(count).expect("it is small")];
        let rows = db.query("SELECT * FROM sea_mq.emit_many($1)", &[&events]).await?;
        let numbers = last - count + 1..;
        work.events.extend(rows.iter().zip(numbers).map(|(row, n)| Emitted { id: row.get(0), context, aggregate, n }));
        Ok(())
    }

    /// An aggregate that nobody else changes, so that nobody waits for this transaction.
    async fn own(&mut self, db: &Database, work: &mut Transaction, count: i64) -> Result<(), Error> {
        let (context, aggregate) = (self.context(), AGGREGATES + work.key);
        db.execute("INSERT INTO aggregates VALUES ($1, $2, $3)", &[&context, &aggregate, &count]).await?;
        let sql = "SELECT sea_mq.emit('aggregate', $1, 'Changed', jsonb_build_object('tx', $2::int8), context => $3)
            FROM generate_series(1, $4::int8)";
        let rows = db.query(sql, &[&aggregate.to_string(), &work.key, &context, &count]).await?;
        work.events.extend(rows.iter().zip(1..).map(|(row, n)| Emitted { id: row.get(0), context, aggregate, n }));
        Ok(())
    }

    async fn bulk(&mut self, db: &Database, work: &mut Transaction) -> Result<(), Error> {
        let count = self.chance.within(100..400);
        self.own(db, work, count).await
    }

    /// So much that it goes to disk, within a savepoint: where there is no room, that is rolled back and the rest commits.
    async fn large(&mut self, db: &Database, work: &mut Transaction) -> Result<(), Error> {
        let (context, aggregate) = (self.context(), AGGREGATES + work.key);
        db.batch_execute("SET LOCAL work_mem = '64kB'").await?;
        db.execute("INSERT INTO aggregates VALUES ($1, $2, 0)", &[&context, &aggregate]).await?;
        let key = work.key;
        let sql = "SELECT sea_mq.emit('aggregate', $1, 'Changed', jsonb_build_object('tx', $2::int8, 'text', repeat('x', $3)),
            context => $4) FROM generate_series(1, $5::int8)";
        let emit = async |count: i64, length: i32| {
            db.query(sql, &[&aggregate.to_string(), &key, &length, &context, &count]).await
        };
        let mut rows = emit(2, 10).await?;
        db.batch_execute("SAVEPOINT s").await?;
        match emit(SPILLED, SPILLED_LENGTH).await {
            Ok(spilled) => rows.extend(spilled),
            Err(error) if has_no_room(&error) => db.batch_execute("ROLLBACK TO s").await?,
            Err(error) => return Err(error),
        }
        rows.extend(emit(1, 10).await?);
        work.events.extend(rows.iter().zip(1..).map(|(row, n)| Emitted { id: row.get(0), context, aggregate, n }));
        Ok(())
    }

    async fn long(&mut self, db: &Database, work: &mut Transaction) -> Result<(), Error> {
        self.own(db, work, 3).await?;
        tokio::time::sleep(Duration::from_millis(self.chance.within(500..3000))).await;
        Ok(())
    }

    async fn prepare(&mut self, db: &Database, work: &mut Transaction) -> Result<(), Error> {
        self.own(db, work, 2).await?;
        let prepared = Prepared { key: work.key, commit: !self.chance.one_in(3) };
        work.fate = Fate::Unknown;
        db.batch_execute(&format!("PREPARE TRANSACTION '{}'", prepared.gid())).await?;
        self.prepared.push(prepared);
        Ok(())
    }

    async fn end(&mut self, db: &Database, prepared: Prepared) -> Result<(), Error> {
        match db.batch_execute(&prepared.end()).await {
            Ok(()) => {
                self.ledger.settle(prepared.key, if prepared.commit { Fate::Committed } else { Fate::RolledBack });
                Ok(())
            }
            // It was ended by a statement whose answer did not come.
            Err(error) if error.code() == Some(&SqlState::UNDEFINED_OBJECT) => Ok(()),
            Err(error) => {
                self.prepared.push(prepared);
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_prepared_transaction_says_what_is_to_become_of_it() {
        for commit in [true, false] {
            let prepared = Prepared { key: 17, commit };
            assert_eq!(Prepared::from_gid(&prepared.gid()), Some(prepared));
        }
        assert_eq!(Prepared::from_gid("somebody's"), None);
    }
}
