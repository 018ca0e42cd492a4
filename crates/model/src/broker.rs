//! The broker port: what the relay asks of the broker's side, and what that side reports back.
//!
//! The relay (which may touch PostgreSQL) and the I/O thread (which may touch the network) share nothing but these
//! values. Requests go one way over an unbounded channel, reports come back over another; neither side ever waits for the
//! other while it holds something that a third party needs.

mod consume;
mod fault;
mod publish;
mod session;
mod streams;

use std::time::Duration;

use uuid::Uuid;

use crate::consume::missed::Gap;
use crate::domain::lease::Claimant;

pub use consume::{ConsumerInfo, ConsumerSpec, DeliverFrom, Delivery, Resume};
pub use fault::{Fault, FaultKind};
pub use publish::{Ack, Outgoing};
pub use session::{BrokerConfig, Expiry, ServerInfo, Standing};
pub use streams::{OWNER_KEY, Page, Retention, Seen, Sighted, Storage, Stored, StreamInfo, StreamSpec};

/// Names one destination of the outbox log: the stable hash of a context's event stream or dead-letter stream.
pub type SinkId = i64;

/// Names one subscription: the key of its row.
pub type SubscriptionId = i64;

/// What the relay asks for. Requests for one stream are carried out in order, those for different streams do not wait for
/// each other. All but `Connect` and `Shutdown` need a live session and are dropped without a report when there is none
/// (the `Disconnected` that ended the session was the report).
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// Ends the present session, if any, and opens a new one. Answered by `Connected` or `Disconnected`.
    Connect(Box<BrokerConfig>),
    /// Creates, updates or verifies a stream. Answered by `StreamReady` or `StreamRefused`.
    EnsureStream { sink: SinkId, spec: Box<StreamSpec> },
    /// Looks whether a stream is still as it was made. Waits for no other request. Answered by `StreamSeen`; not at all if the
    /// stream cannot be seen.
    ReadStream { sink: SinkId, spec: Box<StreamSpec> },
    /// Creates or updates a durable consumer. Answered by `ConsumerReady` or `ConsumerRefused`.
    EnsureConsumer { spec: Box<ConsumerSpec> },
    /// Asks for how long a stream keeps messages, which somebody may have changed. Waits for no other request. Answered by
    /// `MaxAge`; not at all if the stream cannot be seen.
    ReadMaxAge { stream: String },
    /// Looks whether somebody has paused or changed a consumer, and where its stream begins and ends. Waits for no other
    /// request. Answered by `ConsumerSeen`; not at all if the consumer cannot be seen.
    ReadConsumer { spec: Box<ConsumerSpec> },
    /// Asks how many of these sequences the stream with this creation time does not hold any more. Waits for no other request.
    /// Answered by `Counted`; not at all if the stream cannot be seen, or is another one.
    CountRemoved { subscription: SubscriptionId, stream: String, created_us: i64, gaps: Vec<Gap> },
    /// Deletes a stream and what it holds, if it carries the owner's mark and, with `created_us`, is the one that was
    /// created then. Answered by `StreamDeleted`; one that is not there counts as deleted.
    DeleteStream { name: String, owner: Uuid, created_us: Option<i64> },
    /// Deletes a durable consumer, if it carries the owner's mark. Answered by `ConsumerDeleted`; one that is not there
    /// counts as deleted.
    DeleteConsumer { stream: String, name: String, owner: Uuid },
    /// Reads the headers of all messages with a stream sequence above `after`. Answered by `Tail` or `StreamRefused`.
    ReadTail { sink: SinkId, stream: String, after: u64 },
    /// Reads what a stream holds above `after` and up to `upto`, a part of it. Waits for no other request for the stream, nor
    /// the other way round. Answered by `Page`, which says of which comparison it is.
    ReadPage { comparison: u64, stream: String, after: u64, upto: u64 },
    /// Publishes in order. With `expected_last`, the first message is stored only if the stream's last sequence is
    /// that, the second only if it is that plus one, and so on. `batches` says how many messages after each other are
    /// stored all or none; beyond what it says, each is stored alone. Answered by `Acked` (in one or several parts, in
    /// order) and, if something fails, by one `PublishFailed`, after which nothing more is reported for that epoch.
    Publish {
        sink: SinkId,
        epoch: u64,
        stream: String,
        expected_last: Option<u64>,
        messages: Vec<Outgoing>,
        batches: Vec<usize>,
    },
    /// Begins to pull from a durable consumer, until `StopConsuming`. Answered by `Delivered`, over and over, and by one
    /// `ConsumeFailed` if it ends by itself. What an earlier session left without an ack is delivered first, and at
    /// once, not after `ack_wait`. No more than `window` messages wait for their `Ack`, and no more than `bytes` bytes of
    /// them, of this and of every other `Consume` of the session; for those that wait long, the broker is told within
    /// `ack_wait` that they are in progress. Of those bytes no more than `line` are on their way at a time, of this and of
    /// every other `Consume`. A message that is larger than that comes alone, one in the whole session. `fewer_pending`: as in
    /// [`ConsumerSpec`], should the consumer have to be changed.
    Consume {
        subscription: SubscriptionId,
        stream: String,
        consumer: String,
        window: usize,
        bytes: usize,
        line: usize,
        ack_wait: Duration,
        fewer_pending: bool,
    },
    /// Changes `line` of every `Consume` of the session. No answer.
    SetLine { line: usize },
    /// Acknowledges messages, by the tokens that they were delivered with. No answer: a lost ack leads to another
    /// delivery.
    Ack { subscription: SubscriptionId, tokens: Vec<u64> },
    /// Ends pulling. What was delivered and not acknowledged is delivered again by a later `Consume`. No answer.
    StopConsuming { subscription: SubscriptionId },
    /// Looks who has the installation's lease, and with `claim` takes it if that may be. Answered by `Lease`.
    Lease { claimant: Box<Claimant>, claim: bool },
    /// Removes one message from a stream. Answered by `MessageDeleted`; one that is not there counts as removed.
    DeleteMessage { stream: String, sequence: u64 },
    /// Asks for the largest message once more, on a connection of its own: a server that reads its configuration again does not
    /// tell. Forgets what was found out by trying. Answered by `Limit`; not at all if there is no such connection.
    ReadLimit,
    /// Ends the session after the commands already queued were written to the socket.
    Shutdown,
}

/// What the broker's side reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    Connected(ServerInfo),
    /// A connection attempt failed, or the session broke. Nothing of it is reported any more; the relay reconnects.
    Disconnected(Fault),
    StreamReady {
        sink: SinkId,
        info: StreamInfo,
    },
    StreamRefused {
        sink: SinkId,
        fault: Fault,
    },
    StreamSeen {
        sink: SinkId,
        seen: Seen,
    },
    ConsumerReady {
        stream: String,
        name: String,
        info: ConsumerInfo,
    },
    ConsumerRefused {
        stream: String,
        name: String,
        fault: Fault,
    },
    /// `drift`: what differs from the description, in words; empty: nothing.
    ConsumerSeen {
        stream: String,
        name: String,
        info: ConsumerInfo,
        drift: String,
    },
    /// So many of these sequences were removed. `gap`: from the first to the last that was asked about.
    Counted {
        subscription: SubscriptionId,
        gap: Gap,
        removed: u64,
    },
    StreamDeleted {
        name: String,
        result: Result<(), Fault>,
    },
    ConsumerDeleted {
        stream: String,
        name: String,
        result: Result<(), Fault>,
    },
    /// `messages`: in stream order, complete up to `last_sequence`.
    Tail {
        sink: SinkId,
        messages: Vec<Stored>,
        last_sequence: u64,
    },
    Page {
        comparison: u64,
        result: Result<Page, Fault>,
    },
    Acked {
        sink: SinkId,
        epoch: u64,
        acks: Vec<Ack>,
    },
    /// `ahead`: so many messages of the same batch stand before the one at fault, and are not stored either.
    PublishFailed {
        sink: SinkId,
        epoch: u64,
        ahead: usize,
        fault: Fault,
    },
    MaxAge {
        stream: String,
        /// Creation time of the stream in microseconds since the Unix epoch.
        created_us: i64,
        /// `None`: for ever.
        max_age: Option<Duration>,
    },
    /// Messages of one `Consume`, in the order in which the consumer delivers.
    Delivered {
        subscription: SubscriptionId,
        messages: Vec<Delivery>,
    },
    /// Pulling has ended: the consumer is gone, or does not answer. Messages delivered before may still be acknowledged.
    ConsumeFailed {
        subscription: SubscriptionId,
        fault: Fault,
    },
    MessageDeleted {
        stream: String,
        sequence: u64,
        result: Result<(), Fault>,
    },
    Lease {
        standing: Standing,
        /// Whether it was claimed.
        claim: bool,
    },
    /// Another relay says that it has taken the lease.
    LeaseDoubted,
    /// Largest message in bytes, headers included, that the server takes now.
    Limit {
        max_payload: usize,
    },
}
