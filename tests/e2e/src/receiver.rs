use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::TestCertificates;

/// A request that came in.
#[derive(Clone, Debug)]
pub struct Received {
    pub method: String,
    pub path: String,
    /// Names in small letters.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
    pub at: Instant,
}

impl Received {
    /// A header's value; empty if it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// What a receiver answers.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
    pub delay: Duration,
    /// The connection breaks instead of an answer.
    pub breaks: bool,
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: String::new(), delay: Duration::ZERO, breaks: false }
    }

    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }
}

type Answers = Arc<dyn Fn(&Received) -> Reply + Send + Sync>;

/// An HTTP server that keeps what it gets, and answers what a test says.
pub struct Receiver {
    scheme: &'static str,
    port: u16,
    received: Arc<Mutex<Vec<Received>>>,
    task: JoinHandle<()>,
}

impl Receiver {
    /// # Panics
    /// When no port is free.
    pub async fn start(answer: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        Self::listen(None, Arc::new(answer)).await
    }

    /// One that speaks TLS.
    ///
    /// # Panics
    /// When no port is free, or the certificate cannot be read.
    pub async fn start_tls(
        certificates: &TestCertificates,
        answer: impl Fn(&Received) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::listen(Some(acceptor(certificates)), Arc::new(answer)).await
    }

    async fn listen(tls: Option<TlsAcceptor>, answer: Answers) -> Self {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let port = listener.local_addr().expect("it has an address").port();
        let received = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&received);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, kept, answer) = (tls.clone(), Arc::clone(&kept), Arc::clone(&answer));
                tokio::spawn(async move {
                    stream.set_nodelay(true).ok()?;
                    match tls {
                        Some(tls) => serve(tls.accept(stream).await.ok()?, kept, answer).await,
                        None => serve(stream, kept, answer).await,
                    }
                });
            }
        });
        Self { scheme, port, received, task }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}://127.0.0.1:{}{path}", self.scheme, self.port)
    }

    /// What has come so far.
    ///
    /// # Panics
    /// Not in practice.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().expect("nobody panics with the lock").clone()
    }

    /// What has come so far on a path.
    pub fn received_on(&self, path: &str) -> Vec<Received> {
        self.received().into_iter().filter(|received| received.path == path).collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn acceptor(certificates: &TestCertificates) -> TlsAcceptor {
    let chain = CertificateDer::pem_file_iter(&certificates.certificate).expect("there is a certificate");
    let chain = chain.collect::<Result<Vec<_>, _>>().expect("it can be read");
    let key = PrivateKeyDer::from_pem_file(&certificates.key).expect("there is a key");
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("there are versions").with_no_client_auth();
    TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).expect("they belong together")))
}

/// Serves a connection until it ends.
async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    received: Arc<Mutex<Vec<Received>>>,
    answer: Answers,
) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let request = read(&mut stream).await?;
        let reply = answer(&request);
        received.lock().ok()?.push(request);
        tokio::time::sleep(reply.delay).await;
        if reply.breaks {
            return None;
        }
        let mut head = format!("HTTP/1.1 {} Status\r\ncontent-length: {}\r\n", reply.status, reply.body.len());
        for (name, value) in &reply.headers {
            head += &format!("{name}: {value}\r\n");
        }
        stream.get_mut().write_all(format!("{head}\r\n{}", reply.body).as_bytes()).await.ok()?;
        stream.get_mut().flush().await.ok()?;
    }
}

async fn read(stream: &mut BufReader<impl AsyncRead + Unpin>) -> Option<Received> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => _ = headers.insert(name.to_ascii_lowercase(), value.trim().to_owned()),
            None => break,
        }
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Received { method, path, headers, body, at: Instant::now() })
}
