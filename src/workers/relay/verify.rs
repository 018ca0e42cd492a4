//! Comparing a stream with the log for a session that asked, in parts between which the relay goes on publishing.
//!
//! Compared is what the journal says was stored in the stream when the session asked.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::worker::{CHUNK, Worker};
use crate::host::inquiry;
use crate::host::session::{self, Failed};
use crate::host::shmem::Database;
use crate::log::{fate, journal, outbox};
use crate::streams::findings;
use sea_mq_model::broker::{Fault, FaultKind, Page, Request, SinkId};
use sea_mq_model::domain::content;
use sea_mq_model::domain::position::{Batch, Moment, Position};
use sea_mq_model::domain::runs::Run;
use sea_mq_model::relay::compare::{Comparison, Finding, Place, Stored};
use sea_mq_model::relay::sink::Sink;

/// Between two looks whether the session still waits.
const LOOK: Duration = Duration::from_secs(1);
/// A stream that is not ready is waited for as long as this: it is not for a moment after its description has changed.
const READY_WITHIN: Duration = Duration::from_secs(5);
/// Findings that are kept; the others are counted.
const MOST_FINDINGS: u64 = 10_000;
/// Runs of the journal read at once.
const RUNS: i64 = 200;

pub(super) struct Verification {
    /// Tells it from those before it, of which pages may be on their way still.
    number: u64,
    sink: SinkId,
    stream: String,
    /// Stream sequence at which the comparison ends.
    upto: u64,
    comparison: Comparison,
    runs: VecDeque<Run>,
    /// Stream sequence with which the last run begins that was read from the journal.
    runs_read: u64,
    /// The run under way: stream sequence of its next event, and where to read it.
    run: Option<(u64, Position)>,
    /// The stream was read up to this sequence.
    read: u64,
    /// A page is on its way.
    asked: bool,
    look_at: Instant,
}

impl Worker {
    /// Does a part of what a session has asked for. Returns whether there is more that need not wait for the broker.
    pub(super) fn verify(&mut self, now: Instant) -> Result<bool, Failed> {
        let Some(database) = self.process.database else { return Ok(false) };
        if let Some(sink) = database.inquiry.take() {
            // Whoever asked before does not wait any more.
            self.verification = None;
            self.to_verify = Some((sink, now + READY_WITHIN));
        }
        if let Some((sink, until)) = self.to_verify
            && (self.ready(sink).is_some() || self.relay.is_cut_off() || now >= until)
        {
            self.to_verify = None;
            self.begin_verification(database, sink, now)?;
        }
        let Some(verification) = &mut self.verification else { return Ok(false) };
        if now >= verification.look_at {
            verification.look_at = now + LOOK;
            if !session::transaction(inquiry::is_awaited)? {
                self.verification = None;
                return Ok(false);
            }
        }
        if let Some(request) = verification.next_page() {
            self.io.send(request);
        }
        let ended = verification.go_on(database)?;
        let more = !ended && !verification.waits();
        if ended {
            self.verification = None;
            database.inquiry.answer();
        }
        Ok(more)
    }

    fn ready(&mut self, sink: SinkId) -> Option<&Sink> {
        self.relay.sink(sink).map(|sink| &*sink).filter(|sink| sink.is_flowing())
    }

    fn begin_verification(&mut self, database: &Database, sink: SinkId, now: Instant) -> Result<(), Failed> {
        // What was stored is to be in the journal.
        self.save()?;
        session::transaction(findings::clear)?;
        let Some(ready) = self.ready(sink) else {
            return self.refuse_verification(&Fault::new(FaultKind::Server, "the stream is not ready"));
        };
        if ready.is_refilling() {
            return self.refuse_verification(&Fault::new(FaultKind::Server, "it is being refilled"));
        }
        let (stream, upto) = (ready.described().spec.name.clone(), ready.settled().stream_sequence);
        self.verifications += 1;
        let mut verification = Verification {
            number: self.verifications,
            sink,
            stream,
            upto,
            comparison: Comparison::default(),
            runs: VecDeque::new(),
            runs_read: 0,
            run: None,
            read: upto,
            asked: false,
            look_at: now + LOOK,
        };
        session::transaction(|| verification.read_runs())?;
        if let Some(first) = verification.runs.front().and_then(|run| run.first_stream_seq) {
            verification.read = first.saturating_sub(1);
        }
        database.inquiry.whole.store(upto - verification.read, Ordering::Relaxed);
        self.verification = Some(verification);
        Ok(())
    }

    /// A part of a stream was read, or could not be.
    pub(super) fn page_read(&mut self, comparison: u64, result: Result<Page, Fault>) -> Result<(), Failed> {
        let Some(verification) = self.verification.as_mut().filter(|under_way| under_way.number == comparison) else {
            return Ok(());
        };
        match result {
            Ok(page) => {
                if let Some(database) = self.process.database {
                    let compared = page.upto.saturating_sub(verification.read);
                    database.inquiry.compared.fetch_add(compared, Ordering::Relaxed);
                }
                verification.take(page);
                Ok(())
            }
            Err(fault) => self.refuse_verification(&fault),
        }
    }

    /// There will be no answer.
    pub(super) fn refuse_verification(&mut self, fault: &Fault) -> Result<(), Failed> {
        self.verification = None;
        let Some(database) = self.process.database else { return Ok(()) };
        let hint = fault.kind.hint().unwrap_or("See sea_mq.stream_status; ask again when the stream is ready.");
        let message = format!("the stream cannot be compared: {fault}");
        session::transaction(|| findings::save_trouble(&message, hint))?;
        database.inquiry.answer();
        Ok(())
    }
}

impl Verification {
    fn next_page(&mut self) -> Option<Request> {
        if self.asked || !self.comparison.wants_messages() {
            return None;
        }
        if self.read >= self.upto {
            self.comparison.see(Vec::new(), 0, true);
            return None;
        }
        self.asked = true;
        let stream = self.stream.clone();
        Some(Request::ReadPage { comparison: self.number, stream, after: self.read, upto: self.upto })
    }

    /// Nothing can be done before a page comes.
    fn waits(&self) -> bool {
        self.asked && self.comparison.wants_messages() && !self.comparison.wants_places()
    }

    fn take(&mut self, page: Page) {
        self.asked = false;
        self.read = self.read.max(page.upto);
        self.comparison.see(page.messages, page.first_sequence, self.read >= self.upto);
    }

    /// Compares a part. Returns whether it was the last one.
    fn go_on(&mut self, database: &Database) -> Result<bool, Failed> {
        if self.comparison.wants_places() {
            let (places, end) = session::transaction(|| self.next_places())?;
            self.comparison.expect(places, end);
        }
        let ended = self.comparison.run();
        let ids = self.comparison.unknown_ids();
        let known = if ids.is_empty() { Default::default() } else { session::transaction(|| fate::places(&ids))? };
        self.comparison.judge(&known);
        if ended {
            self.comparison.end();
        }
        save(database, &self.comparison.take_findings())?;
        Ok(ended)
    }

    /// The next events in the order of the stream, and whether they are the last ones.
    fn next_places(&mut self) -> (Vec<Place>, bool) {
        let now = outbox::now();
        let mut places = Vec::new();
        while places.len() < CHUNK.events {
            let Some((mut stream_sequence, position)) = self.run.take().or_else(|| self.next_run(&mut places)) else {
                return (places, true);
            };
            let read = outbox::read(self.sink, &position, &now, CHUNK);
            for logged in read.events {
                let digest = content::digest(&logged.event.subject(), logged.event.payload.as_bytes());
                places.push(Place::Event(Stored { stream_sequence, id: logged.event.id, seq: logged.seq, digest }));
                stream_sequence += 1;
            }
            self.run = read.after.batch.is_some().then_some((stream_sequence, read.after));
        }
        (places, false)
    }

    /// The next run of which all events are retained. Those before it are noted as forgotten.
    fn next_run(&mut self, places: &mut Vec<Place>) -> Option<(u64, Position)> {
        loop {
            if self.runs.is_empty() {
                self.read_runs();
            }
            let run = self.runs.pop_front()?;
            let first = run.first_stream_seq?;
            let upto = Moment { snapshot: run.upto, next_xid: 0, ceiling: run.last_seq };
            let batch = Batch { upto, at: run.first_seq - 1 };
            let position = Position { done: run.done, next_xid: 0, floor: 0, batch: Some(batch) };
            if outbox::count(self.sink, &position) == run.events {
                return Some((first, position));
            }
            places.push(Place::Forgotten { first, last: first + run.events.saturating_sub(1) });
        }
    }

    fn read_runs(&mut self) {
        self.runs.extend(journal::runs(self.sink, self.runs_read, self.upto, RUNS));
        self.runs_read = self.runs.back().and_then(|run| run.first_stream_seq).unwrap_or(self.runs_read);
    }
}

fn save(database: &Database, found: &[Finding]) -> Result<(), Failed> {
    if found.is_empty() {
        return Ok(());
    }
    let before = database.inquiry.findings.fetch_add(found.len() as u64, Ordering::Relaxed);
    let room = usize::try_from(MOST_FINDINGS.saturating_sub(before)).unwrap_or(0);
    session::transaction(|| found.iter().take(room).for_each(findings::save))
}
