//! A TCP proxy between PostgreSQL's workers and nats-server, and what can go wrong on a network.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What the network is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    Clear,
    /// Connections are closed, and new ones as soon as they are made.
    Cut,
    /// Connections stay open, and nothing goes through them until the weather changes.
    Stalled,
    /// What the broker says is lost, what it is told is not: it stores, and its acknowledgements never come. Connections
    /// that lost something are closed when the weather changes.
    Deaf,
    /// A few kilobytes at a time, each late.
    Slow,
    /// Bytes are changed in both directions. Only for connections with TLS: it is its business to notice.
    Garbage,
}

/// Listens on a port of its own; ends with its value.
pub struct Proxy {
    port: u16,
    weather: watch::Sender<Weather>,
    listening: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Proxy {
    /// # Panics
    /// When no port can be listened on.
    pub async fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("cannot listen");
        let port = listener.local_addr().expect("a listener has an address").port();
        let (weather, watching) = watch::channel(Weather::Clear);
        let listening = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connect(client, to, watching.clone()));
            }
        });
        Self { port, weather, listening }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }
}

async fn connect(client: TcpStream, to: u16, weather: watch::Receiver<Weather>) {
    if *weather.borrow() == Weather::Cut {
        return;
    }
    let Ok(server) = TcpStream::connect(("127.0.0.1", to)).await else { return };
    let (client_reads, client_writes) = client.into_split();
    let (server_reads, server_writes) = server.into_split();
    // When one direction ends, both do.
    tokio::select! {
        () = pump(client_reads, server_writes, false, weather.clone()) => {}
        () = pump(server_reads, client_writes, true, weather) => {}
    }
}

/// Carries bytes one way until an end closes or the weather forbids it.
async fn pump(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    answers: bool,
    mut weather: watch::Receiver<Weather>,
) {
    let mut buffer = vec![0; 16 * 1024];
    let mut lost = false;
    loop {
        let now = *weather.borrow_and_update();
        if now == Weather::Cut || (lost && now != Weather::Deaf) {
            return;
        }
        if now == Weather::Stalled {
            if weather.changed().await.is_err() {
                return;
            }
            continue;
        }
        let most = if now == Weather::Slow { 2048 } else { buffer.len() };
        let count = tokio::select! {
            read = from.read(&mut buffer[..most]) => match read { Ok(count @ 1..) => count, _ => return },
            changed = weather.changed() => match changed { Ok(()) => continue, Err(_) => return },
        };
        if answers && now == Weather::Deaf {
            lost = true;
            continue;
        }
        let bytes = &mut buffer[..count];
        let spoilt = now == Weather::Garbage;
        if spoilt {
            let half = count / 2;
            bytes[half..].iter_mut().for_each(|byte| *byte ^= 0x80);
        }
        if now == Weather::Slow {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::select! {
            written = to.write_all(bytes) => if written.is_err() || spoilt { return },
            // Whoever is written to may not read.
            () = until_cut(weather.clone()) => return,
        }
    }
}

async fn until_cut(mut weather: watch::Receiver<Weather>) {
    // Without a sender the proxy is gone.
    let _ = weather.wait_for(|now| *now == Weather::Cut).await;
}
