//! The servers and what is in them: two databases that emit, subscriptions in one of them and in a third.

use std::path::{Path, PathBuf};

use harness::{
    Broker, BrokerOptions, Cluster, Connector, Database, Directory, TestCertificates, make_for_server, until_some,
};

use crate::LONG;
use crate::disk::Disk;
use crate::partner::{self, Partner};
use crate::proxy::{Proxy, Weather};
use crate::routes::Routes;

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
    "CREATE TABLE effects (place bigint GENERATED ALWAYS AS IDENTITY, subscription text, message_id uuid, attempt int,
        stream_seq bigint, at timestamptz DEFAULT clock_timestamp());
    CREATE FUNCTION record(e sea_mq.event) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO effects (subscription, message_id, attempt, stream_seq)
        VALUES (e.subscription, e.message_id::uuid, e.attempt, e.stream_seq);
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

/// Dead letters of long ago about which somebody has decided: nothing is to get slower by them.
const LETTERS: &str =
    "INSERT INTO sea_mq.dlq_messages (context, original_subject, subscription, message_id, payload, headers,
        reason, failure_count, dlq_message_id, discarded_at, discard_reason, discarded_by)
    SELECT 'orders', 'orders.event.order_lost.v1', 'sink__orders', 'lost-' || n, '{}', '{}', 'poison', 1, 'dead-' || n,
        clock_timestamp(), 'long ago', 'postgres'
    FROM generate_series(1, 30000) n";

/// Waits are shortened, so that a fault is got over within seconds; no promise hangs on them.
const SETTINGS: &[(&str, &str)] = &[
    ("shared_preload_libraries", "sea_mq"),
    ("sea_mq.ack_timeout", "3s"),
    ("sea_mq.reconnect_max", "1s"),
    ("sea_mq.endpoint_allow_http", "on"),
    ("sea_mq.endpoint_allowed_networks", "127.0.0.0/8"),
    ("max_worker_processes", "24"),
    ("max_prepared_transactions", "50"),
    ("max_wal_size", "128MB"),
    ("log_checkpoints", "off"),
];

/// What the broker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broking {
    /// One nats-server.
    One,
    /// One that demands TLS.
    Tls,
    /// Three, and each stream has three replicas.
    Three,
    /// Three of [`OLDER`], which are upgraded. One stream has no replicas, and one has atomic batches.
    Older,
}

/// The nats-server that an upgrade begins with.
pub const OLDER: &str = "2.12";
/// And the one that it ends with.
pub const NEWEST: &str = "2.15";

impl Broking {
    /// Whether it is several nats-servers.
    pub fn is_cluster(self) -> bool {
        matches!(self, Self::Three | Self::Older)
    }

    /// What is said of a stream, by the number of its context among its producer's. `None`: its first event describes it.
    fn stream(self, number: usize) -> Option<&'static str> {
        match (self, number) {
            (Self::One | Self::Tls, 0) | (Self::Older, 1) => Some("replicas => 1"),
            (Self::One | Self::Tls, _) => None,
            (Self::Three, _) => Some("replicas => 3"),
            (Self::Older, _) => Some("replicas => 3, atomic_transactions => true"),
        }
    }
}

pub struct Scene {
    // The servers are dropped before their directory.
    pub cluster: Cluster,
    pub brokers: Vec<Broker>,
    /// Gets the events of one context over HTTP.
    pub partner: Partner,
    /// One for each of the brokers.
    proxies: Vec<Proxy>,
    /// Between them, if there are several.
    pub routes: Routes,
    /// What PostgreSQL, the only broker and PostgreSQL's temporary files are on, if they are to be filled and that is permitted.
    pub disks: Option<[Disk; 3]>,
    pub directory: Directory,
}

impl Scene {
    /// # Panics
    /// When it cannot be set up.
    pub async fn start(name: &str, broking: Broking, disks: bool, settings: &[(&str, &str)]) -> Self {
        let directory = Directory::new(name);
        let [pg, nats, temporary] = ["pg-disk", "nats-disk", "temporary-disk"].map(|disk| directory.path().join(disk));
        // Each node keeps its messages twice, in the stream and in the log that the nodes agree by.
        let nats_megabytes = if broking.is_cluster() { 6 * 400 } else { 400 };
        let mount = || Some([Disk::new(&pg, 600)?, Disk::new(&nats, nats_megabytes)?, Disk::new(&temporary, 16)?]);
        let disks = if disks { mount() } else { None };
        let (pg, nats) = if disks.is_some() { (&*pg, &*nats) } else { (directory.path(), directory.path()) };
        let certificates = (broking == Broking::Tls).then(|| TestCertificates::new(directory.path()));
        let (brokers, routes) = start_brokers(nats, broking, certificates.as_ref()).await;
        let mut proxies = Vec::new();
        for broker in &brokers {
            proxies.push(Proxy::start(broker.port()).await);
        }
        let mut cluster = Cluster::new(&pg.join("pg"), SETTINGS);
        let scheme = if certificates.is_some() { "tls" } else { "nats" };
        let urls: Vec<String> = proxies.iter().map(|proxy| format!("{scheme}://127.0.0.1:{}", proxy.port())).collect();
        cluster.configure(&[("sea_mq.nats_url", &urls.join(","))]);
        if let Some(certificates) = certificates {
            cluster.configure(&[("sea_mq.nats_tls_ca_file", &certificates.certificate.display().to_string())]);
        }
        cluster.configure(settings);
        cluster.keep_own_time();
        cluster.start().await;
        let partner = Partner::start().await;
        let scene = Self { cluster, brokers, partner, proxies, routes, disks, directory };
        if scene.disks.is_some() {
            scene.put_temporary_files(&temporary.join("space")).await;
        }
        scene.fill(broking).await;
        scene
    }

    async fn put_temporary_files(&self, path: &Path) {
        make_for_server(path);
        self.cluster.run(&format!("CREATE TABLESPACE temporary LOCATION '{}'", path.display())).await;
        self.cluster.configure(&[("temp_tablespaces", "temporary")]);
        self.cluster.reload();
    }

    /// How much room a session has for temporary files. A server that is down learns of it at its start.
    pub fn limit_space(&self, limit: Option<&str>) {
        self.cluster.configure(&[("temp_file_limit", limit.unwrap_or("-1"))]);
        self.cluster.reload();
    }

    async fn fill(&self, broking: Broking) {
        for database in DATABASES {
            self.cluster.run(&format!("CREATE DATABASE {database}")).await;
            self.cluster.run(&format!("ALTER DATABASE {database} SET sea_mq.context = '{database}'")).await;
            let db = self.cluster.connect(database).await;
            db.run(&format!("CREATE EXTENSION sea_mq; {EFFECTS}")).await;
        }
        for producer in &PRODUCERS {
            let db = self.cluster.connect(producer.database).await;
            db.run(TRUTH).await;
            for (number, context) in producer.contexts.iter().enumerate() {
                // The broker forgets ids so soon that it is no help against doubles.
                if let Some(options) = broking.stream(number) {
                    let options = format!("duplicate_window => '100 ms', {options}");
                    db.run(&format!("SELECT sea_mq.create_stream('{context}', {options})")).await;
                }
                let sql =
                    format!("INSERT INTO aggregates SELECT '{context}', n, 0 FROM generate_series(1, {AGGREGATES}) n");
                db.run(&sql).await;
            }
        }
        self.cluster.connect(SINK).await.run(LETTERS).await;
        self.partner.describe(&self.cluster.connect(partner::DATABASE).await).await;
        for Subscription { name, database, context, options, .. } in &SUBSCRIPTIONS {
            let db = self.cluster.connect(database).await;
            db.run(&format!(
                "SELECT sea_mq.subscribe('{name}', '{context}', start_from => 'all', max_deliver => -1, ack_wait => '5 s', {options})"
            ))
            .await;
        }
    }

    pub fn connector(&self, database: &str) -> Connector {
        self.cluster.connector("postgres", database)
    }

    /// A broker that runs: of several, any.
    ///
    /// # Panics
    /// When none does.
    pub fn broker(&self) -> &Broker {
        self.brokers.iter().find(|broker| broker.is_running()).expect("no nats-server runs")
    }

    /// Of the brokers, the one that leads the first stream.
    pub async fn leader(&self) -> usize {
        let stream = self.broker().stream(&stream_of(PRODUCERS[0].contexts[0])).await;
        let leader = stream.and_then(|stream| stream.cached_info().cluster.as_ref()?.leader.clone());
        (0..self.brokers.len()).find(|number| leader.as_deref() == Some(&server_name(*number))).unwrap_or(0)
    }

    /// Whether all replicas of all streams have what their leaders have.
    pub async fn is_replicated(&self) -> bool {
        for context in PRODUCERS.iter().flat_map(|producer| producer.contexts) {
            let Some(stream) = self.broker().stream(&stream_of(context)).await else { return false };
            let Some(cluster) = &stream.cached_info().cluster else { return false };
            if cluster.leader.is_none() || !cluster.replicas.iter().all(|replica| replica.current && !replica.offline) {
                return false;
            }
        }
        true
    }

    /// The network between PostgreSQL and all of the brokers.
    pub fn set_weather(&self, weather: Weather) {
        self.proxies.iter().for_each(|proxy| proxy.set(weather));
    }

    /// Log files of the servers.
    pub fn logs(&self) -> Vec<PathBuf> {
        std::iter::once(self.cluster.log_path()).chain(self.brokers.iter().map(Broker::log_path)).collect()
    }
}

fn server_name(number: usize) -> String {
    format!("nats-{number}")
}

async fn start_brokers(directory: &Path, broking: Broking, tls: Option<&TestCertificates>) -> (Vec<Broker>, Routes) {
    let count = if broking.is_cluster() { 3 } else { 1 };
    let routes = Routes::start(count).await;
    let broker = |number| {
        let minor = (broking == Broking::Older).then_some(OLDER);
        let mut options = BrokerOptions { certificates: tls.cloned(), minor, ..BrokerOptions::default() };
        if count > 1 {
            options.server_name = Some(server_name(number));
            // Shorter than 30 s it cannot be; most of it is waiting for clients to go by themselves.
            let retiring = "lame_duck_duration: \"30s\", lame_duck_grace_period: \"5s\"";
            options.configuration = format!("{}\n{retiring}", routes.configuration(number));
        }
        Broker::new(&directory.join(server_name(number)), options)
    };
    let mut brokers: Vec<Broker> = (0..count).map(broker).collect();
    brokers.iter_mut().for_each(Broker::launch);
    for broker in &mut brokers {
        broker.until_ready().await;
    }
    (brokers, routes)
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
