//! Three nats-servers: what an operator does to one of them is no news.

use std::path::Path;
use std::time::{Duration, Instant};

use harness::{Broker, Cluster, Database, Directory, Port, clustered, until, until_some};
use serde_json::json;

use crate::receiving::{emit_numbers, make_recorder};
use crate::{SOON, receiving::LONG};

struct Nodes {
    cluster: Cluster,
    brokers: Vec<Broker>,
    _routes: Vec<Port>,
    _directory: Directory,
}

async fn start_brokers(directory: &Path) -> (Vec<Broker>, Vec<Port>) {
    let (options, routes) = clustered(3);
    let mut brokers = Vec::new();
    for (number, mut options) in options.into_iter().enumerate() {
        options.configuration.push_str("lame_duck_duration: \"30s\", lame_duck_grace_period: \"5s\"");
        brokers.push(Broker::new(&directory.join(format!("n{number}")), options));
    }
    brokers.iter_mut().for_each(Broker::launch);
    for broker in &mut brokers {
        broker.until_ready().await;
    }
    (brokers, routes)
}

impl Nodes {
    /// Three servers and a database `app` that publishes to them, with a subscription.
    async fn start(name: &str) -> Self {
        let directory = Directory::new(name);
        let (brokers, routes) = start_brokers(directory.path()).await;
        let mut cluster = Cluster::new(&directory.path().join("pg"), &[]);
        cluster.configure(&[("shared_preload_libraries", "sea_mq"), ("sea_mq.nats_url", &brokers[0].url())]);
        cluster.start().await;
        cluster.run("CREATE DATABASE app").await;
        cluster.run("ALTER DATABASE app SET sea_mq.context = 'orders'").await;
        let nodes = Self { cluster, brokers, _routes: routes, _directory: directory };
        let db = nodes.connect().await;
        db.run("CREATE EXTENSION sea_mq; SELECT sea_mq.create_stream('orders', replicas => 3)").await;
        make_recorder(&db).await;
        db.run("SELECT sea_mq.subscribe('app__all', 'orders', 'record', start_from => 'all')").await;
        emit_numbers(&db, 1, 10).await;
        nodes.until_handled(10).await;
        nodes
    }

    async fn connect(&self) -> Database {
        self.cluster.connect("app").await
    }

    async fn until_handled(&self, count: i64) {
        let db = self.connect().await;
        let sql = "SELECT count(DISTINCT n) = $1 FROM effects";
        until(&format!("{count} are handled"), LONG, async || db.value(sql, &[&count]).await).await;
    }

    /// The number of the server that leads the stream.
    async fn leader(&self) -> usize {
        until_some("a leader", SOON, async || {
            let stream = self.brokers.iter().find(|broker| broker.is_running())?.stream(harness::EVENTS).await?;
            let leader = stream.cached_info().cluster.as_ref()?.leader.clone()?;
            leader.trim_start_matches('n').parse().ok()
        })
        .await
    }

    /// Has relay and consumer connect to one that does not lead.
    async fn connect_beside(&self, leader: usize) {
        let beside = &self.brokers[(leader + 1) % self.brokers.len()];
        self.cluster.run(&format!("ALTER SYSTEM SET sea_mq.nats_url = '{}'", beside.url())).await;
        self.cluster.run("SELECT pg_reload_conf()").await;
        let db = self.connect().await;
        let there = "SELECT s.ok AND r.server_address LIKE '%:' || $1 AND b.state = 'active'
            FROM sea_mq.status s, sea_mq.relay_status r, sea_mq.subscription_status b";
        let port = beside.port().to_string();
        until("they are connected beside the leader", SOON, async || db.value(there, &[&port]).await).await;
    }
}

/// How long a leader may be missing without a word.
const QUIET: Duration = Duration::from_secs(4);

async fn assert_quiet_when(nodes: &mut Nodes, end: impl FnOnce(&mut Broker) + Send, from: i64) {
    let leader = nodes.leader().await;
    nodes.connect_beside(leader).await;
    let db = nodes.connect().await;
    let begin = Instant::now();
    let look = async {
        let mut n = from;
        while begin.elapsed() < QUIET {
            let _ = db.emit(&n.to_string(), "Counted", json!({ "n": n })).await;
            n += 1;
            let problems: Vec<String> = db.values("SELECT problem FROM sea_mq.problems", &[]).await;
            assert!(problems.is_empty(), "after {:?}: {problems:?}", begin.elapsed());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        n
    };
    end(&mut nodes.brokers[leader]);
    let next = look.await;
    nodes.until_handled(next - 1).await;
    let longest = "SELECT round(extract(epoch FROM max(m.processed_at - o.created_at)) * 1000)::bigint
        FROM sea_mq.inbox_messages m JOIN sea_mq.outbox_events o ON o.id::text = m.message_id
        WHERE (m.payload ->> 'n')::bigint >= $1";
    let longest: i64 = db.value(longest, &[&from]).await;
    println!("while the leader ended, an event took {longest} ms at most until it was handled");
    nodes.brokers[leader].launch();
    nodes.brokers[leader].until_ready().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_ended_is_no_news_until_another_is_missing_for_long() {
    let mut nodes = Nodes::start("leader_ends").await;
    assert_quiet_when(&mut nodes, Broker::stop, 11).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_retired_is_no_news() {
    let mut nodes = Nodes::start("leader_retires").await;
    assert_quiet_when(&mut nodes, Broker::retire, 11).await;
}
