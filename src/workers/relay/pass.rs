//! One pass: what was committed is noticed, read, handed on, and what is settled is saved.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pgrx::{log as note, warning};

use super::worker::{CHUNK, Worker};
use crate::emit::{outbox_limit, pending};
use crate::host::gucs;
use crate::host::roles::Reasons;
use crate::host::session::{self, Failed};
use crate::host::shmem::{self, limit};
use crate::log::{janitor, outbox, ring, scheduled, stream_progress};
use crate::registry::contracts;
use crate::workers::identity;
use crate::workers::process::Work;
use sea_mq_model::broker::{Request, SinkId};
use sea_mq_model::domain::position::Position;
use sea_mq_model::relay::sink::Sink;
use sea_mq_model::relay::transactions::Splits;

/// Bytes of one stream that may wait for their acknowledgement.
const MAX_BYTES: usize = 32 << 20;
/// Pauses between saves of the cursors: while busy, and when there is nothing else to do.
const SAVE_BUSY: Duration = Duration::from_millis(50);
const SAVE_IDLE: Duration = Duration::from_millis(10);
/// Between two questions for the largest message, where events are refused for it; and where somebody waits.
const BETWEEN_DOUBTS: Duration = Duration::from_secs(15);
const SOON: Duration = Duration::from_secs(1);
/// Due events moved into the log at once.
const DUE_AT_ONCE: i64 = 1000;

impl Worker {
    pub(super) fn notice_commits(&mut self, now: Instant) -> Result<(), Failed> {
        // While nothing can be published, the mark stays: then no commit wakes anybody.
        let listens = self.held.is_none() && self.relay.sinks.iter().any(Sink::is_flowing);
        let events = if listens { Reasons::EVENTS } else { Reasons::NONE };
        let reasons = self.process.take(Reasons::DESCRIPTIONS.and(events));
        let poll = now >= self.poll_at;
        if poll {
            // Where events are only kept, they are no work, but a sign of life: the log's slots are to be looked after.
            if self.held.is_some() && self.process.take(Reasons::EVENTS).has(Reasons::EVENTS) {
                self.active_at = now;
            }
            self.poll_at = now + self.poll_interval;
            if self.process.extension_changed().is_some() {
                return Err(Failed("the extension was dropped or installed anew".into()));
            }
        }
        if reasons != Reasons::NONE {
            self.active_at = now;
        }
        if reasons.has(Reasons::EVENTS) || poll {
            self.relay.wake();
        }
        if !reasons.has(Reasons::DESCRIPTIONS) && !poll {
            return Ok(());
        }
        self.doubt_limit(now);
        // A restore brings its streams in while the relay runs.
        if self.held.is_none() && session::transaction(|| identity::trouble(true))?.is_some() {
            return self.begin();
        }
        self.refresh()
    }

    /// Asks for the largest message once more, if somebody doubts it.
    fn doubt_limit(&mut self, now: Instant) {
        let Some(database) = self.process.database else { return };
        let due = match database.limit.load(Ordering::Acquire) {
            limit::KNOWN => false,
            limit::AWAITED => now + BETWEEN_DOUBTS >= self.limit_at + SOON,
            _ => now >= self.limit_at,
        };
        if due && self.relay.server().is_some() {
            self.limit_at = now + BETWEEN_DOUBTS;
            self.io.send(Request::ReadLimit);
        }
    }

    /// What the largest message is now. What was on the way is begun anew if it is another one than it was.
    pub(super) fn limit_read(&mut self, max_payload: usize) -> Result<(), Failed> {
        if self.relay.server().is_some_and(|server| server.max_payload != max_payload) {
            note!("sea_mq relay: the broker takes messages of up to {max_payload} bytes now");
            return self.begin();
        }
        self.limit_known();
        Ok(())
    }

    pub(super) fn limit_known(&self) {
        if let Some(database) = self.process.database {
            database.limit.store(limit::KNOWN, Ordering::Release);
        }
    }

    pub(super) fn keep_house(&mut self, now: Instant) -> Result<(), Failed> {
        self.move_due(now)?;
        if now >= self.janitor_at {
            janitor::run_once()?;
            self.janitor_at = Instant::now() + janitor::interval();
        }
        Ok(())
    }

    /// Says how much waits to be published, for those who emit, also while nothing can be published.
    pub(super) fn estimate_backlog(&mut self, now: Instant) -> Result<(), Failed> {
        let Some(database) = self.process.database.filter(|_| gucs::max_outbox_size().is_some()) else {
            return Ok(());
        };
        if now >= self.estimate_at {
            session::transaction(|| outbox_limit::keep(database))?;
            self.estimate_at = now + Duration::from_micros(outbox_limit::INTERVAL.unsigned_abs());
        }
        Ok(())
    }

    /// Moves events whose time has come into the log.
    pub(super) fn move_due(&mut self, now: Instant) -> Result<(), Failed> {
        if self.due_at.is_none_or(|due| due > now) {
            return Ok(());
        }
        // They are written as any transaction's events are: at pre-commit, with a place and a transaction id of now.
        session::transaction(|| {
            for event in scheduled::take_due(DUE_AT_ONCE) {
                pending::add(event, false);
            }
        })?;
        self.due_at = session::transaction(scheduled::due_in)?.map(|wait| Instant::now() + wait);
        self.relay.wake();
        Ok(())
    }

    /// Reads and publishes a chunk of each sink that has something and has room. Returns whether there may be more.
    pub(super) fn hand_on(&mut self) -> Result<bool, Failed> {
        let max = self.max_in_flight;
        let wanted: Vec<(SinkId, Position, Option<HashSet<u64>>)> = self
            .relay
            .sinks
            .iter()
            .filter(|sink| sink.wants_to_read(max, MAX_BYTES))
            .map(|sink| (sink.id(), sink.read_position().clone(), sink.kept()))
            .collect();
        if wanted.is_empty() {
            return Ok(false);
        }
        let reads = session::transaction(|| {
            let now = outbox::now();
            let read = |(id, at, kept): (SinkId, Position, Option<HashSet<u64>>)| {
                let mut read = outbox::read(id, &at, &now, CHUNK);
                contracts::name_schemas(&mut read.events);
                if let Some(kept) = kept {
                    read.find_open(id, kept);
                }
                read.events.iter_mut().for_each(|logged| logged.committed_at = shmem::commit_time(logged.xid));
                outbox::make_durable(&read.events);
                (id, read)
            };
            wanted.into_iter().map(read).collect::<Vec<_>>()
        })?;
        if reads.iter().any(|(_, read)| read.foreign) {
            return self.hold_foreign_log().map(|()| false);
        }
        let count = reads.iter().map(|(_, read)| read.events.len()).sum();
        let whole_chunk = reads.iter().any(|(_, read)| read.after.batch.is_some());
        for (id, read) in reads {
            self.publish(id, read);
        }
        let now = Instant::now();
        let pause = self.pace.read(count, now);
        // A backlog is read as fast as it goes.
        self.read_at = if whole_chunk { now } else { now + pause };
        Ok(self.read_at <= now && self.wants_to_read())
    }

    pub(super) fn wants_to_read(&self) -> bool {
        self.relay.sinks.iter().any(|sink| sink.wants_to_read(self.max_in_flight, MAX_BYTES))
    }

    pub(super) fn publish(&mut self, id: SinkId, read: outbox::Read) {
        let request = self.relay.sink(id).and_then(|sink| sink.publish(read.events, read.after, &read.open));
        request.into_iter().for_each(|request| self.io.send(request));
    }

    pub(super) fn hold_foreign_log(&mut self) -> Result<(), Failed> {
        self.hold(identity::copied("the outbox holds events that another installation wrote"))
    }

    pub(super) fn save_if_due(&mut self) -> Result<(), Failed> {
        if self.save_at().is_some_and(|at| at <= Instant::now()) { self.save() } else { Ok(()) }
    }

    /// When the cursors are to be saved, if something has changed.
    pub(super) fn save_at(&self) -> Option<Instant> {
        let idle = self.relay.sinks.iter().all(|sink| sink.in_flight() == 0);
        self.is_unsaved().then(|| self.saved_at + if idle { SAVE_IDLE } else { SAVE_BUSY })
    }

    pub(super) fn is_unsaved(&self) -> bool {
        self.relay.sinks.iter().any(Sink::is_unsaved)
    }

    pub(super) fn save(&mut self) -> Result<(), Failed> {
        let splits = self.take_splits();
        let unsaved: Vec<_> =
            self.relay.sinks.iter_mut().filter_map(|sink| Some((sink.id(), sink.take_unsaved()?))).collect();
        session::transaction(|| {
            let slot = ring::current_slot();
            for (sink, (cursor, runs)) in &unsaved {
                stream_progress::save(*sink, cursor, runs.as_slice(), slot);
            }
            splits.iter().for_each(|(sink, splits)| stream_progress::save_splits(*sink, splits));
        })?;
        self.saved_at = Instant::now();
        Ok(())
    }

    /// The transactions that were to be published as one and were not. Each reason is logged once a stream.
    fn take_splits(&mut self) -> Vec<(SinkId, Splits)> {
        let mut taken = Vec::new();
        for sink in &mut self.relay.sinks {
            let Some(splits) = sink.take_splits() else { continue };
            if self.splits_logged.insert((sink.id(), splits.reason)) {
                warning!(
                    "sea_mq relay: transaction {} was not published to stream {} as one: {}",
                    splits.xid,
                    sink.described().spec.name,
                    splits.reason.words()
                );
            }
            taken.push((sink.id(), splits));
        }
        taken
    }
}
