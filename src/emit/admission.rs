//! Admission: what an event must pass before the transaction keeps it.

use std::sync::atomic::Ordering;

use pgrx::pg_sys;
use sea_mq_contracts::invalid::{Invalid, InvalidKind};
use uuid::Uuid;

use super::{outbox_limit, pending};
use crate::host::gucs;
use crate::host::roles::Role;
use crate::host::shmem::{self, limit as doubt};
use crate::registry::contracts;
use crate::streams::descriptions::Facts;
use sea_mq_model::domain::envelope::Publication;
use sea_mq_model::domain::event::{Defaults, EmitArgs, Event, MAX_HEADERS};
use sea_mq_model::domain::policy::ContractPolicy;
use sea_mq_model::domain::sink::SinkKind;

/// Checks that the transaction may write, and asks the session for what arguments leave out.
pub fn defaults() -> Defaults {
    // SAFETY: raises an ERROR in a read-only transaction and during recovery; the clock can always be read.
    unsafe {
        pg_sys::PreventCommandIfReadOnly(c"sea_mq.emit()".as_ptr());
        pg_sys::PreventCommandDuringRecovery(c"sea_mq.emit()".as_ptr());
        gucs::emit_defaults(pg_sys::GetCurrentTimestamp())
    }
}

/// Checks an event and keeps it until the transaction commits.
pub fn emit(args: EmitArgs, defaults: &Defaults) -> Result<Uuid, Invalid> {
    let (given_id, given_visibility) = (args.event_id.is_some(), args.visibility.is_some());
    let mut event = Event::new(args, defaults)?;
    let facts = required_facts(&event)?;
    contracts::apply(&mut event, given_visibility)?;
    check_size(&event, &facts)?;
    let id = event.id;
    if given_id && let Some(stored) = pending::find(id) {
        return if stored.same_content(&event) { Ok(id) } else { Err(pending::reused(id)) };
    }
    outbox_limit::check(defaults.now);
    pending::add(event, given_id);
    Ok(id)
}

/// Many events of one type that differ in aggregate and payload alone: the rest is checked once.
pub struct Series {
    /// The last one, and what the next one is like.
    event: Event,
    facts: Facts,
    has_policy: bool,
}

impl Series {
    pub fn begin(args: EmitArgs) -> Result<Self, Invalid> {
        let defaults = defaults();
        outbox_limit::check(defaults.now);
        let mut event = Event::new(args, &defaults)?;
        let facts = required_facts(&event)?;
        if let Some(contract) = contracts::find(&event.key()) {
            event.visibility.clone_from(&contract.visibility);
        }
        Ok(Self { event, facts, has_policy: gucs::contracts() != ContractPolicy::Off })
    }

    /// Checks the next event and keeps it until the transaction commits. The aggregate's id fits a header.
    pub fn emit(&mut self, aggregate_id: String, payload: String) -> Result<(), Invalid> {
        let event = &mut self.event;
        (event.id, event.aggregate_id, event.payload) = (Uuid::now_v7(), aggregate_id, payload);
        if self.has_policy {
            contracts::apply(event, false)?;
        }
        check_size(event, &self.facts)?;
        pending::add_copy(event);
        Ok(())
    }
}

/// What is to be known of the stream that an event goes to, which must be there or come by itself.
fn required_facts(event: &Event) -> Result<Facts, Invalid> {
    let facts = pending::facts(event.sink, &event.context, SinkKind::Event);
    if facts.described || gucs::auto_create_streams() { Ok(facts) } else { Err(no_stream(&event.context)) }
}

fn no_stream(context: &str) -> Invalid {
    Invalid::new(
        InvalidKind::Unknown,
        format!("context \"{context}\" has no stream"),
        "Create it with sea_mq.create_stream, or set sea_mq.auto_create_streams = on.",
    )
}

/// Refuses what the broker would refuse.
pub fn check_size(event: &Event, facts: &Facts) -> Result<(), Invalid> {
    let limit = size_limit(facts);
    // An upper bound that is cheap: headers say a text up to five times, at worst in thrice as many bytes.
    let texts = [&event.aggregate_type, &event.aggregate_id, &event.event_type, &event.context];
    let optional = [&event.headers, &event.correlation_id, &event.causation_id];
    let rough = texts.iter().map(|text| text.len()).sum::<usize>()
        + optional.iter().map(|text| text.as_ref().map_or(0, String::len)).sum::<usize>();
    if event.payload.len() + 16 * rough + 2048 <= limit.min(event.payload.len() + MAX_HEADERS) {
        return Ok(());
    }
    // Its type may be registered until it is published.
    let size = Publication::new(event, Some(&event.key().uri())).size(facts.form);
    if size.headers > MAX_HEADERS {
        return Err(Invalid::new(
            InvalidKind::TooLarge,
            format!("the headers would be {} bytes long, the limit is {MAX_HEADERS}", size.headers),
            "Long content belongs into the payload.",
        ));
    }
    let size = size.headers + size.body;
    if size <= limit {
        return Ok(());
    }
    if let Some(database) =
        shmem::here().filter(|database| database.max_payload.load(Ordering::Relaxed) == limit as u64)
    {
        let _ = database.limit.compare_exchange(doubt::KNOWN, doubt::DOUBTED, Ordering::Relaxed, Ordering::Relaxed);
        database.rouse(Role::Relay);
    }
    Err(Invalid::new(
        InvalidKind::TooLarge,
        format!("the message would be {size} bytes long with its headers, the limit is {limit}"),
        "Send a reference to large content instead of the content, or raise sea_mq.max_message_size and, in NATS, max_payload. What was raised in NATS is known after sea_mq.reload(), or within a minute.",
    ))
}

/// Bytes: the least of the setting, the connected server's limit and the stream's.
fn size_limit(facts: &Facts) -> usize {
    let server = shmem::here().map_or(0, |database| database.max_payload.load(Ordering::Relaxed));
    let server = usize::try_from(server).ok().filter(|&limit| limit > 0);
    gucs::max_message_size().min(server.unwrap_or(usize::MAX)).min(facts.max_msg_size.unwrap_or(usize::MAX))
}
