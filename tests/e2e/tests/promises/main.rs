//! The promises of docs/guarantees.md, each against a real cluster and a real nats-server.
//!
//! A test is named after what it promises, and fails when the mechanism behind it is taken out.

mod account_limits;
mod addresses;
mod atomic;
mod atomic_batches;
mod backlog;
mod bloat;
mod budget;
mod calls;
mod capture;
mod cheap_views;
mod clock;
mod cloud_events;
mod clusters;
mod connection;
mod contracts;
mod contracts_in_git;
mod copies;
mod dlq;
mod door;
mod drift;
mod endpoints;
mod endpoints_backlog;
mod endpoints_contract;
mod endpoints_copies;
mod endpoints_faults;
mod endpoints_nats;
mod endpoints_outage;
mod endpoints_secrets;
mod endpoints_servers;
mod examples;
mod failure;
mod far;
mod foreign;
mod fuzz;
mod handlers;
mod hostile;
mod http_handlers;
mod http_handlers_cost;
mod identity;
mod idle;
mod inbox;
mod ingest;
mod leaf;
mod lifecycle;
mod limits;
mod local;
mod marks;
mod message;
mod metrics;
mod names;
mod operate;
mod order;
mod payload_limits;
mod permissions;
mod pool;
mod problems;
mod pull;
mod random_statements;
mod receiving;
mod removed;
mod renames;
mod republish;
mod rights;
mod roles;
mod scaling;
mod shadows;
mod slow_lines;
mod spills;
mod storage;
mod streams;
mod subscriptions;
mod switched;
mod test_databases;
mod utility;
mod verify;
mod workers;
mod writers;

use std::time::Duration;

/// Within which everything that should happen happens, on a slow machine under load.
const SOON: Duration = Duration::from_secs(30);

/// For how long a test looks on while nothing should happen; several times as long as a poll of the relay.
const A_WHILE: Duration = Duration::from_secs(3);
