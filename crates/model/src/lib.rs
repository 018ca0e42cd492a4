//! What sea_mq decides, apart from how it is carried out: no PostgreSQL, no NATS, no HTTP. All of it is tested without a server.
//!
//! * [`domain`]: events, messages, positions in the log, and the rules for them;
//! * [`broker`], [`connection`]: what is asked of a broker and what it reports, and when to connect again;
//! * [`relay`]: from the log to the streams;
//! * [`consume`]: from the streams to the handlers;
//! * [`deliver`]: from the log to endpoints outside.

pub mod broker;
pub mod connection;
pub mod consume;
pub mod deliver;
pub mod domain;
pub mod pipeline;
pub mod relay;
