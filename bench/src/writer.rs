//! What `emit` costs the transaction that calls it, against what the usual outbox costs: pgbench, transactions that insert
//! a domain row and announce it in one of several ways.
//!
//! Nothing relays the usual outbox ([`conventional::OUTBOX`]); whatever would, would slow its writers down.
//!
//! Each run begins with empty tables (the log excepted, which only its retention empties) and after a checkpoint, so that
//! none falls into it.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use harness::{Database, EVENTS, Stage};
use serde_json::{Map, Value, json};

use crate::conventional::{self, OUTBOX};
use crate::figures::{Series, whole};
use crate::plot::{Bar, Panel, Scale};
use crate::report::{Measured, Row};
use crate::workload::{self, PAYLOAD_BYTES};
use crate::{Options, Outcome, machine, say};

/// Length of each kind's warm-up, in seconds.
const WARM_UP: u32 = 1;

/// What the transaction does besides inserting a domain row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Nothing,
    Insert,
    InsertAndNotify,
    Emit,
    /// [`MANY`] events in one statement.
    InsertMany,
    EmitMany,
}

/// Events of a transaction that announces many.
const MANY: u32 = 10;

impl Kind {
    const COUNT: usize = 6;
    const ALL: [Self; Self::COUNT] =
        [Self::Nothing, Self::Insert, Self::InsertAndNotify, Self::Emit, Self::InsertMany, Self::EmitMany];

    /// What its throughput is held against.
    const fn reference(self) -> Self {
        match self {
            Self::InsertMany | Self::EmitMany => Self::InsertMany,
            _ => Self::Insert,
        }
    }

    /// Events of sea_mq in a transaction.
    const fn emits(self) -> u64 {
        match self {
            Self::Emit => 1,
            Self::EmitMany => MANY as u64,
            _ => 0,
        }
    }

    const fn key(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Insert => "insert",
            Self::InsertAndNotify => "insert_notify",
            Self::Emit => "emit",
            Self::InsertMany => "insert_many",
            Self::EmitMany => "emit_many",
        }
    }

    const fn label(self) -> &'static str {
        match self {
            Self::Nothing => "domain row only",
            Self::Insert => "plain outbox INSERT",
            Self::InsertAndNotify => "… + NOTIFY",
            Self::Emit => "sea_mq.emit",
            Self::InsertMany => "INSERT of 10 rows",
            Self::EmitMany => "emit_many of 10",
        }
    }

    /// The transaction as pgbench reads it.
    fn script(self) -> String {
        let insert = || {
            let payload = workload::payload(":number");
            format!(
                "INSERT INTO outbox (aggregate_type, aggregate_id, event_type, payload) VALUES ('order', :number::text, 'OrderPlaced', {payload});\n"
            )
        };
        let announce = match self {
            Self::Nothing => String::new(),
            Self::Insert => insert(),
            Self::InsertAndNotify => insert() + "NOTIFY outbox;\n",
            Self::Emit => format!("SELECT {};\n", workload::emit(":number")),
            Self::InsertMany => conventional::insert(1, MANY).replace('\n', " ") + ";\n",
            Self::EmitMany => format!(
                "SELECT count(*) FROM sea_mq.emit_many(ARRAY(SELECT jsonb_build_object('aggregate_type', 'order', 'aggregate_id', (100000 + i)::text, 'event_type', 'OrderPlaced', 'payload', {}) FROM generate_series(1, {MANY}) AS i));\n",
                workload::payload("(100000 + i)")
            ),
        };
        format!(
            "\\set number random(100000, 999999)\nBEGIN;\nINSERT INTO orders (number, customer, total) VALUES (:number, 'Ada Lovelace', 42.50);\n{announce}END;\n"
        )
    }
}

/// What pgbench said.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Run {
    /// Transactions per second.
    tps: f64,
    transactions: u64,
}

/// The runs of one number of clients, with the relay stopped or running.
struct Group {
    clients: u32,
    relay_runs: bool,
    /// Transactions per second, in the order of [`Kind::ALL`].
    tps: [Series; Kind::COUNT],
    /// Events that waited for the relay at the end of each `emit` run; counted up to some ten thousand.
    backlog: Series,
}

/// # Errors
/// When something breaks: pgbench fails, or an event of a counted transaction is lost.
pub async fn measure(options: &Options) -> Outcome<Measured> {
    let bench = Bench::new(options).await?;
    let versions = workload::versions(&bench.stage).await?;
    say("writer: warm-up");
    for kind in Kind::ALL {
        bench.run(kind, options.clients[0], WARM_UP).await?;
    }
    let mut emitted = 0;
    let mut groups = Vec::new();
    for clients in &options.clients {
        // What the relay takes from the writers hangs on the cores more than on the number of clients.
        let states: &[bool] = if *clients == options.clients_beside_relay() { &[false, true] } else { &[false] };
        for &relay_runs in states {
            let (group, transactions) = bench.group(*clients, relay_runs, options).await?;
            emitted += transactions;
            groups.push(group);
        }
    }
    bench.check(emitted).await?;

    let json = json!({
        "payload_bytes": PAYLOAD_BYTES, "seconds": options.seconds, "rounds": options.rounds, "protocol": "prepared",
        "fsync": true, "versions": versions, "groups": groups.iter().map(Group::json).collect::<Vec<_>>(),
    });
    let title = format!(
        "writer: pgbench, a domain row and an event of {PAYLOAD_BYTES} bytes, {} rounds of {} s, fsync on",
        options.rounds, options.seconds
    );
    let rows = groups.iter().flat_map(Group::rows).collect();
    Ok(Measured { key: "writer", title, rows, panels: groups.iter().map(Group::panel).collect(), json })
}

struct Bench {
    stage: Stage,
    /// Listens, as the relay of the usual outbox would.
    listener: Database,
    pgbench: PathBuf,
    port: String,
}

impl Bench {
    async fn new(options: &Options) -> Outcome<Self> {
        let stage = workload::stage("writer").await;
        if let Some(clients) = options.clients.iter().max().filter(|clients| **clients > 80) {
            return Err(format!("{clients} clients are more than the server takes (100 connections in all)").into());
        }
        let db = stage.connect().await;
        db.run(workload::ORDERS).await;
        db.run(OUTBOX).await;
        let port = db.value("SHOW port", &[]).await;
        for kind in Kind::ALL {
            fs::write(script(&stage, kind), kind.script())?;
        }
        Ok(Self { stage, listener: db, pgbench: machine::pgbench()?, port })
    }

    /// Interleaved runs. Returns also how many events pgbench counted.
    async fn group(&self, clients: u32, relay_runs: bool, options: &Options) -> Outcome<(Group, u64)> {
        if relay_runs {
            workload::start_relay(&self.stage).await;
            self.until_drained().await;
        } else {
            workload::stop_relay(&self.stage).await;
        }
        let state = if relay_runs { "running" } else { "stopped" };
        let mut group = Group { clients, relay_runs, tps: Default::default(), backlog: Series::default() };
        let mut emitted = 0;
        for round in 0..options.rounds {
            let mut text = String::new();
            // Each kind comes first, second, … in turn.
            for turn in 0..Kind::ALL.len() {
                let index = (turn + round as usize) % Kind::ALL.len();
                let kind = Kind::ALL[index];
                let run = self.run(kind, clients, options.seconds).await?;
                group.tps[index].push(run.tps);
                let _ = write!(text, " {} {}", kind.key(), whole(run.tps));
                emitted += run.transactions * kind.emits();
                if relay_runs && kind == Kind::Emit {
                    group.backlog.push(workload::pending(&self.listener).await as f64);
                }
                if relay_runs && kind.emits() > 0 {
                    self.until_drained().await;
                }
            }
            say(format!("writer, {clients} clients, relay {state}, {} of {}:{text} tps", round + 1, options.rounds));
        }
        Ok((group, emitted))
    }

    async fn until_drained(&self) {
        let limit = Duration::from_secs(120);
        harness::until("the backlog is drained", limit, async || workload::is_drained(&self.listener).await).await;
    }

    async fn run(&self, kind: Kind, clients: u32, seconds: u32) -> Outcome<Run> {
        self.listener.run("TRUNCATE orders, outbox").await;
        self.listener.run(if kind == Kind::InsertAndNotify { "LISTEN outbox" } else { "UNLISTEN *" }).await;
        self.listener.run("CHECKPOINT").await;
        let threads = std::thread::available_parallelism()?.get().min(clients as usize);
        let mut command = Command::new(&self.pgbench);
        command
            .args(["--no-vacuum", "--protocol=prepared", "--host=127.0.0.1", "--username=postgres"])
            .arg(format!("--port={}", self.port))
            .arg(format!("--client={clients}"))
            .arg(format!("--jobs={threads}"))
            .arg(format!("--time={seconds}"))
            .arg("--file")
            .arg(script(&self.stage, kind))
            .arg(self.stage.database());
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        let said = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            return Err(format!("pgbench failed: {said}{}", String::from_utf8_lossy(&output.stderr)).into());
        }
        read(&said).ok_or_else(|| format!("pgbench's words are not understood: {said}").into())
    }

    /// Whether every event is in the stream, and none of a transaction that pgbench counted is missing.
    async fn check(&self, emitted: u64) -> Outcome<()> {
        workload::start_relay(&self.stage).await;
        self.until_drained().await;
        let logged: i64 = self.listener.value("SELECT count(*) FROM sea_mq.outbox_log", &[]).await;
        let logged = u64::try_from(logged)?;
        let stored = self.stage.broker.count(EVENTS).await;
        if stored != logged || logged < emitted {
            let text = format!("pgbench counted {emitted} events, {logged} are in the log and {stored} in the stream");
            return Err(text.into());
        }
        say(format!("writer: all {} events are in the stream", whole(stored as f64)));
        Ok(())
    }
}

fn script(stage: &Stage, kind: Kind) -> PathBuf {
    stage.directory.path().join(format!("{}.sql", kind.key()))
}

fn read(said: &str) -> Option<Run> {
    let after = |start: &str| said.lines().find_map(|line| line.strip_prefix(start)?.split([' ', '/']).next());
    let tps = after("tps = ")?.parse().ok()?;
    let transactions = after("number of transactions actually processed: ")?.parse().ok()?;
    Some(Run { tps, transactions })
}

impl Group {
    fn ratio(&self, kind: Kind) -> (f64, Series) {
        let (tps, reference) = (&self.tps[kind as usize], &self.tps[kind.reference() as usize]);
        (tps.median() / reference.median(), tps.over(reference))
    }

    fn name(&self) -> String {
        let state = if self.relay_runs { "running" } else { "stopped" };
        format!("{} {}, relay {state}", self.clients, if self.clients == 1 { "client" } else { "clients" })
    }

    fn rows(&self) -> Vec<Row> {
        let name = self.name();
        let tps = Kind::ALL
            .iter()
            .zip(&self.tps)
            .map(|(kind, tps)| Row::rate(&format!("{name}: {}", kind.label()), tps, " tps"));
        let compared = [
            (Kind::InsertAndNotify, "… + NOTIFY / INSERT"),
            (Kind::Emit, "emit / INSERT"),
            (Kind::EmitMany, "emit_many / INSERT of 10"),
        ];
        let ratios = compared.into_iter().map(|(kind, label)| {
            let (ratio, ratios) = self.ratio(kind);
            let row = Row::new(format!("{name}: {label}"), format!("{ratio:.2}"), ratios.range(2, ""));
            // With the relay running, emit also pays for what no relay of the other outbox does here.
            let is_bound = kind == Kind::Emit && !self.relay_runs && self.clients == 8;
            if is_bound { row.expecting(">= 1.0") } else { row }
        });
        let backlog =
            self.relay_runs.then(|| Row::rate(&format!("{name}: backlog after a run of emit"), &self.backlog, ""));
        tps.chain(ratios).chain(backlog).collect()
    }

    fn panel(&self) -> Panel {
        let (ratio, _) = self.ratio(Kind::Emit);
        let bars = Kind::ALL.iter().zip(&self.tps).map(|(kind, tps)| Bar::of(kind.label(), tps, whole(tps.median())));
        Panel {
            title: format!("Writers, {}: emit / INSERT = {ratio:.2}", self.name()),
            unit: "transactions per second, median and range".into(),
            scale: Scale::Linear,
            bars: bars.collect(),
        }
    }

    fn json(&self) -> Value {
        let mut kinds = Map::new();
        for (index, kind) in Kind::ALL.iter().enumerate() {
            let (ratio, ratios) = self.ratio(*kind);
            let tps = self.tps[index].json("transactions/s");
            kinds.insert(
                kind.key().into(),
                json!({ "tps": tps, "reference": kind.reference().key(), "to_reference": ratio, "to_reference_by_round": ratios.values }),
            );
        }
        let backlog = self.relay_runs.then(|| self.backlog.json("events"));
        json!({ "clients": self.clients, "relay_running": self.relay_runs, "backlog_after_emit": backlog, "kinds": kinds })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pgbench_is_understood() {
        let said = "number of clients: 8\nnumber of transactions actually processed: 47500\n\
            number of failed transactions: 0 (0.000%)\nlatency average = 0.842 ms\n\
            initial connection time = 12.3 ms\ntps = 9500.125 (without initial connection time)\n";
        assert_eq!(read(said), Some(Run { tps: 9500.125, transactions: 47_500 }));
        assert_eq!(read("nothing"), None);
    }
}
