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
    payload_around(number, PAYLOAD_BYTES, |length| "m".repeat(length))
}

/// The same with so many bytes, and a note in it that does not compress: PostgreSQL compresses rows beyond 2 kB.
pub fn payload_of(number: &str, bytes: usize) -> String {
    payload_around(number, bytes, noise)
}

/// `note`: makes as many characters as are missing.
fn payload_around(number: &str, bytes: usize, note: impl FnOnce(usize) -> String) -> String {
    let (before, after) = (
        r#"{"order": "#,
        r#", "customer": "Ada Lovelace", "currency": "EUR", "lines": [{"sku": "SM-1001", "quantity": 2, "price": 19.95}, {"sku": "SM-2002", "quantity": 1, "price": 2.60}], "address": {"street": "12 St James Square", "city": "London"}, "note": ""#,
    );
    let note = note(bytes - before.len() - 6 - after.len() - 2);
    format!(r#"('{before}' || {number}::text || '{after}{note}"}}')::jsonb"#)
}

/// So many letters and digits, always the same, in which hardly anything repeats.
fn noise(length: usize) -> String {
    const SIGNS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    // A generator of Knuth's (MMIX), of which the upper bits are the good ones.
    let states = std::iter::successors(Some(1_u64), |state| {
        Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407))
    });
    states.skip(1).take(length).map(|state| char::from(SIGNS[(state >> 33) as usize % SIGNS.len()])).collect()
}

/// An SQL expression that emits an event about order `number` (an expression for six digits).
pub fn emit(number: &str) -> String {
    emit_payload(number, &payload(number))
}

/// The same with a payload of so many bytes, of [`payload_of`].
pub fn emit_of(number: &str, bytes: usize) -> String {
    emit_payload(number, &payload_of(number, bytes))
}

fn emit_payload(number: &str, payload: &str) -> String {
    format!("sea_mq.emit('order', {number}::text, 'OrderPlaced', {payload})")
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
        for (text, bytes) in [
            (payload("N"), PAYLOAD_BYTES),
            (payload_of("N", PAYLOAD_BYTES), PAYLOAD_BYTES),
            (payload_of("N", 2000), 2000),
        ] {
            let text = text.replace("' || N::text || '", "123456");
            let text = text.trim_start_matches("('").trim_end_matches("')::jsonb");
            assert_eq!(text.len(), bytes);
            assert!(serde_json::from_str::<Value>(text).is_ok(), "{text}");
        }
    }
}
