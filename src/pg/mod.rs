//! All that touches PostgreSQL.
//!
//! Rule of this zone: only the main thread of a process calls into it, and nothing in it waits for the network.

mod api;
mod backends;
mod backlog;
mod batch;
mod capture;
mod catalog;
mod clock;
mod commit;
mod contracts;
mod datum;
mod door;
mod error;
mod exclusive;
mod failures;
mod gucs;
mod handler;
mod init;
mod inquiry;
mod passage;
mod pending;
mod relation;
mod seat;
mod settings;
mod shmem;
mod store;
mod utility;
mod versions;
mod watch;
mod worker;
