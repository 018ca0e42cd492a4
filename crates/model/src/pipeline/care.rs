//! Whether messages are handled together or alone.

use super::{ALONE, AT_ONCE};

/// Messages that are handled alone after a start: one of them may be what ended the process before.
const AFTER_A_START: usize = 100;

/// What is known of a subscription's next messages.
#[derive(Debug)]
pub struct Care {
    /// Messages that are still to be handled alone, if they may have been tried before: one of them may be what ended the
    /// process.
    suspects: usize,
    /// Messages of a batch that was undone, which are still to be handled alone.
    undone: usize,
}

/// How the next messages are handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// So many at most, in one transaction.
    Together(usize),
    /// So many at most, each in transactions of its own.
    Alone(usize),
}

impl Plan {
    /// How many messages to take.
    pub const fn most(self) -> usize {
        match self {
            Self::Together(most) | Self::Alone(most) => most,
        }
    }
}

impl Default for Care {
    /// As after a start of the process.
    fn default() -> Self {
        Self { suspects: AFTER_A_START, undone: 0 }
    }
}

impl Care {
    /// `repeated`: how many of the next messages may have been tried before.
    pub fn plan(&self, repeated: usize) -> Plan {
        if self.undone > 0 {
            Plan::Alone(ALONE)
        } else if self.suspects > 0 && repeated > 0 {
            Plan::Alone(repeated.min(ALONE))
        } else {
            Plan::Together(AT_ONCE)
        }
    }

    /// A batch was undone: its messages are handled alone, in as many turns as that takes.
    pub(super) fn undone(&mut self, messages: usize) {
        self.undone = messages;
    }

    /// So many messages were handled alone.
    pub(super) fn handled_alone(&mut self, messages: usize) {
        self.suspects = self.suspects.saturating_sub(messages);
        self.undone = self.undone.saturating_sub(messages);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_start_what_is_repeated_goes_alone_and_what_is_new_together() {
        let mut care = Care::default();
        assert_eq!(
            [0, 7, 900].map(|repeated| care.plan(repeated)),
            [Plan::Together(AT_ONCE), Plan::Alone(7), Plan::Alone(ALONE)]
        );
        care.handled_alone(AFTER_A_START);
        assert_eq!(care.plan(900), Plan::Together(AT_ONCE));
    }

    #[test]
    fn all_messages_of_a_batch_that_was_undone_go_alone() {
        let mut care = Care::default();
        care.undone(40);
        assert_eq!(care.plan(0), Plan::Alone(ALONE));
        care.handled_alone(32);
        assert_eq!(care.plan(0), Plan::Alone(ALONE));
        care.handled_alone(8);
        assert_eq!(care.plan(0), Plan::Together(AT_ONCE));
    }
}
