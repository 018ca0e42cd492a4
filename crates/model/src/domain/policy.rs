//! What is done about an event that breaks its contract.

/// The values of `sea_mq.contracts` and of a subscription's `contracts`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ContractPolicy {
    /// Nothing is checked.
    #[default]
    Off,
    /// It is said, and the event goes on.
    Warn,
    /// It is refused: an error of `emit`, poison for a subscription.
    Enforce,
}

impl ContractPolicy {
    /// The value of a subscription's column.
    pub fn from_token(token: &str) -> Option<Self> {
        match token {
            "off" => Some(Self::Off),
            "warn" => Some(Self::Warn),
            "enforce" => Some(Self::Enforce),
            _ => None,
        }
    }
}
