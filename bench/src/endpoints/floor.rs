//! The floor: a bare hyper client that sends the same bytes over the same number of connections, and does nothing else.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::server::{Request, Server};
use crate::Outcome;

/// Whom the client trusts.
pub fn trusting(certificate: &Path) -> Outcome<TlsConnector> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(certificate)? {
        roots.add(certificate?)?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Requests a second.
pub async fn rate(
    server: &Server,
    tls: Option<&TlsConnector>,
    request: &Request,
    connections: u32,
    count: u32,
) -> Outcome<f64> {
    let mut clients = Vec::new();
    for _ in 0..connections {
        clients.push(connect(server.port, tls).await?);
    }
    let left = Arc::new(AtomicU32::new(count));
    let began = Instant::now();
    let tasks: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            let (left, request) = (Arc::clone(&left), request.clone());
            tokio::spawn(async move {
                let take = |left: u32| left.checked_sub(1);
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
                    client.send_request(built(&request)?).await?;
                    client.ready().await?;
                }
                Outcome::Ok(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(f64::from(count) / began.elapsed().as_secs_f64())
}

fn built(request: &Request) -> Outcome<hyper::Request<Full<Bytes>>> {
    let mut builder = hyper::Request::post("/floor");
    for (name, value) in request.headers.iter().filter(|(name, _)| name != "content-length") {
        builder = builder.header(name, value);
    }
    Ok(builder.body(Full::new(Bytes::from(request.body.clone())))?)
}

async fn connect(port: u16, tls: Option<&TlsConnector>) -> Outcome<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    Ok(match tls {
        None => {
            let (client, connection) = http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            client
        }
        Some(tls) => {
            let stream = tls.connect(ServerName::try_from("localhost")?, stream).await?;
            let (client, connection) = http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            client
        }
    })
}
