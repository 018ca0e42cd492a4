//! Publishing to JetStream as fast as async-nats can, with nothing of sea_mq in the way.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::{self, ContextBuilder, context::PublishAckFuture, message::PublishMessage};
use async_nats::{Client, HeaderMap, Subject};
use bytes::Bytes;
use futures_util::StreamExt;
use harness::Stored;
use tokio::sync::{Semaphore, mpsc};
use uuid::Uuid;

use crate::Outcome;

/// How long an acknowledgement may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How the publisher has its acknowledgements sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `jetstream::Context::send_publish`: a reply subject and a future for each message.
    SendPublish,
    /// One reply subject for all messages, and the acknowledgements counted as they come. Does less than a publisher
    /// needs that has to know which message was stored, so it is the upper bound.
    OneInbox,
}

impl Form {
    pub const ALL: [Self; 2] = [Self::SendPublish, Self::OneInbox];

    pub const fn label(self) -> &'static str {
        match self {
            Self::SendPublish => "raw, send_publish",
            Self::OneInbox => "raw, one inbox",
        }
    }

    pub const fn key(self) -> &'static str {
        match self {
            Self::SendPublish => "raw_send_publish",
            Self::OneInbox => "raw_one_inbox",
        }
    }

    /// The context that this form publishes in; as long a word as the relay's.
    pub const fn context(self) -> &'static str {
        match self {
            Self::SendPublish => "rawone",
            Self::OneInbox => "rawtwo",
        }
    }
}

/// The message that is published over and over: one that the relay stored.
#[derive(Clone, Debug)]
pub struct Template {
    headers: HeaderMap,
    /// Headers whose value is the event's id.
    with_id: Vec<String>,
    pub body: Bytes,
}

impl Template {
    /// As `stored`, without what the relay adds for its own sake (the expected sequence).
    pub fn of(stored: &Stored) -> Self {
        let id = stored.header("Nats-Msg-Id");
        let mut headers = HeaderMap::new();
        let mut with_id = Vec::new();
        for (name, value) in &stored.headers {
            if name.starts_with("Nats-") && name != "Nats-Msg-Id" {
                continue;
            }
            headers.insert(name.as_str(), value.as_str());
            if value == id {
                with_id.push(name.clone());
            }
        }
        Self { headers, with_id, body: stored.body.clone() }
    }

    /// The same with the headers that a message cannot do without: id, correlation, causation, version.
    pub fn with_four_headers(&self) -> Self {
        const FOUR: [&str; 4] = ["Nats-Msg-Id", "X-Correlation-Id", "X-Causation-Id", "X-Event-Version"];
        let mut headers = HeaderMap::new();
        for name in FOUR {
            // A message that nothing caused is as long as one that something did.
            let value = self.headers.get(name).map_or("01890a5d-ac96-774b-bcce-b302099a8057", |value| value.as_str());
            headers.insert(name, value);
        }
        let with_id = self.with_id.iter().filter(|name| FOUR.contains(&name.as_str())).cloned().collect();
        Self { headers, with_id, body: self.body.clone() }
    }

    /// The headers' names.
    pub fn names(&self) -> Vec<String> {
        self.headers.iter().map(|(name, _)| name.to_string()).collect()
    }

    pub fn headers(&self, id: &str) -> HeaderMap {
        let mut headers = self.headers.clone();
        for name in &self.with_id {
            headers.insert(name.as_str(), id);
        }
        headers
    }
}

/// Publishes `count` messages to `subject` and returns when all are acknowledged; no more than `in_flight` are without
/// an acknowledgement at any time.
///
/// # Errors
/// When a message is refused or not acknowledged in time.
pub async fn publish(
    url: &str,
    form: Form,
    subject: &str,
    template: &Template,
    count: u32,
    in_flight: usize,
) -> Outcome<()> {
    let client = async_nats::connect(url).await?;
    let ids: Vec<String> = (0..count).map(|_| Uuid::now_v7().to_string()).collect();
    let job = Job { client, subject: subject.into(), template: template.clone(), ids, in_flight };
    // Off the thread that blocks on the whole run: that one is no worker of the runtime.
    match form {
        Form::SendPublish => tokio::spawn(job.send_publish()).await?,
        Form::OneInbox => tokio::spawn(job.one_inbox()).await?,
    }
}

struct Job {
    client: Client,
    subject: Subject,
    template: Template,
    ids: Vec<String>,
    in_flight: usize,
}

impl Job {
    async fn send_publish(self) -> Outcome<()> {
        let jetstream: jetstream::Context = ContextBuilder::new()
            .timeout(PATIENCE)
            .max_ack_inflight(self.in_flight)
            .backpressure_on_inflight(true)
            .build(self.client);
        let (sender, mut receiver) = mpsc::unbounded_channel::<PublishAckFuture>();
        let acks = tokio::spawn(async move {
            while let Some(ack) = receiver.recv().await {
                ack.await?;
            }
            Outcome::Ok(())
        });
        for id in &self.ids {
            let message =
                PublishMessage::build().payload(self.template.body.clone()).headers(self.template.headers(id));
            let ack = jetstream.send_publish(self.subject.clone(), message).await?;
            if sender.send(ack).is_err() {
                break;
            }
        }
        drop(sender);
        acks.await?
    }

    async fn one_inbox(self) -> Outcome<()> {
        let inbox: Subject = self.client.new_inbox().into();
        let mut replies = self.client.subscribe(inbox.clone()).await?;
        let room = Arc::new(Semaphore::new(self.in_flight));
        let (count, room_again) = (self.ids.len(), Arc::clone(&room));
        let acks = tokio::spawn(async move {
            let result = async {
                for _ in 0..count {
                    let reply = tokio::time::timeout(PATIENCE, replies.next()).await?.ok_or("the connection ended")?;
                    if reply.payload.windows(7).any(|part| part == b"\"error\"") || reply.status.is_some() {
                        return Err(
                            format!("a message was refused: {}", String::from_utf8_lossy(&reply.payload)).into()
                        );
                    }
                    room_again.add_permits(1);
                }
                Outcome::Ok(())
            };
            let result = result.await;
            room_again.close();
            result
        });
        for id in &self.ids {
            // It is closed by a failure, which the other task reports.
            let Ok(permit) = room.acquire().await else { break };
            permit.forget();
            let headers = self.template.headers(id);
            let body = self.template.body.clone();
            self.client.publish_with_reply_and_headers(self.subject.clone(), inbox.clone(), headers, body).await?;
        }
        acks.await?
    }
}
