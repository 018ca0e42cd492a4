//! What many databases of one server cost: memory and processor time at rest, how long it takes until all are served after a start, and
//! how long the first event of a database at rest takes to its stream. All have the extension; the server has 32 worker slots.

use std::fs;
use std::time::{Duration, Instant};

use harness::{Database, Stage, StageOptions, resident_bytes, until};
use serde_json::{Value, json};

use crate::figures::{Series, whole};
use crate::report::{Measured, Row};
use crate::{Options, Outcome, say};

const PATIENCE: Duration = Duration::from_secs(900);
/// How long a process has nothing to do before it ends. After six times as much it looks around, which is to be after the start.
const TIMEOUT: &str = "30s";
/// Over which processor time is counted.
const REST: Duration = Duration::from_secs(10);
/// Databases whose first event is timed, at most.
const TIMED: usize = 20;
const WORKERS: &str = "SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'sea_mq%'";

/// What was found with so many databases.
struct Found {
    databases: usize,
    /// From the server's start until each database was looked after once.
    start: Duration,
    /// Private memory of all processes of sea_mq, in bytes: the most that was seen during the start, and at rest.
    memory: [u64; 2],
    /// Share of one processor at rest.
    processor: f64,
    /// Milliseconds.
    first_event: Series,
}

/// # Errors
/// When something breaks, an event that does not arrive for instance.
pub async fn measure(options: &Options) -> Outcome<Measured> {
    let (mut rows, mut found) = (Vec::new(), Vec::new());
    for &databases in &options.databases {
        let one = with(databases).await?;
        rows.extend(one.rows());
        found.push(one.json());
    }
    let title = "databases: one server, 32 worker slots, all at rest".to_owned();
    Ok(Measured { key: "databases", title, rows, panels: Vec::new(), json: json!({ "runs": found }) })
}

async fn with(databases: usize) -> Outcome<Found> {
    let places = (databases + 8).to_string();
    let options = StageOptions::default()
        .setting("max_worker_processes", "32")
        .setting("sea_mq.max_databases", &places)
        .setting("sea_mq.idle_timeout", TIMEOUT);
    let mut stage = options.start(&format!("databases_{databases}")).await;
    for number in 0..databases {
        make(&stage, number).await;
    }
    say(format!("databases: {databases} are made"));
    until_at_rest(&stage).await;
    let before = relays(&stage);
    stage.cluster.stop();
    let begin = Instant::now();
    stage.cluster.start().await;
    let most = until_served(&stage, before + databases).await;
    let start = begin.elapsed();
    until_at_rest(&stage).await;
    let processes = processes(&stage).await;
    let memory = [most, processes.iter().map(|pid| resident_bytes(*pid)).sum()];
    let before = ticks(&processes)?;
    tokio::time::sleep(REST).await;
    let processor = ticks(&processes)?.saturating_sub(before) as f64 / 100.0 / REST.as_secs_f64();
    let first_event = first_events(&stage, databases).await;
    say(format!("databases: {databases} are measured"));
    Ok(Found { databases, start, memory, processor, first_event })
}

fn name(number: usize) -> String {
    format!("tenant_{number}")
}

/// A database with a context of its own, of which one event is stored.
async fn make(stage: &Stage, number: usize) {
    let name = name(number);
    stage.cluster.run(&format!("CREATE DATABASE {name}")).await;
    stage.cluster.run(&format!("ALTER DATABASE {name} SET sea_mq.context = '{name}'")).await;
    stage.cluster.connect(&name).await.run("CREATE EXTENSION sea_mq").await;
    emit(&stage.cluster.connect(&name).await).await;
    until_stored(stage, number, 1).await;
}

async fn emit(db: &Database) {
    db.emit("order/1", "Placed", json!({})).await;
}

async fn until_stored(stage: &Stage, number: usize, count: u64) {
    let stream = format!("TENANT_{number}_EVENTS");
    until("the event is stored", PATIENCE, async || {
        stage.broker.stream(&stream).await.is_some() && stage.broker.count(&stream).await >= count
    })
    .await;
}

async fn processes(stage: &Stage) -> Vec<i32> {
    stage.cluster.connect("postgres").await.values(WORKERS, &[]).await
}

/// Until the launcher is the only process.
async fn until_at_rest(stage: &Stage) {
    until("all databases are at rest", PATIENCE, async || processes(stage).await.len() <= 1).await;
}

/// Until the log says that more relays have started than so many. Returns the most memory that was seen.
async fn until_served(stage: &Stage, relays: usize) -> u64 {
    let mut most = 0;
    // One more is that of the stage's own database.
    until("all databases were served", PATIENCE, async || {
        let bytes = processes(stage).await.iter().map(|pid| resident_bytes(*pid)).sum();
        most = most.max(bytes);
        self::relays(stage) > relays
    })
    .await;
    most
}

fn relays(stage: &Stage) -> usize {
    stage.cluster.log().matches("sea_mq relay started").count()
}

/// Hundredths of a second that processes have run; those that are gone do not count.
fn ticks(processes: &[i32]) -> Outcome<u64> {
    let mut sum = 0;
    for pid in processes {
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        for field in after_name.split_whitespace().skip(11).take(2) {
            sum += field.parse::<u64>()?;
        }
    }
    Ok(sum)
}

/// From the call of emit to the message in the stream, of databases at rest.
async fn first_events(stage: &Stage, databases: usize) -> Series {
    let mut series = Series::default();
    for number in 0..databases.min(TIMED) {
        let db = stage.cluster.connect(&name(number)).await;
        let begin = Instant::now();
        emit(&db).await;
        until_stored(stage, number, 2).await;
        series.push(begin.elapsed().as_secs_f64() * 1000.0);
    }
    series
}

impl Found {
    fn rows(&self) -> Vec<Row> {
        let of = |what: &str| format!("{} databases, {what}", self.databases);
        let [most, rest] = self.memory;
        vec![
            Row::new(of("until each was looked after"), format!("{:.1} s", self.start.as_secs_f64()), String::new()),
            Row::new(of("private memory"), format!("{} MB", rest >> 20), format!("{} MB during the start", most >> 20)),
            Row::new(of("processor at rest"), format!("{:.2} %", self.processor * 100.0), String::new()),
            Row::new(
                of("first event"),
                format!("{} ms", whole(self.first_event.median())),
                format!("{} ms at most", whole(self.first_event.most())),
            ),
        ]
    }

    fn json(&self) -> Value {
        json!({
            "databases": self.databases, "start_seconds": self.start.as_secs_f64(), "memory_at_start_bytes": self.memory[0],
            "memory_at_rest_bytes": self.memory[1], "processor_share_at_rest": self.processor,
            "first_event": self.first_event.json("ms"),
        })
    }
}
