//! What goes wrong at the broker's side, and what a person can do about it.

use crate::domain::address::redact;

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
