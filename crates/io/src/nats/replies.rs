//! Acks and words of progress on their way to the broker. Nobody waits for them, and nothing answers them.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::convert::Infallible;

use async_nats::{Client, Subject};
use bytes::Bytes;
use tokio::sync::Notify;

static ACK: Bytes = Bytes::from_static(b"+ACK");
static IN_PROGRESS: Bytes = Bytes::from_static(b"+WPI");

/// A queue, so that the session does not wait for room in the client's buffer. It holds no more than the windows of all
/// subscriptions together, twice.
#[derive(Debug, Default)]
pub(super) struct Replies {
    queue: RefCell<VecDeque<(Subject, Bytes)>>,
    /// One of them waits for room.
    sending: Cell<bool>,
    /// There is something to send.
    work: Notify,
    /// All is sent.
    drained: Notify,
}

impl Replies {
    pub(super) fn ack(&self, replies: impl IntoIterator<Item = Subject>) {
        self.push(replies, &ACK);
    }

    pub(super) fn in_progress(&self, replies: impl IntoIterator<Item = Subject>) {
        self.push(replies, &IN_PROGRESS);
    }

    fn push(&self, replies: impl IntoIterator<Item = Subject>, word: &Bytes) {
        self.queue.borrow_mut().extend(replies.into_iter().map(|reply| (reply, word.clone())));
        self.work.notify_one();
    }

    /// Whether all was handed to the client.
    pub(super) fn is_empty(&self) -> bool {
        !self.sending.get() && self.queue.borrow().is_empty()
    }

    /// Waits until all was handed to the client.
    pub(super) async fn drained(&self) {
        while !self.is_empty() {
            self.drained.notified().await;
        }
    }

    /// Sends what is queued.
    pub(super) async fn pump(&self, client: &Client) -> Infallible {
        loop {
            let next = self.queue.borrow_mut().pop_front();
            self.sending.set(next.is_some());
            match next {
                // A failure means that the connection is gone, and with it the use of an ack.
                Some((reply, word)) => drop(client.publish(reply, word).await),
                None => {
                    self.drained.notify_one();
                    self.work.notified().await;
                }
            }
        }
    }
}
