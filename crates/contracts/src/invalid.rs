//! What is wrong with a value that a caller gave, and what to do about it.

/// Why a value was refused. `pg::error` gives each kind its SQLSTATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidKind {
    /// A value that must be given is NULL.
    Missing,
    /// The value has the right type but cannot be used.
    Value,
    /// The value is larger than a limit.
    TooLarge,
    /// The same event id was used for other content.
    Reused,
    /// The thing that the value names does not exist.
    Unknown,
    /// The value breaks a contract.
    Broken,
}

/// A refused value: what is wrong, in detail where that is a list, and a hint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Invalid {
    pub kind: InvalidKind,
    pub message: String,
    pub detail: Option<String>,
    pub hint: String,
}

impl Invalid {
    pub fn new(kind: InvalidKind, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { kind, message: message.into(), detail: None, hint: hint.into() }
    }

    pub fn value(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(InvalidKind::Value, message, hint)
    }

    pub fn missing(parameter: &str, hint: impl Into<String>) -> Self {
        Self::new(InvalidKind::Missing, format!("{parameter} must not be null"), hint)
    }
}
