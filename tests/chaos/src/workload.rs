//! Sessions that write, clients that receive, and somebody who forgot to end a transaction, whatever happens to the servers.

use std::sync::Arc;
use std::time::Duration;

use harness::{Chance, Connector, Database};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_postgres::Error;

use crate::LONG;
use crate::ledger::{Fate, Ledger};
use crate::scene::{DATABASES, PRODUCERS, PULLED, Producer, SINK, Scene, connect};
use crate::transaction::{Prepared, Writer};

/// Writers of each database.
const WRITERS: u32 = 4;
const PULLERS: u32 = 2;

/// Between two attempts to connect, and after a transaction; that is the load, not a wait for something.
const PAUSE: Duration = Duration::from_millis(20);

pub struct Workload {
    pub ledger: Arc<Ledger>,
    writers: JoinSet<()>,
    receivers: JoinSet<()>,
    stop_writing: watch::Sender<bool>,
    stop_receiving: watch::Sender<bool>,
}

impl Workload {
    /// Starts the writers and the clients that receive.
    pub fn start(scene: &Scene, chance: &mut Chance) -> Self {
        let ledger = Arc::new(Ledger::default());
        let (mut writers, mut receivers) = (JoinSet::new(), JoinSet::new());
        let (stop_writing, writing) = watch::channel(false);
        let (stop_receiving, receiving) = watch::channel(false);
        for producer in &PRODUCERS {
            for _ in 0..WRITERS {
                let writer = Writer::new(producer, Arc::clone(&ledger), chance.fork());
                writers.spawn(write(scene.connector(producer.database), writer, writing.clone()));
            }
        }
        for database in DATABASES {
            receivers.spawn(keep_snapshot(scene.connector(database), receiving.clone()));
        }
        for _ in 0..PULLERS {
            receivers.spawn(receive(scene.connector(SINK), chance.fork(), receiving.clone()));
        }
        Self { ledger, writers, receivers, stop_writing, stop_receiving }
    }

    /// Ends the writers, and what they prepared and did not come to end.
    ///
    /// # Panics
    /// When they do not end within two minutes of healthy servers.
    pub async fn stop_writing(&mut self, scene: &Scene) {
        self.stop_writing.send_replace(true);
        join(&mut self.writers, "writers").await;
        for producer in &PRODUCERS {
            end_prepared(&connect(&scene.connector(producer.database)).await, producer, &self.ledger).await;
        }
    }

    /// Ends the clients that receive.
    ///
    /// # Panics
    /// When they do not end within two minutes.
    pub async fn stop_receiving(&mut self) {
        self.stop_receiving.send_replace(true);
        join(&mut self.receivers, "receivers").await;
    }
}

async fn join(tasks: &mut JoinSet<()>, who: &str) {
    let all = async {
        while let Some(task) = tasks.join_next().await {
            task.unwrap_or_else(|error| panic!("one of the {who} failed: {error}"));
        }
    };
    tokio::time::timeout(LONG, all).await.unwrap_or_else(|_| panic!("the {who} do not end"));
}

async fn write(connector: Connector, mut writer: Writer, stop: watch::Receiver<bool>) {
    while !*stop.borrow() {
        if let Ok(db) = connector.try_connect().await {
            // After an error the session is given up: the server went away, or says that it cannot.
            while !*stop.borrow() && writer.transaction(&db).await.is_ok() {
                tokio::time::sleep(writer.pause()).await;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Ends prepared transactions that their writers left.
async fn end_prepared(db: &Database, producer: &Producer, ledger: &Ledger) {
    let sql = "SELECT gid FROM pg_prepared_xacts WHERE database = $1";
    for gid in db.values::<String>(sql, &[&producer.database]).await {
        let prepared = Prepared::from_gid(&gid).unwrap_or_else(|| panic!("who prepared {gid}?"));
        db.run(&prepared.end()).await;
        ledger.settle(prepared.key, if prepared.commit { Fate::Committed } else { Fate::RolledBack });
    }
}

/// An old snapshot throughout: no row that dies meanwhile can be removed.
async fn keep_snapshot(connector: Connector, stop: watch::Receiver<bool>) {
    while !*stop.borrow() {
        if let Ok(db) = connector.try_connect().await {
            let mut held =
                db.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT txid_current_snapshot()").await;
            while held.is_ok() && !*stop.borrow() {
                tokio::time::sleep(PAUSE).await;
                held = db.batch_execute("SELECT 1").await;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn receive(connector: Connector, mut chance: Chance, stop: watch::Receiver<bool>) {
    while !*stop.borrow() {
        if let Ok(db) = connector.try_connect().await {
            while !*stop.borrow() && receive_some(&db, &mut chance).await.is_ok() {
                tokio::time::sleep(PAUSE).await;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Now and then it gives up what it has, in one of the ways that there are.
async fn receive_some(db: &Database, chance: &mut Chance) -> Result<(), Error> {
    let sql = format!("SELECT id, message_id::uuid, attempts FROM sea_mq.receive('{PULLED}', 50, '5 s')");
    let rows = db.query(&sql, &[]).await?;
    if rows.is_empty() {
        return Ok(());
    }
    db.batch_execute("BEGIN").await?;
    for row in &rows {
        let (id, message_id, attempts): (i64, uuid::Uuid, i32) = (row.get(0), row.get(1), row.get(2));
        let sql = "INSERT INTO effects (subscription, message_id, attempt) VALUES ($1, $2, $3)";
        db.execute(sql, &[&PULLED, &message_id, &attempts]).await?;
        // Somebody else may have it by now: then this one connects anew.
        db.execute("SELECT sea_mq.complete($1)", &[&id]).await?;
    }
    if chance.one_in(30) {
        // As a client that dies does: its leases run out.
        return db.batch_execute("ROLLBACK").await;
    }
    if chance.one_in(30) {
        db.batch_execute("ROLLBACK").await?;
        for row in &rows {
            db.execute("SELECT sea_mq.fail($1, 'gave up', '0')", &[&row.get::<_, i64>(0)]).await?;
        }
        return Ok(());
    }
    db.batch_execute("COMMIT").await
}
