//! Event contracts: what the versions of an event type promise to those who read them.
//!
//! Neither PostgreSQL nor NATS is known here, so that the extension, which checks what is emitted, and the command
//! `sea-mq contracts`, which checks a directory of schemas, say the same about the same schema.

pub mod compare;
pub mod event_key;
pub mod exact;
pub mod invalid;
mod keywords;
pub mod lint;
mod metered;
pub mod name;
pub mod schema;
pub mod sensitive;
pub mod set;
pub mod walk;
