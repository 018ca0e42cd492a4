//! How many deliveries an endpoint may have in flight: one more after each success, half as many after a failure, so that one
//! that comes back is not stormed.

use std::time::Instant;

/// What a new endpoint may have at once.
const FIRST: usize = 16;

#[derive(Clone, Debug)]
pub struct Window {
    size: usize,
    max: usize,
    /// What was begun before this tells of the window as it was.
    halved_at: Option<Instant>,
}

impl Window {
    pub fn new(max: usize) -> Self {
        let max = max.max(1);
        Self { size: FIRST.min(max), max, halved_at: None }
    }

    pub fn size(&self) -> usize {
        self.size
    }

    pub fn set_max(&mut self, max: usize) {
        self.max = max.max(1);
        self.size = self.size.min(self.max);
    }

    pub fn grow(&mut self) {
        self.size = (self.size + 1).min(self.max);
    }

    /// A delivery that was begun at this time has failed. Those that were in flight together halve it once.
    pub fn halve(&mut self, begun: Instant, now: Instant) {
        if self.halved_at.is_none_or(|halved| begun >= halved) {
            self.size = (self.size / 2).max(1);
            self.halved_at = Some(now);
        }
    }

    /// The endpoint comes back after an outage.
    pub fn reset(&mut self) {
        self.size = 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn it_grows_by_one_and_halves() {
        let start = Instant::now();
        let mut window = Window::new(20);
        assert_eq!(window.size(), 16);
        (0..10).for_each(|_| window.grow());
        assert_eq!(window.size(), 20);
        let later = start + Duration::from_secs(1);
        window.halve(start, later);
        // It was in flight with the other.
        window.halve(start, later);
        assert_eq!(window.size(), 10);
        (0..10).for_each(|n| window.halve(later + Duration::from_secs(n), later + Duration::from_secs(n)));
        assert_eq!(window.size(), 1);
        window.grow();
        assert_eq!(window.size(), 2);
        window.set_max(0);
        assert_eq!(window.size(), 1);
    }
}
