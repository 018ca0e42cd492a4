//! What has waited too long for an endpoint is passed over, and somebody is told: the log does not grow for ever because of
//! a server that is not ours.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::reading;
use super::served::Served;
use super::worker::Worker;
use crate::deliver::deliveries::{self, Dropped};
use crate::host::gucs;
use crate::host::session::{self, Failed};
use crate::log::outbox::{self, Read};
use crate::log::{cursors, janitor};
use crate::sys::clock;
use sea_mq_model::domain::event::{Logged, is_wider};
use sea_mq_model::domain::position::{Moment, Position};
use sea_mq_model::domain::reader::ReaderId;

/// Events of a reader that are looked at in one pass.
const CHUNK: outbox::Limit = outbox::Limit { events: 512, bytes: 4 << 20 };
/// Between two looks.
const PAUSE: Duration = Duration::from_secs(5);
/// A server that was off gets so much time before anything is too old.
const GRACE: Duration = Duration::from_secs(3600);

impl Worker {
    /// Passes over what waits for longer, or takes more room, than the settings say. Returns whether there is more at once.
    pub(super) fn pass_over(&mut self, now: Instant) -> Result<bool, Failed> {
        // Places in the log of a copy mean nothing.
        let is_copy = self.held.as_ref().is_some_and(|held| held.kind == "Copied");
        if now < self.pass_over_at || is_copy {
            return Ok(false);
        }
        let mut more = false;
        if let Some(before) = self.too_old(now)? {
            for place in 0..self.served.len() {
                more |= self.pass_over_for(place, before)?;
            }
        }
        self.pass_over_at = if more { now } else { now + PAUSE.min(gucs::retention()) };
        Ok(more)
    }

    /// Events that were emitted before this have waited too long.
    fn too_old(&self, now: Instant) -> Result<Option<i64>, Failed> {
        let micros = |age: Duration| i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
        let ready = |age: &Duration| now.duration_since(self.begun_at) >= GRACE.min(*age);
        let aged = gucs::endpoint_backlog_age().filter(ready).map(|age| clock::now().saturating_sub(micros(age)));
        let crowded = match gucs::endpoint_backlog_size() {
            Some(most) => session::transaction(|| janitor::crowded_out(most))?,
            None => None,
        };
        Ok(aged.max(crowded))
    }

    /// Returns whether there may be more.
    fn pass_over_for(&mut self, place: usize, before: i64) -> Result<bool, Failed> {
        let served = &mut self.served[place];
        let mut dropped = withdraw(served, before);
        let mut more = false;
        for at in 0..served.readers.len() {
            if let Some((moment, read)) = old(served, at, before)? {
                more = true;
                lost(served, &read)?.into_iter().for_each(|emitted_at| dropped.add(emitted_at));
                served.readers[at].ledger.read(&moment, Vec::new(), read.after);
            }
        }
        if more || dropped.events > 0 {
            let moved = served.readers.iter_mut().filter_map(|reader| Some((reader.id, reader.ledger.moved()?)));
            let positions: Vec<(i64, Position)> = moved.collect();
            let id = served.described.id;
            session::transaction(|| {
                positions.iter().for_each(|(reader, position)| cursors::save(ReaderId::Endpoint(*reader), position));
                deliveries::note_dropped(id, &dropped);
            })?;
        }
        Ok(more)
    }
}

/// Those that were read and not sent.
fn withdraw(served: &mut Served, before: i64) -> Dropped {
    let contents = &served.contents;
    let is_old = |event| contents.get(&event).is_some_and(|kept| kept.emitted_at < before);
    let mut dropped = Dropped::default();
    for item in served.model.withdraw_fresh(is_old) {
        if let Some(kept) = served.contents.remove(&item.event)
            && let Some(reader) = served.readers.get_mut(kept.reader)
        {
            reader.ledger.settle(item.seq);
            dropped.add(kept.emitted_at);
        }
    }
    dropped
}

/// The events that a reader has next, as far as they are old.
fn old(served: &Served, at: usize, before: i64) -> Result<Option<(Moment, Read)>, Failed> {
    let reader = &served.readers[at];
    session::transaction(|| {
        let moment = outbox::now();
        let read = |limit| outbox::read(reader.sink, reader.ledger.read_from(), &moment, limit);
        let is_old = |logged: &&Logged| logged.event.created_at < before;
        // Nearly always the first one is young.
        if !read(outbox::Limit { events: 1, ..CHUNK }).events.iter().any(|logged| is_old(&logged)) {
            return None;
        }
        let found = read(CHUNK);
        let events = found.events.iter().take_while(is_old).count();
        let found = if events < found.events.len() { read(outbox::Limit { events, ..CHUNK }) } else { found };
        (!found.foreign).then_some((moment, found))
    })
}

/// When those were emitted that the endpoint should have got.
fn lost(served: &Served, read: &Read) -> Result<Vec<i64>, Failed> {
    let wanted = |logged: &&Logged| {
        reading::wants(served, logged) && !is_wider(&served.described.audience, &logged.event.visibility)
    };
    let wanted: Vec<&Logged> = read.events.iter().filter(wanted).collect();
    let ids: Vec<Uuid> = wanted.iter().map(|logged| logged.event.id).collect();
    let id = served.described.id;
    let known: HashSet<Uuid> = session::transaction(|| deliveries::known(id, &ids))?.into_iter().collect();
    let lost = wanted.into_iter().filter(|logged| !known.contains(&logged.event.id));
    Ok(lost.map(|logged| logged.event.created_at).collect())
}
