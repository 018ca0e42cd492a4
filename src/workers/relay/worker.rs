//! The relay's loop: begins, makes one pass after the other, ends.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use pgrx::{pg_sys, warning};
use uuid::Uuid;

use super::beside;
use super::verify::Verification;
use crate::host::gucs;
use crate::host::roles::Role;
use crate::host::session::{self, Failed};
use crate::host::shmem::Database;
use crate::log::outbox;
use crate::streams::consumers;
use crate::workers::identity;
use crate::workers::process::{Process, Work};
use crate::workers::removals::Removals;
use crate::workers::rest::Idle;
use sea_mq_io::nats::{self, NatsIo};
use sea_mq_model::broker::{BrokerConfig, Fault, FaultKind, SinkId};
use sea_mq_model::domain::lease::Claimant;
use sea_mq_model::domain::pace::Pace;
use sea_mq_model::relay::transactions::SplitReason;
use sea_mq_model::relay::{Phase, Relay};

/// How much one read takes.
pub(super) const CHUNK: outbox::Limit = outbox::Limit { events: 1000, bytes: 4 << 20 };

/// What a change of the configuration can change for the relay.
#[derive(Clone, PartialEq, Eq)]
struct Settings {
    broker: Option<BrokerConfig>,
    enabled: bool,
    poll_interval: Duration,
    reconnect_max: Duration,
    max_in_flight: usize,
}

impl Settings {
    fn now() -> Result<Self, Failed> {
        Ok(Self {
            broker: session::transaction(identity::broker)?,
            enabled: gucs::enabled(),
            poll_interval: gucs::poll_interval(),
            reconnect_max: gucs::reconnect_max(),
            max_in_flight: gucs::max_in_flight(),
        })
    }
}

pub struct Worker {
    pub(super) process: Process,
    pub(super) io: NatsIo,
    pub(super) relay: Relay,
    /// Set while nothing may be published.
    pub(super) held: Option<Phase>,
    /// The settings in force.
    settings: Option<Settings>,
    pub(super) poll_at: Instant,
    pub(super) saved_at: Instant,
    pub(super) janitor_at: Instant,
    /// When the backlog is estimated next, if anybody wants to know.
    pub(super) estimate_at: Instant,
    /// When the next scheduled event is due.
    pub(super) due_at: Option<Instant>,
    pub(super) poll_interval: Duration,
    pub(super) max_in_flight: usize,
    pub(super) pace: Pace,
    /// No read before this.
    pub(super) read_at: Instant,
    /// A comparison of stream and log that a session waits for.
    pub(super) verification: Option<Verification>,
    /// How many comparisons have begun.
    pub(super) verifications: u64,
    /// A stream that is to be compared when it is ready, or refused at this time.
    pub(super) to_verify: Option<(SinkId, Instant)>,
    /// The last error of each stream that was logged, so that a repeated one is not.
    pub(super) logged: HashMap<SinkId, Option<Fault>>,
    /// The last one of each stream that passes by itself, likewise.
    pub(super) passing: HashMap<SinkId, Fault>,
    /// Why transactions were not published as one, as far as that was logged.
    pub(super) splits_logged: HashSet<(SinkId, SplitReason)>,
    pub(super) last_relay: Option<(Phase, Option<String>)>,
    /// Names this process at the broker.
    id: Uuid,
    /// The run of the server, as the lease has it.
    pub(super) server: String,
    /// What was found of other relays last: the epoch of the lease, or why that is not known.
    pub(super) cleared: Option<(Option<u64>, Option<String>)>,
    /// Streams whose deletion was asked for, and is not answered yet.
    pub(super) deletions: HashSet<String>,
    /// Consumers whose removal was asked for.
    pub(super) removals: Removals,
    /// When the largest message may be asked for once more; while an answer is on its way, when that is given up.
    pub(super) limit_at: Instant,
    /// Streams whose tail is accepted as it is: somebody has called `sea_mq.adopt()`.
    pub(super) accepting: HashSet<SinkId>,
    /// When there was something to do last.
    pub(super) active_at: Instant,
}

impl Worker {
    pub(super) fn new(process: Process) -> std::io::Result<Self> {
        let now = Instant::now();
        Ok(Self {
            process,
            io: nats::spawn()?,
            relay: Relay::new(None, Duration::ZERO, Claimant::default()),
            held: None,
            settings: None,
            poll_at: now,
            saved_at: now,
            janitor_at: now,
            estimate_at: now,
            due_at: None,
            poll_interval: gucs::poll_interval(),
            max_in_flight: gucs::max_in_flight(),
            pace: Pace::new(now),
            read_at: now,
            verification: None,
            verifications: 0,
            to_verify: None,
            logged: HashMap::new(),
            passing: HashMap::new(),
            splits_logged: HashSet::new(),
            last_relay: None,
            id: Uuid::new_v4(),
            server: String::new(),
            cleared: None,
            deletions: HashSet::new(),
            removals: Removals::default(),
            limit_at: now,
            accepting: HashSet::new(),
            active_at: now,
        })
    }

    pub(super) fn save_relay(
        &mut self,
        phase: Phase,
        trouble: Option<consumers::Trouble>,
        failures: u32,
    ) -> Result<(), Failed> {
        let state = Some((phase, trouble.as_ref().map(|trouble| trouble.error.clone())));
        if self.last_relay == state {
            return Ok(());
        }
        self.last_relay = state;
        let server = self.relay.server().cloned();
        session::transaction(|| {
            // SAFETY: read by the main thread.
            let pid = unsafe { pg_sys::MyProcPid };
            consumers::save_relay(phase, trouble.as_ref(), failures, server.as_ref(), pid);
        })
    }

    /// Whether there is something to do, an attempt that failed included, or a state that people are to see. What is due at a time of
    /// its own is not counted.
    fn is_busy(&self) -> bool {
        let is_ready = match self.held {
            None => self.relay.is_at_rest() && !self.wants_to_read(),
            Some(phase) => phase == Phase::Unconfigured,
        };
        let is_asked = self.to_verify.is_some()
            || self.verification.is_some()
            || self.process.database.is_some_and(|database| database.inquiry.is_asked());
        let removes = !(self.deletions.is_empty() && self.removals.is_empty());
        !is_ready || is_asked || removes || self.is_unsaved() || self.has_company()
    }

    /// Whether another process of the database talks with the world outside. While it does, the relay stays to answer copies.
    fn has_company(&self) -> bool {
        let is_there = |database: &Database, role| database.seat(role).has_process();
        self.process
            .database
            .is_some_and(|database| is_there(database, Role::Consumer) || is_there(database, Role::Dispatcher))
    }

    /// How long nothing is to be done, unless something happens.
    pub(super) fn sleep(&self) -> Duration {
        let now = Instant::now();
        let read_at = (self.held.is_none() && self.wants_to_read()).then_some(self.read_at);
        let house =
            (self.held != Some(Phase::Paused)).then_some([Some(self.janitor_at), self.due_at]).into_iter().flatten();
        let estimates = self.process.database.is_some() && gucs::max_outbox_size().is_some();
        let estimate_at = estimates.then_some(self.estimate_at);
        let refuse_at = self.to_verify.map(|(_, until)| until);
        let times = [Some(self.poll_at), self.relay.due_at(), self.save_at(), read_at, estimate_at, refuse_at];
        times
            .into_iter()
            .chain(house)
            .flatten()
            .min()
            .map_or(self.poll_interval, |at| at.saturating_duration_since(now))
    }
}

impl Work for Worker {
    fn begin_if_changed(&mut self) -> Result<(), Failed> {
        if self.settings.as_ref() == Some(&Settings::now()?) { Ok(()) } else { self.begin() }
    }

    /// Reads settings and descriptions, and begins to connect.
    fn begin(&mut self) -> Result<(), Failed> {
        let settings = Settings::now()?;
        self.poll_interval = settings.poll_interval;
        self.max_in_flight = settings.max_in_flight;
        let copied = session::transaction(|| identity::trouble(settings.broker.is_some()))?;
        self.held = match (&copied, &settings.broker, settings.enabled) {
            (Some(_), ..) => Some(Phase::Paused),
            (None, _, false) => Some(Phase::Disabled),
            (None, None, true) => Some(Phase::Unconfigured),
            (None, Some(_), true) => None,
        };
        if self.settings.is_some() {
            self.io = beside::new_io()?;
        }
        let claimant = session::transaction(|| identity::claimant(self.id))?;
        self.server.clone_from(&claimant.server);
        self.cleared = None;
        self.deletions.clear();
        self.removals.clear();
        let broker = settings.broker.clone().map(|broker| BrokerConfig { relay: Some(self.id), ..broker });
        self.relay = Relay::new(broker, settings.reconnect_max, claimant);
        self.settings = Some(settings);
        self.logged.clear();
        self.splits_logged.clear();
        if self.verification.is_some() {
            self.refuse_verification(&Fault::new(FaultKind::Server, "the relay began anew"))?;
        }
        self.refresh()?;
        match self.held {
            Some(phase) => self.save_relay(phase, copied, 0),
            None => {
                let request = self.relay.connect();
                self.save_relay(Phase::Connecting, None, 0)?;
                request.into_iter().for_each(|request| self.io.send(request));
                Ok(())
            }
        }
    }

    /// One pass: take in, hand on, save. Returns how long to sleep.
    fn run_once(&mut self) -> Result<Duration, Failed> {
        let now = Instant::now();
        while let Some(report) = self.io.try_recv() {
            self.take_in(report)?;
        }
        self.notice_commits(now)?;
        self.relay.tick(now).into_iter().for_each(|request| self.io.send(request));
        // A copy is left as it is, until somebody says what it is.
        if self.held != Some(Phase::Paused) {
            self.keep_house(now)?;
        }
        self.estimate_backlog(now)?;
        let more = self.held.is_none() && self.read_at <= Instant::now() && self.hand_on()?;
        self.save_if_due()?;
        let more = self.verify(now)? || more;
        Ok(if more { Duration::ZERO } else { self.sleep() })
    }

    fn pause(&self, pause: Duration) {
        // While a pause between reads runs, commits need not wake anybody.
        let until_read = self.read_at.saturating_duration_since(Instant::now());
        if until_read.is_zero() {
            session::wait(Some(self.io.wake_fd()), pause);
        } else {
            session::nap(self.io.wake_fd(), pause.min(until_read));
        }
        self.io.clear_wake();
    }

    fn idle(&mut self) -> Option<Idle> {
        if self.is_busy() {
            self.active_at = Instant::now();
            return None;
        }
        Some(Idle { since: self.active_at, until: self.due_at, hears: self.process.role.kind().hears })
    }

    /// Waits, for a bounded time, for what is in flight, and saves.
    fn shut_down(&mut self) {
        let deadline = Instant::now() + gucs::shutdown_timeout();
        while self.relay.sinks.iter().any(|sink| sink.in_flight() > 0) && Instant::now() < deadline {
            session::wait(Some(self.io.wake_fd()), Duration::from_millis(20));
            self.io.clear_wake();
            session::process_interrupts();
            while let Some(report) = self.io.try_recv() {
                if let Err(error) = self.take_in(report) {
                    return warning!("sea_mq relay: while shutting down: {error}");
                }
            }
        }
        if self.is_unsaved()
            && let Err(error) = self.save()
        {
            warning!("sea_mq relay: while shutting down: {error}");
        }
    }
}
