use async_nats::header::NATS_MESSAGE_ID;
use bytes::Bytes;

use super::flow::{GAP_GRACE, WINDOW_MESSAGES};
use super::*;
use sea_mq_model::broker::{Ack, Outgoing};
use sea_mq_model::domain::header_block::HeaderBlock;

const TIMEOUT: Duration = Duration::from_secs(10);

fn publisher() -> Publisher {
    Publisher::new("_INBOX.x.".into(), TIMEOUT, SharedSizes::default())
}

fn outgoing(ids: &[&str]) -> Vec<Outgoing> {
    let message = |id: &&str| Outgoing {
        subject: format!("shop.{id}"),
        headers: HeaderBlock::new(id),
        body: Bytes::from_static(b"{}"),
    };
    ids.iter().map(message).collect()
}

/// Queues messages behind one that is stored.
fn submit(publisher: &mut Publisher, sink: SinkId, epoch: u64, stream: String, queued: Queued) {
    publisher.submit(sink, epoch, stream, queued);
    publisher.flows.values_mut().for_each(|flow| flow.confirmed = true);
}

fn sent(publisher: &mut Publisher, now: Instant) -> Vec<Wire> {
    std::iter::from_fn(|| publisher.next(now)).collect()
}

/// The value of a header other than the first.
fn header(wire: &Wire, name: &str) -> Option<String> {
    let lines = wire.headers.get(NATS_MESSAGE_ID).unwrap().as_str();
    lines.split("\r\n").find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::to_owned)
}

fn answer(publisher: &mut Publisher, wire: &Wire, payload: &str, now: Instant) {
    let token = wire.reply.strip_prefix("_INBOX.x.").unwrap().to_owned();
    let message = async_nats::Message {
        subject: wire.reply.clone(),
        reply: None,
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        headers: None,
        status: None,
        description: None,
        length: 0,
    };
    publisher.answer(&token, &message, now);
}

fn stored(publisher: &mut Publisher, wire: &Wire, sequence: u64, now: Instant) {
    answer(publisher, wire, &format!(r#"{{"stream":"S","seq":{sequence}}}"#), now);
}

fn collected(publisher: &mut Publisher, now: Instant) -> Vec<Report> {
    let mut reports = Vec::new();
    publisher.collect(now, &mut reports);
    reports
}

fn acked(epoch: u64, sequences: &[u64]) -> Report {
    let acks = sequences.iter().map(|sequence| Ack { sequence: *sequence, duplicate: false }).collect();
    Report::Acked { sink: 1, epoch, acks }
}

fn failure(reports: &[Report]) -> Option<FaultKind> {
    reports.iter().find_map(|report| match report {
        Report::PublishFailed { fault, .. } => Some(fault.kind),
        _ => None,
    })
}

#[test]
fn sequences_count_on_over_several_requests() {
    let (mut publisher, now) = (publisher(), Instant::now());
    submit(&mut publisher, 1, 1, "S".into(), Queued::new(Some(7), outgoing(&["a", "b"]), Vec::new()));
    submit(&mut publisher, 1, 1, "S".into(), Queued::new(Some(9), outgoing(&["c"]), Vec::new()));
    let wires = sent(&mut publisher, now);
    let expected: Vec<_> = wires.iter().map(|wire| header(wire, "Nats-Expected-Last-Sequence")).collect();
    assert_eq!(expected, [Some("7".into()), Some("8".into()), Some("9".into())]);
    assert_eq!(wires.iter().map(|wire| wire.index).collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn predecessor_is_expected_on_a_standalone_server_only() {
    let now = Instant::now();
    for (standalone, wanted) in [(true, Some("a")), (false, None)] {
        let mut publisher = publisher();
        publisher.set_standalone("S", standalone);
        submit(&mut publisher, 1, 1, "S".into(), Queued::new(Some(0), outgoing(&["a", "b"]), Vec::new()));
        let wires = sent(&mut publisher, now);
        let previous = |wire: &Wire| header(wire, "Nats-Expected-Last-Msg-Id");
        assert_eq!(previous(&wires[0]), None);
        assert_eq!(previous(&wires[1]).as_deref(), wanted);
    }
}

#[test]
fn nothing_follows_the_first_message_or_batch_of_an_epoch_before_it_is_stored() {
    let now = Instant::now();
    for (batches, first) in [(Vec::new(), 1), (vec![2, 1], 2)] {
        let mut publisher = publisher();
        publisher.submit(1, 1, "S".into(), Queued::new(Some(0), outgoing(&["a", "b", "c"]), batches));
        let wires = sent(&mut publisher, now);
        assert_eq!(wires.len(), first);
        stored(&mut publisher, &wires[first - 1], first as u64, now);
        collected(&mut publisher, now);
        assert_eq!(sent(&mut publisher, now).len(), 3 - first);
    }
}

#[test]
fn acks_are_reported_together_and_in_order() {
    let (mut publisher, now) = (publisher(), Instant::now());
    submit(&mut publisher, 1, 1, "S".into(), Queued::new(None, outgoing(&["a", "b", "c"]), Vec::new()));
    let wires = sent(&mut publisher, now);
    stored(&mut publisher, &wires[1], 2, now);
    assert_eq!(collected(&mut publisher, now), []);
    stored(&mut publisher, &wires[0], 1, now);
    stored(&mut publisher, &wires[2], 3, now);
    assert_eq!(collected(&mut publisher, now), [acked(1, &[1, 2, 3])]);
    assert_eq!(publisher.next_deadline(now), None);
}

#[test]
fn missing_answer_fails_the_flow_after_the_grace() {
    let (mut publisher, now) = (publisher(), Instant::now());
    submit(&mut publisher, 1, 1, "S".into(), Queued::new(None, outgoing(&["a", "b", "c"]), Vec::new()));
    let wires = sent(&mut publisher, now);
    stored(&mut publisher, &wires[0], 1, now);
    stored(&mut publisher, &wires[2], 2, now);
    assert_eq!(collected(&mut publisher, now), [acked(1, &[1])]);
    assert_eq!(publisher.next_deadline(now), Some(now + GAP_GRACE));
    publisher.expire(now + GAP_GRACE);
    assert_eq!(failure(&collected(&mut publisher, now)), Some(FaultKind::Timeout));
    stored(&mut publisher, &wires[1], 3, now);
    assert_eq!(collected(&mut publisher, now), []);
}

#[test]
fn refusal_is_reported_after_the_acks_before_it_and_ends_the_epoch() {
    let (mut publisher, now) = (publisher(), Instant::now());
    submit(&mut publisher, 1, 1, "S".into(), Queued::new(None, outgoing(&["a", "b", "c"]), Vec::new()));
    let wires = sent(&mut publisher, now);
    let wrong =
        r#"{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 4"},"stream":"S","seq":0}"#;
    answer(&mut publisher, &wires[1], wrong, now);
    assert_eq!(collected(&mut publisher, now), []);
    stored(&mut publisher, &wires[0], 1, now);
    stored(&mut publisher, &wires[2], 5, now);
    let reports = collected(&mut publisher, now);
    assert_eq!(reports[0], acked(1, &[1]));
    assert_eq!(failure(&reports), Some(FaultKind::WrongSequence));
    submit(&mut publisher, 1, 1, "S".into(), Queued::new(None, outgoing(&["d"]), Vec::new()));
    assert!(sent(&mut publisher, now).is_empty());
    submit(&mut publisher, 1, 2, "S".into(), Queued::new(None, outgoing(&["d"]), Vec::new()));
    assert_eq!(sent(&mut publisher, now).len(), 1);
}

#[test]
fn new_epoch_voids_the_old() {
    let (mut publisher, now) = (publisher(), Instant::now());
    submit(&mut publisher, 1, 1, "S".into(), Queued::new(None, outgoing(&["a", "b"]), Vec::new()));
    let old = publisher.next(now).unwrap();
    submit(&mut publisher, 1, 2, "S".into(), Queued::new(None, outgoing(&["c"]), Vec::new()));
    let wires = sent(&mut publisher, now);
    assert_eq!(wires.len(), 1);
    stored(&mut publisher, &old, 1, now);
    assert_eq!(collected(&mut publisher, now), []);
    stored(&mut publisher, &wires[0], 2, now);
    assert_eq!(collected(&mut publisher, now), [acked(2, &[2])]);
    submit(&mut publisher, 1, 1, "S".into(), Queued::new(None, outgoing(&["z"]), Vec::new()));
    assert!(sent(&mut publisher, now).is_empty());
}

#[test]
fn silence_fails_the_flow() {
    let (mut publisher, now) = (publisher(), Instant::now());
    submit(&mut publisher, 1, 1, "S".into(), Queued::new(None, outgoing(&["a"]), Vec::new()));
    assert_eq!(publisher.next_deadline(now), Some(now + TIMEOUT));
    sent(&mut publisher, now);
    publisher.expire(now + TIMEOUT / 2);
    assert_eq!(collected(&mut publisher, now), []);
    publisher.expire(now + TIMEOUT);
    assert_eq!(failure(&collected(&mut publisher, now)), Some(FaultKind::Timeout));
    assert_eq!(publisher.next_deadline(now), None);
}

#[test]
fn forbidden_subject_fails_its_message() {
    let (mut publisher, now) = (publisher(), Instant::now());
    submit(&mut publisher, 1, 1, "S".into(), Queued::new(None, outgoing(&["a", "b"]), Vec::new()));
    let wires = sent(&mut publisher, now);
    publisher.deny("shop.b", &Fault::new(FaultKind::Permission, "no"), now);
    stored(&mut publisher, &wires[0], 1, now);
    let reports = collected(&mut publisher, now);
    assert_eq!(reports[0], acked(1, &[1]));
    assert_eq!(failure(&reports), Some(FaultKind::Permission));
}

#[test]
fn header_that_would_break_the_framing_is_not_sent() {
    let (mut publisher, now) = (publisher(), Instant::now());
    let mut messages = outgoing(&["a", "b"]);
    messages[0].headers.push("X", "1\r\nPUB x 0");
    submit(&mut publisher, 1, 1, "S".into(), Queued::new(None, messages, Vec::new()));
    assert!(sent(&mut publisher, now).is_empty());
    assert!(publisher.has_news());
    assert!(failure(&collected(&mut publisher, now)).is_some());
}

#[test]
fn window_opens_as_answers_arrive() {
    let (mut publisher, now) = (publisher(), Instant::now());
    let ids: Vec<String> = (0..WINDOW_MESSAGES + 10).map(|id| id.to_string()).collect();
    submit(
        &mut publisher,
        1,
        1,
        "S".into(),
        Queued::new(None, outgoing(&ids.iter().map(String::as_str).collect::<Vec<_>>()), Vec::new()),
    );
    let wires = sent(&mut publisher, now);
    assert_eq!(wires.len(), WINDOW_MESSAGES);
    stored(&mut publisher, &wires[0], 1, now);
    collected(&mut publisher, now);
    assert_eq!(sent(&mut publisher, now).len(), 1);
}

#[test]
fn sinks_take_turns() {
    let (mut publisher, now) = (publisher(), Instant::now());
    submit(&mut publisher, 1, 1, "S".into(), Queued::new(None, outgoing(&["a", "b"]), Vec::new()));
    submit(&mut publisher, 2, 1, "T".into(), Queued::new(None, outgoing(&["c", "d"]), Vec::new()));
    let subjects: Vec<String> = sent(&mut publisher, now).iter().map(|wire| wire.subject.to_string()).collect();
    assert_eq!(subjects, ["shop.a", "shop.c", "shop.b", "shop.d"]);
}

#[test]
fn a_batch_is_stored_when_its_last_message_is_acked() {
    let (mut publisher, now) = (publisher(), Instant::now());
    let queued = Queued::new(Some(4), outgoing(&["a", "b", "c", "d"]), vec![3, 1]);
    submit(&mut publisher, 1, 1, "S".into(), queued);
    let wires = sent(&mut publisher, now);
    let batches: Vec<_> = wires.iter().map(|wire| header(wire, "Nats-Batch-Id")).collect();
    assert!(batches[0].is_some() && batches[0] == batches[1] && batches[1] == batches[2]);
    assert_eq!(batches[3], None);
    for wire in &wires[..2] {
        answer(&mut publisher, wire, "", now);
    }
    assert_eq!(collected(&mut publisher, now), []);
    stored(&mut publisher, &wires[2], 7, now);
    stored(&mut publisher, &wires[3], 8, now);
    assert_eq!(collected(&mut publisher, now), [acked(1, &[5, 6, 7, 8])]);
    assert_eq!(publisher.next_deadline(now), None);
}

#[test]
fn no_two_batches_have_one_name() {
    let (mut publisher, now) = (publisher(), Instant::now());
    for epoch in [1, 2] {
        submit(&mut publisher, 1, epoch, "S".into(), Queued::new(None, outgoing(&["a", "b", "c", "d"]), vec![2, 2]));
    }
    submit(&mut publisher, 2, 1, "T".into(), Queued::new(None, outgoing(&["a", "b"]), vec![2]));
    let names: HashSet<_> = sent(&mut publisher, now).iter().map(|wire| header(wire, "Nats-Batch-Id")).collect();
    assert_eq!(names.len(), 3, "the first epoch sent nothing");
}

#[test]
fn fault_in_a_batch_is_that_of_its_message() {
    let (mut publisher, now) = (publisher(), Instant::now());
    submit(&mut publisher, 1, 1, "S".into(), Queued::new(None, outgoing(&["x", "a", "b", "c"]), vec![1, 3]));
    let wires = sent(&mut publisher, now);
    answer(&mut publisher, &wires[1], "", now);
    let large = r#"{"error":{"code":400,"err_code":10054,"description":"message size exceeds maximum allowed"}}"#;
    answer(&mut publisher, &wires[2], large, now);
    assert_eq!(collected(&mut publisher, now), [], "what was sent before is not answered yet");
    stored(&mut publisher, &wires[0], 1, now);
    let reports = collected(&mut publisher, now);
    assert_eq!(reports[0], acked(1, &[1]));
    let Report::PublishFailed { ahead, ref fault, .. } = reports[1] else { panic!("{reports:?}") };
    assert_eq!((ahead, fault.kind), (1, FaultKind::MessageTooLarge));
}

#[test]
fn messages_kept_aside_make_room_and_do_not_count_as_overtaking() {
    let (mut publisher, now) = (publisher(), Instant::now());
    submit(&mut publisher, 1, 1, "S".into(), Queued::new(None, outgoing(&["x", "a", "b"]), vec![1, 2]));
    let wires = sent(&mut publisher, now);
    answer(&mut publisher, &wires[1], "", now);
    assert_eq!(publisher.next_deadline(now), Some(now + TIMEOUT), "in a cluster the ack waits for the quorum");
    stored(&mut publisher, &wires[0], 1, now);
    assert_eq!(publisher.next_deadline(now), Some(now + TIMEOUT));
    publisher.expire(now + TIMEOUT);
    let reports = collected(&mut publisher, now);
    assert_eq!(failure(&reports), Some(FaultKind::Timeout), "its last message was not answered");
}

#[test]
fn after_a_connection_was_closed_over_a_message_the_culprit_is_found_by_sending_it_alone() {
    let sizes = SharedSizes::default();
    let now = Instant::now();
    let large = |id: &str, length: usize| Outgoing {
        subject: format!("shop.{id}"),
        headers: HeaderBlock::new(id),
        body: vec![0; length].into(),
    };
    let messages = || vec![large("a", 500), large("b", 100), large("c", 9000), large("d", 10)];
    let mut first = Publisher::new("_INBOX.x.".into(), TIMEOUT, SharedSizes::clone(&sizes));
    submit(&mut first, 1, 1, "S".into(), Queued::new(None, messages(), Vec::new()));
    assert_eq!(sent(&mut first, now).len(), 4);
    first.closed_over_size(now);
    assert_eq!(failure(&collected(&mut first, now)), None, "it may be any of them");

    let mut second = Publisher::new("_INBOX.x.".into(), TIMEOUT, SharedSizes::clone(&sizes));
    submit(&mut second, 1, 1, "S".into(), Queued::new(None, messages(), Vec::new()));
    let alone = sent(&mut second, now);
    assert_eq!(alone.len(), 1);
    stored(&mut second, &alone[0], 1, now);
    collected(&mut second, now);
    let next = sent(&mut second, now);
    assert_eq!(next.len(), 1, "a smaller one may be sent, the larger one behind it waits");
    stored(&mut second, &next[0], 2, now);
    collected(&mut second, now);
    assert_eq!(sent(&mut second, now).len(), 1);
    second.closed_over_size(now);
    assert_eq!(failure(&collected(&mut second, now)), Some(FaultKind::MessageTooLarge));

    let mut third = Publisher::new("_INBOX.x.".into(), TIMEOUT, sizes);
    submit(&mut third, 1, 1, "S".into(), Queued::new(None, vec![large("e", 9500)], Vec::new()));
    assert!(sent(&mut third, now).is_empty(), "what is larger still is not even tried");
    assert_eq!(failure(&collected(&mut third, now)), Some(FaultKind::MessageTooLarge));
}
