//! A connection beside the pool: for what has to come when the pool is exhausted, and must not take from it.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio_postgres::Client;

use super::call::Ask;
use super::config::Target;
use super::pool::{Access, Identity, Limits, transaction};

/// One connection, made when it is needed; one question at a time.
pub struct Probe {
    target: Target,
    patience: Duration,
    client: Mutex<Option<Client>>,
}

impl Probe {
    /// `patience`: how long an answer may take, the connection included.
    pub fn new(target: Target, patience: Duration) -> Self {
        Self { target, patience, client: Mutex::default() }
    }

    /// Reads as a role, or (`None`) as the gateway's own. Rows of one text each.
    ///
    /// # Errors
    /// What the database says, or that it took too long, in words.
    pub async fn ask(&self, role: Option<&str>, purpose: &str, ask: &Ask) -> Result<Vec<String>, String> {
        let identity = Identity { role: role.map(str::to_owned), request_id: purpose.into(), ..Identity::default() };
        tokio::time::timeout(self.patience, self.ask_patiently(&identity, ask))
            .await
            .unwrap_or_else(|_| Err("it took too long".into()))
    }

    async fn ask_patiently(&self, identity: &Identity, ask: &Ask) -> Result<Vec<String>, String> {
        let mut held = self.client.lock().await;
        // Taken out: when this is cancelled, the connection is gone and not in the middle of something.
        let client = match held.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => self.connect().await?,
        };
        let limits = Limits { lock: Duration::from_secs(1), statement: self.patience, pool: self.patience };
        let result = transaction(&client, Access::Read, identity, limits, ask).await;
        *held = Some(client);
        result.map_err(|error| error.message)
    }

    async fn connect(&self) -> Result<Client, String> {
        let (client, connection) =
            self.target.config.connect(self.target.tls.clone()).await.map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        Ok(client)
    }
}
