use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Bytes that are carried at a time.
const PIECE: usize = 16 << 10;

/// A line between clients and a server with a rate and a delay, which can be cut; ends with its value.
pub struct Line {
    port: u16,
    state: Arc<State>,
    listening: JoinHandle<()>,
}

struct State {
    /// Bytes a second from the server to its clients, all of them together.
    rate: AtomicU64,
    /// How long each byte is under way, each way.
    delay: Duration,
    /// When the line is free for the next byte, in microseconds since `began`.
    free_at: AtomicU64,
    began: Instant,
    connections: AtomicUsize,
    /// It carries nothing, and breaks what is connected.
    cut: watch::Sender<bool>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Line {
    /// # Panics
    /// When no port can be listened on.
    pub async fn start(to: u16, rate: u64, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("cannot listen");
        let port = listener.local_addr().expect("a listener has an address").port();
        let state = Arc::new(State {
            rate: AtomicU64::new(rate),
            delay,
            free_at: AtomicU64::new(0),
            began: Instant::now(),
            connections: AtomicUsize::new(0),
            cut: watch::Sender::new(false),
        });
        let shared = Arc::clone(&state);
        let listening = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                shared.connections.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(connect(client, to, Arc::clone(&shared)));
            }
        });
        Self { port, state, listening }
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub fn set_rate(&self, rate: u64) {
        self.state.rate.store(rate, Ordering::Relaxed);
    }

    /// Breaks all connections, and every new one until [`Self::fix`].
    pub fn cut(&self) {
        self.state.cut.send_replace(true);
    }

    pub fn fix(&self) {
        self.state.cut.send_replace(false);
    }

    /// How many connections were made so far.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }
}

impl State {
    /// Waits until the line has carried so many bytes more.
    async fn carry(&self, bytes: usize) {
        let takes = bytes as u64 * 1_000_000 / self.rate.load(Ordering::Relaxed).max(1);
        let now = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let update = |free_at: u64| Some(free_at.max(now) + takes);
        let before = self.free_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, update).unwrap_or(0);
        let wait = (before.max(now) + takes).saturating_sub(now);
        // The timer is no finer than this; what is not waited for now is waited for later.
        if wait > 2000 {
            tokio::time::sleep(Duration::from_micros(wait)).await;
        }
    }
}

async fn connect(client: TcpStream, to: u16, state: Arc<State>) {
    let mut cut = state.cut.subscribe();
    let Ok(socket) = TcpSocket::new_v4() else { return };
    // What the line has not carried is to wait at the server and not in the kernel.
    let _ = socket.set_recv_buffer_size(64 << 10);
    let Ok(server) = socket.connect(([127, 0, 0, 1], to).into()).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (client_reads, client_writes) = client.into_split();
    let (server_reads, server_writes) = server.into_split();
    tokio::select! {
        _ = cut.wait_for(|cut| *cut) => {}
        () = pump(client_reads, server_writes, &state, false) => {}
        () = pump(server_reads, client_writes, &state, true) => {}
    }
}

/// Carries bytes one way until an end closes.
async fn pump(mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin, state: &State, paced: bool) {
    let mut under_way: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let mut buffer = vec![0; PIECE];
    loop {
        let due = under_way.front().map(|(at, _)| *at);
        tokio::select! {
            () = async { tokio::time::sleep_until(due.unwrap_or_else(Instant::now).into()).await }, if due.is_some() => {
                let Some((_, bytes)) = under_way.pop_front() else { return };
                if to.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            read = from.read(&mut buffer) => {
                let Ok(count @ 1..) = read else { return };
                if paced {
                    state.carry(count).await;
                }
                under_way.push_back((Instant::now() + state.delay, buffer[..count].to_vec()));
            }
        }
    }
}
