use std::time::Duration;

use uuid::Uuid;

use crate::broker::{Broker, BrokerOptions};
use crate::cluster::Cluster;
use crate::database::{Connector, Database};
use crate::directory::Directory;
use crate::stored::Stored;
use crate::{ledger, until, until_some};

/// The stream of the context that the stage's database emits in.
pub const EVENTS: &str = "ORDERS_EVENTS";

const DATABASE: &str = "app";

const SOON: Duration = Duration::from_secs(30);

/// How a test's stage differs from the plain one.
#[derive(Default)]
pub struct StageOptions {
    pub settings: Vec<(&'static str, String)>,
    pub broker: BrokerOptions,
    /// The broker has its port but is not started.
    pub broker_later: bool,
    /// `sea_mq.nats_url` is not set.
    pub no_url: bool,
    /// The extension is not in shared_preload_libraries.
    pub not_preloaded: bool,
}

impl StageOptions {
    pub fn setting(mut self, name: &'static str, value: &str) -> Self {
        self.settings.push((name, value.to_owned()));
        self
    }

    /// Sets the stage up.
    ///
    /// # Panics
    /// When that fails.
    pub async fn start(self, name: &str) -> Stage {
        let directory = Directory::new(name);
        let mut broker = Broker::new(&directory.path().join("nats"), self.broker);
        if !self.broker_later {
            broker.start().await;
        }
        let mut cluster = Cluster::new(&directory.path().join("pg"), &[]);
        if !self.not_preloaded {
            cluster.configure(&[("shared_preload_libraries", "sea_mq")]);
        }
        if !self.no_url {
            cluster.configure(&[("sea_mq.nats_url", &broker.url())]);
        }
        for (name, value) in &self.settings {
            cluster.configure(&[(name, value)]);
        }
        cluster.start().await;
        cluster.run(&format!("CREATE DATABASE {DATABASE}")).await;
        cluster.run(&format!("ALTER DATABASE {DATABASE} SET sea_mq.context = 'orders'")).await;
        cluster.connect(DATABASE).await.run("CREATE EXTENSION sea_mq").await;
        Stage { cluster, broker, directory }
    }
}

/// A running cluster with the extension in the database `app`, context `orders`, and a running nats-server to which it
/// publishes.
pub struct Stage {
    // The servers are dropped before their directory.
    pub cluster: Cluster,
    pub broker: Broker,
    pub directory: Directory,
}

impl Stage {
    /// The plain stage; `name` is the test's.
    ///
    /// # Panics
    /// When it cannot be set up.
    pub async fn new(name: &str) -> Self {
        StageOptions::default().start(name).await
    }

    /// Describes the context's stream, so that no event is the first of all: for tests that are about something else.
    pub async fn described(self) -> Self {
        self.connect().await.run("SELECT sea_mq.create_stream('orders')").await;
        self
    }

    /// A connection to the stage's database as the superuser.
    pub async fn connect(&self) -> Database {
        self.cluster.connect(DATABASE).await
    }

    /// A connection to the stage's database as `user`.
    pub async fn connect_as(&self, user: &str) -> Database {
        self.cluster.connect_as(user, DATABASE).await
    }

    /// The stage's database's name.
    pub fn database(&self) -> &'static str {
        DATABASE
    }

    /// How to connect to the stage's database, for tasks of their own.
    pub fn connector(&self) -> Connector {
        self.cluster.connector("postgres", DATABASE)
    }

    /// The relays of the stage's database that run just now.
    pub async fn relays(&self) -> Vec<i32> {
        self.processes("sea_mq relay").await
    }

    /// The pid of the relay of the stage's database, once there is one.
    ///
    /// # Panics
    /// When there is none within half a minute.
    pub async fn relay(&self) -> i32 {
        until_some("a relay runs", SOON, async || self.relays().await.first().copied()).await
    }

    /// The pid of the consumer of the stage's database, once there is one.
    ///
    /// # Panics
    /// When there is none within half a minute.
    pub async fn consumer(&self) -> i32 {
        until_some("a consumer runs", SOON, async || self.processes("sea_mq consumer").await.first().copied()).await
    }

    /// All processes of sea_mq that run in the stage's database just now.
    pub async fn workers(&self) -> Vec<i32> {
        self.processes("sea_mq%").await
    }

    async fn processes(&self, backend_type: &str) -> Vec<i32> {
        let sql = "SELECT pid FROM pg_stat_activity WHERE backend_type LIKE $1 AND datname = current_database()";
        self.connect().await.values(sql, &[&backend_type]).await
    }

    /// Waits until the relay is connected to the broker.
    ///
    /// # Panics
    /// When it is not within half a minute.
    pub async fn until_connected(&self) {
        let db = self.connect().await;
        until("the relay is connected", SOON, async || {
            db.value("SELECT state = 'connected' FROM sea_mq.relay_status", &[]).await
        })
        .await;
    }

    /// The row of `sea_mq.status`.
    pub async fn status(&self) -> serde_json::Value {
        self.connect().await.object("SELECT * FROM sea_mq.status").await
    }

    /// Waits until `sea_mq.status` says that something is wrong that the condition on the view `sea_mq.problems` is
    /// about, and returns the row of `sea_mq.status`: it must not be ok, and must have a summary and a hint.
    ///
    /// # Panics
    /// When it does not within half a minute.
    pub async fn until_problem(&self, condition: &str) -> serde_json::Value {
        let db = self.connect().await;
        let sql = format!("SELECT EXISTS (SELECT FROM sea_mq.problems, sea_mq.relay_status r WHERE {condition})");
        until(&format!("a problem with {condition}"), SOON, async || db.value(&sql, &[]).await).await;
        let status = self.status().await;
        assert_eq!(status["ok"], false, "{status}");
        assert!(status["summary"].as_str().is_some_and(|text| !text.is_empty()), "{status}");
        assert!(status["hint"].as_str().is_some_and(|text| !text.is_empty()), "{status}");
        status
    }

    /// Waits until `sea_mq.status` says that all is well.
    ///
    /// # Panics
    /// When it does not within half a minute.
    pub async fn until_ok(&self) {
        let db = self.connect().await;
        until("sea_mq.status is ok", SOON, async || db.value("SELECT ok FROM sea_mq.status", &[]).await).await;
    }

    /// Waits until the stream of the database's context holds these events; asserts that it holds nothing else, each
    /// once, and in this order.
    ///
    /// # Panics
    /// When it does not.
    pub async fn assert_stored(&self, ids: &[Uuid]) -> Vec<Stored> {
        self.broker.until_count(EVENTS, ids.len() as u64, SOON).await;
        let stored = self.broker.stored(EVENTS).await;
        let found: Vec<Uuid> = stored.iter().map(Stored::id).collect();
        ledger::assert_same(ids, &found);
        stored
    }
}
