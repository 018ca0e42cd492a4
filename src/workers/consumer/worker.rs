//! The consumer's loop: begins, makes one pass after the other, ends.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use pgrx::{log, pg_sys};

use super::pool::Pool;
use super::removals::LetterRemovals;
use super::served::Served;
use crate::deliver::endpoints;
use crate::host::gucs;
use crate::host::roles::Reasons;
use crate::host::seat::Life;
use crate::host::session::{self, Failed};
use crate::inbox::subscriptions::Subscription;
use crate::inbox::waiting;
use crate::streams::consumers::Trouble;
use crate::sys::clock;
use crate::workers::identity;
use crate::workers::process::{Process, Work};
use crate::workers::removals::Removals;
use crate::workers::rest::Idle;
use sea_mq_io::nats::{self, NatsIo};
use sea_mq_model::broker::{BrokerConfig, Fault, Request, SubscriptionId};
use sea_mq_model::consume::Consumer;
use sea_mq_model::consume::intake::Intake;
use sea_mq_model::domain::clock::WallClock;
use sea_mq_model::domain::position::Moment;
use sea_mq_model::pipeline::Effect;

/// Least pause between looks at what waits: each completed message of an application asks for one.
const LOOK: Duration = Duration::from_millis(5);
/// Reports that are taken in before handlers get a turn.
const REPORTS: usize = 1000;
/// What handlers leave behind in their session (temporary tables, prepared statements) goes with the process.
pub(super) const RECYCLE: Duration = Duration::from_secs(3600);

/// What a change of the configuration can change for the consumer.
#[derive(Clone, PartialEq, Eq)]
struct Settings {
    broker: Option<BrokerConfig>,
    enabled: bool,
    reconnect_max: Duration,
    fetch_memory: usize,
}

pub struct Worker {
    pub(super) process: Process,
    pub(super) io: NatsIo,
    pub(super) consumer: Consumer,
    pub(super) served: Vec<Served>,
    settings: Option<Settings>,
    /// Why nothing may be received: this database is a copy, sea_mq is disabled, or the relay has not looked around yet.
    pub(super) held: Option<Trouble>,
    /// Of the descriptions that are in force.
    pub(super) fingerprint: Option<String>,
    poll_at: Instant,
    /// When the descriptions and what waits were looked at last.
    looked_at: Instant,
    /// They are to be looked at again.
    pub(super) look_due: bool,
    pub(super) house_at: Instant,
    /// When dead letters are looked at for old ones.
    pub(super) letters_at: Instant,
    clock: WallClock,
    /// Dead letters whose removal was asked for.
    pub(super) letters: LetterRemovals,
    started: Instant,
    /// Consumers whose removal was asked for.
    pub(super) removals: Removals,
    /// Why dead letter streams cannot be mirrored, as far as that was logged.
    pub(super) mirrors: HashMap<SubscriptionId, Fault>,
    /// Handler processes, and what they do just now.
    pub(super) pool: Pool,
    /// A task waits for one of them.
    pub(super) waits: bool,
    /// Which subscription has the first turn of a pass.
    turn: usize,
    /// The process has run functions of users.
    pub(super) handled_anything: bool,
    /// When there was something to do last.
    active_at: Instant,
}

impl Worker {
    pub(super) fn new(process: Process) -> std::io::Result<Self> {
        let now = Instant::now();
        Ok(Self {
            process,
            io: nats::spawn()?,
            consumer: Consumer::new(None, Duration::ZERO, 0),
            served: Vec::new(),
            settings: None,
            held: None,
            fingerprint: None,
            poll_at: now,
            looked_at: now,
            look_due: false,
            house_at: now,
            letters_at: now,
            clock: WallClock::new(now, clock::now()),
            letters: LetterRemovals::default(),
            started: now,
            removals: Removals::default(),
            mirrors: HashMap::new(),
            pool: Pool::new(process.database),
            waits: false,
            turn: 0,
            handled_anything: false,
            active_at: now,
        })
    }

    /// Where there is no broker, events of this database's own log are delivered.
    fn hear(&self) {
        let Some(seat) = self.process.seat() else { return };
        let events = if self.is_local() && self.held.is_none() { Reasons::EVENTS } else { Reasons::NONE };
        seat.hear(self.process.role.kind().hears.and(events));
    }

    fn settings() -> Result<Settings, Failed> {
        Ok(Settings {
            broker: session::transaction(identity::broker)?,
            enabled: gucs::enabled(),
            reconnect_max: gucs::reconnect_max(),
            fetch_memory: gucs::fetch_memory(),
        })
    }

    /// Whether events come from this database's own log, there being no broker.
    pub(super) fn is_local(&self) -> bool {
        self.settings.as_ref().is_some_and(|settings| settings.broker.is_none())
    }

    /// Takes in what the I/O thread has to report, up to a bound. Returns whether there may be more.
    fn take_in_some(&mut self) -> Result<bool, Failed> {
        let mut taken = 0;
        while taken < REPORTS
            && let Some(report) = self.io.try_recv()
        {
            self.take_in(report)?;
            taken += 1;
        }
        self.note_removals()?;
        Ok(taken == REPORTS)
    }

    /// Looks for changed descriptions and new work, if somebody says that there is some, or if it is time.
    fn notice(&mut self, now: Instant) -> Result<(), Failed> {
        self.watch_clock(now)?;
        let reasons = self.process.take(Reasons::EVENTS.and(Reasons::INBOX).and(Reasons::STREAMS));
        let (events, streams) = (reasons.has(Reasons::EVENTS), reasons.has(Reasons::STREAMS));
        self.look_due |= reasons.has(Reasons::INBOX);
        if streams {
            self.consumer.intakes.iter_mut().for_each(Intake::hasten);
        }
        let poll = now >= self.poll_at;
        if (poll || streams) && self.is_held_otherwise()? {
            return self.begin();
        }
        if events || poll {
            self.served.iter_mut().for_each(|served| served.exhausted = false);
        }
        let look = self.look_due && now.duration_since(self.looked_at) >= LOOK;
        if !look && !poll {
            return Ok(());
        }
        (self.look_due, self.looked_at) = (false, now);
        if poll {
            self.poll_at = now + gucs::poll_interval();
            self.letters.retry();
            self.call_dispatcher()?;
            if self.process.extension_changed().is_some() {
                return Err(Failed("the extension was dropped or installed anew".into()));
            }
        }
        self.look()
    }

    /// After the clock was set back, nothing waits for it to come to where it was.
    fn watch_clock(&mut self, now: Instant) -> Result<(), Failed> {
        if self.clock.was_set_back(now, clock::now()) {
            let moved = session::transaction(waiting::make_due_after_step_back)?;
            log!("sea_mq consumer: the clock was set back; {moved} waiting messages are due now");
            self.look_due = true;
        }
        Ok(())
    }

    /// Has a dispatcher run if there are endpoints: they may have come with a dump, and it may be gone since the server has started.
    fn call_dispatcher(&self) -> Result<(), Failed> {
        if let Some(database) = self.process.database
            && session::transaction(endpoints::any)?
        {
            database.want_dispatcher();
        }
        Ok(())
    }

    /// Whether something has come in the way, or is there no longer.
    fn is_held_otherwise(&self) -> Result<bool, Failed> {
        let Some(settings) = &self.settings else { return Ok(false) };
        Ok(session::transaction(|| trouble(settings))? != self.held)
    }

    /// Gives each subscription a turn, those that go first before the others; the others take turns in being the first, since there may
    /// not be a process for each. Returns whether there may be more.
    fn handle(&mut self) -> Result<bool, Failed> {
        let mut more = false;
        let moment = if self.is_local() { Some(self.moment()?) } else { None };
        let count = self.served.len();
        let priority = |served: &Served| served.subscription.priority;
        let alike = self.served.first().map(priority) == self.served.last().map(priority);
        self.turn = if alike { self.turn.wrapping_add(1) } else { 0 };
        self.waits = false;
        let first = self.turn;
        for place in (0..count).map(|place| place.wrapping_add(first) % count) {
            let served = self.serve(place, moment.as_ref());
            more |= served.or_else(|error| self.set_back(place, None, &error).map(|()| false))?;
            session::process_interrupts();
        }
        if !self.waits {
            self.pool.is_enough();
        }
        more |= self.serve_mirror()?;
        Ok(more)
    }

    /// Gives one subscription its turn. Returns whether there may be more.
    fn serve(&mut self, place: usize, moment: Option<&Moment>) -> Result<bool, Failed> {
        match (self.served[place].subscription.effect(), moment) {
            (Effect::Handler, _) => self.serve_handler(place, moment),
            (Effect::Pull, Some(moment)) => self.store_log(place, moment),
            (Effect::Pull, None) => self.serve_stored(place),
        }
    }

    /// An error of the database keeps one subscription from its turn: the others go on, and it begins again after a while. `lane`: the
    /// one that had a task; without it, this process may have been in any that nobody else has.
    pub(super) fn set_back(&mut self, place: usize, lane: Option<i16>, error: &Failed) -> Result<(), Failed> {
        let served = &mut self.served[place];
        let id = served.subscription.id;
        let others = (0..served.subscription.workers.max(1)).filter(|number| !self.pool.has(id, *number));
        let lanes: Vec<i16> = lane.map_or_else(|| others.collect(), |lane| vec![lane]);
        served.set_back(lanes, error)?;
        if let Some(intake) = self.consumer.intake(id) {
            let stop = intake.stop();
            intake.refused(Instant::now(), rand::random());
            stop.into_iter().for_each(|request| self.io.send(request));
        }
        Ok(())
    }

    pub(super) fn send(&self, requests: impl IntoIterator<Item = Request>) {
        requests.into_iter().for_each(|request| self.io.send(request));
    }

    /// Acknowledges messages whose transaction has committed.
    pub(super) fn acknowledge(&self, subscription: i64, tokens: Vec<u64>) {
        if tokens.is_empty() {
            return;
        }
        // With synchronous_commit = off a crash could take back what the broker would then never deliver again.
        // SAFETY: the end of this process's last commit record; returns at once if that much is flushed already.
        unsafe { pg_sys::XLogFlush(pg_sys::XactLastCommitEnd) };
        self.io.send(Request::Ack { subscription, tokens });
    }

    /// Whether it is needed: there are subscriptions, or something is to be removed. Dead letters of other services do not count: they are
    /// taken in when it runs.
    fn is_busy(&self) -> bool {
        !(self.served.is_empty() && self.removals.is_empty() && self.letters.is_empty())
    }

    /// How long nothing is to be done, unless something happens.
    fn sleep(&self) -> Duration {
        let now = Instant::now();
        let active = self.held.is_none();
        // Where all processes are busy, the next report wakes this one.
        let can_begin = !self.is_pooled() || self.pool.free().is_some();
        let served = self.served.iter().filter(|_| active).flat_map(|served| {
            let Subscription { id, workers, paused, .. } = &*served.subscription;
            let lanes = (0..(*workers).max(1))
                .filter(|lane| can_begin && !paused && !served.is_changing() && !self.pool.has(*id, *lane));
            let due = lanes.filter_map(|lane| served.due_at(lane)).min();
            let held = served.held_since.map(|since| since + super::direct::PATIENCE);
            [due, served.blocked_until.filter(|at| *at > now), held]
        });
        let pool = self.pool.due_at().filter(|_| active && self.waits);
        let look = self.look_due.then_some(self.looked_at + LOOK);
        let house = active.then_some(self.house_at);
        let times = served.chain([Some(self.poll_at), look, house, pool, self.consumer.due_at()]);
        times.flatten().min().map_or(gucs::poll_interval(), |at| at.saturating_duration_since(now))
    }
}

impl Work for Worker {
    fn begin_if_changed(&mut self) -> Result<(), Failed> {
        if self.settings.as_ref() == Some(&Self::settings()?) { Ok(()) } else { self.begin() }
    }

    /// Reads settings and descriptions, and begins to connect.
    fn begin(&mut self) -> Result<(), Failed> {
        let settings = Self::settings()?;
        self.held = session::transaction(|| trouble(&settings))?;
        if self.settings.is_some() {
            // A thread of its own for each beginning: what the one before still reports is nobody's.
            self.io = nats::spawn().map_err(|error| Failed(format!("cannot start the I/O thread: {error}")))?;
            self.letters.forget();
        }
        self.consumer = Consumer::new(settings.broker.clone(), settings.reconnect_max, settings.fetch_memory);
        self.served.clear();
        self.pool.forget();
        self.removals.clear();
        self.settings = Some(settings);
        self.hear();
        self.call_dispatcher()?;
        self.fingerprint = None;
        self.look()?;
        if self.held.is_none() {
            // The clock may have been set back while nobody looked.
            session::transaction(waiting::make_due_after_step_back)?;
            self.recover(Duration::ZERO)?;
            self.consumer.connect().into_iter().for_each(|request| self.io.send(request));
        }
        self.house_at = Instant::now();
        Ok(())
    }

    /// One pass: take in, handle, keep house. Returns how long to sleep.
    fn run_once(&mut self) -> Result<Duration, Failed> {
        let now = Instant::now();
        let reports = self.take_in_some()?;
        self.notice(now)?;
        let requests = self.consumer.tick(now);
        self.send(requests);
        let mut more = reports;
        more |= self.collect()?;
        if more {
            self.active_at = now;
        }
        if self.held.is_none() {
            more |= self.handle()?;
            if now >= self.house_at {
                self.keep_house()?;
            }
        }
        Ok(if more { Duration::ZERO } else { self.sleep() })
    }

    fn pause(&self, pause: Duration) {
        session::report_activity(c"", false);
        session::wait(Some(self.io.wake_fd()), pause);
        self.io.clear_wake();
    }

    fn idle(&mut self) -> Option<Idle> {
        if self.is_busy() {
            self.active_at = Instant::now();
            return None;
        }
        Some(Idle { since: self.active_at, until: None, hears: Reasons::INBOX })
    }

    fn ends(&mut self) -> Option<Life> {
        (self.handled_anything && self.started.elapsed() > RECYCLE).then_some(Life::Wanted)
    }
}

/// Why nothing may be received, if it may not.
fn trouble(settings: &Settings) -> Option<Trouble> {
    let unclear = || settings.broker.as_ref().and_then(|_| identity::unclear());
    identity::trouble(settings.broker.is_some()).or_else(|| (!settings.enabled).then(disabled)).or_else(unclear)
}

fn disabled() -> Trouble {
    Trouble {
        kind: "Disabled".into(),
        error: "sea_mq.enabled is off".into(),
        hint: Some("Set sea_mq.enabled = on, then call sea_mq.reload().".into()),
    }
}
