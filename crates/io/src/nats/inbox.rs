//! The inbox of one pull, and the requests whose messages arrive there.

use std::time::Duration;

use async_nats::{Client, Message, Subject, Subscriber};
use futures_util::{FutureExt, StreamExt};
use serde_json::{Value, json};

use super::api::Api;
use super::errors;
use super::ledger::Wanted;
use sea_mq_model::broker::{Fault, FaultKind};

/// How long the server keeps a request. A request that a lost connection left behind is gone after this at the latest.
pub(super) const EXPIRES: Duration = Duration::from_secs(30);
/// How often the server says that it still has a request.
const HEARTBEAT: Duration = Duration::from_secs(3);

/// Dropping it ends the subscription, and thereby makes the server forget the requests.
#[derive(Debug)]
pub(super) struct Inbox {
    client: Client,
    messages: Subscriber,
    reply: Subject,
    /// Where requests are sent.
    requests: Subject,
    limits: Limits,
}

/// What the consumer's configuration allows a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    batch: usize,
    bytes: usize,
    expires: Duration,
}

impl Inbox {
    pub(super) async fn open(api: &Api, stream: &str, consumer: &str) -> Result<Self, Fault> {
        let client = api.client().clone();
        let reply = Subject::from(client.new_inbox());
        let subscribing = client.subscribe(reply.clone()).await;
        let messages = subscribing.map_err(|error| Fault::new(FaultKind::Server, errors::causes(&error)))?;
        let requests = Subject::from(format!("{}.CONSUMER.MSG.NEXT.{stream}.{consumer}", api.prefix()));
        Ok(Self {
            client,
            messages,
            reply,
            requests,
            limits: Limits { batch: usize::MAX, bytes: usize::MAX, expires: EXPIRES },
        })
    }

    /// Takes the limits from the consumer's configuration.
    pub(super) fn limit(&mut self, config: &serde_json::Map<String, Value>) {
        let positive = |key: &str| config.get(key).and_then(Value::as_u64).filter(|limit| *limit > 0);
        let number = |key: &str| positive(key).and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        let expires = positive("max_expires").map(Duration::from_nanos);
        self.limits = Limits {
            batch: number("max_batch"),
            bytes: number("max_bytes"),
            // The server compares with a clock that has moved on since.
            expires: expires.map_or(EXPIRES, |limit| limit.min(EXPIRES)),
        };
    }

    /// Asks for messages, to be sent as they come. Returns for what: not all is always allowed at once.
    pub(super) async fn request(&self, wanted: Wanted) -> Result<Wanted, Fault> {
        self.send(wanted, self.limits.expires, self.heartbeat()).await
    }

    /// Asks for messages that are there already. Returns for what.
    pub(super) async fn request_briefly(&self, wanted: Wanted, expires: Duration) -> Result<Wanted, Fault> {
        self.send(wanted, expires.min(self.limits.expires), Duration::ZERO).await
    }

    async fn send(&self, wanted: Wanted, expires: Duration, heartbeat: Duration) -> Result<Wanted, Fault> {
        let count = wanted.count.min(self.limits.batch);
        let bytes = wanted.bytes.map(|bytes| bytes.min(self.limits.bytes));
        let mut body = json!({ "batch": count, "expires": nanos(expires) });
        if let Some(bytes) = bytes {
            body["max_bytes"] = json!(bytes);
        }
        if !heartbeat.is_zero() {
            body["idle_heartbeat"] = json!(nanos(heartbeat));
        }
        let sent = self.client.publish_with_reply(self.requests.clone(), self.reply.clone(), body.to_string().into());
        sent.await.map_err(|error| errors::publish_fault(&error))?;
        Ok(Wanted { count, bytes })
    }

    /// How long the server may be silent while it has a request.
    pub(super) fn patience(&self) -> Duration {
        self.heartbeat() * 3
    }

    /// The server refuses an interval of more than half the expiry.
    fn heartbeat(&self) -> Duration {
        HEARTBEAT.min(self.limits.expires / 2)
    }

    /// What arrives next. Nothing more does once the connection is gone.
    pub(super) async fn next(&mut self) -> Result<Message, Fault> {
        let gone = || Fault::new(FaultKind::Unreachable, "the subscription to the consumer's messages has ended");
        self.messages.next().await.ok_or_else(gone)
    }

    /// What arrived already.
    pub(super) fn waiting(&mut self) -> Option<Message> {
        self.messages.next().now_or_never().flatten()
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
