//! A receiver that does as little as it can: it counts, notes when each event came, and answers at once or after a while.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::{Outcome, now};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
/// Requests whose path begins so are answered late, if at all.
pub const HUNG: &str = "/hung";

/// A request as it came, to be sent again by somebody else.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

#[derive(Default)]
struct Seen {
    count: AtomicU64,
    /// Microseconds since 1970, of each event and path.
    arrivals: Mutex<HashMap<(String, String), i64>>,
    last: Mutex<Request>,
}

pub struct Server {
    pub port: u16,
    scheme: &'static str,
    seen: Arc<Seen>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a server answers with.
pub fn tls(certificate: &Path, key: &Path) -> Outcome<TlsAcceptor> {
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<_, _>>()?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

impl Server {
    /// `delay`: after how long it answers.
    pub async fn start(delay: Duration, tls: Option<TlsAcceptor>) -> Outcome<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let seen = Arc::new(Seen::default());
        let scheme = if tls.is_some() { "https" } else { "http" };
        let kept = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(accept(stream, delay, tls.clone(), Arc::clone(&kept)));
            }
        });
        Ok(Self { port, scheme, seen, task })
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}://localhost:{}{path}", self.scheme, self.port)
    }

    /// Requests so far.
    pub fn count(&self) -> u64 {
        self.seen.count.load(Ordering::Relaxed)
    }

    /// The last request, without what is the protocol's own.
    pub fn last(&self) -> Request {
        self.seen.last.lock().map(|last| last.clone()).unwrap_or_default()
    }

    /// Forgets what has come.
    pub fn forget(&self) {
        self.seen.count.store(0, Ordering::Relaxed);
        let _ = self.seen.arrivals.lock().map(|mut arrivals| arrivals.clear());
    }

    /// When each event came to paths that begin so: id, microseconds since 1970.
    pub fn arrivals(&self, prefix: &str) -> Vec<(String, i64)> {
        let arrivals = self.seen.arrivals.lock();
        let of = |((path, id), at): (&(String, String), &i64)| path.starts_with(prefix).then(|| (id.clone(), *at));
        arrivals.map(|arrivals| arrivals.iter().filter_map(of).collect()).unwrap_or_default()
    }
}

async fn accept(stream: TcpStream, delay: Duration, tls: Option<TlsAcceptor>, seen: Arc<Seen>) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    match tls {
        None => serve(stream, delay, &seen).await,
        Some(tls) => serve(tls.accept(stream).await.ok()?, delay, &seen).await,
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, delay: Duration, seen: &Seen) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let (path, request) = read(&mut stream).await?;
        seen.count.fetch_add(1, Ordering::Relaxed);
        let id = request.headers.iter().find(|(name, _)| name == "webhook-id").map(|(_, id)| id.clone());
        if let (Some(id), Ok(mut arrivals)) = (id, seen.arrivals.lock()) {
            arrivals.entry((path.clone(), id)).or_insert_with(now);
        }
        if let Ok(mut last) = seen.last.lock() {
            *last = request;
        }
        if path.starts_with(HUNG) {
            tokio::time::sleep(Duration::from_secs(3600)).await;
        }
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        stream.get_mut().write_all(ANSWER).await.ok()?;
    }
}

async fn read(stream: &mut BufReader<impl AsyncRead + Unpin>) -> Option<(String, Request)> {
    let mut head = Vec::with_capacity(1024);
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let text = String::from_utf8_lossy(&head);
    let mut lines = text.lines();
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let pair = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
    let headers: Vec<(String, String)> = lines.filter_map(pair).collect();
    let length = headers.iter().find(|(name, _)| name == "content-length").and_then(|(_, length)| length.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).await.ok()?;
    Some((path, Request { headers, body }))
}
