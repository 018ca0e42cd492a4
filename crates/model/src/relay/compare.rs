//! Comparing what the log says was stored with what the stream holds.
//!
//! Both sides come in the order of the stream, a part at a time, and meet at the stream sequence. What does not meet is
//! kept until its counterpart turns up elsewhere, for a bounded number of events; so the whole takes bounded memory.

use std::collections::{HashMap, VecDeque};

use uuid::Uuid;

use crate::broker::Sighted;

/// What is kept without its counterpart, on each side, before the verdict is given without it.
const KEPT: usize = 50_000;

/// What the log says of a part of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Event(Stored),
    /// Events were stored here that are not retained (all) any more.
    Forgotten {
        first: u64,
        last: u64,
    },
}

/// An event as it was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub stream_sequence: u64,
    pub id: Uuid,
    /// Place in the log.
    pub seq: i64,
    pub digest: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Missing,
    Doubled,
    Reordered,
    Changed,
    Foreign,
}

impl Kind {
    /// What `sea_mq.verify_stream` calls it.
    pub const fn token(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Doubled => "doubled",
            Self::Reordered => "reordered",
            Self::Changed => "changed",
            Self::Foreign => "foreign",
        }
    }
}

/// A difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub kind: Kind,
    pub event: Option<Uuid>,
    pub seq: Option<i64>,
    pub stream_sequence: Option<u64>,
    pub detail: String,
}

/// A message where the log does not expect it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stray {
    sequence: u64,
    seq: i64,
}

#[derive(Default)]
pub struct Comparison {
    places: VecDeque<Place>,
    no_more_places: bool,
    messages: VecDeque<Sighted>,
    no_more_messages: bool,
    /// The stream holds nothing before this sequence (any more).
    first_sequence: u64,
    /// Messages to be looked up in the log.
    unknown: Vec<Sighted>,
    missing: HashMap<Uuid, Stored>,
    strays: HashMap<Uuid, Stray>,
    findings: Vec<Finding>,
}

impl Comparison {
    pub fn wants_places(&self) -> bool {
        self.places.is_empty() && !self.no_more_places
    }

    pub fn wants_messages(&self) -> bool {
        self.messages.is_empty() && !self.no_more_messages
    }

    /// What the log says further on; `end`: all.
    pub fn expect(&mut self, places: Vec<Place>, end: bool) {
        self.places.extend(places);
        self.no_more_places |= end;
    }

    /// What the stream holds further on; `end`: all.
    pub fn see(&mut self, messages: Vec<Sighted>, first_sequence: u64, end: bool) {
        self.messages.extend(messages);
        self.first_sequence = self.first_sequence.max(first_sequence);
        self.no_more_messages |= end;
    }

    /// Compares as far as both sides are known. Returns whether that was to the end.
    pub fn run(&mut self) -> bool {
        loop {
            match (self.places.front(), self.messages.front()) {
                (Some(place), Some(message)) => {
                    let (first, last) = place.bounds();
                    if message.sequence < first {
                        self.take_unknown();
                    } else if message.sequence > last {
                        self.take_absent();
                    } else {
                        self.meet();
                    }
                }
                (Some(_), None) if self.no_more_messages => self.take_absent(),
                (None, Some(_)) if self.no_more_places => self.take_unknown(),
                (None, None) => return self.no_more_places && self.no_more_messages,
                _ => return false,
            }
        }
    }

    fn take_unknown(&mut self) {
        self.unknown.extend(self.messages.pop_front());
    }

    fn take_absent(&mut self) {
        if let Some(Place::Event(event)) = self.places.pop_front() {
            self.absent(event);
        }
    }

    fn meet(&mut self) {
        let Some(message) = self.messages.pop_front() else { return };
        let Some(Place::Event(event)) = self.places.front().cloned() else { return };
        self.places.pop_front();
        if message.message_id.as_deref() != Some(event.id.to_string().as_str()) {
            self.unknown.push(message);
            self.absent(event);
        } else if message.digest != event.digest {
            let detail = "its subject or payload is not that of the event".to_owned();
            self.find(Kind::Changed, &event, Some(event.stream_sequence), detail);
        }
    }

    fn absent(&mut self, event: Stored) {
        // What the stream's limits have removed is not missed.
        if event.stream_sequence < self.first_sequence {
            return;
        }
        match self.strays.remove(&event.id) {
            Some(stray) => self.reordered(&event, stray.sequence),
            None => {
                self.missing.insert(event.id, event);
            }
        }
        if self.missing.len() > KEPT {
            self.give_up_missing();
        }
    }

    /// Message ids that are to be looked up in the log before `judge`.
    pub fn unknown_ids(&self) -> Vec<String> {
        self.unknown.iter().filter_map(|message| message.message_id.clone()).collect()
    }

    /// Decides about messages where the log does not expect them. `known`: those of their ids that are events of the log,
    /// with their places in it.
    pub fn judge(&mut self, known: &HashMap<String, i64>) {
        for message in std::mem::take(&mut self.unknown) {
            let id = message.message_id.as_deref();
            let event = id.and_then(|id| Some((id.parse::<Uuid>().ok()?, *known.get(id)?)));
            let Some((id, seq)) = event else {
                let detail = id.map_or_else(|| "no Nats-Msg-Id".into(), |id| format!("Nats-Msg-Id {id}"));
                let event = id.and_then(|id| id.parse().ok());
                let stream_sequence = Some(message.sequence);
                self.findings.push(Finding { kind: Kind::Foreign, event, seq: None, stream_sequence, detail });
                continue;
            };
            match self.missing.remove(&id) {
                Some(event) => self.reordered(&event, message.sequence),
                None => {
                    if let Some(other) = self.strays.insert(id, Stray { sequence: message.sequence, seq }) {
                        self.doubled(id, &other);
                    }
                }
            }
        }
        if self.strays.len() > KEPT {
            self.give_up_strays();
        }
    }

    /// Nothing more comes.
    pub fn end(&mut self) {
        self.give_up_missing();
        self.give_up_strays();
    }

    pub fn take_findings(&mut self) -> Vec<Finding> {
        std::mem::take(&mut self.findings)
    }

    fn give_up_missing(&mut self) {
        let mut missing: Vec<Stored> = self.missing.drain().map(|(_, event)| event).collect();
        missing.sort_unstable_by_key(|event| event.stream_sequence);
        for event in missing {
            self.find(Kind::Missing, &event, None, format!("it was stored at {}", event.stream_sequence));
        }
    }

    fn give_up_strays(&mut self) {
        let mut strays: Vec<(Uuid, Stray)> = self.strays.drain().collect();
        strays.sort_unstable_by_key(|(_, stray)| stray.sequence);
        strays.into_iter().for_each(|(id, stray)| self.doubled(id, &stray));
    }

    fn doubled(&mut self, id: Uuid, stray: &Stray) {
        let detail = "a further message with the id of this event".to_owned();
        let (event, seq, stream_sequence) = (Some(id), Some(stray.seq), Some(stray.sequence));
        self.findings.push(Finding { kind: Kind::Doubled, event, seq, stream_sequence, detail });
    }

    fn reordered(&mut self, event: &Stored, sequence: u64) {
        self.find(Kind::Reordered, event, Some(sequence), format!("it was stored at {}", event.stream_sequence));
    }

    fn find(&mut self, kind: Kind, event: &Stored, stream_sequence: Option<u64>, detail: String) {
        self.findings.push(Finding { kind, event: Some(event.id), seq: Some(event.seq), stream_sequence, detail });
    }
}

impl Place {
    fn bounds(&self) -> (u64, u64) {
        match self {
            Self::Event(event) => (event.stream_sequence, event.stream_sequence),
            Self::Forgotten { first, last } => (*first, *last),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> Uuid {
        Uuid::from_u128(n.into())
    }

    fn event(n: u64) -> Place {
        Place::Event(Stored { stream_sequence: n, id: id(n), seq: n.cast_signed() * 10, digest: n })
    }

    fn message(sequence: u64, n: u64) -> Sighted {
        Sighted { sequence, message_id: Some(id(n).to_string()), counted: true, digest: n }
    }

    /// Compares in parts of `size`; the log knows the ids up to 100.
    fn compare(places: &[Place], messages: &[Sighted], first_sequence: u64, size: usize) -> Vec<(Kind, u64)> {
        let mut comparison = Comparison::default();
        let known: HashMap<String, i64> = (1..=100).map(|n| (id(n).to_string(), n.cast_signed() * 10)).collect();
        let (mut places, mut messages) = (places.chunks(size), messages.chunks(size));
        loop {
            if comparison.wants_places() {
                let part = places.next();
                comparison.expect(part.unwrap_or_default().to_vec(), part.is_none());
            }
            if comparison.wants_messages() {
                let part = messages.next();
                comparison.see(part.unwrap_or_default().to_vec(), first_sequence, part.is_none());
            }
            let ended = comparison.run();
            comparison.judge(&known);
            if ended {
                break;
            }
        }
        comparison.end();
        let what = |finding: Finding| (finding.kind, finding.event.map_or(0, |id| id.as_u64_pair().1));
        comparison.take_findings().into_iter().map(what).collect()
    }

    fn in_any_parts(places: &[Place], messages: &[Sighted], first: u64, expected: &[(Kind, u64)]) {
        for size in 1..=places.len().max(messages.len()) {
            assert_eq!(compare(places, messages, first, size), expected, "in parts of {size}");
        }
    }

    #[test]
    fn what_is_the_same_is_no_finding() {
        let places: Vec<Place> = (1..=5).map(event).collect();
        let messages: Vec<Sighted> = (1..=5).map(|n| message(n, n)).collect();
        in_any_parts(&places, &messages, 1, &[]);
    }

    #[test]
    fn each_difference_has_its_kind() {
        let places: Vec<Place> = (1..=6).map(event).collect();
        let changed = Sighted { digest: 77, ..message(3, 3) };
        let nameless = Sighted { sequence: 9, message_id: None, counted: false, digest: 0 };
        // 2 was deleted and published again behind all, 4 was deleted, 5 is there twice.
        let messages = [
            message(1, 1),
            changed,
            message(5, 5),
            message(6, 6),
            message(7, 5),
            message(8, 2),
            nameless,
            message(10, 200),
        ];
        let expected = [
            (Kind::Changed, 3),
            (Kind::Reordered, 2),
            (Kind::Foreign, 0),
            (Kind::Foreign, 200),
            (Kind::Missing, 4),
            (Kind::Doubled, 5),
        ];
        for size in 1..=8 {
            let mut found = compare(&places, &messages, 1, size);
            for wanted in expected {
                let at = found.iter().position(|one| *one == wanted);
                found.remove(at.unwrap_or_else(|| panic!("{wanted:?} is not in {found:?}, in parts of {size}")));
            }
            assert_eq!(found, []);
        }
    }

    #[test]
    fn an_event_that_was_moved_ahead_is_reordered() {
        let places = [event(1), event(2), event(3)];
        in_any_parts(&places, &[message(1, 3), message(2, 2)], 1, &[(Kind::Reordered, 3), (Kind::Missing, 1)]);
    }

    #[test]
    fn what_the_stream_has_dropped_and_what_the_log_has_forgotten_is_not_missed() {
        let places = [Place::Forgotten { first: 1, last: 4 }, event(5), event(6), event(7)];
        let all: Vec<Sighted> = (1..=7).map(|n| message(n, n + 200 * u64::from(n < 5))).collect();
        in_any_parts(&places, &all, 1, &[]);
        in_any_parts(&places, &all[5..], 6, &[]);
    }
}
