//! What was read at once of this database's log for a subscription, where there is no broker, and how far it was dealt with.

use sea_mq_model::domain::event::Logged;
use sea_mq_model::domain::message::Message;
use sea_mq_model::domain::position::{Moment, Position};
use sea_mq_model::pipeline::{Lane, LaneKey};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Waits,
    /// Somebody handles it just now.
    Given,
    Done,
}

/// An event that the subscription wants.
struct Wanted {
    /// Among all that were read.
    place: usize,
    message: Message,
    key: LaneKey,
    standing: Standing,
}

pub(super) struct Chunk {
    at: Position,
    after: Position,
    moment: Moment,
    seqs: Vec<i64>,
    wanted: Vec<Wanted>,
}

impl Chunk {
    /// `wants`: which of the events; the others are dealt with by passing them.
    pub fn new(
        at: Position,
        after: Position,
        moment: &Moment,
        events: &[Logged],
        wants: impl Fn(&Logged) -> bool,
    ) -> Self {
        let wanted = events.iter().enumerate().filter(|(_, logged)| wants(logged)).map(|(place, logged)| {
            let message = Message::from_log(logged);
            Wanted { place, key: LaneKey::of(&message), message, standing: Standing::Waits }
        });
        let seqs = events.iter().map(|logged| logged.seq).collect();
        Self { at, after, moment: moment.clone(), seqs, wanted: wanted.collect() }
    }

    pub fn has_some(&self, lane: Lane) -> bool {
        self.wanted.iter().any(|one| one.standing == Standing::Waits && lane.has(one.key))
    }

    /// Takes the next messages of a lane, up to so many. Returns their places.
    pub fn take(&mut self, lane: Lane, max: usize) -> Vec<usize> {
        let mut taken = Vec::new();
        for (place, one) in self.wanted.iter_mut().enumerate() {
            if taken.len() < max && one.standing == Standing::Waits && lane.has(one.key) {
                one.standing = Standing::Given;
                taken.push(place);
            }
        }
        taken
    }

    pub fn messages(&self, places: &[usize]) -> Vec<Message> {
        places.iter().filter_map(|&place| self.wanted.get(place)).map(|one| one.message.clone()).collect()
    }

    /// The first `handled` of what was taken are dealt with; the others are put back.
    pub fn settle(&mut self, places: &[usize], handled: usize) {
        for (number, &place) in places.iter().enumerate() {
            if let Some(one) = self.wanted.get_mut(place) {
                one.standing = if number < handled { Standing::Done } else { Standing::Waits };
            }
        }
    }

    /// Whether all of it is dealt with.
    pub fn is_over(&self) -> bool {
        self.wanted.iter().all(|one| one.standing == Standing::Done)
    }

    /// Where the subscription is, once the first `handled` of what was taken are dealt with.
    pub fn position(&self, places: &[usize], handled: usize) -> Position {
        let settled = places.get(..handled).unwrap_or(places);
        let open = self
            .wanted
            .iter()
            .enumerate()
            .find(|(place, one)| one.standing != Standing::Done && !settled.contains(place));
        match open {
            None => self.after.clone(),
            Some((_, one)) => {
                let last = one.place.checked_sub(1).map(|place| self.seqs[place]);
                self.at.after(self.at.batch_or(&self.moment), last, false)
            }
        }
    }
}
