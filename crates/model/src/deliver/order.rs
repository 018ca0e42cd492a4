//! The order of deliveries: none, that of each aggregate, or one at a time.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use uuid::Uuid;

/// What must be delivered in order has the same key.
pub type Key = Arc<str>;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ordering {
    #[default]
    None,
    /// Events of an aggregate one after the other; those behind one that failed are parked.
    Key,
    /// One delivery at a time; behind one that failed nothing is sent.
    Strict,
}

impl std::str::FromStr for Ordering {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "none" => Ok(Self::None),
            "key" => Ok(Self::Key),
            "strict" => Ok(Self::Strict),
            _ => Err(()),
        }
    }
}

/// Who has the turn of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It is on its way.
    Sent,
    /// It has failed and is tried again.
    Failed,
}

#[derive(Debug, Default)]
struct Line {
    turn: Option<Turn>,
    /// By place in the log.
    parked: BTreeMap<i64, Uuid>,
}

/// Of each key one delivery has the turn, and the others wait for it.
#[derive(Debug, Default)]
pub struct Lines {
    lines: HashMap<Key, Line>,
    parked: usize,
}

impl Lines {
    pub fn turn(&self, key: &Key) -> Option<Turn> {
        self.lines.get(key).and_then(|line| line.turn)
    }

    /// Whether anything of the key is before something new.
    pub fn is_taken(&self, key: &Key) -> bool {
        self.lines.contains_key(key)
    }

    pub fn take(&mut self, key: &Key, turn: Turn) {
        self.lines.entry(Arc::clone(key)).or_default().turn = Some(turn);
    }

    pub fn park(&mut self, key: &Key, seq: i64, event: Uuid) {
        if self.lines.entry(Arc::clone(key)).or_default().parked.insert(seq, event).is_none() {
            self.parked += 1;
        }
    }

    /// How many are parked, over all keys.
    pub fn parked(&self) -> usize {
        self.parked
    }

    /// Whoever had the turn is done. Returns who has it next.
    pub fn pass(&mut self, key: &Key) -> Option<Uuid> {
        let line = self.lines.get_mut(key)?;
        line.turn = None;
        let next = line.parked.pop_first().map(|(_, event)| event);
        match next {
            Some(_) => {
                line.turn = Some(Turn::Failed);
                self.parked -= 1;
            }
            None => _ = self.lines.remove(key),
        }
        next
    }

    /// One that is parked is taken back.
    pub fn withdraw(&mut self, key: &Key, seq: i64) {
        let Some(line) = self.lines.get_mut(key) else { return };
        if line.parked.remove(&seq).is_some() {
            self.parked -= 1;
        }
        if line.turn.is_none() && line.parked.is_empty() {
            self.lines.remove(key);
        }
    }

    /// Keys of which something is parked and nothing has the turn, as after a start.
    pub fn idle(&self) -> Vec<Key> {
        self.lines.iter().filter(|(_, line)| line.turn.is_none()).map(|(key, _)| Arc::clone(key)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parked_ones_get_their_turn_in_the_order_of_the_log() {
        let key: Key = "order/1".into();
        let ids: Vec<Uuid> = (0..3).map(|_| Uuid::now_v7()).collect();
        let mut lines = Lines::default();
        lines.take(&key, Turn::Failed);
        [(30, ids[2]), (10, ids[0]), (20, ids[1])].into_iter().for_each(|(seq, id)| lines.park(&key, seq, id));
        assert_eq!(lines.parked(), 3);
        assert_eq!([lines.pass(&key), lines.pass(&key)], [Some(ids[0]), Some(ids[1])]);
        assert_eq!(lines.turn(&key), Some(Turn::Failed));
        lines.withdraw(&key, 30);
        assert!(lines.is_taken(&key));
        assert_eq!((lines.pass(&key), lines.parked(), lines.is_taken(&key)), (None, 0, false));
    }
}
