//! One cluster, one nats-server and one gateway for all tests, which go on beside each other under names of their own.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use harness::StageOptions;
use serde_json::Value;

pub const ROLES: [&str; 6] = ["producer", "consumer", "operator", "monitor", "viewer", "stranger"];

pub struct Shared {
    pub port: u16,
    pub database: String,
    pub url: String,
    pub admin_url: String,
    pub log: PathBuf,
    pub directory: PathBuf,
    pub tokens: HashMap<String, String>,
    /// Private key (PKCS 8) of the one key of the JWKS file, and its public part.
    pub key: (Vec<u8>, Vec<u8>),
}

/// The gateway's process; ended with the tests' one.
pub struct Gateway {
    pub child: Child,
    pub url: String,
    pub admin_url: String,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn command() -> Command {
    Command::new(env!("CARGO_BIN_EXE_sea-mq"))
}

/// Starts `sea-mq serve` on ports that the system chooses.
pub fn serve(database: &str, log: &PathBuf, more: &[&str]) -> Gateway {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", env!("CARGO_BIN_EXE_sea-mq"), "serve", "--database", database]);
    command.args(["--admin-listen", "127.0.0.1:0"]).args(more);
    if !more.contains(&"--listen") {
        command.args(["--listen", "127.0.0.1:0"]);
    }
    let log = fs::OpenOptions::new().create(true).append(true).open(log).expect("the log can be opened");
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().expect("it starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("it says where it is");
    let said: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
    let of = |key: &str| said[key].as_str().expect("a text").to_owned();
    Gateway { child, url: of("url"), admin_url: of("admin_url") }
}

static SHARED: OnceLock<Shared> = OnceLock::new();

pub fn shared() -> &'static Shared {
    SHARED.get_or_init(|| {
        let (sender, receiver) = std::sync::mpsc::channel();
        // The servers end with the thread that started them.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                // Some tests make databases of their own, each with its workers.
                let stage = StageOptions::default().setting("max_worker_processes", "48").start("gateway").await;
                stage.until_connected().await;
                let db = stage.connect().await;
                for role in ROLES {
                    db.run(&format!("CREATE ROLE t_{role}")).await;
                    if role != "stranger" {
                        db.run(&format!("GRANT sea_mq_{role} TO t_{role}")).await;
                    }
                }
                db.run("CREATE ROLE t_all; GRANT sea_mq_producer, sea_mq_consumer, sea_mq_operator, sea_mq_monitor TO t_all;
                    CREATE ROLE t_super SUPERUSER; CREATE ROLE t_brief; GRANT sea_mq_monitor TO t_brief;
                    CREATE ROLE sea_mq_gateway LOGIN NOINHERIT;
                    GRANT t_producer, t_consumer, t_operator, t_monitor, t_viewer, t_stranger, t_all, t_super, t_brief, sea_mq_viewer TO sea_mq_gateway;
                    GRANT CREATE ON SCHEMA public TO t_all, t_consumer;
                    SELECT sea_mq.create_stream('orders');")
                    .await;
                // Who logs in with the console proves a password; the cluster asks nobody else for one.
                db.run("CREATE ROLE t_person LOGIN PASSWORD 'secret'; CREATE ROLE t_trusted LOGIN PASSWORD 'secret';
                    GRANT sea_mq_operator, sea_mq_consumer TO t_person; GRANT t_person, t_trusted TO sea_mq_gateway").await;
                let hba: String = db.value("SHOW hba_file", &[]).await;
                let lines = fs::read_to_string(&hba).expect("readable");
                fs::write(&hba, format!("host all t_person 127.0.0.1/32 scram-sha-256\n{lines}")).expect("writable");
                db.run("SELECT pg_reload_conf()").await;
                let directory = stage.directory.path().to_owned();
                let url = stage.connector().url();
                let (tokens, lines) = tokens();
                fs::write(directory.join("tokens"), lines).expect("the tokens can be written");
                let key = key();
                let public = URL_SAFE_NO_PAD.encode(&key.1);
                let jwks = format!("{{\"keys\":[{{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"one\",\"alg\":\"EdDSA\",\"x\":\"{public}\"}}]}}");
                fs::write(directory.join("jwks.json"), jwks).expect("the keys can be written");
                let database = url.replace("postgres@", "sea_mq_gateway@").replace("user=postgres", "user=sea_mq_gateway");
                let log = directory.join("gateway.log");
                let (token_file, jwks) = (directory.join("tokens"), directory.join("jwks.json"));
                let more = ["--tokens", token_file.to_str().expect("a text"), "--jwks", jwks.to_str().expect("a text"),
                    "--jwt-issuer", "https://issuer.test", "--jwt-audience", "sea-mq"];
                let gateway = serve(&database, &log, &more);
                let port = url.rsplit_once("127.0.0.1:").map(|(_, rest)| rest).and_then(|rest| rest.split('/').next()?.parse().ok());
                let found = Shared { port: port.expect("a port"), database, url: gateway.url.clone(), admin_url: gateway.admin_url.clone(),
                    log, directory, tokens, key };
                sender.send(found).expect("somebody waits");
                std::future::pending::<()>().await;
                drop((stage, db, gateway));
            });
        });
        receiver.recv().expect("the servers start")
    })
}

/// An Ed25519 key.
pub fn key() -> (Vec<u8>, Vec<u8>) {
    use ring::signature::{Ed25519KeyPair, KeyPair};
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).expect("a key");
    let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).expect("a key");
    (pkcs8.as_ref().to_vec(), pair.public_key().as_ref().to_vec())
}

/// A token for each role, and the file that knows them.
fn tokens() -> (HashMap<String, String>, String) {
    let mut tokens = HashMap::new();
    let mut lines = String::new();
    for role in ROLES.into_iter().chain(["all", "super", "brief", "nobody"]) {
        let output =
            command().args(["token", "--role", &format!("t_{role}"), "--label", role]).output().expect("it runs");
        let made: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        tokens.insert(role.to_owned(), made["token"].as_str().expect("a token").to_owned());
        lines += made["line"].as_str().expect("a line");
        lines += "\n";
    }
    (tokens, lines)
}

impl Shared {
    pub fn db(&self) -> postgres::Client {
        self.connect(self.database.rsplit(['/', '=']).next().expect("a name"))
    }

    /// A database of its own with the extension, for what must see nothing of other tests.
    pub fn own_database(&self, name: &str) -> postgres::Client {
        self.db().batch_execute(&format!("CREATE DATABASE {name}")).expect("created");
        let mut db = self.connect(name);
        db.batch_execute("CREATE EXTENSION sea_mq").expect("installed");
        db
    }

    /// How a user connects to a database.
    pub fn address(&self, user: &str, database: &str) -> String {
        format!("host=127.0.0.1 port={} user={user} dbname={database}", self.port)
    }

    fn connect(&self, database: &str) -> postgres::Client {
        let config = self.address("postgres", database);
        postgres::Client::connect(&config, postgres::NoTls).unwrap_or_else(|error| panic!("{config}: {error}"))
    }
}

pub struct Answer {
    pub status: u16,
    pub headers: HashMap<String, String>,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{}: {error}", self.text))
    }
}

/// A request; `headers` has the token, if there is one.
pub fn ask(method: &str, url: &str, headers: &[(&str, &str)], body: Option<&str>) -> Answer {
    ask_following(method, url, headers, body, 5)
}

/// As [`ask`], and nothing is followed.
pub fn ask_once(method: &str, url: &str, headers: &[(&str, &str)], body: Option<&str>) -> Answer {
    ask_following(method, url, headers, body, 0)
}

fn ask_following(method: &str, url: &str, headers: &[(&str, &str)], body: Option<&str>, redirects: u32) -> Answer {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(redirects)
        .max_redirects_will_error(false)
        .timeout_global(Some(Duration::from_secs(30)))
        .build()
        .into();
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if body.is_some() && !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
        request = request.header("Content-Type", "application/json");
    }
    let request = request.body(body.unwrap_or_default().to_owned()).expect("a request");
    let mut response = agent.run(request).unwrap_or_else(|error| panic!("{method} {url}: {error}"));
    let headers = response
        .headers()
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().to_owned()))
        .collect();
    Answer { status: response.status().as_u16(), headers, text: response.body_mut().read_to_string().expect("a text") }
}

/// A request to the shared gateway as a role.
pub fn as_role(role: &str, method: &str, path: &str, body: Option<&Value>) -> Answer {
    let shared = shared();
    let token = format!("Bearer {}", shared.tokens[role]);
    ask(
        method,
        &format!("{}/v1{path}", shared.url),
        &[("Authorization", &token)],
        body.map(Value::to_string).as_deref(),
    )
}

/// A name that nobody else has.
pub fn name(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("{prefix}{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
