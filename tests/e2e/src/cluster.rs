use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::clock::Clock;
use crate::database::{Connector, Database};
use crate::process::{self, Process};
use crate::{Port, until, until_some};

/// A PostgreSQL cluster. Dropped, it is stopped at once (as by an immediate shutdown).
pub struct Cluster {
    directory: PathBuf,
    port: Port,
    server: Option<Process>,
    clock: Option<Clock>,
}

/// What every test cluster has. fsync is off: that matters for a machine that loses power, and here only processes
/// die; what a process has not written yet is lost all the same.
const SETTINGS: &[(&str, &str)] = &[
    ("listen_addresses", "127.0.0.1"),
    ("unix_socket_directories", ""),
    ("fsync", "off"),
    ("jit", "off"),
    ("max_prepared_transactions", "20"),
    ("max_worker_processes", "16"),
    ("max_wal_size", "4GB"),
    ("restart_after_crash", "on"),
    ("log_line_prefix", "%m [%p] %b "),
];

const STARTING: Duration = Duration::from_secs(60);

impl Cluster {
    /// Makes a cluster in `directory`, which must not exist, and does not start it.
    pub fn new(directory: &Path, settings: &[(&str, &str)]) -> Self {
        fs::create_dir(directory).unwrap_or_else(|error| panic!("cannot make {}: {error}", directory.display()));
        process::give(directory);
        let data = directory.join("data");
        process::run(
            process::command(&binary("initdb"))
                .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"])
                .arg("--pgdata")
                .arg(&data),
        );
        let cluster = Self { directory: directory.to_owned(), port: Port::claim(), server: None, clock: None };
        cluster.configure(SETTINGS);
        cluster.configure(settings);
        cluster
    }

    /// From the next start on it has a clock of its own.
    ///
    /// # Panics
    /// As [`Clock::new`].
    pub fn keep_own_time(&mut self) {
        self.clock = Some(Clock::new(&self.directory));
    }

    /// Its own clock.
    ///
    /// # Panics
    /// When it has none.
    pub fn clock(&self) -> &Clock {
        self.clock.as_ref().expect("it was told to keep its own time")
    }

    /// Adds settings to postgresql.conf; a later one of the same name counts. A running server has to be told.
    pub fn configure(&self, settings: &[(&str, &str)]) {
        let path = self.data().join("postgresql.conf");
        let mut file = fs::OpenOptions::new().append(true).open(path).expect("cannot open postgresql.conf");
        for (name, value) in settings {
            writeln!(file, "{name} = '{}'", value.replace('\'', "''")).expect("cannot write postgresql.conf");
        }
    }

    /// Tells a running server to read its configuration anew. A frozen one does when it goes on.
    pub fn reload(&self) {
        if let Some(server) = &self.server {
            server.signal(Signal::HUP);
        }
    }

    /// Starts the server, on the same port every time, and waits until it takes connections.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start(&mut self) {
        // With backtraces an error that passes Rust costs a tenth of a second.
        let environment =
            ["RUST_BACKTRACE=0".to_owned()].into_iter().chain(self.clock.iter().flat_map(Clock::environment));
        let command = [binary("postgres").display().to_string(), "-D".into(), self.data().display().to_string()];
        let port = ["-p".into(), self.port.number().to_string()];
        let arguments: Vec<String> = environment.chain(command).chain(port).collect();
        // SIGQUIT ends the server and all its children; they would notice the end of a killed one only later.
        let mut server = Process::start(Path::new("env"), &arguments, true, Signal::QUIT, &self.log_path());
        until("the server takes connections", STARTING, async || {
            assert!(!server.has_ended(), "the server did not start:\n{}", process::tail(&self.log_path(), 20));
            self.connector("postgres", "postgres").try_connect().await.is_ok()
        })
        .await;
        self.server = Some(server);
    }

    /// Fast shutdown: sessions are ended, workers finish, a checkpoint is written.
    ///
    /// # Panics
    /// When it takes longer than a minute.
    pub fn stop(&mut self) {
        self.end(Signal::INT);
    }

    /// Immediate shutdown: what is not on disk is lost, and the next start recovers.
    pub fn crash(&mut self) {
        self.end(Signal::QUIT);
    }

    /// SIGKILL for the postmaster: nobody tells its children. Returns when they have noticed and are gone, since no server
    /// starts on their shared memory before.
    ///
    /// # Panics
    /// When they stay for longer than a minute.
    pub fn kill(&mut self) {
        let Some(server) = &self.server else { return };
        let children = process::children(server.pid());
        self.end(Signal::KILL);
        let gone = || children.iter().all(|pid| !Path::new("/proc").join(pid.to_string()).exists());
        assert!(process::wait_until(Duration::from_secs(60), gone), "the killed server's children do not end");
    }

    /// Starts the server if it has ended by itself.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub async fn revive(&mut self) {
        if self.server.as_mut().is_none_or(Process::has_ended) {
            self.server = None;
            self.start().await;
        }
    }

    /// The running server's processes: the postmaster and its children; none when it does not run.
    pub fn processes(&self) -> Vec<i32> {
        let Some(server) = &self.server else { return Vec::new() };
        std::iter::once(server.pid()).chain(process::children(server.pid())).collect()
    }

    fn end(&mut self, signal: Signal) {
        if let Some(mut server) = self.server.take() {
            server.signal(signal);
            assert!(server.wait(Duration::from_secs(60)), "the server does not stop");
        }
    }

    /// A connection as the superuser.
    ///
    /// # Panics
    /// When it cannot be made within half a minute; a server that recovers from a crash refuses connections for a while.
    pub async fn connect(&self, database: &str) -> Database {
        self.connect_as("postgres", database).await
    }

    /// A connection as `user`.
    ///
    /// # Panics
    /// As [`Self::connect`].
    pub async fn connect_as(&self, user: &str, database: &str) -> Database {
        until_some(&format!("a connection to {database}"), Duration::from_secs(30), async || {
            self.connector(user, database).try_connect().await.ok()
        })
        .await
    }

    pub fn connector(&self, user: &str, database: &str) -> Connector {
        Connector { port: self.port.number(), user: user.to_owned(), database: database.to_owned() }
    }

    /// Runs a statement outside a transaction in the database `postgres`.
    pub async fn run(&self, sql: &str) {
        self.connect("postgres").await.run(sql).await;
    }

    /// The server's log so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_path()).unwrap_or_default()).into_owned()
    }

    /// pg_dump of one database of this cluster, restored into an existing empty database of another (or of this).
    ///
    /// # Panics
    /// When either fails.
    pub fn copy_database(&self, from: &str, to_cluster: &Cluster, to: &str) {
        let port = self.port.number().to_string();
        let dump = self.directory.join("dump.sql");
        let file = fs::File::create(&dump).expect("cannot make the dump's file");
        let pg_dump = std::env::var_os("SEA_MQ_PG_DUMP").map_or_else(|| binary("pg_dump"), PathBuf::from);
        let status = Command::new(pg_dump)
            .args(["-h", "127.0.0.1", "-p", &port, "-U", "postgres", from])
            .stdout(file)
            .status()
            .expect("cannot run pg_dump");
        assert!(status.success(), "pg_dump failed");
        let port = to_cluster.port.number().to_string();
        process::run(
            Command::new(binary("psql"))
                .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-d", to])
                .arg("-f")
                .arg(&dump)
                .stdin(Stdio::null()),
        );
    }

    /// Copies the data directory of a stopped cluster: the copy has the same system identifier.
    ///
    /// # Panics
    /// When this cluster runs, or the copy fails.
    pub fn clone_to(&self, directory: &Path) -> Self {
        assert!(self.server.is_none(), "a running cluster cannot be copied");
        process::run(Command::new("cp").arg("-a").arg(&self.directory).arg(directory));
        Self { directory: directory.to_owned(), port: Port::claim(), server: None, clock: None }
    }

    /// A copy of the data directory of this running cluster, as `pg_basebackup` makes it; not started.
    ///
    /// # Panics
    /// When that fails.
    pub fn base_backup(&self, directory: &Path) -> Self {
        fs::create_dir(directory).unwrap_or_else(|error| panic!("cannot make {}: {error}", directory.display()));
        process::give(directory);
        process::run(
            process::command(&binary("pg_basebackup"))
                .args(["-h", "127.0.0.1", "-U", "postgres", "-X", "stream", "-c", "fast", "--no-sync", "-p"])
                .arg(self.port.number().to_string())
                .arg("-D")
                .arg(directory.join("data")),
        );
        Self { directory: directory.to_owned(), port: Port::claim(), server: None, clock: None }
    }

    /// From the next start on, a standby of `primary` that names itself `standby`.
    ///
    /// # Panics
    /// When its directory cannot be written to.
    pub fn follow(&self, primary: &Self) {
        let primary = format!("host=127.0.0.1 port={} user=postgres application_name=standby", primary.port.number());
        self.configure(&[("primary_conninfo", &primary)]);
        fs::write(self.data().join("standby.signal"), "").expect("cannot write standby.signal");
    }

    /// From the next start on, this backup is brought forward to a restore point of `original`.
    ///
    /// # Panics
    /// When its directory cannot be written to.
    pub fn recover(&self, original: &Self, restore_point: &str) {
        let restore = format!("cp {}/pg_wal/%f %p", original.data().display());
        self.configure(&[
            ("restore_command", &restore),
            ("recovery_target_name", restore_point),
            ("recovery_target_action", "promote"),
        ]);
        fs::write(self.data().join("recovery.signal"), "").expect("cannot write recovery.signal");
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// The server's log file.
    pub fn log_path(&self) -> PathBuf {
        self.directory.join("server.log")
    }
}

/// A program of the installation under test.
fn binary(name: &str) -> PathBuf {
    static BIN: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    BIN.get_or_init(|| {
        let pg_config = std::env::var_os("SEA_MQ_PG_CONFIG")
            .map_or_else(|| workspace().join(".dev/pg15/usr/lib/postgresql/15/bin/pg_config"), PathBuf::from);
        PathBuf::from(process::run(Command::new(pg_config).arg("--bindir")).trim())
    })
    .join(name)
}

pub fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}
