//! An endpoint as the I/O thread knows it, and a delivery to it.

use std::time::Duration;

use bytes::Bytes;
use sea_mq_model::deliver::calls::ANSWER;
use sea_mq_model::deliver::outcome::Answer;

use super::fault::Fault;
use super::tls::Identity;

/// What an endpoint is shown so that it knows us.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Auth {
    #[default]
    None,
    Basic {
        user: String,
        password: String,
    },
    Bearer {
        token: String,
    },
    /// Client credentials of OAuth 2: a token is fetched, and kept until it ends.
    OAuth2 {
        token_url: String,
        client_id: String,
        client_secret: String,
        scope: Option<String>,
    },
    /// The seed of an nkey, to a broker.
    NKey {
        seed: String,
    },
    /// What is in a `.creds` file, to a broker.
    Creds {
        text: String,
    },
}

#[derive(Clone, Default, PartialEq, Eq)]
pub struct Target {
    /// Whether it is a broker, which is spoken to in NATS.
    pub is_broker: bool,
    pub url: String,
    pub method: String,
    /// Of the endpoint's own.
    pub headers: Vec<(String, String)>,
    pub auth: Auth,
    /// Our certificate, if the endpoint asks for one.
    pub identity: Option<Identity>,
    /// Secrets that deliveries are signed with; each signs.
    pub signing: Vec<String>,
    /// Whether `Idempotency-Key` is sent.
    pub idempotency: bool,
    /// Up to the last byte of the answer.
    pub timeout: Duration,
    pub connect_timeout: Duration,
    /// Whether the answer's body is kept where the delivery succeeds, too.
    pub keep_response: bool,
    /// Bytes of an answer that are read; `None`: as many as a person wants to see.
    pub answer: Option<usize>,
}

impl Target {
    /// The same, as a service that handles messages: what it answers matters.
    #[must_use]
    pub fn for_calls(self) -> Self {
        Self { method: "POST".into(), idempotency: true, keep_response: true, answer: Some(ANSWER), ..self }
    }
}

/// Secrets are left out.
impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").field("url", &self.url).field("method", &self.method).finish_non_exhaustive()
    }
}

/// One attempt.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The same in each attempt.
    pub id: String,
    pub body: Bytes,
    /// Those that belong to the body.
    pub headers: Vec<(String, String)>,
}

/// What came of an attempt.
#[derive(Clone, Debug)]
pub struct Answered {
    pub answer: Answer,
    /// What is wrong, in words.
    pub error: Option<String>,
    /// The beginning of the answer's body.
    pub response: Option<String>,
    pub duration: Duration,
}

impl Answered {
    pub fn of_fault(fault: Fault, duration: Duration) -> Self {
        Self { answer: Answer::Fault(fault.kind), error: Some(fault.message), response: None, duration }
    }
}
