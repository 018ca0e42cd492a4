//! What reports of the broker's side lead to in the database, and what the database describes for the broker's side.

use std::sync::atomic::Ordering;
use std::time::Instant;

use pgrx::{log, warning};

use super::worker::Worker;
use crate::host::gucs::{self, OnStreamLoss};
use crate::host::roles::Reasons;
use crate::host::session::{self, Failed};
use crate::inbox::subscriptions;
use crate::log::{journal, refused, ring, scheduled, stream_progress};
use crate::streams::{consumers, descriptions};
use crate::sys::clock;
use sea_mq_model::broker::{Fault, FaultKind, Report, Request, SinkId};
use sea_mq_model::relay::sink::{Loss, Sink};
use sea_mq_model::relay::{Effect, Phase};

impl Worker {
    pub(super) fn take_in(&mut self, report: Report) -> Result<(), Failed> {
        let report = match report {
            Report::Page { comparison, result } => return self.page_read(comparison, result),
            Report::Limit { max_payload } => return self.limit_read(max_payload),
            report => report,
        };
        let had_begun = self.relay.has_begun();
        let ended = matches!(report, Report::Disconnected(_));
        let acked = if let Report::Acked { sink, .. } = &report { Some(*sink) } else { None };
        let (requests, effects) = self.relay.report(report, Instant::now(), rand::random());
        acked.into_iter().for_each(|sink| self.count_stored(sink));
        if ended {
            self.deletions.clear();
            self.removals.clear();
        }
        if !had_begun && self.relay.has_begun() {
            // Before the streams are asked for: one that is to be deleted may come again under the same name.
            self.request_deletions()?;
        }
        requests.into_iter().for_each(|request| self.io.send(request));
        effects.into_iter().try_for_each(|effect| self.carry_out(effect))
    }

    fn count_stored(&mut self, sink: SinkId) {
        let stored = self.relay.sink(sink).map(Sink::take_stored).unwrap_or_default();
        if let Some(database) = self.process.database {
            let now = clock::now();
            database.storing.count_all(stored.into_iter().map(|ready_at| now - ready_at));
        }
    }

    pub(super) fn carry_out(&mut self, effect: Effect) -> Result<(), Failed> {
        match effect {
            Effect::Relay { phase, fault, failures } => self.relay_changed(phase, fault, failures),
            Effect::Stream { sink, fault } => self.stream_changed(sink, fault),
            Effect::Drifted { sink, what } => {
                if let Some(known) = self.relay.sink(sink) {
                    warning!("sea_mq relay: stream {} was changed: {what}", known.described().spec.name);
                }
                // What it is like now is to be recorded, also if it is ready as before.
                self.logged.remove(&sink);
                Ok(())
            }
            Effect::Refused { sink, id, seq, fault } => {
                warning!("sea_mq relay: the broker refuses event {id} for good: {fault}");
                session::transaction(|| refused::save(sink, id, seq, &fault.message))
            }
            Effect::Lost { sink, loss } => self.stream_lost(sink, loss),
            Effect::Doubtful { sink, messages } => self.judge(sink, messages),
            Effect::Fenced(fault) => self.fenced(&fault),
            Effect::Cleared { epoch, fault } => self.cleared(epoch, fault.as_ref()),
            Effect::Consumer { stream, name, fault } => {
                session::transaction(|| consumers::save_state(&stream, &name, fault.as_ref()))
            }
            Effect::ConsumerDeleted { stream, name, fault } => {
                let rest = self.removals.end(stream, name, fault, Instant::now());
                session::transaction(|| consumers::save_removal(&rest.stream, &rest.name, rest.error.as_deref()))
            }
            Effect::Deleted { name, fault } => self.stream_deleted(&name, fault),
        }
    }

    pub(super) fn relay_changed(&mut self, phase: Phase, fault: Option<Fault>, failures: u32) -> Result<(), Failed> {
        if let Some(database) = self.process.database {
            let limit = self.relay.server().map_or(0, |server| server.max_payload as u64);
            database.max_payload.store(limit, Ordering::Release);
            if limit > 0 {
                self.limit_known();
            }
        }
        if let Some(fault) = fault.as_ref().filter(|_| self.verification.is_some()) {
            self.refuse_verification(fault)?;
        }
        let repeated = self.last_relay == Some((phase, fault.as_ref().map(|fault| fault.message.clone())));
        if repeated {
            return Ok(());
        }
        match &fault {
            Some(fault) => warning!("sea_mq relay: no connection to the broker: {fault}"),
            None => {
                log!("sea_mq relay: connected to {}", self.relay.server().map_or("", |server| server.address.as_str()))
            }
        }
        self.save_relay(phase, fault.as_ref().map(consumers::Trouble::from), failures)
    }

    pub(super) fn stream_changed(&mut self, sink: SinkId, fault: Option<Fault>) -> Result<(), Failed> {
        // Others publish there, or an acknowledgement was lost; what follows from it shows when the tail is read.
        let passing = [FaultKind::WrongSequence, FaultKind::DuplicateInBatch, FaultKind::BatchRefused];
        if let Some(fault) = fault.as_ref().filter(|fault| passing.contains(&fault.kind)) {
            if self.passing.insert(sink, fault.clone()).as_ref() != Some(fault) {
                log!("sea_mq relay: {fault}");
            }
            return Ok(());
        }
        let Some(known) = self.relay.sink(sink) else { return Ok(()) };
        let told = fault.clone().or_else(|| known.declined().cloned());
        if self.logged.insert(sink, told.clone()) == Some(told) {
            return Ok(());
        }
        let name = known.described().spec.name.clone();
        let take_over = fault.is_none() && known.described().spec.take_over;
        if take_over {
            self.taken_over(sink)?;
        }
        let Some(known) = self.relay.sink(sink) else { return Ok(()) };
        match &fault {
            Some(fault) => warning!("sea_mq relay: stream {name} is not available: {fault}"),
            None => log!("sea_mq relay: stream {name} is ready"),
        }
        let ready = fault.is_none();
        if let Some(declined) = known.declined().filter(|_| ready) {
            warning!("sea_mq relay: stream {name} is used as it is: {declined}");
        }
        let state = descriptions::State {
            state: if ready { "ready" } else { "refused" },
            fault: fault.or_else(|| known.declined().cloned()),
            ordering: known.ordering().token(),
            differences: known.differences().clone(),
            marked_us: known.marked_us(),
        };
        session::transaction(|| {
            descriptions::save_state(sink, &state);
            if ready {
                consumers::reopen(&name);
            }
        })?;
        if ready {
            if let Some(database) = self.process.database {
                database.note(Reasons::STREAMS);
            }
            self.provision_consumers()?;
        }
        Ok(())
    }

    pub(super) fn stream_lost(&mut self, sink: SinkId, loss: Loss) -> Result<(), Failed> {
        let Some(lossy) = self.relay.sink(sink) else { return Ok(()) };
        let name = lossy.described().spec.name.clone();
        let what = format!("the broker lost stream {name} from sequence {} to {}", loss.left + 1, loss.recorded);
        warning!("sea_mq relay: {what}");
        if self.verification.is_some() {
            self.refuse_verification(&Fault::new(FaultKind::Server, what.as_str()))?;
        }
        let Some(lossy) = self.relay.sink(sink) else { return Ok(()) };
        if gucs::on_stream_loss() == OnStreamLoss::Pause {
            lossy.pause();
            let fault = Fault::new(FaultKind::Server, format!("{what}; sea_mq.on_stream_loss is pause"));
            let state = descriptions::State {
                state: "paused",
                fault: Some(fault),
                ordering: "strict",
                differences: Default::default(),
                marked_us: None,
            };
            return session::transaction(|| {
                descriptions::save_loss(sink, &what);
                descriptions::save_state(sink, &state);
            });
        }
        if lossy.is_refilling() {
            session::transaction(|| descriptions::save_loss(sink, &what))?;
            return self.refill_anew(sink);
        }
        let from = session::transaction(|| {
            descriptions::save_loss(sink, &what);
            journal::rewind(sink, loss.left)
        })?;
        if from.is_none() {
            warning!("sea_mq relay: nothing of it is retained in the outbox; going on with what is unpublished");
        }
        let Some(lossy) = self.relay.sink(sink) else { return Ok(()) };
        let (position, sequence) = from.unwrap_or_else(|| (lossy.settled().position.clone(), loss.left));
        let request = lossy.rewind(position, sequence);
        request.into_iter().for_each(|request| self.io.send(request));
        self.stream_changed(sink, None)
    }

    /// Looks once more at what was published from place `seq` in the log on, as somebody has asked.
    pub(super) fn refill(&mut self, id: SinkId, seq: i64) -> Result<(), Failed> {
        // What was stored is to be in the journal.
        self.save()?;
        let (seq, beyond) = session::transaction(|| journal::refill_start(id, seq))?;
        let Some(sink) = self.relay.sink(id) else { return Ok(()) };
        let beyond = beyond.unwrap_or(u64::MAX).min(sink.settled().stream_sequence);
        let request = sink.refill(seq, beyond);
        log!("sea_mq relay: stream {} is refilled from place {seq} in the log on", sink.described().spec.name);
        self.begin_refill(id, seq, request)
    }

    /// The stream lost data while it was being refilled.
    fn refill_anew(&mut self, id: SinkId) -> Result<(), Failed> {
        self.save()?;
        let request = self.relay.sink(id).and_then(Sink::refill_anew);
        self.begin_refill(id, 1, request)
    }

    fn begin_refill(&mut self, id: SinkId, seq: i64, request: Option<Request>) -> Result<(), Failed> {
        let Some(cursor) = self.relay.sink(id).map(|sink| sink.settled().clone()) else { return Ok(()) };
        session::transaction(|| {
            journal::begin_refill(id, seq);
            stream_progress::save(id, &cursor, &[], ring::current_slot());
        })?;
        // It may have been paused: that it is ready again is to be told.
        self.logged.remove(&id);
        request.into_iter().for_each(|request| self.io.send(request));
        Ok(())
    }

    /// Reads the descriptions of streams and consumers, and when the next scheduled event is due.
    pub(super) fn refresh(&mut self) -> Result<(), Failed> {
        for (context, kind) in session::transaction(descriptions::requests)? {
            session::transaction(|| descriptions::grant(&context, kind))?;
        }
        let (described, due) = session::transaction(|| (descriptions::all(), scheduled::due_in()))?;
        self.due_at = due.map(|wait| Instant::now() + wait);
        self.relay.sinks.retain(|sink| described.iter().any(|stream| stream.sink == sink.id()));
        let mut requests = Vec::new();
        if self.relay.has_begun() {
            self.request_deletions()?;
        }
        for stream in described {
            match self.relay.sink(stream.sink) {
                Some(sink) if *sink.described() == stream => {}
                Some(sink) => requests.extend(sink.describe(stream)),
                None => {
                    let id = stream.sink;
                    let (cursor, failures, marked_us) = session::transaction(|| {
                        (stream_progress::load(id), refused::places(id), descriptions::marked_us(id))
                    })?;
                    let mut sink = Sink::new(stream, cursor, failures.into_iter().collect());
                    sink.set_marked(marked_us);
                    requests.extend(self.relay.add(sink));
                }
            }
        }
        requests.into_iter().for_each(|request| self.io.send(request));
        for (sink, seq) in session::transaction(journal::refills)? {
            self.refill(sink, seq)?;
        }
        if self.relay.has_begun() {
            self.provision_consumers()?;
        }
        Ok(())
    }

    pub(super) fn provision_consumers(&mut self) -> Result<(), Failed> {
        let (wanted, unwanted, owner) =
            session::transaction(|| (consumers::open(), consumers::removals(), subscriptions::owner()))?;
        wanted.into_iter().for_each(|spec| self.io.send(Request::EnsureConsumer { spec: Box::new(spec) }));
        let now = Instant::now();
        for (stream, name) in unwanted {
            if self.removals.begin(&stream, &name, now) {
                self.io.send(Request::DeleteConsumer { stream, name, owner });
            }
        }
        Ok(())
    }

    /// Has the broker delete streams. One is asked for again when there is an answer for it.
    fn request_deletions(&mut self) -> Result<(), Failed> {
        for descriptions::Deletion { name, owner, created_us } in session::transaction(descriptions::deletions)? {
            if self.deletions.insert(name.clone()) {
                self.io.send(Request::DeleteStream { name, owner, created_us });
            }
        }
        Ok(())
    }

    fn stream_deleted(&mut self, name: &str, fault: Option<Fault>) -> Result<(), Failed> {
        self.deletions.remove(name);
        let known = session::transaction(|| {
            descriptions::save_deletion(name, fault.as_ref().map(|fault| fault.message.as_str()))
        })?;
        if let Some(fault) = fault.filter(|_| !known) {
            warning!("sea_mq relay: {fault}");
        }
        Ok(())
    }
}
