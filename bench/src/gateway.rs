//! `sea-mq serve` in front of a database: reads, events and batches over HTTP, metrics, tails, and what it adds to the same
//! statement sent directly.
//!
//! Clients are threads with a connection each, which they keep. Percentiles are of single requests, from before the request is
//! written until its answer was read.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use harness::{Database, Stage, resident_bytes};
use serde_json::{Map, Value, json};
use ureq::Agent;

use crate::figures::{Series, whole};
use crate::report::{Measured, Row};
use crate::{Options, Outcome, say, workload};

/// The server's process; ended with the run.
struct Gateway {
    child: Child,
    url: String,
    admin_url: String,
    token: String,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command() -> Outcome<PathBuf> {
    let beside = std::env::current_exe()?.with_file_name("sea-mq");
    if beside.exists() {
        Ok(beside)
    } else {
        Err(format!("{} is not there; make bench builds it", beside.display()).into())
    }
}

fn serve(database: &str, directory: &Path) -> Outcome<Gateway> {
    let made = Command::new(command()?).args(["token", "--role", "bench", "--label", "bench"]).output()?;
    let made: Value = serde_json::from_slice(&made.stdout)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let tokens = directory.join("tokens");
    std::fs::write(&tokens, text(&made["line"]))?;
    let log = std::fs::File::create(directory.join("gateway.log"))?;
    let mut child = Command::new(command()?)
        .args(["serve", "--database", database, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--tokens"])
        .arg(tokens)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
    let said: Value = serde_json::from_str(&line)?;
    Ok(Gateway { child, url: text(&said["url"]), admin_url: text(&said["admin_url"]), token: text(&made["token"]) })
}

/// One client: a connection that is kept.
struct Client {
    agent: Agent,
    bearer: String,
}

impl Client {
    fn new(gateway: &Gateway) -> Self {
        Self { agent: Agent::new_with_defaults(), bearer: format!("Bearer {}", gateway.token) }
    }

    /// Milliseconds until the answer was read.
    fn get(&self, url: &str) -> Outcome<f64> {
        let began = Instant::now();
        self.agent.get(url).header("Authorization", &self.bearer).call()?.body_mut().read_to_vec()?;
        Ok(began.elapsed().as_secs_f64() * 1000.0)
    }

    fn post(&self, url: &str, body: &str) -> Outcome<f64> {
        let began = Instant::now();
        let request =
            self.agent.post(url).header("Authorization", &self.bearer).header("Content-Type", "application/json");
        request.send(body)?.body_mut().read_to_vec()?;
        Ok(began.elapsed().as_secs_f64() * 1000.0)
    }
}

/// What so many clients do over and over for so many seconds: milliseconds of each request, and requests per second.
fn load(
    gateway: &Gateway,
    clients: u32,
    seconds: u32,
    ask: impl Fn(&Client) -> Outcome<f64> + Sync,
) -> Outcome<(Series, f64)> {
    let began = Instant::now();
    let until = began + Duration::from_secs(seconds.into());
    let all: Vec<Outcome<Vec<f64>>> = std::thread::scope(|scope| {
        let one = || {
            let client = Client::new(gateway);
            let mut taken = Vec::new();
            while Instant::now() < until {
                taken.push(ask(&client)?);
            }
            Ok(taken)
        };
        let threads: Vec<_> = (0..clients).map(|_| scope.spawn(one)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err("a client panicked".into()))).collect()
    });
    let mut taken = Vec::new();
    for part in all {
        taken.extend(part?);
    }
    let rate = taken.len() as f64 / began.elapsed().as_secs_f64();
    Ok((taken.into_iter().collect(), rate))
}

fn event(number: u32) -> Value {
    json!({ "aggregate_type": "order", "aggregate_id": number % 100, "event_type": "OrderCreated",
        "payload": { "order": number, "customer": "Ada", "total": 42.5 }, "context": "orders" })
}

/// # Errors
/// When something breaks; never because of a slow figure.
pub async fn measure(options: &Options) -> Outcome<Measured> {
    let stage = workload::stage("gateway").await;
    let db = stage.connect().await;
    db.run(
        "CREATE ROLE bench; GRANT sea_mq_producer, sea_mq_consumer, sea_mq_operator, sea_mq_monitor TO bench;
         CREATE ROLE sea_mq_gateway LOGIN NOINHERIT; GRANT bench, sea_mq_viewer TO sea_mq_gateway;
         SELECT count(sea_mq.create_stream('c' || n, managed => false)) FROM generate_series(1, 100) n;
         SELECT count(sea_mq.subscribe('bench__s' || n, 'elsewhere')) FROM generate_series(1, 100) n",
    )
    .await;
    let database = stage.connector().url().replace("postgres@", "sea_mq_gateway@");
    let gateway = serve(&database, stage.directory.path())?;
    let mut found = Found::default();
    reads(&gateway, &db, options, &mut found).await?;
    events(&gateway, options, &mut found)?;
    while_it_drains(&gateway, &stage, options, &mut found).await?;
    tails(&gateway, options, &mut found)?;
    let megabytes = resident_bytes(i32::try_from(gateway.child.id())?) as f64 / f64::from(1 << 20);
    found.add(
        "memory",
        Row::new("resident", format!("{megabytes:.0} MiB"), String::new()).expecting("≤ 64 MiB"),
        json!(megabytes),
    );
    let title = "sea-mq serve".to_owned();
    Ok(Measured { key: "gateway", title, rows: found.rows, panels: Vec::new(), json: Value::Object(found.json) })
}

#[derive(Default)]
struct Found {
    rows: Vec<Row>,
    json: Map<String, Value>,
}

impl Found {
    fn add(&mut self, key: &str, row: Row, value: Value) {
        say(format!("gateway: {} {}", row.figure, row.value));
        self.rows.push(row);
        self.json.insert(key.into(), value);
    }

    fn tail(&mut self, key: &str, figure: &str, series: &Series, share: f64, expected: &'static str) {
        let text = format!("{:.1} ms", series.at(share));
        self.add(key, Row::new(figure, text, series.range(1, " ms")).expecting(expected), series.spread("ms"));
    }
}

const READS: [&str; 4] =
    ["/v1/status", "/v1/streams?limit=50", "/v1/subscriptions?limit=50", "/v1/dead-letters?limit=50"];

async fn reads(gateway: &Gateway, db: &Database, options: &Options, found: &mut Found) -> Outcome<()> {
    let urls = READS.map(|path| format!("{}{path}", gateway.url));
    let turn = std::sync::atomic::AtomicUsize::new(0);
    let next = || &urls[turn.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % urls.len()];
    let (quiet, _) = load(gateway, 2, options.seconds, |client| client.get(next()))?;
    found.tail("reads_quiet", "reads, quiet, p95", &quiet, 0.95, "≤ 50 ms");
    // The same statement, sent directly and through the gateway, by turns.
    let (client, url) =
        (Client::new(gateway), format!("{}/v1/events/00000000-0000-0000-0000-000000000000", gateway.url));
    let client = Client { agent: Agent::config_builder().http_status_as_error(false).build().into(), ..client };
    let (mut direct, mut through) = (Series::default(), Series::default());
    for round in 0..options.seconds * 40 {
        let began = Instant::now();
        db.query("SELECT to_jsonb(r)::text FROM sea_mq.event_status('00000000-0000-0000-0000-000000000000') r", &[])
            .await?;
        let alone = began.elapsed().as_secs_f64() * 1000.0;
        let taken = client.get(&url)?;
        if round > 10 {
            direct.push(alone);
            through.push(taken);
        }
    }
    let added = through.median() - direct.median();
    let row = Row::new("added to a statement, median", format!("{added:.2} ms"), String::new()).expecting("≤ 1 ms");
    found.add("added", row, json!({ "direct": direct.spread("ms"), "through": through.spread("ms") }));
    let metrics = format!("{}/metrics", gateway.admin_url);
    let taken: Series =
        (0..options.seconds * 4).map(|_| client.get(&metrics)).collect::<Outcome<Vec<_>>>()?.into_iter().collect();
    found.tail("metrics", "/metrics of 100 streams and 100 subscriptions, p99", &taken, 0.99, "≤ 250 ms");
    Ok(())
}

fn events(gateway: &Gateway, options: &Options, found: &mut Found) -> Outcome<()> {
    let (url, body) = (format!("{}/v1/events", gateway.url), event(1).to_string());
    let (taken, rate) = load(gateway, 32, options.seconds, |client| client.post(&url, &body))?;
    let row = Row::new("events, 32 clients", format!("{}/s", whole(rate)), String::new()).expecting("≥ 1,500/s");
    found.add("events_rate", row, json!(rate));
    found.tail("events", "events, 32 clients, p95", &taken, 0.95, "≤ 50 ms");
    let batch = json!({ "events": (0..100).map(event).collect::<Vec<_>>() }).to_string();
    let url = format!("{}/v1/event-batches", gateway.url);
    let (_, rate) = load(gateway, 8, options.seconds, |client| client.post(&url, &batch))?;
    let row = Row::new("events in batches of 100, 8 clients", format!("{}/s", whole(rate * 100.0)), String::new());
    found.add("batches_rate", row.expecting("≥ 20,000/s"), json!(rate * 100.0));
    Ok(())
}

/// With as many retained events as were emitted above, and resolved letters.
async fn while_it_drains(gateway: &Gateway, stage: &Stage, options: &Options, found: &mut Found) -> Outcome<()> {
    let db = stage.connect().await;
    db.run(&format!(
        "SELECT count(sea_mq.emit('order', (n % 100)::text, 'OrderCreated', jsonb_build_object('order', n), context => 'orders'))
         FROM generate_series(1, {}) n",
        options.drain_events
    ))
    .await;
    let urls = READS.map(|path| format!("{}{path}", gateway.url));
    let turn = std::sync::atomic::AtomicUsize::new(0);
    let next = || &urls[turn.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % urls.len()];
    let (busy, _) = load(gateway, 2, options.seconds, |client| client.get(next()))?;
    found.tail("reads_busy", "reads while the relay drains, p95", &busy, 0.95, "≤ 200 ms");
    Ok(())
}

/// Clients of a tail, and events a second.
const TAILS: u32 = 200;
const TAIL_RATE: u32 = 1000;

/// From before the request that emits until a tail has the event.
fn tails(gateway: &Gateway, options: &Options, found: &mut Found) -> Outcome<()> {
    let address = gateway.url.trim_start_matches("http://").to_owned();
    let mut connections = Vec::new();
    for _ in 0..TAILS {
        let mut stream = TcpStream::connect(&address)?;
        write!(
            stream,
            "GET /v1/streams/ORDERS_EVENTS/tail HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\n\r\n",
            gateway.token
        )?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        connections.push(stream);
    }
    std::thread::sleep(Duration::from_secs(2));
    let readers: Vec<_> = connections.into_iter().map(|stream| std::thread::spawn(move || ages(stream))).collect();
    let client = Client::new(gateway);
    let (url, began) = (format!("{}/v1/event-batches", gateway.url), Instant::now());
    let mut turn = 0;
    while began.elapsed() < Duration::from_secs(options.seconds.into()) {
        let mut one = event(turn);
        one["payload"] = json!({ "sent_at": crate::now() });
        client.post(&url, &json!({ "events": vec![one; TAIL_RATE as usize / 10] }).to_string())?;
        turn += 1;
        std::thread::sleep((began + Duration::from_millis(100) * turn).saturating_duration_since(Instant::now()));
    }
    let all = readers.into_iter().flat_map(|reader| reader.join().unwrap_or_default());
    let taken: Series = all.collect();
    found.tail("tails", "200 tails at 1,000 events/s, p99", &taken, 0.99, "≤ 1 s");
    Ok(())
}

/// Milliseconds from each event's `sent_at` until it was read, until nothing comes for two seconds.
fn ages(mut stream: TcpStream) -> Vec<f64> {
    const MARK: &[u8] = b"\"sent_at\": ";
    let (mut taken, mut rest, mut buffer) = (Vec::new(), Vec::new(), vec![0; 64 << 10]);
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        let now = crate::now();
        rest.extend_from_slice(&buffer[..count]);
        let mut from = 0;
        while let Some(at) = rest[from..].windows(MARK.len()).position(|window| window == MARK) {
            let digits = &rest[from + at + MARK.len()..];
            let length = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if length == digits.len() {
                break;
            }
            let sent = std::str::from_utf8(&digits[..length]).ok().and_then(|text| text.parse::<i64>().ok());
            taken.extend(sent.map(|sent| (now - sent) as f64 / 1000.0));
            from += at + MARK.len() + length;
        }
        rest.drain(..from);
    }
    taken
}
