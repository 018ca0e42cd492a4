//! The relay's process: a thin loop around reports, reads, saves and waits.
//!
//! This thread alone talks to PostgreSQL; `NatsIo`'s thread alone talks to NATS. No transaction is open while anything
//! waits for the network.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pgrx::bgworkers::BackgroundWorker;
use pgrx::{FromDatum, log, pg_guard, pg_sys, warning};

use super::session::{self, Failed};
use super::{identity, janitor};
use crate::broker::{BrokerConfig, Fault, FaultKind, Report, Request, SinkId};
use crate::domain::event::Logged;
use crate::domain::pace::Pace;
use crate::domain::position::Position;
use crate::nats::NatsIo;
use crate::pg::commit::{LockClass, lock_tag};
use crate::pg::gucs::{self, OnStreamLoss};
use crate::pg::pending;
use crate::pg::shmem::{self, Database, Phase as Life};
use crate::pg::store::{consumers, cursors, log, ring, scheduled, streams};
use crate::relay::sink::{Loss, Sink};
use crate::relay::{Effect, Phase, Relay};

/// How much one read takes.
const CHUNK: log::Limit = log::Limit { events: 1000, bytes: 4 << 20 };
/// Bytes of one stream that may wait for their acknowledgement.
const MAX_BYTES: usize = 32 << 20;
/// Pauses between saves of the cursors: while busy, and when there is nothing else to do.
const SAVE_BUSY: Duration = Duration::from_millis(50);
const SAVE_IDLE: Duration = Duration::from_millis(10);
/// Due events moved into the log at once.
const DUE_AT_ONCE: i64 = 1000;
/// Pause after an error of the database.
const AFTER_ERROR: Duration = Duration::from_secs(1);

#[unsafe(no_mangle)]
#[doc(hidden)]
#[pg_guard]
pub extern "C-unwind" fn sea_mq_relay_main(arg: pg_sys::Datum) {
    session::attach_signals();
    // SAFETY: the launcher passes the OID of the database.
    let oid = unsafe { pg_sys::Oid::from_datum(arg, false) }.unwrap_or(pg_sys::InvalidOid);
    BackgroundWorker::connect_worker_to_spi_by_oid(Some(oid), None);
    let database = shmem::database(oid);
    prepare_session();
    let extension = match session::transaction(extension) {
        Ok(Some(extension)) => extension,
        Ok(None) => return leave(database, Life::Absent),
        Err(error) => {
            warning!("sea_mq relay: {error}");
            return leave(database, Life::Failed);
        }
    };
    if let Err(error) = session::transaction(lock_relay) {
        log!("sea_mq relay: another relay serves this database: {error}");
        return leave(database, Life::Failed);
    }
    if let Some(database) = database {
        // SAFETY: this process's own latch and id; the callback runs before both are given away.
        unsafe {
            database.attach(Some(pg_sys::MyLatch), pg_sys::MyProcPid);
            pg_sys::before_shmem_exit(Some(detach), pg_sys::Datum::from(0));
        }
    }
    match Worker::new(database, extension) {
        Ok(mut worker) => {
            let next = worker.run();
            leave(database, next);
        }
        Err(error) => {
            warning!("sea_mq relay: cannot start its I/O thread: {error}");
            leave(database, Life::Failed);
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn detach(_code: i32, _arg: pg_sys::Datum) {
    // SAFETY: read by the main thread, constant in a process.
    if let Some(database) = shmem::database(unsafe { pg_sys::MyDatabaseId }) {
        database.max_payload.store(0, Ordering::Release);
        database.attach(None, 0);
    }
}

/// Notes what is to follow, unless somebody else has decided that already. Returning ends the process with code 0.
fn leave(database: Option<&Database>, next: Life) {
    if let Some(database) = database {
        database.advance(Life::Running, next);
        shmem::wake_launcher();
    }
}

fn prepare_session() {
    let settings = [
        (c"search_path", c"pg_catalog"),
        // A lost save of a cursor repeats nothing: the stream's tail is read before anything is published again.
        (c"synchronous_commit", c"off"),
        (c"statement_timeout", c"0"),
        (c"lock_timeout", c"5s"),
        (c"idle_in_transaction_session_timeout", c"0"),
        (c"default_transaction_isolation", c"read committed"),
        (c"default_transaction_read_only", c"off"),
        (c"jit", c"off"),
        (c"plan_cache_mode", c"force_generic_plan"),
    ];
    for (name, value) in settings {
        // SAFETY: C strings; the settings exist in every supported version.
        unsafe {
            pg_sys::SetConfigOption(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_SUSET,
                pg_sys::GucSource::PGC_S_OVERRIDE,
            );
        }
    }
}

/// The extension, if it is installed.
fn extension() -> Option<pg_sys::Oid> {
    // SAFETY: a catalog look-up in a transaction.
    let oid = unsafe { pg_sys::get_extension_oid(c"sea_mq".as_ptr(), true) };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

/// Waits for the lock that one relay of a database has. Kept until the process ends.
fn lock_relay() {
    let tag = lock_tag(0, 0, LockClass::Relay);
    // SAFETY: a session lock; `lock_timeout` bounds the wait.
    unsafe { pg_sys::LockAcquire(&tag, pg_sys::ExclusiveLock as _, true, false) };
}

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
            broker: gucs::broker(session::transaction(identity::client_name)?),
            enabled: gucs::enabled(),
            poll_interval: gucs::poll_interval(),
            reconnect_max: gucs::reconnect_max(),
            max_in_flight: gucs::max_in_flight(),
        })
    }
}

struct Worker {
    database: Option<&'static Database>,
    io: NatsIo,
    relay: Relay,
    /// Set while nothing may be published.
    held: Option<Phase>,
    /// The settings in force.
    settings: Option<Settings>,
    /// The extension as it was installed when the relay started.
    extension: pg_sys::Oid,
    poll_at: Instant,
    saved_at: Instant,
    janitor_at: Instant,
    /// When the next scheduled event is due.
    due_at: Option<Instant>,
    poll_interval: Duration,
    max_in_flight: usize,
    pace: Pace,
    /// No read before this.
    read_at: Instant,
    /// The last error of each stream that was logged, so that a repeated one is not.
    logged: std::collections::HashMap<SinkId, Option<Fault>>,
    last_relay: Option<(Phase, Option<String>)>,
}

impl Worker {
    fn new(database: Option<&'static Database>, extension: pg_sys::Oid) -> std::io::Result<Self> {
        let now = Instant::now();
        Ok(Self {
            database,
            io: NatsIo::spawn()?,
            relay: Relay::new(None, Duration::ZERO),
            held: None,
            settings: None,
            extension,
            poll_at: now,
            saved_at: now,
            janitor_at: now,
            due_at: None,
            poll_interval: gucs::poll_interval(),
            max_in_flight: gucs::max_in_flight(),
            pace: Pace::new(now),
            read_at: now,
            logged: std::collections::HashMap::new(),
            last_relay: None,
        })
    }

    /// Runs until something ends it. Returns what is to follow.
    fn run(&mut self) -> Life {
        log!("sea_mq relay started");
        let mut begun = false;
        loop {
            if session::take_termination() {
                self.shut_down();
                return Life::Failed;
            }
            if self.database.is_some_and(|database| database.end.load(Ordering::Acquire)) {
                self.shut_down();
                return Life::Wanted;
            }
            session::process_interrupts();
            let reload = session::take_reload();
            let result = match begun {
                true if reload => self.begin_if_changed().map(|()| Duration::ZERO),
                true => self.run_once(),
                false => self.begin().map(|()| Duration::ZERO),
            };
            match result {
                Ok(pause) => {
                    begun = true;
                    self.pause(pause);
                }
                Err(error) => {
                    if let Some(next) = self.extension_changed() {
                        return next;
                    }
                    warning!("sea_mq relay: {error}");
                    // What is in memory may not be what is saved; the stream's tail tells what was stored.
                    begun = false;
                    session::wait(None, AFTER_ERROR);
                }
            }
        }
    }

    /// What is to follow if the extension is not the one that the relay was started for.
    fn extension_changed(&self) -> Option<Life> {
        match session::transaction(extension) {
            Ok(Some(found)) if found == self.extension => None,
            Ok(None) => {
                log!("sea_mq relay ended: the extension was dropped");
                Some(Life::Absent)
            }
            // Installed anew: nothing in memory is true of it.
            Ok(Some(_)) => Some(Life::Wanted),
            Err(_) => Some(Life::Failed),
        }
    }

    fn begin_if_changed(&mut self) -> Result<(), Failed> {
        if self.settings.as_ref() == Some(&Settings::now()?) { Ok(()) } else { self.begin() }
    }

    /// Reads settings and descriptions, and begins to connect.
    fn begin(&mut self) -> Result<(), Failed> {
        let settings = Settings::now()?;
        self.poll_interval = settings.poll_interval;
        self.max_in_flight = settings.max_in_flight;
        let copied = session::transaction(identity::trouble)?;
        self.held = match (&copied, &settings.broker, settings.enabled) {
            (Some(_), ..) => Some(Phase::Paused),
            (None, _, false) => Some(Phase::Disabled),
            (None, None, true) => Some(Phase::Unconfigured),
            (None, Some(_), true) => None,
        };
        self.relay = Relay::new(settings.broker.clone(), settings.reconnect_max);
        self.settings = Some(settings);
        self.logged.clear();
        self.refresh()?;
        match self.held {
            Some(phase) => {
                self.io.send(Request::Shutdown);
                self.save_relay(phase, copied, 0)
            }
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
        let more = self.held.is_none() && self.read_at <= Instant::now() && self.hand_on()?;
        self.save_if_due()?;
        Ok(if more { Duration::ZERO } else { self.sleep() })
    }

    fn take_in(&mut self, report: Report) -> Result<(), Failed> {
        let (requests, effects) = self.relay.report(report, Instant::now(), rand::random());
        requests.into_iter().for_each(|request| self.io.send(request));
        effects.into_iter().try_for_each(|effect| self.carry_out(effect))
    }

    fn carry_out(&mut self, effect: Effect) -> Result<(), Failed> {
        match effect {
            Effect::Relay { phase, fault, failures } => self.relay_changed(phase, fault, failures),
            Effect::Stream { sink, fault } => self.stream_changed(sink, fault),
            Effect::Refused { sink, id, fault } => {
                warning!("sea_mq relay: the broker refuses event {id} for good: {fault}");
                session::transaction(|| cursors::save_failure(sink, id, &fault.message))
            }
            Effect::Lost { sink, loss } => self.stream_lost(sink, loss),
            Effect::Doubtful { sink, ids } => self.look_for_others(sink, &ids),
            Effect::Consumer { stream, name, fault } => {
                session::transaction(|| consumers::save_state(&stream, &name, fault.as_ref()))
            }
            Effect::Deleted { name, fault } => session::transaction(|| {
                streams::save_deletion(&name, fault.as_ref().map(|fault| fault.message.as_str()))
            }),
        }
    }

    fn relay_changed(&mut self, phase: Phase, fault: Option<Fault>, failures: u32) -> Result<(), Failed> {
        if let Some(database) = self.database {
            let limit = self.relay.server().map_or(0, |server| server.max_payload as u64);
            database.max_payload.store(limit, Ordering::Release);
        }
        let repeated = self.last_relay == Some((phase, fault.as_ref().map(|fault| fault.message.clone())));
        if repeated {
            return Ok(());
        }
        match &fault {
            Some(fault) => warning!("sea_mq relay: no connection to the broker: {fault}"),
            None => {
                log!("sea_mq relay: connected to {}", self.relay.server().map_or("", |server| server.address.as_str()))
            }
        }
        self.save_relay(phase, fault.as_ref().map(consumers::Trouble::from), failures)
    }

    fn stream_changed(&mut self, sink: SinkId, fault: Option<Fault>) -> Result<(), Failed> {
        // Others publish there, or an acknowledgement was lost; what follows from it shows when the tail is read.
        if fault.as_ref().is_some_and(|fault| fault.kind == FaultKind::WrongSequence) {
            log!("sea_mq relay: {}", fault.map(|fault| fault.message).unwrap_or_default());
            return Ok(());
        }
        let Some(known) = self.relay.sink(sink) else { return Ok(()) };
        if self.logged.insert(sink, fault.clone()) == Some(fault.clone()) {
            return Ok(());
        }
        let name = known.described().spec.name.clone();
        if fault.is_none() && known.described().spec.take_over {
            session::transaction(|| streams::taken_over(sink))?;
        }
        match &fault {
            Some(fault) => warning!("sea_mq relay: stream {name} is not available: {fault}"),
            None => log!("sea_mq relay: stream {name} is ready"),
        }
        let state = streams::State {
            state: if fault.is_some() { "refused" } else { "ready" },
            fault,
            ordering: known.ordering().token(),
            differences: known.differences().clone(),
        };
        session::transaction(|| streams::save_state(sink, &state))?;
        if state.fault.is_none() {
            self.provision_consumers()?;
        }
        Ok(())
    }

    fn stream_lost(&mut self, sink: SinkId, loss: Loss) -> Result<(), Failed> {
        let Some(lossy) = self.relay.sink(sink) else { return Ok(()) };
        let name = lossy.described().spec.name.clone();
        let what = format!("the broker lost stream {name} from sequence {} to {}", loss.left + 1, loss.recorded);
        warning!("sea_mq relay: {what}");
        if gucs::on_stream_loss() == OnStreamLoss::Pause {
            lossy.pause();
            let fault = Fault::new(FaultKind::Server, format!("{what}; sea_mq.on_stream_loss is pause"));
            let state = streams::State {
                state: "paused",
                fault: Some(fault),
                ordering: "strict",
                differences: Default::default(),
            };
            return session::transaction(|| {
                streams::save_loss(sink, &what);
                streams::save_state(sink, &state);
            });
        }
        let from = session::transaction(|| {
            streams::save_loss(sink, &what);
            cursors::rewind(sink, loss.left)
        })?;
        if from.is_none() {
            warning!("sea_mq relay: nothing of it is retained in the outbox; going on with what is unpublished");
        }
        let Some(lossy) = self.relay.sink(sink) else { return Ok(()) };
        let (position, sequence) = from.unwrap_or_else(|| (lossy.settled().position.clone(), loss.left));
        let request = lossy.rewind(position, sequence);
        request.into_iter().for_each(|request| self.io.send(request));
        self.stream_changed(sink, None)
    }

    fn look_for_others(&mut self, sink: SinkId, ids: &[String]) -> Result<(), Failed> {
        let known = session::transaction(|| cursors::known_ids(ids))?;
        let Some(shared) = self.relay.sink(sink) else { return Ok(()) };
        if ids.iter().all(|id| known.contains(id)) {
            return Ok(());
        }
        warning!(
            "sea_mq relay: others publish to stream {} as well; its order is no longer strict",
            shared.described().spec.name
        );
        shared.share();
        self.logged.remove(&sink);
        self.stream_changed(sink, None)
    }

    fn notice_commits(&mut self, now: Instant) -> Result<(), Failed> {
        let (events, descriptions) = match self.database {
            None => (false, false),
            // Cleared before the snapshot is taken: a commit that sets it afterwards is seen in the next pass.
            Some(database) => {
                (database.events.swap(false, Ordering::AcqRel), database.descriptions.swap(false, Ordering::AcqRel))
            }
        };
        let poll = now >= self.poll_at;
        if poll {
            self.poll_at = now + self.poll_interval;
            if self.extension_changed().is_some() {
                return Err(Failed("the extension was dropped or installed anew".into()));
            }
        }
        if events || poll {
            self.relay.wake();
        }
        if !descriptions && !poll {
            return Ok(());
        }
        // A restore brings its streams in while the relay runs.
        if self.held.is_none() && session::transaction(identity::trouble)?.is_some() {
            return self.begin();
        }
        self.refresh()
    }

    /// Reads the descriptions of streams and consumers, and when the next scheduled event is due.
    fn refresh(&mut self) -> Result<(), Failed> {
        for (context, kind) in session::transaction(streams::requests)? {
            session::transaction(|| streams::grant(&context, kind))?;
        }
        let (described, due) = session::transaction(|| (streams::all(), scheduled::due_in_ms()))?;
        self.due_at = due.map(|ms| Instant::now() + Duration::from_millis(u64::try_from(ms).unwrap_or(0)));
        self.relay.sinks.retain(|sink| described.iter().any(|stream| stream.sink == sink.id()));
        let mut requests = Vec::new();
        for stream in described {
            match self.relay.sink(stream.sink) {
                Some(sink) if *sink.described() == stream => {}
                Some(sink) => requests.extend(sink.describe(stream)),
                None => {
                    let id = stream.sink;
                    let (cursor, failures) = session::transaction(|| (cursors::load(id), cursors::failures(id)))?;
                    requests.extend(self.relay.add(Sink::new(stream, cursor, failures.into_iter().collect())));
                }
            }
        }
        requests.into_iter().for_each(|request| self.io.send(request));
        if self.relay.is_connected() {
            for name in session::transaction(streams::deletions)? {
                self.io.send(Request::DeleteStream { name });
            }
            self.provision_consumers()?;
        }
        Ok(())
    }

    fn provision_consumers(&mut self) -> Result<(), Failed> {
        let (wanted, unwanted) = session::transaction(consumers::open)?;
        wanted.into_iter().for_each(|spec| self.io.send(Request::EnsureConsumer { spec: Box::new(spec) }));
        for (stream, name) in unwanted {
            session::transaction(|| consumers::forget(&stream, &name))?;
            self.io.send(Request::DeleteConsumer { stream, name });
        }
        Ok(())
    }

    fn keep_house(&mut self, now: Instant) -> Result<(), Failed> {
        self.move_due(now)?;
        if now >= self.janitor_at {
            janitor::run_once()?;
            self.janitor_at = Instant::now() + janitor::interval();
        }
        Ok(())
    }

    /// Moves events whose time has come into the log.
    fn move_due(&mut self, now: Instant) -> Result<(), Failed> {
        if self.due_at.is_none_or(|due| due > now) {
            return Ok(());
        }
        // They are written as any transaction's events are: at pre-commit, with a place and a transaction id of now.
        session::transaction(|| {
            for event in scheduled::take_due(DUE_AT_ONCE) {
                pending::add(event, false);
            }
        })?;
        let due = session::transaction(scheduled::due_in_ms)?;
        self.due_at = due.map(|ms| Instant::now() + Duration::from_millis(u64::try_from(ms).unwrap_or(0)));
        self.relay.wake();
        Ok(())
    }

    /// Reads and publishes a chunk of each sink that has something and has room. Returns whether there may be more.
    fn hand_on(&mut self) -> Result<bool, Failed> {
        let max = self.max_in_flight;
        let wanted: Vec<(SinkId, Position)> = self
            .relay
            .sinks
            .iter()
            .filter(|sink| sink.wants_to_read(max, MAX_BYTES))
            .map(|sink| (sink.id(), sink.read_position().clone()))
            .collect();
        if wanted.is_empty() {
            return Ok(false);
        }
        let reads = session::transaction(|| {
            let now = log::now();
            let read = |(id, at): (SinkId, Position)| {
                let read = log::read(id, &at, &now, CHUNK);
                log::make_durable(&read.events);
                (id, read)
            };
            wanted.into_iter().map(read).collect::<Vec<_>>()
        })?;
        if reads.iter().any(|(_, read)| read.foreign) {
            return self.hold_foreign_log().map(|()| false);
        }
        let count = reads.iter().map(|(_, read)| read.events.len()).sum();
        let whole_chunk = reads.iter().any(|(_, read)| read.after.batch.is_some());
        for (id, read) in reads {
            self.publish(id, read.events, read.after);
        }
        let now = Instant::now();
        let pause = self.pace.read(count, now);
        // A backlog is read as fast as it goes.
        self.read_at = if whole_chunk { now } else { now + pause };
        Ok(self.read_at <= now && self.wants_to_read())
    }

    fn wants_to_read(&self) -> bool {
        self.relay.sinks.iter().any(|sink| sink.wants_to_read(self.max_in_flight, MAX_BYTES))
    }

    fn publish(&mut self, id: SinkId, events: Vec<Logged>, after: Position) {
        let request = self.relay.sink(id).and_then(|sink| sink.publish(events, after));
        request.into_iter().for_each(|request| self.io.send(request));
    }

    fn hold_foreign_log(&mut self) -> Result<(), Failed> {
        self.held = Some(Phase::Paused);
        self.io.send(Request::Shutdown);
        self.save_relay(
            Phase::Paused,
            Some(identity::copied("the outbox holds events that another installation wrote")),
            0,
        )
    }

    fn save_if_due(&mut self) -> Result<(), Failed> {
        let idle = self.relay.sinks.iter().all(|sink| sink.in_flight() == 0);
        let pause = if idle { SAVE_IDLE } else { SAVE_BUSY };
        if self.is_unsaved() && self.saved_at.elapsed() >= pause { self.save() } else { Ok(()) }
    }

    fn is_unsaved(&self) -> bool {
        self.relay.sinks.iter().any(Sink::is_unsaved)
    }

    fn save(&mut self) -> Result<(), Failed> {
        let unsaved: Vec<_> =
            self.relay.sinks.iter_mut().filter_map(|sink| Some((sink.id(), sink.take_unsaved()?))).collect();
        session::transaction(|| {
            let slot = ring::current_slot();
            for (sink, (cursor, runs)) in &unsaved {
                cursors::save(*sink, cursor, runs.as_slice(), slot);
            }
        })?;
        self.saved_at = Instant::now();
        Ok(())
    }

    fn save_relay(&mut self, phase: Phase, trouble: Option<consumers::Trouble>, failures: u32) -> Result<(), Failed> {
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

    /// How long nothing is to be done, unless something happens.
    fn sleep(&self) -> Duration {
        let now = Instant::now();
        let save_at = self.is_unsaved().then(|| {
            let idle = self.relay.sinks.iter().all(|sink| sink.in_flight() == 0);
            self.saved_at + if idle { SAVE_IDLE } else { SAVE_BUSY }
        });
        let read_at = (self.held.is_none() && self.wants_to_read()).then_some(self.read_at);
        let house =
            (self.held != Some(Phase::Paused)).then_some([Some(self.janitor_at), self.due_at]).into_iter().flatten();
        let times = [Some(self.poll_at), self.relay.due_at(), save_at, read_at];
        times
            .into_iter()
            .chain(house)
            .flatten()
            .min()
            .map_or(self.poll_interval, |at| at.saturating_duration_since(now))
    }

    fn pause(&self, pause: Duration) {
        if pause.is_zero() {
            return;
        }
        // While a pause between reads runs, commits need not wake anybody.
        let until_read = self.read_at.saturating_duration_since(Instant::now());
        if until_read.is_zero() {
            session::wait(Some(self.io.wake_fd()), pause);
        } else {
            session::nap(self.io.wake_fd(), pause.min(until_read));
        }
        self.io.clear_wake();
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
        log!("sea_mq relay ended");
    }
}
