//! The servers whose costs are measured: PostgreSQL, and one nats-server or several that are one cluster.

use harness::{Broker, BrokerOptions, Directory, Port, Stage, StageOptions, clustered};
use serde_json::Value;

use crate::{Outcome, say};

/// The stage with its broker, and the other servers of that broker's cluster.
pub struct Servers {
    pub stage: Stage,
    others: Vec<Broker>,
    /// Where each nats-server tells about itself; the first is that of the stage's broker.
    monitors: Vec<Port>,
    _routes: Vec<Port>,
    // The servers are dropped before their directory.
    _directory: Directory,
}

/// Bytes that a client's connection has sent and received, as nats-server counts them: headers and payloads.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Traffic {
    pub sent: f64,
    pub received: f64,
}

impl Servers {
    /// So many nats-servers, and PostgreSQL that syncs to disk and begins no checkpoint by itself.
    pub async fn start(nodes: usize) -> Self {
        say(format!("costs: starting PostgreSQL and {nodes} nats-server(s)"));
        let (mut options, routes) =
            if nodes == 1 { (vec![BrokerOptions::default()], Vec::new()) } else { clustered(nodes) };
        let monitors: Vec<Port> = options.iter().map(|_| Port::claim()).collect();
        for (options, monitor) in options.iter_mut().zip(&monitors) {
            options.configuration.push_str(&format!("http: \"127.0.0.1:{}\"\n", monitor.number()));
        }
        let directory = Directory::new("bench-costs-nodes");
        let first = options.remove(0);
        let mut others: Vec<Broker> = options
            .into_iter()
            .enumerate()
            .map(|(number, options)| Broker::new(&directory.path().join(format!("n{}", number + 1)), options))
            .collect();
        // The stage waits for the first, which answers when the others are there.
        others.iter_mut().for_each(Broker::launch);
        let settings = StageOptions { broker: first, ..StageOptions::default() };
        let settings = settings.setting("fsync", "on").setting("checkpoint_timeout", "1h");
        let stage = settings.start("bench-costs").await;
        for broker in &mut others {
            broker.until_ready().await;
        }
        Self { stage, others, monitors, _routes: routes, _directory: directory }
    }

    /// The processes of all nats-servers.
    pub fn brokers(&self) -> impl Iterator<Item = i32> {
        std::iter::once(self.stage.broker.pid()).chain(self.others.iter().map(Broker::pid))
    }

    /// What the connection of a relay or a consumer has carried so far; nothing if it has none.
    pub fn traffic(&self, process: i32) -> Outcome<Traffic> {
        let connections = self.ask(&self.monitors[0], "connz?limit=1000")?;
        let ours = |connection: &&Value| {
            let name = connection["name"].as_str().unwrap_or_default();
            name.starts_with("sea_mq ") && name.ends_with(&format!(" {process}"))
        };
        let mut traffic = Traffic::default();
        for connection in connections["connections"].as_array().into_iter().flatten().filter(ours) {
            // nats-server's "in" is what the client has sent.
            traffic.sent += connection["in_bytes"].as_f64().unwrap_or(0.0);
            traffic.received += connection["out_bytes"].as_f64().unwrap_or(0.0);
        }
        Ok(traffic)
    }

    /// Bytes that the nats-servers have sent to each other so far.
    pub fn replicated(&self) -> Outcome<f64> {
        let mut bytes = 0.0;
        for monitor in &self.monitors {
            let routes = self.ask(monitor, "routez")?;
            let sent =
                routes["routes"].as_array().into_iter().flatten().filter_map(|route| route["out_bytes"].as_f64());
            bytes += sent.sum::<f64>();
        }
        Ok(bytes)
    }

    fn ask(&self, monitor: &Port, what: &str) -> Outcome<Value> {
        let url = format!("http://127.0.0.1:{}/{what}", monitor.number());
        Ok(serde_json::from_str(&ureq::get(url).call()?.body_mut().read_to_string()?)?)
    }
}
