//! `sea-mq serve` as a process, and clients of it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use ureq::Agent;

use crate::Outcome;
use crate::figures::Series;

/// The server's process; ended with the run.
pub struct Gateway {
    pub child: Child,
    pub url: String,
    pub admin_url: String,
    pub token: String,
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

pub fn serve(database: &str, directory: &Path) -> Outcome<Gateway> {
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
pub struct Client {
    pub agent: Agent,
    pub bearer: String,
}

impl Client {
    pub fn new(gateway: &Gateway) -> Self {
        Self { agent: Agent::new_with_defaults(), bearer: format!("Bearer {}", gateway.token) }
    }

    /// Milliseconds until the answer was read.
    pub fn get(&self, url: &str) -> Outcome<f64> {
        let began = Instant::now();
        self.agent.get(url).header("Authorization", &self.bearer).call()?.body_mut().read_to_vec()?;
        Ok(began.elapsed().as_secs_f64() * 1000.0)
    }

    pub fn post(&self, url: &str, body: &str) -> Outcome<f64> {
        let began = Instant::now();
        let request =
            self.agent.post(url).header("Authorization", &self.bearer).header("Content-Type", "application/json");
        request.send(body)?.body_mut().read_to_vec()?;
        Ok(began.elapsed().as_secs_f64() * 1000.0)
    }
}

/// What so many clients do over and over for so many seconds: milliseconds of each request, and requests per second.
pub fn load(
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
