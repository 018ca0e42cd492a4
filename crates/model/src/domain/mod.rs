//! Pure values and decisions: no PostgreSQL, no network, no clock of their own.

pub mod address;
pub mod capture;
pub mod clock;
pub mod cloud_event;
pub mod content;
pub mod envelope;
pub mod event;
pub mod header_block;
pub mod headers;
pub mod lease;
pub mod message;
pub mod outcome;
pub mod pace;
pub mod policy;
pub mod position;
pub mod reader;
pub mod retry;
pub mod runs;
pub mod sink;
pub mod subject;

#[cfg(test)]
mod schemas;
