//! What an earlier session left without an ack: made due at once instead of after `ack_wait`, and collected in order.
//!
//! The server redelivers by a timer that looks for messages older than `ack_wait`. An update that changes `ack_wait` makes
//! the timer fire 100 ms later (`updateConfig` and `checkPending` in nats-server's `consumer.go`, 2.10 to 2.15). So:
//!
//! ```text
//! ack_wait := 50 ms ──► the timer queues all that is pending ──► ack_wait := as described ──► pull: the queue comes first
//! ```
//!
//! Should we end in between, the next `Consume` or `EnsureConsumer` restores `ack_wait`; until then the messages merely stay
//! queued. The queue is sorted, except for what was in it already: an earlier session may have ended before it pulled all of
//! it. So all pending messages are collected and sorted before the first is reported, and they are complete when as many
//! have arrived as the server called pending.
//!
//! It is asked for in parts, so that no more is on its way at a time than the line takes.
//!
//! Where a connection broke without the server's notice, its requests are there still, and come before ours. Then it is
//! tried again until they are used up or have expired.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::api::Api;
use super::consumers::{self, State, Updated};
use super::delivery::{self, Arrival, Arrived};
use super::inbound::Memory;
use super::inbox::{EXPIRES, Inbox};
use super::ledger::Wanted;
use super::pull::Order;
use super::succession::Succession;
use sea_mq_model::broker::Fault;

/// The acknowledgement wait that makes all pending messages due. What is delivered before the update is at least 100 ms
/// old when the timer fires.
const DUE: Duration = Duration::from_millis(50);
/// How long the first attempt waits for the timer; later ones wait longer, since a busy server puts it off.
const PAUSE: Duration = Duration::from_millis(140);
/// How often and for how long it is tried where nobody else has asked for messages. What is still missing then cannot be
/// delivered, as a message that was deleted from the stream; or it comes after `ack_wait`, behind messages that it precedes. So a
/// server that is slow, as one of a cluster that was just started, is given its time.
const ATTEMPTS: u32 = 5;
const AT_LEAST: Duration = Duration::from_secs(15);
/// For how long it is tried where others have: the requests of an earlier session expire meanwhile.
const OTHERS: Duration = EXPIRES.saturating_add(Duration::from_secs(5));
/// How long a request for what is queued waits, should it be less than expected.
const COLLECT: Duration = Duration::from_secs(1);

/// What was collected.
#[derive(Debug)]
pub(super) struct Collected {
    /// By stream sequence. Behind what an earlier session left there may be new messages.
    pub(super) messages: BTreeMap<u64, Arrived>,
    /// Goes on behind the last of them.
    pub(super) succession: Succession,
    /// Some that were delivered meanwhile went elsewhere.
    gaps: bool,
}

/// Brings the consumer to what pulling needs, and returns what it delivered without getting an ack.
pub(super) async fn collect(api: &Api, order: &Order, inbox: &mut Inbox, memory: &Memory) -> Result<Collected, Fault> {
    let began = Instant::now();
    let found = consumers::pullable(api, &order.stream, &order.consumer).await?;
    let config = repaired(&found.config, order.ack_wait);
    let mut state = if config == found.config { found } else { update(api, order, &config).await? };
    inbox.limit(&state.config);

    let mut collected = Collected::behind(&state);
    let mut attempt = 0;
    while state.info.ack_pending > 0 {
        attempt += 1;
        update(api, order, &with_ack_wait(&config, DUE.min(order.ack_wait / 2))).await?;
        tokio::time::sleep(PAUSE * attempt.min(ATTEMPTS)).await;
        state = update(api, order, &config).await?;
        // What an earlier attempt collected is pending, so it is queued again.
        collected = Collected::behind(&state);
        collected.pull(inbox, memory, usize::try_from(state.info.ack_pending).unwrap_or(usize::MAX)).await?;
        if collected.has_all_of(&state) {
            break;
        }
        state = consumers::pullable(api, &order.stream, &order.consumer).await?;
        let acked_since = state.info.ack_pending <= collected.messages.len() as u64 && !collected.gaps;
        let others = state.waiting > 0 && began.elapsed() < OTHERS;
        let tried = attempt >= ATTEMPTS && began.elapsed() >= AT_LEAST;
        if acked_since || (tried && !others) {
            break;
        }
    }
    Ok(collected)
}

impl Collected {
    fn behind(state: &State) -> Self {
        Self { messages: BTreeMap::new(), succession: Succession::after(state.deliveries), gaps: false }
    }

    /// Whether everything is here that the consumer had delivered and called pending.
    fn has_all_of(&self, state: &State) -> bool {
        !self.gaps && self.messages.range(..=state.delivered).count() as u64 >= state.info.ack_pending
    }

    /// Pulls what is queued, at most `count` messages.
    async fn pull(&mut self, inbox: &mut Inbox, memory: &Memory, count: usize) -> Result<(), Fault> {
        let mut left = count;
        while left > 0 {
            let line = memory.line.get();
            let asked = inbox.request_briefly(Wanted { count: left, bytes: Some(line) }, COLLECT).await?;
            let part = self.take(inbox, asked).await?;
            left -= part.count;
            match part.end {
                End::Complete => {}
                End::Over => return Ok(()),
                End::TooLarge if part.count > 0 => {}
                End::TooLarge => {
                    let _alone = memory.large.acquire().await;
                    let asked = inbox.request_briefly(Wanted { count: 1, bytes: None }, COLLECT).await?;
                    match self.take(inbox, asked).await?.end {
                        End::Complete => left -= 1,
                        End::Over | End::TooLarge => return Ok(()),
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes what answers a request.
    async fn take(&mut self, inbox: &mut Inbox, asked: Wanted) -> Result<Part, Fault> {
        let (mut count, mut bytes) = (0, asked.bytes.unwrap_or(usize::MAX));
        while count < asked.count && bytes > 0 {
            let Ok(message) = tokio::time::timeout(inbox.patience(), inbox.next()).await else {
                return Ok(Part { count, end: End::Over });
            };
            match delivery::read(message?) {
                Arrival::Message(arrived) => {
                    bytes = bytes.saturating_sub(arrived.message.length);
                    self.gaps |= !self.succession.arrived(arrived.metadata.number);
                    self.messages.insert(arrived.metadata.sequence, arrived);
                    count += 1;
                }
                Arrival::Over(_) => return Ok(Part { count, end: End::Over }),
                Arrival::TooLarge { .. } => return Ok(Part { count, end: End::TooLarge }),
                Arrival::Failed(fault) => return Err(fault),
                Arrival::Alive(_) | Arrival::Stray => {}
            }
        }
        Ok(Part { count, end: End::Complete })
    }
}

/// What a request brought.
struct Part {
    count: usize,
    end: End,
}

/// How a request ended.
enum End {
    /// All has come that was asked for.
    Complete,
    /// There is nothing more.
    Over,
    /// The next message is larger than what was left of the request.
    TooLarge,
}

async fn update(api: &Api, order: &Order, config: &Map<String, Value>) -> Result<State, Fault> {
    let consumer = Updated { stream: &order.stream, name: &order.consumer, fewer_pending: order.fewer_pending };
    consumers::update_as_allowed(api, consumer, config).await
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
