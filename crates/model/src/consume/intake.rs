//! One subscription's side of the broker: from a description to messages in a queue.
//!
//! ```text
//!          connect            consumer ready
//!   Down ───────────► Ensuring ───────────► Consuming
//!    ▲                 ▲    │                   │
//!    │ disconnect      │    └─────► Waiting ◄───┘ refused, or pulling has ended
//!    └── (from all)    └─── retry ────┘
//! ```
//!
//! Held is entered and left by the description (a paused subscription). What is delivered and not taken from the queue
//! when the session or the pulling ends is forgotten: the broker delivers it again.

use std::cell::OnceCell;
use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::missed::{Gap, Reach};
use crate::broker::{ConsumerInfo, ConsumerSpec, DeliverFrom, Delivery, Request, Resume, SubscriptionId};
use crate::domain::drift::Drift;
use crate::domain::message::Message;
use crate::domain::retry::Backoff;
use crate::pipeline::{Lane, LaneKey};

/// A subscription, as far as the broker is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    pub id: SubscriptionId,
    /// `resume` in it is not part of the description; it is filled in when it is needed.
    pub spec: ConsumerSpec,
    /// Messages that may be in the queue or being handled.
    pub window: usize,
    /// Nothing is to be pulled.
    pub held: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Down,
    Ensuring,
    Consuming,
    Waiting { until: Instant },
    Held,
}

/// Bytes that are taken at once. Each stands several times in memory while it is handled: as it came, as text, as a value.
pub const TAKEN_BYTES: usize = 4 << 20;
/// How long a subscription waits for a permission before it tries again.
const FORBIDDEN: Duration = Duration::from_secs(15);
/// For how long a subscription is left out that costs the session.
const LEFT_OUT: Duration = Duration::from_secs(30);

/// A message in the queue.
#[derive(Debug)]
struct Queued {
    delivery: Delivery,
    /// Asked for where there are several lanes.
    key: OnceCell<LaneKey>,
}

impl From<Delivery> for Queued {
    fn from(delivery: Delivery) -> Self {
        Self { delivery, key: OnceCell::new() }
    }
}

impl Queued {
    fn is_in(&self, lane: Lane) -> bool {
        lane.is_only() || lane.has(*self.key.get_or_init(|| LaneKey::of(&Message::from_delivery(&self.delivery, ""))))
    }
}

/// What was taken from the queue together.
#[derive(Debug, Default)]
pub struct Taken {
    pub deliveries: Vec<Delivery>,
    era: u64,
}

/// One subscription.
pub struct Intake {
    described: Described,
    link: Link,
    queue: VecDeque<Queued>,
    /// Sequences of what was taken from the queue and is being handled.
    under_way: BTreeSet<u64>,
    /// Counts how often what was delivered was forgotten: what was taken before is nobody's.
    era: u64,
    /// Everything delivered up to this stream sequence was taken and dealt with.
    position: Option<Resume>,
    /// The greatest sequence that was delivered since the consumer is pulled from.
    delivered_to: u64,
    /// The greatest sequence that was dealt with since then.
    dealt_to: u64,
    /// The broker has something to send.
    sent_to: bool,
    reach: Reach,
    info: Option<ConsumerInfo>,
    /// What was stored later was never delivered to a process before this one.
    inherited: Option<u64>,
    /// Since when it is pulled from, in this session or the last.
    began: Option<Instant>,
    /// It is left out until then, for what it did to the session.
    left_out: Option<Instant>,
    drift: Drift,
    backoff: Backoff,
}

impl Intake {
    pub fn new(described: Described) -> Self {
        Self {
            position: described.spec.resume,
            described,
            link: Link::Down,
            queue: VecDeque::new(),
            under_way: BTreeSet::new(),
            era: 0,
            delivered_to: 0,
            dealt_to: 0,
            sent_to: false,
            reach: Reach::default(),
            info: None,
            inherited: None,
            began: None,
            left_out: None,
            drift: Drift::default(),
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(5)),
        }
    }

    pub fn id(&self) -> SubscriptionId {
        self.described.id
    }

    pub fn described(&self) -> &Described {
        &self.described
    }

    /// The consumer as the broker described it last.
    pub fn info(&self) -> Option<&ConsumerInfo> {
        self.info.as_ref()
    }

    pub fn is_consuming(&self) -> bool {
        self.link == Link::Consuming
    }

    /// The subject and sequence of the next message.
    pub fn first(&self) -> Option<&Delivery> {
        self.queue().next()
    }

    pub fn queue(&self) -> impl Iterator<Item = &Delivery> {
        self.queue.iter().map(|queued| &queued.delivery)
    }

    /// How many of the next messages of a lane may have been delivered to a process before this one, which may have ended of
    /// one of them.
    pub fn suspects(&self, lane: Lane) -> usize {
        let suspect =
            |delivery: &&Delivery| delivery.delivered > 1 && self.inherited.is_none_or(|to| delivery.sequence <= to);
        self.queue.iter().filter(|queued| queued.is_in(lane)).map(|queued| &queued.delivery).take_while(suspect).count()
    }

    /// Whether a lane has a message.
    pub fn has_some(&self, lane: Lane) -> bool {
        self.queue.iter().any(|queued| queued.is_in(lane))
    }

    /// Takes messages of a lane out of the queue: up to `max`, among the first `among` of all lanes, of [`TAKEN_BYTES`] together;
    /// but one, however large it is.
    pub fn take(&mut self, lane: Lane, max: usize, among: usize) -> Taken {
        let mut bytes = 0;
        let mut deliveries = Vec::new();
        let mut place = 0;
        let mut seen = 0;
        while deliveries.len() < max && seen < among && place < self.queue.len() {
            seen += 1;
            if !self.queue[place].is_in(lane) {
                place += 1;
                continue;
            }
            bytes += self.queue[place].delivery.size();
            if bytes > TAKEN_BYTES && !deliveries.is_empty() {
                break;
            }
            deliveries.extend(self.queue.remove(place).map(|queued| queued.delivery));
        }
        self.under_way.extend(deliveries.iter().map(|delivery| delivery.sequence));
        Taken { deliveries, era: self.era }
    }

    /// The first `handled` of what was taken are dealt with; the others are put back. Returns the deliveries to acknowledge: none, if
    /// what was delivered was forgotten since, for the broker delivers it again.
    pub fn settle(&mut self, taken: Taken, handled: usize) -> Vec<Delivery> {
        if taken.era != self.era {
            return Vec::new();
        }
        let mut done = taken.deliveries;
        for delivery in &done {
            self.under_way.remove(&delivery.sequence);
        }
        let rest = done.split_off(handled.min(done.len()));
        rest.into_iter().rev().for_each(|message| self.queue.push_front(message.into()));
        self.dealt_to = done.iter().map(|delivery| delivery.sequence).fold(self.dealt_to, u64::max);
        done
    }

    /// Forgets what was delivered: the broker delivers it again.
    fn forget(&mut self) {
        self.queue.clear();
        self.under_way.clear();
        self.dealt_to = 0;
        self.era += 1;
    }

    /// Every message up to this sequence that the subscription is to get was dealt with.
    pub fn reach(&self) -> u64 {
        let next = self.first().map(|next| next.sequence).into_iter().chain(self.under_way.first().copied()).min();
        next.map_or(self.delivered_to, |next| next.saturating_sub(1))
    }

    /// Where to go on should the consumer be lost, once the first `handled` of what was taken are dealt with. It counts from when
    /// it was committed on; see [`Self::advanced`].
    pub fn advance(&self, taken: &Taken, handled: usize) -> Option<Resume> {
        let done = taken.deliveries.get(..handled)?;
        let sequence = done.iter().map(|delivery| delivery.sequence).max()?.max(self.dealt_to);
        if taken.era != self.era {
            return None;
        }
        // Redelivered messages come before the others, but nothing rests on it.
        let is_done = |sequence: &u64| done.iter().any(|delivery| delivery.sequence == *sequence);
        let under_way = self.under_way.iter().copied().find(|sequence| !is_done(sequence));
        let first = self.queue().map(|delivery| delivery.sequence).chain(under_way).min();
        let upto = first.map_or(sequence, |first| first.saturating_sub(1).min(sequence));
        let stream_created_us = self.info?.stream_created_us;
        let known = self.position.filter(|known| known.stream_created_us == stream_created_us);
        let position = Resume { stream_created_us, sequence: upto.max(known.map_or(0, |known| known.sequence)) };
        Some(position)
    }

    /// What [`Self::advance`] gave is committed.
    pub fn advanced(&mut self, position: Option<Resume>) {
        self.position = position.or(self.position);
    }

    /// The session is up; it is to begin at a time, now or later.
    pub fn connected(&mut self, now: Instant, at: Instant) -> Option<Request> {
        self.backoff.reset();
        self.began = None;
        let until = self.left_out.map_or(at, |until| until.max(at));
        self.link = Link::Waiting { until };
        self.tick(now)
    }

    /// Whether pulling began so short a time ago.
    pub fn began_within(&self, span: Duration, now: Instant) -> bool {
        self.is_consuming() && self.began.is_some_and(|began| now.saturating_duration_since(began) < span)
    }

    /// Whether the broker has something to send to it.
    pub fn is_sent_to(&self) -> bool {
        self.is_consuming() && self.sent_to
    }

    /// Whether it was left out before.
    pub fn was_left_out(&self) -> bool {
        self.left_out.is_some()
    }

    /// Leaves it out for a while.
    pub fn leave_out(&mut self, now: Instant) {
        self.left_out = Some(now + LEFT_OUT);
    }

    /// The session is gone.
    pub fn disconnected(&mut self) {
        self.forget();
        self.link = Link::Down;
    }

    /// Provisions the consumer.
    fn begin(&mut self) -> Option<Request> {
        self.forget();
        self.link = if self.described.held { Link::Held } else { Link::Ensuring };
        let spec = ConsumerSpec { resume: self.position, ..self.described.spec.clone() };
        // Also while it is held: what is published meanwhile is to wait for it.
        Some(Request::EnsureConsumer { spec: Box::new(spec) })
    }

    /// The description has changed, or has not.
    pub fn describe(&mut self, described: Described) -> Vec<Request> {
        let described =
            Described { spec: ConsumerSpec { resume: self.described.spec.resume, ..described.spec }, ..described };
        if described == self.described {
            return Vec::new();
        }
        self.described = described;
        if self.link == Link::Down {
            return Vec::new();
        }
        let stop = self.stop();
        stop.into_iter().chain(self.begin()).collect()
    }

    /// Ends pulling, if it goes on.
    pub fn stop(&mut self) -> Option<Request> {
        self.forget();
        self.is_consuming().then_some(Request::StopConsuming { subscription: self.id() })
    }

    /// The consumer is there. `bytes`: what may be in memory of it, or on its way there; `line`: on its way.
    pub fn ready(&mut self, info: ConsumerInfo, bytes: usize, line: usize, now: Instant) -> Vec<Request> {
        self.info = Some(info);
        self.inherited.get_or_insert(info.stream_last);
        if self.link != Link::Ensuring {
            return Vec::new();
        }
        let gap = self.reach.begin(&info, self.described.spec.deliver_from, self.position);
        let count = gap.map(|gap| self.count(vec![gap]));
        self.link = Link::Consuming;
        self.sent_to = info.pending > 0 || info.ack_pending > 0;
        self.began = Some(now);
        self.delivered_to = info.ack_floor;
        let Described { id, spec, window, .. } = &self.described;
        let consume = Request::Consume {
            subscription: *id,
            stream: spec.stream.clone(),
            consumer: spec.name.clone(),
            window: *window,
            bytes,
            line,
            ack_wait: spec.ack_wait,
            fewer_pending: spec.fewer_pending,
        };
        count.into_iter().chain([consume]).collect()
    }

    /// For how long the stream with this creation time keeps messages. Returns whether that is news.
    pub fn learn_max_age(&mut self, created_us: i64, max_age: Option<Duration>) -> bool {
        let Some(info) = self.info.as_mut().filter(|info| info.stream_created_us == created_us) else { return false };
        std::mem::replace(&mut info.stream_max_age, max_age) != max_age
    }

    /// The consumer cannot be used, or is gone.
    pub fn refused(&mut self, now: Instant, jitter: f64) {
        let pause = self.backoff.next(jitter);
        self.wait(now + pause);
    }

    /// Something is not permitted: until somebody grants it, each attempt would only have messages delivered again.
    pub fn forbidden(&mut self, now: Instant) {
        self.wait(now + FORBIDDEN);
    }

    fn wait(&mut self, until: Instant) {
        if matches!(self.link, Link::Ensuring | Link::Consuming | Link::Held) {
            self.forget();
            self.link = Link::Waiting { until };
        }
    }

    /// Asks how the consumer is.
    pub fn look(&self) -> Option<Request> {
        self.is_consuming().then(|| Request::ReadConsumer { spec: Box::new(self.allowed()) })
    }

    /// The consumer as the broker allows it to be.
    fn allowed(&self) -> ConsumerSpec {
        let spec = &self.described.spec;
        let found = self.info.map_or(0, |info| info.max_ack_pending);
        let fewer = spec.fewer_pending && found > 0 && found < spec.max_ack_pending;
        ConsumerSpec { max_ack_pending: if fewer { found } else { spec.max_ack_pending }, ..spec.clone() }
    }

    /// The consumer as it is found. Returns what is to be asked of it.
    pub fn seen(&mut self, info: &ConsumerInfo) -> Option<Request> {
        if !self.is_consuming() {
            return None;
        }
        self.reach.seen(info).map(|gap| self.count(vec![gap]))
    }

    /// What somebody has changed, in words; nothing: all is as described. Returns whether it is to be put right.
    pub fn is_to_be_put_right(&mut self, drift: &str) -> bool {
        if drift.is_empty() {
            self.drift.gone();
            return false;
        }
        self.drift.found(drift)
    }

    /// Whether its stream was ever there.
    pub fn has_begun(&self) -> bool {
        self.info.is_some() || self.position.is_some()
    }

    /// Provisions the consumer once more, if it is in use. `skipped`: it had another filter and may have passed over messages, so
    /// it is made anew where it was; what was handled is known.
    pub fn begin_anew(&mut self, skipped: bool) -> Vec<Request> {
        if !self.is_consuming() {
            return Vec::new();
        }
        let stop = self.stop();
        let ConsumerSpec { stream, name, owner, deliver_from, .. } = &self.described.spec;
        let known = self.position.is_some() || *deliver_from == DeliverFrom::All;
        let delete = (skipped && known).then(|| Request::DeleteConsumer {
            stream: stream.clone(),
            name: name.clone(),
            owner: *owner,
        });
        stop.into_iter().chain(delete).chain(self.begin()).collect()
    }

    fn count(&self, gaps: Vec<Gap>) -> Request {
        let created_us = self.info.map_or(0, |info| info.stream_created_us);
        Request::CountRemoved { subscription: self.id(), stream: self.described.spec.stream.clone(), created_us, gaps }
    }

    /// Takes in what is delivered. Returns what is to be asked about what is missing before it.
    pub fn delivered(&mut self, messages: Vec<Delivery>) -> Vec<Request> {
        let mut requests = Vec::new();
        if self.is_consuming() {
            // One question for all: a stream may have a gap before each of its messages.
            let gaps = self.reach.delivered(&messages);
            requests.extend((!gaps.is_empty()).then(|| self.count(gaps)));
            self.sent_to = messages.last().is_some_and(|last| last.pending > 0);
            self.backoff.reset();
            self.delivered_to = messages.iter().map(|message| message.sequence).fold(self.delivered_to, u64::max);
            self.queue.extend(messages.into_iter().map(Queued::from));
        }
        requests
    }

    /// Begins again at the next `tick`: what it waits for may be there.
    pub fn hasten(&mut self) {
        if let Link::Waiting { until } = &mut self.link {
            *until = Instant::now();
        }
    }

    /// Begins again if it is time.
    pub fn tick(&mut self, now: Instant) -> Option<Request> {
        let due = matches!(self.link, Link::Waiting { until } if until <= now);
        if due { self.begin() } else { None }
    }

    /// When `tick` has something to do.
    pub fn due_at(&self) -> Option<Instant> {
        match self.link {
            Link::Waiting { until } => Some(until),
            _ => None,
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
