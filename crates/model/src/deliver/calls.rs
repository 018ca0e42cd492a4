//! A service that handles messages over HTTP: how many calls at once, and what its answers mean for the message.
//! `docs/http-handlers.md` has the table of answers that this is.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::health::{Health, Leave, State};
use super::outcome::{Answer, Effect, judge};
use super::rate::Rate;
use super::window::Window;

/// Bytes of an answer that are read.
pub const ANSWER: usize = 1 << 20;

/// What becomes of a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It is handled; these events follow from it.
    Processed { events: Option<Value> },
    /// It is of no interest.
    Skip(String),
    /// It can never be handled.
    Poison(String),
    /// The attempt has failed. `wait`: how the service wants it, in seconds or as an interval.
    Retry { reason: String, wait: Option<Value> },
    /// The service has no time, or does not answer at all: the message is not to blame, and the attempt does not count.
    Back { reason: String, wait: Duration },
    /// The service refuses all that comes: nothing is called before it has changed.
    Blocked(String),
}

/// What an answer means. `probing`: it was asked to see whether the service is back.
pub fn verdict(answer: Answer, error: Option<&str>, body: Option<&str>, probing: bool) -> Verdict {
    let reason = || error.map_or_else(|| "no answer".to_owned(), str::to_owned);
    let back = |wait| Verdict::Back { reason: reason(), wait };
    match (answer, judge(answer).1) {
        (_, Effect::Throttled(wait)) => back(wait),
        (Answer::Status { code: 200..=299, .. } | Answer::Stored, _) => said(body.unwrap_or_default()),
        (Answer::Status { code: 407 | 410, .. }, _) | (_, Effect::Unwilling | Effect::Refused) => {
            Verdict::Blocked(reason())
        }
        // An outage is no message's fault: who is asked whether it is over need not pay for the answer.
        (_, Effect::Strained) if probing => back(Duration::ZERO),
        (Answer::Status { code: 409 | 423, .. }, _) | (_, Effect::Strained) => {
            Verdict::Retry { reason: reason(), wait: None }
        }
        _ => Verdict::Poison(reason()),
    }
}

/// What a service says of a message that it has taken. One that says nothing has handled it.
fn said(body: &str) -> Verdict {
    let processed = Verdict::Processed { events: None };
    let Ok(Value::Object(mut said)) = serde_json::from_str(body) else {
        let cut = body.len() >= ANSWER;
        let error = || format!("its answer has more than {ANSWER} bytes, and cannot be read");
        return if cut { Verdict::Retry { reason: error(), wait: None } } else { processed };
    };
    let reason = || match said.get("reason") {
        Some(Value::String(reason)) => reason.clone(),
        _ => "no reason given".to_owned(),
    };
    match said.get("outcome").map(Value::as_str) {
        None | Some(Some("processed")) => {
            let events = said.remove("events").filter(|events| !events.is_null());
            Verdict::Processed { events }
        }
        Some(Some("skip")) => Verdict::Skip(reason()),
        Some(Some("poison")) => Verdict::Poison(reason()),
        Some(Some("retry")) => Verdict::Retry { reason: reason(), wait: said.remove("retry_in") },
        Some(_) => {
            let reason = "its answer has an outcome that is not known: use processed, skip, retry or poison".into();
            Verdict::Retry { reason, wait: None }
        }
    }
}

impl Verdict {
    /// As `sea_mq.record_call` takes it.
    pub fn record(self, id: i64, kind: &str, detail: Option<&str>) -> Value {
        let mut record = Map::new();
        record.insert("id".into(), json!(id));
        record.insert("kind".into(), json!(kind));
        record.insert("detail".into(), json!(detail));
        let mut put = |outcome: &str, reason: Option<String>, more: Option<(&str, Value)>| {
            record.insert("outcome".into(), json!(outcome));
            record.insert("reason".into(), json!(reason));
            if let Some((name, value)) = more {
                record.insert(name.into(), value);
            }
        };
        match self {
            Self::Processed { events } => put("processed", None, events.map(|events| ("events", events))),
            Self::Skip(reason) => put("skip", Some(reason), None),
            Self::Poison(reason) => put("poison", Some(reason), None),
            Self::Retry { reason, wait } => put("retry", Some(reason), wait.map(|wait| ("retry_in", wait))),
            Self::Back { reason, wait } => put("back", Some(reason), Some(("retry_in", json!(wait.as_secs_f64())))),
            Self::Blocked(reason) => put("back", Some(reason), None),
        }
        Value::Object(record)
    }
}

/// How much a service is asked to do at once.
#[derive(Debug)]
pub struct Caller {
    health: Health,
    window: Window,
    rate: Option<Rate>,
    in_flight: usize,
    blocked: bool,
}

impl Caller {
    pub fn new(max_in_flight: usize, rate: Option<f64>) -> Self {
        Self {
            health: Health::default(),
            window: Window::new(max_in_flight),
            rate: rate.and_then(Rate::per_second),
            in_flight: 0,
            blocked: false,
        }
    }

    /// How many calls may begin now.
    pub fn room(&self, now: Instant) -> usize {
        let room = match self.health.leave(now) {
            Leave::Window => self.window.size(),
            Leave::Probe => 1,
            Leave::Nothing(_) => 0,
        };
        let room = room.saturating_sub(self.in_flight);
        match &self.rate {
            Some(rate) if rate.next(now) > now => 0,
            Some(_) => room.min(1),
            None => room,
        }
    }

    /// A call begins. Returns whether it shows if the service is back.
    pub fn begin(&mut self, now: Instant) -> bool {
        let probing = self.health.leave(now) == Leave::Probe;
        self.health.probe();
        if let Some(rate) = &mut self.rate {
            rate.take(now);
        }
        self.in_flight += 1;
        probing
    }

    /// A call that began then has ended.
    pub fn answered(&mut self, answer: Answer, verdict: &Verdict, began: Instant, now: Instant) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if matches!(verdict, Verdict::Blocked(_)) {
            self.blocked = true;
            return self.health.close(now);
        }
        let effect = judge(answer).1;
        match effect {
            Effect::Sound => self.window.grow(),
            Effect::Strained | Effect::Throttled(_) => self.window.halve(began, now),
            _ => {}
        }
        if self.health.note(effect, now) {
            self.window.reset();
        }
        self.blocked &= !matches!(self.health.state(), State::Active);
    }

    /// When calls may go on that may not now.
    pub fn due_at(&self, now: Instant) -> Option<Instant> {
        let allowed = match self.health.leave(now) {
            Leave::Nothing(at) => at?,
            Leave::Window | Leave::Probe => now,
        };
        let paced = self.rate.as_ref().map_or(now, |rate| rate.next(now));
        Some(allowed.max(paced)).filter(|at| *at > now)
    }

    /// As `sea_mq.subscription_status` shows it.
    pub fn state(&self) -> &'static str {
        match self.health.state() {
            State::Active => "active",
            _ if self.blocked => "blocked",
            _ => "waiting",
        }
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub fn window(&self) -> usize {
        self.window.size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deliver::outcome::FaultKind;

    fn status(code: u16) -> Answer {
        Answer::Status { code, retry_after: None }
    }

    #[test]
    fn every_status_means_one_thing() {
        for code in 100..600 {
            let found = verdict(status(code), Some("HTTP"), None, false);
            let expected = match code {
                200..=299 => Verdict::Processed { events: None },
                429 => Verdict::Back { reason: "HTTP".into(), wait: Duration::from_secs(10) },
                300..=399 | 401 | 403 | 404 | 405 | 407 | 410 => Verdict::Blocked("HTTP".into()),
                100..=199 | 408 | 409 | 423 | 425 | 500.. => Verdict::Retry { reason: "HTTP".into(), wait: None },
                _ => Verdict::Poison("HTTP".into()),
            };
            assert_eq!(found, expected, "{code}");
        }
        for kind in FaultKind::ALL {
            let found = verdict(Answer::Fault(kind), Some("x"), None, false);
            let passes = judge(Answer::Fault(kind)).1 == Effect::Strained;
            let person = !passes && kind != FaultKind::Unsendable;
            assert_eq!(matches!(found, Verdict::Blocked(_)), person, "{kind:?}");
            assert_eq!(matches!(found, Verdict::Retry { .. }), passes, "{kind:?}");
        }
        let probed = verdict(status(500), None, None, true);
        assert_eq!(probed, Verdict::Back { reason: "no answer".into(), wait: Duration::ZERO });
    }

    #[test]
    fn what_a_service_says_is_understood_or_tried_again() {
        let said = |body| verdict(status(200), None, Some(body), false);
        let processed = |events| Verdict::Processed { events };
        for body in ["", "OK", "null", "[]", "{}", r#"{"outcome": "processed"}"#, r#"{"events": null}"#] {
            assert_eq!(said(body), processed(None), "{body}");
        }
        assert_eq!(said(r#"{"events": [1]}"#), processed(Some(json!([1]))));
        assert_eq!(said(r#"{"outcome": "skip", "reason": "old"}"#), Verdict::Skip("old".into()));
        assert_eq!(said(r#"{"outcome": "poison"}"#), Verdict::Poison("no reason given".into()));
        let retry = Verdict::Retry { reason: "busy".into(), wait: Some(json!(5)) };
        assert_eq!(said(r#"{"outcome": "retry", "reason": "busy", "retry_in": 5}"#), retry);
        for body in [r#"{"outcome": "done"}"#, r#"{"outcome": 1}"#, r#"{"outcome": null}"#] {
            assert!(matches!(said(body), Verdict::Retry { .. }), "{body}");
        }
        assert!(matches!(said(&"x".repeat(ANSWER)), Verdict::Retry { .. }));
        let record = retry.record(7, "http", None);
        assert_eq!((&record["id"], &record["outcome"], &record["retry_in"]), (&json!(7), &json!("retry"), &json!(5)));
    }

    #[test]
    fn a_service_that_refuses_all_is_asked_now_and_then() {
        let mut now = Instant::now();
        let mut caller = Caller::new(8, None);
        assert_eq!(caller.room(now), 8);
        caller.begin(now);
        let refuses = verdict(status(404), Some("HTTP 404"), None, false);
        caller.answered(status(404), &refuses, now, now);
        assert_eq!((caller.state(), caller.room(now)), ("blocked", 0));
        let mut waits = Vec::new();
        for _ in 0..5 {
            let due = caller.due_at(now).unwrap();
            waits.push((due - now).as_secs());
            now = due;
            assert_eq!(caller.room(now), 1);
            assert!(caller.begin(now));
            assert_eq!(caller.room(now), 0);
            caller.answered(status(404), &refuses, now, now);
        }
        assert_eq!(waits, [30, 60, 120, 240, 300]);
        now = caller.due_at(now).unwrap();
        caller.begin(now);
        caller.answered(status(200), &Verdict::Processed { events: None }, now, now);
        assert_eq!((caller.state(), caller.in_flight(), caller.room(now)), ("active", 0, 1));
    }
}
