//! Pulling from JetStream and acknowledging as fast as async-nats can, with nothing of sea_mq in the way.

use std::time::{Duration, Instant};

use async_nats::Client;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::stream::Stream;
use async_nats::jetstream::{self, Message};
use futures_util::StreamExt;

use crate::{Outcome, say};

/// How long a message may take to come.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is tried. async-nats 0.51 counts a batch as outstanding only once it has been asked for, so that
/// messages which come before that are counted too early, and `stream()` may ask for nothing more until its request has
/// expired, after 35 s. A figure with that in it would flatter whatever is held against it.
const TRIALS: u32 = 3;
const NAME: &str = "bench__raw";

/// How the messages are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `consumer.stream()`: asks for more while the last ones are still coming.
    Stream,
    /// `consumer.fetch()`, one batch after the other.
    Fetch,
}

impl Form {
    pub const ALL: [Self; 2] = [Self::Stream, Self::Fetch];

    pub const fn label(self) -> &'static str {
        match self {
            Self::Stream => "raw, stream()",
            Self::Fetch => "raw, fetch()",
        }
    }

    pub const fn key(self) -> &'static str {
        match self {
            Self::Stream => "raw_stream",
            Self::Fetch => "raw_fetch",
        }
    }
}

/// So many messages did not come in time.
#[derive(Debug, thiserror::Error)]
#[error("{0} messages do not come")]
struct Stalled(u32);

/// Pulls the first `count` messages of a stream, which must be all that it has for `filter`, through a durable consumer
/// of its own like a subscription's, and acknowledges each. Returns messages per second, from the first message until
/// nats-server has taken the last acknowledgement.
///
/// # Errors
/// When a message does not come, also when it is tried again, comes twice or is not acknowledged.
pub async fn pull(url: &str, stream: &str, filter: &str, form: Form, outstanding: i64, count: u32) -> Outcome<f64> {
    let client = async_nats::connect(url).await?;
    let stream = jetstream::new(client.clone()).get_stream(stream).await?;
    for _ in 1..TRIALS {
        match once(&client, &stream, filter, form, outstanding, count).await {
            Err(error) if error.is::<Stalled>() => say(format!("{}: {error}; once more", form.label())),
            result => return result,
        }
    }
    once(&client, &stream, filter, form, outstanding, count).await
}

async fn once(
    client: &Client,
    stream: &Stream,
    filter: &str,
    form: Form,
    outstanding: i64,
    count: u32,
) -> Outcome<f64> {
    let config = pull::Config {
        durable_name: Some(NAME.into()),
        filter_subject: filter.into(),
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::Explicit,
        ack_wait: Duration::from_secs(120),
        max_ack_pending: outstanding,
        ..pull::Config::default()
    };
    let consumer = stream.create_consumer(config).await?;
    let batch = usize::try_from(outstanding)?;
    let job = Job { client: client.clone(), consumer: consumer.clone(), batch, count, first: None };
    // Off the thread that blocks on the whole run: that one is no worker of the runtime.
    let seconds = match form {
        Form::Stream => tokio::spawn(job.stream()).await?,
        Form::Fetch => tokio::spawn(job.fetch()).await?,
    };
    if seconds.is_ok() {
        check(consumer, count).await?;
    }
    stream.delete_consumer(NAME).await?;
    let seconds = seconds?;
    Ok(f64::from(count - 1) / seconds)
}

/// Whether by nats-server's own books each message was delivered once and acknowledged.
async fn check(mut consumer: PullConsumer, count: u32) -> Outcome<()> {
    let begin = Instant::now();
    loop {
        let info = consumer.info().await?;
        let (delivered, acknowledged) = (info.delivered.consumer_sequence, info.ack_floor.consumer_sequence);
        if (delivered, acknowledged, info.num_pending) == (count.into(), count.into(), 0) {
            return Ok(());
        }
        if begin.elapsed() > PATIENCE {
            return Err(format!("of {count} messages {delivered} were delivered, {acknowledged} acknowledged").into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

struct Job {
    client: Client,
    consumer: PullConsumer,
    /// Messages of one request.
    batch: usize,
    /// Messages still to come.
    count: u32,
    first: Option<Instant>,
}

impl Job {
    async fn stream(mut self) -> Outcome<f64> {
        let mut messages = self.consumer.stream().max_messages_per_batch(self.batch).messages().await?;
        while self.count > 0 {
            let next = tokio::time::timeout(PATIENCE, messages.next()).await.map_err(|_| Stalled(self.count))?;
            self.take(next.ok_or("the messages ended")?.map_err(|error| error.to_string())?).await?;
        }
        self.end().await
    }

    async fn fetch(mut self) -> Outcome<f64> {
        let mut progress = (self.count, Instant::now());
        while self.count > 0 {
            let mut messages = self.consumer.fetch().max_messages(self.batch).messages().await?;
            while let Some(message) = messages.next().await {
                self.take(message.map_err(|error| error.to_string())?).await?;
            }
            // A batch can be empty while acknowledgements are under way.
            if self.count < progress.0 {
                progress = (self.count, Instant::now());
            } else if progress.1.elapsed() > PATIENCE {
                return Err(Stalled(self.count).into());
            }
        }
        self.end().await
    }

    /// Acknowledges a message, without waiting for the server.
    async fn take(&mut self, message: Message) -> Outcome<()> {
        self.first.get_or_insert_with(Instant::now);
        message.ack().await?;
        self.count = self.count.saturating_sub(1);
        Ok(())
    }

    /// Seconds since the first message, once the server has everything that was sent.
    async fn end(self) -> Outcome<f64> {
        self.client.flush().await?;
        Ok(self.first.map_or(0.0, |first| first.elapsed().as_secs_f64()))
    }
}
