//! Messages that are gone from a stream before its subscription got them: a lowered limit, a purge, a deletion, their age.
//!
//! Where a subscription gets all that a stream holds, it shows in the sequences: what is stored has one each, without gaps, so a
//! gap between two deliveries, or before the first message that is left, was removed. The broker is asked how much of it, since
//! what was acknowledged out of turn is delivered once only as well. Where a filter lets some messages through, a gap says
//! nothing, and a removal at the front says no more than that some of those that waited may have been among it.

use crate::broker::{ConsumerInfo, DeliverFrom, Delivery, Resume};

/// Sequences that were not delivered and are not to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    pub first: u64,
    pub last: u64,
    /// No more of them than this were for the subscription; `None`: all were.
    pub at_most: Option<u64>,
}

impl Gap {
    /// From the first of them to the last; `None`: there is none.
    pub fn spanning(gaps: &[Self]) -> Option<Self> {
        let (first, last) = (gaps.first()?, gaps.last()?);
        Some(Self { last: last.last, ..*first })
    }
}

#[derive(Debug, Default)]
pub(super) struct Reach {
    stream_created_us: i64,
    /// All up to this sequence that there was for the subscription was delivered, or is known to be gone.
    upto: Option<u64>,
    /// It gets all that the stream holds, and nothing is removed by being acknowledged.
    whole: bool,
    /// Messages that waited when the consumer was heard last.
    pending: u64,
    /// The stream's front was found beyond what was delivered. What was on its way is there by the next look.
    doubtful: bool,
}

impl Reach {
    /// The consumer is there, and delivers from where it was.
    pub(super) fn begin(&mut self, info: &ConsumerInfo, from: DeliverFrom, position: Option<Resume>) -> Option<Gap> {
        let same = self.stream_created_us == info.stream_created_us;
        let known = position.filter(|known| known.stream_created_us == info.stream_created_us);
        let start = (from == DeliverFrom::All).then_some(info.ack_floor);
        self.upto = known.map(|known| known.sequence).or(self.upto.filter(|_| same)).or(start);
        self.stream_created_us = info.stream_created_us;
        self.whole = info.whole;
        self.pending = info.pending;
        self.doubtful = false;
        if self.whole { self.front(info) } else { None }
    }

    /// The consumer as it is while it delivers.
    pub(super) fn seen(&mut self, info: &ConsumerInfo) -> Option<Gap> {
        if info.stream_created_us != self.stream_created_us {
            return None;
        }
        let waited = std::mem::replace(&mut self.pending, info.pending);
        self.whole = info.whole;
        let beyond = self.upto.is_some_and(|upto| upto + 1 < info.stream_first);
        if !beyond || !std::mem::replace(&mut self.doubtful, true) {
            self.doubtful = beyond;
            self.pending = if beyond { waited } else { info.pending };
            if info.pending == 0 && !beyond {
                self.upto = self.upto.max(Some(info.stream_last));
            }
            return None;
        }
        self.doubtful = false;
        self.pending = info.pending;
        let gap = self.front(info)?;
        let at_most = (!self.whole).then(|| waited.saturating_sub(info.pending));
        (at_most != Some(0)).then_some(Gap { at_most, ..gap })
    }

    /// Takes in what is delivered, and returns what was left out.
    pub(super) fn delivered(&mut self, messages: &[Delivery]) -> Vec<Gap> {
        let mut gaps = Vec::new();
        for message in messages {
            self.pending = message.pending;
            if let Some(upto) = self.upto.filter(|_| self.whole)
                && message.sequence > upto + 1
            {
                gaps.push(Gap { first: upto + 1, last: message.sequence - 1, at_most: None });
            }
            self.upto = self.upto.max(Some(message.sequence));
        }
        gaps
    }

    fn front(&mut self, info: &ConsumerInfo) -> Option<Gap> {
        let first = self.upto? + 1;
        let last = info.stream_first.checked_sub(1).filter(|last| *last >= first)?;
        self.upto = Some(last);
        Some(Gap { first, last, at_most: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(first: u64, last: u64, pending: u64) -> ConsumerInfo {
        let whole = true;
        ConsumerInfo {
            stream_created_us: 5,
            stream_first: first,
            stream_last: last,
            pending,
            whole,
            ..Default::default()
        }
    }

    fn begun(position: u64) -> Reach {
        let mut reach = Reach::default();
        let position = Resume { stream_created_us: 5, sequence: position };
        assert_eq!(reach.begin(&info(1, 100, 0), DeliverFrom::New, Some(position)), None);
        reach
    }

    fn message(sequence: u64, pending: u64) -> Delivery {
        Delivery { sequence, ..crate::consume::intake::tests::pending(pending) }
    }

    const fn gap(first: u64, last: u64) -> Gap {
        Gap { first, last, at_most: None }
    }

    #[test]
    fn a_gap_between_deliveries_is_told() {
        let mut reach = begun(10);
        assert_eq!(reach.delivered(&[message(11, 9), message(12, 8)]), []);
        assert_eq!(reach.delivered(&[message(15, 5), message(18, 2)]), [gap(13, 14), gap(16, 17)]);
        assert_eq!(reach.delivered(&[message(12, 2), message(19, 1)]), [], "a redelivery is none");
    }

    #[test]
    fn gaps_are_asked_about_together() {
        assert_eq!(Gap::spanning(&[gap(13, 14), gap(16, 17)]), Some(gap(13, 17)));
        assert_eq!(Gap::spanning(&[]), None);
    }

    #[test]
    fn a_front_beyond_what_was_delivered_is_told_once_and_when_nothing_is_on_its_way_any_more() {
        let mut reach = begun(10);
        assert_eq!(reach.seen(&info(21, 100, 80)), None);
        assert_eq!(reach.delivered(&[message(11, 79)]), [], "it was on its way");
        assert_eq!(reach.seen(&info(21, 100, 80)), Some(gap(12, 20)));
        assert_eq!(reach.seen(&info(21, 100, 80)), None);
        assert_eq!(reach.seen(&info(21, 100, 80)), None);
    }

    #[test]
    fn what_was_removed_while_nobody_was_there_is_told_at_the_beginning() {
        let mut reach = Reach::default();
        let position = Some(Resume { stream_created_us: 5, sequence: 10 });
        assert_eq!(reach.begin(&info(31, 100, 70), DeliverFrom::All, position), Some(gap(11, 30)));
        let other = Some(Resume { stream_created_us: 4, sequence: 10 });
        assert_eq!(Reach::default().begin(&info(31, 100, 70), DeliverFrom::New, other), None, "another stream");
    }

    #[test]
    fn behind_a_filter_no_more_is_told_than_may_be() {
        let mut reach = begun(10);
        let partial = |first, pending| ConsumerInfo { whole: false, ..info(first, 100, pending) };
        assert_eq!(reach.seen(&partial(1, 0)), None);
        assert_eq!(reach.delivered(&[message(120, 7), message(130, 7)]), []);
        for _ in 0..2 {
            assert_eq!(reach.seen(&partial(111, 7)), None, "all before it was delivered");
        }
        assert_eq!(reach.seen(&partial(200, 4)), None);
        assert_eq!(reach.seen(&partial(200, 4)), Some(Gap { first: 131, last: 199, at_most: Some(3) }));
    }
}
