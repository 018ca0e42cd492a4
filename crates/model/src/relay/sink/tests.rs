use super::*;
use crate::broker::{Ack, Fault, FaultKind, Outgoing, Retention, Storage};
use crate::domain::event::{Defaults, EmitArgs, Event, Logged};
use crate::domain::position::{Batch, Moment};
use crate::domain::runs::Run;

pub(super) fn described() -> Described {
    let spec = StreamSpec {
        name: "ORDERS_EVENTS".into(),
        subjects: vec!["orders.event.>".into()],
        description: String::new(),
        retention: Retention::Limits,
        max_age: Duration::ZERO,
        max_bytes: -1,
        max_msgs: -1,
        max_msg_size: -1,
        storage: Storage::File,
        replicas: 1,
        duplicate_window: Duration::from_secs(120),
        allow_atomic: false,
        managed: true,
        owner: Uuid::nil(),
        take_over: false,
        marked_us: None,
        fewer_replicas: false,
    };
    Described { sink: 1, form: Form::default(), spec }
}

pub(super) fn logged(seq: i64) -> Logged {
    let args = EmitArgs {
        aggregate_type: Some("order".into()),
        aggregate_id: Some(seq.to_string()),
        event_type: Some("created".into()),
        payload: Some("{}".into()),
        event_version: Some(1),
        context: Some("orders".into()),
        visibility: Some("internal".into()),
        event_id: Some(Uuid::from_u128(seq.unsigned_abs().into())),
        ..EmitArgs::default()
    };
    Logged { seq, xid: 700, committed_at: None, event: Event::new(args, &Defaults::default()).unwrap(), schema: None }
}

fn position(snapshot: &str, floor: i64) -> Position {
    Position { done: snapshot.parse().unwrap(), next_xid: 0, floor, batch: None }
}

pub(super) fn info(last_sequence: u64) -> StreamInfo {
    StreamInfo { last_sequence, created_us: 7, ..StreamInfo::default() }
}

/// A sink that publishes, its stream empty.
fn flowing() -> Sink {
    let mut sink = Sink::new(described(), Cursor::start(), HashSet::new());
    sink.connected();
    assert_eq!(sink.stream_ready(info(0)), Ok(None));
    assert!(!sink.wants_to_read(10, 10), "not before the lease is made sure of");
    lease(&mut sink);
    sink
}

pub(super) fn lease(sink: &mut Sink) {
    sink.note_claim();
    sink.admit();
}

/// A message that has the id of `logged(n)`.
fn stored(n: u128, counted: bool) -> Stored {
    Stored { sequence: n as u64, message_id: Some(Uuid::from_u128(n).to_string()), counted }
}

fn expected_and_length(request: Option<Request>) -> (Option<u64>, usize) {
    match request {
        Some(Request::Publish { expected_last, messages, .. }) => (expected_last, messages.len()),
        other => panic!("not a publish: {other:?}"),
    }
}

fn ack(sequence: u64) -> Ack {
    Ack { sequence, duplicate: false }
}

#[test]
fn the_expected_sequence_counts_up_across_chunks() {
    let mut sink = flowing();
    let first = sink.publish(vec![logged(1), logged(2)], position("9:9:", 2), &HashSet::new());
    assert_eq!(expected_and_length(first), (Some(0), 2));
    let second = sink.publish(vec![logged(3)], position("10:10:", 3), &HashSet::new());
    assert_eq!(expected_and_length(second), (Some(2), 1));
}

#[test]
fn a_chunk_is_settled_when_all_of_it_is_stored() {
    let mut sink = flowing();
    sink.publish(vec![logged(1), logged(2)], position("9:9:", 2), &HashSet::new());
    sink.acked(sink.epoch, vec![ack(1)], Instant::now(), 0.5);
    assert_eq!(sink.settled().position, Position::start());
    sink.acked(sink.epoch, vec![ack(2)], Instant::now(), 0.5);
    assert_eq!(sink.settled().position, position("9:9:", 2));
    let (cursor, runs) = sink.take_unsaved().unwrap();
    assert_eq!(cursor.stream_sequence, 2);
    assert_eq!(
        runs.as_slice().iter().map(|run| (run.first_seq, run.last_seq, run.events)).collect::<Vec<_>>(),
        [(1, 2, 2)]
    );
}

#[test]
fn what_the_stream_holds_already_is_skipped() {
    let mut sink = Sink::new(described(), Cursor::start(), HashSet::new());
    sink.connected();
    assert!(matches!(sink.stream_ready(info(1)), Ok(Some(Request::ReadTail { after: 0, .. }))));
    assert_eq!(sink.tail_read(vec![stored(1, true)], 1), []);
    lease(&mut sink);
    let request = sink.publish(vec![logged(1), logged(2)], position("9:9:", 2), &HashSet::new());
    assert_eq!(expected_and_length(request), (Some(1), 1));
    sink.acked(sink.epoch, vec![ack(2)], Instant::now(), 0.5);
    assert_eq!(sink.settled().stream_sequence, 2);
}

#[test]
fn what_a_relay_of_ours_has_stored_is_judged_before_anything_is_published() {
    let mut sink = Sink::new(described(), Cursor::start(), HashSet::new());
    sink.connected();
    sink.stream_ready(StreamInfo { own: true, ..info(2) }).unwrap();
    // What does not count in a stream of our own is somebody else's.
    assert_eq!(sink.tail_read(vec![stored(1, true), stored(2, false)], 2), [stored(1, true), stored(2, false)]);
    lease(&mut sink);
    assert!(!sink.wants_to_read(10, 10));
    sink.judged();
    assert!(sink.waits_for_lease());
    lease(&mut sink);
    assert!(sink.wants_to_read(10, 10));
}

#[test]
fn an_answer_about_the_lease_from_before_the_tail_was_read_admits_nobody() {
    let mut sink = flowing();
    sink.publish(vec![logged(1)], position("9:9:", 1), &HashSet::new());
    let now = Instant::now();
    sink.publish_failed(sink.epoch, 0, &Fault::new(FaultKind::WrongSequence, ""), now, 0.5);
    sink.tick(now);
    sink.note_claim();
    sink.stream_ready(info(0)).unwrap();
    sink.admit();
    assert!(sink.waits_for_lease() && !sink.wants_to_read(10, 10));
}

#[test]
fn after_a_failure_it_begins_where_it_was_settled() {
    let mut sink = flowing();
    sink.publish(vec![logged(1)], position("9:9:", 1), &HashSet::new());
    sink.acked(sink.epoch, vec![ack(1)], Instant::now(), 0.5);
    sink.publish(vec![logged(2)], position("10:10:", 2), &HashSet::new());
    let now = Instant::now();
    let fault = Fault::new(FaultKind::WrongSequence, "");
    assert_eq!(sink.publish_failed(sink.epoch, 0, &fault, now, 0.5), Some(Failure::Again));
    assert_eq!((sink.in_flight(), sink.read_position()), (0, &position("9:9:", 1)));
    assert!(matches!(sink.tick(now), Some(Request::EnsureStream { .. })));
}

#[test]
fn a_duplicate_is_not_sent_for_ever() {
    let mut sink = flowing();
    sink.publish(vec![logged(1), logged(2)], position("9:9:", 2), &HashSet::new());
    sink.acked(sink.epoch, vec![Ack { sequence: 5, duplicate: true }], Instant::now(), 0.5);
    let now = Instant::now();
    sink.publish_failed(sink.epoch, 0, &Fault::new(FaultKind::WrongSequence, ""), now, 0.5);
    sink.tick(now);
    assert_eq!(sink.stream_ready(info(0)), Ok(None));
    lease(&mut sink);
    let again = sink.publish(vec![logged(1), logged(2)], position("9:9:", 2), &HashSet::new());
    assert_eq!(expected_and_length(again), (Some(0), 1));
}

#[test]
fn acks_of_an_earlier_epoch_count_for_nothing() {
    let mut sink = flowing();
    let epoch = sink.epoch;
    sink.publish(vec![logged(1)], position("9:9:", 1), &HashSet::new());
    sink.disconnected();
    sink.acked(epoch, vec![ack(1)], Instant::now(), 0.5);
    assert_eq!(sink.settled().position, Position::start());
}

#[test]
fn an_event_that_is_too_large_is_left_out_alone() {
    let mut sink = flowing();
    sink.publish(vec![logged(1), logged(2), logged(3)], position("9:9:", 3), &HashSet::new());
    sink.acked(sink.epoch, vec![ack(1)], Instant::now(), 0.5);
    let now = Instant::now();
    let fault = Fault::new(FaultKind::MessageTooLarge, "");
    let failure = sink.publish_failed(sink.epoch, 0, &fault, now, 0.5);
    assert_eq!(failure, Some(Failure::Refused { id: Uuid::from_u128(2), seq: 2 }));
    sink.tick(now);
    sink.stream_ready(info(1)).unwrap();
    sink.tail_read(vec![stored(1, false)], 1);
    lease(&mut sink);
    let again = sink.publish(vec![logged(1), logged(2), logged(3)], position("9:9:", 3), &HashSet::new());
    assert_eq!(expected_and_length(again), (Some(1), 1));
    sink.acked(sink.epoch, vec![ack(2)], Instant::now(), 0.5);
    assert_eq!(sink.settled().position, position("9:9:", 3));
}

#[test]
fn a_stream_of_another_name_has_lost_nothing() {
    let cursor = Cursor { stream_sequence: 10, stream_created_us: Some(7), ..Cursor::start() };
    let mut sink = Sink::new(described(), cursor, HashSet::new());
    sink.connected();
    sink.stream_ready(info(10)).unwrap();
    let mut renamed = described();
    renamed.spec.name = "OTHER".into();
    assert!(matches!(sink.describe(renamed), Some(Request::EnsureStream { .. })));
    let other = StreamInfo { created_us: 8, ..info(3) };
    assert!(matches!(sink.stream_ready(other), Ok(Some(Request::ReadTail { after: 0, .. }))));
}

#[test]
fn a_stream_that_lost_data_is_noticed() {
    let cursor = Cursor { stream_sequence: 10, stream_created_us: Some(7), ..Cursor::start() };
    let mut sink = Sink::new(described(), cursor.clone(), HashSet::new());
    sink.connected();
    assert_eq!(sink.stream_ready(info(4)), Err(Loss { recorded: 10, left: 4 }));
    let mut sink = Sink::new(described(), cursor, HashSet::new());
    sink.connected();
    let anew = StreamInfo { created_us: 8, ..info(30) };
    assert_eq!(sink.stream_ready(anew), Err(Loss { recorded: 10, left: 0 }));
}

#[test]
fn nothing_new_is_nothing_to_save() {
    let mut sink = flowing();
    sink.take_unsaved();
    assert!(sink.publish(Vec::new(), position("9:9:", 0), &HashSet::new()).is_none());
    assert!(!sink.is_unsaved() && !sink.wants_to_read(10, 10));
    sink.wake();
    assert!(sink.wants_to_read(10, 10));
}

/// As [`flowing`], with a description that wants transactions whole, on a server that takes batches or does not.
fn flowing_whole(atomic: bool) -> Sink {
    let mut described = described();
    described.spec.allow_atomic = true;
    let mut sink = Sink::new(described, Cursor::start(), HashSet::new());
    sink.connected();
    assert_eq!(sink.stream_ready(StreamInfo { atomic, ..info(0) }), Ok(None));
    lease(&mut sink);
    sink
}

fn of(xid: u64, seqs: &[i64]) -> Vec<Logged> {
    seqs.iter().map(|&seq| Logged { xid, ..logged(seq) }).collect()
}

/// In the order of the log.
fn mixed(transactions: &[Vec<Logged>]) -> Vec<Logged> {
    let mut events = transactions.concat();
    events.sort_by_key(|logged| logged.seq);
    events
}

/// A position in the middle of a batch.
fn within(at: i64) -> Position {
    let upto = Moment { snapshot: "9:9:".parse().unwrap(), next_xid: 9, ceiling: 100 };
    Position { batch: Some(Batch { upto, at }), ..Position::start() }
}

fn sent(request: Option<Request>) -> (Vec<String>, Vec<usize>) {
    match request {
        Some(Request::Publish { messages, batches, .. }) => {
            let number = |message: &Outgoing| message.headers.id().trim_start_matches(['0', '-']).to_owned();
            (messages.iter().map(number).collect(), batches)
        }
        other => panic!("not a publish: {other:?}"),
    }
}

fn run_of(run: &Run) -> (i64, i64, u64, Option<u64>) {
    (run.first_seq, run.last_seq, run.events, run.first_stream_seq)
}

fn failed(sink: &mut Sink, kind: FaultKind, ahead: usize) -> Option<Failure> {
    let now = Instant::now();
    let failure = sink.publish_failed(sink.epoch, ahead, &Fault::new(kind, ""), now, 0.5);
    sink.tick(now);
    failure
}

#[test]
fn transactions_are_batches_and_the_journal_knows_where_their_events_are() {
    let mut sink = flowing_whole(true);
    let events = mixed(&[of(7, &[1, 3]), of(8, &[2, 4]), of(9, &[5])]);
    let (ids, batches) = sent(sink.publish(events, position("9:9:", 5), &HashSet::new()));
    assert_eq!((ids.join(" "), batches), ("1 3 2 4 5".into(), vec![2, 2, 1]));
    sink.acked(sink.epoch, (1..=5).map(ack).collect(), Instant::now(), 0.5);
    let (cursor, runs) = sink.take_unsaved().unwrap();
    assert_eq!((cursor.position, cursor.stream_sequence), (position("9:9:", 5), 5));
    let runs: Vec<_> = runs.as_slice().iter().map(run_of).collect();
    let one = |seq, stream| (seq, seq, 1, Some(stream));
    assert_eq!(runs, [one(1, 1), one(3, 2), one(2, 3), (4, 5, 2, Some(4))]);
}

#[test]
fn the_cursor_stays_before_a_transaction_that_waits_for_its_rest() {
    let mut sink = flowing_whole(true);
    let events = mixed(&[of(6, &[1]), of(7, &[2]), of(8, &[3, 4])]);
    let (ids, batches) = sent(sink.publish(events, within(4), &HashSet::from([7])));
    assert_eq!((ids.join(" "), batches), ("1 3 4".into(), vec![1, 2]));
    sink.acked(sink.epoch, (1..=3).map(ack).collect(), Instant::now(), 0.5);
    // Read again from here, 3 and 4 are found in the tail beyond 1.
    let settled = sink.settled();
    assert_eq!((&settled.position, settled.stream_sequence, settled.tail_from), (&within(1), 1, None));
    let runs = sink.take_unsaved().unwrap().1;
    assert_eq!(runs.as_slice().iter().map(run_of).collect::<Vec<_>>(), [(1, 1, 1, Some(1))]);

    let (ids, batches) = sent(sink.publish(of(7, &[5]), position("9:9:", 5), &HashSet::new()));
    assert_eq!((ids.join(" "), batches), ("2 5".into(), vec![2]));
    sink.acked(sink.epoch, vec![ack(4), ack(5)], Instant::now(), 0.5);
    assert_eq!((&sink.settled().position, sink.settled().stream_sequence), (&position("9:9:", 5), 5));
    let runs = sink.take_unsaved().unwrap().1;
    let runs: Vec<_> = runs.as_slice().iter().map(run_of).collect();
    assert_eq!(runs, [(3, 4, 2, Some(2)), (2, 2, 1, Some(4)), (5, 5, 1, Some(5))]);
}

#[test]
fn a_chunk_of_nothing_but_a_part_moves_nothing_and_is_not_forgotten() {
    let mut sink = flowing_whole(true);
    assert_eq!(sink.publish(of(7, &[1, 2]), within(2), &HashSet::from([7])), None);
    assert_eq!(sink.settled().position, within(0));
    assert_eq!(sent(sink.publish(Vec::new(), position("9:9:", 2), &HashSet::new())).1, [2]);
}

#[test]
fn a_batch_whose_ack_was_lost_is_found_in_the_tail() {
    let mut sink = flowing_whole(true);
    let events = || mixed(&[of(7, &[1, 2]), of(8, &[3, 4])]);
    sink.publish(events(), position("9:9:", 4), &HashSet::new());
    assert_eq!(failed(&mut sink, FaultKind::DuplicateInBatch, 1), Some(Failure::Again));
    sink.stream_ready(StreamInfo { atomic: true, ..info(2) }).unwrap();
    sink.tail_read(vec![stored(1, true), stored(2, true)], 2);
    lease(&mut sink);
    let (ids, batches) = sent(sink.publish(events(), position("9:9:", 4), &HashSet::new()));
    assert_eq!((ids.join(" "), batches), ("3 4".into(), vec![2]));
    sink.acked(sink.epoch, vec![ack(3), ack(4)], Instant::now(), 0.5);
    assert_eq!(sink.settled().stream_sequence, 4);
    assert_eq!(sink.take_splits(), None);
}

#[test]
fn a_duplicate_that_is_not_in_the_tail_takes_its_transaction_apart_and_no_other() {
    let mut sink = flowing_whole(true);
    let events = || mixed(&[of(7, &[1, 2]), of(8, &[3, 4])]);
    for _ in 0..2 {
        assert_eq!(sent(sink.publish(events(), position("9:9:", 4), &HashSet::new())).1, [2, 2]);
        failed(&mut sink, FaultKind::DuplicateInBatch, 1);
        assert_eq!(sink.stream_ready(StreamInfo { atomic: true, ..info(0) }), Ok(None));
        lease(&mut sink);
    }
    assert_eq!(sent(sink.publish(events(), position("9:9:", 4), &HashSet::new())).1, [1, 1, 2]);
    sink.acked(sink.epoch, (1..=4).map(ack).collect(), Instant::now(), 0.5);
    assert_eq!(sink.take_splits(), Some(Splits { count: 1, xid: 7, reason: SplitReason::Refused }));
}

#[test]
fn an_event_that_is_too_large_is_left_out_of_its_batch_alone() {
    let mut sink = flowing_whole(true);
    sink.publish(of(7, &[1, 2, 3]), position("9:9:", 3), &HashSet::new());
    let failure = failed(&mut sink, FaultKind::MessageTooLarge, 1);
    assert_eq!(failure, Some(Failure::Refused { id: Uuid::from_u128(2), seq: 2 }));
    assert_eq!(sink.stream_ready(StreamInfo { atomic: true, ..info(0) }), Ok(None));
    lease(&mut sink);
    let (ids, batches) = sent(sink.publish(of(7, &[1, 2, 3]), position("9:9:", 3), &HashSet::new()));
    assert_eq!((ids.join(" "), batches), ("1 3".into(), vec![2]));
}

#[test]
fn transactions_that_could_not_be_published_as_one_are_counted_when_they_are_stored() {
    let mut sink = flowing_whole(false);
    let events = mixed(&[of(7, &[1, 2]), of(8, &[3]), of(9, &[4, 5])]);
    let (ids, batches) = sent(sink.publish(events, position("9:9:", 5), &HashSet::new()));
    assert_eq!((ids.join(" "), batches), ("1 2 3 4 5".into(), vec![1; 5]));
    assert_eq!(sink.take_splits(), None);
    sink.acked(sink.epoch, (1..=5).map(ack).collect(), Instant::now(), 0.5);
    assert_eq!(sink.take_splits(), Some(Splits { count: 2, xid: 9, reason: SplitReason::NotAllowed }));
}

#[test]
fn a_refill_finds_what_is_stored_until_it_is_through() {
    let mut sink = flowing();
    sink.publish(vec![logged(1), logged(2), logged(3)], position("9:9:", 3), &HashSet::new());
    sink.acked(sink.epoch, vec![ack(1), ack(2), ack(3)], Instant::now(), 0.5);
    assert!(matches!(sink.refill(1, 0), Some(Request::EnsureStream { .. })));
    let begun = sink.read_position().clone();
    assert!(matches!(sink.stream_ready(info(3)), Ok(Some(Request::ReadTail { after: 0, .. }))));
    sink.tail_read(vec![stored(2, true), stored(3, true)], 3);
    lease(&mut sink);
    let first = Position { batch: begun.batch.clone().map(|batch| Batch { at: 1, ..batch }), ..begun };
    assert_eq!(expected_and_length(sink.publish(vec![logged(1)], first, &HashSet::new())), (Some(3), 1));
    sink.acked(sink.epoch, vec![ack(4)], Instant::now(), 0.5);
    // Here the relay may end: the others are still looked for where they are.
    let settled = sink.settled();
    assert_eq!((settled.refilling, settled.tail_from, settled.stream_sequence), (true, Some(1), 4));
    assert_eq!(sink.publish(vec![logged(2), logged(3)], position("9:9:", 3), &HashSet::new()), None);
    let settled = sink.settled();
    assert_eq!((settled.refilling, settled.tail_from, settled.stream_sequence), (false, None, 4));
}

#[test]
fn what_the_broker_takes_for_a_duplicate_and_does_not_hold_is_sent_again() {
    let mut sink = flowing();
    sink.publish(vec![logged(1)], position("9:9:", 1), &HashSet::new());
    sink.acked(sink.epoch, vec![ack(1)], Instant::now(), 0.5);
    sink.refill(1, 0);
    assert!(matches!(sink.stream_ready(info(1)), Ok(Some(_))));
    sink.tail_read(Vec::new(), 1);
    lease(&mut sink);
    let (now, end) = (Instant::now(), position("9:9:", 1));
    sink.publish(vec![logged(1)], end.clone(), &HashSet::new());
    assert!(sink.acked(sink.epoch, vec![Ack { sequence: 1, duplicate: true }], now, 0.5).is_some());
    sink.tick(now + Duration::from_secs(60));
    sink.stream_ready(info(1)).unwrap();
    sink.tail_read(Vec::new(), 1);
    lease(&mut sink);
    assert_eq!(expected_and_length(sink.publish(vec![logged(1)], end, &HashSet::new())), (Some(1), 1));
}
