//! Durable consumers as they should be, and the state of the relay.

use std::time::Duration;

use crate::host::spi::{self, Arg, TextRow};
use sea_mq_model::broker::{ConsumerSpec, DeliverFrom, Fault, ServerInfo};
use sea_mq_model::relay::Phase;

/// Consumers that are still to be created or changed.
pub fn open() -> Vec<ConsumerSpec> {
    let rows = spi::query(
        "SELECT stream, name, filter, (extract(epoch FROM least(ack_wait, '1 day')) * 1000)::bigint, max_deliver, max_ack_pending,
            deliver_policy = 'all', take_over, install_id
         FROM sea_mq.consumers, sea_mq.installation WHERE state = 'pending' ORDER BY stream, name",
        &[],
    );
    let spec = |row: &TextRow| ConsumerSpec {
        stream: spi::parsed(row, 0),
        name: spi::parsed(row, 1),
        filter_subject: spi::parsed(row, 2),
        ack_wait: Duration::from_millis(spi::parsed(row, 3)),
        max_deliver: spi::parsed(row, 4),
        max_ack_pending: spi::parsed(row, 5),
        fewer_pending: false,
        deliver_from: if spi::flag(row, 6) { DeliverFrom::All } else { DeliverFrom::New },
        owner: spi::optional(row, 8).unwrap_or_default(),
        take_over: spi::flag(row, 7),
        with_stream: false,
        resume: None,
    };
    rows.iter().map(spec).collect()
}

/// What was refused is tried again: the stream is there now, or another one.
pub fn reopen(stream: &str) {
    let sql = "UPDATE sea_mq.consumers SET state = 'pending' WHERE stream = $1 AND state = 'refused'";
    spi::execute(sql, &[Arg::Text(stream)]);
}

/// Consumers that are to be removed (stream, name).
pub fn removals() -> Vec<(String, String)> {
    let rows = spi::query("SELECT stream, name FROM sea_mq.consumers WHERE state = 'removing'", &[]);
    rows.iter().map(|row| (spi::parsed(row, 0), spi::parsed(row, 1))).collect()
}

/// Records how provisioning a consumer went.
pub fn save_state(stream: &str, name: &str, fault: Option<&Fault>) {
    spi::execute(
        "UPDATE sea_mq.consumers SET state = $3, error = $4, take_over = take_over AND $4 IS NOT NULL, updated_at = now()
         WHERE stream = $1 AND name = $2 AND state <> 'removing'",
        &[
            Arg::Text(stream),
            Arg::Text(name),
            Arg::Text(if fault.is_some() { "refused" } else { "ready" }),
            Arg::OptionalText(fault.map(|fault| fault.message.as_str())),
        ],
    );
}

/// Notes how the removal of a consumer went: without an error, there is nothing left to remove.
pub fn save_removal(stream: &str, name: &str, error: Option<&str>) {
    let (stream, name) = (Arg::Text(stream), Arg::Text(name));
    match error {
        None => {
            let sql = "DELETE FROM sea_mq.consumers WHERE stream = $1 AND name = $2 AND state = 'removing'";
            spi::execute(sql, &[stream, name])
        }
        Some(error) => {
            let sql = "UPDATE sea_mq.consumers SET error = $3
                WHERE stream = $1 AND name = $2 AND state = 'removing' AND error IS DISTINCT FROM $3";
            spi::execute(sql, &[stream, name, Arg::Text(error)])
        }
    };
}

/// What is wrong with the relay, in words for `sea_mq.relay_status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trouble {
    pub kind: String,
    pub error: String,
    pub hint: Option<String>,
}

impl From<&Fault> for Trouble {
    fn from(fault: &Fault) -> Self {
        Self {
            kind: fault.kind.token().into(),
            error: fault.message.clone(),
            hint: fault.kind.hint().map(str::to_owned),
        }
    }
}

/// Records the state of the relay.
pub fn save_relay(phase: Phase, trouble: Option<&Trouble>, failures: u32, server: Option<&ServerInfo>, pid: i32) {
    let expires = server.and_then(|server| server.expires.as_ref());
    spi::execute(
        "INSERT INTO sea_mq.relay_state AS r
            (state, error_kind, error, hint, failures, server_name, server_version, server_address, max_payload, pid, since,
             expiring_setting, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, clock_timestamp(), $11, to_timestamp($12))
         ON CONFLICT (only_row) DO UPDATE SET state = excluded.state, error_kind = excluded.error_kind, error = excluded.error,
            hint = excluded.hint, failures = excluded.failures, server_name = coalesce(excluded.server_name, r.server_name),
            server_version = coalesce(excluded.server_version, r.server_version),
            server_address = coalesce(excluded.server_address, r.server_address),
            max_payload = coalesce(excluded.max_payload, r.max_payload), pid = excluded.pid, since = excluded.since,
            expiring_setting = CASE WHEN excluded.server_name IS NULL THEN r.expiring_setting ELSE excluded.expiring_setting END,
            expires_at = CASE WHEN excluded.server_name IS NULL THEN r.expires_at ELSE excluded.expires_at END",
        &[
            Arg::Text(phase.token()),
            Arg::OptionalText(trouble.map(|trouble| trouble.kind.as_str())),
            Arg::OptionalText(trouble.map(|trouble| trouble.error.as_str())),
            Arg::OptionalText(trouble.and_then(|trouble| trouble.hint.as_deref())),
            Arg::Int8(i64::from(failures)),
            Arg::OptionalText(server.map(|server| server.name.as_str())),
            Arg::OptionalText(server.map(|server| server.version.as_str())),
            Arg::OptionalText(server.map(|server| server.address.as_str())),
            Arg::OptionalInt8(server.and_then(|server| i64::try_from(server.max_payload).ok())),
            Arg::Int8(i64::from(pid)),
            Arg::OptionalText(expires.map(|expiry| expiry.setting)),
            Arg::OptionalInt8(expires.map(|expiry| expiry.at)),
        ],
    );
}
