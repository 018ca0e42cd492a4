//! Calls services that handle messages. The messages are in the inbox, where the consumer has put them; what comes of a call is
//! recorded there, with the events that the service has answered with.

use std::time::{Duration, Instant};

use super::calls::{Called, Calls, Flight, target_number};
use super::worker::{SHOW, Worker};
use crate::deliver::calls::{self, Health};
use crate::host::session::{self, Failed};
use sea_mq_io::http::Request;
use sea_mq_io::http::target::Attempt;
use sea_mq_model::deliver::calls::Caller;

/// Messages that are taken at once.
const AT_ONCE: usize = 64;
/// What says which attempt it is. Counted from 1.
const ATTEMPT: &str = "x-sea-attempt";

impl Worker {
    /// Looks which subscriptions are to be called for.
    pub(super) fn look_at_calls(&mut self, now: Instant) -> Result<(), Failed> {
        let described = session::transaction(calls::described)?;
        let mut before = std::mem::take(&mut self.calls.called);
        for one in described {
            let Some(served) = self.served.iter().find(|served| served.described.id == one.endpoint) else { continue };
            let endpoint = &served.described;
            if endpoint.paused {
                continue;
            }
            let known = before.iter().position(|known| {
                known.id == one.id && known.endpoint == one.endpoint && known.print == endpoint.print
            });
            self.calls.called.push(match known {
                Some(place) => before.swap_remove(place),
                None => {
                    let policy = endpoint.policy();
                    let floor = before.iter().find(|known| known.id == one.id).map_or(0, |known| known.floor);
                    Called {
                        id: one.id,
                        name: one.name,
                        endpoint: one.endpoint,
                        print: endpoint.print.clone(),
                        caller: Caller::new(policy.max_in_flight, policy.rate),
                        look_at: now,
                        floor,
                        floor_since: now,
                        trouble: None,
                        shown: None,
                        shown_at: now,
                    }
                }
            });
        }
        Ok(())
    }

    /// Calls for what may be handled now.
    pub(super) fn call(&mut self, now: Instant) -> Result<(), Failed> {
        for place in 0..self.calls.called.len() {
            let called = &self.calls.called[place];
            let room = called.caller.room(now).min(AT_ONCE);
            if room == 0 || called.look_at > now {
                continue;
            }
            let flying = self.calls.flying(called.id);
            let called = &mut self.calls.called[place];
            let floor = called.floor(now);
            let (name, endpoint) = (called.name.as_str(), called.endpoint);
            let (taken, next_floor, due_in) = session::transaction(|| {
                let (taken, next_floor) = calls::take(name, endpoint, room, &flying, floor);
                let due_in = if taken.is_empty() { calls::due_in(name) } else { Some(Duration::ZERO) };
                (taken, next_floor, due_in)
            })?;
            called.floor = next_floor.unwrap_or(floor);
            // What comes is told; and all are looked at now and then.
            called.look_at = due_in.map_or(self.poll_at, |wait| (now + wait).min(self.poll_at)).max(now);
            let subscription = called.id;
            for call in taken {
                let probing = self.calls.called[place].caller.begin(now);
                let token = self.next_token;
                self.next_token += 1;
                let mut headers = call.headers;
                headers.push((ATTEMPT.into(), call.attempt.to_string()));
                let attempt = Attempt { id: call.message_id, body: call.body.into(), headers };
                self.calls.flights.insert(token, Flight { subscription, message: call.id, began: now, probing });
                self.request(Request::Send { token, endpoint: target_number(endpoint), attempt });
            }
        }
        Ok(())
    }

    /// Records what services have answered.
    pub(super) fn record_calls(&mut self) -> Result<(), Failed> {
        if self.calls.answers.is_empty() {
            return Ok(());
        }
        let answers = std::mem::take(&mut self.calls.answers);
        session::transaction(|| calls::record(&answers))?;
        // Others of their aggregates may follow.
        self.calls.look_now(Instant::now());
        Ok(())
    }

    /// Saves how calls are doing, if that has changed: now and then, and at once if the state is another one.
    pub(super) fn show_calls(&mut self, now: Instant) -> Result<(), Failed> {
        let mut changed = Vec::new();
        for called in &mut self.calls.called {
            let mut health = Health::of(&called.caller);
            if let Some(trouble) = called.trouble.as_ref().filter(|_| health.state != "active") {
                health.error_kind = Some(trouble.kind.clone());
                health.error = Some(trouble.error.clone());
                health.hint.clone_from(&trouble.hint);
            }
            let same_state = called.shown.as_ref().is_some_and(|shown| shown.state == health.state);
            if called.shown.as_ref() == Some(&health) || (same_state && now.duration_since(called.shown_at) < SHOW) {
                continue;
            }
            called.shown_at = now;
            called.shown = Some(health.clone());
            changed.push((called.name.clone(), health));
        }
        if changed.is_empty() {
            return Ok(());
        }
        session::transaction(|| changed.iter().for_each(|(name, health)| calls::save_health(name, health)))
    }

    /// Nothing is known of calls that were on their way.
    pub(super) fn begin_calls(&mut self) -> Result<(), Failed> {
        self.calls = Calls::default();
        session::transaction(calls::give_back)
    }
}
