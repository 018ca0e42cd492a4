//! How long until an event gets through again.

use std::fmt;
use std::time::{Duration, Instant};

use harness::{Database, until, until_some};
use serde_json::json;
use uuid::Uuid;

use crate::LONG;
use crate::ledger::{Emitted, Fate, Ledger, Transaction};
use crate::scene::{AGGREGATES, SINK, Scene, stream_of};

/// Since a fault was over.
#[derive(Clone, Copy, Debug)]
pub struct Recovery {
    /// Until a transaction could be committed.
    pub committed: Duration,
    /// Until its event was stored in the stream.
    pub stored: Duration,
    /// Until the event was handled in another database.
    pub handled: Duration,
}

impl fmt::Display for Recovery {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [committed, stored, handled] = [self.committed, self.stored, self.handled].map(|one| one.as_secs_f64());
        write!(formatter, "committed after {committed:.1} s, stored after {stored:.1} s, handled after {handled:.1} s")
    }
}

const DATABASE: &str = "orders";
const SUBJECT: &str = "orders.event.probed.v1";

/// Emits an event of its own and follows it.
pub struct Probe<'a> {
    scene: &'a Scene,
    ledger: &'a Ledger,
}

impl<'a> Probe<'a> {
    pub fn new(scene: &'a Scene, ledger: &'a Ledger) -> Self {
        Self { scene, ledger }
    }

    /// # Panics
    /// When the event is not handled within two minutes.
    pub async fn recovery(&self, since: Instant) -> Recovery {
        let id = until_some("a probe is committed", LONG, async || self.emit().await).await;
        let committed = since.elapsed();
        until("a probe is stored", LONG, async || self.is_stored(id).await).await;
        let stored = since.elapsed();
        until("a probe is handled", LONG, async || self.is_handled(id).await).await;
        Recovery { committed, stored, handled: since.elapsed() }
    }

    async fn connect(&self, database: &str) -> Option<Database> {
        self.scene.connector(database).try_connect().await.ok()
    }

    /// The id of an event that is committed.
    async fn emit(&self) -> Option<Uuid> {
        let key = self.ledger.next_key();
        let db = self.connect(DATABASE).await?;
        let aggregate = AGGREGATES + key;
        db.batch_execute(&format!("BEGIN; INSERT INTO witness VALUES ({key})")).await.ok()?;
        let sql = "SELECT sea_mq.emit('probe', $1, 'Probed', $2)";
        let id: Uuid = db.query_one(sql, &[&aggregate.to_string(), &json!({"tx": key})]).await.ok()?.get(0);
        let committed = db.batch_execute("COMMIT").await.is_ok();
        self.ledger.add(Transaction {
            key,
            database: DATABASE,
            fate: if committed { Fate::Committed } else { Fate::Unknown },
            committed_at: 0,
            events: vec![Emitted { id, context: DATABASE, aggregate, n: 1 }],
        });
        committed.then_some(id)
    }

    async fn is_stored(&self, id: Uuid) -> bool {
        let Some(stream) = self.scene.broker().stream(&stream_of(DATABASE)).await else { return false };
        let Ok(message) = stream.get_last_raw_message_by_subject(SUBJECT).await else { return false };
        message.headers.get("Nats-Msg-Id").is_some_and(|found| found.as_str() == id.to_string())
    }

    async fn is_handled(&self, id: Uuid) -> bool {
        let Some(db) = self.connect(SINK).await else { return false };
        let sql = "SELECT EXISTS (SELECT FROM effects WHERE subscription = 'sink__orders' AND message_id = $1)";
        db.query_one(sql, &[&id]).await.is_ok_and(|row| row.get(0))
    }
}
