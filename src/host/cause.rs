//! The event that is handled now: what is emitted meanwhile names it as its cause.

use std::cell::RefCell;

/// What the emits of the current handler take from the event that is handled.
#[derive(Clone, Debug, Default)]
pub struct Cause {
    pub correlation_id: Option<String>,
    pub causation_id: Option<String>,
    pub traceparent: Option<String>,
}

thread_local! {
    static CAUSE: RefCell<Option<Cause>> = const { RefCell::new(None) };
}

/// The cause of what is emitted now, in a handler.
pub fn cause() -> Option<Cause> {
    CAUSE.with_borrow(Clone::clone)
}

/// The cause of what is emitted while this lives, also if an ERROR ends that.
pub struct InForce;

impl InForce {
    pub fn begin(cause: Cause) -> Self {
        CAUSE.set(Some(cause));
        Self
    }
}

impl Drop for InForce {
    fn drop(&mut self) {
        CAUSE.set(None);
    }
}
