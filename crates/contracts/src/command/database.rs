//! The registry of a database, through `sea_mq.import_contracts` and `sea_mq.export_contracts`.

use std::collections::BTreeMap;
use std::str::FromStr;

use postgres::{Client, Config, NoTls};
use serde_json::Value;

pub fn import(url: &str, schemas: BTreeMap<String, Value>) -> Result<Vec<(String, String)>, String> {
    let files = Value::Object(schemas.into_iter().collect()).to_string();
    let mut client = connect(url)?;
    let sql = "SELECT path, result FROM sea_mq.import_contracts($1::text::jsonb)";
    let rows = client.query(sql, &[&files]).map_err(|error| said(&error))?;
    rows.iter().map(|row| Ok((value(row, 0)?, value(row, 1)?))).collect()
}

pub fn export(url: &str) -> Result<Vec<(String, Value)>, String> {
    let sql = "SELECT path, schema::text FROM sea_mq.export_contracts()";
    let rows = connect(url)?.query(sql, &[]).map_err(|error| said(&error))?;
    let read = |row: &postgres::Row| -> Result<(String, Value), String> {
        let path = value(row, 0)?;
        let schema = serde_json::from_str(&value(row, 1)?).map_err(|error| format!("{path}: {error}"))?;
        Ok((path, schema))
    };
    rows.iter().map(read).collect()
}

fn value(row: &postgres::Row, column: usize) -> Result<String, String> {
    row.try_get(column).map_err(|error| said(&error))
}

fn connect(url: &str) -> Result<Client, String> {
    let mut config = Config::from_str(url).map_err(|error| format!("--database: {error}"))?;
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if config.get_hosts().is_empty() {
        config.host(set("PGHOST").as_deref().unwrap_or("localhost"));
    }
    if let (true, Some(port)) = (config.get_ports().is_empty(), set("PGPORT")) {
        config.port(port.parse().map_err(|_| format!("PGPORT is \"{port}\", which is no port"))?);
    }
    if let (None, Some(user)) = (config.get_user(), set("PGUSER").or_else(|| set("USER"))) {
        config.user(&user);
    }
    if let (None, Some(password)) = (config.get_password(), set("PGPASSWORD")) {
        config.password(&password);
    }
    if let (None, Some(database)) = (config.get_dbname(), set("PGDATABASE")) {
        config.dbname(&database);
    }
    // What a version changes since the one before it, for instance.
    config.notice_callback(|notice| eprintln!("{}: {}", notice.severity().to_lowercase(), notice.message()));
    config.application_name("sea-mq-contracts").connect(NoTls).map_err(|error| said(&error))
}

fn said(error: &postgres::Error) -> String {
    let Some(error) = error.as_db_error() else {
        let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
        return format!("{error}{}", cause.unwrap_or_default());
    };
    let hint = error.hint().map(|hint| format!("\n    {hint}")).unwrap_or_default();
    format!("{} ({}){hint}", error.message(), error.code().code())
}
