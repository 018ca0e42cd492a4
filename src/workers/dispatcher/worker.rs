//! The dispatcher's loop: begins, makes one pass after the other, ends.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use pgrx::warning;
use uuid::Uuid;

use super::calls::{self, Calls};
use super::recording::Result as Recorded;
use super::served::{Reader, Served, Trouble};
use crate::deliver::endpoints::{self, Described};
use crate::deliver::network;
use crate::host::gucs;
use crate::host::installation;
use crate::host::roles::Reasons;
use crate::host::seat::Life;
use crate::host::session::{self, Failed};
use crate::log::{cursors, endpoint_progress, janitor};
use crate::workers::identity;
use crate::workers::process::{Process, Work};
use sea_mq_io::http::network::Network;
use sea_mq_io::http::target::Target;
use sea_mq_io::http::{self, HttpIo, Request};
use sea_mq_model::deliver::endpoint::Endpoint;
use sea_mq_model::deliver::health::Health;
use sea_mq_model::deliver::ledger::Ledger;
use sea_mq_model::deliver::rotation::Rotation;
use sea_mq_model::domain::reader::ReaderId;
use sea_mq_model::domain::sink::{SinkKind, sink_id};

/// Between two looks at the health of endpoints, to save it.
pub(super) const SHOW: Duration = Duration::from_secs(1);
/// Between two rounds of housekeeping.
const HOUSE: Duration = Duration::from_secs(10);

/// A delivery on its way.
pub(super) struct Flight {
    pub endpoint: i64,
    pub event: Uuid,
    pub seq: i64,
    pub key: Option<String>,
    pub retry: bool,
}

/// What a change of the configuration can change for the dispatcher.
#[derive(Clone, PartialEq, Eq)]
struct Settings {
    network: Result<Network, String>,
    enabled: bool,
}

pub struct Worker {
    pub(super) process: Process,
    /// `None` until it has begun.
    pub(super) io: Option<HttpIo>,
    settings: Option<Settings>,
    /// Why nothing is sent.
    pub(super) held: Option<Trouble>,
    pub(super) served: Vec<Served>,
    pub(super) rotation: Rotation,
    pub(super) flights: HashMap<u64, Flight>,
    pub(super) next_token: u64,
    pub(super) calls: Calls,
    /// What became of deliveries and is not recorded yet.
    pub(super) results: Vec<Recorded>,
    pub(super) poll_at: Instant,
    pub(super) look_due: bool,
    house_at: Instant,
    /// When it is looked next for events that have waited too long.
    pub(super) pass_over_at: Instant,
    /// Since when it delivers.
    pub(super) begun_at: Instant,
    /// There is no endpoint.
    idle: bool,
}

impl Worker {
    pub(super) fn new(process: Process) -> Self {
        let now = Instant::now();
        Self {
            process,
            io: None,
            settings: None,
            held: None,
            served: Vec::new(),
            rotation: Rotation::default(),
            flights: HashMap::new(),
            next_token: 0,
            calls: Calls::default(),
            results: Vec::new(),
            poll_at: now,
            look_due: false,
            house_at: now,
            pass_over_at: now,
            begun_at: now,
            idle: false,
        }
    }

    /// What is to follow: without endpoints nothing, until somebody makes one.
    pub(super) fn after(&self, next: Life) -> Life {
        let asked = self.process.take(Reasons::ENDPOINTS).has(Reasons::ENDPOINTS);
        if self.idle && !asked && next == Life::Wanted { Life::Absent } else { next }
    }

    fn settings() -> Result<Settings, Failed> {
        Ok(Settings { network: network::network(), enabled: gucs::enabled() })
    }

    pub(super) fn served(&mut self, endpoint: i64) -> Option<&mut Served> {
        self.served.iter_mut().find(|served| served.described.id == endpoint)
    }

    /// Why nothing may be sent, if it may not.
    fn trouble(settings: &Settings) -> Option<Trouble> {
        let trouble = |kind: &str, error: &str, hint: &str| {
            Some(Trouble { kind: kind.into(), error: error.into(), hint: Some(hint.into()) })
        };
        let adopt = "If this database takes the place of the original, call sea_mq.adopt(). If it is for tests, call sea_mq.test_mode().";
        let has_broker = installation::has_broker();
        if let Some(found) = identity::trouble(true) {
            return Some(Trouble { kind: "Copied".into(), error: found.error, hint: found.hint });
        }
        if installation::is_in_test_mode() {
            return trouble("Disabled", "the database is in test mode", "sea_mq.test_mode(false) ends it.");
        }
        if !endpoints::is_home() {
            // A standby that was promoted has the lease at the broker; any other copy may be one beside the original.
            if has_broker && installation::is_cleared() && installation::claimant("").was_standby {
                endpoints::come_home();
            } else {
                return trouble(
                    "Copied",
                    "the database is a copy, or was recovered; nothing is delivered from it",
                    adopt,
                );
            }
        }
        match &settings.network {
            Err(error) => trouble("Disabled", error, "Correct the setting, then call sea_mq.reload()."),
            Ok(_) if !settings.enabled => {
                trouble("Disabled", "sea_mq.enabled is off", "Set sea_mq.enabled = on, then call sea_mq.reload().")
            }
            Ok(_) => None,
        }
    }

    /// Looks at the descriptions, and at what waits in the table.
    pub(super) fn look(&mut self) -> Result<(), Failed> {
        let now = Instant::now();
        let Some(settings) = self.settings.clone() else { return Ok(()) };
        let (held, described) = session::transaction(|| {
            let held = Self::trouble(&settings);
            if held.is_none() {
                endpoints::begin_new_contexts();
            }
            (held, endpoints::all())
        })?;
        let changed = self.held != held;
        self.held = held;
        self.idle = described.is_empty();
        let gone: Vec<i64> = self.served.iter().map(|served| served.described.id).collect();
        for id in gone.into_iter().filter(|id| !described.iter().any(|one| one.id == *id)) {
            self.forget(id);
        }
        for one in described {
            self.describe(one, changed, now)?;
        }
        if self.held.is_some() {
            return Ok(());
        }
        self.load_due(now)?;
        self.look_at_calls(now)
    }

    fn forget(&mut self, endpoint: i64) {
        self.served.retain(|served| served.described.id != endpoint);
        self.flights.retain(|_, flight| flight.endpoint != endpoint);
        self.results.retain(|result| result.endpoint != endpoint);
        self.request(Request::Forget { endpoint });
        self.request(Request::Forget { endpoint: calls::target_number(endpoint) });
    }

    pub(super) fn request(&self, request: Request) {
        if let Some(io) = &self.io {
            io.send(request);
        }
    }

    fn describe(&mut self, described: Described, changed: bool, now: Instant) -> Result<(), Failed> {
        let held = self.held.is_some() || described.paused;
        let known = self.served(described.id);
        let same = known.as_ref().is_some_and(|served| served.described.print == described.print);
        if same && !changed {
            return Ok(());
        }
        let described = Rc::new(described);
        match known {
            Some(served) => {
                // Whoever has changed or resumed it has looked: what a person was asked for is tried again.
                let health = (!same).then(Health::default);
                served.model.describe(described.policy(), health, held);
                served.described = Rc::clone(&described);
            }
            None => {
                let health = Health::saved(described.state.as_deref().unwrap_or("active"));
                let mut served =
                    Served::new(Rc::clone(&described), Endpoint::new(described.policy(), health, held), now);
                served.model.set_retrying(session::transaction(|| crate::deliver::deliveries::waiting(described.id))?);
                self.served.push(served);
            }
        }
        self.describe_readers(&described)?;
        let target = target(&described);
        if let Some(served) = self.served(described.id)
            && served.target.as_ref() != Some(&target)
        {
            served.target = Some(target.clone());
            if !described.is_broker() {
                let called = Box::new(target.clone().for_calls());
                self.request(Request::Describe { endpoint: calls::target_number(described.id), target: called });
            }
            self.request(Request::Describe { endpoint: described.id, target: Box::new(target) });
        }
        Ok(())
    }

    fn describe_readers(&mut self, described: &Described) -> Result<(), Failed> {
        let Some(served) = self.served(described.id) else { return Ok(()) };
        for (id, context) in &described.readers {
            if !served.readers.iter().any(|reader| reader.id == *id) {
                let position = session::transaction(|| cursors::load(ReaderId::Endpoint(*id)))?;
                served.readers.push(Reader {
                    id: *id,
                    sink: sink_id(context, SinkKind::Event),
                    ledger: Ledger::new(position),
                    exhausted: false,
                });
            }
        }
        Ok(())
    }

    pub(super) fn keep_house(&mut self, now: Instant) -> Result<(), Failed> {
        if now < self.house_at {
            return Ok(());
        }
        self.house_at = now + HOUSE;
        janitor::turn(endpoint_progress::ring())?;
        // A failure to get the lock is no failure: somebody reads the slot, and the next round tries again.
        let retention = gucs::delivery_retention();
        let _ = session::transaction(|| crate::deliver::deliveries::turn(retention));
        Ok(())
    }
}

/// One whose secrets cannot be read is described without: the I/O thread says so of each attempt.
fn target(described: &Described) -> Target {
    described.target().unwrap_or_else(|error| {
        warning!("sea_mq dispatcher: endpoint {}: {error}", described.name);
        Target { signing: vec![error], method: "POST".into(), url: described.url(), ..Target::default() }
    })
}

impl Work for Worker {
    fn begin_if_changed(&mut self) -> Result<(), Failed> {
        if self.settings.as_ref() == Some(&Self::settings()?) { Ok(()) } else { self.begin() }
    }

    fn begin(&mut self) -> Result<(), Failed> {
        let settings = Self::settings()?;
        let network = settings.network.clone().unwrap_or_default();
        self.settings = Some(settings);
        self.flights.clear();
        self.results.clear();
        self.served.clear();
        self.begin_calls()?;
        let io = http::spawn(network).map_err(|error| Failed(format!("cannot start the I/O thread: {error}")))?;
        self.io = Some(io);
        self.poll_at = Instant::now();
        self.begun_at = self.poll_at;
        self.look()
    }

    /// One pass: take in, record, read, send. Returns how long to sleep.
    fn run_once(&mut self) -> Result<Duration, Failed> {
        let now = Instant::now();
        self.take_in()?;
        self.notice(now)?;
        self.record()?;
        self.record_calls()?;
        let mut more = false;
        if self.held.is_none() {
            more = self.read()?;
            more |= self.send()?;
            self.record()?;
            self.call(now)?;
            self.keep_house(now)?;
        }
        more |= self.pass_over(now)?;
        self.show(now)?;
        self.show_calls(now)?;
        Ok(if more { Duration::ZERO } else { self.sleep() })
    }

    fn pause(&self, pause: Duration) {
        session::report_activity(c"", false);
        let Some(io) = &self.io else { return session::wait(None, pause) };
        session::wait(Some(io.wake_fd()), pause);
        io.clear_wake();
    }

    /// Waits, for a bounded time, for what is in flight, and records it.
    fn shut_down(&mut self) {
        let deadline = Instant::now() + gucs::shutdown_timeout();
        while !(self.flights.is_empty() && self.calls.is_idle()) && Instant::now() < deadline {
            let Some(io) = &self.io else { return };
            session::wait(Some(io.wake_fd()), Duration::from_millis(20));
            io.clear_wake();
            session::process_interrupts();
            if let Err(error) = self.take_in() {
                return warning!("sea_mq dispatcher: while shutting down: {error}");
            }
        }
        if let Err(error) = self.record().and_then(|()| self.record_calls()) {
            warning!("sea_mq dispatcher: while shutting down: {error}");
        }
    }

    fn ends(&mut self) -> Option<Life> {
        self.idle.then_some(Life::Wanted)
    }
}

impl Worker {
    /// Looks for changed descriptions and new events, if somebody says that there are some, or if it is time.
    fn notice(&mut self, now: Instant) -> Result<(), Failed> {
        let reasons = self
            .process
            .take(Reasons::EVENTS.and(Reasons::ENDPOINTS).and(Reasons::DESCRIPTIONS).and(Reasons::MESSAGES));
        let poll = now >= self.poll_at;
        if reasons.has(Reasons::EVENTS) || poll {
            let readers = self.served.iter_mut().flat_map(|served| &mut served.readers);
            readers.for_each(|reader| reader.exhausted = false);
        }
        if reasons.has(Reasons::MESSAGES) || poll {
            self.calls.look_now(now);
        }
        let look = reasons.has(Reasons::ENDPOINTS) || reasons.has(Reasons::DESCRIPTIONS) || self.look_due;
        if !look && !poll {
            return Ok(());
        }
        if poll {
            self.poll_at = now + gucs::poll_interval();
            if self.process.extension_changed().is_some() {
                return Err(Failed("the extension was dropped or installed anew".into()));
            }
        }
        self.look_due = false;
        self.look()
    }
}
