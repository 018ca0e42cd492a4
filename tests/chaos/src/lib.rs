//! Tries to break sea_mq's promises: writers and subscribers at work, faults alone and in random combination, and a check of
//! what came of it.
//!
//! - [`scene`]: PostgreSQL, nats-server, the databases and subscriptions in them
//! - [`proxy`], [`routes`]: the network between the two, and that between several brokers
//! - [`partner`]: somebody outside who gets events over HTTP
//! - [`workload`], [`transaction`]: sessions that write, clients that receive
//! - [`ledger`]: what the writers know to have committed
//! - [`fault`], [`harm`], [`plan`]: what can be done to the servers; how; which of it, when, from a seed
//! - [`disk`], [`copy`]: disks that can be filled; a dump that is restored beside its original
//! - [`probe`]: how long it takes to get over it
//! - [`check`]: committed = stored = handled, once and in order
//! - [`run`]: all of it; [`soak`]: the load alone, and what it does to memory and disk
//!
//! The harness is that of the end-to-end tests, and so is the rule: whatever is started ends with the value that stands for it,
//! and when this process dies. On failure this panics, and a run catches it.

pub mod check;
pub mod copy;
pub mod disk;
pub mod documented;
pub mod fault;
pub mod harm;
pub mod ledger;
pub mod options;
pub mod partner;
pub mod plan;
pub mod probe;
pub mod proxy;
pub mod routes;
pub mod run;
pub mod scene;
pub mod soak;
pub mod transaction;
pub mod workload;

use std::time::Duration;

/// Within which everything that should happen happens, on a slow machine under load.
pub const LONG: Duration = Duration::from_secs(120);
