//! The registry of event types and their contracts.

pub mod contracts;
pub mod event_types;
