//! Deliveries to endpoints outside, over HTTP and (by [`crate::nats::endpoint`]) to brokers: what runs beside the dispatcher's
//! main thread.
//!
//! * [`network`]: what an administrator allows, and which URLs are endpoints; [`guard`]: which addresses may be reached;
//! * [`dial`]: the one way out; [`connector`] and [`tls`] put hyper and rustls on top of it;
//! * [`client`]: one endpoint; [`token`]: OAuth 2;
//! * [`target`]: what the main thread hands over and gets back.

pub mod client;
mod connector;
pub mod dial;
pub mod fault;
pub mod guard;
mod io_thread;
pub mod network;
pub mod target;
#[cfg(test)]
mod tests;
pub mod tls;
mod token;

use std::io;

use crate::handle::Handle;
use network::Network;
use target::{Answered, Attempt, Target};

/// What the main thread asks for.
#[derive(Debug)]
pub enum Request {
    /// An endpoint is there, or has changed.
    Describe {
        endpoint: i64,
        target: Box<Target>,
    },
    Forget {
        endpoint: i64,
    },
    /// An attempt. Its answer has the same token.
    Send {
        token: u64,
        endpoint: i64,
        attempt: Attempt,
    },
    /// Whether a broker would store what has these subjects. Nothing is sent.
    Ask {
        token: u64,
        endpoint: i64,
        subjects: Vec<String>,
    },
}

#[derive(Debug)]
pub enum Report {
    Answered {
        token: u64,
        answered: Answered,
    },
    /// The thread cannot go on.
    Ended(String),
}

pub type HttpIo = Handle<Request, Report>;

/// Starts the thread.
///
/// # Errors
/// If the system has no room for it.
pub fn spawn(network: Network) -> io::Result<HttpIo> {
    Handle::spawn("sea_mq http", move |requests, outbox| io_thread::run(network, requests, outbox))
}
