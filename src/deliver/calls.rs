//! Messages of the inbox that endpoints handle: what is to be called, and what came of it.

use std::time::Duration;

use serde_json::Value;

use super::deliveries::{headers, list};
use crate::host::spi::{self, Arg, TextRow};
use sea_mq_model::deliver::calls::Caller;

/// A subscription that an endpoint handles.
pub struct Described {
    pub id: i64,
    pub name: String,
    pub endpoint: i64,
}

/// A message that is to be handled.
pub struct Call {
    pub id: i64,
    pub message_id: String,
    pub attempt: i64,
    pub body: String,
    pub headers: Vec<(String, String)>,
}

/// All of them.
pub fn described() -> Vec<Described> {
    let rows = spi::query("SELECT * FROM sea_mq.called_subscriptions()", &[]);
    let described =
        |row: &TextRow| Described { id: spi::parsed(row, 0), name: spi::parsed(row, 1), endpoint: spi::parsed(row, 2) };
    rows.iter().map(described).collect()
}

/// What was under way when the process ended is called again.
pub fn give_back() {
    spi::execute("SELECT sea_mq.give_back_calls()", &[]);
}

/// Takes messages of a subscription, of each aggregate the oldest. `flying`: those that it is called for just now. `floor`: no first
/// attempt waits with a smaller number; the new one is returned, if it is known.
pub fn take(subscription: &str, endpoint: i64, max: usize, flying: &[i64], floor: i64) -> (Vec<Call>, Option<i64>) {
    let max = i64::try_from(max).unwrap_or(i64::MAX);
    let rows = spi::execute(
        "SELECT * FROM sea_mq.take_calls($1, $2, $3, $4, $5)",
        &[Arg::Text(subscription), Arg::Int8(endpoint), Arg::Int8(max), Arg::Text(&list(flying)), Arg::Int8(floor)],
    );
    let call = |row: &TextRow| Call {
        id: spi::parsed(row, 0),
        message_id: spi::parsed(row, 1),
        attempt: spi::parsed(row, 2),
        body: spi::parsed(row, 3),
        headers: headers(row.get(4).and_then(Option::as_deref)),
    };
    (rows.iter().map(call).collect(), rows.first().and_then(|row| spi::optional(row, 5)))
}

/// Nobody looks more often than this for what is due and cannot be taken.
const LEAST: u64 = 20;

/// How long until the next is due that is not yet.
pub fn due_in(subscription: &str) -> Option<Duration> {
    let rows = spi::query("SELECT sea_mq.next_call($1)", &[Arg::Text(subscription)]);
    rows.first().and_then(|row| spi::optional::<u64>(row, 0)).map(|wait| Duration::from_millis(wait.max(LEAST)))
}

/// Records what became of messages.
pub fn record(answers: &[Value]) {
    spi::execute("SELECT sea_mq.record_calls($1)", &[Arg::Text(&Value::Array(answers.to_vec()).to_string())]);
}

/// How the calls of a subscription are doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    pub state: &'static str,
    pub error_kind: Option<String>,
    pub error: Option<String>,
    pub hint: Option<String>,
    in_flight: i64,
    window: i64,
}

impl Health {
    pub fn of(caller: &Caller) -> Self {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        Self {
            state: caller.state(),
            error_kind: None,
            error: None,
            hint: None,
            in_flight: number(caller.in_flight()),
            window: number(caller.window()),
        }
    }
}

pub fn save_health(subscription: &str, health: &Health) {
    spi::execute(
        "SELECT sea_mq.note_calls($1, $2, $3, $4, $5, $6, $7)",
        &[
            Arg::Text(subscription),
            Arg::Text(health.state),
            Arg::OptionalText(health.error_kind.as_deref()),
            Arg::OptionalText(health.error.as_deref()),
            Arg::OptionalText(health.hint.as_deref()),
            Arg::Int8(health.in_flight),
            Arg::Int8(health.window),
        ],
    );
}
