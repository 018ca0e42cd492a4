//! What an answer means: for the delivery, and for its endpoint. `docs/endpoints.md` has the table that this is.

use std::time::Duration;

/// Longest wait that an endpoint may ask for.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);
/// How long an endpoint that says 429 is left alone if it does not say for how long.
pub const THROTTLED: Duration = Duration::from_secs(10);

/// Why there was no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Its name could not be resolved.
    Dns,
    /// No connection came about.
    Connect,
    /// The handshake of TLS failed for another reason than its certificate.
    Tls,
    /// Its certificate, or ours, was not accepted.
    Certificate,
    /// The time was up before the last byte of the answer.
    Timeout,
    /// The connection broke off, or what came was not HTTP.
    Broken,
    /// The name stands for an address that must not be reached.
    Blocked,
    /// What is needed to send cannot be had: a secret cannot be read, no token was given, or a broker does not let us in.
    Credentials,
    /// A broker's stream, or our account there, is full.
    Full,
    /// No stream of a broker stores the subject.
    NoStream,
    /// A broker does not let us publish to the subject.
    Forbidden,
    /// A broker takes no such message: it is too large, or cannot be written.
    Unsendable,
}

impl FaultKind {
    pub const ALL: [Self; 12] = [
        Self::Dns,
        Self::Connect,
        Self::Tls,
        Self::Certificate,
        Self::Timeout,
        Self::Broken,
        Self::Blocked,
        Self::Credentials,
        Self::Full,
        Self::NoStream,
        Self::Forbidden,
        Self::Unsendable,
    ];

    /// As `error_kind` shows it.
    pub const fn token(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Certificate => "certificate",
            Self::Timeout => "timeout",
            Self::Broken => "broken",
            Self::Blocked => "blocked",
            Self::Credentials => "credentials",
            Self::Full => "full",
            Self::NoStream => "no_stream",
            Self::Forbidden => "forbidden",
            Self::Unsendable => "unsendable",
        }
    }

    pub const fn hint(self) -> &'static str {
        match self {
            Self::Dns => "Look whether the host's name is right and has an address.",
            Self::Connect => "Look whether the endpoint is up, and whether a firewall is in between.",
            Self::Tls => "Look whether the port speaks TLS 1.2 or later.",
            Self::Certificate => {
                "Have the endpoint renew its certificate, or add its authority to those that this server trusts; then call sea_mq.resume_endpoint."
            }
            Self::Timeout => "Look why the endpoint is slow, or raise its timeout with sea_mq.alter_endpoint.",
            Self::Broken => "Look into the endpoint's log.",
            Self::Blocked => {
                "Only public addresses are reached. A superuser can let others in with sea_mq.endpoint_allowed_networks; then call sea_mq.resume_endpoint."
            }
            Self::Credentials => {
                "Set the secret anew with sea_mq.set_secret or sea_mq.rotate_secret; then call sea_mq.resume_endpoint."
            }
            Self::Full => "Have the stream's limits raised, or wait until there is room; it is tried again by itself.",
            Self::NoStream => {
                "Create a stream with that subject there, or correct the subject with sea_mq.alter_endpoint; then call sea_mq.resume_endpoint."
            }
            Self::Forbidden => {
                "Allow the account there to publish to that subject, and to subscribe to _INBOX.>; then call sea_mq.resume_endpoint."
            }
            Self::Unsendable => "Send less, or have max_payload raised there.",
        }
    }
}

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// An answer with a status. `retry_after`: how long it asks to be left alone.
    Status {
        code: u16,
        retry_after: Option<Duration>,
    },
    /// A stream of a broker has stored it.
    Stored,
    Fault(FaultKind),
}

/// What becomes of the delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Delivered,
    /// It is tried again, not before so much time has passed. `counted`: the attempt counts against the schedule.
    Again {
        counted: bool,
        not_before: Duration,
    },
    /// It is given up at once.
    Failed,
}

/// What becomes of the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It works.
    Sound,
    /// It is in difficulties: less is sent to it, and after some such answers in a row nothing.
    Strained,
    /// It asks to be left alone.
    Throttled(Duration),
    /// It does not want what we send. A few such answers in a row, and a person is asked.
    Unwilling,
    /// Nothing is sent before a person has looked.
    Refused,
    /// It is not there any more.
    Gone,
    /// It says something of the event alone.
    None,
}

/// The table of outcomes.
pub fn judge(answer: Answer) -> (Fate, Effect) {
    let again = |counted, not_before| Fate::Again { counted, not_before };
    match answer {
        Answer::Fault(FaultKind::Blocked | FaultKind::Certificate | FaultKind::Credentials) => {
            (again(false, Duration::ZERO), Effect::Refused)
        }
        Answer::Fault(
            FaultKind::Dns
            | FaultKind::Connect
            | FaultKind::Tls
            | FaultKind::Timeout
            | FaultKind::Broken
            | FaultKind::Full,
        ) => (again(true, Duration::ZERO), Effect::Strained),
        Answer::Fault(FaultKind::NoStream | FaultKind::Forbidden) => (Fate::Failed, Effect::Unwilling),
        Answer::Fault(FaultKind::Unsendable) => (Fate::Failed, Effect::None),
        Answer::Stored => (Fate::Delivered, Effect::Sound),
        Answer::Status { code, retry_after } => match (code, retry_after) {
            (200..=299, _) => (Fate::Delivered, Effect::Sound),
            (429 | 503, Some(wait)) => {
                let wait = wait.min(RETRY_AFTER_MAX);
                (again(false, wait), Effect::Throttled(wait))
            }
            (429, None) => (again(false, THROTTLED), Effect::Throttled(THROTTLED)),
            (408 | 425, _) | (500.., _) => {
                (again(true, retry_after.unwrap_or_default().min(RETRY_AFTER_MAX)), Effect::Strained)
            }
            (410, _) => (Fate::Failed, Effect::Gone),
            (300..=399 | 401 | 403 | 404 | 405, _) => (Fate::Failed, Effect::Unwilling),
            // An answer that is none: informational ones are not final.
            (0..=199, _) => (again(true, Duration::ZERO), Effect::Strained),
            (400..=499, _) => (Fate::Failed, Effect::None),
        },
    }
}

/// The value of `Retry-After`, as seconds or as a date. `now`: seconds since 1970.
pub fn retry_after(value: &str, now: u64) -> Option<Duration> {
    let value = value.trim();
    let seconds = value.parse().ok().or_else(|| {
        let at = httpdate::parse_http_date(value).ok()?;
        let at = at.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs();
        Some(at.saturating_sub(now))
    })?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: u16) -> (Fate, Effect) {
        judge(Answer::Status { code, retry_after: None })
    }

    #[test]
    fn every_status_has_an_outcome() {
        let again = Fate::Again { counted: true, not_before: Duration::ZERO };
        for code in 0..=u16::MAX {
            let expected = match code {
                200..=299 => (Fate::Delivered, Effect::Sound),
                429 => (Fate::Again { counted: false, not_before: THROTTLED }, Effect::Throttled(THROTTLED)),
                0..=199 | 408 | 425 | 500.. => (again, Effect::Strained),
                410 => (Fate::Failed, Effect::Gone),
                300..=399 | 401 | 403 | 404 | 405 => (Fate::Failed, Effect::Unwilling),
                400..=499 => (Fate::Failed, Effect::None),
            };
            assert_eq!(of(code), expected, "{code}");
        }
    }

    #[test]
    fn a_fault_is_the_events_only_where_a_broker_says_so() {
        for kind in FaultKind::ALL {
            let again = |counted| Fate::Again { counted, not_before: Duration::ZERO };
            let expected = match kind {
                FaultKind::Blocked | FaultKind::Certificate | FaultKind::Credentials => (again(false), Effect::Refused),
                FaultKind::NoStream | FaultKind::Forbidden => (Fate::Failed, Effect::Unwilling),
                FaultKind::Unsendable => (Fate::Failed, Effect::None),
                _ => (again(true), Effect::Strained),
            };
            assert_eq!(judge(Answer::Fault(kind)), expected, "{kind:?}");
            assert!(!kind.hint().is_empty() && !kind.token().is_empty());
        }
        assert_eq!(judge(Answer::Stored), (Fate::Delivered, Effect::Sound));
    }

    #[test]
    fn who_asks_for_time_gets_it_and_not_more_than_a_day() {
        let wait = Duration::from_secs(90);
        for code in [429, 503] {
            let (fate, effect) = judge(Answer::Status { code, retry_after: Some(wait) });
            assert_eq!((fate, effect), (Fate::Again { counted: false, not_before: wait }, Effect::Throttled(wait)));
        }
        let (fate, effect) = judge(Answer::Status { code: 500, retry_after: Some(wait) });
        assert_eq!((fate, effect), (Fate::Again { counted: true, not_before: wait }, Effect::Strained));
        let (fate, _) = judge(Answer::Status { code: 429, retry_after: Some(Duration::MAX) });
        assert_eq!(fate, Fate::Again { counted: false, not_before: RETRY_AFTER_MAX });
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let wait = |value| retry_after(value, 784_111_777);
        assert_eq!(wait("120"), Some(Duration::from_secs(120)));
        assert_eq!(wait(" 0 "), Some(Duration::ZERO));
        assert_eq!(wait("Sun, 06 Nov 1994 08:50:37 GMT"), Some(Duration::from_secs(60)));
        assert_eq!(wait("Sun, 06 Nov 1994 08:40:37 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("99999999999"), Some(RETRY_AFTER_MAX));
        assert_eq!([wait("soon"), wait("-1"), wait("")], [None; 3]);
    }
}
