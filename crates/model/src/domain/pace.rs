//! How soon to look again when events keep coming.

use std::time::{Duration, Instant};

/// Events a second below which every commit is answered at once.
const BUSY: f64 = 2500.0;
/// Above it, a little patience turns many small reads into fewer larger ones, which leaves the processors to those who
/// write the events: so many are to come together …
const GATHER: f64 = 16.0;
/// … but not for longer than this.
const PATIENCE: Duration = Duration::from_millis(5);
/// Seconds over which the rate is averaged.
const WINDOW: f64 = 0.1;

/// The pace of reading: from the rate of events, an exponentially weighted average, follows the pause between reads.
#[derive(Clone, Debug)]
pub struct Pace {
    /// Events a second.
    rate: f64,
    last: Instant,
}

impl Pace {
    pub fn new(now: Instant) -> Self {
        Self { rate: 0.0, last: now }
    }

    /// `events` were read just now. Returns how long to wait before reading again.
    pub fn read(&mut self, events: usize, now: Instant) -> Duration {
        let elapsed = now.saturating_duration_since(self.last).as_secs_f64().max(1e-6);
        self.last = now;
        let weight = 1.0 - (-elapsed / WINDOW).exp();
        let events = f64::from(u32::try_from(events).unwrap_or(u32::MAX));
        self.rate += weight * (events / elapsed - self.rate);
        if self.rate > BUSY { Duration::from_secs_f64(GATHER / self.rate).min(PATIENCE) } else { Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pause_at(rate: u32) -> Duration {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        (1..=rate).map(|i| pace.read(1, start + Duration::from_secs(1) * i / rate)).last().unwrap()
    }

    #[test]
    fn a_quiet_database_is_answered_at_once() {
        assert_eq!(pause_at(200), Duration::ZERO);
        assert_eq!(pause_at(1000), Duration::ZERO);
    }

    #[test]
    fn a_busy_one_is_read_in_larger_pieces() {
        assert!(pause_at(5000) > Duration::from_millis(2) && pause_at(2600) == PATIENCE);
        assert!(pause_at(100_000) < Duration::from_millis(1));
    }

    #[test]
    fn it_calms_down_again() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        for i in 1..=5000 {
            pace.read(1, start + Duration::from_micros(200) * i);
        }
        assert_eq!(pace.read(1, start + Duration::from_secs(5)), Duration::ZERO);
    }
}
