//! At most so many deliveries a second.

use std::time::{Duration, Instant};

/// So much may be made up for when the process was busy with something else.
const SLACK: Duration = Duration::from_millis(5);

#[derive(Clone, Debug)]
pub struct Rate {
    spacing: Duration,
    next: Option<Instant>,
}

impl Rate {
    /// `None` if it is no rate.
    pub fn per_second(rate: f64) -> Option<Self> {
        let spacing = Duration::try_from_secs_f64(1.0 / rate).ok().filter(|spacing| !spacing.is_zero())?;
        Some(Self { spacing, next: None })
    }

    /// When the next delivery may begin.
    pub fn next(&self, now: Instant) -> Instant {
        self.next.unwrap_or(now)
    }

    /// One begins now.
    pub fn take(&mut self, now: Instant) {
        let earliest = now.checked_sub(SLACK).unwrap_or(now);
        self.next = Some(self.next(now).max(earliest) + self.spacing);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_second_has_more_than_the_rate_whatever_the_pauses() {
        let start = Instant::now();
        let mut rate = Rate::per_second(100.0).unwrap();
        let (mut now, mut begun) = (start, Vec::new());
        for step in 0..20_000_u64 {
            now += Duration::from_micros(if step % 7000 == 0 { 700_000 } else { 300 });
            if rate.next(now) <= now {
                rate.take(now);
                begun.push(now);
            }
        }
        let most =
            begun.iter().map(|&at| begun.iter().filter(|&&b| b >= at && b < at + Duration::from_secs(1)).count()).max();
        assert!(most.is_some_and(|most| (99..=101).contains(&most)), "{most:?}");
    }

    #[test]
    fn what_is_no_rate_is_none() {
        assert!([0.0, -1.0, f64::NAN, f64::INFINITY].into_iter().all(|rate| Rate::per_second(rate).is_none()));
    }
}
