//! Other relays: who has the lease, and what they have stored in our streams.

use std::collections::HashMap;

use pgrx::{log, warning};

use super::worker::Worker;
use crate::host::door::Manner;
use crate::host::installation::{self, Divergence};
use crate::host::roles::Reasons;
use crate::host::session::{self, Failed};
use crate::log::fate;
use crate::streams::consumers::Trouble;
use crate::streams::descriptions;
use crate::workers::process::Work;
use sea_mq_io::nats::{self, NatsIo};
use sea_mq_model::broker::{Fault, FaultKind, Request, SinkId, Stored};
use sea_mq_model::relay::Phase;
use sea_mq_model::relay::sink::Ordering;

/// Ids looked up at once.
const IDS_AT_ONCE: usize = 10_000;

impl Worker {
    /// Another relay publishes for the installation: this database keeps quiet until somebody says that it is to go on.
    pub(super) fn fenced(&mut self, fault: &Fault) -> Result<(), Failed> {
        warning!("sea_mq relay: {fault}; nothing is published here until sea_mq.adopt() is called");
        // What is on its way ends with its connection.
        self.io = new_io()?;
        self.save()?;
        // A crash must not take it back; and no standby is waited for, which may be the very one that was promoted.
        let manner = Manner { commit: Some(c"local"), ..Manner::default() };
        session::transaction_in(manner, || installation::fence(&fault.message))?;
        self.wake_consumer();
        self.begin()
    }

    /// No other relay is in the way.
    pub(super) fn cleared(&mut self, epoch: Option<u64>, fault: Option<&Fault>) -> Result<(), Failed> {
        let news = Some((epoch, fault.map(|fault| fault.message.clone())));
        if self.cleared == news {
            return Ok(());
        }
        match (fault, epoch) {
            (Some(fault), _) => {
                warning!("sea_mq relay: cannot find out whether another relay publishes for this installation: {fault}")
            }
            (None, Some(epoch)) => log!("sea_mq relay: has the installation's lease, epoch {epoch}"),
            (None, None) => {}
        }
        self.cleared = news;
        session::transaction(|| installation::clear(&self.server, epoch))?;
        self.wake_consumer();
        Ok(())
    }

    fn wake_consumer(&self) {
        if let Some(database) = self.process.database {
            database.note(Reasons::STREAMS);
        }
    }

    /// Decides about messages in the tail of a stream that may be none of the log's events.
    pub(super) fn judge(&mut self, sink: SinkId, messages: Vec<Stored>) -> Result<(), Failed> {
        let Some(known) = self.relay.sink(sink) else { return Ok(()) };
        let (own, proven) = (known.is_own(), known.is_proven());
        let known_shared = known.ordering() == Ordering::Shared;
        let (stream, created) = (known.described().spec.name.clone(), known.settled().stream_created_us.unwrap_or(0));
        // Where the lease cannot be had, another relay beside this one is a publisher like any other.
        let leased = matches!(self.cleared, Some((Some(_), _)));
        let is_ours = |message: &Stored| own && message.counted && (leased || !proven);
        let (ours, foreign): (Vec<_>, Vec<_>) = unknown(messages)?.into_iter().partition(is_ours);
        if !foreign.is_empty() && !known_shared {
            self.share(sink)?;
        }
        let accepted = session::transaction(|| installation::accepted_up_to(sink, created))?;
        let lost: Vec<_> = ours.into_iter().filter(|message| message.sequence > accepted).collect();
        if let Some(found) = divergence(&stream, created, &lost) {
            // Last words of a relay that was stopped when this one took over: the database is no older than that.
            let accept = proven || self.accepting.contains(&sink);
            session::transaction(|| installation::note_divergence(sink, &found, accept))?;
            if !accept {
                return self.hold_diverged(&found);
            }
            // Of whoever had the stream before, if it was taken over.
            let Divergence { stream, events, last, .. } = &found;
            log!(
                "sea_mq relay: stream {stream} holds {events} of a relay before this one, up to sequence {}; going on behind them",
                last.1
            );
        }
        let request = self.relay.judged(sink);
        request.into_iter().for_each(|request| self.io.send(request));
        Ok(())
    }

    fn share(&mut self, sink: SinkId) -> Result<(), Failed> {
        let Some(shared) = self.relay.sink(sink) else { return Ok(()) };
        warning!(
            "sea_mq relay: others publish to stream {} as well; its order is no longer strict",
            shared.described().spec.name
        );
        shared.share();
        self.logged.remove(&sink);
        self.stream_changed(sink, None)
    }

    fn hold_diverged(&mut self, found: &Divergence) -> Result<(), Failed> {
        let error =
            format!("{}; nothing is published, so that somebody can decide what becomes of them", in_words(found));
        warning!("sea_mq relay: {error}");
        self.hold(Trouble {
            kind: FaultKind::Diverged.token().into(),
            error,
            hint: FaultKind::Diverged.hint().map(str::to_owned),
        })
    }

    /// Stops until somebody decides.
    pub(super) fn hold(&mut self, trouble: Trouble) -> Result<(), Failed> {
        self.held = Some(Phase::Paused);
        self.io.send(Request::Shutdown);
        self.save_relay(Phase::Paused, Some(trouble), 0)
    }

    /// The descriptions are `sea_mq.adopt()`'s: what the stream holds by now is accepted.
    pub(super) fn taken_over(&mut self, sink: SinkId) -> Result<(), Failed> {
        self.accepting.insert(sink);
        session::transaction(|| descriptions::taken_over(sink))
    }
}

/// Starts the I/O thread anew: what the one before still sends or reports is nobody's.
pub(super) fn new_io() -> Result<NatsIo, Failed> {
    nats::spawn().map_err(|error| Failed(format!("cannot start the I/O thread: {error}")))
}

/// The messages that are none of the log's events.
fn unknown(messages: Vec<Stored>) -> Result<Vec<Stored>, Failed> {
    let mut known = HashMap::new();
    for chunk in messages.chunks(IDS_AT_ONCE) {
        let ids: Vec<String> = chunk.iter().filter_map(|message| message.message_id.clone()).collect();
        known.extend(session::transaction(|| fate::places(&ids))?);
    }
    let is_unknown = |message: &Stored| message.message_id.as_ref().is_none_or(|id| !known.contains_key(id));
    Ok(messages.into_iter().filter(is_unknown).collect())
}

fn divergence(stream: &str, stream_created_us: i64, lost: &[Stored]) -> Option<Divergence> {
    let place = |message: &Stored| (message.message_id.clone().unwrap_or_default(), message.sequence);
    Some(Divergence {
        stream: stream.to_owned(),
        stream_created_us,
        events: lost.len(),
        first: place(lost.first()?),
        last: place(lost.last()?),
    })
}

fn in_words(found: &Divergence) -> String {
    let Divergence { stream, events, first, last, .. } = found;
    format!(
        "stream {stream} holds {events} {} of this installation that the database does not know, from {} (sequence {}) to {} (sequence {})",
        if *events == 1 { "event" } else { "events" },
        first.0,
        first.1,
        last.0,
        last.1
    )
}
