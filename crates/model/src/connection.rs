//! The connection to the broker, as the relay and the consumer each keep one: when to connect, and when to try again.

use std::time::{Duration, Instant};

use crate::broker::{BrokerConfig, Request, ServerInfo};
use crate::domain::retry::Backoff;

/// A connection that has held for so long was sound. One that is cut sooner each time is made again after longer pauses.
const SOUND: Duration = Duration::from_secs(5);

enum State {
    /// There is nothing to connect to, or nothing to connect for.
    Idle,
    Connecting,
    Up {
        server: ServerInfo,
        since: Instant,
    },
    Waiting {
        until: Instant,
    },
}

/// One connection.
pub struct Connection {
    config: Option<BrokerConfig>,
    state: State,
    backoff: Backoff,
}

impl Connection {
    /// `config`: where the broker is, if there is one. `reconnect_max`: the longest pause between attempts.
    pub fn new(config: Option<BrokerConfig>, reconnect_max: Duration) -> Self {
        Self { config, state: State::Idle, backoff: Backoff::new(Duration::from_millis(100), reconnect_max) }
    }

    pub fn server(&self) -> Option<&ServerInfo> {
        match &self.state {
            State::Up { server, .. } => Some(server),
            State::Idle | State::Connecting | State::Waiting { .. } => None,
        }
    }

    pub fn is_up(&self) -> bool {
        self.server().is_some()
    }

    /// Whether it is neither there nor on its way for the first time.
    pub fn is_missing(&self) -> bool {
        let is_new = matches!(self.state, State::Connecting) && self.failures() == 0;
        !self.is_up() && !is_new
    }

    /// Failed attempts in a row.
    pub fn failures(&self) -> u32 {
        self.backoff.failures()
    }

    /// Begins to connect, if there is something to connect to.
    pub fn connect(&mut self) -> Option<Request> {
        let config = self.config.clone()?;
        self.state = State::Connecting;
        Some(Request::Connect(Box::new(config)))
    }

    /// Connects again, if it is time.
    pub fn tick(&mut self, now: Instant) -> Option<Request> {
        match self.state {
            State::Waiting { until } if until <= now => self.connect(),
            _ => None,
        }
    }

    /// When `tick` has something to do.
    pub fn due_at(&self) -> Option<Instant> {
        match self.state {
            State::Waiting { until } => Some(until),
            _ => None,
        }
    }

    pub fn connected(&mut self, server: ServerInfo, now: Instant) {
        self.state = State::Up { server, since: now };
    }

    /// `jitter` is a random number in `0.0..1.0`.
    pub fn disconnected(&mut self, now: Instant, jitter: f64) {
        if matches!(self.state, State::Up { since, .. } if now.saturating_duration_since(since) >= SOUND) {
            self.backoff.reset();
        }
        self.state = State::Waiting { until: now + self.backoff.next(jitter) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_was_never_tried_before_is_not_missing_while_it_is_made() {
        let now = Instant::now();
        let mut connection = Connection::new(Some(BrokerConfig::default()), Duration::from_secs(1));
        assert!(connection.is_missing(), "nobody has begun");
        connection.connect().unwrap();
        assert!(!connection.is_missing());
        connection.connected(ServerInfo::default(), now);
        assert!(!connection.is_missing());
        connection.disconnected(now, 1.0);
        assert!(connection.is_missing());
        connection.connect().unwrap();
        assert!(connection.is_missing(), "the one before has failed");
    }

    #[test]
    fn pauses_grow_while_connections_do_not_hold() {
        let mut connection = Connection::new(None, Duration::from_secs(1));
        let mut now = Instant::now();
        let mut pause = |held: Duration| {
            connection.connected(ServerInfo::default(), now);
            now += held;
            connection.disconnected(now, 1.0);
            (connection.due_at().unwrap() - now).as_millis()
        };
        let short = Duration::from_millis(20);
        assert_eq!([pause(short), pause(short), pause(short), pause(SOUND), pause(short)], [100, 200, 400, 100, 200]);
    }
}
