//! Against real servers on this machine: names, addresses, TLS, and everything that a server can do to a client.

mod http2;
mod names;
mod servers;
mod stand;
mod tls;

use std::time::Duration;

use bytes::Bytes;
use sea_mq_model::deliver::outcome::{Answer, FaultKind};

use super::client::Shared;
use super::io_thread::{Speaker, send};
use super::network::Network;
use super::target::{Answered, Attempt, Target};

/// As many milliseconds as a test waits for what does not come.
const SHORT: Duration = Duration::from_millis(400);

fn network() -> Network {
    Network { allowed: vec!["127.0.0.0/8".parse().unwrap()], allow_http: true, ..Network::default() }
}

fn target(url: String) -> Target {
    Target { url, method: "POST".into(), timeout: SHORT * 10, connect_timeout: SHORT * 5, ..Target::default() }
}

fn attempt() -> Attempt {
    let headers = vec![("content-type".into(), "application/json".into())];
    Attempt { id: "01890a5d-ac96-774b-bcce-b302099a8070".into(), body: Bytes::from_static(b"{\"a\":1}"), headers }
}

/// One attempt at a target.
async fn try_once(network: Network, target: Target) -> Answered {
    let speaker = match Shared::new(network) {
        Ok(shared) => Speaker::new(&shared, target),
        Err(fault) => Err(fault),
    };
    send(&speaker, attempt()).await
}

fn status(answered: &Answered) -> Option<u16> {
    match answered.answer {
        Answer::Status { code, .. } => Some(code),
        Answer::Stored | Answer::Fault(_) => None,
    }
}

fn fault(answered: &Answered) -> Option<FaultKind> {
    match answered.answer {
        Answer::Stored | Answer::Status { .. } => None,
        Answer::Fault(kind) => Some(kind),
    }
}
