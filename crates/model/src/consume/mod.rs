//! The consumer: what it decides about the broker's side, apart from how messages are handled.
//!
//! The shell around it (`pg::worker::consumer`) hands it reports, carries out the [`Notice`]s, and takes what is
//! delivered from the [`Intake`]s. Nothing here waits, and the clock and all randomness are arguments.

pub mod intake;
mod line;
mod losses;
pub mod missed;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::broker::{BrokerConfig, ConsumerInfo, Fault, FaultKind, Report, Request, SubscriptionId};
use crate::connection::Connection;
use intake::Intake;
use line::Line;
use missed::Gap;

/// Least share of a subscription in what is fetched, however many there are.
const LEAST_SHARE: usize = 64 << 10;

/// What the shell has to do after a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The connection is up, or (with a fault) down.
    Connection { fault: Option<Fault> },
    /// A subscription receives, or (with a fault) does not.
    Subscription { id: SubscriptionId, fault: Option<Fault> },
    /// A subscription's stream keeps messages for another time than it did.
    MaxAge { id: SubscriptionId, max_age: Option<Duration> },
    /// A consumer of a subscription that is gone was removed, or (with a fault) was not.
    Deleted { stream: String, name: String, fault: Option<Fault> },
    /// Somebody has changed a subscription's consumer, and it is provisioned anew.
    Drifted { id: SubscriptionId, what: String },
    /// So many messages of these sequences were removed before a subscription got them.
    Missed { id: SubscriptionId, gap: Gap, removed: u64 },
    /// A message was removed from a stream, or (with a fault) was not.
    Removed { stream: String, sequence: u64, fault: Option<Fault> },
}

/// A session that is lost over a message so soon after pulling began was lost by what was pulled.
const AT_ONCE: Duration = Duration::from_millis(600);
/// Between two looks for how long the streams keep messages: less than `sea_mq.inbox_floor` adds to that time, so that
/// nothing is forgotten that is kept for longer from now on.
const AGES: Duration = Duration::from_secs(15);
/// So often in a row is no accident any more.
const TOO_OFTEN: u32 = 3;

/// The consumer of one database.
pub struct Consumer {
    connection: Connection,
    pub intakes: Vec<Intake>,
    /// Sessions in a row that were lost over a message as soon as it was pulled.
    lost_at_once: u32,
    line: Line,
    /// When to look again for how long the streams keep messages, and at consumers that deliver nothing; `None` without a
    /// session.
    ages_at: Option<Instant>,
    /// Bytes of messages that may be in memory, or on their way there.
    memory: usize,
}

impl Consumer {
    /// `config`: where the broker is, if there is one. `reconnect_max`: the longest pause between attempts to connect.
    /// `memory`: bytes of messages that may be in memory, or on their way there.
    pub fn new(config: Option<BrokerConfig>, reconnect_max: Duration, memory: usize) -> Self {
        let connection = Connection::new(config, reconnect_max);
        Self { connection, intakes: Vec::new(), lost_at_once: 0, line: Line::new(memory), ages_at: None, memory }
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
        let (up, now) = (self.is_connected(), Instant::now());
        match self.intake(described.id) {
            Some(intake) => intake.describe(described),
            None => {
                let mut intake = Intake::new(described);
                let request = if up { intake.connected(now, now) } else { None };
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

    /// Does what is due: reconnects, tries refused consumers again, looks at the streams.
    pub fn tick(&mut self, now: Instant) -> Vec<Request> {
        let reconnect = self.connection.tick(now);
        let ages = self.ask_for_ages(now);
        let begun = self.intakes.iter_mut().filter_map(|intake| intake.tick(now));
        reconnect.into_iter().chain(begun).chain(ages).collect()
    }

    fn ask_for_ages(&mut self, now: Instant) -> Vec<Request> {
        if self.ages_at.is_none_or(|at| at > now) {
            return Vec::new();
        }
        self.ages_at = Some(now + AGES);
        let wider = self.line.widen(self.memory, now).then(|| Request::SetLine { line: self.line_share() });
        let consuming = self.intakes.iter().filter(|intake| intake.is_consuming());
        let streams: BTreeSet<String> = consuming.map(|intake| intake.described().spec.stream.clone()).collect();
        let seen = self.intakes.iter().filter_map(Intake::look);
        streams.into_iter().map(|stream| Request::ReadMaxAge { stream }).chain(seen).chain(wider).collect()
    }

    /// What each subscription may have on its way.
    fn line_share(&self) -> usize {
        self.line.share(self.intakes.len())
    }

    /// When `tick` has something to do.
    pub fn due_at(&self) -> Option<Instant> {
        self.intakes.iter().filter_map(Intake::due_at).chain(self.connection.due_at()).chain(self.ages_at).min()
    }

    /// Takes a report in. `jitter` is a random number in `0.0..1.0`.
    pub fn report(&mut self, report: Report, now: Instant, jitter: f64) -> (Vec<Request>, Vec<Notice>) {
        match report {
            Report::Connected(server) => {
                self.connection.connected(server, now);
                (self.begin(now), vec![Notice::Connection { fault: None }])
            }
            Report::Disconnected(fault) => (Vec::new(), self.lost(fault, now, jitter)),
            Report::ConsumerReady { stream, name, info } | Report::ConsumerSeen { stream, name, info, .. }
                if info.paused_until_us.is_some() =>
            {
                self.consumer_refused(&stream, &name, paused(&stream, &name, &info), now, jitter)
            }
            Report::ConsumerReady { stream, name, info } => {
                let bytes = (self.memory / self.intakes.len().max(1)).max(LEAST_SHARE);
                let line = self.line_share();
                match self.by_name(&stream, &name) {
                    Some(intake) => {
                        let requests = intake.ready(info, bytes, line, now);
                        (requests, vec![Notice::Subscription { id: intake.id(), fault: None }])
                    }
                    None => Default::default(),
                }
            }
            Report::ConsumerRefused { stream, name, fault } => {
                self.consumer_refused(&stream, &name, fault, now, jitter)
            }
            Report::ConsumerDeleted { stream, name, result } => {
                (Vec::new(), vec![Notice::Deleted { stream, name, fault: result.err() }])
            }
            Report::ConsumeFailed { subscription, fault } => self.consume_failed(subscription, fault, now, jitter),
            Report::Delivered { subscription, messages } => {
                let requests = self.intake(subscription).map(|intake| intake.delivered(messages));
                (requests.unwrap_or_default(), Vec::new())
            }
            Report::ConsumerSeen { stream, name, info, drift } => match self.by_name(&stream, &name) {
                Some(intake) => {
                    if !intake.is_to_be_put_right(&drift) {
                        return (intake.seen(&info).into_iter().collect(), Vec::new());
                    }
                    let requests = intake.begin_anew(drift.contains("filter_subject"));
                    let notice = (!requests.is_empty()).then_some(Notice::Drifted { id: intake.id(), what: drift });
                    (requests, notice.into_iter().collect())
                }
                None => Default::default(),
            },
            Report::Counted { subscription, gap, removed } => {
                let removed = gap.at_most.map_or(removed, |most| most.min(removed));
                let missed = (removed > 0).then_some(Notice::Missed { id: subscription, gap, removed });
                (Vec::new(), missed.into_iter().collect())
            }
            Report::MaxAge { stream, created_us, max_age } => {
                let there = self.intakes.iter_mut().filter(|intake| intake.described().spec.stream == stream);
                let changed = there.filter_map(|intake| {
                    let id = intake.id();
                    intake.learn_max_age(created_us, max_age).then_some(Notice::MaxAge { id, max_age })
                });
                (Vec::new(), changed.collect())
            }
            Report::MessageDeleted { stream, sequence, result } => {
                (Vec::new(), vec![Notice::Removed { stream, sequence, fault: result.err() }])
            }
            // The relay's affair.
            Report::StreamReady { .. }
            | Report::StreamRefused { .. }
            | Report::StreamSeen { .. }
            | Report::StreamDeleted { .. }
            | Report::Page { .. }
            | Report::Tail { .. }
            | Report::Acked { .. }
            | Report::Lease { .. }
            | Report::LeaseDoubted
            | Report::Limit { .. }
            | Report::PublishFailed { .. } => Default::default(),
        }
    }

    /// Begins with all subscriptions; or, to find the one that costs the session, with one after the other.
    fn begin(&mut self, now: Instant) -> Vec<Request> {
        self.ages_at = Some(now + AGES);
        let apart = if self.lost_at_once >= TOO_OFTEN { AT_ONCE } else { Duration::ZERO };
        let mut at = now;
        let mut requests = Vec::new();
        for intake in &mut self.intakes {
            requests.extend(intake.connected(now, at));
            at += apart;
        }
        requests
    }

    fn consumer_refused(
        &mut self,
        stream: &str,
        name: &str,
        fault: Fault,
        now: Instant,
        jitter: f64,
    ) -> (Vec<Request>, Vec<Notice>) {
        let Some(intake) = self.by_name(stream, name) else { return Default::default() };
        let stop = intake.stop();
        (stop.into_iter().collect(), vec![refused(intake, fault, now, jitter)])
    }

    fn by_name(&mut self, stream: &str, name: &str) -> Option<&mut Intake> {
        self.intakes.iter_mut().find(|intake| {
            let spec = &intake.described().spec;
            spec.stream == stream && spec.name == name
        })
    }
}

fn refused(intake: &mut Intake, mut fault: Fault, now: Instant, jitter: f64) -> Notice {
    if fault.kind == FaultKind::StreamMissing && intake.has_begun() {
        fault.kind = FaultKind::StreamVanished;
    }
    match fault.kind {
        FaultKind::Permission => intake.forbidden(now),
        _ => intake.refused(now, jitter),
    }
    Notice::Subscription { id: intake.id(), fault: Some(fault) }
}

/// Somebody has paused the consumer in NATS. It is looked at again until that is over: what was delivered before and not
/// acknowledged is then collected first.
fn paused(stream: &str, name: &str, info: &ConsumerInfo) -> Fault {
    let until =
        info.paused_until_us.and_then(|us| OffsetDateTime::from_unix_timestamp_nanos(i128::from(us) * 1000).ok());
    let until =
        until.and_then(|until| until.format(&Rfc3339).ok()).map_or_else(String::new, |until| format!(" until {until}"));
    Fault::new(FaultKind::ConsumerPaused, format!("consumer {name} of stream {stream} is paused in NATS{until}"))
}

#[cfg(test)]
pub(in crate::consume) mod tests;
