//! Listeners: plain, and TLS whose handshakes wait for nobody.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections whose handshake is done and that nobody has taken yet.
const READY: usize = 64;

/// Serves until it is to end, and then until what is under way is done.
///
/// # Errors
/// In words, when the listener fails.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    router: Router,
    mut ending: watch::Receiver<bool>,
) -> Result<(), String> {
    let end = async move {
        // The sender lives as long as the process.
        let _ = ending.wait_for(|ending| *ending).await;
    };
    let result = match tls {
        Some(config) => axum::serve(Tls::new(listener, config)?, router).with_graceful_shutdown(end).await,
        None => axum::serve(listener, router).with_graceful_shutdown(end).await,
    };
    result.map_err(|error| error.to_string())
}

type Connection = (TlsStream<TcpStream>, SocketAddr);

struct Tls {
    address: SocketAddr,
    ready: mpsc::Receiver<Connection>,
}

impl Tls {
    fn new(listener: TcpListener, config: Arc<ServerConfig>) -> Result<Self, String> {
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let (sender, ready) = mpsc::channel(READY);
        tokio::spawn(accept(listener, TlsAcceptor::from(config), sender));
        Ok(Self { address, ready })
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, ready: mpsc::Sender<Connection>) {
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(_) => {
                // Too many open files, most likely.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (acceptor, ready) = (acceptor.clone(), ready.clone());
        tokio::spawn(async move {
            if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                // Nobody takes it: the server has ended.
                let _ = ready.send((stream, address)).await;
            }
        });
    }
}

impl axum::serve::Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> Connection {
        match self.ready.recv().await {
            Some(connection) => connection,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}
