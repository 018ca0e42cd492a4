//! One `Consume`: pulls from a durable consumer until it is told to stop, or cannot go on.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::Message;
use tokio::sync::{Notify, OwnedSemaphorePermit};

use super::api::Api;
use super::consumers;
use super::delivery::{self, Arrival};
use super::inbound::Memory;
use super::inbox::Inbox;
use super::io_thread::Reporter;
use super::ledger::Ledger;
use super::leftovers;
use super::replies::Replies;
use super::session::until;
use super::succession::Succession;
use sea_mq_model::broker::{Delivery, Fault, FaultKind, Report, SubscriptionId};

/// How long a request for one large message waits.
const LARGE: Duration = Duration::from_secs(5);
/// Messages taken at once before they are reported.
const AT_ONCE: usize = 512;

/// What a `Consume` asks for.
#[derive(Clone, Debug)]
pub(super) struct Order {
    pub(super) subscription: SubscriptionId,
    pub(super) stream: String,
    pub(super) consumer: String,
    pub(super) window: usize,
    pub(super) ack_wait: Duration,
    /// Nobody has asked for as many unacknowledged messages as the consumer has.
    pub(super) fewer_pending: bool,
}

/// What the pull shares with the session, which settles its messages and ends it.
#[derive(Debug)]
pub(super) struct Pulled {
    pub(super) ledger: RefCell<Ledger>,
    stopped: Cell<bool>,
    /// There is room, or an end.
    changed: Notify,
}

impl Pulled {
    pub(super) fn new(order: &Order) -> Self {
        let ledger = RefCell::new(Ledger::new(order.window, order.ack_wait));
        Self { ledger, stopped: Cell::new(false), changed: Notify::new() }
    }

    /// Ends the pull. It reports nothing after this.
    pub(super) fn stop(&self) {
        self.stopped.set(true);
        self.changed.notify_one();
    }

    /// Says that messages were settled.
    pub(super) fn settled(&self) {
        self.changed.notify_one();
    }
}

/// Pulls, and reports the end if it comes by itself.
pub(super) async fn run(
    api: Api,
    order: Order,
    pulled: Rc<Pulled>,
    replies: Rc<Replies>,
    memory: Rc<Memory>,
    reporter: &Reporter,
) {
    let subscription = order.subscription;
    let report = |report| {
        if !pulled.stopped.get() {
            reporter.report(report);
        }
    };
    let work = async {
        let puller = begin(&api, &order, &pulled, &replies, &memory, &report).await?;
        puller.pull().await
    };
    if let Err(fault) = api.permitted_on(&order.stream, &order.consumer, work).await
        && !pulled.stopped.get()
    {
        let fault = reason(&api, &order, fault).await;
        report(Report::ConsumeFailed { subscription, fault });
    }
}

/// Takes over what an earlier session left. A stop is heeded only after that, so that the consumer is not left half done.
async fn begin<'a, R: Fn(Report)>(
    api: &Api,
    order: &'a Order,
    pulled: &'a Pulled,
    replies: &'a Replies,
    memory: &'a Memory,
    report: &'a R,
) -> Result<Puller<'a, R>, Fault> {
    let exclusive = api.exclusive(&order.stream, &order.consumer).await;
    let mut inbox = Inbox::open(api, &order.stream, &order.consumer).await?;
    let mut succession = Succession::after(0);
    // Whoever replaced us while we waited begins by collecting what we would collect.
    if !pulled.stopped.get() {
        let collected = leftovers::collect(api, order, &mut inbox, memory).await?;
        let now = Instant::now();
        let mut ledger = pulled.ledger.borrow_mut();
        collected.messages.into_values().for_each(|arrived| ledger.hold(arrived, now));
        succession = collected.succession;
    }
    drop(exclusive);
    Ok(Puller { order, pulled, replies, memory, report, inbox, succession, heard: Instant::now(), large: None })
}

struct Puller<'a, R> {
    order: &'a Order,
    pulled: &'a Pulled,
    replies: &'a Replies,
    memory: &'a Memory,
    report: &'a R,
    inbox: Inbox,
    succession: Succession,
    /// When the consumer was heard last, or was asked for something after it owed nothing.
    heard: Instant,
    /// The right to have a message under way that is larger than the share.
    large: Option<OwnedSemaphorePermit>,
}

impl<R: Fn(Report)> Puller<'_, R> {
    async fn pull(mut self) -> Result<(), Fault> {
        loop {
            if self.pulled.stopped.get() {
                return Ok(());
            }
            let released = self.pulled.ledger.borrow_mut().release();
            self.deliver(released);
            let waits = self.ask().await?;
            let deadline = self.deadline();
            tokio::select! {
                biased;
                message = self.inbox.next() => self.take(message?)?,
                () = self.pulled.changed.notified() => {}
                () = until(deadline) => self.on_time()?,
                permit = Arc::clone(&self.memory.large).acquire_owned(), if waits => self.large = permit.ok(),
            }
        }
    }

    /// Asks for as many messages as there is room for. Returns whether it waits for its turn to get a large one.
    async fn ask(&mut self) -> Result<bool, Fault> {
        let (wanted, expects, idle) = {
            let ledger = self.pulled.ledger.borrow();
            (ledger.wanted(self.memory.share.get(), self.memory.line.get()), ledger.expects(), ledger.is_idle())
        };
        let wants_large = wanted.is_some_and(|wanted| wanted.bytes.is_none());
        if idle && !wants_large {
            self.large = None;
        }
        let Some(wanted) = wanted else { return Ok(false) };
        if wants_large && self.large.is_none() {
            return Ok(true);
        }
        if !expects {
            self.heard = Instant::now();
        }
        let asked = match wanted.bytes {
            Some(_) => self.inbox.request(wanted).await?,
            // It is there; if not, it has been deleted, and others wait for their turn.
            None => self.inbox.request_briefly(wanted, LARGE).await?,
        };
        self.pulled.ledger.borrow_mut().ask(asked);
        Ok(false)
    }

    /// Takes a message and all others that are there already, then reports them together.
    fn take(&mut self, first: Message) -> Result<(), Fault> {
        let now = Instant::now();
        self.heard = now;
        let mut deliveries = Vec::new();
        let mut next = Some(first);
        let mut result = Ok(());
        while let Some(message) = next {
            result = self.sort(message, now, &mut deliveries);
            let more = result.is_ok() && deliveries.len() < AT_ONCE;
            next = if more { self.inbox.waiting() } else { None };
        }
        self.deliver(deliveries);
        result
    }

    /// Enters a message in the books, and into `deliveries` if it is to be reported.
    fn sort(&mut self, message: Message, now: Instant, deliveries: &mut Vec<Delivery>) -> Result<(), Fault> {
        let mut ledger = self.pulled.ledger.borrow_mut();
        match delivery::read(message) {
            Arrival::Message(arrived) if self.succession.arrived(arrived.metadata.number) => {
                deliveries.extend(ledger.arrived(arrived, now));
            }
            Arrival::Alive(Some(last)) if self.succession.idle(last, now) => {}
            // The next `Consume` collects what is missing before it goes on.
            Arrival::Message(_) | Arrival::Alive(Some(_)) => {
                let Order { stream, consumer, .. } = self.order;
                let message = format!("messages of consumer {consumer} of stream {stream} have got lost on their way");
                return Err(Fault::new(FaultKind::Timeout, message));
            }
            Arrival::Over(count) => ledger.give_up(count),
            Arrival::TooLarge { left, bytes } => ledger.too_large(left, bytes),
            Arrival::Failed(fault) => return Err(fault),
            Arrival::Alive(None) | Arrival::Stray => {}
        }
        Ok(())
    }

    fn deliver(&self, messages: Vec<Delivery>) {
        if !messages.is_empty() {
            (self.report)(Report::Delivered { subscription: self.order.subscription, messages });
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let ledger = self.pulled.ledger.borrow();
        let silence = ledger.expects().then(|| self.heard + self.inbox.patience());
        [ledger.due(), silence].into_iter().flatten().min()
    }

    fn on_time(&self) -> Result<(), Fault> {
        let now = Instant::now();
        let mut ledger = self.pulled.ledger.borrow_mut();
        self.replies.in_progress(ledger.overdue(now));
        if ledger.expects() && self.heard + self.inbox.patience() <= now {
            let Order { stream, consumer, .. } = self.order;
            let message = format!("consumer {consumer} of stream {stream} does not answer");
            return Err(Fault::new(FaultKind::Timeout, message));
        }
        Ok(())
    }
}

/// Why pulling failed. The server does not always say that it was because the consumer, or the stream, is gone.
async fn reason(api: &Api, order: &Order, fault: Fault) -> Fault {
    if !matches!(fault.kind, FaultKind::ConsumerMissing | FaultKind::Timeout) {
        return fault;
    }
    match consumers::pullable(api, &order.stream, &order.consumer).await {
        Err(better) if matches!(better.kind, FaultKind::ConsumerMissing | FaultKind::StreamMissing) => better,
        Ok(_) | Err(_) => fault,
    }
}
