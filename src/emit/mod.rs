//! Events on their way into the log: those of the current transaction, and those of captured tables.

pub mod admission;
pub mod capture;
pub mod outbox_limit;
pub mod pending;
