//! Every error of the server and of the client library, told apart as the relay needs it.

use std::error::Error as StdError;

use async_nats::client::{PublishError, PublishErrorKind};
use async_nats::jetstream::context::{RequestError, RequestErrorKind};
use async_nats::rustls;
use async_nats::{ConnectError, ConnectErrorKind, ServerError};
use serde::Deserialize;

use sea_mq_model::broker::{Fault, FaultKind};

/// The `error` object of a JetStream answer or ack.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct ApiError {
    #[serde(default)]
    pub(super) code: u32,
    #[serde(default)]
    pub(super) err_code: u32,
    #[serde(default)]
    pub(super) description: String,
}

/// `err_code` of a stream that does not exist.
pub(super) const STREAM_NOT_FOUND: u32 = 10059;
/// `err_code` of a message that does not exist.
pub(super) const NO_MESSAGE_FOUND: u32 = 10037;
/// `err_code` of a consumer that does not exist.
pub(super) const CONSUMER_NOT_FOUND: u32 = 10014;
/// `err_code`s of a message that is not in the stream.
pub(super) const MESSAGE_NOT_FOUND: [u32; 2] = [NO_MESSAGE_FOUND, 10043];
/// `err_code` of a message that could not be deleted; the description says why.
pub(super) const DELETE_FAILED: u32 = 10057;
/// `err_code` of a stream name that is taken by a stream with another configuration.
pub(super) const STREAM_NAME_EXISTS: u32 = 10058;
/// `err_code` of a subject that another stream stores.
pub(super) const SUBJECTS_OVERLAP: u32 = 10065;
/// `err_code` of a message that the store did not take; the description says why.
const STORE_FAILED: u32 = 10077;

impl ApiError {
    /// The kind by the server's error code (see `server/errors.json` of nats-server).
    pub(super) fn kind(&self) -> FaultKind {
        match self.err_code {
            10070 | 10071 | 10164 => FaultKind::WrongSequence,
            10201 => FaultKind::DuplicateInBatch,
            // Larger than the server's own limit for batches, or (2.12.0) with message ids.
            10177 | 10199 => FaultKind::BatchRefused,
            10054 | 10097 => FaultKind::MessageTooLarge,
            10002 | 10023 | 10028 | 10047 => FaultKind::Full,
            // The limits of a stream that discards new messages arrive as a failure of the store, in words.
            STORE_FAILED | 0 if self.description.contains("exceeded") => FaultKind::Full,
            STREAM_NOT_FOUND => FaultKind::StreamMissing,
            10035 | 10039 | 10076 => FaultKind::NoJetStream,
            // Its servers are started one after the other, or elect a leader.
            10004 | 10006..=10009 | 10118 | 10119 => FaultKind::Leaderless,
            // Streams: placement, overlap, name, limits and settings that the server does not accept.
            10005 | 10026 | 10027 => FaultKind::AccountLimit,
            10121 => FaultKind::ConsumerLimit,
            10022
            | 10030..=10034
            | 10049
            | 10052
            | 10053
            | 10055
            | 10056
            | 10058
            | 10060
            | 10061
            | 10065
            | 10069
            | 10074
            | 10096
            | 10109
            | 10113
            | 10122 => FaultKind::StreamConflict,
            CONSUMER_NOT_FOUND | 10149 => FaultKind::ConsumerMissing,
            // Consumers that clash with an existing one or with the stream's retention.
            10012 | 10013 | 10084 | 10093 | 10098..=10101 | 10105 | 10106 | 10148 => FaultKind::ConsumerConflict,
            _ => FaultKind::Server,
        }
    }

    /// The fault in the server's words.
    pub(super) fn fault(&self) -> Fault {
        Fault::new(self.kind(), self.to_string())
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let description = if self.description.is_empty() { "unknown error" } else { &self.description };
        match self.err_code {
            0 => write!(f, "{description} (code {})", self.code),
            code => write!(f, "{description} (error {code})"),
        }
    }
}

/// Why an API request got no answer.
pub(super) fn request_fault(subject: &str, error: &RequestError) -> Fault {
    match error.kind() {
        RequestErrorKind::TimedOut => Fault::new(FaultKind::Timeout, format!("no answer to {subject} in time")),
        RequestErrorKind::NoResponders => {
            Fault::new(FaultKind::NoJetStream, format!("JetStream is not enabled: nobody answers {subject}"))
        }
        RequestErrorKind::InvalidSubject => {
            Fault::new(FaultKind::Settings, format!("{subject} is not a valid subject"))
        }
        RequestErrorKind::Other => Fault::new(FaultKind::Server, format!("{subject}: {}", causes(error))),
    }
}

/// Why the client library did not send a message.
pub(super) fn publish_fault(error: &PublishError) -> Fault {
    let kind = match error.kind() {
        PublishErrorKind::MaxPayloadExceeded => FaultKind::MessageTooLarge,
        PublishErrorKind::InvalidSubject => FaultKind::InvalidMessage,
        PublishErrorKind::Send => FaultKind::Unreachable,
    };
    Fault::new(kind, causes(error))
}

/// Why a connection could not be made. `address` is put into the message and must not contain credentials.
pub(super) fn connect_fault(address: &str, error: &ConnectError) -> Fault {
    let kind = match error.kind() {
        ConnectErrorKind::ServerParse => FaultKind::Settings,
        ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => FaultKind::Credentials,
        ConnectErrorKind::Tls => FaultKind::Tls,
        ConnectErrorKind::Dns | ConnectErrorKind::TimedOut | ConnectErrorKind::MaxReconnects => FaultKind::Unreachable,
        ConnectErrorKind::Io if is_tls(error) => FaultKind::Tls,
        ConnectErrorKind::Io => server_error_in(error).map_or(FaultKind::Unreachable, server_error_kind),
    };
    Fault::new(kind, format!("{address}: {}", causes(error)))
}

/// What an error that the server sent on its own accord means for the connection.
pub(super) fn server_error_kind(error: &ServerError) -> FaultKind {
    match error {
        ServerError::AuthorizationViolation => FaultKind::Credentials,
        ServerError::SlowConsumer(_) => FaultKind::Unreachable,
        ServerError::Other(text) => {
            let text = text.to_ascii_lowercase();
            if text.contains("permissions violation") {
                FaultKind::Permission
            } else if text.contains("authentication") || text.contains("authorization") {
                FaultKind::Credentials
            } else if text.contains("connections exceeded") {
                FaultKind::AccountLimit
            } else if text.contains("maximum payload") {
                FaultKind::MessageTooLarge
            } else if text.contains("tls") {
                FaultKind::Tls
            } else {
                FaultKind::Unreachable
            }
        }
    }
}

/// What the server forbade, if that is what its error says: the operation's subject (or reply subject).
pub(super) fn denied_subject(text: &str) -> Option<Denied<'_>> {
    let lower = text.to_ascii_lowercase();
    let rest = &text[lower.find("permissions violation for ")? + "permissions violation for ".len()..];
    let (_, quoted) = rest.split_once('"')?;
    let (subject, _) = quoted.split_once('"')?;
    Some(Denied { subject, subscription: lower.contains("violation for subscription") })
}

/// An operation that the server forbade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Denied<'a> {
    pub(super) subject: &'a str,
    /// It was a subscription; otherwise a publish.
    pub(super) subscription: bool,
}

/// An error with its causes in one line. Causes that the error itself already tells are left out.
pub(super) fn causes(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}

/// The library reports a failed handshake as an I/O error; only its cause tells that it was one.
fn is_tls(error: &ConnectError) -> bool {
    find(error, |cause| cause.is::<rustls::Error>().then_some(())).is_some() || causes(error).contains("tls handshake")
}

fn server_error_in(error: &ConnectError) -> Option<&ServerError> {
    find(error, |cause| cause.downcast_ref::<ServerError>())
}

/// Looks through an error and its causes, and through what I/O errors wrap (which their `source` skips).
fn find<'a, T>(
    error: &'a (dyn StdError + 'static),
    pick: impl Fn(&'a (dyn StdError + 'static)) -> Option<T> + Copy,
) -> Option<T> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = pick(error) {
            return Some(found);
        }
        if let Some(wrapped) = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref)
            && let Some(found) = pick(wrapped)
        {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(err_code: u32, description: &str) -> FaultKind {
        ApiError { code: 400, err_code, description: description.into() }.kind()
    }

    #[test]
    fn publish_errors_are_told_apart() {
        assert_eq!(kind(10071, "wrong last sequence: 7"), FaultKind::WrongSequence);
        assert_eq!(kind(10164, "wrong last sequence"), FaultKind::WrongSequence);
        assert_eq!(kind(10201, "atomic publish batch contains duplicate message id"), FaultKind::DuplicateInBatch);
        assert_eq!(kind(10199, "atomic publish batch is too large: 1000"), FaultKind::BatchRefused);
        assert_eq!(kind(10176, "atomic publish batch is incomplete"), FaultKind::Server);
        assert_eq!(kind(10054, "message size exceeds maximum allowed"), FaultKind::MessageTooLarge);
        assert_eq!(kind(10077, "maximum messages exceeded"), FaultKind::Full);
        assert_eq!(kind(10077, "maximum bytes exceeded"), FaultKind::Full);
        assert_eq!(kind(10077, "write: input/output error"), FaultKind::Server);
        assert_eq!(kind(10023, "insufficient resources"), FaultKind::Full);
        assert_eq!(kind(10047, "insufficient storage resources available"), FaultKind::Full);
    }

    #[test]
    fn stream_errors_are_told_apart() {
        assert_eq!(kind(10065, "subjects overlap with an existing stream"), FaultKind::StreamConflict);
        assert_eq!(kind(10039, "JetStream not enabled for account"), FaultKind::NoJetStream);
        assert_eq!(kind(10008, "JetStream system temporarily unavailable"), FaultKind::Leaderless);
        assert_eq!(kind(10119, "consumer is offline"), FaultKind::Leaderless);
        assert_eq!(kind(10059, "stream not found"), FaultKind::StreamMissing);
    }

    #[test]
    fn limits_of_the_account_are_no_conflicts() {
        assert_eq!(kind(10027, "maximum number of streams reached"), FaultKind::AccountLimit);
        assert_eq!(kind(10026, "maximum consumers limit reached"), FaultKind::AccountLimit);
        assert_eq!(kind(10005, "no suitable peers for placement"), FaultKind::AccountLimit);
        assert_eq!(kind(10121, "consumer max ack pending exceeds system limit of 10"), FaultKind::ConsumerLimit);
        for words in ["maximum account active connections exceeded", "maximum connections exceeded"] {
            assert_eq!(server_error_kind(&ServerError::Other(words.into())), FaultKind::AccountLimit);
        }
        let violation = ServerError::Other("Maximum Payload Violation".into());
        assert_eq!(server_error_kind(&violation), FaultKind::MessageTooLarge);
    }

    #[test]
    fn denied_operation_is_found_in_the_servers_words() {
        let publish = denied_subject("Permissions Violation for Publish to \"shop.event.x\"");
        assert_eq!(publish, Some(Denied { subject: "shop.event.x", subscription: false }));
        let inbox = denied_subject("Permissions Violation for Subscription to \"_INBOX.a.*\"");
        assert_eq!(inbox, Some(Denied { subject: "_INBOX.a.*", subscription: true }));
        assert_eq!(denied_subject("Stale Connection"), None);
    }

    #[test]
    fn expired_account_is_a_matter_of_credentials() {
        let expired = ServerError::Other("User Authentication Expired".into());
        assert_eq!(server_error_kind(&expired), FaultKind::Credentials);
        assert_eq!(server_error_kind(&ServerError::Other("Stale Connection".into())), FaultKind::Unreachable);
    }
}
