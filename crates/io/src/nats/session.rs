//! All that happens on one connection, in one task: requests in, answers out, acks collected, silence noticed.
//!
//! Requests for one stream are carried out in order; those for different streams do not wait for each other (a *lane*
//! each), so that a stream without a leader holds up nobody else. Publishing and consuming wait only for the API requests
//! for the same stream that were made before them, and then leave the lane.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::rc::Rc;
use std::time::{Duration, Instant};

use async_nats::{Client, Message, ServerError, Subscriber};
use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::Notify;

use super::calls::{self, Answer, Call, call, stream_of};
use super::connect::{Link, LinkEvent};
use super::errors::{self, Denied};
use super::inbound::Inbound;
use super::io_thread::{Reporter, Requests};
use super::publish::Publisher;
use super::pull::Order;
use super::queued::Queued;
use super::replies::Replies;
use super::watch::{Look, Watch};
use super::witness::Witness;
use sea_mq_model::broker::{BrokerConfig, Fault, FaultKind, Report, Request, SubscriptionId};

/// How long a `Shutdown` waits for what was asked before it.
const SHUTDOWN_WAIT: Duration = Duration::from_millis(500);
/// Acks taken at once before anything else gets its turn.
const ACKS_AT_ONCE: usize = 4096;

/// Why a session (or the attempt to make one) ended.
#[derive(Debug)]
pub(super) enum End {
    /// It broke, or could not be made.
    Lost(Fault),
    /// Another connection is wanted.
    Superseded(Box<BrokerConfig>),
    /// It was told to.
    Shutdown,
    /// The handle was dropped.
    Closed,
}

/// What the sending half and the rest of the session share.
struct Outbound {
    publisher: RefCell<Publisher>,
    /// There is something to send.
    work: Notify,
    /// There is something to report that no answer of the server led to.
    refused: Notify,
}

/// Serves requests on a connection until it ends.
pub(super) async fn serve(
    link: Link,
    config: &BrokerConfig,
    requests: &mut Requests,
    reporter: &Reporter,
    witness: &Witness,
) -> End {
    let publisher = Publisher::new(link.reply_prefix.clone(), config.ack_timeout, reporter.sizes.clone());
    let outbound = Outbound { publisher: RefCell::new(publisher), work: Notify::new(), refused: Notify::new() };
    let client = link.client.clone();
    let replies = Rc::new(Replies::default());
    // Behind one address there may be several servers.
    let watch = Watch::new(config.urls.count() > 1 || !link.api.standalone, Instant::now());
    let mut session = Session {
        inbound: Inbound::new(link.api.clone(), reporter, Rc::clone(&replies)),
        replies: &replies,
        link,
        config,
        requests,
        reporter,
        outbound: &outbound,
        lanes: HashMap::new(),
        calls: FuturesUnordered::new(),
        complaint: None,
        closing: None,
        watch,
        witness,
    };
    let end = tokio::select! {
        biased;
        end = session.run() => end,
        never = pump(&client, &outbound) => match never {},
        never = replies.pump(&client) => match never {},
    };
    if matches!(end, End::Shutdown) {
        let _ = tokio::time::timeout(SHUTDOWN_WAIT, client.flush()).await;
    }
    end
}

/// Sends what the publisher has to send. Waits for room in the client's buffer, which the session itself never does.
async fn pump(client: &Client, outbound: &Outbound) -> Infallible {
    loop {
        let next = outbound.publisher.borrow_mut().next(Instant::now());
        if outbound.publisher.borrow().has_news() {
            outbound.refused.notify_one();
        }
        let Some(wire) = next else {
            outbound.work.notified().await;
            continue;
        };
        let (slot, index) = (wire.slot, wire.index);
        let sent = client.publish_with_reply_and_headers(wire.subject, wire.reply, wire.headers, wire.body).await;
        if let Err(error) = sent {
            let fault = errors::publish_fault(&error);
            outbound.publisher.borrow_mut().refuse(slot, index, fault, Instant::now());
            outbound.refused.notify_one();
        }
    }
}

struct Session<'a> {
    link: Link,
    config: &'a BrokerConfig,
    requests: &'a mut Requests,
    reporter: &'a Reporter,
    outbound: &'a Outbound,
    /// Streams with an API request under way, and what waits for it.
    lanes: HashMap<String, VecDeque<Request>>,
    calls: FuturesUnordered<Call>,
    inbound: Inbound<'a>,
    /// The acks on their way.
    replies: &'a Replies,
    /// A complaint of the server that may be the reason of the loss that follows.
    complaint: Option<ServerError>,
    /// When to end even if something is left to do.
    closing: Option<Instant>,
    watch: Watch,
    witness: &'a Witness,
}

impl Session<'_> {
    async fn run(&mut self) -> End {
        loop {
            if let Some(end) = self.finished() {
                return end;
            }
            let deadline = self.deadline();
            tokio::select! {
                biased;
                event = self.link.events.recv() => {
                    if let Some(end) = self.on_event(event) {
                        return end;
                    }
                }
                request = self.requests.next() => {
                    if let Some(end) = self.on_request(request) {
                        return end;
                    }
                }
                Some(answer) = self.calls.next() => self.on_answer(answer),
                Some(()) = self.inbound.run() => {}
                () = self.replies.drained(), if self.has_unsent() => {}
                message = self.link.acks.next() => match message {
                    Some(message) => self.on_ack(&message),
                    None => return self.lost(),
                },
                Some(call) = next_of(&mut self.link.callers) => self.on_call(call),
                () = self.outbound.refused.notified() => self.report_publishing(),
                () = until(deadline) => {
                    self.outbound.publisher.borrow_mut().expire(Instant::now());
                    self.report_publishing();
                    if let Some(end) = self.look() {
                        return end;
                    }
                }
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let overdue = self.outbound.publisher.borrow().next_deadline(Instant::now());
        [overdue, self.closing, self.watch.due()].into_iter().flatten().min()
    }

    /// Looks whether JetStream lives, if it is time.
    fn look(&mut self) -> Option<End> {
        match self.watch.look(self.reporter.heard(), Instant::now()) {
            Look::Well => None,
            Look::Ask => {
                self.calls.push(calls::ask(self.link.api.clone()));
                None
            }
            Look::GiveUp => {
                let address = &self.link.server.address;
                let words =
                    format!("{address}: JetStream does not answer there, as if it was cut off from its cluster");
                Some(End::Lost(Fault::new(FaultKind::Isolated, words)))
            }
        }
    }

    /// After a `Shutdown`: whether acks are still to be sent.
    fn has_unsent(&self) -> bool {
        self.closing.is_some() && !self.replies.is_empty()
    }

    /// After a `Shutdown`: whether all that was asked before it is done, or has taken too long.
    fn finished(&self) -> Option<End> {
        let closing = self.closing?;
        let idle = self.calls.is_empty() && !self.outbound.publisher.borrow().has_queue();
        let done = idle && self.replies.is_empty();
        (done || closing <= Instant::now()).then_some(End::Shutdown)
    }

    fn on_request(&mut self, request: Option<Request>) -> Option<End> {
        match request {
            None => return Some(End::Closed),
            Some(Request::Connect(config)) => return Some(End::Superseded(config)),
            Some(Request::Shutdown) => self.closing = Some(Instant::now() + SHUTDOWN_WAIT),
            Some(Request::StopConsuming { subscription }) => self.stop_consuming(subscription),
            Some(request) => match stream_of(&request).and_then(|stream| self.lanes.get_mut(stream)) {
                Some(lane) => lane.push_back(request),
                None => self.start(request),
            },
        }
        None
    }

    /// Ends a pull, even one that waits for its turn.
    fn stop_consuming(&mut self, ended: SubscriptionId) {
        for lane in self.lanes.values_mut() {
            lane.retain(|request| !matches!(request, Request::Consume { subscription, .. } if *subscription == ended));
        }
        self.inbound.stop(ended);
    }

    fn start(&mut self, request: Request) {
        match request {
            Request::Consume { subscription, stream, consumer, window, bytes, line, ack_wait, fewer_pending } => {
                let order = Order { subscription, stream, consumer, window, ack_wait, fewer_pending };
                self.inbound.consume(order, bytes, line);
            }
            Request::ReadLimit => {
                self.reporter.sizes.borrow_mut().forget();
                self.calls.push(calls::limit(self.config.clone()));
            }
            Request::SetLine { line } => self.inbound.set_line(line),
            Request::Ack { subscription, tokens } => self.inbound.ack(subscription, &tokens),
            Request::Publish { sink, epoch, stream, expected_last, messages, batches } => {
                let queued = Queued::new(expected_last, messages, batches);
                self.outbound.publisher.borrow_mut().submit(sink, epoch, stream, queued);
                self.outbound.work.notify_one();
            }
            request => {
                if let Some(stream) = stream_of(&request).map(str::to_owned) {
                    self.lanes.entry(stream.clone()).or_default();
                    self.calls.push(call(self.link.api.clone(), stream, request));
                }
            }
        }
    }

    /// Reports an answer, and starts what waited for it.
    fn on_answer(&mut self, answer: Answer) {
        let stream = answer.stream.as_str();
        if let Some(standalone) = answer.standalone {
            self.outbound.publisher.borrow_mut().set_standalone(stream, standalone);
        }
        if answer.alive {
            self.reporter.note_heard();
        }
        if let Some(report) = answer.report {
            self.reporter.report(report);
        }
        let Some(mut waiting) = self.lanes.remove(stream) else { return };
        while let Some(request) = waiting.pop_front() {
            self.start(request);
            if let Some(lane) = self.lanes.get_mut(stream) {
                *lane = waiting;
                return;
            }
        }
    }

    /// Takes an answer to a publish and all others that are there already, then reports them together.
    fn on_ack(&mut self, first: &Message) {
        self.take_ack(first);
        for _ in 0..ACKS_AT_ONCE {
            let Some(Some(message)) = self.link.acks.next().now_or_never() else { break };
            self.take_ack(&message);
        }
        self.report_publishing();
    }

    fn take_ack(&self, message: &Message) {
        if let Some(token) = message.subject.strip_prefix(self.link.reply_prefix.as_str()) {
            self.outbound.publisher.borrow_mut().answer(token, message, Instant::now());
        }
    }

    fn report_publishing(&self) {
        let mut publisher = self.outbound.publisher.borrow_mut();
        let mut reports = Vec::new();
        publisher.collect(Instant::now(), &mut reports);
        self.reporter.report_all(reports);
        if publisher.has_work() {
            self.outbound.work.notify_one();
        }
    }

    /// Another relay of the installation asks whether this one lives, or (without asking) says that it has taken over.
    fn on_call(&self, call: Message) {
        match call.reply {
            // In a task of its own, as there may be no room in the client's buffer.
            Some(caller) => {
                let client = self.link.client.clone();
                tokio::spawn(async move { client.publish(caller, Bytes::new()).await });
            }
            None => self.reporter.report(Report::LeaseDoubted),
        }
    }

    fn on_event(&mut self, event: Option<LinkEvent>) -> Option<End> {
        match event {
            Some(LinkEvent::Complaint(error)) => self.on_complaint(error),
            Some(LinkEvent::Lost) | None => Some(self.lost()),
        }
    }

    fn on_complaint(&mut self, error: ServerError) -> Option<End> {
        let text = error.to_string();
        let fault = Fault::new(errors::server_error_kind(&error), text.clone());
        match errors::denied_subject(&text) {
            // Without the inbox there are no acks, nor answers of any kind.
            Some(Denied { subject, subscription: true }) if subject.starts_with("_INBOX.") => {
                return Some(End::Lost(fault));
            }
            Some(denied) if self.link.api.note_denial(denied) => {}
            Some(denied) => {
                self.outbound.publisher.borrow_mut().deny(denied.subject, &fault, Instant::now());
                self.report_publishing();
            }
            None => self.complaint = Some(error),
        }
        None
    }

    /// The connection is gone. What was acked before is reported first: it need not be looked up again.
    fn lost(&mut self) -> End {
        while let Some(Some(message)) = self.link.acks.next().now_or_never() {
            self.take_ack(&message);
        }
        while let Ok(event) = self.link.events.try_recv() {
            if let LinkEvent::Complaint(error) = event {
                self.complaint = Some(error);
            }
        }
        if self.complaint.as_ref().is_some_and(|error| errors::server_error_kind(error) == FaultKind::MessageTooLarge) {
            self.outbound.publisher.borrow_mut().closed_over_size(Instant::now());
        }
        self.report_publishing();
        let address = &self.link.server.address;
        if let Some(words) = self.witness.senseless() {
            let message = format!("{address}: connection given up over what the broker sent: {words}");
            return End::Lost(Fault::new(FaultKind::UnreadableMessage, message));
        }
        End::Lost(match &self.complaint {
            Some(error) => Fault::new(errors::server_error_kind(error), format!("{address}: connection lost: {error}")),
            None => Fault::new(FaultKind::Unreachable, format!("{address}: connection lost")),
        })
    }
}

/// The next message of a subscription, if there is one at all.
async fn next_of(subscriber: &mut Option<Subscriber>) -> Option<Message> {
    match subscriber {
        Some(subscriber) => subscriber.next().await,
        None => None,
    }
}

/// Waits until then, or for ever.
pub(super) async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
