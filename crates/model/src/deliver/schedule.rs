//! When a delivery that failed is tried again, and when it is given up.

use std::time::Duration;

const MINUTE: u64 = 60;
const HOUR: u64 = 3600;
/// Retries are spread by so much to both sides.
const SPREAD: f64 = 0.2;
/// Least wait after an attempt that does not count.
const UNCOUNTED: Duration = Duration::from_secs(5);

/// Waits before each attempt, the first included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    waits: Vec<Duration>,
    max_age: Duration,
}

impl Default for Schedule {
    fn default() -> Self {
        Self::standard(Duration::from_secs(76 * HOUR))
    }
}

impl Schedule {
    /// That of Standard Webhooks.
    pub fn standard(max_age: Duration) -> Self {
        let waits = [0, 5, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 10 * HOUR, 14 * HOUR, 20 * HOUR, 24 * HOUR];
        Self { waits: waits.map(Duration::from_secs).into(), max_age }
    }

    pub fn new(waits: Vec<Duration>, max_age: Duration) -> Self {
        Self { waits, max_age }
    }

    /// How long to wait after `counted` attempts that count, the last of which has just failed. `age`: since the first attempt.
    /// `None`: there is no further attempt. `jitter`: a random number in `0.0..1.0`.
    pub fn after(&self, counted: u32, not_before: Duration, age: Duration, jitter: f64) -> Option<Duration> {
        let wait = *self.waits.get(usize::try_from(counted).unwrap_or(usize::MAX))?;
        let spread = wait.mul_f64(1.0 - SPREAD + 2.0 * SPREAD * jitter.clamp(0.0, 1.0));
        self.if_young(spread.max(not_before), age)
    }

    /// The same after an attempt that does not count.
    pub fn uncounted(&self, not_before: Duration, age: Duration) -> Option<Duration> {
        self.if_young(UNCOUNTED.max(not_before), age)
    }

    fn if_young(&self, wait: Duration, age: Duration) -> Option<Duration> {
        (age.saturating_add(wait) <= self.max_age).then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_that_of_standard_webhooks() {
        let schedule = Schedule::default();
        let waits: Vec<u64> = (1..12)
            .map_while(|n| schedule.after(n, Duration::ZERO, Duration::ZERO, 0.5))
            .map(|wait| wait.as_secs())
            .collect();
        assert_eq!(waits, [5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400]);
    }

    #[test]
    fn waits_are_spread_by_a_fifth_and_never_shorter_than_asked() {
        let schedule = Schedule::default();
        let wait = |jitter| schedule.after(2, Duration::ZERO, Duration::ZERO, jitter).unwrap().as_secs();
        assert_eq!([wait(0.0), wait(0.5), wait(1.0), wait(9.0)], [240, 300, 360, 360]);
        let asked = Duration::from_secs(1000);
        assert_eq!(schedule.after(2, asked, Duration::ZERO, 1.0), Some(asked));
        assert_eq!(schedule.uncounted(asked, Duration::ZERO), Some(asked));
        assert_eq!(schedule.uncounted(Duration::ZERO, Duration::ZERO), Some(UNCOUNTED));
    }

    #[test]
    fn it_ends_with_the_schedule_or_with_the_age() {
        let schedule = Schedule::new(vec![Duration::ZERO, Duration::from_secs(10)], Duration::from_secs(60));
        let after = |counted, age| schedule.after(counted, Duration::ZERO, Duration::from_secs(age), 0.5);
        assert_eq!(after(1, 0), Some(Duration::from_secs(10)));
        assert_eq!([after(2, 0), after(1, 51), after(u32::MAX, 0)], [None; 3]);
        assert_eq!(schedule.uncounted(Duration::ZERO, Duration::from_secs(56)), None);
    }
}
