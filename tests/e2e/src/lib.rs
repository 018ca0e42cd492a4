//! What the end-to-end tests stand on: real PostgreSQL clusters and nats-servers, each in a directory of its own and on
//! a free port, gone when the test ends however it ends.
//!
//! - [`Stage`]: a cluster with the extension and a nats-server, ready to emit; most tests begin with it
//! - [`Cluster`], [`Database`]: a PostgreSQL cluster and a connection to it
//! - [`Clock`]: the wall clock of a cluster that was given one of its own
//! - [`Broker`], [`Stored`]: a nats-server and what its streams hold ([`read`] reads those of any server)
//! - [`clustered`]: the options of several nats-servers that are one cluster
//! - [`Accounts`]: accounts and users as JWTs
//! - [`Line`]: a line to a server with a rate and a delay
//! - [`Receiver`]: an HTTP server that keeps what it gets and answers what a test says
//! - [`mount_small`]: a small file system for a test that fills it
//! - [`Port`]: one of the ports that servers listen on
//! - [`ledger`]: whether a stream holds what it should, once and in order
//! - [`Chance`]: random values that can be had again, for tests that try to break it
//! - [`until`]: waiting for a condition; nothing here sleeps for a time and hopes
//!
//! Like the tests, this panics with a message that says what was being done.
//!
//! Environment: `SEA_MQ_PG_CONFIG` (pg_config of an installation that has the extension), `SEA_MQ_RUN_DIR` (where the
//! servers' directories are made), `SEA_MQ_NATS_DIR` and `SEA_MQ_NATS_MINOR` (where nats-servers of several minors are, and
//! which one is used unless a test names another; without them, `nats-server` of the path), all set by the Makefile.

mod accounts;
mod broker;
mod chance;
mod clock;
mod cluster;
mod database;
mod directory;
pub mod ledger;
mod line;
mod mount;
mod nodes;
mod port;
mod process;
mod receiver;
mod stage;
mod stored;
mod wait;

pub use accounts::Accounts;
pub use broker::{Broker, BrokerOptions, TestCertificates};
pub use chance::Chance;
pub use clock::Clock;
pub use cluster::Cluster;
pub use database::{Connector, Database};
pub use directory::Directory;
pub use line::Line;
pub use mount::{isolate_mounts, mount_small, unmount};
pub use nodes::clustered;
pub use port::Port;
pub use process::{
    children, cpu_seconds, freeze, kill, make_for_server, resident_bytes, service, sleeps, terminate, thaw, title,
};
pub use receiver::{Received, Receiver, Reply};
pub use stage::{EVENTS, Stage, StageOptions};
pub use stored::{Stored, read};
pub use wait::{holds_for, settled, until, until_some};
