//! What makes a worker fail again and again, where everybody can see it: a worker that cannot write says so in shared memory.

use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU32, AtomicUsize, Ordering};

/// Bytes of the last error that are kept.
const TEXT: usize = 240;
/// So long without a failure, and nothing is wrong any more (microseconds).
const SOUND: i64 = 60_000_000;

/// The failures in a row of one seat's processes. No lock: readers may see the end of one text behind the beginning of
/// another, which is for people to read.
pub struct Failures {
    /// 0: nothing is wrong.
    count: AtomicU32,
    /// When the first and the last of them were (microseconds since 2000).
    since: AtomicI64,
    last_at: AtomicI64,
    /// What the last one said that said something.
    length: AtomicUsize,
    text: [AtomicU8; TEXT],
}

/// What is known of a seat's failures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub count: u32,
    pub since: i64,
    pub last_at: i64,
    pub error: Option<String>,
}

impl Default for Failures {
    fn default() -> Self {
        Self {
            count: AtomicU32::default(),
            since: AtomicI64::default(),
            last_at: AtomicI64::default(),
            length: AtomicUsize::default(),
            text: std::array::from_fn(|_| AtomicU8::default()),
        }
    }
}

impl Failures {
    /// Another one. `error`: why, if that is known.
    pub fn note(&self, error: Option<&str>, now: i64) {
        if let Some(error) = error {
            self.explain(error);
        }
        if self.count.load(Ordering::Acquire) == 0 {
            self.since.store(now, Ordering::Release);
        }
        self.last_at.store(now, Ordering::Release);
        self.count.fetch_add(1, Ordering::AcqRel);
    }

    /// Why the process is about to end; that it has ended is noted by who sees it.
    pub fn explain(&self, error: &str) {
        self.length.store(0, Ordering::Release);
        let kept = error.bytes().take(TEXT);
        let length = kept.zip(&self.text).map(|(byte, place)| place.store(byte, Ordering::Release)).count();
        self.length.store(length, Ordering::Release);
    }

    /// The worker works. Forgets failures that were long ago; of one that comes and goes they are kept.
    pub fn note_sound(&self, now: impl FnOnce() -> i64) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        // A clock that was set back is no reason to wait.
        if !(0..=SOUND).contains(&(now() - self.last_at.load(Ordering::Acquire))) {
            self.forget();
        }
    }

    pub fn forget(&self) {
        self.count.store(0, Ordering::Release);
        self.length.store(0, Ordering::Release);
    }

    /// `None`: nothing is wrong.
    pub fn found(&self) -> Option<Found> {
        let count = self.count.load(Ordering::Acquire);
        let length = self.length.load(Ordering::Acquire).min(TEXT);
        let bytes: Vec<u8> = self.text[..length].iter().map(|byte| byte.load(Ordering::Acquire)).collect();
        // The end of a character that was cut is left out.
        let text = String::from_utf8_lossy(&bytes).trim_end_matches(char::REPLACEMENT_CHARACTER).to_owned();
        (count > 0).then(|| Found {
            count,
            since: self.since.load(Ordering::Acquire),
            last_at: self.last_at.load(Ordering::Acquire),
            error: (!text.is_empty()).then_some(text),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_count_until_the_worker_has_worked_for_a_while() {
        let failures = Failures::default();
        assert_eq!(failures.found(), None);
        failures.note(Some("first"), 10);
        failures.note(None, 20);
        let found = Found { count: 2, since: 10, last_at: 20, error: Some("first".into()) };
        assert_eq!(failures.found(), Some(found.clone()));
        failures.note_sound(|| 20 + SOUND);
        assert_eq!(failures.found(), Some(found));
        failures.note_sound(|| 21 + SOUND);
        assert_eq!(failures.found(), None);
        failures.note(None, 500);
        assert_eq!(failures.found(), Some(Found { count: 1, since: 500, last_at: 500, error: None }));
        failures.note_sound(|| 400);
        assert_eq!(failures.found(), None);
    }

    #[test]
    fn a_long_error_is_cut_between_characters() {
        let failures = Failures::default();
        failures.note(Some(&format!("{}\u{e9}", "x".repeat(TEXT - 1))), 1);
        assert_eq!(failures.found().and_then(|found| found.error), Some("x".repeat(TEXT - 1)));
    }
}
