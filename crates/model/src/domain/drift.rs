//! What somebody changes over and over, or what cannot be put right.

/// So often in a row the same is put right before it is left as it is.
const TRIES: u8 = 3;

/// What was found last, and how often in a row.
#[derive(Debug, Default)]
pub struct Drift {
    words: String,
    times: u8,
}

impl Drift {
    /// Something is not as described. Returns whether it is to be put right.
    pub fn found(&mut self, words: &str) -> bool {
        let times = if self.words == words { self.times } else { 0 };
        *self = Self { words: words.to_owned(), times: times.saturating_add(1) };
        times < TRIES
    }

    /// All is as described.
    pub fn gone(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_put_right_three_times_in_a_row() {
        let mut drift = Drift::default();
        let found: Vec<bool> = (0..4).map(|_| drift.found("a")).collect();
        assert_eq!(found, [true, true, true, false]);
        assert!(drift.found("b"));
        drift.gone();
        assert!(drift.found("b") && drift.found("b") && drift.found("b") && !drift.found("b"));
    }
}
