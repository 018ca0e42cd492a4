use std::future::poll_fn;
use std::ops::Deref;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::types::{FromSql, ToSql};
use tokio_postgres::{AsyncMessage, Client, Config, Connection, NoTls, Socket};
use uuid::Uuid;

/// A connection to a database of the test's cluster; a [`Client`] with what the tests say often.
pub struct Database {
    client: Client,
    notices: Arc<Mutex<Vec<String>>>,
}

impl Deref for Database {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

/// How to connect to a database of the test's cluster; for tasks of their own, which do not have the cluster.
#[derive(Clone)]
pub struct Connector {
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) database: String,
}

impl Connector {
    /// The same as a URL, for programs.
    pub fn url(&self) -> String {
        format!("postgresql://{}@127.0.0.1:{}/{}", self.user, self.port, self.database)
    }

    /// One attempt.
    ///
    /// # Errors
    /// When the server does not take the connection, for instance because it recovers from a crash.
    pub async fn try_connect(&self) -> Result<Database, tokio_postgres::Error> {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.port).user(&self.user).dbname(&self.database).application_name("test");
        let (client, connection) = config.connect(NoTls).await?;
        let notices = Arc::new(Mutex::new(Vec::new()));
        tokio::spawn(drive(connection, Arc::clone(&notices)));
        Ok(Database { client, notices })
    }
}

impl Database {
    /// What the server has said besides its answers, warnings for instance, so far.
    ///
    /// # Panics
    /// Not in practice.
    pub fn notices(&self) -> Vec<String> {
        self.notices.lock().expect("nobody panics with the lock").clone()
    }

    /// Runs statements without parameters.
    ///
    /// # Panics
    /// When one of them fails.
    pub async fn run(&self, sql: &str) {
        if let Err(error) = self.client.batch_execute(sql).await {
            panic!("{sql}: {}", describe(&error));
        }
    }

    /// The one value of the one row of a query.
    ///
    /// # Panics
    /// When the query fails or has another shape.
    pub async fn value<T: for<'a> FromSql<'a>>(&self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> T {
        match self.client.query_one(sql, parameters).await {
            Ok(row) => row.get(0),
            Err(error) => panic!("{sql}: {}", describe(&error)),
        }
    }

    /// The first column of a query's rows.
    ///
    /// # Panics
    /// When the query fails.
    pub async fn values<T: for<'a> FromSql<'a>>(&self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Vec<T> {
        match self.client.query(sql, parameters).await {
            Ok(rows) => rows.iter().map(|row| row.get(0)).collect(),
            Err(error) => panic!("{sql}: {}", describe(&error)),
        }
    }

    /// A row as a JSON object, for views of which a test looks at some columns only.
    ///
    /// # Panics
    /// When the query fails or has not one row.
    pub async fn object(&self, sql: &str) -> Value {
        self.value(&format!("SELECT to_jsonb(r) FROM ({sql}) r"), &[]).await
    }

    /// The SQLSTATE with which a statement fails.
    ///
    /// # Panics
    /// When it does not fail, or not with an error of the server.
    pub async fn refusal(&self, sql: &str) -> SqlState {
        let error = self.client.batch_execute(sql).await.expect_err(sql);
        error.code().unwrap_or_else(|| panic!("{sql}: {error}")).clone()
    }

    /// Emits an event of aggregate type `order` in the database's default context.
    pub async fn emit(&self, aggregate: &str, event_type: &str, payload: Value) -> Uuid {
        self.value("SELECT sea_mq.emit('order', $1, $2, $3)", &[&aggregate, &event_type, &payload]).await
    }
}

/// Ends when the client is dropped or the server goes away; the client's next call reports the latter.
async fn drive(mut connection: Connection<Socket, NoTlsStream>, notices: Arc<Mutex<Vec<String>>>) {
    while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
        if let AsyncMessage::Notice(notice) = message {
            notices.lock().expect("nobody panics with the lock").push(notice.to_string());
        }
    }
}

fn describe(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(
        || error.to_string(),
        |db| format!("{} {} ({})", db.code().code(), db.message(), db.detail().or(db.hint()).unwrap_or("no detail")),
    )
}
