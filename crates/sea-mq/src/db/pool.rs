//! Requests as transactions: one each, as the role that asks, and in one trip to the server.

use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime, Timeouts};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use super::call::Ask;
use super::config::Target;
use super::sqlstate::{Meaning, meaning};

/// Limits of one request inside the database, each shorter than the one around it.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub lock: Duration,
    pub statement: Duration,
    /// How long a request waits for a free connection.
    pub pool: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { lock: Duration::from_secs(1), statement: Duration::from_secs(5), pool: Duration::from_secs(2) }
    }
}

/// Whether a request may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
}

/// As whom and on whose account a transaction runs.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// The role in force; `None`: that of the connection.
    pub role: Option<String>,
    /// Whom it claims to act for.
    pub actor: String,
    pub correlation_id: Option<String>,
    pub traceparent: Option<String>,
    pub request_id: String,
}

/// An error of the database, or of the way to it.
#[derive(Clone, Debug)]
pub struct DbError {
    pub sqlstate: String,
    pub message: String,
    pub hint: Option<String>,
    pub detail: Option<String>,
}

impl DbError {
    fn away(message: impl Into<String>) -> Self {
        Self { sqlstate: "08006".into(), message: message.into(), hint: None, detail: None }
    }
}

impl From<tokio_postgres::Error> for DbError {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(db) => Self {
                sqlstate: db.code().code().to_owned(),
                message: db.message().to_owned(),
                hint: db.hint().map(str::to_owned),
                detail: db.detail().map(str::to_owned),
            },
            None => Self::away(error.to_string()),
        }
    }
}

/// The connections of the gateway.
#[derive(Clone)]
pub struct Database {
    pool: Pool,
    limits: Limits,
}

impl Database {
    /// # Errors
    /// When the pool cannot be made.
    pub fn new(target: Target, size: usize, limits: Limits) -> Result<Self, String> {
        let manager =
            Manager::from_config(target.config, target.tls, ManagerConfig { recycling_method: RecyclingMethod::Fast });
        let pool = Pool::builder(manager)
            .max_size(size)
            .runtime(Runtime::Tokio1)
            .timeouts(Timeouts {
                wait: Some(limits.pool),
                create: Some(Duration::from_secs(5)),
                recycle: Some(Duration::from_secs(1)),
            })
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self { pool, limits })
    }

    /// Runs one statement in a transaction of its own. Each row is one text.
    ///
    /// # Errors
    /// What the database says. Where others were in the way, it was tried twice.
    pub async fn run(&self, access: Access, identity: &Identity, ask: &Ask) -> Result<Vec<String>, DbError> {
        match self.attempt(access, identity, ask).await {
            Err(error) if meaning(&error.sqlstate) == Meaning::Again => self.attempt(access, identity, ask).await,
            result => result,
        }
    }

    async fn attempt(&self, access: Access, identity: &Identity, ask: &Ask) -> Result<Vec<String>, DbError> {
        let client = self.pool.get().await.map_err(|error| DbError::away(format!("no connection: {error}")))?;
        transaction(&client, access, identity, self.limits, ask).await
    }

    /// A plain query as the gateway's own role, without a transaction of ours.
    ///
    /// # Errors
    /// What the database says.
    pub async fn own(&self, sql: &str) -> Result<Vec<Row>, DbError> {
        let client = self.pool.get().await.map_err(|error| DbError::away(format!("no connection: {error}")))?;
        Ok(client.query_typed(sql, &[]).await?)
    }
}

/// The first statement of each transaction: who it is, and how long it may take. A role that is more than a role, and one that
/// is not there, become a name that no role has.
const BEGIN_AS: &str = "SELECT set_config('statement_timeout', $2, true), set_config('lock_timeout', $3, true),
    set_config('application_name', 'sea-mq ' || $4, true), set_config('TimeZone', 'UTC', true),
    set_config('sea_mq.actor', $5, true), set_config('sea_mq.correlation_id', $6, true), set_config('sea_mq.traceparent', $7, true),
    CASE WHEN $1 <> '' THEN set_config('role', coalesce((SELECT r.rolname FROM pg_catalog.pg_roles r
        WHERE r.rolname = $1 AND NOT r.rolsuper AND NOT r.rolcreaterole AND NOT r.rolbypassrls), ''), true) END";

/// `BEGIN`, who it is, the statement and `COMMIT`, sent at once: what follows an error does nothing.
///
/// # Errors
/// What the database says of any of them.
pub async fn transaction(
    client: &Client,
    access: Access,
    identity: &Identity,
    limits: Limits,
    ask: &Ask,
) -> Result<Vec<String>, DbError> {
    let begin = match access {
        Access::Read => "BEGIN READ ONLY",
        Access::Write => "BEGIN READ WRITE",
    };
    let texts = [
        identity.role.clone().unwrap_or_default(),
        limits.statement.as_millis().to_string(),
        limits.lock.as_millis().to_string(),
        identity.request_id.clone(),
        identity.actor.clone(),
        identity.correlation_id.clone().unwrap_or_default(),
        identity.traceparent.clone().unwrap_or_default(),
    ];
    let who: Vec<(&(dyn ToSql + Sync), Type)> =
        texts.iter().map(|text| (text as &(dyn ToSql + Sync), Type::TEXT)).collect();
    let params: Vec<(&(dyn ToSql + Sync), Type)> =
        ask.params.iter().map(|param| (param as &(dyn ToSql + Sync), Type::TEXT)).collect();
    let (begun, known, rows, ended) = tokio::join!(
        biased;
        client.batch_execute(begin),
        client.query_typed(BEGIN_AS, &who),
        client.query_typed(&ask.sql, &params),
        client.batch_execute("COMMIT"),
    );
    begun.map_err(|error| on_standby(error.into()))?;
    known.map_err(|error| refused(error.into(), identity))?;
    let rows = rows?;
    ended?;
    rows.iter().map(|row| Ok(row.try_get::<_, Option<String>>(0)?.unwrap_or_else(|| "null".into()))).collect()
}

/// A standby does not begin what may write, and calls that a feature that it has not.
fn on_standby(error: DbError) -> DbError {
    if error.sqlstate != SqlState::FEATURE_NOT_SUPPORTED.code() {
        return error;
    }
    let hint = Some("This server is a standby: ask the gateway of the primary.".into());
    DbError { sqlstate: SqlState::READ_ONLY_SQL_TRANSACTION.code().into(), hint, ..error }
}

/// What `SET ROLE` says is about the caller, and nothing else in that statement can fail.
fn refused(error: DbError, identity: &Identity) -> DbError {
    let is_role = error.sqlstate == SqlState::INVALID_PARAMETER_VALUE.code()
        || error.sqlstate == SqlState::INSUFFICIENT_PRIVILEGE.code();
    match &identity.role {
        Some(role) if is_role => DbError {
            sqlstate: SqlState::INSUFFICIENT_PRIVILEGE.code().into(),
            message: format!("the gateway may not act as role \"{role}\""),
            hint: Some(format!(
                "GRANT {role} TO the gateway's role. It becomes neither superuser nor a role with CREATEROLE or BYPASSRLS."
            )),
            detail: None,
        },
        _ => error,
    }
}
