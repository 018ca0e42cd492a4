//! Noticing that the server is up and JetStream on it is not: it was cut off from its cluster.
//!
//! The connection to such a server stays, and it answers pings. It knows nobody who stores anything, so publishes and API
//! requests fail until it finds the others again. Where other servers are configured, one of those is tried.

use std::time::{Duration, Instant};

/// JetStream is asked for a sign of life if there was none for so long.
const QUIET: Duration = Duration::from_secs(3);
/// After this long without one the connection is given up: longer than a cluster needs to elect a leader.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Watch {
    /// There are other servers.
    others: bool,
    look_at: Instant,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    Well,
    /// A sign of life is to be asked for.
    Ask,
    GiveUp,
}

impl Watch {
    pub(super) fn new(others: bool, now: Instant) -> Self {
        Self { others, look_at: now + QUIET }
    }

    /// When to look.
    pub(super) fn due(&self) -> Option<Instant> {
        self.others.then_some(self.look_at)
    }

    /// `heard`: when JetStream last did something.
    pub(super) fn look(&mut self, heard: Instant, now: Instant) -> Look {
        if !self.others || now < self.look_at {
            return Look::Well;
        }
        let silence = now.saturating_duration_since(heard);
        if silence < QUIET {
            self.look_at = heard + QUIET;
            return Look::Well;
        }
        self.look_at = now + QUIET;
        if silence < PATIENCE { Look::Ask } else { Look::GiveUp }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_silent_is_asked_and_then_given_up() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut watch = Watch::new(true, start);
        assert_eq!(watch.due(), Some(after(3)));
        assert_eq!(watch.look(after(2), after(3)), Look::Well);
        assert_eq!(watch.due(), Some(after(5)));
        assert_eq!(watch.look(after(2), after(5)), Look::Ask);
        assert_eq!(watch.look(after(2), after(6)), Look::Well, "it was asked a second ago");
        assert_eq!(watch.look(after(2), after(8)), Look::Ask);
        assert_eq!(watch.look(after(8), after(11)), Look::Ask);
        assert_eq!(watch.look(after(8), after(18)), Look::GiveUp);
    }

    #[test]
    fn the_only_server_is_waited_for() {
        let start = Instant::now();
        let mut watch = Watch::new(false, start);
        assert_eq!(watch.due(), None);
        assert_eq!(watch.look(start, start + Duration::from_secs(60)), Look::Well);
    }
}
