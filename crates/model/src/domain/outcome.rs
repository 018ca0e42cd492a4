//! What became of an attempt to handle a message. `docs/inbox.md` has the states of a message.

/// SQLSTATE with which `sea_mq.poison` ends a handler.
pub const POISON: &str = "SM001";
/// SQLSTATE with which `sea_mq.skip` ends a handler.
pub const SKIP: &str = "SM002";

/// An error as PostgreSQL reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    pub sqlstate: String,
    pub message: String,
    /// Detail and context, if there are any.
    pub detail: Option<String>,
}

/// The outcome of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Processed,
    Skipped(Failure),
    /// It can never be handled.
    Poison(Failure),
    /// It may be handled another time.
    Failed(Failure),
    /// It ran longer than it may.
    TimedOut(Failure),
    /// The process ended in the middle of it.
    Crashed,
    /// Others were in the way, and the database asks to try again: no fault of the handler.
    Again(Failure),
}

impl Outcome {
    pub fn of(failure: Failure) -> Self {
        match failure.sqlstate.as_str() {
            POISON => Self::Poison(failure),
            SKIP => Self::Skipped(failure),
            // query_canceled
            "57014" => Self::TimedOut(failure),
            // serialization_failure, deadlock_detected
            "40001" | "40P01" => Self::Again(failure),
            _ => Self::Failed(failure),
        }
    }

    /// The value of `kind` in a message's history of errors.
    pub const fn token(&self) -> &'static str {
        match self {
            Self::Processed => "processed",
            Self::Skipped(_) => "skipped",
            Self::Poison(_) => "poison",
            Self::Failed(_) | Self::Again(_) => "error",
            Self::TimedOut(_) => "timeout",
            Self::Crashed => "crash",
        }
    }

    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Processed | Self::Crashed => None,
            Self::Skipped(failure)
            | Self::Poison(failure)
            | Self::Failed(failure)
            | Self::TimedOut(failure)
            | Self::Again(failure) => Some(failure),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sqlstate_decides() {
        let token = |sqlstate: &str| {
            Outcome::of(Failure { sqlstate: sqlstate.into(), ..Failure::default() }).token().to_owned()
        };
        assert_eq!(["SM001", "SM002", "57014", "23505"].map(token), ["poison", "skipped", "timeout", "error"]);
        let deadlock = Failure { sqlstate: "40P01".into(), ..Failure::default() };
        assert!(matches!(Outcome::of(deadlock), Outcome::Again(_)));
    }
}
