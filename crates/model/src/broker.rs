//! The broker port: what the relay asks of the broker's side, and what that side reports back.
//!
//! The relay (which may touch PostgreSQL) and the I/O thread (which may touch the network) share nothing but these
//! values. Requests go one way over an unbounded channel, reports come back over another; neither side ever waits for the
//! other while it holds something that a third party needs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use crate::consume::missed::Gap;
use crate::domain::address::{Urls, redact};
use crate::domain::header_block::HeaderBlock;
use crate::domain::lease::Claimant;

/// Names one destination of the outbox log: the stable hash of a context's event stream or dead-letter stream.
pub type SinkId = i64;

/// Names one subscription: the key of its row.
pub type SubscriptionId = i64;

/// Where the broker is and how to log in to it. Secrets are read from their files by the I/O thread at each connect, so a
/// rotated file takes effect with the next connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrokerConfig {
    /// `nats://host:port` or `tls://host:port`, one or several; credentials in the URL are honoured.
    pub urls: Urls,
    /// NATS `.creds` file (JWT and nkey seed).
    pub credentials_file: Option<PathBuf>,
    /// File whose first line is an nkey seed.
    pub nkey_file: Option<PathBuf>,
    /// User name, together with `password_file`.
    pub user: Option<String>,
    /// File whose first line is the password.
    pub password_file: Option<PathBuf>,
    /// File whose first line is a token.
    pub token_file: Option<PathBuf>,
    /// Require TLS even where the URL's scheme does not say so.
    pub tls_required: bool,
    /// The handshake comes before the server says anything, as its setting `handshake_first` demands.
    pub tls_first: bool,
    /// PEM file of the authorities to trust, instead of the system's.
    pub tls_ca_file: Option<PathBuf>,
    /// PEM file of the client certificate, together with `tls_key_file`.
    pub tls_cert_file: Option<PathBuf>,
    /// PEM file of the client certificate's key.
    pub tls_key_file: Option<PathBuf>,
    /// JetStream domain; `None` for the default one.
    pub jetstream_domain: Option<String>,
    /// Connection name shown in the broker's monitoring.
    pub client_name: String,
    /// The relay that answers on this connection whether it lives; `None`: it is nobody's who can have a lease.
    pub relay: Option<Uuid>,
    /// How long to wait for a connection or for an API answer.
    pub connect_timeout: Duration,
    /// How long the oldest unanswered publish may wait for its ack before everything in flight is given up.
    pub ack_timeout: Duration,
}

/// JetStream retention policy of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    Limits,
    Interest,
    WorkQueue,
}

/// JetStream storage type of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    File,
    Memory,
}

/// A stream as the database describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamSpec {
    pub name: String,
    pub subjects: Vec<String>,
    pub description: String,
    pub retention: Retention,
    /// Zero for no limit.
    pub max_age: Duration,
    /// -1 for no limit.
    pub max_bytes: i64,
    /// -1 for no limit.
    pub max_msgs: i64,
    /// Largest message in bytes, headers included; -1 for the server's own limit.
    pub max_msg_size: i32,
    pub storage: Storage,
    pub replicas: usize,
    pub duplicate_window: Duration,
    /// Allow atomic batch publishing (nats-server 2.12 and later).
    pub allow_atomic: bool,
    /// Whether this installation creates and updates the stream. If not, the stream must exist and is only verified.
    pub managed: bool,
    /// The installation that owns the stream, kept in its metadata under [`OWNER_KEY`].
    pub owner: Uuid,
    /// Take over a stream whose metadata names another owner.
    pub take_over: bool,
    /// Creation time of the stream when it carried the owner's mark: without it, it has lost the mark since.
    pub marked_us: Option<i64>,
    /// Remove copies if it has more than described. Otherwise somebody else has added them, and they are left alone.
    pub fewer_replicas: bool,
}

/// Metadata key under which a stream names the installation that owns it.
pub const OWNER_KEY: &str = "sea_mq.install";

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
    /// The installation that the consumer is for, kept in its metadata under [`OWNER_KEY`].
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

/// One message, ready for the wire except for its expected sequence, which the session adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    pub subject: String,
    pub headers: HeaderBlock,
    pub body: Bytes,
}

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

/// Where a relay stands with regard to its installation's lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has the lease, in this epoch.
    Held(u64),
    /// It may take it.
    Free,
    /// Another relay publishes for the installation.
    Fenced(Fault),
    /// The record cannot be read or written. That is no reason to stop: expected sequences still hold.
    Unknown(Fault),
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

/// The server at the other end of the session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerInfo {
    pub name: String,
    pub version: String,
    /// `host:port`, without credentials.
    pub address: String,
    /// Largest message in bytes, headers included.
    pub max_payload: usize,
    /// What of that which this side has shown it ends first.
    pub expires: Option<Expiry>,
}

/// Until when something is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// The setting that names its file.
    pub setting: &'static str,
    /// In seconds since the Unix epoch.
    pub at: i64,
}

/// A stream as the server describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamInfo {
    pub first_sequence: u64,
    pub last_sequence: u64,
    pub messages: u64,
    pub bytes: u64,
    /// Creation time in microseconds since the Unix epoch: a stream created anew has another.
    pub created_us: i64,
    pub replicas: usize,
    /// Largest message in bytes, headers included, if the stream sets its own limit.
    pub max_msg_size: Option<usize>,
    /// Takes atomic batches.
    pub atomic: bool,
    /// Settings that differ from the description and were left alone: name, (wanted, found).
    pub differences: BTreeMap<String, (String, String)>,
    /// It carries the mark of the installation that asks.
    pub own: bool,
    /// Why the broker did not bring it to its description. It is used as it is.
    pub declined: Option<Fault>,
}

/// A stream as it is found while it is in use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// What is to be put right, or in the way, in words; empty: nothing.
    pub drift: String,
    /// As in [`StreamInfo`].
    pub differences: BTreeMap<String, (String, String)>,
}

/// A message found in a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub sequence: u64,
    /// Its `Nats-Msg-Id`, if it has one.
    pub message_id: Option<String>,
    /// It names the sequence that it expected: in a stream of our own, a relay of ours has published it.
    pub counted: bool,
}

/// A message found in a stream, and what it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighted {
    pub sequence: u64,
    /// Its `Nats-Msg-Id`, if it has one.
    pub message_id: Option<String>,
    /// As in [`Stored`].
    pub counted: bool,
    /// [`crate::domain::content::digest`] of its subject and payload.
    pub digest: u64,
}

/// A part of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// In stream order.
    pub messages: Vec<Sighted>,
    /// They are complete up to this sequence.
    pub upto: u64,
    /// The stream holds nothing before this sequence.
    pub first_sequence: u64,
}

/// The server's word that a message is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    pub sequence: u64,
    /// The message was there already; `sequence` is that of the stored one.
    pub duplicate: bool,
}

/// What went wrong at the broker's side.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    pub kind: FaultKind,
    /// In the words of the server or the client library; without credentials.
    pub message: String,
}

impl Fault {
    pub fn new(kind: FaultKind, message: impl Into<String>) -> Self {
        Self { kind, message: redact(&message.into()) }
    }
}

/// Every fault that the relay tells apart. See [`FaultKind::hint`] for what a person can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// The address, a file or a combination of settings cannot be used as written.
    Settings,
    /// No server answers at the address, or the connection broke.
    Unreachable,
    /// A server answers, and JetStream behind it does not: the server is cut off from its cluster.
    Isolated,
    /// The server refused the credentials.
    Credentials,
    /// The TLS handshake failed.
    Tls,
    /// The account lacks a permission.
    Permission,
    /// JetStream is not enabled for the account.
    NoJetStream,
    /// The stream does not exist, and this installation does not manage it.
    StreamMissing,
    /// The stream that a subscription reads was there, and is gone.
    StreamVanished,
    /// For the moment nobody leads the stream or consumer: its server ends, or another one is elected.
    Leaderless,
    /// The stream exists in a form that cannot be used, or other streams take its subjects.
    StreamConflict,
    /// The stream belongs to another installation.
    StreamOwned,
    /// Another relay publishes for the same installation.
    Fenced,
    /// The stream holds what this installation published and the database does not know.
    Diverged,
    /// The consumer does not exist (any more).
    ConsumerMissing,
    /// The consumer exists in a form that cannot be used.
    ConsumerConflict,
    /// The consumer belongs to another installation.
    ConsumerOwned,
    /// Somebody has paused the consumer in NATS.
    ConsumerPaused,
    /// It does not carry this installation's mark, and was left as it is.
    Foreign,
    /// The stream's last sequence is not the expected one.
    WrongSequence,
    /// The stream remembers the id of a message of a batch, and stores none of it.
    DuplicateInBatch,
    /// The server will not store these messages as one batch.
    BatchRefused,
    /// The connection breaks over a message: its header block cannot be read.
    UnreadableMessage,
    /// The broker cuts the connection while it sends: more waits to be read than it keeps for a client, or for longer.
    SlowConsumer,
    /// The message is larger than the server or the stream takes.
    MessageTooLarge,
    /// The message cannot be written in the protocol's terms: a subject or header that is none.
    InvalidMessage,
    /// The stream or the account is at its limit and discards new messages.
    Full,
    /// The account, or the servers, have no room for one more stream, consumer, copy or connection.
    AccountLimit,
    /// The consumer asks for more unacknowledged messages than the account or the stream allows.
    ConsumerLimit,
    /// No answer in time.
    Timeout,
    /// Anything else that the server said.
    Server,
}

impl FaultKind {
    /// The name of the kind, as in the columns `error_kind`.
    pub const fn token(self) -> &'static str {
        match self {
            Self::Settings => "Settings",
            Self::Unreachable => "Unreachable",
            Self::Isolated => "Isolated",
            Self::Credentials => "Credentials",
            Self::Tls => "Tls",
            Self::Permission => "Permission",
            Self::NoJetStream => "NoJetStream",
            Self::StreamMissing => "StreamMissing",
            Self::StreamConflict => "StreamConflict",
            Self::StreamOwned => "StreamOwned",
            Self::Fenced => "Fenced",
            Self::Diverged => "Diverged",
            Self::ConsumerMissing => "ConsumerMissing",
            Self::ConsumerConflict => "ConsumerConflict",
            Self::ConsumerOwned => "ConsumerOwned",
            Self::ConsumerPaused => "ConsumerPaused",
            Self::Foreign => "Foreign",
            Self::WrongSequence => "WrongSequence",
            Self::DuplicateInBatch => "DuplicateInBatch",
            Self::BatchRefused => "BatchRefused",
            Self::UnreadableMessage => "UnreadableMessage",
            Self::SlowConsumer => "SlowConsumer",
            Self::MessageTooLarge => "MessageTooLarge",
            Self::InvalidMessage => "InvalidMessage",
            Self::Full => "Full",
            Self::AccountLimit => "AccountLimit",
            Self::ConsumerLimit => "ConsumerLimit",
            Self::StreamVanished => "StreamVanished",
            Self::Leaderless => "Leaderless",
            Self::Timeout => "Timeout",
            Self::Server => "Server",
        }
    }

    /// What a person can do about it, or `None` where waiting is all there is to do.
    pub fn hint(self) -> Option<&'static str> {
        Some(match self {
            Self::Settings => "Correct the sea_mq.nats_* settings, then call sea_mq.reload().",
            Self::Unreachable => {
                "Check sea_mq.nats_url and that nats-server runs there; the relay retries by itself. A server with handshake_first needs sea_mq.nats_tls_first."
            }
            Self::Isolated => {
                "Another server is tried by itself. If this stays, look at the cluster: `nats server report jetstream`."
            }
            Self::Credentials => {
                "Check sea_mq.nats_credentials_file, or sea_mq.nats_user and sea_mq.nats_password_file, against the server's accounts."
            }
            Self::Tls => "Check sea_mq.nats_tls_ca_file, sea_mq.nats_tls_cert_file and sea_mq.nats_tls_key_file.",
            Self::Permission => {
                "Allow the account to publish to the context's subjects and to $JS.API.> and to subscribe to _INBOX.>."
            }
            Self::NoJetStream => {
                "Start nats-server with JetStream (-js) and enable it for the account. Behind a leaf node, check its link and sea_mq.nats_jetstream_domain."
            }
            Self::StreamMissing => {
                "Create the stream in NATS, or let sea_mq manage it: sea_mq.alter_stream(name, managed => true)."
            }
            Self::StreamConflict => {
                "Change the stream in NATS or its description with sea_mq.alter_stream until they agree."
            }
            Self::StreamVanished => {
                "If it was renamed or another took its place, call sea_mq.unsubscribe, and sea_mq.subscribe with the new name as source and start_from => 'all': what was handled is not handled again. If it was deleted, have its owner make it again."
            }
            Self::Fenced => {
                "If this database is to publish in the other's place, call sea_mq.adopt(): it then stops the other."
            }
            Self::Diverged => {
                "See sea_mq.stream_divergences for what is missing here; to go on behind it, call sea_mq.adopt()."
            }
            Self::StreamOwned => {
                "If that database is gone, as one of a test run is afterwards, or if this one takes its place, call sea_mq.adopt(): it takes the stream over."
            }
            Self::Full => {
                "If the stream has reached its own limits, raise max_bytes or max_msgs with sea_mq.alter_stream; if the account or the server has no room, lower max_bytes of streams there, which is reserved (10 GB each unless set), or give it more."
            }
            Self::AccountLimit => {
                "Raise the account's limits in NATS (streams, consumers, connections, storage), remove there what nobody needs, or describe fewer replicas or a smaller max_bytes."
            }
            Self::ConsumerLimit => {
                "Lower max_ack_pending with sea_mq.alter_subscription, or raise the limit of the account or of the stream's consumers in NATS."
            }
            Self::InvalidMessage => "Emit it again with a subject and headers that NATS can carry.",
            Self::MessageTooLarge => {
                "Raise max_payload in NATS, the payload limit of the account there, or max_msg_size of the stream, or send less."
            }
            Self::UnreadableMessage => {
                "Look at the stream's next messages with `nats stream get`; remove one with malformed headers with `nats stream rmm`."
            }
            Self::SlowConsumer => {
                "The messages are sound; remove none. Look for \"Slow Consumer\" in nats-server's log: the line is slower, or max_pending and write_deadline there are smaller, than a single message needs. It is tried again by itself."
            }
            Self::ConsumerOwned => {
                "Give the subscription a name of its own; or, if this database takes the other's place, call sea_mq.adopt()."
            }
            Self::ConsumerConflict => {
                "Remove the consumer in NATS, or give the subscription another name; sea_mq then creates a usable one."
            }
            Self::ConsumerPaused => {
                "Resume it in NATS, as in `nats consumer resume STREAM CONSUMER`; what was published meanwhile is delivered then."
            }
            Self::Foreign => "If it is to go, delete it in NATS: sea_mq deletes only what it has made.",
            Self::ConsumerMissing
            | Self::WrongSequence
            | Self::DuplicateInBatch
            | Self::BatchRefused
            | Self::Leaderless
            | Self::Timeout
            | Self::Server => return None,
        })
    }
}
