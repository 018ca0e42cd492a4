//! PostgreSQL itself: its C functions, its data and tables, and where its versions differ. Knows nothing of messages.

pub mod backends;
pub mod batch;
pub mod catalog;
pub mod clock;
pub mod datum;
pub mod error;
pub mod passage;
pub mod relation;
pub mod segment;
pub mod versions;
pub mod watch;
