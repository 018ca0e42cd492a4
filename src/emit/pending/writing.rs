//! What a transaction does with its events when it commits.

use std::collections::{HashMap, HashSet};

use pgrx::pg_sys;
use uuid::Uuid;

use super::{Given, PENDING, Pending, Sink, find, fingerprint, reused};
use crate::host::locks::{LockClass, lock_tag};
use crate::host::owed;
use crate::log::outbox::LogWriter;
use crate::log::{rows, scheduled};
use crate::streams::descriptions;
use crate::sys::clock;
use crate::sys::error::refuse;
use sea_mq_model::broker::SinkId;
use sea_mq_model::domain::event::Event;

/// Event ids given by the caller that are locked one by one; more than that are locked as a whole, so that one transaction
/// cannot use up the lock table.
const LOCKED_IDS: usize = 256;

/// Writes the events: the pre-commit hook.
pub fn write() {
    // Taken out of the cell, so that nothing is borrowed if an ERROR passes. In its place is the mark that all is written.
    let pending = PENDING.replace(Pending { written: true, ..Pending::default() });
    if pending.events.length() > 0 {
        let repeated = lock_and_check_ids(&pending.given);
        let written = write_events(&pending, &repeated);
        describe_streams(&pending.sinks, &written);
    }
    pending.events.end();
}

/// Waits for concurrent transactions that give the same ids, then looks whether they were stored. Returns those that were.
/// Locks are taken in one order by everyone, at a time when nothing else is waited for, so they cannot deadlock.
fn lock_and_check_ids(given: &HashMap<Uuid, Given>) -> HashSet<Uuid> {
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
    let stored = |(id, given): (&Uuid, &Given)| {
        let event = find(*id)?;
        if fingerprint(&event) != given.print {
            refuse(reused(*id));
        }
        Some(*id)
    };
    given.iter().filter_map(stored).collect()
}

fn lock(tag: pg_sys::LOCKTAG, mode: u32) {
    // SAFETY: a lock of the transaction, released with it.
    unsafe { pg_sys::LockAcquire(&tag, mode as _, false, false) };
}

/// Looks again whether a stream is described: that may have been rolled back, or undone, since the event was emitted.
fn describe_streams(sinks: &[Sink], written: &HashSet<SinkId>) {
    for Sink { id, context, kind, .. } in sinks.iter().filter(|sink| written.contains(&sink.id)) {
        if !descriptions::known_facts(*id, context, *kind).described {
            descriptions::describe_default(context, *kind, *id);
            owed::owe(|owed| owed.descriptions = true);
        }
    }
}

/// Returns the sinks that got events.
fn write_events(pending: &Pending, repeated: &HashSet<Uuid>) -> HashSet<SinkId> {
    let alone = pending.events.length() == 1;
    let mut writing = Writing { repeated, alone, log: None, sinks: HashSet::new(), held_back: false };
    pending.events.loose().iter().for_each(|event| writing.event(event));
    pending.events.each_row(&mut |columns| writing.row(columns));
    let stored = writing.log.is_some();
    if let Some(log) = writing.log {
        log.finish();
    }
    owed::owe(|owed| {
        owed.events |= stored;
        owed.descriptions |= writing.held_back;
    });
    writing.sinks
}

/// The events of a transaction on their way into the log.
struct Writing<'a> {
    /// Ids of events that are stored already.
    repeated: &'a HashSet<Uuid>,
    /// There is one event.
    alone: bool,
    log: Option<LogWriter>,
    sinks: HashSet<SinkId>,
    held_back: bool,
}

impl Writing<'_> {
    fn event(&mut self, event: &Event) {
        if self.accepts(event.id, event.sink) {
            if is_due(event.available_at) {
                let log = self.log.get_or_insert_with(LogWriter::open);
                if self.alone { log.append_alone(event) } else { log.append(event) }
            } else {
                self.held_back = true;
                scheduled::append(event);
            }
        }
    }

    /// An event that waited packed; those that are due go on without being read.
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
