use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, stream::Stream};
use rustix::process::Signal;

use crate::process::{self, Process};
use crate::stored::{Stored, read};
use crate::wait::PAUSE;
use crate::{Port, until_some};

/// How a test's nats-server differs from a plain one.
#[derive(Clone, Default)]
pub struct BrokerOptions {
    /// Lines for the server's configuration, such as `authorization { … }` or `max_payload: 10000`.
    pub configuration: String,
    /// Settings of JetStream, such as `limits: { max_ack_pending: 10 }`.
    pub jetstream: String,
    /// User and password with which the test itself connects, where the configuration demands them.
    pub login: Option<(String, String)>,
    /// Token with which the test itself connects, likewise.
    pub token: Option<String>,
    /// Content of a `.creds` file with which the test itself connects, likewise.
    pub credentials: Option<String>,
    /// The minor of nats-server, such as `2.11`; the one that the tests run with unless told.
    pub minor: Option<&'static str>,
    /// Name in a cluster; the configuration has the rest of it.
    pub server_name: Option<String>,
    /// Clients must use TLS with this certificate.
    pub certificates: Option<TestCertificates>,
    /// The handshake comes first.
    pub tls_first: bool,
}

/// A certificate for 127.0.0.1 and localhost that is its own authority, made for one test.
#[derive(Clone)]
pub struct TestCertificates {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl TestCertificates {
    /// # Panics
    /// When `openssl` fails.
    pub fn new(directory: &Path) -> Self {
        Self::for_days(directory, 30)
    }

    /// One that is good for so many days.
    ///
    /// # Panics
    /// As [`Self::new`].
    pub fn for_days(directory: &Path, days: u32) -> Self {
        let (certificate, key) = (directory.join("certificate.pem"), directory.join("key.pem"));
        process::run(
            Command::new("openssl")
                .args([
                    "req",
                    "-x509",
                    "-newkey",
                    "ec",
                    "-pkeyopt",
                    "ec_paramgen_curve:prime256v1",
                    "-nodes",
                    "-days",
                    &days.to_string(),
                ])
                .args(["-subj", "/CN=sea_mq test", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
                // An authority's certificate is not accepted as a server's.
                .args(["-addext", "basicConstraints=critical,CA:FALSE"])
                .arg("-keyout")
                .arg(&key)
                .arg("-out")
                .arg(&certificate),
        );
        Self { certificate, key }
    }
}

/// A nats-server with JetStream. It keeps its port and its store when it is stopped and started again.
pub struct Broker {
    directory: PathBuf,
    port: Port,
    options: BrokerOptions,
    server: Option<Process>,
    client: tokio::sync::OnceCell<async_nats::Client>,
}

const STARTING: Duration = Duration::from_secs(30);

impl Broker {
    /// Prepares a server in `directory` on a free port and does not start it.
    pub fn new(directory: &Path, options: BrokerOptions) -> Self {
        fs::create_dir_all(directory).unwrap_or_else(|error| panic!("cannot make {}: {error}", directory.display()));
        Self {
            directory: directory.to_owned(),
            port: Port::claim(),
            options,
            server: None,
            client: tokio::sync::OnceCell::new(),
        }
    }

    /// The port that it listens on when it runs.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The server's log file.
    pub fn log_path(&self) -> PathBuf {
        self.directory.join("server.log")
    }

    pub fn url(&self) -> String {
        let scheme = if self.options.certificates.is_some() { "tls" } else { "nats" };
        format!("{scheme}://127.0.0.1:{}", self.port())
    }

    /// The process of the running server.
    ///
    /// # Panics
    /// When it is not running.
    pub fn pid(&self) -> i32 {
        self.server.as_ref().expect("nats-server is not running").pid()
    }

    /// Starts the server and waits until JetStream answers.
    ///
    /// # Panics
    /// When it does not.
    pub async fn start(&mut self) {
        self.launch();
        self.until_ready().await;
    }

    /// Starts the server: one of a cluster answers only when others are there.
    ///
    /// # Panics
    /// When its configuration cannot be written.
    pub fn launch(&mut self) {
        let configuration = self.write_configuration();
        let arguments = ["--config".into(), configuration.display().to_string()];
        self.server =
            Some(Process::start(&nats_server(self.options.minor), &arguments, false, Signal::KILL, &self.log_path()));
    }

    fn write_configuration(&self) -> PathBuf {
        let configuration = self.directory.join("nats.conf");
        let tls = self.options.certificates.as_ref().map_or_else(String::new, |tls| {
            format!(
                "tls {{ cert_file: \"{}\", key_file: \"{}\", handshake_first: {} }}\n",
                tls.certificate.display(),
                tls.key.display(),
                self.options.tls_first
            )
        });
        // The size of the store is bookkeeping: a stream's limit is reserved in it, whatever the disk has.
        let text = format!(
            "listen: \"127.0.0.1:{}\"\nserver_name: \"{}\"\njetstream {{ store_dir: \"{}\", max_file_store: 1TB\n{} }}\n{tls}{}\n",
            self.port(),
            self.options.server_name.as_deref().unwrap_or("test"),
            self.directory.join("store").display(),
            self.options.jetstream,
            self.options.configuration
        );
        fs::write(&configuration, text).expect("cannot write nats.conf");
        configuration
    }

    /// Waits until JetStream of the launched server answers.
    ///
    /// # Panics
    /// When it does not.
    pub async fn until_ready(&mut self) {
        let mut server = self.server.take().expect("nats-server was not launched");
        let client = until_some("nats-server answers", STARTING, async || {
            assert!(!server.has_ended(), "nats-server did not start:\n{}", process::tail(&self.log_path(), 20));
            let client = self.connect().await?;
            // The port is open before JetStream is ready.
            jetstream::new(client.clone()).query_account().await.ok()?;
            Some(client)
        })
        .await;
        self.server = Some(server);
        self.client = tokio::sync::OnceCell::new_with(Some(client));
    }

    pub fn is_running(&self) -> bool {
        self.server.is_some()
    }

    async fn connect(&self) -> Option<async_nats::Client> {
        let mut options = async_nats::ConnectOptions::new();
        if let Some((user, password)) = &self.options.login {
            options = options.user_and_password(user.clone(), password.clone());
        }
        if let Some(token) = &self.options.token {
            options = options.token(token.clone());
        }
        if let Some(credentials) = &self.options.credentials {
            options = options.credentials(credentials).ok()?;
        }
        if let Some(tls) = &self.options.certificates {
            options = options.add_root_certificates(tls.certificate.clone());
            if self.options.tls_first {
                options = options.tls_first();
            }
        }
        options.connect(self.url()).await.ok()
    }

    /// Another configuration, from the next start on.
    pub fn configure(&mut self, configuration: &str) {
        self.options.configuration = configuration.to_owned();
    }

    /// Another minor of nats-server, from the next start on.
    pub fn replace(&mut self, minor: &'static str) {
        self.options.minor = Some(minor);
    }

    /// Other settings of JetStream, from the next start on.
    pub fn limit(&mut self, jetstream: &str) {
        self.options.jetstream = jetstream.to_owned();
    }

    /// SIGHUP, after another configuration was written.
    ///
    /// # Panics
    /// When it is not running, or its configuration cannot be written.
    pub fn reload(&mut self, configuration: &str) {
        self.configure(configuration);
        self.write_configuration();
        self.server.as_ref().expect("nats-server is not running").signal(Signal::HUP);
    }

    /// SIGTERM: it goes away in order.
    pub fn stop(&mut self) {
        self.end(Signal::TERM);
    }

    /// SIGUSR2, "lame duck": it hands over what it leads, takes no more clients, sends away those that it has, and ends.
    pub fn retire(&mut self) {
        self.end(Signal::USR2);
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.end(Signal::KILL);
    }

    fn end(&mut self, signal: Signal) {
        self.client = tokio::sync::OnceCell::new();
        if let Some(mut server) = self.server.take() {
            server.signal(signal);
            assert!(server.wait(Duration::from_secs(60)), "nats-server does not stop");
        }
    }

    /// Throws all streams away; the server must be stopped.
    ///
    /// # Panics
    /// When it runs.
    pub fn forget_everything(&mut self) {
        assert!(self.server.is_none(), "the server runs");
        let _ = fs::remove_dir_all(self.directory.join("store"));
    }

    /// Copies all that it stores; the server must be stopped.
    ///
    /// # Panics
    /// When it runs, or the copy fails.
    pub fn remember(&self) {
        self.copy("store", "copy");
    }

    /// Goes back to what [`Self::remember`] copied last; the server must be stopped.
    ///
    /// # Panics
    /// As [`Self::remember`].
    pub fn go_back(&self) {
        self.copy("copy", "store");
    }

    fn copy(&self, from: &str, to: &str) {
        assert!(self.server.is_none(), "the server runs");
        let _ = fs::remove_dir_all(self.directory.join(to));
        process::run(Command::new("cp").arg("-a").arg(self.directory.join(from)).arg(self.directory.join(to)));
    }

    /// JetStream of the running server.
    ///
    /// # Panics
    /// When the server is not running.
    pub fn jetstream(&self) -> jetstream::Context {
        jetstream::new(self.client.get().expect("nats-server is not running").clone())
    }

    /// A stream; `None` if there is none of that name.
    pub async fn stream(&self, name: &str) -> Option<Stream> {
        self.jetstream().get_stream(name).await.ok()
    }

    /// How many messages a stream holds; 0 if there is no such stream.
    pub async fn count(&self, name: &str) -> u64 {
        match self.stream(name).await {
            Some(stream) => stream.cached_info().state.messages,
            None => 0,
        }
    }

    /// Waits until a stream holds at least `count` messages.
    ///
    /// # Panics
    /// When it does not within `limit`.
    pub async fn until_count(&self, name: &str, count: u64, limit: Duration) {
        let begin = Instant::now();
        loop {
            let now = self.count(name).await;
            if now >= count {
                return;
            }
            assert!(begin.elapsed() < limit, "waited {limit:?} in vain for {count} messages in {name}: it has {now}");
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// All that a stream holds, in its order; nothing if there is no such stream.
    ///
    /// # Panics
    /// When the broker goes away meanwhile.
    pub async fn stored(&self, name: &str) -> Vec<Stored> {
        let mut all = Vec::new();
        self.for_each_stored(name, |message| all.push(message)).await;
        all
    }

    /// As [`Self::stored`], in constant memory.
    ///
    /// # Panics
    /// As [`Self::stored`].
    pub async fn for_each_stored(&self, name: &str, take: impl FnMut(Stored)) {
        if let Some(stream) = self.stream(name).await {
            read(&stream, 1, take).await.unwrap_or_else(|error| panic!("cannot read {name}: {error}"));
        }
    }
}

fn nats_server(minor: Option<&str>) -> PathBuf {
    let variable = |name| std::env::var(name).ok();
    let minor = minor.map(str::to_owned).or_else(|| variable("SEA_MQ_NATS_MINOR"));
    let (Some(minor), Some(folder)) = (minor, variable("SEA_MQ_NATS_DIR")) else { return PathBuf::from("nats-server") };
    Path::new(&folder).join(format!("nats-{minor}/bin/nats-server"))
}
