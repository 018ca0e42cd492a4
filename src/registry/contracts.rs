//! The contracts of events, as this process knows them: read once, compiled once, forgotten when the registry changes.
//!
//! See [`crate::sys::watch`] for how a process learns of a change.

use std::cell::{Cell, OnceCell};
use std::rc::Rc;

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, PgSqlErrorCode};
use sea_mq_contracts::event_key::EventKey;
use sea_mq_contracts::exact;
use sea_mq_contracts::invalid::{Invalid, InvalidKind};
use sea_mq_contracts::schema::{Schema, Violation};
use sea_mq_contracts::sensitive::{Place, Treatment};

use super::event_types::{self, Registered};
use crate::host::gucs;
use crate::sys::error::report;
use crate::sys::watch::{Kept, Table};
use sea_mq_model::domain::event::{self, Event, Logged};
use sea_mq_model::domain::message::Message;
use sea_mq_model::domain::outcome::Failure;
use sea_mq_model::domain::policy::ContractPolicy;

/// The contract of one version.
pub struct Contract {
    key: EventKey,
    uri: Rc<str>,
    pub visibility: String,
    source: String,
    deprecated: Option<Option<String>>,
    /// Compiled when first needed.
    schema: OnceCell<Result<Schema, Invalid>>,
    /// That it is deprecated has been said in this process.
    warned: Cell<bool>,
}

thread_local! {
    // A schema may refer to shared definitions.
    static KNOWN: Kept<EventKey, Option<Rc<Contract>>> = Kept::new(&[Table::EventTypes, Table::SchemaDefinitions]);
}

/// The contract of a version, if it is registered.
pub fn find(key: &EventKey) -> Option<Rc<Contract>> {
    KNOWN.with(|known| known.get(key, || event_types::find(key).map(|found| Rc::new(Contract::new(key, found)))))
}

/// The URI of the schema that an event's payload adheres to, if its type is registered. What is on the subject of another
/// event, a dead letter, says it itself.
fn schema_uri(event: &Event) -> Option<Rc<str>> {
    let key = event.key();
    let own = event.subject.as_ref().is_none_or(|subject| *subject == key.subject());
    find(&key).filter(|_| own).map(|contract| Rc::clone(&contract.uri))
}

/// Notes of each event that was read the URI of its schema.
pub fn name_schemas(events: &mut [Logged]) {
    events.iter_mut().for_each(|logged| logged.schema = schema_uri(&logged.event));
}

/// Compiles a schema whose own URI is `uri`, with what it refers to taken from the registry.
pub fn compile(schema: &str, uri: &str) -> Result<Schema, Invalid> {
    let read = |text: &str| serde_json::from_str(text);
    if let Some(number) = exact::first_long(schema) {
        return Err(Invalid::value(
            format!("the schema holds the number {number}, which double precision does not"),
            "Write it with 15 digits, or as a whole number of 64 bits. In payloads, numbers of any length are checked exactly.",
        ));
    }
    let schema = read(schema).map_err(|error| {
        Invalid::value(
            format!("the schema cannot be read: {error}"),
            "It may be 128 levels deep, and its numbers as large as double precision allows.",
        )
    })?;
    Schema::compile(&schema, uri, |uri| event_types::find_schema(uri).and_then(|text| read(&text).ok()))
}

impl Contract {
    fn new(key: &EventKey, found: Registered) -> Self {
        Self {
            key: key.clone(),
            uri: key.uri().into(),
            visibility: found.visibility,
            source: found.schema,
            deprecated: found.deprecated,
            schema: OnceCell::new(),
            warned: Cell::new(false),
        }
    }

    /// How a payload, JSON text, breaks the contract.
    pub fn violations(&self, payload: &str) -> Result<Vec<Violation>, Invalid> {
        self.schema().map(|schema| schema.violations_of_text(payload))
    }

    /// The sensitive places of a payload, JSON text. What cannot be read is sensitive as a whole.
    pub fn sensitive_places(&self, payload: &str) -> Result<Vec<Place>, Invalid> {
        let schema = self.schema()?;
        let whole = || vec![Place { path: Vec::new(), treatment: Treatment::Strip }];
        Ok(serde_json::from_str(payload).map_or_else(|_| whole(), |payload| schema.sensitive_places(&payload)))
    }

    fn schema(&self) -> Result<&Schema, Invalid> {
        self.schema.get_or_init(|| compile(&self.source, &self.uri)).as_ref().map_err(Invalid::clone)
    }

    fn check(&self, payload: &str, visibility: Option<&str>) -> Result<(), Invalid> {
        if let Some(wider) = visibility.filter(|visibility| event::is_wider(visibility, &self.visibility)) {
            return Err(Invalid::new(
                InvalidKind::Broken,
                format!("{} is {} at most, and this event is {wider}", self.key, self.visibility),
                "Leave visibility out, or register the wider audience as the next version.",
            ));
        }
        let violations = self.violations(payload)?;
        if violations.is_empty() { Ok(()) } else { Err(broken(&self.key, &violations)) }
    }

    fn warn_if_deprecated(&self) {
        let Some(reason) = self.deprecated.as_ref().filter(|_| !self.warned.replace(true)) else { return };
        let reason = reason.as_deref().unwrap_or("Emit a newer version.");
        ErrorReport::new(PgSqlErrorCode::ERRCODE_WARNING, format!("{} is deprecated", self.key), "sea_mq")
            .set_hint(reason.to_owned())
            .report(PgLogLevel::WARNING);
    }
}

/// Holds an event that is emitted against its contract, and gives it the registered visibility if the caller gave none.
pub fn apply(event: &mut Event, visibility_given: bool) -> Result<(), Invalid> {
    let key = event.key();
    let contract = find(&key);
    if let Some(contract) = contract.as_ref().filter(|_| !visibility_given) {
        event.visibility.clone_from(&contract.visibility);
    }
    let policy = gucs::contracts();
    if policy == ContractPolicy::Off {
        return Ok(());
    }
    let verdict = contract.ok_or_else(|| unregistered(&key)).and_then(|contract| {
        contract.warn_if_deprecated();
        contract.check(&event.payload, Some(&event.visibility))
    });
    match (verdict, policy) {
        (Err(invalid), ContractPolicy::Warn) => {
            report(invalid, PgLogLevel::WARNING);
            Ok(())
        }
        (verdict, _) => verdict,
    }
}

/// Why a message that was received is poison for breaking its contract, if it is.
pub fn refusal(message: &Message, policy: ContractPolicy) -> Option<Failure> {
    if policy == ContractPolicy::Off {
        return None;
    }
    let invalid = check_received(message).err()?;
    if policy == ContractPolicy::Warn {
        pgrx::warning!("sea_mq consumer: message {}: {invalid}", message.message_id);
        return None;
    }
    let sqlstate = if invalid.kind == InvalidKind::Broken { "23514" } else { "42704" };
    Some(Failure { sqlstate: sqlstate.into(), message: invalid.message, detail: invalid.detail })
}

fn check_received(message: &Message) -> Result<(), Invalid> {
    let context = message.source_context.as_deref().unwrap_or_default();
    let key = EventKey::new(context, &message.event_type, message.event_version.unwrap_or(0))?;
    require(&key)?.check(&message.payload, None)
}

/// The contract of a version that must be registered.
pub fn require(key: &EventKey) -> Result<Rc<Contract>, Invalid> {
    find(key).ok_or_else(|| unregistered(key))
}

fn unregistered(key: &EventKey) -> Invalid {
    Invalid::new(
        InvalidKind::Unknown,
        format!("{key} is not registered"),
        "Register its contract with sea_mq.register_event; sea_mq.event_types lists what is.",
    )
}

fn broken(key: &EventKey, violations: &[Violation]) -> Invalid {
    let lines: Vec<String> = violations
        .iter()
        .map(|violation| match violation.pointer.as_str() {
            "" => violation.message.clone(),
            pointer => format!("{pointer}: {}", violation.message),
        })
        .collect();
    Invalid {
        detail: Some(lines.join("\n")),
        ..Invalid::new(
            InvalidKind::Broken,
            format!("the payload breaks the contract of {key}"),
            "Fix the payload; a changed meaning is registered as the next version.",
        )
    }
}
