//! Many sessions that change the same aggregates at once: the workload behind the tests of order.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::{Database, EVENTS, Stage, Stored, ledger};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio_postgres::Error;
use uuid::Uuid;

use crate::SOON;

const WRITERS: u64 = 12;
const AGGREGATES: i32 = 20;

/// Where in their transactions the writers emit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Emit {
    /// When they hold the aggregate's row lock.
    AfterLock,
    /// Before they ask for it: others may overtake them between the two.
    BeforeLock,
}

/// Writers at work. They go on, with new connections, when the server drops theirs.
pub struct Writers {
    tasks: tokio::task::JoinSet<()>,
    stop: watch::Sender<bool>,
}

impl Writers {
    /// Makes the tables and starts the writers.
    pub async fn start(stage: &Stage, emit: Emit) -> Self {
        let db = stage.connect().await;
        // `applied` is the truth: which event made the aggregate's counter reach which number, committed with the event.
        db.run(&format!(
            "CREATE TABLE aggregates (id int PRIMARY KEY, n bigint NOT NULL DEFAULT 0);
             INSERT INTO aggregates SELECT generate_series(1, {AGGREGATES});
             CREATE TABLE applied (aggregate int, n bigint, event_id uuid)"
        ))
        .await;
        let (stop, stopped) = watch::channel(false);
        let connector = Arc::new(stage.connector());
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..WRITERS {
            let (connector, stopped) = (Arc::clone(&connector), stopped.clone());
            tasks.spawn(async move {
                let mut rng = SmallRng::seed_from_u64(number);
                while !*stopped.borrow() {
                    if let Ok(db) = connector.try_connect().await {
                        // An error means that the server went away; what it committed before that is in `applied`.
                        while !*stopped.borrow() && transaction(&db, emit, &mut rng).await.is_ok() {}
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            });
        }
        Self { tasks, stop }
    }

    /// Lets them work for `span`, ends them, and checks the stream against what they did.
    pub async fn finish(mut self, stage: &Stage, span: Duration) {
        let end = Instant::now() + span;
        tokio::time::sleep_until(end.into()).await;
        self.stop.send(true).expect("the writers listen");
        while let Some(task) = self.tasks.join_next().await {
            task.expect("a writer failed");
        }
        check(stage).await;
    }
}

/// One transaction on one or two aggregates, with whatever may go on in one.
async fn transaction(db: &Database, emit: Emit, rng: &mut SmallRng) -> Result<(), Error> {
    // In this order, so that writers do not lock each other out.
    let mut aggregates = vec![rng.random_range(1..=AGGREGATES)];
    if rng.random_bool(0.3) {
        aggregates.push(rng.random_range(1..=AGGREGATES));
    }
    aggregates.sort_unstable();
    aggregates.dedup();
    db.batch_execute("BEGIN").await?;
    for aggregate in aggregates {
        if rng.random_bool(0.2) {
            db.batch_execute("SAVEPOINT s").await?;
            change(db, aggregate, emit, rng).await?;
            db.batch_execute("ROLLBACK TO s").await?;
        }
        change(db, aggregate, emit, rng).await?;
    }
    pause(rng).await;
    db.batch_execute(if rng.random_bool(0.15) { "ROLLBACK" } else { "COMMIT" }).await
}

async fn change(db: &Database, aggregate: i32, emit: Emit, rng: &mut SmallRng) -> Result<(), Error> {
    let emit_now = async || -> Result<Uuid, Error> {
        let sql = "SELECT sea_mq.emit('aggregate', $1::int::text, 'Changed', '{}')";
        Ok(db.query_one(sql, &[&aggregate]).await?.get(0))
    };
    let lock = async || -> Result<i64, Error> {
        let sql = "UPDATE aggregates SET n = n + 1 WHERE id = $1 RETURNING n";
        Ok(db.query_one(sql, &[&aggregate]).await?.get(0))
    };
    let (id, n) = match emit {
        Emit::AfterLock => {
            let n = lock().await?;
            pause(rng).await;
            (emit_now().await?, n)
        }
        Emit::BeforeLock => {
            let id = emit_now().await?;
            pause(rng).await;
            (id, lock().await?)
        }
    };
    db.execute("INSERT INTO applied VALUES ($1, $2, $3)", &[&aggregate, &n, &id]).await?;
    Ok(())
}

/// Now and then a session takes its time; that is the workload, not a wait for something.
async fn pause(rng: &mut SmallRng) {
    if rng.random_bool(0.3) {
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..6))).await;
    }
}

/// The stream holds exactly the events in `applied`, and each aggregate's in the order of its counter.
async fn check(stage: &Stage) {
    let db = stage.connect().await;
    let mut applied: HashMap<Uuid, (i32, i64)> = HashMap::new();
    let mut last: HashMap<i32, i64> = HashMap::new();
    for row in db.query("SELECT event_id, aggregate, n FROM applied", &[]).await.expect("cannot read applied") {
        let (aggregate, n): (i32, i64) = (row.get(1), row.get(2));
        applied.insert(row.get(0), (aggregate, n));
        let greatest = last.entry(aggregate).or_default();
        *greatest = n.max(*greatest);
    }
    assert!(applied.len() > 500, "the workload has to be one: {} events", applied.len());
    eprintln!("{} events of {} aggregates", applied.len(), last.len());

    stage.broker.until_count(EVENTS, applied.len() as u64, SOON).await;
    let stored: Vec<Uuid> = stage.broker.stored(EVENTS).await.iter().map(Stored::id).collect();
    ledger::assert_same_set(&applied.keys().copied().collect::<Vec<_>>(), &stored);
    ledger::assert_gapless(&last, stored.iter().map(|id| applied[id]));
}
