//! The events of a stream whose transactions are to be stored all or none, put together by transaction.
//!
//! In the log the events of transactions that committed at the same time stand mixed, and a chunk may end in the middle of
//! some. What is not complete is kept until it is. Transactions leave in the order of their last events: a transaction that
//! waited for another one has all its events behind all of the other's, so the serialisation order is kept.

use std::collections::{HashMap, HashSet};

use crate::domain::event::Logged;

/// Most events of a transaction that are published as one: nats-server takes no more in a batch.
pub const MAX_EVENTS: usize = 1000;
/// Most bytes of payload of a transaction that are published as one, and of all that are kept: they are in memory.
pub const MAX_BYTES: usize = 32 << 20;

/// An event and its number in the order of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    pub place: u64,
    pub logged: Logged,
}

/// Events of one transaction, to be published after each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub xid: u64,
    pub events: Vec<Placed>,
    pub bytes: usize,
    pub extent: Extent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All of the transaction that was not published yet.
    Whole,
    /// The first part of a transaction that is too large to be published as one.
    Begun,
    /// A further part of it.
    Continued,
}

/// Why a transaction was not published as one, though the stream's description wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SplitReason {
    /// It has more events or bytes than a batch takes.
    TooLarge,
    /// The server or the stream does not take batches.
    NotAllowed,
    /// The broker refused the batch: it knows one of the messages already, or has a lower limit.
    Refused,
}

impl SplitReason {
    pub const fn words(self) -> &'static str {
        match self {
            Self::TooLarge => "it has more than 1000 events or 32 MB of payload",
            Self::NotAllowed => "the server or the stream does not take atomic batches",
            Self::Refused => {
                "the broker refused the batch, which holds a message that it has already or is too large for it"
            }
        }
    }
}

/// Transactions that were not published as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Splits {
    pub count: u64,
    /// Id of the last of them, and why.
    pub xid: u64,
    pub reason: SplitReason,
}

/// What is kept.
#[derive(Debug, Default)]
pub struct Transactions {
    kept: HashMap<u64, Group>,
    bytes: usize,
    /// Transactions that are too large and of which a part was handed out already.
    large: HashSet<u64>,
}

impl Transactions {
    /// Takes a chunk of the log and hands out what can be published. `open`: transactions that have events behind it.
    pub fn take(&mut self, events: impl IntoIterator<Item = Placed>, open: &HashSet<u64>) -> Vec<Group> {
        for event in events {
            let (xid, bytes) = (event.logged.xid, event.logged.event.payload.len());
            let group = self.kept.entry(xid).or_insert_with(|| Group {
                xid,
                events: Vec::new(),
                bytes: 0,
                extent: Extent::Whole,
            });
            group.events.push(event);
            group.bytes += bytes;
            self.bytes += bytes;
        }
        let full = self.bytes > MAX_BYTES;
        let large = &mut self.large;
        let mut ready: Vec<Group> = self
            .kept
            .extract_if(|xid, group| {
                let ends = !open.contains(xid);
                let too_large = group.events.len() > MAX_EVENTS || group.bytes > MAX_BYTES || (full && !ends);
                if large.contains(xid) {
                    group.extent = Extent::Continued;
                } else if too_large {
                    group.extent = Extent::Begun;
                    large.insert(*xid);
                }
                if ends {
                    large.remove(xid);
                }
                ends || group.extent != Extent::Whole
            })
            .map(|(_, group)| group)
            .collect();
        self.bytes -= ready.iter().map(|group| group.bytes).sum::<usize>();
        ready.sort_unstable_by_key(|group| group.events.last().map(|event| event.logged.seq));
        ready
    }

    /// Place in the log of the first event that is kept.
    pub fn first(&self) -> Option<i64> {
        self.kept.values().filter_map(|group| group.events.first()).map(|event| event.logged.seq).min()
    }

    pub fn xids(&self) -> impl Iterator<Item = u64> {
        self.kept.keys().copied()
    }

    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event::{Defaults, EmitArgs, Event};

    fn event(seq: i64, xid: u64, bytes: usize) -> Placed {
        let args = EmitArgs {
            aggregate_type: Some("order".into()),
            aggregate_id: Some("1".into()),
            event_type: Some("created".into()),
            payload: Some(format!("\"{}\"", "x".repeat(bytes))),
            event_version: Some(1),
            context: Some("orders".into()),
            visibility: Some("internal".into()),
            ..EmitArgs::default()
        };
        let event = Event::new(args, &Defaults::default()).unwrap();
        Placed { place: seq.unsigned_abs(), logged: Logged { seq, xid, committed_at: None, event, schema: None } }
    }

    fn take(transactions: &mut Transactions, events: &[(i64, u64)], open: &[u64]) -> Vec<(u64, Vec<i64>, Extent)> {
        let events = events.iter().map(|(seq, xid)| event(*seq, *xid, 0));
        let groups = transactions.take(events, &open.iter().copied().collect());
        let seqs = |group: &Group| group.events.iter().map(|event| event.logged.seq).collect();
        groups.iter().map(|group| (group.xid, seqs(group), group.extent)).collect()
    }

    #[test]
    fn transactions_that_stand_mixed_in_the_log_are_put_together() {
        let mut transactions = Transactions::default();
        let groups = take(&mut transactions, &[(1, 7), (2, 8), (3, 7), (4, 9), (5, 8)], &[]);
        let whole = |xid, seqs: &[i64]| (xid, seqs.to_vec(), Extent::Whole);
        assert_eq!(groups, [whole(7, &[1, 3]), whole(9, &[4]), whole(8, &[2, 5])]);
        assert!(transactions.is_empty());
    }

    #[test]
    fn what_the_end_of_a_chunk_cuts_waits_for_the_rest() {
        let mut transactions = Transactions::default();
        assert_eq!(take(&mut transactions, &[(1, 7), (2, 8)], &[7]), [(8, vec![2], Extent::Whole)]);
        assert_eq!(transactions.first(), Some(1));
        assert_eq!(take(&mut transactions, &[(3, 9)], &[7, 9]), []);
        let groups = take(&mut transactions, &[(4, 7), (5, 9)], &[]);
        assert_eq!(groups, [(7, vec![1, 4], Extent::Whole), (9, vec![3, 5], Extent::Whole)]);
        assert_eq!(transactions.first(), None);
    }

    #[test]
    fn a_transaction_of_1000_events_is_whole_and_one_of_1001_is_not() {
        for (last, extent) in [(1000, Extent::Whole), (1001, Extent::Begun)] {
            let mut transactions = Transactions::default();
            let events: Vec<_> = (1..=last).map(|seq| (seq, 7)).collect();
            assert_eq!(take(&mut transactions, &events[..500], &[7]), []);
            let groups = take(&mut transactions, &events[500..], &[]);
            assert_eq!((groups.len(), groups[0].1.len(), groups[0].2), (1, events.len(), extent));
        }
    }

    #[test]
    fn a_large_transaction_goes_as_it_comes() {
        let mut transactions = Transactions::default();
        let events: Vec<_> = (1..=1001).map(|seq| (seq, 7)).collect();
        let first = take(&mut transactions, &events, &[7]);
        assert_eq!((first[0].1.len(), first[0].2), (1001, Extent::Begun));
        assert_eq!(take(&mut transactions, &[(1002, 7)], &[7]), [(7, vec![1002], Extent::Continued)]);
        assert_eq!(take(&mut transactions, &[(1003, 7)], &[]), [(7, vec![1003], Extent::Continued)]);
        assert_eq!(take(&mut transactions, &[(1004, 7)], &[]), [(7, vec![1004], Extent::Whole)]);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut transactions = Transactions::default();
        let half = MAX_BYTES / 2 + 1;
        let open = HashSet::from([7, 8]);
        assert_eq!(transactions.take([event(1, 7, half)], &open).len(), 0);
        let groups = transactions.take([event(2, 8, half)], &open);
        assert_eq!(groups.iter().map(|group| group.extent).collect::<Vec<_>>(), [Extent::Begun, Extent::Begun]);
        assert!(transactions.is_empty());
    }
}
