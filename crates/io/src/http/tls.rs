//! Whom we trust, and what we show of ourselves.

use std::io;
use std::path::Path;
use std::sync::Arc;

use sea_mq_model::deliver::outcome::FaultKind;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::fault::Fault;

/// A certificate of ours with its key, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

/// The authorities that the system trusts, and those of a file.
///
/// # Errors
/// If the file cannot be read.
pub fn roots(ca_file: Option<&Path>) -> Result<Arc<RootCertStore>, Fault> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = ca_file {
        let failed = |error: &dyn std::fmt::Display| {
            Fault::new(FaultKind::Certificate, format!("sea_mq.endpoint_ca_file {}: {error}", path.display()))
        };
        let certificates = CertificateDer::pem_file_iter(path).map_err(|error| failed(&error))?;
        for certificate in certificates {
            let certificate = certificate.map_err(|error| failed(&error))?;
            roots.add(certificate).map_err(|error| failed(&error))?;
        }
    }
    Ok(Arc::new(roots))
}

/// # Errors
/// If the identity is none.
pub fn client(roots: Arc<RootCertStore>, identity: Option<&Identity>) -> Result<Arc<ClientConfig>, Fault> {
    let failed =
        |error: &dyn std::fmt::Display| Fault::new(FaultKind::Credentials, format!("client certificate: {error}"));
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&error))?
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(identity.certificate.as_bytes()).collect();
            let chain = chain.map_err(|error| failed(&error))?;
            let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).map_err(|error| failed(&error))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| failed(&error))?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// What a failed handshake says.
pub fn fault(error: &io::Error) -> Fault {
    match Fault::of(error) {
        fault if fault.kind == FaultKind::Broken => Fault::new(FaultKind::Tls, format!("TLS: {}", fault.message)),
        fault => fault,
    }
}
