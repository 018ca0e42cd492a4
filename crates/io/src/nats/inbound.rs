//! The receiving half of a session: which subscriptions consume, and where acks go.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::Semaphore;

use super::api::Api;
use super::io_thread::Reporter;
use super::pull::{self, Order, Pulled};
use super::replies::Replies;
use sea_mq_model::broker::SubscriptionId;

/// What the pulls of a session may take of the process's memory.
#[derive(Debug)]
pub(super) struct Memory {
    /// Bytes that each may have under way: asked for, waiting, or being handled.
    pub(super) share: Cell<usize>,
    /// Bytes that each may have asked for that have not arrived.
    pub(super) line: Cell<usize>,
    /// Held by the one that has a message under way which is larger than its share.
    pub(super) large: Arc<Semaphore>,
}

/// All `Consume`s of a session.
pub(super) struct Inbound<'a> {
    api: Api,
    reporter: &'a Reporter,
    replies: Rc<Replies>,
    memory: Rc<Memory>,
    /// Those that run, and those that failed: what they delivered may still be acknowledged.
    pulled: HashMap<SubscriptionId, Rc<Pulled>>,
    pulls: FuturesUnordered<LocalBoxFuture<'a, ()>>,
}

impl<'a> Inbound<'a> {
    pub(super) fn new(api: Api, reporter: &'a Reporter, replies: Rc<Replies>) -> Self {
        let memory = Rc::new(Memory {
            share: Cell::new(usize::MAX),
            line: Cell::new(usize::MAX),
            large: Arc::new(Semaphore::new(1)),
        });
        Self { api, reporter, replies, memory, pulled: HashMap::new(), pulls: FuturesUnordered::new() }
    }

    /// Begins to pull. A pull of the same subscription ends, and what it delivered is delivered again. `share`: bytes that
    /// this and every other pull may have under way; `line`: those that have not arrived.
    pub(super) fn consume(&mut self, order: Order, share: usize, line: usize) {
        self.memory.share.set(share);
        self.memory.line.set(line);
        let pulled = Rc::new(Pulled::new(&order));
        if let Some(replaced) = self.pulled.insert(order.subscription, Rc::clone(&pulled)) {
            replaced.stop();
        }
        let memory = Rc::clone(&self.memory);
        let run = pull::run(self.api.clone(), order, pulled, Rc::clone(&self.replies), memory, self.reporter);
        // tokio would stop it after 128 messages, and the main thread would be woken for each such part. It yields when
        // its inbox is empty, and the inbox is filled by a task that does not run until it yields.
        self.pulls.push(tokio::task::unconstrained(run).boxed_local());
    }

    /// Changes how much each pull may have asked for that has not arrived.
    pub(super) fn set_line(&self, line: usize) {
        self.memory.line.set(line);
        self.pulled.values().for_each(|pulled| pulled.settled());
    }

    /// Sends acks, and asks for as many new messages.
    pub(super) fn ack(&self, subscription: SubscriptionId, tokens: &[u64]) {
        if let Some(pulled) = self.pulled.get(&subscription) {
            let mut ledger = pulled.ledger.borrow_mut();
            self.replies.ack(tokens.iter().filter_map(|token| ledger.settle(*token)));
            pulled.settled();
        }
    }

    /// Ends pulling and forgets what is not acknowledged.
    pub(super) fn stop(&mut self, subscription: SubscriptionId) {
        if let Some(pulled) = self.pulled.remove(&subscription) {
            pulled.stop();
        }
    }

    /// Lets the pulls work. Returns when one has ended, and `None` if there is none.
    pub(super) async fn run(&mut self) -> Option<()> {
        self.pulls.next().await
    }
}
