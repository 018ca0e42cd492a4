//! The load without faults, for a long time: whether anything grows that should not.
//!
//! What is stored in the streams stays there for the check at the end, and for as long as it does, the inbox keeps what came
//! of it (`docs/inbox.md`, Retention): these two grow.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use harness::{Chance, read, resident_bytes, title};
use sea_mq_bench::chart::{self, Chart, Line};
use sea_mq_bench::figures::Series;
use uuid::Uuid;

use crate::check::Tolerance;
use crate::ledger::Ledger;
use crate::run::{Timeline, finish, guarded};
use crate::scene::{Broking, DATABASES, PRODUCERS, Scene, stream_of};
use crate::workload::Workload;

const COLUMNS: [&str; 15] = [
    "seconds",
    "stored per second",
    "events not stored",
    "messages not handled",
    "latency p50 ms",
    "latency p99 ms",
    "latency max ms",
    "relay MB",
    "consumer MB",
    "handler MB",
    "launcher MB",
    "nats-server MB",
    "log MB",
    "inbox MB",
    "dead tuples",
];

/// What is drawn together: a title and columns.
const CHARTS: [(&str, &[usize]); 6] = [
    ("events per second", &[1]),
    ("waiting", &[2, 3]),
    ("milliseconds from commit to stored", &[4, 5, 6]),
    ("memory in MB, the largest process of its kind", &[7, 8, 9, 10, 11]),
    ("tables in MB, all databases", &[12, 13]),
    ("dead tuples in the log, all databases", &[14]),
];

/// So short that slots are emptied again and again.
const SETTINGS: &[(&str, &str)] =
    &[("sea_mq.retention", "60s"), ("sea_mq.slot_size", "8MB"), ("sea_mq.inbox_retention", "60s")];

/// Runs the load for `span`, records it, checks it, and writes `soak.csv` and `soak.svg`.
///
/// # Errors
/// When a promise was broken.
pub async fn run(span: Duration, output: &Path) -> Result<String, String> {
    let timeline = Timeline::begin();
    guarded("soak", play(span, timeline.clone(), output), &timeline, output).await
}

async fn play(span: Duration, timeline: Timeline, output: &Path) -> String {
    let mut chance = Chance::from_seed(1);
    let scene = Scene::start("soak", Broking::One, false, SETTINGS).await;
    timeline.meet(&scene);
    let mut workload = Workload::start(&scene, &mut chance);
    let mut recorder = Recorder::new(&scene);
    let begin = Instant::now();
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    while begin.elapsed() < span {
        tick.tick().await;
        recorder.sample(&workload.ledger).await;
    }
    let events = finish(&scene, &mut workload, &timeline, Tolerance::default()).await;
    recorder.write(output);
    format!("{events} events in {:.0} s; {}\nwritten: {}", span.as_secs_f64(), recorder.summary(), output.display())
}

struct Recorder<'a> {
    scene: &'a Scene,
    begin: Instant,
    /// Transactions of the ledger that were looked at.
    looked_at: usize,
    /// When events were committed that were not met in a stream yet, and the other way round; microseconds since 1970.
    committed: HashMap<Uuid, i64>,
    stored: HashMap<Uuid, i64>,
    /// Where to go on in each stream.
    next: HashMap<&'static str, u64>,
    rows: Vec<[f64; COLUMNS.len()]>,
}

impl<'a> Recorder<'a> {
    fn new(scene: &'a Scene) -> Self {
        Self {
            scene,
            begin: Instant::now(),
            looked_at: 0,
            committed: HashMap::new(),
            stored: HashMap::new(),
            next: HashMap::new(),
            rows: Vec::new(),
        }
    }

    async fn sample(&mut self, ledger: &Ledger) {
        let (stored, latency) = self.latencies(ledger).await;
        let (waiting, log, inbox, dead) = self.sizes().await;
        let now = self.begin.elapsed().as_secs_f64();
        let since = now - self.rows.last().map_or(0.0, |row| row[0]);
        let [relay, consumer, handler, launcher] =
            ["relay", "consumer", "handler", "launcher"].map(|kind| self.memory(kind));
        let broker = resident_bytes(self.scene.broker().pid()) as f64 / 1e6;
        self.rows.push([
            now,
            stored as f64 / since,
            waiting.0,
            waiting.1,
            latency.median(),
            latency.at(0.99),
            latency.most(),
            relay,
            consumer,
            handler,
            launcher,
            broker,
            log,
            inbox,
            dead,
        ]);
    }

    /// How many events were stored since the last time, and how long after their commits, in milliseconds.
    async fn latencies(&mut self, ledger: &Ledger) -> (usize, Series) {
        let new = ledger.since(self.looked_at);
        self.looked_at += new.len();
        for transaction in new.iter().filter(|one| one.committed_at != 0) {
            self.committed.extend(transaction.events.iter().map(|event| (event.id, transaction.committed_at)));
        }
        let before = self.stored.len();
        for context in PRODUCERS.iter().flat_map(|producer| producer.contexts) {
            let Some(stream) = self.scene.broker().stream(&stream_of(context)).await else { continue };
            let next = self.next.entry(context).or_insert(1);
            let first = *next;
            let take = |message: harness::Stored| {
                *next = message.sequence + 1;
                if message.header("X-Aggregate-Type") == "aggregate" {
                    self.stored.insert(message.id(), i64::try_from(message.stored_at).unwrap_or(0));
                }
            };
            read(&stream, first, take).await.unwrap_or_else(|error| panic!("cannot read {context}: {error}"));
        }
        let count = self.stored.len() - before;
        let mut latency = Series::default();
        self.stored.retain(|id, stored_at| {
            // What was stored before the writer had its answer took no time.
            let committed = self.committed.remove(id);
            if let Some(at) = committed {
                latency.push((*stored_at - at).max(0) as f64 / 1e3);
            }
            committed.is_none()
        });
        (count, latency)
    }

    /// Of all databases: what waits to be stored and to be handled; megabytes of log and inbox; dead tuples of the log.
    async fn sizes(&self) -> ((f64, f64), f64, f64, f64) {
        let mut sums = [0.0; 5];
        for database in DATABASES {
            let db = self.scene.cluster.connect(database).await;
            let sql = "SELECT ARRAY[coalesce(sum(o.pending), 0), (SELECT coalesce(sum(coalesce(s.pending, 0) + s.received + s.processing + s.retrying), 0)
                    FROM sea_mq.subscription_status s), z.bytes / 1e6, (SELECT i.log_bytes / 1e6 FROM sea_mq.inbox_status i), z.dead_tuples]::float8[]
                FROM sea_mq.log_size() z LEFT JOIN sea_mq.outbox_status o ON true GROUP BY z.bytes, z.dead_tuples";
            let values: Vec<f64> = db.value(sql, &[]).await;
            sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        }
        ((sums[0], sums[1]), sums[2], sums[3], sums[4])
    }

    /// Megabytes of the largest process of a kind.
    fn memory(&self, kind: &str) -> f64 {
        let start = format!("postgres: sea_mq {kind}");
        let all = self.scene.cluster.processes().into_iter().filter(|pid| title(*pid).starts_with(&start));
        all.map(resident_bytes).max().unwrap_or(0) as f64 / 1e6
    }

    /// # Panics
    /// When the files cannot be written.
    fn write(&self, output: &Path) {
        fs::create_dir_all(output).expect("cannot make the output's directory");
        let mut csv = COLUMNS.join(",") + "\n";
        for row in &self.rows {
            csv += &(row.iter().map(|value| format!("{value:.3}")).collect::<Vec<_>>().join(",") + "\n");
        }
        fs::write(output.join("soak.csv"), csv).expect("cannot write soak.csv");
        let charts: Vec<Chart> = CHARTS.iter().map(|(title, columns)| self.chart(title, columns)).collect();
        fs::write(output.join("soak.svg"), chart::svg("make soak", &charts)).expect("cannot write soak.svg");
    }

    fn chart(&self, title: &str, columns: &[usize]) -> Chart {
        let line = |column: usize| Line {
            label: COLUMNS[column].into(),
            points: self.rows.iter().map(|row| (row[0], row[column])).collect(),
        };
        Chart { title: title.into(), lines: columns.iter().copied().map(line).collect() }
    }

    /// Each column in the first and in the last third.
    fn summary(&self) -> String {
        let third = self.rows.len() / 3;
        let median = |rows: &[[f64; COLUMNS.len()]], column: usize| {
            rows.iter().map(|row| row[column]).collect::<Series>().median()
        };
        let last = self.rows.len() - third;
        let column = |column: usize| {
            let (early, late) = (median(&self.rows[..third], column), median(&self.rows[last..], column));
            format!("\n  {:22} {early:10.1} {late:10.1}", COLUMNS[column])
        };
        let columns: String = (1..COLUMNS.len()).map(column).collect();
        format!("medians of the first and of the last third:{columns}")
    }
}
