//! Somebody outside who gets the events of a context over HTTP, and remembers what came.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use harness::Database;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

/// The database and context whose events it gets.
pub const DATABASE: &str = "orders";
pub const CONTEXT: &str = "orders";
/// Deliveries in flight at once, at most.
pub const IN_FLIGHT: usize = 16;

const ACCEPTED: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const FAILED: &[u8] = b"HTTP/1.1 500 Failed\r\ncontent-length: 0\r\n\r\n";

/// What it does with what it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Takes,
    /// It answers 500.
    Fails,
    /// It does not answer.
    Hangs,
    /// It breaks the connection.
    Resets,
}

#[derive(Default)]
struct Seen {
    /// How often each event was answered with 200.
    accepted: HashMap<Uuid, usize>,
    /// Of each event, the first body that came.
    bodies: HashMap<Uuid, u64>,
    wrong: Vec<String>,
}

pub struct Partner {
    port: u16,
    mood: watch::Sender<Mood>,
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Drop for Partner {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Partner {
    /// # Panics
    /// When no port is free.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let port = listener.local_addr().expect("it has an address").port();
        let (mood, seen) = (watch::Sender::new(Mood::Takes), Arc::<Mutex<Seen>>::default());
        let (moods, kept) = (mood.clone(), Arc::clone(&seen));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, moods.subscribe(), Arc::clone(&kept)));
            }
        });
        Self { port, mood, seen, task }
    }

    /// Describes it as an endpoint. Nothing is ever given up, so what is lost is lost.
    pub async fn describe(&self, db: &Database) {
        db.run(&format!(
            "SELECT sea_mq.create_endpoint('partner', 'webhook', 'http://127.0.0.1:{}/', '{CONTEXT}', audience => 'sensitive', start_from => 'all',
                max_in_flight => {IN_FLIGHT}, timeout => '10 s', retry_schedule => '{{0}}'::interval[] || array_fill(interval '300 ms', ARRAY[99]))",
            self.port
        ))
        .await;
    }

    pub fn set(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    /// How many events it has accepted.
    ///
    /// # Panics
    /// Not in practice.
    pub fn count(&self) -> usize {
        self.seen.lock().expect("nobody panics with the lock").accepted.len()
    }

    /// What it has accepted, each as often as it did; and what is wrong with what came.
    ///
    /// # Panics
    /// Not in practice.
    pub fn found(&self) -> (Vec<(Uuid, usize)>, Vec<String>) {
        let seen = self.seen.lock().expect("nobody panics with the lock");
        (seen.accepted.iter().map(|(id, count)| (*id, *count)).collect(), seen.wrong.clone())
    }
}

/// A person need not wait for the probe of an endpoint that works again.
pub async fn resume(db: &Database) {
    // A server that goes away meanwhile resumes it by its probe.
    let _ = db
        .batch_execute("SELECT sea_mq.resume_endpoint(endpoint) FROM sea_mq.endpoint_status WHERE state = 'open'")
        .await;
}

/// Serves a connection until it ends.
async fn serve(stream: TcpStream, mut mood: watch::Receiver<Mood>, seen: Arc<Mutex<Seen>>) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut stream = BufReader::new(stream);
    loop {
        let (id, body) = read(&mut stream).await?;
        note(&seen, id, &body);
        let now = *mood.borrow_and_update();
        match now {
            Mood::Takes => {
                *seen.lock().ok()?.accepted.entry(id).or_default() += 1;
                stream.get_mut().write_all(ACCEPTED).await.ok()?;
            }
            Mood::Fails => stream.get_mut().write_all(FAILED).await.ok()?,
            Mood::Hangs => {
                // It never answers this one.
                let _ = mood.wait_for(|mood| *mood != Mood::Hangs).await;
                return None;
            }
            Mood::Resets => {
                stream.get_ref().set_zero_linger().ok()?;
                return None;
            }
        }
    }
}

fn note(seen: &Mutex<Seen>, id: Uuid, body: &[u8]) {
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    let print = hasher.finish();
    if let Ok(mut seen) = seen.lock()
        && *seen.bodies.entry(id).or_insert(print) != print
    {
        seen.wrong.push(format!("{id} came with other bytes"));
    }
}

/// The id and the body of a request. Whoever says nothing for long is gone.
async fn read(stream: &mut BufReader<TcpStream>) -> Option<(Uuid, Vec<u8>)> {
    const SILENCE: Duration = Duration::from_secs(120);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tokio::time::timeout(SILENCE, stream.read_u8()).await.ok()?.ok()?);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let value = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let mut body = vec![0; value("content-length")?.parse().ok()?];
    stream.read_exact(&mut body).await.ok()?;
    Some((value("webhook-id")?.parse().ok()?, body))
}
