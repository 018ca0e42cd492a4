//! Delivery inside the database: without a broker, subscriptions read this database's own log, each with a cursor.

use super::attempt::InTurn;
use super::delivered::Delivered;
use super::stored;
use super::worker::Worker;
use crate::host::session::{self, Failed};
use crate::inbox::handler;
use crate::inbox::subscriptions::Subscription;
use crate::log::progress::{self, Progress};
use crate::log::{cursors, outbox};
use crate::registry::contracts;
use sea_mq_model::domain::event::Logged;
use sea_mq_model::domain::message::Message;
use sea_mq_model::domain::position::{Moment, Position};
use sea_mq_model::domain::reader::ReaderId;
use sea_mq_model::domain::sink::{SinkKind, sink_id};
use sea_mq_model::domain::subject::covers;
use sea_mq_model::pipeline::{self, AT_ONCE, Effect, Tally};

/// Bytes of payload read at once.
const BYTES: usize = 4 << 20;

impl Worker {
    /// The end of the log for this pass, the same for all subscriptions: so that none gets an event in a pass before one
    /// that goes first.
    pub(super) fn moment(&self) -> Result<Moment, Failed> {
        session::transaction(outbox::now)
    }

    /// Handles what the log has for a subscription. Returns whether there may be more.
    pub(super) fn serve_log(&mut self, place: usize, moment: &Moment) -> Result<bool, Failed> {
        let now = std::time::Instant::now();
        let served = &mut self.served[place];
        let subscription = std::rc::Rc::clone(&served.subscription);
        let Some(context) = &subscription.source_context else { return Ok(false) };
        if served.exhausted || !served.has_room(now) {
            return Ok(false);
        }
        let sink = sink_id(context, SinkKind::Event);
        let room = match subscription.effect() {
            Effect::Handler => served.care.plan(0).most(),
            Effect::Lanes | Effect::Pull => subscription.max_ack_pending - served.waiting,
        };
        let limit = outbox::Limit { events: room.min(AT_ONCE), bytes: BYTES };
        let before = served.position.clone();
        let (at, read) = session::transaction(|| {
            let at = before.unwrap_or_else(|| cursors::load(ReaderId::Subscription(subscription.id)));
            let mut read = outbox::read(sink, &at, moment, limit);
            contracts::name_schemas(&mut read.events);
            (at, read)
        })?;
        if read.foreign {
            return Ok(false);
        }
        served.exhausted = read.after.batch.is_none();
        if read.events.is_empty() {
            served.position = Some(read.after);
            return Ok(false);
        }
        let chunk = Chunk { at, after: read.after, events: read.events, moment };
        let (handled, position) = handle(served, &subscription, &chunk)?;
        served.position = Some(position);
        if handled < chunk.events.len() {
            served.exhausted = false;
        }
        self.handled_anything |= handled > 0;
        self.wake_handlers(&subscription);
        Ok(handled > 0 && !self.served[place].exhausted)
    }
}

/// What was read of the log.
struct Chunk<'a> {
    at: Position,
    after: Position,
    events: Vec<Logged>,
    moment: &'a Moment,
}

impl Chunk<'_> {
    /// The position once the first `handled` events are dealt with.
    fn position(&self, handled: usize) -> Position {
        if handled == self.events.len() {
            return self.after.clone();
        }
        let last = handled.checked_sub(1).map(|place| self.events[place].seq);
        self.at.after(self.at.batch_or(self.moment), last, false)
    }
}

/// Deals with a chunk. Returns how many of its events are dealt with, and the position after them.
fn handle(
    served: &mut super::served::Served,
    subscription: &Subscription,
    chunk: &Chunk,
) -> Result<(usize, Position), Failed> {
    // Events that the subscription does not want are dealt with by passing them.
    let wants = |logged: &&Logged| {
        covers(&subscription.subject_filter, &logged.event.subject())
            && subscription.begins_before(logged.event.created_at, logged.seq)
    };
    let wanted: Vec<usize> = (0..chunk.events.len()).filter(|&i| wants(&&chunk.events[i])).collect();
    let messages: Vec<Message> = wanted.iter().map(|&i| Message::from_log(&chunk.events[i])).collect();
    // How many of the chunk are dealt with once so many of the wanted ones are.
    let passed = |handled: usize| wanted.get(handled).copied().unwrap_or(chunk.events.len());
    let save = |handled: usize, processed: i64, duplicates: i64| {
        let position = Some(chunk.position(passed(handled)));
        progress::save(subscription.id, &Progress { processed, duplicates, position, ..Progress::default() });
    };
    let failed = |failure: sea_mq_model::domain::outcome::Failure| Failed(failure.message);
    let handled = match subscription.effect() {
        _ if messages.is_empty() => {
            session::transaction(|| save(0, 0, 0))?;
            0
        }
        Effect::Lanes | Effect::Pull => {
            stored::store(subscription, &messages, |duplicates| save(messages.len(), 0, duplicates)).map_err(failed)?;
            served.look()?;
            messages.len()
        }
        Effect::Handler => {
            let record = |tally: &Tally| save(tally.handled, tally.processed, tally.duplicates);
            let mut shell = InTurn::new(subscription, Delivered::new(record));
            // Nobody says of an event in the log whether it was tried before.
            let plan = served.care.plan(messages.len());
            let room = served.retry_room();
            let turn = pipeline::take_turn(&mut served.care, plan, room, &messages, &mut shell).map_err(failed)?;
            let is_saved = shell.source.is_saved;
            let handled = served.note(turn)?;
            if !is_saved {
                handler::transaction(|| save(handled, 0, 0)).map_err(failed)?;
            }
            handled
        }
    };
    let passed = passed(handled);
    Ok((passed, chunk.position(passed)))
}
