//! Delivery inside the database: without a broker, subscriptions read this database's own log, each with a cursor.

use std::rc::Rc;
use std::time::Instant;

use super::chunk::Chunk;
use super::direct::PATIENCE;
use super::pool::Brought;
use super::stored;
use super::worker::Worker;
use crate::host::roles::Reasons;
use crate::host::session::{self, Failed};
use crate::inbox::subscriptions::{self, Subscription};
use crate::log::progress::{self, Progress};
use crate::log::{cursors, outbox};
use sea_mq_model::broker::SubscriptionId;
use sea_mq_model::domain::event::Logged;
use sea_mq_model::domain::position::Moment;
use sea_mq_model::domain::reader::ReaderId;
use sea_mq_model::domain::sink::{SinkKind, sink_id};
use sea_mq_model::domain::subject::covers;
use sea_mq_model::pipeline::task::Report;
use sea_mq_model::pipeline::{AT_ONCE, Lane, Plan, Tally};

/// Bytes of payload read at once.
const BYTES: usize = 4 << 20;

impl Worker {
    /// The end of the log for this pass, the same for all subscriptions: so that none gets an event in a pass before one
    /// that goes first. An event is judged by what was described before it, so changed descriptions are looked at.
    pub(super) fn moment(&mut self) -> Result<Moment, Failed> {
        let (moment, print) = session::transaction(|| {
            let moment = outbox::now();
            let may_differ = self.look_due || self.process.is_woken_for(Reasons::INBOX);
            (moment, may_differ.then(subscriptions::fingerprint))
        })?;
        if print.is_some() && print != self.fingerprint {
            self.look()?;
        }
        Ok(moment)
    }

    /// Takes the next messages of a lane, and says how they are to be handled.
    pub(super) fn take_logged(
        &mut self,
        place: usize,
        lane: Lane,
        moment: &Moment,
        now: Instant,
    ) -> Result<(Brought, Plan), Failed> {
        let none = (Brought::Nothing, Plan::Alone(0));
        if !self.served[place].has_room(now) || self.waits_for_others(place, now) {
            return Ok(none);
        }
        let served = &self.served[place];
        if served.chunk.is_none() && !served.exhausted {
            self.read(place, moment, AT_ONCE)?;
        }
        let served = &mut self.served[place];
        // Nobody says of an event in the log whether it was tried before.
        let plan = served.lane_mut(lane.number).care.plan(usize::MAX);
        let Some(chunk) = &mut served.chunk else { return Ok(none) };
        let places = chunk.take(lane, plan.most());
        Ok(if places.is_empty() { none } else { (Brought::Logged(places), plan) })
    }

    /// Whether a subscription that goes first has events under way; but not for long.
    fn waits_for_others(&mut self, place: usize, now: Instant) -> bool {
        let Subscription { priority, source_context, .. } = &*self.served[place].subscription;
        let goes_first = |first: &&super::served::Served| {
            first.subscription.priority > *priority && first.subscription.source_context == *source_context
        };
        let mut firsts = self.served[..place].iter().filter(goes_first);
        if !firsts.any(|first| first.chunk.is_some() && self.pool.has_some(first.subscription.id)) {
            self.served[place].held_since = None;
            return false;
        }
        let since = *self.served[place].held_since.get_or_insert(now);
        now.duration_since(since) < PATIENCE
    }

    /// Reads what the log has for a subscription. What it does not want is dealt with by passing it.
    fn read(&mut self, place: usize, moment: &Moment, events: usize) -> Result<(), Failed> {
        let served = &mut self.served[place];
        let subscription = Rc::clone(&served.subscription);
        let Some(context) = &subscription.source_context else { return Ok(()) };
        let sink = sink_id(context, SinkKind::Event);
        let before = served.position.clone();
        let (at, read) = session::transaction(|| {
            let at = before.unwrap_or_else(|| cursors::load(ReaderId::Subscription(subscription.id)));
            let read = outbox::read(sink, &at, moment, outbox::Limit { events, bytes: BYTES });
            (at, read)
        })?;
        if read.foreign {
            served.exhausted = true;
            return Ok(());
        }
        if read.events.is_empty() {
            served.exhausted = read.after.batch.is_none();
            served.position = Some(read.after);
            return Ok(());
        }
        let wants = |logged: &Logged| {
            covers(&subscription.subject_filter, &logged.event.subject())
                && subscription.begins_before(logged.event.created_at, logged.seq)
        };
        let chunk = Chunk::new(at, read.after, moment, &read.events, wants);
        if chunk.is_over() {
            session::transaction(|| save(subscription.id, &chunk, &[], &Tally::default()))?;
        }
        served.chunk = Some(chunk);
        self.finish_chunk(place);
        Ok(())
    }

    /// Goes on behind what was read, if all of it is dealt with.
    fn finish_chunk(&mut self, place: usize) {
        let served = &mut self.served[place];
        if let Some(chunk) = served.chunk.take_if(|chunk| chunk.is_over()) {
            let position = chunk.position(&[], 0);
            served.exhausted = position.batch.is_none();
            served.position = Some(position);
        }
    }

    /// Notes progress, and keeps what was not dealt with. `here`: this process has handled it, and saved progress with what was
    /// handled together.
    pub(super) fn settle_logged(
        &mut self,
        place: usize,
        places: &[usize],
        report: &Report,
        here: bool,
    ) -> Result<(), Failed> {
        let served = &mut self.served[place];
        let id = served.subscription.id;
        let Some(chunk) = &mut served.chunk else { return Ok(()) };
        let handled = report.brought.handled;
        if handled > 0 && !(here && report.saved) {
            // What was processed is counted already.
            let tally = Tally { processed: 0, ..report.brought };
            session::transaction(|| save(id, chunk, places, &tally))?;
        }
        chunk.settle(places, handled);
        self.finish_chunk(place);
        Ok(())
    }

    /// Stores what the log has for a subscription of an application. Returns whether there may be more.
    pub(super) fn store_log(&mut self, place: usize, moment: &Moment) -> Result<bool, Failed> {
        let served = &mut self.served[place];
        if served.exhausted || !served.has_room(Instant::now()) {
            return Ok(false);
        }
        let room = served.subscription.max_ack_pending - served.waiting;
        self.read(place, moment, room.min(AT_ONCE))?;
        let served = &mut self.served[place];
        let subscription = Rc::clone(&served.subscription);
        if let Some(chunk) = &mut served.chunk {
            let places = chunk.take(Lane::ONLY, usize::MAX);
            let messages = chunk.messages(&places);
            let record = |duplicates| {
                save(subscription.id, chunk, &places, &Tally { handled: places.len(), duplicates, ..Tally::default() });
            };
            stored::store(&subscription, &messages, record).map_err(|failure| Failed(failure.message))?;
            chunk.settle(&places, places.len());
            served.look()?;
            self.wake_dispatcher();
        }
        self.finish_chunk(place);
        Ok(!self.served[place].exhausted)
    }
}

/// Notes how far a subscription is, once the first so many of what was taken are dealt with.
pub(super) fn save(id: SubscriptionId, chunk: &Chunk, places: &[usize], tally: &Tally) {
    let position = Some(chunk.position(places, tally.handled));
    let Tally { processed, duplicates, .. } = *tally;
    progress::save(id, &Progress { processed, duplicates, position, ..Progress::default() });
}
