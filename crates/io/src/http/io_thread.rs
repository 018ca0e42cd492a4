//! The thread that sends: one task for each attempt, so that none waits for another.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sea_mq_model::deliver::outcome::Answer;
use tokio::sync::mpsc::UnboundedReceiver;

use super::client::{Client, Shared};
use super::fault::Fault;
use super::network::Network;
use super::target::{Answered, Attempt};
use super::{Report, Request};
use crate::handle::Outbox;

type Clients = HashMap<i64, Arc<Result<Client, Fault>>>;

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
    let mut clients = Clients::new();
    while let Some(request) = requests.recv().await {
        match request {
            Request::Describe { endpoint, target } => {
                let client = match &shared {
                    Ok(shared) => Client::new(shared, *target),
                    Err(fault) => Err(fault.clone()),
                };
                clients.insert(endpoint, Arc::new(client));
            }
            Request::Forget { endpoint } => _ = clients.remove(&endpoint),
            Request::Send { token, endpoint, attempt } => {
                let Some(client) = clients.get(&endpoint) else { continue };
                let (client, outbox) = (Arc::clone(client), Arc::clone(&outbox));
                tokio::spawn(async move {
                    let answered = send(&client, attempt).await;
                    outbox.send_all([Report::Answered { token, answered }]);
                });
            }
        }
    }
}

/// Makes one attempt.
pub async fn send(client: &Result<Client, Fault>, attempt: Attempt) -> Answered {
    match client {
        Ok(client) => client.send(attempt).await,
        Err(fault) => Answered {
            answer: Answer::Fault(fault.kind),
            error: Some(fault.message.clone()),
            response: None,
            duration: Duration::ZERO,
        },
    }
}
