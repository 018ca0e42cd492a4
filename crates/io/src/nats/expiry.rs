//! Until when what this side shows the server is good: the user's JWT, certificates.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use x509_cert::Certificate;

use sea_mq_model::broker::{BrokerConfig, Expiry};

/// What ends first, if anything ends. A file that cannot be read is told elsewhere.
pub(super) fn first(config: &BrokerConfig) -> Option<Expiry> {
    let token = expiry("sea_mq.nats_credentials_file", config.credentials_file.as_deref(), end_of_token);
    let certificate = expiry("sea_mq.nats_tls_cert_file", config.tls_cert_file.as_deref(), end_of_certificates);
    let authority = expiry("sea_mq.nats_tls_ca_file", config.tls_ca_file.as_deref(), end_of_certificates);
    [token, certificate, authority].into_iter().flatten().min_by_key(|expiry| expiry.at)
}

fn expiry(setting: &'static str, path: Option<&Path>, end: impl Fn(&str) -> Option<i64>) -> Option<Expiry> {
    let text = std::fs::read_to_string(path?).ok()?;
    Some(Expiry { setting, at: end(&text)? })
}

/// The `exp` of the JWT in a `.creds` file.
fn end_of_token(credentials: &str) -> Option<i64> {
    let token = credentials.lines().map(str::trim).find(|line| line.starts_with("eyJ"))?;
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let end = serde_json::from_slice::<Value>(&claims).ok()?.get("exp")?.as_i64()?;
    (end > 0).then_some(end)
}

/// Of several certificates, that of the first to end.
fn end_of_certificates(pem: &str) -> Option<i64> {
    let certificates = Certificate::load_pem_chain(pem.as_bytes()).ok()?;
    let ends = certificates.iter().map(|one| one.tbs_certificate.validity.not_after.to_unix_duration().as_secs());
    ends.min().and_then(|end| i64::try_from(end).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_token_is_read() {
        let credentials = |claims: &str| {
            let claims = URL_SAFE_NO_PAD.encode(claims);
            format!("-----BEGIN NATS USER JWT-----\neyJh.{claims}.sig\n------END NATS USER JWT------\n")
        };
        assert_eq!(end_of_token(&credentials("{\"exp\":1700000000}")), Some(1_700_000_000));
        assert_eq!(end_of_token(&credentials("{}")), None);
        assert_eq!(end_of_token("nothing"), None);
        assert_eq!(end_of_certificates("nothing"), None);
    }
}
