//! The messages of one `Consume`: how many were asked for, which wait for their ack, and which are held back.
//!
//! Pure state, no I/O. The sum of what was asked for and what waits never exceeds the window (except by what an earlier
//! session left, which is taken all at once and reported as room permits). So nothing lies in a buffer without the broker
//! being told that it is in progress.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_nats::Subject;

use super::delivery::Arrived;
use crate::broker::Delivery;

/// The next token. It outlives sessions: an ack that comes late must not meet another message's token.
static NEXT_TOKEN: AtomicU64 = AtomicU64::new(1);

#[derive(Debug)]
pub(super) struct Ledger {
    /// Most messages that may be reported and wait for their ack.
    window: usize,
    /// How long the broker is left without a word about a message.
    interval: Duration,
    /// Asked for and not arrived.
    asked: usize,
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
    /// When the broker delivered the message, or was last told that it is in progress.
    told: Instant,
}

impl Ledger {
    pub(super) fn new(window: usize, ack_wait: Duration) -> Self {
        Self {
            window: window.max(1),
            interval: ack_wait / 2,
            asked: 0,
            open: BTreeMap::new(),
            held: VecDeque::new(),
            due: None,
        }
    }

    /// How many messages to ask for now. Few at a time only if nothing else is on its way: each request costs a message.
    pub(super) fn wanted(&self) -> usize {
        let room = self.window.saturating_sub(self.open.len() + self.asked);
        if self.asked == 0 || room >= self.window.div_ceil(4) { room } else { 0 }
    }

    /// Notes that so many messages were asked for.
    pub(super) fn ask(&mut self, count: usize) {
        self.asked += count;
    }

    /// Whether the broker owes an answer.
    pub(super) fn expects(&self) -> bool {
        self.asked > 0
    }

    /// Notes that so many of the messages asked for will not come; `None` for all.
    pub(super) fn give_up(&mut self, count: Option<usize>) {
        self.asked = count.map_or(0, |count| self.asked.saturating_sub(count));
    }

    /// Takes what was asked for. Returns what to report: nothing, if the message waits for its ack already. That one
    /// was redelivered although it is in progress; its ack goes where the broker now expects it.
    pub(super) fn arrived(&mut self, arrived: Arrived, now: Instant) -> Option<Delivery> {
        self.asked = self.asked.saturating_sub(1);
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
        let open = Open { sequence: arrived.metadata.sequence, reply: arrived.reply.clone(), told: now };
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
        self.open.remove(&token).map(|open| open.reply)
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

    fn arrived(sequence: u64, delivered: u64) -> Arrived {
        let reply = format!("$JS.ACK.S.c.{delivered}.{sequence}.1.1000.0");
        let message = Message {
            subject: "s".into(),
            reply: Some(reply.into()),
            payload: Default::default(),
            headers: None,
            status: None,
            description: None,
            length: 0,
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
        assert_eq!(ledger.wanted(), 8);
        ledger.ask(8);
        let tokens: Vec<u64> = (1..=8).filter_map(|n| ledger.arrived(arrived(n, 1), now)).map(|d| d.token).collect();
        assert_eq!(ledger.wanted(), 0);
        assert!(ledger.settle(tokens[0]).is_some());
        assert_eq!(ledger.wanted(), 1);
        ledger.ask(1);
        assert!(ledger.settle(tokens[1]).is_some());
        assert_eq!(
            ledger.wanted(),
            0,
            "one is on its way; a request for another one would cost as much as the message"
        );
        assert!(ledger.settle(tokens[2]).is_some());
        assert_eq!(ledger.wanted(), 2);
    }

    #[test]
    fn what_will_not_come_is_asked_for_again() {
        let mut ledger = Ledger::new(4, ACK_WAIT);
        ledger.ask(4);
        ledger.give_up(Some(3));
        assert_eq!(ledger.wanted(), 3);
        ledger.give_up(None);
        assert_eq!(ledger.wanted(), 4);
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
        assert_eq!(ledger.wanted(), 0);
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
