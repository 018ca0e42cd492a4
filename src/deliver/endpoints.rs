//! Endpoints as they are described, for the dispatcher.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::vault::{self, Label};
use crate::host::spi::{self, Arg, TextRow};
use sea_mq_io::http::target::{Auth, Target};
use sea_mq_io::http::tls::Identity;
use sea_mq_model::deliver::endpoint::Policy;
use sea_mq_model::deliver::order::Ordering;
use sea_mq_model::deliver::schedule::Schedule;

/// The name of the secret that deliveries are signed with.
const SIGNING: &str = "signing";

/// An endpoint as it is described.
#[derive(Clone, Debug, Deserialize)]
pub struct Described {
    pub id: i64,
    pub name: String,
    kind: String,
    url: String,
    pub subject_filters: Vec<String>,
    pub audience: String,
    pub format: String,
    method: String,
    headers: std::collections::BTreeMap<String, String>,
    /// JSON, of format template.
    pub template: Option<String>,
    auth: Option<Value>,
    ordering: String,
    pauses: bool,
    max_in_flight: usize,
    rate: Option<f64>,
    timeout_ms: u64,
    connect_timeout_ms: u64,
    schedule_ms: Option<Vec<u64>>,
    max_age_ms: u64,
    pub max_size: usize,
    keep_response: bool,
    /// Events emitted before this are left out (microseconds since 2000).
    pub start_us: Option<i64>,
    pub paused: bool,
    /// Readers with their contexts.
    pub readers: Vec<(i64, String)>,
    secrets: Vec<Sealed>,
    /// The text that it was read from: another one is another description.
    #[serde(skip)]
    pub print: String,
    /// As it was saved.
    #[serde(skip)]
    pub state: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Sealed {
    name: String,
    version: i64,
    sealed: String,
}

/// All of them.
pub fn all() -> Vec<Described> {
    let rows = spi::query("SELECT * FROM sea_mq.endpoint_descriptions()", &[]);
    let described = |row: &TextRow| {
        let print: String = spi::parsed(row, 0);
        let mut described: Described = serde_json::from_str(&print).ok()?;
        described.print = print;
        described.state = spi::optional(row, 1);
        Some(described)
    };
    rows.iter().filter_map(described).collect()
}

/// The time, as RFC 3339 has it.
pub fn now() -> String {
    let rows = spi::query("SELECT sea_mq.header_time(clock_timestamp())", &[]);
    rows.first().map_or_else(String::new, |row| spi::parsed(row, 0))
}

/// Whether there is one.
pub fn any() -> bool {
    spi::query("SELECT EXISTS (SELECT FROM sea_mq.endpoint_definitions)", &[])
        .first()
        .is_some_and(|row| spi::flag(row, 0))
}

/// Whether they are served here, and not where this database was copied from.
pub fn is_home() -> bool {
    spi::query("SELECT sea_mq.is_home()", &[]).first().is_some_and(|row| spi::flag(row, 0))
}

/// A standby that was promoted takes the place of its primary, if no other relay is in the way.
pub fn come_home() {
    spi::execute("SELECT sea_mq.come_home()", &[]);
}

/// Contexts that came since get their readers.
pub fn begin_new_contexts() {
    spi::execute("SELECT sea_mq.begin_new_contexts()", &[]);
}

impl Described {
    pub fn url(&self) -> String {
        self.url.clone()
    }

    pub fn policy(&self) -> Policy {
        let max_age = Duration::from_millis(self.max_age_ms);
        let schedule = match &self.schedule_ms {
            Some(waits) => Schedule::new(waits.iter().map(|&ms| Duration::from_millis(ms)).collect(), max_age),
            None => Schedule::standard(max_age),
        };
        Policy {
            ordering: self.ordering.parse().unwrap_or(Ordering::Strict),
            max_in_flight: self.max_in_flight,
            rate: self.rate,
            schedule,
            pauses: self.pauses,
        }
    }

    /// Whether it is somebody else's broker.
    pub fn is_broker(&self) -> bool {
        self.kind == "nats"
    }

    /// Whether deliveries wait for each other.
    pub fn is_ordered(&self) -> bool {
        self.ordering != "none"
    }

    /// What is rendered once for all endpoints that have it.
    pub fn rendering(&self) -> (&str, &str, Option<&str>) {
        (&self.audience, &self.format, self.template.as_deref())
    }

    /// # Errors
    /// If a secret cannot be read.
    pub fn target(&self) -> Result<Target, String> {
        let mut target = Target {
            is_broker: self.is_broker(),
            url: self.url.clone(),
            method: self.method.clone(),
            headers: self.headers.clone().into_iter().collect(),
            auth: Auth::None,
            identity: None,
            signing: self.signing()?,
            idempotency: self.kind == "http",
            timeout: Duration::from_millis(self.timeout_ms),
            connect_timeout: Duration::from_millis(self.connect_timeout_ms),
            keep_response: self.keep_response,
            answer: None,
        };
        let Some(auth) = &self.auth else { return Ok(target) };
        let plain = |field: &str| auth.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let secret = |field: &str| self.secret(&plain(field));
        match plain("type").as_str() {
            "basic" => target.auth = Auth::Basic { user: plain("user"), password: secret("password")? },
            "bearer" => target.auth = Auth::Bearer { token: secret("token")? },
            "oauth2" => {
                target.auth = Auth::OAuth2 {
                    token_url: plain("token_url"),
                    client_id: plain("client_id"),
                    client_secret: secret("client_secret")?,
                    scope: auth.get("scope").and_then(Value::as_str).map(str::to_owned),
                }
            }
            "nkey" => target.auth = Auth::NKey { seed: secret("seed")? },
            "creds" => target.auth = Auth::Creds { text: secret("creds")? },
            _ => target.identity = Some(Identity { certificate: secret("certificate")?, key: secret("key")? }),
        }
        Ok(target)
    }

    fn signing(&self) -> Result<Vec<String>, String> {
        let live = self.secrets.iter().filter(|secret| secret.name == SIGNING);
        let secrets: Vec<String> = live.map(|secret| self.open(secret)).collect::<Result<_, _>>()?;
        if self.kind == "webhook" && secrets.is_empty() {
            return Err("the endpoint has no signing secret".into());
        }
        Ok(secrets)
    }

    fn secret(&self, name: &str) -> Result<String, String> {
        let newest = self.secrets.iter().find(|secret| secret.name == name);
        newest.map_or_else(|| Err(format!("the endpoint has no secret \"{name}\"")), |secret| self.open(secret))
    }

    fn open(&self, secret: &Sealed) -> Result<String, String> {
        let bytes: Option<Vec<u8>> = (0..secret.sealed.len() / 2)
            .map(|at| secret.sealed.get(at * 2..at * 2 + 2).and_then(|digits| u8::from_str_radix(digits, 16).ok()))
            .collect();
        let label = Label { endpoint: self.id, name: &secret.name, version: secret.version };
        vault::open(&label, &bytes.unwrap_or_default())
    }
}

/// How an endpoint is doing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Health {
    pub state: String,
    pub error_kind: Option<String>,
    pub error: Option<String>,
    pub hint: Option<String>,
    pub in_flight: i64,
    pub window: i64,
    pub retrying: i64,
    /// Milliseconds.
    pub p50: Option<f64>,
    pub p99: Option<f64>,
}

pub fn save_health(endpoint: i64, health: &Health) {
    let number = |value: Option<f64>| value.map(|value| value.to_string());
    spi::execute(
        "SELECT sea_mq.note_health($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        &[
            Arg::Int8(endpoint),
            Arg::Text(&health.state),
            Arg::OptionalText(health.error_kind.as_deref()),
            Arg::OptionalText(health.error.as_deref()),
            Arg::OptionalText(health.hint.as_deref()),
            Arg::Int8(health.in_flight),
            Arg::Int8(health.window),
            Arg::Int8(health.retrying),
            Arg::OptionalText(number(health.p50).as_deref()),
            Arg::OptionalText(number(health.p99).as_deref()),
        ],
    );
}

/// A delivery was given up, and the endpoint is to pause then.
pub fn pause(endpoint: i64) {
    spi::execute(
        "UPDATE sea_mq.endpoint_definitions SET paused = true WHERE id = $1 AND NOT paused",
        &[Arg::Int8(endpoint)],
    );
}
