//! The events of the current transaction, kept in this process until it is about to commit.
//!
//! `seq` is then taken while every lock of the transaction is still held, so it follows the serialisation order wherever
//! `emit` was called; and what is rolled back never touches the log. A large transaction waits in a tuple store, which
//! moves to disk by itself (`work_mem`).

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

use pgrx::pg_sys;
use sea_mq_contracts::invalid::{Invalid, InvalidKind};
use uuid::Uuid;

use super::clock;
use super::commit::{self, LockClass, lock_tag};
use super::error::{raise, refuse};
use super::relation::{Relation, Scratch};
use super::store::log::{self, LogWriter};
use super::store::streams::{self, Facts};
use super::store::{rows, scheduled};
use crate::broker::SinkId;
use crate::domain::event::Event;
use crate::domain::sink::SinkKind;

/// Bytes and events that are kept in memory before all of them move to the tuple store.
const MEMORY_BYTES: usize = 1 << 20;
const MEMORY_EVENTS: usize = 1 << 12;

/// Event ids given by the caller that are locked one by one; more than that are locked as a whole, so that one transaction
/// cannot use up the lock table.
const LOCKED_IDS: usize = 256;

#[derive(Default)]
struct Pending {
    /// The rows are written: nothing can be added any more.
    written: bool,
    events: Vec<Event>,
    bytes: usize,
    spilled: Option<Spilled>,
    /// Which subtransaction emitted which events: places from 0, ascending in both.
    runs: Vec<SubtransactionRun>,
    /// Ids given by callers: place, and fingerprint of the content.
    given: HashMap<Uuid, (usize, u64)>,
    /// The least and the greatest of the other ids: callers may give one that they got from an earlier call.
    made: Option<(Uuid, Uuid)>,
    /// Sinks met in this transaction.
    sinks: Vec<(Facts, String, SinkKind)>,
}

struct SubtransactionRun {
    id: pg_sys::SubTransactionId,
    start: usize,
}

struct Spilled {
    store: *mut pg_sys::Tuplestorestate,
    descriptor: pg_sys::TupleDesc,
    length: usize,
    /// Places that were rolled back; ascending and apart.
    dead: Vec<Range<usize>>,
    scratch: Scratch,
}

thread_local! {
    static PENDING: RefCell<Pending> = RefCell::new(Pending::default());
}

/// Adds an event. `given_id`: its id was given by the caller. Returns `false` if the transaction has emitted it already.
pub fn add(event: Event, given_id: bool) -> bool {
    keep(Cow::Owned(event), given_id)
}

/// Adds an event that is copied only as long as events are kept in memory.
pub fn add_copy(event: &Event) {
    keep(Cow::Borrowed(event), false);
}

fn keep(event: Cow<'_, Event>, given_id: bool) -> bool {
    // SAFETY: in a transaction.
    let subtransaction = unsafe { pg_sys::GetCurrentSubTransactionId() };
    PENDING.with_borrow_mut(|pending| {
        if pending.written {
            raise(
                pgrx::PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                "the transaction is already committing and takes no more events",
                "An extension emitted from its own commit hook; emit earlier.",
            );
        }
        if given_id {
            let print = fingerprint(&event);
            match pending.fingerprint_of(event.id) {
                Some(known) if known == print => return false,
                Some(_) => refuse(reused(event.id)),
                None => drop(pending.given.insert(event.id, (pending.length(), print))),
            }
        } else {
            let (least, greatest) = pending.made.unwrap_or((event.id, event.id));
            pending.made = Some((least.min(event.id), greatest.max(event.id)));
        }
        if pending.runs.last().is_none_or(|run| run.id != subtransaction) {
            let start = pending.length();
            pending.runs.push(SubtransactionRun { id: subtransaction, start });
        }
        pending.push(event);
        true
    })
}

/// The facts about a sink, looked up once in a transaction.
pub fn facts(sink: SinkId, context: &str, kind: SinkKind) -> Facts {
    PENDING.with_borrow_mut(|pending| {
        let known = pending.sinks.iter().find(|(facts, name, _)| facts.sink == sink && name == context);
        if let Some((facts, ..)) = known {
            return *facts;
        }
        let facts = streams::known_facts(sink, context, kind);
        pending.sinks.push((facts, context.to_owned(), kind));
        facts
    })
}

/// The refusal of an id that was used for another event.
pub fn reused(id: Uuid) -> Invalid {
    Invalid::new(
        InvalidKind::Reused,
        format!("event id {id} was used for an event with other content"),
        "Repeating an event needs the same context, type, version, aggregate, payload, headers and visibility.",
    )
}

/// Visits the events that will be sent, in order.
pub fn visit(mut visitor: impl FnMut(&Event)) {
    PENDING.with_borrow_mut(|pending| pending.each(&mut visitor));
}

/// A subtransaction was rolled back: its events go with it. Runs in abort processing, so it must not fail.
pub fn roll_back_to(id: pg_sys::SubTransactionId) {
    PENDING.with_borrow_mut(|pending| {
        let mut start = None;
        // A subtransaction that is still open has only descendants after it.
        while pending.runs.last().is_some_and(|run| run.id >= id) {
            start = pending.runs.pop().map(|run| run.start);
        }
        if let Some(start) = start {
            pending.truncate(start);
        }
    });
}

/// Writes the events: the pre-commit hook.
pub fn write() {
    // Taken out of the cell, so that nothing is borrowed if an ERROR passes.
    let mut pending = PENDING.take();
    if pending.written || pending.length() == 0 {
        pending.written = true;
        PENDING.set(Pending { written: pending.written, ..Pending::default() });
        return;
    }
    PENDING.with_borrow_mut(|marker| marker.written = true);
    let repeated = lock_and_check_ids(&pending.given);
    let written = write_events(&mut pending, &repeated);
    describe_streams(&pending.sinks, &written);
    pending.end();
}

/// The transaction is over, one way or the other. Must not fail.
pub fn forget() {
    // The tuple store's memory and files went with the transaction.
    PENDING.with_borrow_mut(|pending| {
        if pending.written || !pending.runs.is_empty() || !pending.sinks.is_empty() {
            *pending = Pending::default();
        }
    });
}

fn fingerprint(event: &Event) -> u64 {
    let mut hasher = DefaultHasher::new();
    (event.sink, event.subject(), &event.aggregate_type, &event.aggregate_id).hash(&mut hasher);
    (&event.payload, &event.visibility, event.caller_headers()).hash(&mut hasher);
    hasher.finish()
}

/// Waits for concurrent transactions that give the same ids, then looks whether they were stored. Returns those that were.
/// Locks are taken in one order by everyone, at a time when nothing else is waited for, so they cannot deadlock.
fn lock_and_check_ids(given: &HashMap<Uuid, (usize, u64)>) -> HashSet<Uuid> {
    if given.is_empty() {
        return HashSet::new();
    }
    let many = given.len() > LOCKED_IDS;
    lock(lock_tag(0, 0, LockClass::AllEventIds), if many { pg_sys::ExclusiveLock } else { pg_sys::ShareLock });
    let mut keys: Vec<(u32, u32)> =
        given.keys().map(|id| id.as_u64_pair().1).map(|low| ((low >> 32) as u32, low as u32)).collect();
    keys.sort_unstable();
    for (high, low) in keys.into_iter().take(if many { 0 } else { LOCKED_IDS }) {
        lock(lock_tag(high, low, LockClass::EventId), pg_sys::ExclusiveLock);
    }
    let stored = |(id, (_, print)): (&Uuid, &(usize, u64))| {
        let event = find(*id)?;
        if fingerprint(&event) != *print {
            refuse(reused(*id));
        }
        Some(*id)
    };
    given.iter().filter_map(stored).collect()
}

/// Whether the current transaction has emitted an event with this id.
pub fn holds(id: Uuid) -> bool {
    PENDING.with_borrow_mut(|pending| pending.fingerprint_of(id).is_some())
}

/// The stored event with this id, wherever it is.
pub fn find(id: Uuid) -> Option<Event> {
    log::find(id).map(|logged| logged.event).or_else(|| scheduled::find(id))
}

fn lock(tag: pg_sys::LOCKTAG, mode: u32) {
    // SAFETY: a lock of the transaction, released with it.
    unsafe { pg_sys::LockAcquire(&tag, mode as _, false, false) };
}

fn describe_streams(sinks: &[(Facts, String, SinkKind)], written: &HashSet<SinkId>) {
    let new = sinks.iter().filter(|(facts, ..)| !facts.described && written.contains(&facts.sink));
    for (facts, context, kind) in new {
        streams::describe_default(context, *kind, facts.sink);
        commit::owe(|owed| owed.descriptions = true);
    }
}

/// Returns the sinks that got events.
fn write_events(pending: &mut Pending, repeated: &HashSet<Uuid>) -> HashSet<SinkId> {
    let mut writing = Writing { repeated, log: None, sinks: HashSet::new(), held_back: false };
    pending.events.iter().for_each(|event| writing.event(event));
    if let Some(spilled) = &mut pending.spilled {
        spilled.each_row(&mut |columns| writing.row(columns));
    }
    let stored = writing.log.is_some();
    if let Some(log) = writing.log {
        log.finish();
    }
    commit::owe(|owed| {
        owed.events |= stored;
        owed.descriptions |= writing.held_back;
    });
    writing.sinks
}

/// The events of a transaction on their way into the log.
struct Writing<'a> {
    /// Ids of events that are stored already.
    repeated: &'a HashSet<Uuid>,
    log: Option<LogWriter>,
    sinks: HashSet<SinkId>,
    held_back: bool,
}

impl Writing<'_> {
    fn event(&mut self, event: &Event) {
        if self.accepts(event.id, event.sink) {
            if is_due(event.available_at) {
                self.log.get_or_insert_with(LogWriter::open).append(event);
            } else {
                self.held_back = true;
                scheduled::append(event);
            }
        }
    }

    /// An event that waited in the tuple store; those that are due go on without being read.
    fn row(&mut self, columns: rows::Columns<{ rows::SCHEDULED_COLUMNS }>) {
        let (available_at, id, sink) = rows::scheduled_key(columns);
        if self.accepts(id, sink) {
            if is_due(available_at) {
                self.log.get_or_insert_with(LogWriter::open).append_waiting(columns);
            } else {
                self.held_back = true;
                scheduled::append(&rows::read_scheduled(columns));
            }
        }
    }

    fn accepts(&mut self, id: Uuid, sink: SinkId) -> bool {
        pgrx::check_for_interrupts!();
        let is_new = !self.repeated.contains(&id);
        if is_new && !self.sinks.contains(&sink) {
            self.sinks.insert(sink);
        }
        is_new
    }
}

/// Whether an event that was held back may enter the log.
fn is_due(available_at: Option<i64>) -> bool {
    available_at.is_none_or(|at| at <= clock::now())
}

impl Pending {
    /// Places used so far, rolled back ones included.
    fn length(&self) -> usize {
        self.spilled.as_ref().map_or(self.events.len(), |spilled| spilled.length)
    }

    fn push(&mut self, event: Cow<'_, Event>) {
        self.bytes += event.payload.len() + size_of::<Event>();
        match &mut self.spilled {
            Some(spilled) => spilled.push(&event),
            None => self.events.push(event.into_owned()),
        }
        if self.spilled.is_none() && (self.bytes > MEMORY_BYTES || self.events.len() > MEMORY_EVENTS) {
            let mut spilled = Spilled::begin();
            self.events.drain(..).for_each(|event| spilled.push(&event));
            self.spilled = Some(spilled);
        }
    }

    fn truncate(&mut self, start: usize) {
        match &mut self.spilled {
            Some(spilled) => spilled.kill_from(start),
            None => self.events.truncate(start),
        }
        self.given.retain(|_, (place, _)| *place < start);
    }

    /// The content of the event of this transaction that has the id.
    fn fingerprint_of(&mut self, id: Uuid) -> Option<u64> {
        if let Some((_, known)) = self.given.get(&id) {
            return Some(*known);
        }
        // All are looked at only if it can be one of ours, which are made in the order of time.
        self.made.filter(|(least, greatest)| (least..=greatest).contains(&&id))?;
        let mut found = None;
        self.each(&mut |event| {
            if event.id == id {
                found = Some(fingerprint(event));
            }
        });
        found
    }

    fn each(&mut self, visitor: &mut dyn FnMut(&Event)) {
        self.events.iter().for_each(&mut *visitor);
        if let Some(spilled) = &mut self.spilled {
            spilled.each(visitor);
        }
    }

    fn end(self) {
        if let Some(spilled) = self.spilled {
            // SAFETY: the tuple store is ours and is not used again.
            unsafe { pg_sys::tuplestore_end(spilled.store) }
        }
    }
}

impl Spilled {
    /// The store belongs to the top-level transaction, also if a subtransaction begins it.
    fn begin() -> Self {
        // SAFETY: memory context and resource owner are put back; both live as long as the transaction.
        unsafe {
            let context = pg_sys::MemoryContextSwitchTo(pg_sys::TopTransactionContext);
            let owner = pg_sys::CurrentResourceOwner;
            pg_sys::CurrentResourceOwner = pg_sys::TopTransactionResourceOwner;
            let descriptor = rows::copy_descriptor(&Relation::open("scheduled_events"));
            let store = pg_sys::tuplestore_begin_heap(true, false, pg_sys::work_mem);
            let scratch = Scratch::new();
            pg_sys::CurrentResourceOwner = owner;
            pg_sys::MemoryContextSwitchTo(context);
            Self { store, descriptor, length: 0, dead: Vec::new(), scratch }
        }
    }

    fn push(&mut self, event: &Event) {
        self.scratch.within(|| {
            let mut row = rows::scheduled_row(event, 0, 0);
            row[0] = event.available_at.map(pg_sys::Datum::from);
            let mut nulls = row.map(|value| value.is_none());
            let mut values = row.map(|value| value.unwrap_or(pg_sys::Datum::from(0)));
            // SAFETY: the values match the descriptor; temporary files are to belong to the top-level transaction.
            unsafe {
                let owner = pg_sys::CurrentResourceOwner;
                pg_sys::CurrentResourceOwner = pg_sys::TopTransactionResourceOwner;
                pg_sys::tuplestore_putvalues(self.store, self.descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
                pg_sys::CurrentResourceOwner = owner;
            }
        });
        self.length += 1;
    }

    fn kill_from(&mut self, start: usize) {
        while self.dead.last().is_some_and(|range| range.start >= start) {
            self.dead.pop();
        }
        self.dead.push(start..self.length);
    }

    fn each(&mut self, visitor: &mut dyn FnMut(&Event)) {
        self.each_row(&mut |columns| visitor(&rows::read_scheduled(columns)));
    }

    /// The columns are valid until the visitor returns.
    fn each_row(&mut self, visitor: &mut dyn FnMut(rows::Columns<{ rows::SCHEDULED_COLUMNS }>)) {
        // SAFETY: the store allows rewinding; the slot is dropped before the descriptor goes.
        unsafe {
            pg_sys::tuplestore_rescan(self.store);
            let slot = pg_sys::MakeSingleTupleTableSlot(self.descriptor, &raw const pg_sys::TTSOpsMinimalTuple);
            let mut dead = self.dead.iter().peekable();
            for place in 0..self.length {
                if !pg_sys::tuplestore_gettupleslot(self.store, true, false, slot) {
                    break;
                }
                while dead.next_if(|range| range.end <= place).is_some() {}
                if dead.peek().is_some_and(|range| range.contains(&place)) {
                    continue;
                }
                pg_sys::slot_getsomeattrs_int(slot, rows::SCHEDULED_COLUMNS as i32);
                let columns =
                    std::array::from_fn(|i| (!*(*slot).tts_isnull.add(i)).then(|| *(*slot).tts_values.add(i)));
                visitor(columns);
            }
            pg_sys::ExecDropSingleTupleTableSlot(slot);
        }
    }
}
