//! The admin listener: `/livez`, `/readyz`, `/metrics`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::Value;
use tokio::net::TcpListener;

use super::App;
use super::log;
use crate::db::call::Ask;
use crate::db::probe::Probe;

/// How long metrics may take.
const PATIENCE: Duration = Duration::from_secs(5);
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone)]
struct Admin {
    app: Arc<App>,
    /// Of their own, so that metrics come when the pool is exhausted.
    probe: Arc<Probe>,
}

pub async fn serve(listener: TcpListener, app: Arc<App>) {
    let probe = Arc::new(Probe::new(app.target.clone(), PATIENCE));
    let admin = Admin { app, probe };
    let router = Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(admin);
    if let Err(error) = axum::serve(listener, router).await {
        log::event("error", &format!("the admin listener has ended: {error}"));
    }
}

impl Admin {
    fn may(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.app.options.admin_token else { return true };
        headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()) == Some(&format!("Bearer {token}"))
    }

    /// Rows of one text each.
    async fn ask(&self, role: Option<&str>, sql: &str) -> Result<Vec<String>, String> {
        self.probe.ask(role, "metrics", &Ask::new(sql)).await
    }
}

/// The database and a version of the extension that this speaks to; never the broker.
async fn ready(State(admin): State<Admin>, headers: HeaderMap) -> Response {
    if !admin.may(&headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    if *admin.app.ending.borrow() {
        return (StatusCode::SERVICE_UNAVAILABLE, "ending\n").into_response();
    }
    let own = env!("CARGO_PKG_VERSION");
    let sql = "SELECT e.extversion FROM pg_catalog.pg_extension e WHERE e.extname = 'sea_mq'";
    let (status, text) = match admin.ask(None, sql).await {
        Ok(rows) => match rows.first() {
            Some(version) if compatible(version, own) => (StatusCode::OK, format!("ok: sea_mq {version}\n")),
            Some(version) => {
                (StatusCode::SERVICE_UNAVAILABLE, format!("the extension is version {version}, and this is {own}\n"))
            }
            None => (StatusCode::SERVICE_UNAVAILABLE, "the extension is not installed in this database\n".to_owned()),
        },
        Err(error) => {
            log::event("warning", &format!("not ready: {error}"));
            (StatusCode::SERVICE_UNAVAILABLE, "the database is not reachable\n".to_owned())
        }
    };
    (status, text).into_response()
}

/// Before 1.0, versions fit together whose first two numbers are the same.
fn compatible(extension: &str, own: &str) -> bool {
    let start = |version: &str| version.split('.').take(2).map(str::to_owned).collect::<Vec<_>>();
    start(extension) == start(own)
}

async fn metrics(State(admin): State<Admin>, headers: HeaderMap) -> Response {
    if !admin.may(&headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let text = match admin.ask(Some("sea_mq_viewer"), "SELECT to_jsonb(m)::text FROM sea_mq.metrics() m").await {
        Ok(rows) => {
            let mut text =
                "# TYPE sea_mq_up gauge\n# HELP sea_mq_up Whether the database answers\nsea_mq_up 1\n".to_owned();
            text += &samples(&rows);
            admin.app.meter.write(&mut text);
            text
        }
        Err(error) => {
            log::event("warning", &format!("no metrics: {error}"));
            "# TYPE sea_mq_up gauge\n# HELP sea_mq_up Whether the database answers\nsea_mq_up 0\n".to_owned()
        }
    };
    ([(header::CONTENT_TYPE, OPENMETRICS)], text + "# EOF\n").into_response()
}

/// A family's samples stand together, under its name without what the type adds.
fn samples(rows: &[String]) -> String {
    let mut families: BTreeMap<String, (String, String, Vec<String>)> = BTreeMap::new();
    for row in rows.iter().filter_map(|row| serde_json::from_str::<Value>(row).ok()) {
        let of = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
        let (name, kind) = (of("name"), of("type"));
        let family = family(&name, &kind).to_owned();
        let entry = families.entry(family).or_insert_with(|| (kind, of("help"), Vec::new()));
        entry.2.push(format!("{name}{} {}", labels(&row["labels"]), row["value"].as_f64().unwrap_or(f64::NAN)));
    }
    families.into_iter().fold(String::new(), |mut text, (family, (kind, help, lines))| {
        let _ = writeln!(text, "# TYPE {family} {kind}\n# HELP {family} {help}\n{}", lines.join("\n"));
        text
    })
}

fn family<'a>(name: &'a str, kind: &str) -> &'a str {
    let endings: &[&str] = match kind {
        "counter" => &["_total"],
        "histogram" => &["_bucket", "_count", "_sum"],
        _ => &[],
    };
    endings.iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name)
}

fn labels(labels: &Value) -> String {
    let Some(labels) = labels.as_object().filter(|labels| !labels.is_empty()) else { return String::new() };
    let escape = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let pairs: Vec<String> = labels
        .iter()
        .map(|(name, value)| format!("{name}=\"{}\"", escape(value.as_str().unwrap_or(&value.to_string()))))
        .collect();
    format!("{{{}}}", pairs.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_have_one_head_and_their_samples_below() {
        let rows = [
            r#"{"name":"a_total","type":"counter","help":"A","labels":{"stream":"x\"y"},"value":2}"#,
            r#"{"name":"b","type":"gauge","help":"B","labels":{},"value":0.5}"#,
            r#"{"name":"a_total","type":"counter","help":"A","labels":{"stream":"z"},"value":3}"#,
        ];
        let text = samples(&rows.map(str::to_owned));
        assert_eq!(
            text,
            "# TYPE a counter\n# HELP a A\na_total{stream=\"x\\\"y\"} 2\na_total{stream=\"z\"} 3\n# TYPE b gauge\n# HELP b B\nb 0.5\n"
        );
    }

    #[test]
    fn versions_fit_by_their_first_two_numbers() {
        assert!(compatible("0.1.4", "0.1.0") && !compatible("0.2.0", "0.1.0"));
    }
}
