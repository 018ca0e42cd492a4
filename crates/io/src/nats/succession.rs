//! Whether all that a consumer delivers arrives here.
//!
//! A consumer numbers its deliveries, redeliveries included, to whomever they go. What is missing went to a request that a
//! broken connection left behind (it is there until the server notices, or the request expires), or got lost on its way
//! through a cluster. It would come after `ack_wait`, behind messages that it precedes.

use std::time::{Duration, Instant};

/// How long the consumer has to have been idle with a delivery that did not arrive: in a cluster it tells of a delivery
/// before it has sent it.
const IDLE: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Succession {
    /// The number that the next delivery should have.
    next: u64,
    /// Since when the consumer has told of more.
    behind: Option<Instant>,
}

impl Succession {
    /// Begins behind the delivery with this number.
    pub(super) fn after(last: u64) -> Self {
        Self { next: last + 1, behind: None }
    }

    /// Takes a delivery's number. Returns whether none is missing before it. Smaller numbers come from a server that does not
    /// know all deliveries of its predecessor: what it does know were the first of them.
    pub(super) fn arrived(&mut self, number: u64) -> bool {
        let complete = number <= self.next;
        *self = Self::after(number);
        complete
    }

    /// Takes the number of the last delivery as the idle consumer tells it. Returns whether all have arrived that should have.
    pub(super) fn idle(&mut self, last: u64, now: Instant) -> bool {
        if last < self.next {
            self.behind = None;
            return true;
        }
        now.saturating_duration_since(*self.behind.get_or_insert(now)) < IDLE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_shows_with_the_next_delivery() {
        let mut succession = Succession::after(4);
        assert!(succession.arrived(5));
        assert!(succession.arrived(6));
        assert!(!succession.arrived(8));
    }

    #[test]
    fn server_that_counts_anew_is_believed() {
        let mut succession = Succession::after(40);
        assert!(succession.arrived(3));
        assert!(succession.arrived(4));
        assert!(!succession.arrived(6));
    }

    #[test]
    fn what_is_missing_shows_when_the_consumer_is_idle_for_a_while() {
        let (mut succession, start) = (Succession::after(4), Instant::now());
        assert!(succession.idle(4, start));
        assert!(succession.idle(5, start), "it may be on its way");
        assert!(succession.idle(5, start + IDLE / 2));
        assert!(succession.arrived(5));
        assert!(succession.idle(6, start + IDLE));
        assert!(!succession.idle(6, start + IDLE * 2));
    }
}
