//! The tables: one file each, with all SQL text and column numbers of it.

pub mod backlog;
pub mod consumers;
pub mod cursors;
pub mod dlq;
pub mod event_types;
pub mod fate;
pub mod findings;
pub mod inbox;
pub mod installation;
pub mod log;
pub mod positions;
pub mod progress;
pub mod ring;
pub mod rows;
pub mod scheduled;
pub mod spi;
pub mod streams;
pub mod subscriptions;
pub mod unread;
pub mod waiting;
