//! The state of an endpoint, as its answers say. `docs/endpoints.md` has the states.

use std::time::{Duration, Instant};

use super::outcome::Effect;

/// Failures in a row after which nothing more is sent but probes.
const OPENS: u32 = 5;
/// Answers in a row that say that it does not want what we send, after which a person is asked.
const REFUSES: u32 = 3;
/// Wait before the first probe, doubled up to the longest.
const PROBE_FIRST: Duration = Duration::from_secs(30);
const PROBE_LAST: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Active,
    /// It asks to be left alone.
    Throttled {
        until: Instant,
    },
    /// It has failed several times in a row.
    Open {
        probe_at: Instant,
        wait: Duration,
    },
    /// One delivery is under way to see whether it is back.
    Probing {
        wait: Duration,
    },
    /// Nothing is sent before a person has looked.
    Refused,
    /// It says that it is not there any more.
    Gone,
}

impl State {
    /// As `sea_mq.endpoint_status` shows it.
    pub const fn token(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Throttled { .. } => "throttled",
            Self::Open { .. } => "open",
            Self::Probing { .. } => "probing",
            Self::Refused => "refused",
            Self::Gone => "gone",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Health {
    state: State,
    strained: u32,
    unwilling: u32,
}

/// How many may begin now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// As the window has it.
    Window,
    /// One, to see whether it is back.
    Probe,
    /// None before this time; `None`: before somebody says so.
    Nothing(Option<Instant>),
}

impl Default for Health {
    fn default() -> Self {
        Self { state: State::Active, strained: 0, unwilling: 0 }
    }
}

impl Health {
    /// As it was saved: what passes by itself is found out anew.
    pub fn saved(state: &str) -> Self {
        let state = match state {
            "refused" => State::Refused,
            "gone" => State::Gone,
            _ => State::Active,
        };
        Self { state, ..Self::default() }
    }

    pub fn state(&self) -> State {
        self.state
    }

    pub fn leave(&self, now: Instant) -> Leave {
        match self.state {
            State::Active => Leave::Window,
            State::Throttled { until } if until <= now => Leave::Window,
            State::Open { probe_at, .. } if probe_at <= now => Leave::Probe,
            State::Throttled { until: at } | State::Open { probe_at: at, .. } => Leave::Nothing(Some(at)),
            State::Probing { .. } | State::Refused | State::Gone => Leave::Nothing(None),
        }
    }

    /// The delivery that shows whether it is back begins.
    pub fn probe(&mut self) {
        if let State::Open { wait, .. } = self.state {
            self.state = State::Probing { wait };
        }
    }

    /// The delivery that was to show it did not come about.
    pub fn not_probed(&mut self, now: Instant) {
        if let State::Probing { wait } = self.state {
            self.state = State::Open { probe_at: now, wait };
        }
    }

    /// It refuses all that comes: as after many failures in a row.
    pub fn close(&mut self, now: Instant) {
        let wait = match self.state {
            State::Probing { wait } => (wait * 2).min(PROBE_LAST),
            // What was under way when it closed says nothing new.
            State::Open { .. } => return,
            _ => PROBE_FIRST,
        };
        self.state = State::Open { probe_at: now + wait, wait };
    }

    /// Takes in an effect. Returns whether an outage is over.
    pub fn note(&mut self, effect: Effect, now: Instant) -> bool {
        let was_out = matches!(self.state, State::Open { .. } | State::Probing { .. });
        self.strained = if effect == Effect::Strained { self.strained + 1 } else { 0 };
        self.unwilling = if effect == Effect::Unwilling { self.unwilling + 1 } else { 0 };
        match effect {
            // A person has to look, whatever deliveries that were under way say.
            _ if matches!(self.state, State::Refused | State::Gone) => {}
            Effect::Refused => self.state = State::Refused,
            Effect::Gone => self.state = State::Gone,
            Effect::Unwilling if self.unwilling >= REFUSES => self.state = State::Refused,
            Effect::Throttled(wait) => {
                let until = match self.state {
                    State::Throttled { until } => until.max(now + wait),
                    _ => now + wait,
                };
                self.state = State::Throttled { until };
            }
            Effect::Strained => self.strain(now),
            Effect::Sound | Effect::None | Effect::Unwilling => self.answer(now),
        }
        was_out && self.state == State::Active
    }

    fn strain(&mut self, now: Instant) {
        match self.state {
            State::Probing { wait } => {
                let wait = (wait * 2).min(PROBE_LAST);
                self.state = State::Open { probe_at: now + wait, wait };
            }
            State::Active | State::Throttled { .. } if self.strained >= OPENS => {
                self.state = State::Open { probe_at: now + PROBE_FIRST, wait: PROBE_FIRST };
            }
            // What was under way when it opened says nothing new.
            _ => {}
        }
    }

    /// It has answered: it is there.
    fn answer(&mut self, now: Instant) {
        self.state = match self.state {
            State::Throttled { until } if until > now => self.state,
            _ => State::Active,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strained(times: u32, now: Instant) -> Health {
        let mut health = Health::default();
        (0..times).for_each(|_| _ = health.note(Effect::Strained, now));
        health
    }

    #[test]
    fn five_failures_in_a_row_open_it_and_probes_come_less_and_less_often() {
        let mut now = Instant::now();
        assert_eq!(strained(4, now).state(), State::Active);
        let mut health = strained(5, now);
        let mut waits = Vec::new();
        for _ in 0..6 {
            let State::Open { probe_at, .. } = health.state() else { panic!("{:?}", health.state()) };
            assert_eq!(health.leave(now), Leave::Nothing(Some(probe_at)));
            waits.push((probe_at - now).as_secs());
            now = probe_at;
            assert_eq!(health.leave(now), Leave::Probe);
            health.probe();
            assert_eq!(health.leave(now), Leave::Nothing(None));
            health.note(Effect::Strained, now);
        }
        assert_eq!(waits, [30, 60, 120, 240, 300, 300]);
        now += PROBE_LAST;
        health.probe();
        assert!(health.note(Effect::Sound, now));
        assert_eq!(health.leave(now), Leave::Window);
    }

    #[test]
    fn a_success_in_between_begins_the_count_anew() {
        let now = Instant::now();
        let mut health = strained(4, now);
        assert!(!health.note(Effect::Sound, now));
        (0..4).for_each(|_| _ = health.note(Effect::Strained, now));
        assert_eq!(health.state(), State::Active);
    }

    #[test]
    fn three_that_it_does_not_want_ask_a_person_and_one_that_says_gone() {
        let now = Instant::now();
        let mut health = Health::default();
        for effect in [Effect::Unwilling, Effect::Unwilling, Effect::None, Effect::Unwilling, Effect::Unwilling] {
            health.note(effect, now);
            assert_eq!(health.state(), State::Active);
        }
        health.note(Effect::Unwilling, now);
        assert_eq!(health.state(), State::Refused);
        // A delivery that was under way does not decide instead of the person.
        health.note(Effect::Sound, now);
        assert_eq!((health.state(), health.leave(now)), (State::Refused, Leave::Nothing(None)));
        health = Health::default();
        health.note(Effect::Gone, now);
        assert_eq!(health.state(), State::Gone);
        assert_eq!(Health::saved("gone").state(), State::Gone);
        assert_eq!(Health::saved("open").state(), State::Active);
    }

    #[test]
    fn who_asks_for_time_is_left_alone_until_then_whatever_else_comes() {
        let now = Instant::now();
        let mut health = Health::default();
        let wait = Duration::from_secs(60);
        health.note(Effect::Throttled(wait), now);
        health.note(Effect::Throttled(wait / 2), now);
        health.note(Effect::Sound, now);
        assert_eq!(health.leave(now), Leave::Nothing(Some(now + wait)));
        assert_eq!(health.leave(now + wait), Leave::Window);
    }
}
