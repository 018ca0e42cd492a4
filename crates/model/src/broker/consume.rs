//! Durable consumers: how the database describes them, how the server does, and what they deliver.

use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

/// A durable pull consumer as the database describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerSpec {
    pub stream: String,
    pub name: String,
    pub filter_subject: String,
    pub ack_wait: Duration,
    pub max_deliver: i64,
    pub max_ack_pending: i64,
    /// Nobody has asked for that many: where the account, the stream or the server allows fewer, so many will do.
    pub fewer_pending: bool,
    /// Where a consumer that does not exist yet begins. One that exists goes on where it is.
    pub deliver_from: DeliverFrom,
    /// The installation that the consumer is for, kept in its metadata under [`super::OWNER_KEY`].
    pub owner: Uuid,
    /// Take over a consumer that carries another owner's mark, or none.
    pub take_over: bool,
    /// The name is reserved for whoever owns the stream: where the stream carries our mark, another owner's gives way.
    pub with_stream: bool,
    /// What was handled already by a consumer of this name, should it have been lost. Takes precedence over
    /// `deliver_from`.
    pub resume: Option<Resume>,
}

/// Where a new durable consumer begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliverFrom {
    /// With the stream's first message.
    All,
    /// With the next message to arrive.
    New,
    /// With this stream sequence.
    Sequence(u64),
    /// With the first message stored at this time or later, in microseconds since the Unix epoch.
    Time(i64),
}

/// How far a consumer had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resume {
    /// Creation time of the stream in microseconds since the Unix epoch.
    pub stream_created_us: i64,
    /// Everything up to this stream sequence was handled.
    pub sequence: u64,
}

/// A durable consumer as the server describes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConsumerInfo {
    /// Everything up to this stream sequence was acknowledged.
    pub ack_floor: u64,
    /// Delivered and not acknowledged.
    pub ack_pending: u64,
    /// Not delivered yet.
    pub pending: u64,
    /// Unacknowledged messages that it may have at most; -1 for no limit.
    pub max_ack_pending: i64,
    /// Creation time of its stream in microseconds since the Unix epoch: a stream created anew has another.
    pub stream_created_us: i64,
    /// For how long the stream keeps a message, and may deliver it again; `None` for ever.
    pub stream_max_age: Option<Duration>,
    /// The stream's first and last sequence, as of before the rest.
    pub stream_first: u64,
    pub stream_last: u64,
    /// It gets all that the stream holds, and the stream keeps what was acknowledged.
    pub whole: bool,
    /// Somebody has paused it until then, in microseconds since the Unix epoch.
    pub paused_until_us: Option<i64>,
}

/// A message that a consumer delivers.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Delivery {
    /// Names this delivery in an `Ack`. Unique among the deliveries of one connection.
    pub token: u64,
    /// Stream sequence.
    pub sequence: u64,
    /// How often it was delivered, this time included.
    pub delivered: u64,
    /// When the stream stored it, in microseconds since the Unix epoch.
    pub stored_us: i64,
    /// Messages that the consumer has not delivered yet.
    pub pending: u64,
    pub subject: String,
    /// In no particular order; several values of one name are several entries.
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

impl Delivery {
    /// About how many bytes it takes.
    pub fn size(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.subject.len() + headers + self.body.len()
    }
}
