//! The session with the broker: where it is, who answers there, and who has the lease.

use std::path::PathBuf;
use std::time::Duration;

use uuid::Uuid;

use super::Fault;
use crate::domain::address::Urls;

/// Where the broker is and how to log in to it. Secrets are read from their files by the I/O thread at each connect, so a
/// rotated file takes effect with the next connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrokerConfig {
    /// `nats://host:port` or `tls://host:port`, one or several; credentials in the URL are honoured.
    pub urls: Urls,
    /// NATS `.creds` file (JWT and nkey seed).
    pub credentials_file: Option<PathBuf>,
    /// File whose first line is an nkey seed.
    pub nkey_file: Option<PathBuf>,
    /// User name, together with `password_file`.
    pub user: Option<String>,
    /// File whose first line is the password.
    pub password_file: Option<PathBuf>,
    /// File whose first line is a token.
    pub token_file: Option<PathBuf>,
    /// Require TLS even where the URL's scheme does not say so.
    pub tls_required: bool,
    /// The handshake comes before the server says anything, as its setting `handshake_first` demands.
    pub tls_first: bool,
    /// PEM file of the authorities to trust, instead of the system's.
    pub tls_ca_file: Option<PathBuf>,
    /// PEM file of the client certificate, together with `tls_key_file`.
    pub tls_cert_file: Option<PathBuf>,
    /// PEM file of the client certificate's key.
    pub tls_key_file: Option<PathBuf>,
    /// JetStream domain; `None` for the default one.
    pub jetstream_domain: Option<String>,
    /// Connection name shown in the broker's monitoring.
    pub client_name: String,
    /// The relay that answers on this connection whether it lives; `None`: it is nobody's who can have a lease.
    pub relay: Option<Uuid>,
    /// How long to wait for a connection or for an API answer.
    pub connect_timeout: Duration,
    /// How long the oldest unanswered publish may wait for its ack before everything in flight is given up.
    pub ack_timeout: Duration,
}

/// Where a relay stands with regard to its installation's lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has the lease, in this epoch.
    Held(u64),
    /// It may take it.
    Free,
    /// Another relay publishes for the installation.
    Fenced(Fault),
    /// The record cannot be read or written. That is no reason to stop: expected sequences still hold.
    Unknown(Fault),
}

/// The server at the other end of the session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerInfo {
    pub name: String,
    pub version: String,
    /// `host:port`, without credentials.
    pub address: String,
    /// Largest message in bytes, headers included.
    pub max_payload: usize,
    /// What of that which this side has shown it ends first.
    pub expires: Option<Expiry>,
}

/// Until when something is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// The setting that names its file.
    pub setting: &'static str,
    /// In seconds since the Unix epoch.
    pub at: i64,
}
