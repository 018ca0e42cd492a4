//! Where the database is: libpq's environment, a connection string, a password file; and TLS as sslmode says.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres::Config;
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

/// What it takes to connect.
#[derive(Clone)]
pub struct Target {
    pub config: Config,
    pub tls: MakeRustlsConnect,
}

/// Reads `PGHOST` … and a connection string, which comes first.
///
/// # Errors
/// In words, what cannot be read.
pub fn target(connection: Option<&str>) -> Result<Target, String> {
    let text = connection.map(str::to_owned).or_else(|| std::env::var("DATABASE_URL").ok()).unwrap_or_default();
    let (text, own_mode) = without_verifying_mode(&text);
    let mut config: Config = text.parse().map_err(|error| format!("the connection string cannot be read: {error}"))?;
    let environment: BTreeMap<String, String> = std::env::vars().collect();
    let of = |name: &str| environment.get(name).filter(|value| !value.is_empty());
    if config.get_hosts().is_empty() {
        config.host(of("PGHOST").map_or("127.0.0.1", String::as_str));
    }
    if config.get_ports().is_empty() {
        let port = of("PGPORT").map_or(Ok(5432), |port| port.parse());
        config.port(port.map_err(|_| "PGPORT is not a number".to_owned())?);
    }
    if config.get_user().is_none() {
        config.user(of("PGUSER").or_else(|| of("USER")).map_or("postgres", String::as_str));
    }
    if config.get_dbname().is_none() {
        let user = config.get_user().unwrap_or("postgres").to_owned();
        config.dbname(of("PGDATABASE").map_or(&user, |name| name));
    }
    if config.get_password().is_none()
        && let Some(password) = of("PGPASSWORD").cloned().or_else(|| password_file(&config))
    {
        config.password(password);
    }
    config.connect_timeout(std::time::Duration::from_secs(5));
    let mode = own_mode.or_else(|| of("PGSSLMODE").cloned()).unwrap_or_else(|| "prefer".into());
    let root = of("PGSSLROOTCERT").map(PathBuf::from);
    let tls = MakeRustlsConnect::new(tls_of(&mode, root, &mut config)?);
    Ok(Target { config, tls })
}

/// tokio-postgres knows neither verify-ca nor verify-full.
fn without_verifying_mode(text: &str) -> (String, Option<String>) {
    for mode in ["verify-full", "verify-ca"] {
        for pattern in [format!("sslmode={mode}"), format!("sslmode='{mode}'")] {
            if text.contains(&pattern) {
                return (text.replace(&pattern, "sslmode=require"), Some(mode.to_owned()));
            }
        }
    }
    let mode = text.split(['?', '&', ' ']).find_map(|word| word.strip_prefix("sslmode=")).map(str::to_owned);
    (text.to_owned(), mode)
}

/// The password of the first line of the password file that fits.
fn password_file(config: &Config) -> Option<String> {
    let path = std::env::var_os("PGPASSFILE")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".pgpass")))?;
    let text = std::fs::read_to_string(path).ok()?;
    let host = match config.get_hosts().first()? {
        tokio_postgres::config::Host::Tcp(name) => name.clone(),
        tokio_postgres::config::Host::Unix(_) => "localhost".to_owned(),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432).to_string();
    let wanted = [host.as_str(), &port, config.get_dbname()?, config.get_user()?];
    text.lines().find_map(|line| password_of(line, &wanted))
}

fn password_of(line: &str, wanted: &[&str; 4]) -> Option<String> {
    let mut fields = vec![String::new()];
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => fields.last_mut()?.extend(characters.next()),
            ':' if fields.len() < 5 => fields.push(String::new()),
            other => fields.last_mut()?.push(other),
        }
    }
    let fits = fields.len() == 5 && fields.iter().zip(wanted).all(|(field, value)| field == "*" || field == value);
    fits.then(|| fields.pop()).flatten()
}

fn tls_of(mode: &str, root: Option<PathBuf>, config: &mut Config) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    config.ssl_mode(match mode {
        "disable" => SslMode::Disable,
        "allow" | "prefer" => SslMode::Prefer,
        "require" | "verify-ca" | "verify-full" => SslMode::Require,
        other => return Err(format!("sslmode {other} is not known")),
    });
    let Some(root) = root else {
        if mode.starts_with("verify") {
            return Err(format!("sslmode {mode} needs PGSSLROOTCERT, the file with the certificates to trust"));
        }
        // As libpq does it: encrypted, and nobody is asked who the server is.
        return Ok(builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Unverified(provider)))
            .with_no_client_auth());
    };
    let mut store = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(&root).map_err(|error| format!("{}: {error}", root.display()))?;
    for certificate in certificates {
        let added = certificate
            .map_err(|error| error.to_string())
            .and_then(|one| store.add(one).map_err(|error| error.to_string()));
        added.map_err(|error| format!("{}: {error}", root.display()))?;
    }
    Ok(builder.with_root_certificates(store).with_no_client_auth())
}

/// sslmode below verify-ca.
#[derive(Debug)]
struct Unverified(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_password_file_counts_if_all_of_it_fits() {
        let wanted = ["db", "5432", "shop", "ann"];
        assert_eq!(password_of(r"db:5432:*:ann:se\:cret:1", &wanted).as_deref(), Some("se:cret:1"));
        assert_eq!(password_of("db:5433:shop:ann:secret", &wanted), None);
        assert_eq!(password_of("# a comment", &wanted), None);
    }

    #[test]
    fn a_mode_that_verifies_is_taken_out_of_the_string() {
        let (text, mode) = without_verifying_mode("postgresql://h/d?sslmode=verify-full");
        assert_eq!((text.as_str(), mode.as_deref()), ("postgresql://h/d?sslmode=require", Some("verify-full")));
    }
}
