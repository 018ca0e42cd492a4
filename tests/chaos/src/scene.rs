//! The servers and what is in them: two databases that emit, subscriptions in one of them and in a third.

use std::path::PathBuf;

use harness::{Broker, BrokerOptions, Cluster, Connector, Database, Directory, TestCertificates, until_some};

use crate::LONG;
use crate::proxy::Proxy;

/// A database with writers.
pub struct Producer {
    pub database: &'static str,
    /// Bounded contexts that it emits in, the first being its own.
    pub contexts: &'static [&'static str],
}

pub const PRODUCERS: [Producer; 2] = [
    Producer { database: "orders", contexts: &["orders", "shipping"] },
    Producer { database: "billing", contexts: &["billing"] },
];

/// Where most subscriptions are; it emits nothing.
pub const SINK: &str = "sink";

/// All databases with the extension.
pub const DATABASES: [&str; 3] = ["orders", "billing", SINK];

/// Aggregates of a context that all writers change.
pub const AGGREGATES: i64 = 12;

pub struct Subscription {
    pub name: &'static str,
    pub database: &'static str,
    pub context: &'static str,
    /// Further arguments of `subscribe`.
    pub options: &'static str,
    /// Whether its effects come in the order of the stream, aggregate by aggregate: not with clients that take turns, nor where
    /// attempts fail.
    pub in_order: bool,
}

pub const SUBSCRIPTIONS: [Subscription; 5] = [
    Subscription {
        name: "sink__orders",
        database: SINK,
        context: "orders",
        options: "handler => 'record', max_ack_pending => 500",
        in_order: true,
    },
    Subscription {
        name: "sink__billing",
        database: SINK,
        context: "billing",
        options: "handler => 'record', workers => 3, max_ack_pending => 500",
        in_order: true,
    },
    Subscription {
        name: "sink__unsteady",
        database: SINK,
        context: "orders",
        options: "handler => 'unsteady', retry_delay => '50 ms', retry_delay_max => '1 s', max_ack_pending => 500",
        in_order: false,
    },
    // Clients receive what comes for it.
    Subscription {
        name: PULLED,
        database: SINK,
        context: "shipping",
        options: "max_ack_pending => 500",
        in_order: false,
    },
    // Its handler emits, in the context `billing`.
    Subscription {
        name: "billing__from_orders",
        database: "billing",
        context: "orders",
        options: "handler => 'invoice', max_ack_pending => 500",
        in_order: true,
    },
];

pub const PULLED: &str = "sink__pulled";

/// Effects have no key: doubles show.
const EFFECTS: &str =
    "CREATE TABLE effects (place bigint GENERATED ALWAYS AS IDENTITY, subscription text, message_id uuid, attempt int);
    CREATE FUNCTION record(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO effects (subscription, message_id, attempt) VALUES (e.subscription, e.message_id::uuid, e.attempt);
    END $$;
    CREATE FUNCTION unsteady(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM record(e);
        IF random() < 0.02 THEN RAISE EXCEPTION 'now and then'; END IF;
    END $$;
    CREATE TABLE chained (source uuid, event_id uuid);
    CREATE FUNCTION invoice(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM record(e);
        INSERT INTO chained SELECT e.message_id::uuid, sea_mq.emit('invoice', e.aggregate_id, 'Invoiced', '{}');
    END $$;";

/// `witness` has a row for each transaction that committed.
const TRUTH: &str = "CREATE TABLE aggregates (context text, id bigint, n bigint NOT NULL, PRIMARY KEY (context, id));
    CREATE TABLE witness (key bigint PRIMARY KEY);";

/// Waits are shortened, so that a fault is got over within seconds; no promise hangs on them.
const SETTINGS: &[(&str, &str)] = &[
    ("shared_preload_libraries", "sea_mq"),
    ("sea_mq.ack_timeout", "3s"),
    ("sea_mq.reconnect_max", "1s"),
    ("max_worker_processes", "24"),
    ("max_prepared_transactions", "50"),
    ("log_checkpoints", "off"),
];

pub struct Scene {
    // The servers are dropped before their directory.
    pub cluster: Cluster,
    pub broker: Broker,
    pub proxy: Proxy,
    pub tls: bool,
    pub directory: Directory,
}

impl Scene {
    /// # Panics
    /// When it cannot be set up.
    pub async fn start(name: &str, tls: bool, settings: &[(&str, &str)]) -> Self {
        let directory = Directory::new(name);
        let certificates = tls.then(|| TestCertificates::new(directory.path()));
        let options = BrokerOptions { certificates: certificates.clone(), ..BrokerOptions::default() };
        let mut broker = Broker::new(&directory.path().join("nats"), options);
        broker.start().await;
        let proxy = Proxy::start(broker.port()).await;
        let mut cluster = Cluster::new(&directory.path().join("pg"), SETTINGS);
        let scheme = if tls { "tls" } else { "nats" };
        cluster.configure(&[("sea_mq.nats_url", &format!("{scheme}://127.0.0.1:{}", proxy.port()))]);
        if let Some(certificates) = certificates {
            cluster.configure(&[("sea_mq.nats_tls_ca_file", &certificates.certificate.display().to_string())]);
        }
        cluster.configure(settings);
        cluster.start().await;
        let scene = Self { cluster, broker, proxy, tls, directory };
        scene.fill().await;
        scene
    }

    async fn fill(&self) {
        for database in DATABASES {
            self.cluster.run(&format!("CREATE DATABASE {database}")).await;
            self.cluster.run(&format!("ALTER DATABASE {database} SET sea_mq.context = '{database}'")).await;
            let db = self.cluster.connect(database).await;
            db.run(&format!("CREATE EXTENSION sea_mq; {EFFECTS}")).await;
        }
        for producer in &PRODUCERS {
            let db = self.cluster.connect(producer.database).await;
            db.run(TRUTH).await;
            // The broker forgets ids so soon that it is no help against doubles. The second context's stream is made by its
            // first event.
            db.run(&format!("SELECT sea_mq.create_stream('{}', duplicate_window => '100 ms')", producer.contexts[0]))
                .await;
            for context in producer.contexts {
                let sql =
                    format!("INSERT INTO aggregates SELECT '{context}', n, 0 FROM generate_series(1, {AGGREGATES}) n");
                db.run(&sql).await;
            }
        }
        for Subscription { name, database, context, options, .. } in &SUBSCRIPTIONS {
            let db = self.cluster.connect(database).await;
            db.run(&format!(
                "SELECT sea_mq.subscribe('{name}', '{context}', start_from => 'all', max_deliver => -1, ack_wait => '10 s', {options})"
            ))
            .await;
        }
    }

    pub fn connector(&self, database: &str) -> Connector {
        self.cluster.connector("postgres", database)
    }

    /// Log files of the servers.
    pub fn logs(&self) -> Vec<PathBuf> {
        vec![self.cluster.log_path(), self.broker.log_path()]
    }
}

/// The stream of a context.
pub fn stream_of(context: &str) -> String {
    format!("{}_EVENTS", context.to_uppercase())
}

/// A connection, once the server takes some.
///
/// # Panics
/// When it does not within two minutes.
pub async fn connect(connector: &Connector) -> Database {
    until_some("a connection", LONG, async || connector.try_connect().await.ok()).await
}
