//! The launcher: finds the databases that have the extension and keeps a process in each seat that wants one.
//!
//! It is connected to no database, so it cannot see `pg_extension`: it starts a relay in every database that it has not
//! met before. One that finds no extension says so and ends, one that finds it has the consumer started. `CREATE
//! EXTENSION` announces its database at commit. A template database is not served: whoever copies it needs it without
//! sessions, and what it holds is for its copies.

mod charge;
mod databases;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pgrx::bgworkers::{BackgroundWorker, BackgroundWorkerStatus};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, PgSqlErrorCode, log, pg_guard, pg_sys, warning};

use self::charge::{Charge, Post};
use super::rest;
use crate::host::roles::Role;
use crate::host::seat::{Life, Seat};
use crate::host::shmem::{self, Database};
use crate::host::{exclusive, session};
use crate::sys::clock;

/// How often to look for databases that nobody announced.
const SCAN: Duration = Duration::from_secs(10);
/// How often to look whether a process that is to end has ended.
const ENDING: Duration = Duration::from_millis(50);
/// How often to look whether a worker slot is free that others than we had.
const SHORT: Duration = Duration::from_millis(500);
/// When nobody has waited for a worker slot for so long, the log says so.
const CALM: Duration = Duration::from_secs(60);
/// How often to look whether a database that somebody holds is free again.
const HELD: Duration = Duration::from_millis(500);
#[unsafe(no_mangle)]
#[doc(hidden)]
#[pg_guard]
pub extern "C-unwind" fn sea_mq_launcher_main(_arg: pg_sys::Datum) {
    session::attach_signals();
    BackgroundWorker::connect_worker_to_spi(None, None);
    // SAFETY: MyLatch is this process's own.
    shmem::set_launcher(Some(unsafe { pg_sys::MyLatch }));
    log!("sea_mq launcher started");
    let mut launcher = Launcher::default();
    while !session::take_termination() {
        session::process_interrupts();
        if session::take_reload() {
            // What was set may concern those that rest.
            shmem::databases().iter().for_each(Database::rouse_all);
        }
        let pause = launcher.run_once();
        session::report_activity(c"", false);
        session::wait(None, pause);
    }
    shmem::set_launcher(None);
    drop(launcher);
    log!("sea_mq launcher ended");
    // The postmaster never starts a worker again that ends with 0, and without the launcher no relay comes back. While the
    // server shuts down it starts none.
    // SAFETY: the main thread, outside of any transaction.
    unsafe { pg_sys::proc_exit(1) }
}

#[derive(Default)]
struct Launcher {
    /// Databases that workers may connect to, with their names, as of the last look.
    found: HashMap<u32, String>,
    /// Those of them that were met; a relay was started in each at least once.
    known: HashSet<u32>,
    /// Those of them for which there is no place, which the log says.
    missed: HashSet<u32>,
    charges: HashMap<Post, Charge>,
    scanned: Option<Instant>,
    /// When somebody waited for a worker slot last, from the log's word of it to its word that nobody does any more.
    short_at: Option<Instant>,
}

/// Who wants a process.
struct Applicant {
    post: Post,
    database: &'static Database,
}

impl Launcher {
    /// One round. Returns how long to sleep.
    fn run_once(&mut self) -> Duration {
        if shmem::take_missed() {
            // Whoever asked may be known as a database without the extension.
            self.known.retain(|&oid| shmem::database(pg_sys::Oid::from(oid)).is_some());
            self.scanned = None;
        }
        let changed = shmem::take_databases_changed();
        if changed || self.has_stranger() || self.scanned.is_none_or(|at| at.elapsed() >= SCAN) {
            self.scanned = Some(Instant::now());
            match session::transaction(databases::all) {
                Ok(found) => self.meet(found),
                Err(error) => warning!("sea_mq launcher: cannot list the databases: {error}"),
            }
        }
        let mut pause = SCAN;
        let mut applicants = Vec::new();
        for database in shmem::databases() {
            let oid = database.oid.load(Ordering::Acquire);
            if oid != 0 {
                pause = pause.min(self.attend(oid, database, &mut applicants));
            }
        }
        pause.min(self.serve(applicants))
    }

    /// Starts who wants a process, those first that have waited for a worker slot for longest. Returns when to look again.
    fn serve(&mut self, mut applicants: Vec<Applicant>) -> Duration {
        applicants.sort_by_key(Applicant::turn);
        let mut pause = SCAN;
        let (mut full, mut waiting) = (false, 0);
        for Applicant { post, database } in applicants {
            pause = pause.min(self.start(post, database, &mut full));
            let waits = database.seat(post.role).waits_since.load(Ordering::Acquire) != 0;
            waiting += u32::from(waits && !post.is_handler());
        }
        shmem::set_waiting(waiting);
        self.log_shortage(waiting);
        if waiting > 0 { pause.min(SHORT) } else { pause }
    }

    /// The log says when processes begin to wait, and when that is long over.
    fn log_shortage(&mut self, waiting: u32) {
        if waiting > 0 {
            if self.short_at.replace(Instant::now()).is_none() {
                warning!(
                    "sea_mq launcher: no worker slot is free, and processes wait for one in turn; raise max_worker_processes"
                );
            }
        } else if self.short_at.is_some_and(|at| at.elapsed() >= CALM) {
            self.short_at = None;
            log!("sea_mq launcher: no process waits for a worker slot any more");
        }
    }

    /// Whether somebody wants workers in a database that was not there at the last look.
    fn has_stranger(&self) -> bool {
        let wanted = |database: &&Database| Role::all().any(|role| database.seat(role).life() == Life::Wanted);
        let is_stranger = |oid: u32| oid != 0 && !self.found.contains_key(&oid);
        shmem::databases().iter().filter(wanted).any(|database| is_stranger(database.oid.load(Ordering::Acquire)))
    }

    fn meet(&mut self, found: HashMap<u32, String>) {
        self.found = found;
        self.known.retain(|oid| self.found.contains_key(oid));
        self.missed.retain(|oid| self.found.contains_key(oid));
        for database in shmem::databases() {
            let oid = database.oid.load(Ordering::Acquire);
            if oid == 0 || self.found.contains_key(&oid) {
                continue;
            }
            if database.has_process() {
                log!("sea_mq launcher: database {oid} is a template, takes no connections or is gone; its workers end");
            }
            // The place is given up when they have ended, those included that were asked for and are not there yet.
            database.turn_away();
        }
        for (&oid, name) in &self.found {
            if self.known.contains(&oid) {
                continue;
            }
            if shmem::scout(pg_sys::Oid::from(oid)) {
                self.known.insert(oid);
                self.missed.remove(&oid);
            } else if shmem::is_full() && self.missed.insert(oid) {
                warn_no_place(name);
            }
        }
    }

    fn release(&mut self, oid: u32, database: &Database) {
        self.charges.retain(|post, _| post.database != oid);
        shmem::release(database, oid);
        // Its place may be another one's.
        if self.found.keys().any(|oid| !self.known.contains(oid)) {
            self.scanned = None;
        }
    }

    /// Does what a database needs. Returns when to look again.
    fn attend(&mut self, oid: u32, database: &'static Database, applicants: &mut Vec<Applicant>) -> Duration {
        let posts = Role::all().map(|role| Post { database: oid, role });
        let pause = posts.map(|post| self.attend_seat(post, database, applicants)).min().unwrap_or(SCAN);
        if database.is_idle() && !self.charges.iter().any(|(post, charge)| post.database == oid && charge.has_worker())
        {
            self.release(oid, database);
        }
        pause
    }

    fn attend_seat(&mut self, post: Post, database: &'static Database, applicants: &mut Vec<Applicant>) -> Duration {
        self.notice_end(post, database);
        let seat = database.seat(post.role);
        let left = time_to_rest(seat);
        if left.is_zero() {
            seat.advance(Life::Resting, Life::Wanted);
        }
        let life = seat.life();
        if matches!(life, Life::Absent | Life::Stopped | Life::Resting) {
            seat.waits_since.store(0, Ordering::Release);
        }
        match life {
            Life::Absent if self.has_process(post, database) => ENDING,
            Life::Absent | Life::Running | Life::Stopped => SCAN,
            Life::Resting => left.min(SCAN),
            Life::Wanted => {
                applicants.push(Applicant { post, database });
                SCAN
            }
            Life::Failed => self.retry(post, database),
        }
    }

    /// A process that ended while it was meant to run has failed.
    fn notice_end(&mut self, post: Post, database: &Database) {
        let seat = database.seat(post.role);
        let Some(charge) = self.charges.get_mut(&post) else {
            // A launcher before this one asked for it, and was the one to be told of its end.
            if !seat.has_process() && seat.advance(Life::Running, Life::Failed) {
                self.scanned = None;
            }
            return;
        };
        let ended =
            charge.worker.as_ref().is_some_and(|worker| matches!(worker.pid(), Err(BackgroundWorkerStatus::Stopped)));
        if ended {
            charge.worker = None;
            if seat.advance(Life::Running, Life::Failed) {
                // Maybe because the database is gone.
                self.scanned = None;
            }
        }
    }

    /// Starts a process, unless there is something in the way. Returns when to look again. `full`: there is no worker slot; noted if
    /// that shows here.
    fn start(&mut self, post: Post, database: &Database, full: &mut bool) -> Duration {
        let held_for = database.held_until.load(Ordering::Acquire) - clock::now();
        // The one before must be gone: it would take what is said to it for the new one's.
        if self.has_process(post, database) {
            return ENDING;
        }
        // More than that is left by a clock that was set back.
        if (1..=exclusive::HOLD).contains(&held_for) {
            return HELD;
        }
        let seat = database.seat(post.role);
        if !self.found.contains_key(&post.database) {
            seat.advance(Life::Wanted, Life::Absent);
            return ENDING;
        }
        // Cleared before the process is asked for: a request to end that comes after this is meant for the new one.
        seat.end.store(false, Ordering::Release);
        if seat.advance(Life::Wanted, Life::Running) {
            let asked = !*full && self.ask_for(post);
            *full |= !asked;
            self.note_slot(post, seat, asked);
        }
        SCAN
    }

    /// Who got no worker slot waits for one. Handlers are asked for again: without them, the consumer does their work.
    fn note_slot(&mut self, post: Post, seat: &Seat, asked: bool) {
        if asked {
            seat.waits_since.store(0, Ordering::Release);
            return;
        }
        let now = clock::now();
        let waits_anew = seat.waits_since.compare_exchange(0, now, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if !post.is_handler() {
            seat.advance(Life::Running, Life::Wanted);
            return;
        }
        self.charge(post).begin(None);
        seat.advance(Life::Running, Life::Failed);
        if waits_anew {
            let Post { database, role } = post;
            warning!(
                "sea_mq launcher: no worker slot is free for the {} of database {database}; raise max_worker_processes",
                role.kind().name
            );
        }
    }

    fn charge(&mut self, post: Post) -> &mut Charge {
        self.charges.entry(post).or_insert_with(|| Charge::new(post.role))
    }

    /// Asks the postmaster for a process. Returns whether it has a slot for it.
    fn ask_for(&mut self, post: Post) -> bool {
        // SAFETY: read by the main thread.
        let me = unsafe { pg_sys::MyProcPid };
        let worker = super::start(post.role, pg_sys::Oid::from(post.database), me);
        let asked = worker.is_some();
        if asked {
            self.charge(post).begin(worker);
        }
        asked
    }

    fn has_process(&self, post: Post, database: &Database) -> bool {
        database.seat(post.role).has_process() || self.charges.get(&post).is_some_and(Charge::has_worker)
    }

    fn retry(&mut self, post: Post, database: &Database) -> Duration {
        let seat = database.seat(post.role);
        let Some(charge) = self.charges.get_mut(&post) else {
            seat.advance(Life::Failed, Life::Wanted);
            return Duration::ZERO;
        };
        let pause = charge.pause(|| seat.failures.note(None, clock::now()));
        if pause.is_zero() {
            seat.advance(Life::Failed, Life::Wanted);
        }
        pause
    }
}

impl Applicant {
    /// Handlers come last, and before them who has just come.
    fn turn(&self) -> (bool, i64) {
        let since = self.database.seat(self.post.role).waits_since.load(Ordering::Acquire);
        (self.post.is_handler(), if since == 0 { i64::MAX } else { since })
    }
}

/// How long the process in a seat may rest still. More than the longest time is left by a clock that was set back.
fn time_to_rest(seat: &Seat) -> Duration {
    let left = seat.rests_until.load(Ordering::Acquire) - clock::now();
    u64::try_from(left).map(Duration::from_micros).ok().filter(|left| *left <= rest::LONGEST).unwrap_or_default()
}

/// What the log says of a database without a place, once.
fn warn_no_place(name: &str) {
    let places = shmem::databases().len();
    let message = format!("sea_mq launcher: database \"{name}\" is not looked at: all {places} places are taken");
    ErrorReport::new(PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED, message, "sea_mq")
        .set_detail("If it has the extension, no worker serves it until a place is free.")
        .set_hint("Raise sea_mq.max_databases and restart the server.")
        .report(PgLogLevel::WARNING);
}
