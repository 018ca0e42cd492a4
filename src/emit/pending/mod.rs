//! The events of the current transaction, kept in this process until it is about to commit.
//!
//! `seq` is then taken while every lock of the transaction is still held, so it follows the serialisation order wherever
//! `emit` was called; and what is rolled back never touches the log.
//!
//! An ERROR may pass anywhere, and its savepoint be rolled back: what was there before it stays as it was. So nothing
//! changes before all is done that can fail.
//!
//! - [`events`]: where they wait, a large transaction's in a temporary [`file`], [`packed`]
//! - [`writing`]: the pre-commit hook

mod events;
mod file;
mod packed;
mod writing;

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use pgrx::pg_sys;
use sea_mq_contracts::invalid::{Invalid, InvalidKind};
use uuid::Uuid;

use self::events::Events;
pub use self::writing::write;
use crate::log::{outbox, scheduled};
use crate::streams::descriptions::{self, Facts};
use crate::sys::error::{raise, refuse};
use sea_mq_model::broker::SinkId;
use sea_mq_model::domain::event::Event;
use sea_mq_model::domain::sink::SinkKind;

#[derive(Default)]
struct Pending {
    /// The rows are written: nothing can be added any more.
    written: bool,
    events: Events,
    /// Which subtransaction emitted which events.
    runs: Vec<Run>,
    /// Ids given by callers.
    given: HashMap<Uuid, Given>,
    /// The least and the greatest of the other ids: callers may give one that they got from an earlier call.
    made: Option<(Uuid, Uuid)>,
    /// Sinks met in this transaction.
    sinks: Vec<Sink>,
}

/// Events of one subtransaction, from a place on up to the next run.
struct Run {
    subtransaction: pg_sys::SubTransactionId,
    start: usize,
}

/// What is known of an event whose id was given.
struct Given {
    place: usize,
    /// The fingerprint of its content.
    print: u64,
}

struct Sink {
    id: SinkId,
    context: String,
    kind: SinkKind,
    /// `None` if they were learnt in a subtransaction that may have been rolled back.
    facts: Option<Facts>,
}

thread_local! {
    static PENDING: RefCell<Pending> = RefCell::new(Pending::default());
}

/// Adds an event. `given_id`: its id was given by the caller. Returns `false` if the transaction has emitted it already.
pub fn add(event: Event, given_id: bool) -> bool {
    keep(Cow::Owned(event), given_id)
}

/// Adds an event that is copied only as long as events are kept as they are.
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
        let (id, place) = (event.id, pending.events.length());
        let print = given_id.then(|| fingerprint(&event));
        if let Some(print) = print {
            match pending.fingerprint_of(id) {
                Some(known) if known == print => return false,
                Some(_) => refuse(reused(id)),
                None => {}
            }
        }
        if given_id {
            events::or_no_memory(pending.given.try_reserve(1));
        }
        pending.events.push(event);
        // From here on nothing fails.
        if pending.runs.last().is_none_or(|run| run.subtransaction != subtransaction) {
            pending.runs.push(Run { subtransaction, start: place });
        }
        if let Some(print) = print {
            pending.given.insert(id, Given { place, print });
        } else {
            let (least, greatest) = pending.made.unwrap_or((id, id));
            pending.made = Some((least.min(id), greatest.max(id)));
        }
        true
    })
}

/// The facts about a sink, looked up once in a transaction.
pub fn facts(sink: SinkId, context: &str, kind: SinkKind) -> Facts {
    let known = PENDING.with_borrow(|pending| {
        pending.sinks.iter().find(|known| known.id == sink && known.context == context).and_then(|known| known.facts)
    });
    if let Some(facts) = known {
        return facts;
    }
    // Nothing is borrowed meanwhile: an ERROR may pass.
    let facts = descriptions::known_facts(sink, context, kind);
    PENDING.with_borrow_mut(|pending| {
        match pending.sinks.iter_mut().find(|known| known.id == sink && known.context == context) {
            Some(known) => known.facts = Some(facts),
            None => pending.sinks.push(Sink { id: sink, context: context.to_owned(), kind, facts: Some(facts) }),
        }
    });
    facts
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
    PENDING.with_borrow(|pending| pending.events.each(&mut visitor));
}

/// A subtransaction was rolled back: its events go with it. Runs in abort processing, so it must not fail.
pub fn roll_back_to(id: pg_sys::SubTransactionId) {
    unless_ending(|pending| {
        let mut start = None;
        // A subtransaction that is still open has only descendants after it.
        while pending.runs.last().is_some_and(|run| run.subtransaction >= id) {
            start = pending.runs.pop().map(|run| run.start);
        }
        if let Some(start) = start {
            pending.events.truncate(start);
            pending.given.retain(|_, given| given.place < start);
        }
        pending.sinks.iter_mut().for_each(|sink| sink.facts = None);
    });
}

/// The transaction is over, one way or the other. Must not fail.
pub fn forget() {
    // What is left of the file goes with the transaction.
    unless_ending(|pending| *pending = Pending::default());
}

/// For callbacks at a transaction's end. A process that ends in the middle of an emit (a FATAL error) comes here without having
/// unwound: what is borrowed then is of no use to anybody any more.
fn unless_ending(f: impl FnOnce(&mut Pending)) {
    let _gone = PENDING.try_with(|pending| {
        if let Ok(mut pending) = pending.try_borrow_mut() {
            f(&mut pending);
        }
    });
}

fn fingerprint(event: &Event) -> u64 {
    let mut hasher = DefaultHasher::new();
    (event.sink, event.subject(), &event.aggregate_type, &event.aggregate_id).hash(&mut hasher);
    (&event.payload, &event.visibility, event.caller_headers()).hash(&mut hasher);
    hasher.finish()
}

/// Whether the current transaction has emitted an event with this id.
pub fn holds(id: Uuid) -> bool {
    PENDING.with_borrow(|pending| pending.fingerprint_of(id).is_some())
}

/// The stored event with this id, wherever it is.
pub fn find(id: Uuid) -> Option<Event> {
    outbox::find(id).map(|logged| logged.event).or_else(|| scheduled::find(id))
}

impl Pending {
    /// The content of the event of this transaction that has the id.
    fn fingerprint_of(&self, id: Uuid) -> Option<u64> {
        if let Some(given) = self.given.get(&id) {
            return Some(given.print);
        }
        // All are looked at only if it can be one of ours, which are made in the order of time.
        self.made.filter(|(least, greatest)| (least..=greatest).contains(&&id))?;
        let mut found = None;
        self.events.each(&mut |event| {
            if event.id == id {
                found = Some(fingerprint(event));
            }
        });
        found
    }
}
