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
mod tests;
