//! What `sea-mq serve` is told.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Database to serve, as the role sea_mq_gateway; libpq's environment says it too
    #[arg(long, env = "SEA_MQ_DATABASE", hide_env_values = true)]
    pub database: Option<String>,
    /// Where REST and console are served
    #[arg(long, env = "SEA_MQ_LISTEN", default_value = "127.0.0.1:8642")]
    pub listen: SocketAddr,
    /// Where health and metrics are served
    #[arg(long, env = "SEA_MQ_ADMIN_LISTEN", default_value = "127.0.0.1:8643")]
    pub admin_listen: SocketAddr,
    /// Token that metrics and health ask for
    #[arg(long, env = "SEA_MQ_ADMIN_TOKEN", hide_env_values = true)]
    pub admin_token: Option<String>,
    /// Path under which a proxy serves this, as in /messaging
    #[arg(long, env = "SEA_MQ_BASE_PATH", default_value = "")]
    pub base_path: String,
    /// File of tokens: a JSON object a line, as `sea-mq token` prints it
    #[arg(long, env = "SEA_MQ_TOKENS")]
    pub tokens: Option<PathBuf>,
    /// File with the public keys of JSON Web Tokens (JWKS)
    #[arg(long, env = "SEA_MQ_JWKS")]
    pub jwks: Option<PathBuf>,
    /// `iss` of JSON Web Tokens
    #[arg(long, env = "SEA_MQ_JWT_ISSUER")]
    pub jwt_issuer: Option<String>,
    /// `aud` of JSON Web Tokens
    #[arg(long, env = "SEA_MQ_JWT_AUDIENCE")]
    pub jwt_audience: Option<String>,
    /// Claim that names the role
    #[arg(long, env = "SEA_MQ_JWT_ROLE_CLAIM", default_value = "role")]
    pub jwt_role_claim: String,
    /// File of partners that sign their messages: a JSON object a line
    #[arg(long, env = "SEA_MQ_PARTNERS")]
    pub partners: Option<PathBuf>,
    /// Certificate chain (PEM)
    #[arg(long, env = "SEA_MQ_TLS_CERT", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Private key (PEM)
    #[arg(long, env = "SEA_MQ_TLS_KEY", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Serve without TLS on an address that others can reach
    #[arg(long = "insecure-listen", env = "SEA_MQ_INSECURE_LISTEN")]
    pub insecure: bool,
    /// Connections to the database
    #[arg(long, env = "SEA_MQ_POOL", default_value_t = 8)]
    pub pool: usize,
    /// Threads
    #[arg(long, env = "SEA_MQ_THREADS", default_value_t = 2)]
    pub threads: usize,
    /// Longest statement
    #[arg(long, env = "SEA_MQ_STATEMENT_TIMEOUT", default_value = "5s", value_parser = time)]
    pub statement_timeout: Duration,
    /// Longest wait for a lock
    #[arg(long, env = "SEA_MQ_LOCK_TIMEOUT", default_value = "1s", value_parser = time)]
    pub lock_timeout: Duration,
    /// Longest request
    #[arg(long, env = "SEA_MQ_REQUEST_TIMEOUT", default_value = "10s", value_parser = time)]
    pub request_timeout: Duration,
    /// Bytes of a body
    #[arg(long, env = "SEA_MQ_BODY_LIMIT", default_value_t = 1 << 20)]
    pub body_limit: usize,
    /// Bytes of a body of /event-batches
    #[arg(long, env = "SEA_MQ_BATCH_LIMIT", default_value_t = 8 << 20)]
    pub batch_limit: usize,
    #[command(flatten, next_help_heading = "Traces")]
    pub traces: crate::traces::options::TraceOptions,
}

/// # Errors
/// In words, how a time is written.
pub fn time(text: &str) -> Result<Duration, String> {
    crate::rest::events::duration(text).map_err(|_| "a time as in 5s or 500ms".into())
}

impl Options {
    /// # Errors
    /// In words, what cannot be read.
    pub fn tls(&self) -> Result<Option<Arc<ServerConfig>>, String> {
        let (Some(certificate), Some(key)) = (&self.tls_cert, &self.tls_key) else { return Ok(None) };
        let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
        let chain = chain.map_err(|error| format!("{}: {error}", certificate.display()))?;
        let key = PrivateKeyDer::from_pem_file(key).map_err(|error| format!("{}: {error}", key.display()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| error.to_string())?;
        Ok(Some(Arc::new(config)))
    }
}
