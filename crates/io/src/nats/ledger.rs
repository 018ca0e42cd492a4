//! The messages of one `Consume`: how many were asked for, which wait for their ack, and which are held back.
//!
//! Pure state, no I/O. The sum of what was asked for and what waits never exceeds the window, nor its share of the memory
//! (except by what an earlier session left, which is taken all at once and reported as room permits, and by one message that
//! is larger than the share). So nothing lies in a buffer without the broker being told that it is in progress.
//!
//! Bytes are counted as the server counts them for `max_bytes`: subject, reply subject, headers and body.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_nats::Subject;

use super::delivery::Arrived;
use sea_mq_model::broker::Delivery;

/// The next token. It outlives sessions: an ack that comes late must not meet another message's token.
static NEXT_TOKEN: AtomicU64 = AtomicU64::new(1);

/// What a message takes beside its bytes, about.
const OVERHEAD: usize = 256;

/// What to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// So many messages …
    pub(super) count: usize,
    /// … of so many bytes together; `None`: however large they are.
    pub(super) bytes: Option<usize>,
}

#[derive(Debug)]
pub(super) struct Ledger {
    /// Most messages that may be reported and wait for their ack.
    window: usize,
    /// How long the broker is left without a word about a message.
    interval: Duration,
    /// Asked for and not arrived.
    asked: usize,
    /// Bytes of what was asked for and has not arrived.
    asked_bytes: usize,
    /// Bytes of `open`.
    bytes: usize,
    /// The next message is larger than this.
    larger_than: Option<usize>,
    /// By token: what waits for its ack, reported or held.
    open: BTreeMap<u64, Open>,
    /// Not yet reported, in order.
    held: VecDeque<Delivery>,
    /// When the next word to the broker is due, or a moment before that.
    due: Option<Instant>,
}

#[derive(Debug)]
struct Open {
    sequence: u64,
    reply: Subject,
    bytes: usize,
    /// When the broker delivered the message, or was last told that it is in progress.
    told: Instant,
}

impl Ledger {
    pub(super) fn new(window: usize, ack_wait: Duration) -> Self {
        Self {
            window: window.max(1),
            interval: ack_wait / 2,
            asked: 0,
            asked_bytes: 0,
            bytes: 0,
            larger_than: None,
            open: BTreeMap::new(),
            held: VecDeque::new(),
            due: None,
        }
    }

    /// What to ask for now, of a share of so many bytes, of which no more than `line` are to be on their way. Few messages at
    /// a time only if nothing else is on its way: each request costs a message. Few bytes not even then: what is under way
    /// makes room.
    pub(super) fn wanted(&self, share: usize, line: usize) -> Option<Wanted> {
        let count = self.window.saturating_sub(self.open.len() + self.asked);
        let room = share.saturating_sub(self.bytes.saturating_add(self.asked_bytes));
        let bytes = room.min(line.saturating_sub(self.asked_bytes));
        let little = (self.asked > 0 && count < self.window.div_ceil(4)) || bytes < share.min(line).div_ceil(4);
        if count == 0 || little {
            return None;
        }
        match self.larger_than {
            Some(size) if bytes <= size => self.is_idle().then_some(Wanted { count: 1, bytes: None }),
            _ => Some(Wanted { count, bytes: Some(bytes) }),
        }
    }

    /// Nothing was asked for, and nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.asked == 0 && self.open.is_empty()
    }

    /// Notes what was asked for.
    pub(super) fn ask(&mut self, asked: Wanted) {
        self.asked += asked.count;
        // One that may be of any size is alone on its way.
        self.asked_bytes = self.asked_bytes.saturating_add(asked.bytes.unwrap_or(usize::MAX));
    }

    /// Notes that so many of the messages asked for will not come, as the next one is larger than what was left to ask for.
    pub(super) fn too_large(&mut self, left: usize, bytes: Option<usize>) {
        let bytes = bytes.unwrap_or(self.asked_bytes);
        self.asked_bytes = self.asked_bytes.saturating_sub(bytes);
        self.give_up(Some(left));
        self.larger_than = Some(bytes);
    }

    /// Whether the broker owes an answer.
    pub(super) fn expects(&self) -> bool {
        self.asked > 0
    }

    /// Notes that so many of the messages asked for will not come; `None` for all.
    pub(super) fn give_up(&mut self, count: Option<usize>) {
        // The next message may be another one by now.
        self.larger_than = None;
        self.asked = count.map_or(0, |count| self.asked.saturating_sub(count));
        if self.asked == 0 {
            self.asked_bytes = 0;
        }
    }

    /// A message that was asked for is there. One that takes the last byte ends its request, and the server says no word.
    fn take_in(&mut self, arrived: &Arrived) {
        self.larger_than = None;
        self.asked_bytes = self.asked_bytes.saturating_sub(arrived.message.length);
        let left = if self.asked_bytes == 0 { 0 } else { self.asked.saturating_sub(1) };
        self.asked = left;
        if left == 0 {
            self.asked_bytes = 0;
        }
    }

    /// Takes what was asked for. Returns what to report: nothing, if the message waits for its ack already. That one
    /// was redelivered although it is in progress; its ack goes where the broker now expects it.
    pub(super) fn arrived(&mut self, arrived: Arrived, now: Instant) -> Option<Delivery> {
        self.take_in(&arrived);
        if arrived.metadata.delivered > 1 {
            let sequence = arrived.metadata.sequence;
            if let Some(open) = self.open.values_mut().find(|open| open.sequence == sequence) {
                open.reply = arrived.reply;
                open.told = now;
                return None;
            }
        }
        if !self.held.is_empty() {
            // A late answer to the requests of the beginning: it does not overtake what waits.
            self.hold(arrived, now);
            return None;
        }
        Some(self.enter(arrived, now))
    }

    /// Takes what an earlier session left. It is reported by [`release`](Self::release).
    pub(super) fn hold(&mut self, arrived: Arrived, now: Instant) {
        let delivery = self.enter(arrived, now);
        self.held.push_back(delivery);
    }

    fn enter(&mut self, arrived: Arrived, now: Instant) -> Delivery {
        let token = NEXT_TOKEN.fetch_add(1, Ordering::Relaxed);
        let bytes = arrived.message.length + OVERHEAD;
        let open = Open { sequence: arrived.metadata.sequence, reply: arrived.reply.clone(), bytes, told: now };
        self.bytes += bytes;
        self.open.insert(token, open);
        self.due.get_or_insert(now + self.interval);
        arrived.into_delivery(token)
    }

    /// What was held back and may be reported now.
    pub(super) fn release(&mut self) -> Vec<Delivery> {
        let reported = self.open.len() - self.held.len();
        let room = self.window.saturating_sub(reported).min(self.held.len());
        self.held.drain(..room).collect()
    }

    /// Takes a message out. Returns where to send its ack.
    pub(super) fn settle(&mut self, token: u64) -> Option<Subject> {
        let open = self.open.remove(&token)?;
        self.bytes -= open.bytes;
        Some(open.reply)
    }

    /// When [`overdue`](Self::overdue) is to be asked.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// The messages about which the broker should hear that they are in progress. They count as told.
    pub(super) fn overdue(&mut self, now: Instant) -> Vec<Subject> {
        let mut replies = Vec::new();
        if self.due.is_none_or(|due| due > now) {
            return replies;
        }
        let mut earliest: Option<Instant> = None;
        for open in self.open.values_mut() {
            if open.told + self.interval <= now {
                open.told = now;
                replies.push(open.reply.clone());
            }
            earliest = Some(earliest.map_or(open.told, |earliest| earliest.min(open.told)));
        }
        self.due = earliest.map(|told| told + self.interval);
        replies
    }
}

#[cfg(test)]
mod tests {
    use async_nats::Message;

    use super::super::delivery::{self, Arrival};
    use super::*;

    const ACK_WAIT: Duration = Duration::from_secs(10);

    const SHARE: usize = 1 << 20;

    fn arrived(sequence: u64, delivered: u64) -> Arrived {
        sized(sequence, delivered, 0)
    }

    fn wanted(ledger: &Ledger) -> usize {
        ledger.wanted(SHARE, SHARE).map_or(0, |wanted| wanted.count)
    }

    fn ask(ledger: &mut Ledger, count: usize) {
        ledger.ask(Wanted { count, bytes: Some(SHARE / 4) });
    }

    fn sized(sequence: u64, delivered: u64, length: usize) -> Arrived {
        let reply = format!("$JS.ACK.S.c.{delivered}.{sequence}.1.1000.0");
        let message = Message {
            subject: "s".into(),
            reply: Some(reply.into()),
            payload: Default::default(),
            headers: None,
            status: None,
            description: None,
            length,
        };
        match delivery::read(message) {
            Arrival::Message(arrived) => arrived,
            other => panic!("{other:?}"),
        }
    }

    fn sequences(deliveries: &[Delivery]) -> Vec<u64> {
        deliveries.iter().map(|delivery| delivery.sequence).collect()
    }

    #[test]
    fn window_is_never_exceeded() {
        let (mut ledger, now) = (Ledger::new(8, ACK_WAIT), Instant::now());
        assert_eq!(wanted(&ledger), 8);
        ask(&mut ledger, 8);
        let tokens: Vec<u64> = (1..=8).filter_map(|n| ledger.arrived(arrived(n, 1), now)).map(|d| d.token).collect();
        assert_eq!(wanted(&ledger), 0);
        assert!(ledger.settle(tokens[0]).is_some());
        assert_eq!(wanted(&ledger), 1);
        ask(&mut ledger, 1);
        assert!(ledger.settle(tokens[1]).is_some());
        assert_eq!(
            wanted(&ledger),
            0,
            "one is on its way; a request for another one would cost as much as the message"
        );
        assert!(ledger.settle(tokens[2]).is_some());
        assert_eq!(wanted(&ledger), 2);
    }

    #[test]
    fn what_will_not_come_is_asked_for_again() {
        let mut ledger = Ledger::new(4, ACK_WAIT);
        ask(&mut ledger, 4);
        ledger.give_up(Some(3));
        assert_eq!(wanted(&ledger), 3);
        ledger.give_up(None);
        assert_eq!(wanted(&ledger), 4);
    }

    #[test]
    fn share_is_never_exceeded() {
        let (mut ledger, now) = (Ledger::new(100, ACK_WAIT), Instant::now());
        let share = 4000;
        assert_eq!(ledger.wanted(share, share), Some(Wanted { count: 100, bytes: Some(4000) }));
        ledger.ask(Wanted { count: 100, bytes: Some(4000) });
        assert_eq!(ledger.wanted(share, share), None);
        let tokens: Vec<u64> =
            (1..=3).filter_map(|n| ledger.arrived(sized(n, 1, 1000), now)).map(|d| d.token).collect();
        // 3000 bytes are there, and three times what a message takes beside them; the next one has 2000.
        ledger.too_large(97, Some(1000));
        assert_eq!(ledger.wanted(share, share), None, "what is there fills the share");
        ledger.settle(tokens[0]);
        assert_eq!(ledger.wanted(share, share), Some(Wanted { count: 98, bytes: Some(4000 - 2 * (1000 + OVERHEAD)) }));
        ledger.ask(Wanted { count: 98, bytes: Some(1488) });
        ledger.too_large(98, Some(1488));
        assert_eq!(ledger.wanted(share, share), None, "it would be too large again");
        ledger.settle(tokens[1]);
        assert_eq!(ledger.wanted(share, share), Some(Wanted { count: 99, bytes: Some(2744) }));
    }

    #[test]
    fn no_more_is_on_its_way_than_the_line_takes() {
        let (mut ledger, now) = (Ledger::new(100, ACK_WAIT), Instant::now());
        let wanted = |ledger: &Ledger| ledger.wanted(10_000, 2000).map(|wanted| wanted.bytes);
        assert_eq!(wanted(&ledger), Some(Some(2000)));
        ledger.ask(Wanted { count: 60, bytes: Some(2000) });
        assert_eq!(wanted(&ledger), None);
        ledger.arrived(sized(1, 1, 400), now);
        assert_eq!(wanted(&ledger), None, "too little to be worth a request");
        ledger.arrived(sized(2, 1, 400), now);
        assert_eq!(wanted(&ledger), Some(Some(800)));
        ledger.ask(Wanted { count: 40, bytes: Some(800) });
        // The first request ends with 1200 bytes to spare; those of the second are on their way.
        ledger.too_large(58, Some(1200));
        assert_eq!(ledger.asked_bytes, 800);
        assert_eq!(wanted(&ledger), None, "the next one is larger than what is free");
    }

    #[test]
    fn message_that_is_larger_than_the_share_comes_alone() {
        let (mut ledger, now) = (Ledger::new(100, ACK_WAIT), Instant::now());
        let share = 1000;
        ledger.ask(Wanted { count: 100, bytes: Some(1000) });
        let token = ledger.arrived(sized(1, 1, 300), now).unwrap().token;
        ledger.too_large(99, Some(700));
        assert_eq!(ledger.wanted(share, share), None, "there may be room for it later");
        ledger.settle(token);
        assert_eq!(ledger.wanted(share, share), Some(Wanted { count: 100, bytes: Some(1000) }));
        ledger.ask(Wanted { count: 100, bytes: Some(1000) });
        ledger.too_large(100, Some(1000));
        assert_eq!(ledger.wanted(share, share), Some(Wanted { count: 1, bytes: None }));
        ledger.ask(Wanted { count: 1, bytes: None });
        assert_eq!(ledger.wanted(share, share), None);
        let token = ledger.arrived(sized(2, 1, 5000), now).unwrap().token;
        assert_eq!(ledger.wanted(share, share), None);
        ledger.settle(token);
        assert!(ledger.is_idle());
        assert_eq!(ledger.wanted(share, share), Some(Wanted { count: 100, bytes: Some(1000) }));
    }

    #[test]
    fn message_that_takes_the_last_byte_ends_the_request() {
        let (mut ledger, now) = (Ledger::new(100, ACK_WAIT), Instant::now());
        ledger.ask(Wanted { count: 100, bytes: Some(1000) });
        ledger.arrived(sized(1, 1, 600), now);
        assert!(ledger.expects());
        ledger.arrived(sized(2, 1, 400), now);
        assert!(!ledger.expects());
    }

    #[test]
    fn message_is_acked_once() {
        let (mut ledger, now) = (Ledger::new(4, ACK_WAIT), Instant::now());
        let token = ledger.arrived(arrived(1, 1), now).unwrap().token;
        assert!(ledger.settle(token).is_some());
        assert_eq!(ledger.settle(token), None);
    }

    #[test]
    fn redelivery_of_a_message_in_progress_is_not_reported() {
        let (mut ledger, now) = (Ledger::new(4, ACK_WAIT), Instant::now());
        let token = ledger.arrived(arrived(1, 1), now).unwrap().token;
        assert_eq!(ledger.arrived(arrived(1, 2), now), None);
        assert!(ledger.settle(token).unwrap().starts_with("$JS.ACK.S.c.2.1."));
        assert!(ledger.arrived(arrived(1, 3), now).is_some());
    }

    #[test]
    fn more_than_the_window_is_held_back() {
        let (mut ledger, now) = (Ledger::new(2, ACK_WAIT), Instant::now());
        for sequence in 1..=5 {
            ledger.hold(arrived(sequence, 2), now);
        }
        let first = ledger.release();
        assert_eq!(sequences(&first), [1, 2]);
        assert!(ledger.release().is_empty());
        assert_eq!(wanted(&ledger), 0);
        for delivery in first {
            ledger.settle(delivery.token);
        }
        assert_eq!(sequences(&ledger.release()), [3, 4]);
        assert_eq!(ledger.arrived(arrived(6, 1), now), None, "it does not overtake what waits");
        assert_eq!(ledger.held.len(), 2);
    }

    #[test]
    fn broker_is_told_of_messages_in_progress() {
        let (mut ledger, start) = (Ledger::new(4, ACK_WAIT), Instant::now());
        let half = ACK_WAIT / 2;
        let first = ledger.arrived(arrived(1, 1), start).unwrap().token;
        ledger.arrived(arrived(2, 1), start + half / 2);
        assert_eq!(ledger.due(), Some(start + half));
        assert_eq!(ledger.overdue(start + half).len(), 1);
        assert_eq!(ledger.due(), Some(start + half + half / 2));
        assert_eq!(ledger.overdue(start + half + half / 2).len(), 1);
        ledger.settle(first);
        assert!(ledger.overdue(start + half * 2).is_empty());
        assert_eq!(ledger.overdue(start + half * 3).len(), 1);
    }

    #[test]
    fn tokens_are_never_used_again() {
        let now = Instant::now();
        let first = Ledger::new(4, ACK_WAIT).arrived(arrived(1, 1), now).unwrap().token;
        let second = Ledger::new(4, ACK_WAIT).arrived(arrived(1, 1), now).unwrap().token;
        assert!(second > first);
    }
}
