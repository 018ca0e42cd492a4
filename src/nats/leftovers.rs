//! What an earlier session left without an ack: made due at once instead of after `ack_wait`, and collected in order.
//!
//! The server redelivers by a timer that looks for messages older than `ack_wait`. An update that changes `ack_wait` makes
//! the timer fire 100 ms later (`updateConfig` and `checkPending` in nats-server's `consumer.go`, 2.10 to 2.15). So:
//!
//! ```text
//! ack_wait := 50 ms ──► the timer queues all that is pending ──► ack_wait := as described ──► pull: the queue comes first
//! ```
//!
//! Nothing pulls in between, so nothing is delivered in vain. Should we end in between, the next `Consume` or
//! `EnsureConsumer` restores `ack_wait`; until then the messages merely stay queued. The queue is sorted, except for what
//! was in it already: an earlier session may have ended before it pulled all of it. So all pending messages are collected
//! and sorted before the first is reported, and they are complete when as many have arrived as the server called pending.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::api::Api;
use super::consumers;
use super::delivery::{self, Arrival, Arrived};
use super::inbox::Inbox;
use super::pull::Order;
use crate::broker::Fault;

/// The acknowledgement wait that makes all pending messages due. What is delivered before the update is at least 100 ms
/// old when the timer fires.
const DUE: Duration = Duration::from_millis(50);
/// How long the first attempt waits for the timer; later ones wait longer, since a busy server puts it off.
const PAUSE: Duration = Duration::from_millis(140);
/// How often it is tried. Messages may go to a connection that is dead without the server knowing; what is still missing
/// in the end is redelivered after `ack_wait`.
const ATTEMPTS: u32 = 5;
/// How long a request for what is queued waits, should it be less than expected.
const COLLECT: Duration = Duration::from_secs(1);

/// Brings the consumer to what pulling needs, and returns what it delivered without getting an ack, in stream order.
/// Behind these there may be new messages.
pub(super) async fn collect(api: &Api, order: &Order, inbox: &mut Inbox) -> Result<Vec<Arrived>, Fault> {
    let found = consumers::pullable(api, &order.stream, &order.consumer).await?;
    let config = repaired(&found.config, order.ack_wait);
    let mut state = if config == found.config { found } else { update(api, order, &config).await? };
    inbox.limit(&state.config);

    let mut collected = BTreeMap::new();
    for attempt in 1..=ATTEMPTS {
        if state.info.ack_pending == 0 {
            break;
        }
        update(api, order, &with_ack_wait(&config, DUE.min(order.ack_wait / 2))).await?;
        tokio::time::sleep(PAUSE * attempt).await;
        state = update(api, order, &config).await?;
        // What an earlier attempt collected is pending, so it is queued again.
        collected = pull(inbox, usize::try_from(state.info.ack_pending).unwrap_or(usize::MAX)).await?;
        if collected.range(..=state.delivered).count() as u64 >= state.info.ack_pending {
            break;
        }
        state = consumers::pullable(api, &order.stream, &order.consumer).await?;
        if state.info.ack_pending <= collected.len() as u64 {
            break;
        }
    }
    Ok(collected.into_values().collect())
}

/// Pulls what is queued, at most `count` messages.
async fn pull(inbox: &mut Inbox, count: usize) -> Result<BTreeMap<u64, Arrived>, Fault> {
    let mut collected = BTreeMap::new();
    let mut left = count;
    while left > 0 {
        let mut asked = inbox.request_briefly(left, COLLECT).await?;
        left -= asked;
        while asked > 0 {
            let Ok(message) = tokio::time::timeout(COLLECT * 2, inbox.next()).await else { return Ok(collected) };
            match delivery::read(message?) {
                Arrival::Message(arrived) => {
                    collected.insert(arrived.metadata.sequence, arrived);
                    asked -= 1;
                }
                Arrival::Over(_) => return Ok(collected),
                Arrival::Failed(fault) => return Err(fault),
                Arrival::Alive | Arrival::Stray => {}
            }
        }
    }
    Ok(collected)
}

async fn update(api: &Api, order: &Order, config: &Map<String, Value>) -> Result<consumers::State, Fault> {
    consumers::update(api, &order.stream, &order.consumer, config).await
}

/// The configuration with what would break the promises of pulling put right: an acknowledgement wait that we do not know
/// of, and messages without their bodies.
fn repaired(config: &Map<String, Value>, ack_wait: Duration) -> Map<String, Value> {
    let mut config = with_ack_wait(config, ack_wait);
    config.remove("backoff");
    config.remove("headers_only");
    config
}

fn with_ack_wait(config: &Map<String, Value>, ack_wait: Duration) -> Map<String, Value> {
    let mut config = config.clone();
    config.insert("ack_wait".into(), json!(i64::try_from(ack_wait.as_nanos()).unwrap_or(i64::MAX)));
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_pulling_cannot_live_with_are_put_right() {
        let wait = Duration::from_secs(120);
        let fine = json!({ "durable_name": "c", "ack_wait": 120_000_000_000_i64, "metadata": { "a": "b" } });
        let fine = fine.as_object().unwrap();
        assert_eq!(repaired(fine, wait), *fine);
        let mut other = fine.clone();
        other.insert("ack_wait".into(), json!(50_000_000));
        other.insert("backoff".into(), json!([1, 2]));
        other.insert("headers_only".into(), json!(true));
        assert_eq!(repaired(&other, wait), *fine);
    }
}
