//! Connections for hyper, which come from [`Dialer`] and from nowhere else.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use sea_mq_model::deliver::outcome::FaultKind;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use tower_service::Service;
use url::{Host, Url};

use super::dial::Dialer;
use super::fault::Fault;
use super::tls;

#[derive(Clone)]
pub struct Connector {
    pub dialer: Arc<Dialer>,
    pub tls: Arc<ClientConfig>,
    /// For the whole of it, the handshake included.
    pub limit: Duration,
}

impl Connector {
    async fn connect(self, uri: Uri) -> Result<Stream, Fault> {
        // The same parser as everywhere: what was checked is what is reached.
        let url = Url::parse(&uri.to_string()).map_err(|error| Fault::new(FaultKind::Connect, error.to_string()))?;
        let no_host = || Fault::new(FaultKind::Connect, "the URL has no host");
        let host = url.host().ok_or_else(no_host)?;
        let port = url.port_or_known_default().ok_or_else(no_host)?;
        let stream = self.dialer.dial(&host, port, self.limit).await?;
        if url.scheme() != "https" {
            return Ok(Stream::Plain(TokioIo::new(stream)));
        }
        let name = match host {
            Host::Domain(name) => ServerName::try_from(name.trim_end_matches('.').to_owned()),
            Host::Ipv4(address) => Ok(ServerName::from(std::net::IpAddr::V4(address))),
            Host::Ipv6(address) => Ok(ServerName::from(std::net::IpAddr::V6(address))),
        };
        let name = name.map_err(|error| Fault::new(FaultKind::Certificate, error.to_string()))?;
        let stream = TlsConnector::from(self.tls).connect(name, stream).await.map_err(|error| tls::fault(&error))?;
        Ok(Stream::Tls(Box::new(TokioIo::new(stream))))
    }
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = Fault;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, Fault>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let limit = self.limit;
        let connecting = self.clone().connect(uri);
        Box::pin(async move {
            let timed_out =
                |_| Fault::new(FaultKind::Timeout, format!("no connection within {} ms", limit.as_millis()));
            tokio::time::timeout(limit, connecting).await.map_err(timed_out)?
        })
    }
}

pub enum Stream {
    Plain(TokioIo<TcpStream>),
    Tls(Box<TokioIo<TlsStream<TcpStream>>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        let h2 = match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => stream.inner().get_ref().1.alpn_protocol() == Some(b"h2"),
        };
        if h2 { Connected::new().negotiated_h2() } else { Connected::new() }
    }
}

impl Read for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl Write for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
