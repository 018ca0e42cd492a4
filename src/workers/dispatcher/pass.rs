//! What a pass does beside reading and recording: takes answers in, sends, says how endpoints are doing.

use std::time::{Duration, Instant};

use uuid::Uuid;

use super::recording::{End, Result as Recorded};
use super::served::Trouble;
use super::worker::{Flight, SHOW, Worker};
use crate::deliver::{deliveries, endpoints};
use crate::host::gucs;
use crate::host::session::{self, Failed};
use crate::log::outbox;
use sea_mq_io::http::target::{Answered, Attempt};
use sea_mq_io::http::{Report, Request};
use sea_mq_model::deliver::endpoint::{Item, Next, Outcome};
use sea_mq_model::deliver::outcome::{Effect, judge};
use sea_mq_model::deliver::rotation::IN_FLIGHT;

impl Worker {
    /// Takes in what the I/O thread has to report.
    pub(super) fn take_in(&mut self) -> Result<(), Failed> {
        loop {
            let report = self.io.as_ref().and_then(sea_mq_io::handle::Handle::try_recv);
            match report {
                None => return Ok(()),
                Some(Report::Ended(why)) => return Err(Failed(format!("the I/O thread ended: {why}"))),
                Some(Report::Answered { token, answered }) => {
                    if !self.calls.answered(token, &answered) {
                        self.answered(token, answered);
                    }
                }
            }
        }
    }

    fn answered(&mut self, token: u64, answered: Answered) {
        let Some(flight) = self.flights.remove(&token) else { return };
        let now = Instant::now();
        let Some(served) = self.served(flight.endpoint) else { return };
        let Some(outcome) = served.model.answered(flight.event, answered.answer, now, rand::random()) else { return };
        served.took(answered.duration);
        served.tally.attempts += 1;
        match judge(answered.answer).1 {
            Effect::Sound => served.trouble = None,
            Effect::None => {}
            _ => served.trouble = Some(Trouble::of(&answered)),
        }
        let pauses = served.model.is_held() && !served.described.paused && outcome != Outcome::Delivered;
        let counted = !matches!(outcome, Outcome::Retry { counted: false, .. });
        let end = match outcome {
            Outcome::Delivered => End::Delivered,
            Outcome::Retry { wait, .. } => End::Retry { wait },
            Outcome::Failed => End::GivenUp("failed"),
            Outcome::Exhausted => End::GivenUp("exhausted"),
        };
        self.results.push(Recorded {
            endpoint: flight.endpoint,
            event: flight.event,
            seq: flight.seq,
            key: flight.key,
            retried: flight.retry,
            counted,
            pauses,
            end,
            answered: Some(answered),
        });
    }

    /// Takes deliveries that are due soon from the table.
    pub(super) fn load_due(&mut self, now: Instant) -> Result<(), Failed> {
        for served in &mut self.served {
            let (id, ordered) = (served.described.id, served.described.is_ordered());
            for waiting in session::transaction(|| deliveries::due(id, ordered))? {
                let at = |(ahead, past): (Duration, Duration)| (now + ahead).checked_sub(past).unwrap_or(now);
                let item =
                    Item { event: waiting.event, seq: waiting.seq, key: waiting.key.map(|key| key.as_str().into()) };
                let begun = waiting.age.and_then(|age| now.checked_sub(age));
                served.model.restore(item, waiting.due.map(at), waiting.counted, begun);
            }
            served.model.restored(now);
        }
        Ok(())
    }

    /// Sends what may be sent now, each endpoint in turn. Returns whether there is more to do at once.
    pub(super) fn send(&mut self) -> Result<bool, Failed> {
        let now = Instant::now();
        let (mut fresh, mut again, mut parked) = (Vec::new(), Vec::new(), Vec::new());
        let room = IN_FLIGHT.saturating_sub(self.flights.len());
        let served = &mut self.served;
        self.rotation.run(served.len(), room, |place| match served[place].model.next(now) {
            None => false,
            Some(Next::Park(item)) => {
                parked.push((place, item));
                true
            }
            Some(Next::Send { item, retry }) => {
                let known = served[place].contents.contains_key(&item.event);
                let list = if retry && !known { &mut again } else { &mut fresh };
                list.push((place, item, retry));
                true
            }
        });
        for (place, item) in parked {
            let id = self.served[place].described.id;
            self.results.push(Recorded::without_attempt(id, &item, End::Parked));
        }
        for (place, item, retry) in fresh {
            let content = self.served[place].contents.get(&item.event).map(|kept| kept.content.clone());
            if let Some(content) = content {
                self.send_one(place, item, retry, content.body, content.headers);
            }
        }
        self.send_again(again, now)?;
        Ok(false)
    }

    /// Sends what the table has. One that is not there any more was taken back.
    fn send_again(&mut self, mut items: Vec<(usize, Item, bool)>, now: Instant) -> Result<(), Failed> {
        items.sort_by_key(|(place, ..)| *place);
        for group in items.chunk_by(|(a, ..), (b, ..)| a == b) {
            let place = group[0].0;
            let id = self.served[place].described.id;
            let events: Vec<Uuid> = group.iter().map(|(_, item, _)| item.event).collect();
            let found = session::transaction(|| {
                let found = deliveries::bodies(id, &events);
                outbox::flush_all();
                found
            })?;
            for (_, item, retry) in group {
                match found.iter().find(|(event, _)| *event == item.event) {
                    Some((_, content)) => {
                        self.send_one(place, item.clone(), *retry, content.body.clone(), content.headers.clone());
                    }
                    None => self.served[place].model.abandon(item.event, now),
                }
            }
        }
        Ok(())
    }

    fn send_one(&mut self, place: usize, item: Item, retry: bool, body: bytes::Bytes, headers: Vec<(String, String)>) {
        let endpoint = self.served[place].described.id;
        let token = self.next_token;
        self.next_token += 1;
        let attempt = Attempt { id: item.event.to_string(), body, headers };
        let key = item.key.as_deref().map(str::to_owned);
        self.flights.insert(token, Flight { endpoint, event: item.event, seq: item.seq, key, retry });
        self.request(Request::Send { token, endpoint, attempt });
    }

    /// Saves how endpoints are doing, if that has changed: now and then, and at once if the state is another one.
    pub(super) fn show(&mut self, now: Instant) -> Result<(), Failed> {
        let held = self.held.clone();
        let mut changed = Vec::new();
        for served in &mut self.served {
            let state_is_shown = held.is_none()
                && served.shown.as_ref().is_some_and(|shown| shown.state == served.model.state().token());
            if state_is_shown && now.duration_since(served.shown_at) < SHOW {
                continue;
            }
            served.shown_at = now;
            let health = served.health(held.as_ref());
            if served.shown.as_ref() != Some(&health) {
                served.shown = Some(health.clone());
                changed.push((served.described.id, health));
            }
        }
        if changed.is_empty() {
            return Ok(());
        }
        session::transaction(|| changed.iter().for_each(|(id, health)| endpoints::save_health(*id, health)))
    }

    /// How long nothing is to be done, unless something happens.
    pub(super) fn sleep(&self) -> Duration {
        let now = Instant::now();
        let due = self.served.iter().filter_map(|served| served.model.due_at(now));
        let active = self.held.is_none();
        let shown =
            self.served.iter().filter(|served| served.model.in_flight() > 0).map(|served| served.shown_at + SHOW);
        let calls = self.calls.due_at(now);
        let times = due.chain(calls).filter(|_| active).chain(shown).chain([self.poll_at]);
        times.min().map_or(gucs::poll_interval(), |at| at.saturating_duration_since(now))
    }
}
