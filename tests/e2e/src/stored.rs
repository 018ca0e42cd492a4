use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::{self, stream::Stream};
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::Value;
use uuid::Uuid;

/// A message as a stream holds it.
#[derive(Clone, Debug)]
pub struct Stored {
    pub sequence: u64,
    pub subject: String,
    pub headers: BTreeMap<String, String>,
    pub body: Bytes,
    /// When the broker stored it, in microseconds since 1970.
    pub stored_at: i128,
}

impl Stored {
    /// A header's value; the empty string if there is none of that name.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The event's id.
    ///
    /// # Panics
    /// When the message has none.
    pub fn id(&self) -> Uuid {
        self.header("Nats-Msg-Id").parse().unwrap_or_else(|_| panic!("no event id: {self:?}"))
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("not JSON ({error}): {self:?}"))
    }

    /// The number that the body carries under `key`.
    ///
    /// # Panics
    /// When there is none.
    pub fn number(&self, key: &str) -> i64 {
        self.json()[key].as_i64().unwrap_or_else(|| panic!("no number {key}: {self:?}"))
    }
}

/// Hands all messages of a stream from `first` (a sequence) on to `take`, in their order.
///
/// # Errors
/// When the broker does not answer, or gives less than it says it has.
pub async fn read(
    stream: &Stream,
    first: u64,
    mut take: impl FnMut(Stored),
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let last = stream.cached_info().state.last_sequence;
    let consumer = stream
        .create_consumer(pull::Config {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: first.max(1) },
            ack_policy: AckPolicy::None,
            inactive_threshold: Duration::from_secs(60),
            ..pull::Config::default()
        })
        .await?;
    // Some sequences may have no message any more.
    let mut left = consumer.cached_info().num_pending;
    while left > 0 {
        let mut batch = consumer.fetch().max_messages(5_000).messages().await?;
        let before = left;
        while let Some(message) = batch.next().await {
            let message = stored(&message.map_err(|error| error.to_string())?)?;
            if message.sequence <= last {
                take(message);
            }
            left = left.saturating_sub(1);
        }
        if left == before {
            return Err(format!("{left} messages are said to be left and do not come").into());
        }
    }
    stream.delete_consumer(&consumer.cached_info().name).await?;
    Ok(())
}

fn stored(message: &jetstream::Message) -> Result<Stored, Box<dyn Error + Send + Sync>> {
    let headers = message.headers.iter().flat_map(|headers| headers.iter()).map(|(name, values)| {
        let values: Vec<&str> = values.iter().map(async_nats::HeaderValue::as_str).collect();
        (name.to_string(), values.join(", "))
    });
    let info = message.info().map_err(|error| error.to_string())?;
    Ok(Stored {
        sequence: info.stream_sequence,
        subject: message.subject.to_string(),
        headers: headers.collect(),
        body: message.payload.clone(),
        stored_at: info.published.unix_timestamp_nanos() / 1000,
    })
}
