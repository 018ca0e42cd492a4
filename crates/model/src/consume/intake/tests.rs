use bytes::Bytes;
use uuid::Uuid;

use super::*;

pub(in crate::consume) fn described(held: bool) -> Described {
    let spec = ConsumerSpec {
        stream: "S".into(),
        name: "billing__orders".into(),
        filter_subject: "orders.event.>".into(),
        ack_wait: Duration::from_secs(120),
        max_deliver: -1,
        max_ack_pending: 50,
        fewer_pending: false,
        deliver_from: DeliverFrom::All,
        owner: Uuid::nil(),
        take_over: false,
        with_stream: false,
        resume: None,
    };
    Described { id: 1, spec, window: 50, held }
}

/// A message behind which so many wait.
pub(in crate::consume) fn pending(pending: u64) -> Delivery {
    Delivery { pending, ..message(1) }
}

fn message(sequence: u64) -> Delivery {
    Delivery {
        token: sequence,
        sequence,
        delivered: 1,
        stored_us: 0,
        pending: 0,
        subject: "orders.event.paid.v1".into(),
        headers: Vec::new(),
        body: Bytes::new(),
    }
}

fn up(intake: &mut Intake) -> Option<Request> {
    let now = Instant::now();
    intake.connected(now, now)
}

fn consuming() -> Intake {
    let mut intake = Intake::new(described(false));
    up(&mut intake);
    intake.ready(ConsumerInfo { stream_created_us: 9, ..ConsumerInfo::default() }, 1000, 100, Instant::now());
    intake
}

#[test]
fn it_provisions_then_pulls() {
    let mut intake = Intake::new(described(false));
    assert!(matches!(up(&mut intake), Some(Request::EnsureConsumer { .. })));
    let requests = intake.ready(ConsumerInfo::default(), 1000, 100, Instant::now());
    assert!(matches!(requests.as_slice(), [Request::Consume { window: 50, bytes: 1000, line: 100, .. }]));
    assert!(intake.is_consuming());
}

#[test]
fn a_held_one_is_provisioned_and_not_pulled_from() {
    let mut intake = Intake::new(described(true));
    assert!(matches!(up(&mut intake), Some(Request::EnsureConsumer { .. })));
    assert_eq!(intake.ready(ConsumerInfo::default(), 1000, 100, Instant::now()), []);
    let requests = intake.describe(described(false));
    assert!(matches!(requests.as_slice(), [Request::EnsureConsumer { .. }]));
}

#[test]
fn a_message_is_suspect_only_if_an_earlier_process_had_it() {
    let mut intake = Intake::new(described(false));
    let ready = |intake: &mut Intake, stream_last| {
        up(intake);
        let info = ConsumerInfo { stream_created_us: 9, stream_last, ..ConsumerInfo::default() };
        intake.ready(info, 1000, 100, Instant::now());
    };
    ready(&mut intake, 2);
    let again = |sequence| Delivery { delivered: 2, ..message(sequence) };
    intake.delivered(vec![again(1), again(2), message(3)]);
    assert_eq!(intake.suspects(Lane::ONLY), 2);
    intake.disconnected();
    // They were delivered to this one alone.
    ready(&mut intake, 9);
    intake.delivered(vec![again(3), again(4)]);
    assert_eq!(intake.suspects(Lane::ONLY), 0);
}

#[test]
fn what_was_not_taken_is_left_to_the_next_delivery() {
    let mut intake = consuming();
    intake.delivered(vec![message(1), message(2)]);
    intake.disconnected();
    intake.delivered(vec![message(3)]);
    assert!(intake.first().is_none());
}

#[test]
fn few_large_messages_are_taken_at_once_and_the_largest_alone() {
    let mut intake = consuming();
    let large = |sequence, megabytes: usize| Delivery { body: vec![0; megabytes << 20].into(), ..message(sequence) };
    intake.delivered(vec![large(1, 3), large(2, 3), large(3, 9), message(4), message(5)]);
    let taken: Vec<usize> = (0..5).map(|_| intake.take(Lane::ONLY, 500, usize::MAX).deliveries.len()).collect();
    assert_eq!(taken, [1, 1, 1, 2, 0]);
}

fn take(intake: &mut Intake, max: usize) -> Taken {
    intake.take(Lane::ONLY, max, usize::MAX)
}

fn at(sequence: u64) -> Option<Resume> {
    Some(Resume { stream_created_us: 9, sequence })
}

#[test]
fn the_position_never_passes_what_is_in_the_queue() {
    let mut intake = consuming();
    intake.delivered(vec![message(3), message(8), message(5)]);
    let taken = take(&mut intake, 2);
    let first = intake.advance(&taken, 2);
    assert_eq!(first, at(4));
    intake.advanced(first);
    assert_eq!(intake.settle(taken, 0), []);
    let taken = take(&mut intake, 3);
    assert_eq!(intake.advance(&taken, 2), at(4));
    assert_eq!(intake.advance(&taken, 3), at(8));
}

#[test]
fn the_position_never_passes_what_another_lane_has_under_way() {
    let mut intake = consuming();
    let of = |sequence, aggregate: &str| Delivery {
        headers: vec![("X-Aggregate-Type".into(), "order".into()), ("X-Aggregate-Id".into(), aggregate.into())],
        ..message(sequence)
    };
    // Two aggregates of two lanes.
    let lane = |aggregate: &str| {
        let key = LaneKey::of(&Message::from_delivery(&of(1, aggregate), ""));
        Lane::all(2).find(|lane| lane.has(key)).unwrap()
    };
    let other = (2..99).map(|n| n.to_string()).find(|n| lane(n) != lane("1")).unwrap();
    intake.delivered(vec![of(1, "1"), of(2, &other), of(3, "1"), of(4, &other)]);
    let [a, b] = ["1", &other].map(lane);
    let (one, two) = (intake.take(a, 9, 9), intake.take(b, 9, 9));
    assert_eq!(two.deliveries.iter().map(|delivery| delivery.sequence).collect::<Vec<_>>(), [2, 4]);
    assert_eq!((intake.advance(&two, 2), intake.reach()), (at(0), 0));
    assert_eq!(intake.settle(two, 2).len(), 2);
    assert_eq!(intake.advance(&one, 1), at(2), "3 is under way");
    assert_eq!(intake.settle(one, 1).len(), 1);
    assert_eq!(intake.reach(), 2);
    let rest = intake.take(a, 9, 9);
    assert_eq!(intake.advance(&rest, 1), at(4), "4 was dealt with before");
    assert_eq!(intake.settle(rest, 1).len(), 1);
    assert_eq!(intake.reach(), 4);
}

#[test]
fn what_was_taken_before_the_session_ended_is_nobody_s() {
    let mut intake = consuming();
    intake.delivered(vec![message(1), message(2)]);
    let taken = take(&mut intake, 2);
    intake.disconnected();
    assert_eq!(intake.advance(&taken, 1), None);
    assert_eq!(intake.settle(taken, 1), []);
    assert!(intake.first().is_none(), "nothing is put back");
}

#[test]
fn a_transaction_that_did_not_commit_moves_nothing_on() {
    let mut intake = consuming();
    intake.delivered((1..=5).map(message).collect());
    let taken = take(&mut intake, 5);
    assert_eq!(intake.advance(&taken, 5), at(5));
    // It fails at its commit, and what is handled then is the first message alone.
    assert_eq!(intake.advance(&taken, 1), at(1));
}

#[test]
fn what_the_broker_allows_is_no_drift_where_nobody_asked_for_more() {
    let looked_for = |fewer_pending, found| {
        let mut intake = Intake::new(described(false));
        intake.described.spec.fewer_pending = fewer_pending;
        up(&mut intake);
        let info = ConsumerInfo { max_ack_pending: found, ..ConsumerInfo::default() };
        intake.ready(info, 1000, 100, Instant::now());
        let Some(Request::ReadConsumer { spec }) = intake.look() else { panic!() };
        spec.max_ack_pending
    };
    assert_eq!(
        [looked_for(true, 7), looked_for(false, 7), looked_for(true, 60), looked_for(true, -1)],
        [7, 50, 50, 50]
    );
}

#[test]
fn a_lost_consumer_is_made_anew_where_it_was() {
    let mut intake = consuming();
    intake.delivered(vec![message(3)]);
    let taken = take(&mut intake, 1);
    let position = intake.advance(&taken, 1);
    intake.advanced(position);
    let now = Instant::now();
    intake.refused(now, 0.0);
    let Some(Request::EnsureConsumer { spec }) = intake.tick(now + Duration::from_secs(60)) else { panic!() };
    assert_eq!(spec.resume, position);
}
