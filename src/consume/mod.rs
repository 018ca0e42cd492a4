//! The consumer: what it decides about the broker's side, apart from how messages are handled.
//!
//! The shell around it (`pg::worker::consumer`) hands it reports, carries out the [`Effect`]s, and takes what is
//! delivered from the [`Intake`]s. Nothing here waits, and the clock and all randomness are arguments.

pub mod intake;

use std::time::{Duration, Instant};

use crate::broker::{BrokerConfig, Fault, Report, Request, SubscriptionId};
use crate::connection::Connection;
use intake::Intake;

/// What the shell has to do after a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The connection is up, or (with a fault) down.
    Connection { fault: Option<Fault> },
    /// A subscription receives, or (with a fault) does not.
    Subscription { id: SubscriptionId, fault: Option<Fault> },
    /// A message was removed from a stream, or (with a fault) was not.
    Removed { stream: String, sequence: u64, fault: Option<Fault> },
}

/// The consumer of one database.
pub struct Consumer {
    connection: Connection,
    pub intakes: Vec<Intake>,
}

impl Consumer {
    /// `config`: where the broker is, if there is one. `reconnect_max`: the longest pause between attempts to connect.
    pub fn new(config: Option<BrokerConfig>, reconnect_max: Duration) -> Self {
        Self { connection: Connection::new(config, reconnect_max), intakes: Vec::new() }
    }

    pub fn is_connected(&self) -> bool {
        self.connection.is_up()
    }

    /// Begins to connect, if there is something to connect to.
    pub fn connect(&mut self) -> Option<Request> {
        self.connection.connect()
    }

    pub fn intake(&mut self, id: SubscriptionId) -> Option<&mut Intake> {
        self.intakes.iter_mut().find(|intake| intake.id() == id)
    }

    /// Adds a subscription, or changes its description. Returns what is to be asked of the broker, if it is connected.
    pub fn describe(&mut self, described: intake::Described) -> Vec<Request> {
        let up = self.is_connected();
        match self.intake(described.id) {
            Some(intake) => intake.describe(described),
            None => {
                let mut intake = Intake::new(described);
                let request = if up { intake.connected() } else { None };
                self.intakes.push(intake);
                request.into_iter().collect()
            }
        }
    }

    /// Forgets the subscriptions that are not wanted any more.
    pub fn keep(&mut self, wanted: impl Fn(SubscriptionId) -> bool) -> Vec<Request> {
        let (kept, gone): (Vec<_>, Vec<_>) = self.intakes.drain(..).partition(|intake| wanted(intake.id()));
        self.intakes = kept;
        gone.into_iter().filter_map(|mut intake| intake.stop()).collect()
    }

    /// Does what is due: reconnects, tries refused consumers again.
    pub fn tick(&mut self, now: Instant) -> Vec<Request> {
        let reconnect = self.connection.tick(now);
        reconnect.into_iter().chain(self.intakes.iter_mut().filter_map(|intake| intake.tick(now))).collect()
    }

    /// When `tick` has something to do.
    pub fn due_at(&self) -> Option<Instant> {
        self.intakes.iter().filter_map(Intake::due_at).chain(self.connection.due_at()).min()
    }

    /// Takes a report in. `jitter` is a random number in `0.0..1.0`.
    pub fn report(&mut self, report: Report, now: Instant, jitter: f64) -> (Vec<Request>, Option<Effect>) {
        match report {
            Report::Connected(server) => {
                self.connection.connected(server);
                let requests = self.intakes.iter_mut().filter_map(Intake::connected).collect();
                (requests, Some(Effect::Connection { fault: None }))
            }
            Report::Disconnected(fault) => {
                self.connection.disconnected(now, jitter);
                self.intakes.iter_mut().for_each(Intake::disconnected);
                (Vec::new(), Some(Effect::Connection { fault: Some(fault) }))
            }
            Report::ConsumerReady { stream, name, info } => match self.by_name(&stream, &name) {
                Some(intake) => {
                    let request = intake.ready(info);
                    (request.into_iter().collect(), Some(Effect::Subscription { id: intake.id(), fault: None }))
                }
                None => Default::default(),
            },
            Report::ConsumerRefused { stream, name, fault } => {
                (Vec::new(), self.by_name(&stream, &name).map(|intake| refused(intake, fault, now, jitter)))
            }
            Report::ConsumeFailed { subscription, fault } => {
                (Vec::new(), self.intake(subscription).map(|intake| refused(intake, fault, now, jitter)))
            }
            Report::Delivered { subscription, messages } => {
                if let Some(intake) = self.intake(subscription) {
                    intake.delivered(messages);
                }
                Default::default()
            }
            Report::MessageDeleted { stream, sequence, result } => {
                (Vec::new(), Some(Effect::Removed { stream, sequence, fault: result.err() }))
            }
            // The relay's affair.
            Report::StreamReady { .. }
            | Report::StreamRefused { .. }
            | Report::StreamDeleted { .. }
            | Report::Tail { .. }
            | Report::Acked { .. }
            | Report::PublishFailed { .. } => Default::default(),
        }
    }

    fn by_name(&mut self, stream: &str, name: &str) -> Option<&mut Intake> {
        self.intakes.iter_mut().find(|intake| {
            let spec = &intake.described().spec;
            spec.stream == stream && spec.name == name
        })
    }
}

fn refused(intake: &mut Intake, fault: Fault, now: Instant, jitter: f64) -> Effect {
    intake.refused(now, jitter);
    Effect::Subscription { id: intake.id(), fault: Some(fault) }
}
