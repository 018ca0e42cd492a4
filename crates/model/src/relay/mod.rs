//! The relay: what it decides, apart from how PostgreSQL is read and NATS is spoken to.
//!
//! The shell around it (`pg::worker::relay`) hands it reports and chunks of the log, carries out the [`Effect`]s, and
//! saves what is settled. Nothing here waits, and the clock and all randomness are arguments.

pub mod compare;
mod lease;
mod segment;
pub mod sink;
mod tail;
pub mod transactions;

use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::broker::{BrokerConfig, Fault, Report, Request, ServerInfo, SinkId, Standing, Stored};
use crate::connection::Connection;
use crate::domain::lease::Claimant;
use lease::Lease;
use sink::{Failure, Loss, Sink};

/// Where the relay is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// `sea_mq.nats_url` is not set.
    Unconfigured,
    /// `sea_mq.enabled` is off.
    Disabled,
    Connecting,
    Connected,
    /// The last attempt failed; another follows by itself.
    Waiting,
    /// Something that only a person can decide: this database is a copy, or its stream continues what it does not know.
    Paused,
}

impl Phase {
    /// The value of `sea_mq.relay_state.state`.
    pub const fn token(self) -> &'static str {
        match self {
            Self::Unconfigured => "unconfigured",
            Self::Disabled => "disabled",
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Waiting => "waiting",
            Self::Paused => "paused",
        }
    }
}

/// What the shell has to do after a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The relay's state has changed.
    Relay { phase: Phase, fault: Option<Fault>, failures: u32 },
    /// A stream is ready, or (with a fault) is not.
    Stream { sink: SinkId, fault: Option<Fault> },
    /// A stream is not as it was any more, and is provisioned anew.
    Drifted { sink: SinkId, what: String },
    /// The broker will never take this event.
    Refused { sink: SinkId, id: Uuid, seq: i64, fault: Fault },
    /// The stream has lost what it had acknowledged: rewind or pause.
    Lost { sink: SinkId, loss: Loss },
    /// Look whether these messages are events of ours; if not, somebody else has published them. Then call `judged`.
    Doubtful { sink: SinkId, messages: Vec<Stored> },
    /// Another relay publishes for the installation.
    Fenced(Fault),
    /// No other relay does. With a fault, that could not be found out; else in this epoch.
    Cleared { epoch: Option<u64>, fault: Option<Fault> },
    /// A consumer is ready, or (with a fault) was refused.
    Consumer { stream: String, name: String, fault: Option<Fault> },
    /// A consumer was deleted, or (with a fault) was not.
    ConsumerDeleted { stream: String, name: String, fault: Option<Fault> },
    /// A stream was deleted, or (with a fault) was not.
    Deleted { name: String, fault: Option<Fault> },
}

/// Between two looks whether the streams are as they were made.
const LOOKS: Duration = Duration::from_secs(15);

/// The relay of one database.
pub struct Relay {
    connection: Connection,
    /// When to look at the streams next.
    look_at: Option<Instant>,
    lease: Lease,
    pub sinks: Vec<Sink>,
}

impl Relay {
    pub fn new(config: Option<BrokerConfig>, reconnect_max: Duration, claimant: Claimant) -> Self {
        let connection = Connection::new(config, reconnect_max);
        Self { connection, look_at: None, lease: Lease::new(claimant), sinks: Vec::new() }
    }

    pub fn server(&self) -> Option<&ServerInfo> {
        self.connection.server()
    }

    /// Whether there is no connection, and not because the relay has only just begun.
    pub fn is_cut_off(&self) -> bool {
        self.connection.is_missing()
    }

    /// Whether it is connected, and no other relay of the installation is in the way.
    pub fn has_begun(&self) -> bool {
        self.connection.is_up() && self.lease.has_begun()
    }

    /// Whether all is settled: nothing is on its way, refused, doubted, or to be tried again.
    pub fn is_at_rest(&self) -> bool {
        self.has_begun()
            && self.lease.is_claimed()
            && !self.lease.is_doubted()
            && self.sinks.iter().all(Sink::is_at_rest)
    }

    /// Begins to connect, if there is something to connect to.
    pub fn connect(&mut self) -> Option<Request> {
        self.connection.connect()
    }

    /// Adds a sink, or changes its description. Returns what is to be asked of the broker, if it is connected.
    pub fn add(&mut self, mut sink: Sink) -> Option<Request> {
        let request = self.has_begun().then(|| sink.connected());
        self.sinks.push(sink);
        request
    }

    pub fn sink(&mut self, id: SinkId) -> Option<&mut Sink> {
        self.sinks.iter_mut().find(|sink| sink.id() == id)
    }

    /// New events may have been committed.
    pub fn wake(&mut self) {
        self.sinks.iter_mut().for_each(Sink::wake);
    }

    /// Does what is due: reconnects, tries refused streams again.
    pub fn tick(&mut self, now: Instant) -> Vec<Request> {
        let looks = self.look(now);
        let own = self.connection.tick(now).into_iter().chain(self.lease.tick(now));
        own.chain(self.sinks.iter_mut().filter_map(|sink| sink.tick(now))).chain(looks).collect()
    }

    fn look(&mut self, now: Instant) -> Vec<Request> {
        if self.look_at.is_none_or(|at| at > now) {
            return Vec::new();
        }
        self.look_at = Some(now + LOOKS);
        self.sinks.iter().filter_map(Sink::look).collect()
    }

    /// When `tick` has something to do.
    pub fn due_at(&self) -> Option<Instant> {
        let own = self.connection.due_at().into_iter().chain(self.lease.due_at()).chain(self.look_at);
        own.chain(self.sinks.iter().filter_map(Sink::due_at)).min()
    }

    /// Takes a report in. `jitter` is a random number in `0.0..1.0`.
    pub fn report(&mut self, report: Report, now: Instant, jitter: f64) -> (Vec<Request>, Vec<Effect>) {
        let (mut requests, effects) = self.take_in(report, now, jitter);
        requests.extend(self.claim());
        (requests, effects)
    }

    /// What was doubtful in the tail of a stream is no reason to stop.
    pub fn judged(&mut self, sink: SinkId) -> Option<Request> {
        self.sink(sink)?.judged();
        self.claim()
    }

    /// Makes sure of the lease once a sink knows where its stream ends (not before: a look from before that would say
    /// nothing of what a successor has stored meanwhile), or once no sink is on its way there.
    fn claim(&mut self) -> Option<Request> {
        let waiting = self.sinks.iter().any(Sink::waits_for_lease);
        let idle = !self.lease.is_claimed() && !self.sinks.iter().any(Sink::is_beginning);
        if !self.has_begun() || self.lease.is_asking() || !(waiting || idle || self.lease.is_doubted()) {
            return None;
        }
        self.sinks.iter_mut().for_each(Sink::note_claim);
        Some(self.lease.ask(true))
    }

    fn take_in(&mut self, report: Report, now: Instant, jitter: f64) -> (Vec<Request>, Vec<Effect>) {
        match report {
            Report::Connected(server) => self.connected(server, now),
            Report::Lease { standing, claim } => self.lease_answered(standing, claim, now),
            Report::LeaseDoubted => {
                self.lease.doubt();
                Default::default()
            }
            Report::Disconnected(fault) => (Vec::new(), vec![self.disconnected(fault, now, jitter)]),
            Report::StreamReady { sink, info } => match self.sink(sink).map(|s| s.stream_ready(info)) {
                Some(Ok(request)) => (request.into_iter().collect(), vec![Effect::Stream { sink, fault: None }]),
                Some(Err(loss)) => (Vec::new(), vec![Effect::Lost { sink, loss }]),
                None => Default::default(),
            },
            Report::StreamRefused { sink, fault } => {
                let told = self.sink(sink).is_none_or(|s| s.stream_refused(&fault, now, jitter));
                let effect = told.then_some(Effect::Stream { sink, fault: Some(fault) });
                (Vec::new(), effect.into_iter().collect())
            }
            Report::StreamSeen { sink, seen } => {
                let request = self.sink(sink).and_then(|s| s.seen(&seen));
                let what = if seen.drift.is_empty() { "others have changed it".into() } else { seen.drift };
                let effect = request.is_some().then_some(Effect::Drifted { sink, what });
                (request.into_iter().collect(), effect.into_iter().collect())
            }
            Report::Tail { sink, messages, last_sequence } => {
                let messages = self.sink(sink).map(|s| s.tail_read(messages, last_sequence)).unwrap_or_default();
                let none = messages.is_empty();
                (Vec::new(), if none { Vec::new() } else { vec![Effect::Doubtful { sink, messages }] })
            }
            Report::Acked { sink, epoch, acks } => {
                let fault = self.sink(sink).and_then(|s| s.acked(epoch, acks, now, jitter));
                let effect = fault.map(|fault| Effect::Stream { sink, fault: Some(fault) });
                (Vec::new(), effect.into_iter().collect())
            }
            Report::PublishFailed { sink, epoch, ahead, fault } => {
                let failure = self.sink(sink).and_then(|s| s.publish_failed(epoch, ahead, &fault, now, jitter));
                (Vec::new(), failure.map(|failure| failed(sink, failure, fault)).into_iter().collect())
            }
            Report::ConsumerReady { stream, name, .. } => {
                (Vec::new(), vec![Effect::Consumer { stream, name, fault: None }])
            }
            Report::ConsumerRefused { stream, name, fault } => {
                (Vec::new(), vec![Effect::Consumer { stream, name, fault: Some(fault) }])
            }
            Report::ConsumerDeleted { stream, name, result } => {
                (Vec::new(), vec![Effect::ConsumerDeleted { stream, name, fault: result.err() }])
            }
            Report::StreamDeleted { name, result } => (Vec::new(), vec![Effect::Deleted { name, fault: result.err() }]),
            // A comparison's, and the consumer's affair.
            Report::Page { .. }
            | Report::Limit { .. }
            | Report::MaxAge { .. }
            | Report::ConsumerSeen { .. }
            | Report::Counted { .. }
            | Report::Delivered { .. }
            | Report::ConsumeFailed { .. }
            | Report::MessageDeleted { .. } => Default::default(),
        }
    }

    fn connected(&mut self, server: ServerInfo, now: Instant) -> (Vec<Request>, Vec<Effect>) {
        self.connection.connected(server, now);
        self.look_at = Some(now + LOOKS);
        let request = self.lease.connected();
        (vec![request], vec![Effect::Relay { phase: Phase::Connected, fault: None, failures: 0 }])
    }

    fn lease_answered(&mut self, standing: Standing, claim: bool, now: Instant) -> (Vec<Request>, Vec<Effect>) {
        if let Standing::Fenced(fault) = standing {
            return (Vec::new(), vec![Effect::Fenced(fault)]);
        }
        let begin = self.lease.answered(&standing, claim, now);
        let requests = if begin {
            self.sinks.iter_mut().map(Sink::connected).collect()
        } else {
            self.sinks.iter_mut().for_each(Sink::admit);
            Vec::new()
        };
        let effect = match standing {
            Standing::Held(epoch) => Some(Effect::Cleared { epoch: Some(epoch), fault: None }),
            Standing::Unknown(fault) if claim => Some(Effect::Cleared { epoch: None, fault: Some(fault) }),
            Standing::Unknown(_) | Standing::Free | Standing::Fenced(_) => None,
        };
        (requests, effect.into_iter().collect())
    }

    fn disconnected(&mut self, fault: Fault, now: Instant, jitter: f64) -> Effect {
        self.sinks.iter_mut().for_each(Sink::disconnected);
        self.lease.disconnected();
        self.look_at = None;
        self.connection.disconnected(now, jitter);
        Effect::Relay { phase: Phase::Waiting, fault: Some(fault), failures: self.connection.failures() }
    }
}

fn failed(sink: SinkId, failure: Failure, fault: Fault) -> Effect {
    match failure {
        Failure::Refused { id, seq } => Effect::Refused { sink, id, seq, fault },
        Failure::Again => Effect::Stream { sink, fault: Some(fault) },
    }
}
