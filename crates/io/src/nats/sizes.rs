//! Messages that are larger than the account takes, where the server does not tell its limit.
//!
//! An account may have a lower limit than the server announces. The server then closes the connection over the first message
//! that is larger, without an answer and without saying which one it was. From then on a message that is larger than all that
//! were stored is sent alone: if the connection is closed again, it was that one.

use std::cell::RefCell;
use std::rc::Rc;

/// What a message may take on the wire beside what is counted here: headers that the session adds.
const MARGIN: usize = 128;

/// Shared by all sessions of a thread.
pub(super) type SharedSizes = Rc<RefCell<Sizes>>;

#[derive(Debug, Default)]
pub(super) struct Sizes {
    /// The connection was closed over a message, whichever it was.
    cautious: bool,
    /// The largest that was stored since then.
    taken: usize,
    /// The smallest of which it is known that it is too large.
    refused: Option<usize>,
}

impl Sizes {
    pub(super) fn is_cautious(&self) -> bool {
        self.cautious
    }

    /// Whether a message of this size may be what the connection is closed over.
    pub(super) fn may_be_too_large(&self, size: usize) -> bool {
        self.cautious && size + MARGIN > self.taken
    }

    /// Whether a message of this size is too large for sure.
    pub(super) fn is_too_large(&self, size: usize) -> bool {
        self.refused.is_some_and(|refused| size >= refused)
    }

    /// The limit may have been raised.
    pub(super) fn forget(&mut self) {
        self.refused = None;
    }

    /// A message of this size was stored.
    pub(super) fn note_stored(&mut self, size: usize) {
        self.taken = self.taken.max(size);
    }

    /// The connection was closed over a message; `alone`: the size of the one that was on its way, if it was alone.
    pub(super) fn note_closed(&mut self, alone: Option<usize>) {
        if let Some(size) = alone {
            self.refused = Some(self.refused.map_or(size, |refused| refused.min(size)));
        } else {
            *self = Self { cautious: true, taken: 0, ..*self };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_larger_than_all_that_was_stored_is_doubtful_once_a_connection_was_closed() {
        let mut sizes = Sizes::default();
        sizes.note_stored(500);
        assert!(!sizes.may_be_too_large(10_000));
        sizes.note_closed(None);
        assert!(sizes.may_be_too_large(400));
        sizes.note_stored(1000);
        assert!(!sizes.may_be_too_large(800));
        assert!(sizes.may_be_too_large(1000));
        sizes.note_closed(Some(5000));
        assert!(sizes.is_too_large(5000) && !sizes.is_too_large(4999));
    }
}
