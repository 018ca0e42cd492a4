//! Whether the wall clock was set back.

use std::time::{Duration, Instant};

/// Less is what a clock does that is slewed, and what comes of looking at two clocks one after the other.
const TOLERANCE: Duration = Duration::from_secs(1);

/// The wall clock as it was seen last, beside the clock that only goes forward.
pub struct WallClock {
    seen: Instant,
    /// Microseconds since some epoch.
    at: i64,
}

impl WallClock {
    pub fn new(now: Instant, at: i64) -> Self {
        Self { seen: now, at }
    }

    /// Whether it was set back since the last look. `at`: what it shows now.
    pub fn was_set_back(&mut self, now: Instant, at: i64) -> bool {
        let micros = |span: Duration| i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
        let expected = self.at.saturating_add(micros(now.saturating_duration_since(self.seen)));
        *self = Self { seen: now, at };
        expected.saturating_sub(at) > micros(TOLERANCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_back_is_told_from_time_that_passes() {
        let begin = Instant::now();
        let after = |seconds| begin + Duration::from_secs(seconds);
        let mut clock = WallClock::new(begin, 100_000_000);
        assert!(!clock.was_set_back(after(10), 110_000_000));
        assert!(!clock.was_set_back(after(20), 119_500_000), "slewed");
        assert!(clock.was_set_back(after(30), 127_000_000), "three seconds, and it shows more than before");
        assert!(!clock.was_set_back(after(40), 137_000_000), "told once");
        assert!(!clock.was_set_back(after(50), 999_000_000), "set forward");
        assert!(clock.was_set_back(after(50), 100_000_000));
    }
}
