//! Streams: how the database describes them, how the server does, and what they hold.

use std::collections::BTreeMap;
use std::time::Duration;

use uuid::Uuid;

use super::Fault;

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
