//! Requests to the JetStream API, with plain JSON on both sides.
//!
//! Not the library's typed configurations: a stream that is read, changed and written back through them would lose every
//! setting that this version of the library does not know.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::context::RequestError;
use async_nats::jetstream::{self, Context};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde_json::Value;
use tokio::sync::{Mutex, Notify, OwnedMutexGuard};

use super::errors::{self, ApiError, Denied};
use super::lease;
use sea_mq_model::broker::{Fault, FaultKind};

/// Requests that change nothing begin like this.
const ASKING: [&str; 5] = ["INFO", "STREAM.INFO.", "STREAM.NAMES", "STREAM.MSG.GET.", "CONSUMER.INFO."];
/// After how long they are sent again, and how often at most.
const AGAIN: Duration = Duration::from_secs(1);
const QUESTIONS: usize = 5;

/// Why an API call failed.
#[derive(Debug)]
pub(super) enum CallError {
    /// The server said no.
    Refused(ApiError),
    /// There was no answer, or none that can be understood.
    Failed(Fault),
}

impl From<CallError> for Fault {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused(error) => error.fault(),
            CallError::Failed(fault) => fault,
        }
    }
}

/// The JetStream API of one connection. Cheap to clone.
#[derive(Clone)]
pub(super) struct Api {
    client: Client,
    context: Context,
    /// What the subjects of requests begin with, without the dot.
    prefix: Rc<str>,
    /// Bounds each call.
    pub(super) timeout: Duration,
    /// Major and minor version of the server.
    version: (u32, u32),
    /// The server is in no cluster, and JetStream is on that server.
    pub(super) standalone: bool,
    denials: Rc<Denials>,
    exclusive: Exclusive,
}

/// Consumers (by stream and name) that are being changed in several steps.
type Exclusive = Rc<RefCell<HashMap<(String, String), Arc<Mutex<()>>>>>;

/// API requests that the server forbade. It does so by a complaint on the connection; the request itself is not answered.
#[derive(Default)]
struct Denials {
    latest: RefCell<String>,
    changed: Notify,
}

impl Api {
    pub(super) fn new(client: Client, domain: Option<&str>, timeout: Duration) -> Self {
        let server = client.server_info();
        let standalone = domain.is_none() && server.cluster.as_deref().unwrap_or_default().is_empty();
        let (mut context, prefix) = match domain {
            Some(domain) => (jetstream::with_domain(client.clone(), domain), format!("$JS.{domain}.API").into()),
            None => (jetstream::new(client.clone()), "$JS.API".into()),
        };
        context.set_timeout(timeout);
        Self {
            client,
            context,
            prefix,
            timeout,
            version: parse_version(&server.version),
            standalone,
            denials: Rc::default(),
            exclusive: Rc::default(),
        }
    }

    /// The connection.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// What the subjects of requests begin with, without the dot.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The library's own view of the API.
    pub(super) fn context(&self) -> &Context {
        &self.context
    }

    /// Whether the server is of this version or a later one.
    pub(super) fn server_has(&self, major: u32, minor: u32) -> bool {
        self.version >= (major, minor)
    }

    /// Calls the API; `subject` is what follows the prefix.
    ///
    /// # Errors
    /// [`CallError::Refused`] with what the server said; [`CallError::Failed`] if it said nothing in time.
    pub(super) async fn call(&self, subject: &str, body: &Value) -> Result<Value, CallError> {
        let only_asks = ASKING.iter().any(|prefix| subject.starts_with(prefix));
        let answer: Result<Value, _> = match only_asks {
            true => self.ask(subject, body).await,
            false => self.context.request(subject.to_owned(), body).await,
        };
        let answer = answer.map_err(|error| CallError::Failed(errors::request_fault(subject, &error)))?;
        match answer.get("error") {
            None => Ok(answer),
            Some(error) => Err(CallError::Refused(serde_json::from_value(error.clone()).unwrap_or_default())),
        }
    }

    /// Asks again while there is no answer: whoever was to answer may have ended, and another has taken its place. The first answer
    /// counts.
    async fn ask(&self, subject: &str, body: &Value) -> Result<Value, RequestError> {
        let mut asked = FuturesUnordered::new();
        loop {
            asked.push(self.context.request(subject.to_owned(), body));
            let more = asked.len() < QUESTIONS;
            tokio::select! {
                biased;
                Some(answer) = asked.next() => return answer,
                () = tokio::time::sleep(AGAIN), if more => {}
            }
        }
    }

    /// Asks JetStream for the account. In a cluster only the leader of the whole answers.
    pub(super) async fn prove(&self) -> Result<(), CallError> {
        self.call("INFO", &serde_json::json!({})).await.map(|_| ())
    }

    /// A stream's description and state, or `None` if it does not exist.
    pub(super) async fn stream_info(&self, name: &str) -> Result<Option<Value>, Fault> {
        found(self.call(&format!("STREAM.INFO.{name}"), &serde_json::json!({})).await, errors::STREAM_NOT_FOUND)
    }

    /// Notes that the server forbade something. Returns whether it was an API request, or about the lease.
    pub(super) fn note_denial(&self, denied: Denied<'_>) -> bool {
        if denied.subscription || !(denied.subject.starts_with("$JS.") || denied.subject.starts_with(lease::SUBJECTS)) {
            return false;
        }
        denied.subject.clone_into(&mut self.denials.latest.borrow_mut());
        self.denials.changed.notify_waiters();
        true
    }

    /// Runs an operation on a stream, but does not wait for an answer to something that the server forbade.
    pub(super) async fn permitted<T>(
        &self,
        stream: &str,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        self.unless_denied(|subject| names(subject, stream) || subject.ends_with(".STREAM.NAMES"), work).await
    }

    /// The same for what `ours` says of a subject that it is part of the operation.
    pub(super) async fn unless_denied<T>(
        &self,
        ours: impl Fn(&str) -> bool,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        tokio::select! {
            biased;
            result = work => result,
            fault = self.denied(ours) => Err(fault),
        }
    }

    /// The same for an operation on a consumer.
    pub(super) async fn permitted_on<T>(
        &self,
        stream: &str,
        consumer: &str,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        self.unless_denied(|subject| names(subject, stream) && names(subject, consumer), work).await
    }

    async fn denied(&self, ours: impl Fn(&str) -> bool) -> Fault {
        loop {
            self.denials.changed.notified().await;
            let subject = self.denials.latest.borrow();
            if ours(&subject) {
                return Fault::new(FaultKind::Permission, format!("the account may not publish to {subject}"));
            }
        }
    }

    /// Waits until nobody else changes this consumer, and keeps others from it until the guard is dropped.
    pub(super) async fn exclusive(&self, stream: &str, consumer: &str) -> OwnedMutexGuard<()> {
        let key = (stream.to_owned(), consumer.to_owned());
        let mutex = Arc::clone(self.exclusive.borrow_mut().entry(key).or_default());
        mutex.lock_owned().await
    }
}

/// Whether a subject has this token.
pub(super) fn names(subject: &str, token: &str) -> bool {
    subject.split('.').any(|part| part == token)
}

/// `None` instead of the error that says that a thing does not exist.
pub(super) fn found(answer: Result<Value, CallError>, missing: u32) -> Result<Option<Value>, Fault> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(CallError::Refused(error)) if error.err_code == missing => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Major and minor; what cannot be read counts as very old.
fn parse_version(text: &str) -> (u32, u32) {
    let mut numbers = text.trim_start_matches('v').split('.').map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare() {
        assert_eq!(parse_version("2.12.1-RC.1"), (2, 12));
        assert!(parse_version("v2.9.0") < (2, 10));
        assert!(parse_version("3.0.0") > (2, 12));
        assert_eq!(parse_version("dev"), (0, 0));
    }
}
