//! How much may be on its way from the broker at a time.
//!
//! nats-server keeps what a client has not read yet, and cuts the client off when that is more than its `max_pending` (64 MB),
//! or when it could not write it within `write_deadline` (10 s). What was on its way is then sent again, and so for ever,
//! unless less is asked for. So the bound is halved with each cut, and doubled again when it has held for a while.

use std::time::{Duration, Instant};

/// Bytes on their way at first: far less than any server keeps, and enough for a line of 50 ms and a gigabit a second.
const WIDEST: usize = 8 << 20;
/// With less than this, lines would be idle for the most part of the time.
const NARROWEST: usize = 256 << 10;
/// After so long without a cut the bound is doubled.
const HELD: Duration = Duration::from_secs(60);
/// What is heard within this time has one reason.
const AT_A_TIME: Duration = Duration::from_secs(10);
/// Least share of a subscription, however many there are.
const LEAST_SHARE: usize = 64 << 10;
/// So often in a row it is no accident any more.
const TOO_OFTEN: u32 = 3;

/// The bound for one connection, over all its sessions.
#[derive(Debug)]
pub struct Line {
    bytes: usize,
    /// Cuts in a row.
    cuts: u32,
    changed_at: Option<Instant>,
}

impl Line {
    /// `memory`: bytes of messages that there is room for.
    pub fn new(memory: usize) -> Self {
        Self { bytes: WIDEST.min(memory.max(NARROWEST)), cuts: 0, changed_at: None }
    }

    /// What each of so many subscriptions may have on its way.
    pub fn share(&self, among: usize) -> usize {
        (self.bytes / among.max(1)).max(LEAST_SHARE)
    }

    /// The connection was cut while messages were sent.
    pub fn cut(&mut self, now: Instant) {
        self.halve(now);
        self.cuts += 1;
    }

    /// Something does not get through. What is heard of several at a time is one reason. Returns whether the bound is another one
    /// now.
    pub fn narrow(&mut self, now: Instant) -> bool {
        if self.changed_at.is_some_and(|at| now.saturating_duration_since(at) < AT_A_TIME) {
            return false;
        }
        let before = self.bytes;
        self.halve(now);
        self.bytes != before
    }

    fn halve(&mut self, now: Instant) {
        self.bytes = (self.bytes / 2).max(NARROWEST);
        self.changed_at = Some(now);
    }

    /// It was cut again and again.
    pub fn is_cut_often(&self) -> bool {
        self.cuts >= TOO_OFTEN
    }

    /// Asking for less does not help.
    pub fn is_hopeless(&self) -> bool {
        self.is_cut_often() && self.bytes <= NARROWEST
    }

    /// Widens the bound if it is time. Returns whether it is another one now.
    pub fn widen(&mut self, widest: usize, now: Instant) -> bool {
        if self.changed_at.is_none_or(|at| now.saturating_duration_since(at) < HELD) {
            return false;
        }
        self.cuts = 0;
        let wider = Self::new(widest).bytes.min(self.bytes * 2);
        self.changed_at = (wider > self.bytes).then_some(now);
        std::mem::replace(&mut self.bytes, wider) != wider
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_halved_with_each_cut_and_doubled_after_a_while_without_one() {
        let (mut line, start) = (Line::new(64 << 20), Instant::now());
        assert_eq!(line.share(2), WIDEST / 2);
        assert!(!line.widen(64 << 20, start + HELD));
        (0..9).for_each(|_| line.cut(start));
        assert_eq!(line.share(1), NARROWEST);
        assert!(line.is_hopeless());
        assert!(!line.widen(64 << 20, start + HELD / 2));
        for times in 1..=5 {
            assert!(line.widen(64 << 20, start + HELD * times));
        }
        assert_eq!(line.share(1), WIDEST);
        assert!(!line.is_cut_often());
        assert!(!line.widen(64 << 20, start + HELD * 9));
    }

    #[test]
    fn consumers_that_do_not_answer_narrow_it_once_and_are_no_cuts() {
        let (mut line, start) = (Line::new(64 << 20), Instant::now());
        assert!(line.narrow(start));
        assert!((0..9).all(|_| !line.narrow(start + AT_A_TIME / 2)));
        assert_eq!(line.share(1), WIDEST / 2);
        (1..9).for_each(|times| _ = line.narrow(start + AT_A_TIME * times));
        assert_eq!(line.share(1), NARROWEST);
        assert!(!line.is_cut_often() && !line.is_hopeless());
    }

    #[test]
    fn everybody_has_a_share() {
        assert_eq!(Line::new(1 << 20).share(1), 1 << 20);
        assert_eq!(Line::new(1 << 20).share(1000), LEAST_SHARE);
    }
}
