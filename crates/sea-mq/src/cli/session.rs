//! A session with the database, as the caller's own role.

use std::future::poll_fn;

use serde_json::Value;
use tokio_postgres::error::DbError as DbRemark;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client};

use crate::db::call::Ask;
use crate::db::config;
use crate::db::pool::DbError;

pub struct Session {
    client: Client,
}

impl Session {
    /// # Errors
    /// In words, why there is no connection.
    pub async fn open(connection: Option<&str>) -> Result<Self, String> {
        Self::begin(connection, |_| ()).await
    }

    /// As [`Self::open`], and what the database remarks goes to standard error.
    ///
    /// # Errors
    /// In words, why there is no connection.
    pub async fn telling(connection: Option<&str>) -> Result<Self, String> {
        Self::begin(connection, |remark| eprintln!("{}: {}", remark.severity().to_lowercase(), remark.message())).await
    }

    async fn begin(connection: Option<&str>, remark: fn(&DbRemark)) -> Result<Self, String> {
        let target = config::target(connection)?;
        let connected = target.config.connect(target.tls.clone()).await;
        let (client, mut connection) = connected.map_err(|error| {
            let said = error.as_db_error().map(|db| db.message().to_owned());
            said.unwrap_or_else(|| error.to_string())
        })?;
        tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
                if let AsyncMessage::Notice(notice) = message {
                    remark(&notice);
                }
            }
        });
        let user = std::env::var("USER").unwrap_or_default();
        let prepare = Ask::new(
            "SELECT set_config('TimeZone', 'UTC', false), set_config('application_name', 'sea-mq', false),
            set_config('sea_mq.actor', $1, false)",
        )
        .with(format!("cli:{user}"));
        let session = Self { client };
        session.run(&prepare).await?;
        Ok(session)
    }

    /// Rows of a statement whose first column is JSON.
    ///
    /// # Errors
    /// In words, what the database says.
    pub async fn rows(&self, ask: &Ask) -> Result<Vec<Value>, String> {
        let rows = self.run(ask).await?;
        let text = |row: &tokio_postgres::Row| row.try_get::<_, Option<String>>(0).ok().flatten();
        Ok(rows
            .iter()
            .filter_map(text)
            .map(|text| serde_json::from_str(&text).unwrap_or(Value::String(text)))
            .collect())
    }

    async fn run(&self, ask: &Ask) -> Result<Vec<tokio_postgres::Row>, String> {
        let params: Vec<(&(dyn ToSql + Sync), Type)> =
            ask.params.iter().map(|param| (param as &(dyn ToSql + Sync), Type::TEXT)).collect();
        self.client.query_typed(&ask.sql, &params).await.map_err(|error| said(&error.into()))
    }
}

fn said(error: &DbError) -> String {
    let hint = error.hint.as_ref().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
    let detail = error.detail.as_ref().map(|detail| format!("\n{detail}")).unwrap_or_default();
    format!("{} ({}){detail}{hint}", error.message, error.sqlstate)
}
