//! Why the client library gave a connection up. It tells nobody, but writes it into its log: this listens there.
//!
//! Without it, a message that the library cannot read looks like a line that broke.

use std::sync::{Arc, Mutex, PoisonError};

use tracing_core::dispatcher::{self, DefaultGuard, Dispatch};
use tracing_core::field::{Field, Visit};
use tracing_core::span::{Attributes, Id, Record};
use tracing_core::subscriber::Interest;
use tracing_core::{Event, Level, LevelFilter, Metadata, Subscriber};

/// The module of the library that gives connections up, and the field in which it says why.
const MODULE: &str = "async_nats";
const FIELD: &str = "error";
/// How it writes that what it has read makes no sense to it. What it could not read at all has other kinds.
const SENSELESS: [&str; 2] = ["InvalidInput", "could not parse status parameter"];

/// Listens to the library in the current thread until it is dropped.
pub(super) struct Witness {
    heard: Arc<Mutex<Option<String>>>,
    _listening: DefaultGuard,
}

impl Witness {
    pub(super) fn listen() -> Self {
        let heard = Arc::new(Mutex::new(None));
        let listener = Listener { heard: Arc::clone(&heard) };
        Self { heard, _listening: dispatcher::set_default(&Dispatch::new(listener)) }
    }

    /// What the library could not make sense of, if that is why it gave the connection up.
    pub(super) fn senseless(&self) -> Option<String> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone();
        heard.filter(|words| SENSELESS.iter().any(|sign| words.contains(sign)))
    }
}

struct Listener {
    heard: Arc<Mutex<Option<String>>>,
}

fn matters(metadata: &Metadata<'_>) -> bool {
    metadata.target() == MODULE && *metadata.level() == Level::DEBUG && metadata.fields().field(FIELD).is_some()
}

impl Subscriber for Listener {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if matters(metadata) { Interest::always() } else { Interest::never() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::DEBUG)
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        matters(metadata)
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut Reader(&self.heard));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Reader<'a>(&'a Mutex<Option<String>>);

impl Visit for Reader<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == FIELD {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("{value:?}"));
        }
    }
}
