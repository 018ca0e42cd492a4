//! How far a reader has come in the log, while answers come in any order: what is saved is a position before which all is
//! settled.

use std::collections::{HashMap, VecDeque};

use crate::domain::position::{Moment, Position};

/// Events that were read together.
#[derive(Debug)]
struct Chunk {
    at: Position,
    moment: Moment,
    seqs: Vec<i64>,
    settled: Vec<bool>,
}

#[derive(Debug)]
pub struct Ledger {
    /// All before it is settled, but for what is in `chunks`.
    read: Position,
    chunks: VecDeque<Chunk>,
    /// Number of the first of `chunks`.
    first: u64,
    /// Where each event that was read is: number of its chunk, and place in it.
    places: HashMap<i64, (u64, usize)>,
    /// As [`Self::position`] gave it last.
    saved: Position,
}

impl Ledger {
    pub fn new(position: Position) -> Self {
        Self { saved: position.clone(), read: position, chunks: VecDeque::new(), first: 0, places: HashMap::new() }
    }

    /// From where to read on.
    pub fn read_from(&self) -> &Position {
        &self.read
    }

    /// How many events were read and are not settled.
    pub fn open(&self) -> usize {
        self.places.len()
    }

    /// Events were read that the reader wants, up to `after`.
    pub fn read(&mut self, moment: &Moment, wanted: Vec<i64>, after: Position) {
        let number = self.first + self.chunks.len() as u64;
        self.places.extend(wanted.iter().enumerate().map(|(place, &seq)| (seq, (number, place))));
        let at = std::mem::replace(&mut self.read, after);
        let settled = vec![false; wanted.len()];
        self.chunks.push_back(Chunk { at, moment: moment.clone(), seqs: wanted, settled });
        self.drop_settled();
    }

    /// It is recorded what became of an event.
    pub fn settle(&mut self, seq: i64) {
        let Some((number, place)) = self.places.remove(&seq) else { return };
        let chunk = usize::try_from(number - self.first).ok().and_then(|at| self.chunks.get_mut(at));
        if let Some(settled) = chunk.and_then(|chunk| chunk.settled.get_mut(place)) {
            *settled = true;
        }
        self.drop_settled();
    }

    fn drop_settled(&mut self) {
        while self.chunks.front().is_some_and(|chunk| chunk.settled.iter().all(|&settled| settled)) {
            self.chunks.pop_front();
            self.first += 1;
        }
    }

    /// The position before which all is settled, if it has changed since the last call.
    pub fn moved(&mut self) -> Option<Position> {
        let position = self.position();
        (position != self.saved).then(|| {
            self.saved = position.clone();
            position
        })
    }

    fn position(&self) -> Position {
        let Some(chunk) = self.chunks.front() else { return self.read.clone() };
        let settled = chunk.settled.iter().take_while(|&&settled| settled).count();
        match settled.checked_sub(1) {
            None => chunk.at.clone(),
            Some(last) => chunk.at.after(chunk.at.batch_or(&chunk.moment), Some(chunk.seqs[last]), false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::position::Snapshot;

    fn moment(xmax: u64, ceiling: i64) -> Moment {
        Moment { snapshot: Snapshot { xmin: xmax, xmax, in_progress: Vec::new() }, next_xid: xmax, ceiling }
    }

    /// Reads a chunk of these places; `finished`: it ends the batch.
    fn read(ledger: &mut Ledger, now: &Moment, seqs: &[i64], finished: bool) {
        let at = ledger.read_from().clone();
        let after = at.after(at.batch_or(now), seqs.last().copied(), finished);
        ledger.read(now, seqs.to_vec(), after);
    }

    #[test]
    fn what_is_saved_is_behind_no_event_that_is_open() {
        let mut ledger = Ledger::new(Position::start());
        let now = moment(10, 100);
        read(&mut ledger, &now, &[1, 2, 3], false);
        read(&mut ledger, &now, &[4, 5], true);
        assert_eq!(ledger.moved(), None);
        [2, 4, 5].into_iter().for_each(|seq| ledger.settle(seq));
        assert_eq!((ledger.moved(), ledger.open()), (None, 2));
        ledger.settle(1);
        let position = ledger.moved().unwrap();
        assert!(position.is_past(5, 2) && !position.is_past(5, 3));
        ledger.settle(3);
        let position = ledger.moved().unwrap();
        assert!(position.batch.is_none() && position.is_past(5, 5));
        assert_eq!(&position, ledger.read_from());
        assert_eq!((ledger.moved(), ledger.open()), (None, 0));
    }

    #[test]
    fn reads_that_find_nothing_wanted_move_it_on() {
        let mut ledger = Ledger::new(Position::start());
        read(&mut ledger, &moment(10, 100), &[], true);
        assert!(ledger.moved().is_some());
        ledger.settle(99);
        assert_eq!(ledger.moved(), None);
    }
}
