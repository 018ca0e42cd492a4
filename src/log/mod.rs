//! The outbox: the ring of slots that events are appended to, who reads it and how far, and what is held back.

pub mod backlog;
pub mod cursors;
pub mod endpoint_progress;
pub mod fate;
pub mod janitor;
pub mod journal;
pub mod outbox;
pub mod positions;
pub mod progress;
pub mod refused;
pub mod ring;
pub mod rows;
pub mod scheduled;
pub mod stream_progress;
pub mod unread;
