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
    assert_eq!(wanted(&ledger), 0, "one is on its way; a request for another one would cost as much as the message");
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
    let tokens: Vec<u64> = (1..=3).filter_map(|n| ledger.arrived(sized(n, 1, 1000), now)).map(|d| d.token).collect();
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
