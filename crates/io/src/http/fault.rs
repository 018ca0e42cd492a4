//! Why a request got no answer, found in the errors of the libraries.

use std::error::Error;
use std::io;

use sea_mq_model::deliver::outcome::FaultKind;
use tokio_rustls::rustls;

/// A kind, and what happened in words. The words have neither secrets nor bodies in them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    pub kind: FaultKind,
    pub message: String,
}

impl Fault {
    pub fn new(kind: FaultKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// What a library's error comes from; of ours, that one.
    pub fn of(error: &(dyn Error + 'static)) -> Self {
        let mut next = Some(error);
        let mut words: Vec<String> = Vec::new();
        while let Some(error) = next {
            if let Some(fault) = error.downcast_ref::<Self>() {
                return fault.clone();
            }
            let tls = error.downcast_ref::<rustls::Error>();
            let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            let inner_tls = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
            if let Some(tls) = tls.or(inner_tls) {
                return Self::new(tls_kind(tls), format!("TLS: {tls}"));
            }
            if let Some(fault) = inner.and_then(|inner| inner.downcast_ref::<Self>()) {
                return fault.clone();
            }
            let text = error.to_string();
            if !words.iter().any(|word| word.contains(&text)) {
                words.push(text);
            }
            next = error.source();
        }
        Self::new(FaultKind::Broken, words.join(": "))
    }
}

/// Whether it is about a certificate, theirs or ours.
fn tls_kind(error: &rustls::Error) -> FaultKind {
    use rustls::AlertDescription as Alert;
    use rustls::Error as Tls;
    match error {
        Tls::InvalidCertificate(_) | Tls::NoCertificatesPresented | Tls::InvalidCertRevocationList(_) => {
            FaultKind::Certificate
        }
        Tls::AlertReceived(
            Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::CertificateRequired,
        ) => FaultKind::Certificate,
        _ => FaultKind::Tls,
    }
}
