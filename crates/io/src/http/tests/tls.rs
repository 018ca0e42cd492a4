//! Certificates: theirs, and ours.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use sea_mq_model::deliver::outcome::FaultKind;
use tokio::io::AsyncWriteExt;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::stand::{Server, request};
use super::*;
use crate::http::tls::Identity;

pub(super) type Issuer = CertifiedIssuer<'static, KeyPair>;

pub(super) fn authority() -> Issuer {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "test authority");
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate of an authority, with its key.
pub(super) fn issued(issuer: &Issuer, name: &str, expired: bool) -> (String, String) {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    if expired {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    }
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, issuer).unwrap().pem(), key.serialize_pem())
}

pub(super) fn config((certificate, key): (String, String), clients: Option<&Issuer>) -> Arc<ServerConfig> {
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    let provider = Arc::new(ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(issuer) => {
            let mut roots = RootCertStore::empty();
            roots.add(issuer.der().clone()).unwrap();
            builder.with_client_cert_verifier(
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap(),
            )
        }
    };
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).map(Result::unwrap).collect();
    Arc::new(builder.with_single_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap())
}

async fn server(config: Arc<ServerConfig>) -> Server {
    Server::start(move |stream| {
        let acceptor = TlsAcceptor::from(Arc::clone(&config));
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            while request(&mut stream).await.is_some() {
                let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
                let _ = stream.flush().await;
            }
        }
    })
    .await
}

/// A network that trusts an authority.
pub(super) fn trusting(issuer: &Issuer, test: &str) -> Network {
    let path = std::env::temp_dir().join(format!("sea_mq-{}-{test}.pem", std::process::id()));
    std::fs::write(&path, issuer.pem()).unwrap();
    Network { ca_file: Some(path), ..network() }
}

pub(super) fn https(server: &Server) -> Target {
    target(format!("https://127.0.0.1:{}/", server.address.port()))
}

#[tokio::test]
async fn a_certificate_is_good_expired_for_another_name_or_of_nobody_we_trust() {
    let (ours, other) = (authority(), authority());
    let network = trusting(&ours, "kinds");
    let good = server(config(issued(&ours, "127.0.0.1", false), None)).await;
    let answered = try_once(network.clone(), https(&good)).await;
    assert_eq!(status(&answered), Some(204), "{answered:?}");
    for bad in
        [issued(&ours, "127.0.0.1", true), issued(&ours, "example.com", false), issued(&other, "127.0.0.1", false)]
    {
        let server = server(config(bad, None)).await;
        let answered = try_once(network.clone(), https(&server)).await;
        assert_eq!(fault(&answered), Some(FaultKind::Certificate), "{answered:?}");
    }
    let _ = std::fs::remove_file(network.ca_file.unwrap());
}

#[tokio::test]
async fn a_server_that_asks_for_our_certificate_gets_it() {
    let ours = authority();
    let network = trusting(&ours, "mtls");
    let server = server(config(issued(&ours, "127.0.0.1", false), Some(&ours))).await;
    let answered = try_once(network.clone(), https(&server)).await;
    assert_eq!(fault(&answered), Some(FaultKind::Certificate), "{answered:?}");
    let (certificate, key) = issued(&ours, "sea_mq", false);
    let mut target = https(&server);
    target.identity = Some(Identity { certificate, key });
    let answered = try_once(network.clone(), target.clone()).await;
    assert_eq!(status(&answered), Some(204), "{answered:?}");
    target.identity = Some(Identity { certificate: "none".into(), key: "none".into() });
    assert_eq!(fault(&try_once(network.clone(), target).await), Some(FaultKind::Credentials));
    let _ = std::fs::remove_file(network.ca_file.unwrap());
}

#[tokio::test]
async fn a_port_that_speaks_no_tls_or_says_nothing_is_told_apart() {
    let plain = Server::start(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    })
    .await;
    let answered = try_once(network(), https(&plain)).await;
    assert_eq!(fault(&answered), Some(FaultKind::Tls), "{answered:?}");
    let silent = Server::start(|stream| async move {
        tokio::time::sleep(SHORT * 100).await;
        drop(stream);
    })
    .await;
    let mut target = https(&silent);
    target.connect_timeout = SHORT;
    let begun = std::time::Instant::now();
    let answered = try_once(network(), target).await;
    assert_eq!(fault(&answered), Some(FaultKind::Timeout), "{answered:?}");
    assert!(begun.elapsed() < SHORT * 8);
}

#[tokio::test]
async fn tls_goes_through_a_proxy_to_the_endpoint_that_has_the_certificate() {
    let ours = authority();
    let mut network = trusting(&ours, "proxy");
    let behind = server(config(issued(&ours, "127.0.0.1", false), None)).await;
    let to = behind.address;
    let proxy = Server::start(move |mut stream| async move {
        let Some(head) = request(&mut stream).await else { return };
        if !head.starts_with(&format!("connect {to} http/1.1")) {
            let _ = stream.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n").await;
            return;
        }
        let Ok(mut onwards) = tokio::net::TcpStream::connect(to).await else { return };
        let _ = stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await;
        let _ = tokio::io::copy_bidirectional(&mut stream, &mut onwards).await;
    })
    .await;
    network.proxy = Some(url::Url::parse(&proxy.url()).unwrap());
    let answered = try_once(network.clone(), https(&behind)).await;
    assert_eq!((status(&answered), proxy.count(), behind.count()), (Some(204), 1, 1), "{answered:?}");
    // The proxy is not who is trusted: what it leads to has to show the endpoint's certificate.
    let stranger = server(config(issued(&authority(), "127.0.0.1", false), None)).await;
    let to = stranger.address;
    let liar = Server::start(move |mut stream| async move {
        let _ = request(&mut stream).await;
        let Ok(mut onwards) = tokio::net::TcpStream::connect(to).await else { return };
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        let _ = tokio::io::copy_bidirectional(&mut stream, &mut onwards).await;
    })
    .await;
    network.proxy = Some(url::Url::parse(&liar.url()).unwrap());
    let answered = try_once(network.clone(), https(&behind)).await;
    assert_eq!((fault(&answered), stranger.count()), (Some(FaultKind::Certificate), 1), "{answered:?}");
    let _ = std::fs::remove_file(network.ca_file.unwrap());
}
