//! What all parts have in common: the servers and the event.

use harness::{Database, Stage, StageOptions};
use serde_json::{Value, json};

use crate::{Outcome, say};

/// Bytes of an event's payload, written as JSON.
pub const PAYLOAD_BYTES: usize = 300;

/// The table whose change comes with the event.
pub const ORDERS: &str =
    "CREATE TABLE orders (id bigserial PRIMARY KEY, number bigint NOT NULL, customer text NOT NULL,
    total numeric NOT NULL, created_at timestamptz NOT NULL DEFAULT now())";

/// Both servers. PostgreSQL syncs to disk, as in production and unlike in the tests.
pub async fn stage(name: &str) -> Stage {
    say(format!("{name}: starting PostgreSQL and nats-server"));
    StageOptions::default().setting("fsync", "on").start(&format!("bench-{name}")).await
}

/// What is running on a stage, for the report.
pub async fn versions(stage: &Stage) -> Outcome<Value> {
    let db = stage.connect().await;
    let postgres: String = db.value("SHOW server_version", &[]).await;
    let extension: String = db.value("SELECT extversion FROM pg_extension WHERE extname = 'sea_mq'", &[]).await;
    let nats = stage.broker.jetstream().client().server_info().version;
    say(format!("PostgreSQL {postgres}, sea_mq {extension}, nats-server {nats}"));
    Ok(json!({ "postgresql": postgres, "sea_mq": extension, "nats_server": nats }))
}

/// An SQL expression for a payload of [`PAYLOAD_BYTES`]; `number` is one for six digits. It is text that is made
/// jsonb at run time, like a parameter that an application sends.
pub fn payload(number: &str) -> String {
    let (before, after) = (
        r#"{"order": "#,
        r#", "customer": "Ada Lovelace", "currency": "EUR", "lines": [{"sku": "SM-1001", "quantity": 2, "price": 19.95}, {"sku": "SM-2002", "quantity": 1, "price": 2.60}], "address": {"street": "12 St James Square", "city": "London"}, "note": ""#,
    );
    let note = "m".repeat(PAYLOAD_BYTES - before.len() - 6 - after.len() - 2);
    format!(r#"('{before}' || {number}::text || '{after}{note}"}}')::jsonb"#)
}

/// An SQL expression that emits an event about order `number` (an expression for six digits).
pub fn emit(number: &str) -> String {
    format!("sea_mq.emit('order', {number}::text, 'OrderPlaced', {})", payload(number))
}

/// Whether every event of the log is published, as of the cursors last saved.
pub async fn is_drained(db: &Database) -> bool {
    pending(db).await == 0
}

/// Events that wait for the relay; counted up to some ten thousand.
pub async fn pending(db: &Database) -> i64 {
    db.value("SELECT coalesce(sum(pending), 0)::bigint FROM sea_mq.outbox_status", &[]).await
}

/// Stops the relay and waits until it is gone.
pub async fn stop_relay(stage: &Stage) {
    stage.connect().await.run("SELECT sea_mq.stop()").await;
    let limit = std::time::Duration::from_secs(30);
    harness::until("the relay has stopped", limit, async || stage.relays().await.is_empty()).await;
}

/// Starts the relay and waits until it is connected.
pub async fn start_relay(stage: &Stage) {
    stage.connect().await.run("SELECT sea_mq.start()").await;
    stage.until_connected().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_has_its_size() {
        let text = payload("N").replace("' || N::text || '", "123456");
        let text = text.trim_start_matches("('").trim_end_matches("')::jsonb");
        assert_eq!(text.len(), PAYLOAD_BYTES);
        assert!(serde_json::from_str::<Value>(text).is_ok(), "{text}");
    }
}
