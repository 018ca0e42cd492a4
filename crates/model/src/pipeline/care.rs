//! Whether messages are handled together or alone.

use super::{ALONE, AT_ONCE};

/// Messages that are handled alone after a start: one of them may be what ended the process before.
const AFTER_A_START: usize = 100;

/// So many messages are taken at once to be handled together, at first and at least.
const FIRST_PORTION: usize = 64;
const LEAST_PORTION: usize = 8;

/// What is known of a subscription's next messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Care {
    /// Messages that are still to be handled alone, if they may have been tried before: one of them may be what ended the
    /// process.
    suspects: usize,
    /// Messages of a batch that was undone, which are still to be handled alone.
    undone: usize,
    /// Messages that are taken at once to be handled together: about as many as fit into a turn. What is taken beyond that was read
    /// in vain.
    portion: usize,
}

/// How the next messages are handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
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
        Self { suspects: AFTER_A_START, undone: 0, portion: FIRST_PORTION }
    }
}

impl Care {
    /// After a process has ended with so many messages: any of them may be why, so each is handled alone.
    pub fn after_a_loss(messages: usize) -> Self {
        Self { undone: messages, ..Self::default() }
    }

    /// `repeated`: how many of the next messages may have been tried before.
    pub fn plan(&self, repeated: usize) -> Plan {
        if self.undone > 0 {
            Plan::Alone(ALONE)
        } else if self.suspects > 0 && repeated > 0 {
            Plan::Alone(repeated.min(ALONE))
        } else {
            Plan::Together(self.portion)
        }
    }

    /// A batch was undone: its messages are handled alone, in as many turns as that takes.
    pub(super) fn undone(&mut self, messages: usize) {
        self.undone = messages;
    }

    /// So many messages were taken to be handled together, and so many of them fitted into the turn.
    pub(super) fn measure(&mut self, taken: usize, handled: usize) {
        if handled < taken {
            self.portion = (handled * 2).clamp(LEAST_PORTION, AT_ONCE);
        } else if taken >= self.portion {
            self.portion = (self.portion * 2).min(AT_ONCE);
        }
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
            [Plan::Together(FIRST_PORTION), Plan::Alone(7), Plan::Alone(ALONE)]
        );
        care.handled_alone(AFTER_A_START);
        assert_eq!(care.plan(900), Plan::Together(FIRST_PORTION));
    }

    #[test]
    fn as_many_are_taken_as_fit_into_a_turn() {
        let mut care = Care::default();
        let portion = |care: &Care| care.plan(0).most();
        for _ in 0..9 {
            care.measure(portion(&care), portion(&care));
        }
        assert_eq!(portion(&care), AT_ONCE);
        care.measure(AT_ONCE, 70);
        assert_eq!(portion(&care), 140);
        care.measure(3, 3);
        assert_eq!(portion(&care), 140, "there were no more");
        care.measure(140, 1);
        assert_eq!(portion(&care), LEAST_PORTION);
    }

    #[test]
    fn all_messages_of_a_batch_that_was_undone_go_alone() {
        let mut care = Care::default();
        care.undone(40);
        assert_eq!(care.plan(0), Plan::Alone(ALONE));
        care.handled_alone(32);
        assert_eq!(care.plan(0), Plan::Alone(ALONE));
        care.handled_alone(8);
        assert_eq!(care.plan(0), Plan::Together(FIRST_PORTION));
    }
}
