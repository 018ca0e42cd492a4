//! What runs beside PostgreSQL's main thread: I/O threads and their clients. No `pgrx` and no PostgreSQL.
//!
//! * [`handle`]: how the main thread starts such a thread, asks it for something and hears of it;
//! * [`nats`]: publishing to JetStream and pulling from it;
//! * [`http`]: deliveries to endpoints.

pub mod handle;
pub mod http;
pub mod nats;
mod wake;
