//! Messages that are still to be sent, and the headers that the session adds to them.
//!
//! A batch is stored all or none: nats-server keeps its messages aside, answers each with nothing, and stores them when the
//! last one says so; the answer to that one is the ack of all. Only the first may say what it expects, and not by message
//! id. Messages of one sink are sent one after the other, so that no two of its batches are ever open at the same time.

use async_nats::header::{NATS_EXPECTED_LAST_MESSAGE_ID, NATS_EXPECTED_LAST_SEQUENCE, NATS_MESSAGE_ID};
use async_nats::{HeaderMap, HeaderValue};
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error, StringDeserializer};

use sea_mq_model::broker::{Fault, FaultKind, Outgoing};
use sea_mq_model::domain::header_block::HeaderBlock;

pub(super) const BATCH_ID: &str = "Nats-Batch-Id";
const BATCH_SEQUENCE: &str = "Nats-Batch-Sequence";
const BATCH_COMMIT: &str = "Nats-Batch-Commit";

/// The messages of one request that are still to be sent.
#[derive(Debug)]
pub(super) struct Queued {
    /// Expected last sequence for the next message.
    expected: Option<u64>,
    messages: std::vec::IntoIter<Outgoing>,
    sizes: std::vec::IntoIter<usize>,
    /// Of the message that was taken last.
    place: Place,
}

/// Where in its batch a message stands. One that is stored alone is a batch of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// From 1.
    pub(super) number: usize,
    pub(super) of: usize,
}

impl Place {
    pub(super) fn is_last(self) -> bool {
        self.number >= self.of
    }
}

/// A message with what it has to say about its place.
#[derive(Debug)]
pub(super) struct Next {
    pub(super) message: Outgoing,
    pub(super) place: Place,
    pub(super) expected: Option<u64>,
}

impl Queued {
    /// `batches`: see [`sea_mq_model::broker::Request::Publish`].
    pub(super) fn new(expected: Option<u64>, messages: Vec<Outgoing>, batches: Vec<usize>) -> Self {
        let (messages, sizes) = (messages.into_iter(), batches.into_iter());
        Self { expected, messages, sizes, place: Place::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.as_slice().is_empty()
    }

    /// Size of the next message.
    pub(super) fn next_size(&self) -> Option<usize> {
        self.messages.as_slice().first().map(|message| message.body.len() + message.headers.size())
    }

    pub(super) fn next(&mut self) -> Option<Next> {
        let message = self.messages.next()?;
        let expected = self.expected;
        self.expected = expected.map(|sequence| sequence + 1);
        self.place = if self.place.is_last() {
            Place { number: 1, of: self.sizes.next().unwrap_or(1) }
        } else {
            Place { number: self.place.number + 1, ..self.place }
        };
        Some(Next { message, place: self.place, expected })
    }
}

/// The headers as the library wants them. `previous_id`: the id of the message before it, if it may be expected.
/// `batch`: the name of its batch, which no other batch ever had.
pub(super) fn headers(
    mut block: HeaderBlock,
    place: Place,
    expected: Option<u64>,
    previous_id: Option<&str>,
    batch: impl FnOnce() -> String,
) -> Result<HeaderMap, Fault> {
    if let Some(sequence) = expected.filter(|_| place.number == 1) {
        if let Some(id) = previous_id.filter(|_| place.of == 1) {
            block.put_first(NATS_EXPECTED_LAST_MESSAGE_ID.as_ref(), id);
        }
        block.put_first(NATS_EXPECTED_LAST_SEQUENCE.as_ref(), &sequence.to_string());
    }
    if place.of > 1 {
        block.push(BATCH_ID, &batch());
        block.push(BATCH_SEQUENCE, &place.number.to_string());
        if place.is_last() {
            block.push(BATCH_COMMIT, "1");
        }
    }
    let lines = block.into_lines().map_err(|name| {
        Fault::new(FaultKind::InvalidMessage, format!("header {name:?} cannot be sent: not a valid name or value"))
    })?;
    // All lines as the value of the first, which the library writes as it is. Its constructors would not take line ends;
    // that there are none but those between headers is what a block is for.
    let lines: StringDeserializer<Error> = lines.into_deserializer();
    let value = HeaderValue::deserialize(lines).map_err(|error| Fault::new(FaultKind::Server, error.to_string()))?;
    let mut map = HeaderMap::new();
    map.insert(NATS_MESSAGE_ID, value);
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(place: Place) -> String {
        let block = HeaderBlock::new("id");
        let id = "00000000-0000-0000-0000-000000000000";
        let map = headers(block, place, Some(u64::MAX), Some(id), || "0123456789abcdef".into()).unwrap();
        map.get(NATS_MESSAGE_ID).unwrap().as_str().to_owned()
    }

    #[test]
    fn batches_follow_each_other_and_then_single_messages() {
        let message = || Outgoing { subject: "s".into(), headers: HeaderBlock::new("id"), body: Default::default() };
        let mut queued = Queued::new(Some(7), (0..5).map(|_| message()).collect(), vec![1, 3]);
        let taken: Vec<_> = std::iter::from_fn(|| queued.next())
            .map(|next| (next.place.number, next.place.of, next.expected))
            .collect();
        let expected = [(1, 1, 7), (1, 3, 8), (2, 3, 9), (3, 3, 10), (1, 1, 11)];
        assert_eq!(taken, expected.map(|(number, of, sequence)| (number, of, Some(sequence))));
        assert!(queued.is_empty());
    }

    #[test]
    fn only_the_first_of_a_batch_says_what_it_expects_and_only_the_last_commits() {
        let of = 1000;
        let (first, last) = (lines(Place { number: 1, of }), lines(Place { number: of, of }));
        assert!(first.contains("Nats-Expected-Last-Sequence: ") && !last.contains("Nats-Expected-Last-Sequence"));
        assert!(!first.contains(BATCH_COMMIT) && last.ends_with("Nats-Batch-Commit: 1"));
        for member in [&first, &last] {
            assert!(!member.contains("Nats-Expected-Last-Msg-Id"), "nats-server refuses it in a batch");
            assert!(member.contains("Nats-Batch-Id: 0123456789abcdef"));
        }
        assert!(!lines(Place { number: 1, of: 1 }).contains("Batch"));
    }

    #[test]
    fn a_batch_takes_no_more_room_than_emit_reckons_with() {
        let single = lines(Place { number: 1, of: 1 });
        for number in [1, 2, 1000] {
            assert!(lines(Place { number, of: 1000 }).len() <= single.len());
        }
    }
}
