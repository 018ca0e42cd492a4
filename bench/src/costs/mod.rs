//! What an event costs at a steady rate: CPU, WAL, disk and network, in each of the processes that it passes; with one
//! nats-server, and with three and as many replicas.
//!
//! A round has three phases: events are written while the relay is stopped; they are written and published; and a
//! subscription handles them besides. What a phase uses more than the one before is what it adds. Beside that, how fast one
//! relay and one subscription work a backlog off: the model of `sea-mq-bench model` reckons with both.

mod cost;
mod found;
mod load;
mod meters;
mod servers;

use std::time::Duration;

use harness::{Database, EVENTS};
use serde_json::{Value, json};

pub use cost::Cost;
use found::{Found, Phases};
use load::Load;
use meters::{Meter, Reading};
use servers::Servers;

use crate::figures::whole;
use crate::report::Measured;
use crate::subscription::{self, Handling};
use crate::{Options, Outcome, drain, say, workload};

/// Numbers of nats-servers, each of which has a replica of the stream.
const NODES: [usize; 2] = [1, 3];
/// Bytes of a payload.
const PAYLOADS: [usize; 2] = [300, 2000];
/// What the subscriptions may have unacknowledged.
const OUTSTANDING: i64 = 1000;
const PATIENCE: Duration = Duration::from_secs(120);

/// # Errors
/// When something breaks, an event that does not arrive for instance.
pub async fn measure(options: &Options) -> Outcome<Measured> {
    let (mut all, mut versions) = (Vec::new(), Value::Null);
    for nodes in NODES {
        for payload_bytes in PAYLOADS {
            let bench = Bench::start(nodes, payload_bytes, options).await;
            versions = workload::versions(&bench.servers.stage).await?;
            all.push(bench.measure(options).await?);
        }
    }
    let json = json!({
        "events_per_s": options.costs_rate, "seconds": options.costs_seconds, "backlog": options.costs_backlog,
        "repetitions": options.repetitions, "fsync": true, "versions": versions,
        "measurements": all.iter().map(Found::json).collect::<Vec<_>>(),
    });
    let title = format!(
        "costs: of an event, one a transaction, at {} a second; {} rounds of 3 × {} s",
        whole(options.costs_rate.into()),
        options.repetitions,
        options.costs_seconds
    );
    let rows = all.iter().flat_map(Found::rows).collect();
    Ok(Measured { key: "costs", title, rows, panels: Vec::new(), json })
}

/// The servers of one measurement.
struct Bench {
    servers: Servers,
    db: Database,
    nodes: usize,
    load: Load,
    /// Subscriptions so far.
    subscriptions: u32,
}

impl Bench {
    /// Starts the servers, describes the stream and makes the handlers.
    async fn start(nodes: usize, payload_bytes: usize, options: &Options) -> Self {
        let servers = Servers::start(nodes).await;
        let db = servers.stage.connect().await;
        db.run(&format!("SELECT sea_mq.create_stream('orders', replicas => {nodes})")).await;
        db.run(subscription::HANDLERS).await;
        servers.stage.until_connected().await;
        let rate = options.costs_rate;
        let load = Load { rate, count: rate * options.costs_seconds, payload_bytes };
        Self { servers, db, nodes, load, subscriptions: 0 }
    }

    async fn measure(mut self, options: &Options) -> Outcome<Found> {
        let mut found = Found::new(self.nodes, self.load.payload_bytes);
        let title = format!("costs: {} server(s), {} bytes", self.nodes, self.load.payload_bytes);
        say(format!("{title}: warm-up"));
        Load { count: self.load.count / 4 + 1, ..self.load }.run(&self.servers.stage.connector()).await?;
        self.until_drained().await;
        for repetition in 1..=options.repetitions {
            found.push_phases(&self.phases().await?);
            let (relay, consumer) = self.rates(options.costs_backlog).await?;
            found.push(Cost::RelayRate, relay);
            found.push(Cost::ConsumerRate, consumer);
            let rates = format!("relay {}/s, subscription {}/s", whole(relay), whole(consumer));
            say(format!("{title}: {repetition} of {}: {rates}", options.repetitions));
        }
        Ok(found)
    }

    async fn phases(&mut self) -> Outcome<Phases> {
        workload::stop_relay(&self.servers.stage).await;
        let written = self.phase(None).await?;
        workload::start_relay(&self.servers.stage).await;
        self.until_drained().await;
        let published = self.phase(None).await?;
        self.subscriptions += 1;
        let name = format!("app__costs_{}", self.subscriptions);
        let subscribe =
            format!("SELECT sea_mq.subscribe('{name}', 'orders', 'handle_nothing', max_ack_pending => {OUTSTANDING})");
        self.db.run(&subscribe).await;
        let active = "SELECT state = 'active' FROM sea_mq.subscription_status WHERE subscription = $1";
        harness::until("the subscription is active", PATIENCE, async || self.db.value(active, &[&name]).await).await;
        let handled = self.phase(Some(&name)).await?;
        self.db.run(&format!("SELECT sea_mq.unsubscribe('{name}')")).await;
        subscription::until_gone(&self.servers.stage, &name).await;
        Ok(Phases { written, published, handled })
    }

    /// Emits the load, and waits until the events are where they go. Returns what was used for each.
    async fn phase(&self, subscription: Option<&str>) -> Outcome<Reading> {
        let relay_runs = !self.servers.stage.relays().await.is_empty();
        let before = Reading::take(&self.servers, &self.db).await?;
        let writers = self.load.run(&self.servers.stage.connector()).await?;
        if relay_runs {
            self.until_drained().await;
        }
        if let Some(name) = subscription {
            let wanted = i64::from(self.load.count);
            let sql = "SELECT processed >= $2 FROM sea_mq.subscription_status WHERE subscription = $1";
            harness::until("all is handled", PATIENCE, async || self.db.value(sql, &[&name, &wanted]).await).await;
        }
        let mut after = Reading::take(&self.servers, &self.db).await?;
        after.set(Meter::Writer, writers);
        Ok(after.since(&before, self.load.count))
    }

    /// Events a second of the relay, and messages a second of a subscription, with a backlog before them.
    async fn rates(&mut self, backlog: u32) -> Outcome<(f64, f64)> {
        let stage = &self.servers.stage;
        let emit = workload::emit_of(drain::NUMBER, self.load.payload_bytes);
        let relay = drain::drain_of(stage, backlog.max(2), &emit).await?.rate;
        self.subscriptions += 1;
        let name = format!("app__rate_{}", self.subscriptions);
        let handling = Handling { inserts: false, workers: 1, max_ack_pending: OUTSTANDING };
        let messages = u32::try_from(stage.broker.count(EVENTS).await)?;
        let consumer = subscription::run(stage, &name, handling, messages).await?.rate;
        Ok((relay, consumer))
    }

    async fn until_drained(&self) {
        harness::until("all events are published", PATIENCE, async || workload::is_drained(&self.db).await).await;
    }
}
