//! The thread that sends: one task for each attempt, so that none waits for another.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sea_mq_model::deliver::outcome::FaultKind;
use tokio::sync::mpsc::UnboundedReceiver;

use super::client::{Client, Shared};
use super::fault::Fault;
use super::network::Network;
use super::target::{Answered, Attempt, Target};
use super::{Report, Request};
use crate::handle::Outbox;
use crate::nats::endpoint::Broker;

/// Who speaks to an endpoint.
pub enum Speaker {
    Http(Box<Client>),
    Nats(Box<Broker>),
}

impl Speaker {
    pub fn new(shared: &Shared, target: Target) -> Result<Self, Fault> {
        Ok(if target.is_broker {
            Self::Nats(Box::new(Broker::new(Arc::clone(&shared.roots), target)?))
        } else {
            Self::Http(Box::new(Client::new(shared, target)?))
        })
    }
}

type Speakers = HashMap<i64, Arc<Result<Speaker, Fault>>>;

/// Runs until the channel of requests closes.
pub fn run(network: Network, requests: UnboundedReceiver<Request>, outbox: Outbox<Report>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outbox = Arc::new(outbox);
    match runtime {
        Ok(runtime) => runtime.block_on(serve(network, requests, outbox)),
        Err(error) => outbox.send_all([Report::Ended(format!("cannot start the runtime: {error}"))]),
    }
}

async fn serve(network: Network, mut requests: UnboundedReceiver<Request>, outbox: Arc<Outbox<Report>>) {
    let shared = Shared::new(network);
    let mut speakers = Speakers::new();
    while let Some(request) = requests.recv().await {
        match request {
            Request::Describe { endpoint, target } => {
                let speaker = match &shared {
                    Ok(shared) => Speaker::new(shared, *target),
                    Err(fault) => Err(fault.clone()),
                };
                speakers.insert(endpoint, Arc::new(speaker));
            }
            Request::Forget { endpoint } => _ = speakers.remove(&endpoint),
            Request::Send { token, endpoint, attempt } => {
                let Some(speaker) = speakers.get(&endpoint) else { continue };
                let (speaker, outbox) = (Arc::clone(speaker), Arc::clone(&outbox));
                tokio::spawn(async move {
                    let answered = send(&speaker, attempt).await;
                    outbox.send_all([Report::Answered { token, answered }]);
                });
            }
            Request::Ask { token, endpoint, subjects } => {
                let Some(speaker) = speakers.get(&endpoint) else { continue };
                let (speaker, outbox) = (Arc::clone(speaker), Arc::clone(&outbox));
                tokio::spawn(async move {
                    let answered = ask(&speaker, &subjects).await;
                    outbox.send_all([Report::Answered { token, answered }]);
                });
            }
        }
    }
}

/// Makes one attempt.
pub async fn send(speaker: &Result<Speaker, Fault>, attempt: Attempt) -> Answered {
    match speaker {
        Ok(Speaker::Http(client)) => client.send(attempt).await,
        Ok(Speaker::Nats(broker)) => broker.send(attempt).await,
        Err(fault) => Answered::of_fault(fault.clone(), Duration::ZERO),
    }
}

/// Looks whether a broker would store what has these subjects.
async fn ask(speaker: &Result<Speaker, Fault>, subjects: &[String]) -> Answered {
    match speaker {
        Ok(Speaker::Nats(broker)) => broker.ask(subjects).await,
        Ok(Speaker::Http(_)) => {
            Answered::of_fault(Fault::new(FaultKind::Broken, "only a broker is asked"), Duration::ZERO)
        }
        Err(fault) => Answered::of_fault(fault.clone(), Duration::ZERO),
    }
}
