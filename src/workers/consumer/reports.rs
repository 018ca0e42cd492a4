//! What reports of the broker's side lead to in the database, and what the database describes for the broker's side.

use std::rc::Rc;
use std::time::{Duration, Instant};

use pgrx::{log, warning};

use super::mirror;
use super::served::Served;
use super::worker::Worker;
use crate::host::session::{self, Failed};
use crate::inbox::subscriptions::{self, Subscription};
use crate::inbox::{dead_letters, waiting};
use crate::log::progress;
use crate::streams::consumers::Trouble;
use sea_mq_model::broker::{Fault, FaultKind, Report, Request, SubscriptionId};
use sea_mq_model::consume::Notice;
use sea_mq_model::consume::intake::Described;
use sea_mq_model::consume::missed::Gap;
use sea_mq_model::domain::outcome::Outcome;
use sea_mq_model::pipeline::Effect;

/// Messages of one subscription that the I/O thread may hold, whatever `max_ack_pending` is.
const MAX_WINDOW: usize = 2000;

impl Worker {
    pub(super) fn take_in(&mut self, report: Report) -> Result<(), Failed> {
        let (requests, notices) = self.consumer.report(report, Instant::now(), rand::random());
        if notices.contains(&Notice::Connection { fault: None }) {
            self.letters.forget();
            // Before any consumer is asked for: one that is to be removed may come again under the same name.
            self.request_removals()?;
        }
        self.send(requests);
        notices.into_iter().try_for_each(|notice| self.carry_out(notice))
    }

    fn carry_out(&mut self, notice: Notice) -> Result<(), Failed> {
        match notice {
            Notice::Connection { fault: None } => {
                log!("sea_mq consumer: connected to the broker");
                Ok(())
            }
            Notice::Connection { fault: Some(fault) } => {
                self.removals.clear();
                let trouble = Trouble::from(&fault);
                let mut receiving = self.served.iter_mut().filter(|served| !served.is_blocked());
                receiving.try_for_each(|served| served.set_state("waiting", Some(trouble.clone())))
            }
            Notice::Subscription { id, fault } => self.subscription_changed(id, fault),
            Notice::MaxAge { id, max_age } => match self.served.iter().find(|served| served.subscription.id == id) {
                Some(served) => {
                    session::transaction(|| subscriptions::save_max_age(&served.subscription.name, max_age))
                }
                None => Ok(()),
            },
            Notice::Drifted { id, what } => {
                if let Some(served) = self.served.iter().find(|served| served.subscription.id == id) {
                    warning!("sea_mq consumer: the consumer of {} was changed: {what}", served.subscription.name);
                }
                Ok(())
            }
            Notice::Missed { id, gap, removed } => self.missed(id, gap, removed),
            Notice::Deleted { stream, name, fault } => {
                let rest = self.removals.end(stream, name, fault, Instant::now());
                session::transaction(|| {
                    subscriptions::save_deletion(&rest.stream, &rest.name, rest.error.as_deref());
                })
            }
            Notice::Removed { stream, sequence, fault } => {
                self.letters.answered(stream, sequence, fault);
                Ok(())
            }
        }
    }

    /// Messages were removed from the stream before the subscription got them.
    fn missed(&mut self, id: SubscriptionId, gap: Gap, removed: u64) -> Result<(), Failed> {
        let Some(served) = self.served.iter().find(|served| served.subscription.id == id) else { return Ok(()) };
        let Subscription { name, stream, .. } = &*served.subscription;
        let most = if gap.at_most.is_some() { "up to " } else { "" };
        warning!(
            "sea_mq consumer: {most}{removed} messages were removed from stream {stream} before {name} got them (sequences {} to {})",
            gap.first,
            gap.last
        );
        session::transaction(|| subscriptions::save_missed(name, &gap, removed))
    }

    fn subscription_changed(&mut self, id: SubscriptionId, fault: Option<Fault>) -> Result<(), Failed> {
        let info = self.consumer.intake(id).and_then(|intake| intake.info().copied());
        let Some(served) = self.served.iter_mut().find(|served| served.subscription.id == id) else {
            // The relay makes the stream in a moment.
            let passing = [FaultKind::StreamMissing, FaultKind::StreamVanished, FaultKind::Leaderless];
            match fault.filter(|fault| !passing.contains(&fault.kind)) {
                None => drop(self.mirrors.remove(&id)),
                // It is tried again and again; that is said once.
                Some(fault) => {
                    if self.mirrors.get(&id) != Some(&fault) {
                        warning!("sea_mq consumer: dead letters of other services cannot be read: {fault}");
                    }
                    self.mirrors.insert(id, fault);
                }
            }
            return Ok(());
        };
        let Some(fault) = fault else {
            if let Some(info) = info {
                let Subscription { id, name, max_ack_pending, .. } = &*served.subscription;
                let allowed = info.max_ack_pending;
                let other = session::transaction(|| {
                    subscriptions::save_max_age(name, info.stream_max_age);
                    progress::save_info(*id, &info);
                    subscriptions::save_allowed(name, allowed)
                })?;
                if other && usize::try_from(allowed).is_ok_and(|allowed| allowed < *max_ack_pending) {
                    log!(
                        "sea_mq consumer: the broker allows subscription {name} {allowed} unacknowledged messages, not {max_ack_pending}; it goes on with these"
                    );
                }
            }
            if served.subscription.take_over {
                session::transaction(|| subscriptions::taken_over(&served.subscription.name))?;
            }
            return served.set_state("active", None);
        };
        let waits = matches!(
            fault.kind,
            FaultKind::StreamMissing
                | FaultKind::StreamVanished
                | FaultKind::Leaderless
                | FaultKind::ConsumerMissing
                | FaultKind::ConsumerPaused
                | FaultKind::Timeout
                | FaultKind::Unreachable
                | FaultKind::Isolated
        );
        let mut trouble = Trouble::from(&fault);
        if fault.kind == FaultKind::StreamMissing {
            trouble.hint = Some(
                "It is there once the first event of its context is published; see sea_mq.subscribe for source.".into(),
            );
        }
        served.set_state(if waits { "waiting" } else { "refused" }, Some(trouble))
    }

    /// Looks for changed descriptions and at what waits.
    pub(super) fn look(&mut self) -> Result<(), Failed> {
        let assigned = self.assign_lanes()?;
        let print = session::transaction(subscriptions::fingerprint)?;
        if assigned || self.fingerprint.as_ref() != Some(&print) {
            self.refresh()?;
            self.fingerprint = Some(print);
            return Ok(());
        }
        self.served.iter_mut().try_for_each(|served| {
            // Somebody may have fixed what kept it from being handled.
            if served.is_blocked() {
                served.blocked_until = None;
            }
            served.look()
        })?;
        if self.consumer.is_connected() { self.request_removals() } else { Ok(()) }
    }

    /// Reads the descriptions of subscriptions, and what waits for them.
    pub(super) fn refresh(&mut self) -> Result<(), Failed> {
        let subscriptions::All { sound: described, unusable } = session::transaction(subscriptions::all)?;
        for (name, trouble) in unusable {
            warning!("sea_mq consumer: subscription {name} is blocked: {}", trouble.error);
            session::transaction(|| subscriptions::save_state(&name, "blocked", Some(&trouble)))?;
        }
        let mut before = std::mem::take(&mut self.served);
        for (subscription, _) in &described {
            let known = before.iter().position(|served| served.subscription.id == subscription.id);
            let mut served = match known.map(|place| before.swap_remove(place)) {
                Some(mut served) => {
                    if *served.subscription != *subscription {
                        served.subscription = Rc::new(subscription.clone());
                        served.blocked_until = None;
                    }
                    served
                }
                None => Served::new(Rc::new(subscription.clone())),
            };
            served.look()?;
            match &self.held {
                Some(trouble) => served.set_state("waiting", Some(trouble.clone()))?,
                None if self.is_local() => served.set_state("active", None)?,
                None => {}
            }
            self.served.push(served);
        }
        self.describe_intakes(&described)
    }

    fn describe_intakes(
        &mut self,
        described: &[(Subscription, Option<sea_mq_model::broker::Resume>)],
    ) -> Result<(), Failed> {
        if self.is_local() || self.held.is_some() {
            return Ok(());
        }
        let mut wanted: Vec<Described> = described
            .iter()
            .map(|(subscription, resume)| Described {
                id: subscription.id,
                spec: subscription.consumer(*resume),
                window: subscription.max_ack_pending.min(MAX_WINDOW),
                held: subscription.paused,
            })
            .collect();
        let (mirrored, owner) = session::transaction(|| (dead_letters::mirrored_streams(), subscriptions::owner()))?;
        wanted.extend(mirrored.into_iter().map(|stream| mirror::described(stream, owner)));
        let ids: Vec<SubscriptionId> = wanted.iter().map(|described| described.id).collect();
        let gone = self.consumer.keep(|id| ids.contains(&id));
        self.send(gone);
        if self.consumer.is_connected() {
            self.request_removals()?;
        }
        for described in wanted {
            let requests = self.consumer.describe(described);
            self.send(requests);
        }
        Ok(())
    }

    /// Has the broker remove consumers of subscriptions that are gone, and dead letters that were dealt with.
    fn request_removals(&mut self) -> Result<(), Failed> {
        let (consumers, owner) = session::transaction(|| (subscriptions::deletions(), subscriptions::owner()))?;
        let now = Instant::now();
        for (stream, name) in consumers {
            // One that was asked for in this session is not asked for again: the name may have come back meanwhile.
            if self.removals.begin(&stream, &name, now) {
                self.io.send(Request::DeleteConsumer { stream, name, owner });
            }
        }
        self.request_message_removals()
    }

    /// Ends the attempts of processes that are gone: those that began longer ago than `age`, in lanes that nobody handles just now.
    pub(super) fn recover(&mut self, age: Duration) -> Result<(), Failed> {
        for served in self
            .served
            .iter_mut()
            .filter(|served| served.waiting > 0 && served.subscription.effect() == Effect::Handler)
        {
            let Subscription { id, name, workers, .. } = &*served.subscription;
            let lanes: Vec<i16> = (0..(*workers).max(1)).filter(|lane| !self.pool.has(*id, *lane)).collect();
            let mut ended = 0;
            for lane in lanes {
                ended += session::transaction(|| waiting::conclude_abandoned(name, lane, age, &Outcome::Crashed))?;
            }
            if ended > 0 {
                served.look()?;
            }
        }
        Ok(())
    }

    /// Puts the wanted number of workers in force where that is possible now. Returns whether it was somewhere.
    fn assign_lanes(&mut self) -> Result<bool, Failed> {
        let mut any = false;
        for served in &self.served {
            let Subscription { id, name, workers, wanted_workers, .. } = &*served.subscription;
            if workers != wanted_workers && !self.pool.has_some(*id) {
                any |= session::transaction(|| waiting::assign_lanes(name, *wanted_workers))?;
            }
        }
        Ok(any)
    }
}
