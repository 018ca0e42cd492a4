//! Whose turn it is: each endpoint gets one after the other, so that one with much to send costs the others nothing.

/// Deliveries in flight at once, over all endpoints.
pub const IN_FLIGHT: usize = 4096;

#[derive(Clone, Debug, Default)]
pub struct Rotation {
    at: usize,
}

impl Rotation {
    /// Gives each of `count` a turn, again and again, until none uses its turn or there is no more `room`. `turn` returns
    /// whether it was used. Begins behind the one that had the last turn.
    pub fn run(&mut self, count: usize, mut room: usize, mut turn: impl FnMut(usize) -> bool) {
        let mut idle = 0;
        while idle < count && room > 0 {
            self.at = (self.at + 1) % count;
            if turn(self.at) {
                idle = 0;
                room -= 1;
            } else {
                idle += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_get_their_turn_however_much_one_has() {
        let mut rotation = Rotation::default();
        let mut left = [1000, 3, 0, 1];
        let mut sent = [0; 4];
        for _ in 0..4 {
            rotation.run(4, 3, |place| {
                let uses = left[place] > 0;
                left[place] -= i32::from(uses);
                sent[place] += i32::from(uses);
                uses
            });
        }
        assert_eq!((sent[1], sent[2], sent[3]), (3, 0, 1));
        assert_eq!(sent.iter().sum::<i32>(), 12);
        rotation.run(0, 10, |_| true);
    }
}
