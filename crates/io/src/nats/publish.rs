//! What is on its way to the streams: one flow per sink, its messages numbered from zero, its acks in the same order.
//!
//! Pure state, no I/O: [`Publisher::next`] says what to send, [`Publisher::answer`] takes what came back, and
//! [`Publisher::collect`] says what to report. A flow ends with its first failure; what comes back later is dropped.
//!
//! The server may answer out of order (in a cluster, a refusal or a duplicate is answered at once, while earlier messages
//! wait for their quorum). So an answer that overtook others is kept, and only if the missing ones do not follow within
//! [`flow::GAP_GRACE`] the flow has failed.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use super::ack::{self, Answer};
use super::flow::{self, Flow, Outcome, Wire};
use super::queued::Queued;
use super::sizes::SharedSizes;
use sea_mq_model::broker::{Fault, FaultKind, Report, SinkId};

/// All flows of a session.
#[derive(Debug)]
pub(super) struct Publisher {
    /// Reply subjects begin with this; ends with a dot.
    reply_prefix: String,
    ack_timeout: Duration,
    /// By slot. A slot is a sink in an epoch and is never used again, so a late ack cannot be taken for another's.
    flows: BTreeMap<u32, Flow>,
    /// The slot of each sink's current epoch.
    slots: HashMap<SinkId, u32>,
    next_slot: u32,
    /// Streams in which each message may expect its predecessor's id.
    chainable: HashSet<String>,
    /// Slots with something to send, each once, in turn.
    turn: VecDeque<u32>,
    /// Slots with something to report.
    touched: Vec<u32>,
    sizes: SharedSizes,
}

impl Publisher {
    pub(super) fn new(reply_prefix: String, ack_timeout: Duration, sizes: SharedSizes) -> Self {
        Self {
            reply_prefix,
            ack_timeout,
            flows: BTreeMap::new(),
            slots: HashMap::new(),
            next_slot: 0,
            chainable: HashSet::new(),
            turn: VecDeque::new(),
            touched: Vec::new(),
            sizes,
        }
    }

    /// Notes whether a stream is on a server without a cluster. It matters to the epochs that begin after this.
    ///
    /// There, each message also expects its predecessor's id. A sequence alone does not hold the order if somebody else
    /// publishes to the stream: the foreign message makes one of ours fail but takes its place, so that the next of ours
    /// finds the sequence that it expects and overtakes the failed one. With ids, all after the first failure fail too.
    /// In a cluster the same header would destroy what it should protect: the server (2.15.1) takes a wrong id in a
    /// replicated stream for a corrupt store, and stops the stream on all replicas until they are restarted.
    pub(super) fn set_standalone(&mut self, stream: &str, standalone: bool) {
        if standalone {
            self.chainable.insert(stream.to_owned());
        } else {
            self.chainable.remove(stream);
        }
    }

    /// Queues messages. A new epoch of a sink voids the one before it, with all that is queued and unanswered.
    pub(super) fn submit(&mut self, sink: SinkId, epoch: u64, stream: String, queued: Queued) {
        let slot = match self.slots.get(&sink).and_then(|slot| Some((*slot, self.flows.get(slot)?.epoch))) {
            Some((slot, current)) if current == epoch => slot,
            Some((_, current)) if current > epoch => return,
            _ => self.open(sink, epoch, stream),
        };
        let Some(flow) = self.flows.get_mut(&slot) else { return };
        if !flow.halted && !queued.is_empty() {
            flow.queue.push_back(queued);
            self.enqueue(slot);
        }
    }

    fn open(&mut self, sink: SinkId, epoch: u64, stream: String) -> u32 {
        let slot = self.next_slot;
        self.next_slot = self.next_slot.wrapping_add(1);
        if let Some(void) = self.slots.insert(sink, slot) {
            self.flows.remove(&void);
        }
        let chained = self.chainable.contains(&stream);
        self.flows.insert(slot, Flow::new(sink, epoch, stream, chained));
        slot
    }

    fn enqueue(&mut self, slot: u32) {
        if let Some(flow) = self.flows.get_mut(&slot)
            && !flow.waiting
            && flow.can_send()
        {
            flow.waiting = true;
            self.turn.push_back(slot);
        }
    }

    /// The next message to send, from each sink in turn.
    pub(super) fn next(&mut self, now: Instant) -> Option<Wire> {
        while let Some(slot) = self.turn.pop_front() {
            if self.is_held_back(slot) {
                self.turn.push_front(slot);
                return None;
            }
            let Some(flow) = self.flows.get_mut(&slot) else { continue };
            flow.waiting = false;
            let size = flow.next_size().unwrap_or(0);
            let mut wire = flow.next(slot, &self.reply_prefix, now);
            if let Some(refused) = wire.take_if(|_| self.sizes.borrow().is_too_large(size)) {
                flow.resolve(refused.index, Outcome::Failed(Box::new(too_large(size))), false, now);
            }
            if flow.halted {
                self.touched.push(slot);
            }
            self.enqueue(slot);
            if wire.is_some() {
                return wire;
            }
        }
        None
    }

    /// Whether the next message of a flow has to wait: it may be too large and is to go alone, or such a one is on its way.
    fn is_held_back(&self, slot: u32) -> bool {
        let sizes = self.sizes.borrow();
        if !sizes.is_cautious() {
            return false;
        }
        let mut unanswered = self.flows.values().flat_map(Flow::all_unanswered);
        let Some((_, first)) = unanswered.next() else { return false };
        let next = self.flows.get(&slot).and_then(Flow::next_size).unwrap_or(0);
        sizes.may_be_too_large(first) || sizes.may_be_too_large(next)
    }

    /// The server has closed the connection since a message is larger than it takes. If there is but one that it can be, that
    /// one has failed.
    pub(super) fn closed_over_size(&mut self, now: Instant) {
        let numbered = |(slot, flow): (&u32, &Flow)| {
            let slot = *slot;
            flow.all_unanswered().take(2).map(move |(index, size)| (slot, index, size)).collect::<Vec<_>>()
        };
        let unanswered: Vec<_> = self.flows.iter().flat_map(numbered).collect();
        let alone = if let [one] = unanswered.as_slice() { Some(*one) } else { None };
        self.sizes.borrow_mut().note_closed(alone.map(|(_, _, size)| size));
        if let Some((slot, index, size)) = alone
            && let Some(flow) = self.flows.get_mut(&slot)
        {
            flow.resolve(index, Outcome::Failed(Box::new(too_large(size))), false, now);
            self.touched.push(slot);
        }
    }

    /// Whether there is something that [`next`](Self::next) would return.
    pub(super) fn has_work(&self) -> bool {
        !self.turn.is_empty()
    }

    /// Whether anything is queued, even if it cannot be sent before something is answered.
    pub(super) fn has_queue(&self) -> bool {
        self.flows.values().any(|flow| !flow.queue.is_empty())
    }

    /// Whether something is to be reported.
    pub(super) fn has_news(&self) -> bool {
        !self.touched.is_empty()
    }

    /// Takes the server's answer to a message. `token` is the end of the reply subject.
    pub(super) fn answer(&mut self, token: &str, message: &async_nats::Message, now: Instant) {
        if let Some((slot, index)) = ack::parse_token(token)
            && let Some(flow) = self.flows.get_mut(&slot)
            && !flow.ended
        {
            match ack::read(message, &flow.stream) {
                Ok(Answer::Stored(ack)) => flow.resolve(index, Outcome::Stored(ack), true, now),
                Ok(Answer::Staged) => flow.stage(index, now),
                Err(fault) => flow.resolve(index, Outcome::Failed(Box::new(fault)), true, now),
            }
            if self.touched.last() != Some(&slot) {
                self.touched.push(slot);
            }
        }
    }

    /// Takes the client library's refusal to send a message.
    pub(super) fn refuse(&mut self, slot: u32, index: u64, fault: Fault, now: Instant) {
        if let Some(flow) = self.flows.get_mut(&slot) {
            flow.resolve(index, Outcome::Failed(Box::new(fault)), false, now);
            self.touched.push(slot);
        }
    }

    /// Takes the server's word that it forbade publishing to a subject. There is no answer to such a message.
    pub(super) fn deny(&mut self, subject: &str, fault: &Fault, now: Instant) {
        let hash = flow::hash(subject);
        for (slot, flow) in &mut self.flows {
            if let Some(index) = flow.unanswered(hash) {
                flow.resolve(index, Outcome::Failed(Box::new(fault.clone())), false, now);
                self.touched.push(*slot);
            }
        }
    }

    /// When [`expire`](Self::expire) is next due, if anything is unanswered.
    pub(super) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        // What is queued will be unanswered in a moment, and nobody looks again when it is sent.
        let due = |flow: &Flow| flow.deadline(self.ack_timeout).or(flow.can_send().then_some(now + self.ack_timeout));
        self.flows.values().filter_map(due).min()
    }

    /// Gives up the flows whose oldest answer is overdue.
    pub(super) fn expire(&mut self, now: Instant) {
        for (slot, flow) in &mut self.flows {
            if flow.deadline(self.ack_timeout).is_some_and(|deadline| deadline <= now) {
                flow.give_up();
                self.touched.push(*slot);
            }
        }
    }

    /// What there is to report since the last time, and makes room for what is queued.
    pub(super) fn collect(&mut self, now: Instant, reports: &mut Vec<Report>) {
        let mut touched = std::mem::take(&mut self.touched);
        for slot in touched.drain(..) {
            if let Some(flow) = self.flows.get_mut(&slot) {
                flow.collect(now, reports);
                self.sizes.borrow_mut().note_stored(flow.largest);
                self.enqueue(slot);
            }
        }
        self.touched = touched;
    }
}

fn too_large(size: usize) -> Fault {
    let words = format!("{size} bytes are more than the broker takes from this account (Maximum Payload Violation)");
    Fault::new(FaultKind::MessageTooLarge, words)
}

#[cfg(test)]
mod tests {
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
            submit(
                &mut publisher,
                1,
                epoch,
                "S".into(),
                Queued::new(None, outgoing(&["a", "b", "c", "d"]), vec![2, 2]),
            );
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
}
