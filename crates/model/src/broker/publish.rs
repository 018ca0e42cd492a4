//! Publishing: what is sent, and what the stream says of it.

use bytes::Bytes;

use crate::domain::header_block::HeaderBlock;

/// One message, ready for the wire except for its expected sequence, which the session adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    pub subject: String,
    pub headers: HeaderBlock,
    pub body: Bytes,
}

/// The server's word that a message is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    pub sequence: u64,
    /// The message was there already; `sequence` is that of the stored one.
    pub duplicate: bool,
}
