//! Deliveries to somebody else's broker: another account, or another cluster. Each message is a request of its own, which the
//! stream answers; order, pace and retries are the dispatcher's.
//!
//! A connection that is lost is given up, with all that was on its way: the next attempt makes another one. The library may find
//! its way back once before it ends, but nobody hands it anything any more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::client::RequestErrorKind;
use async_nats::connection::State as Connection;
use async_nats::jetstream::{self, Context};
use async_nats::rustls::{ClientConfig, RootCertStore};
use async_nats::{
    Client, ConnectErrorKind, ConnectOptions, Event, HeaderMap, HeaderName, HeaderValue, Request, ServerAddr,
};
use sea_mq_model::broker::{self, FaultKind as Cause};
use sea_mq_model::deliver::message::SUBJECT;
use sea_mq_model::deliver::outcome::{Answer, FaultKind};
use sea_mq_model::deliver::place::Place;
use serde_json::{Value, json};
use tokio::sync::{Mutex, broadcast, watch};

use super::{ack, errors};
use crate::http::fault::Fault;
use crate::http::target::{Answered, Attempt, Auth, Target};
use crate::http::tls;

const NAME: &str = "sea_mq dispatcher";
const MESSAGE_ID: &str = "Nats-Msg-Id";
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// Words of the server that nobody has taken yet.
const DENIALS: usize = 64;

/// A broker as an endpoint.
pub struct Broker {
    target: Target,
    place: Place,
    tls: Arc<ClientConfig>,
    link: Mutex<Linked>,
}

#[derive(Default)]
enum Linked {
    #[default]
    Never,
    To(Arc<Link>),
    /// What waited for the same connection has failed with it.
    Failed(Instant, Fault),
}

struct Link {
    client: Client,
    context: Context,
    lost: watch::Sender<bool>,
    /// Subjects that the server did not let us use.
    denials: broadcast::Sender<String>,
}

impl Link {
    fn is_lost(&self) -> bool {
        *self.lost.borrow() || self.client.connection_state() != Connection::Connected
    }
}

impl Broker {
    /// # Errors
    /// If it cannot be reached as it is described.
    pub fn new(roots: Arc<RootCertStore>, target: Target) -> Result<Self, Fault> {
        let place = target.url.parse().map_err(|why| Fault::new(FaultKind::Connect, format!("the URL: {why}")))?;
        let mut config = ClientConfig::clone(&*tls::client(roots, target.identity.as_ref())?);
        config.alpn_protocols.clear();
        Ok(Self { target, place, tls: Arc::new(config), link: Mutex::default() })
    }

    /// Makes an attempt.
    pub async fn send(&self, attempt: Attempt) -> Answered {
        self.timed(async { self.publish(attempt).await.map(|()| None) }).await
    }

    /// Looks how far it comes, and which streams store what has these subjects.
    pub async fn ask(&self, subjects: &[String]) -> Answered {
        self.timed(self.look(subjects)).await
    }

    async fn timed(&self, work: impl Future<Output = Result<Option<String>, Fault>>) -> Answered {
        let (begun, limit) = (Instant::now(), self.target.timeout);
        let timed_out = |_| Fault::new(FaultKind::Timeout, format!("no answer within {} ms", limit.as_millis()));
        let result = tokio::time::timeout(limit, work).await.map_err(timed_out).and_then(|result| result);
        match result {
            Ok(response) => Answered { answer: Answer::Stored, error: None, response, duration: begun.elapsed() },
            Err(fault) => Answered::of_fault(fault, begun.elapsed()),
        }
    }

    async fn publish(&self, attempt: Attempt) -> Result<(), Fault> {
        let (subject, headers) = self.message(&attempt)?;
        let link = self.link().await?;
        let request = Request::new().headers(headers).payload(attempt.body).timeout(None);
        let answer = link.unless_denied(&subject, link.client.send_request(subject.clone(), request)).await?;
        let error = match answer {
            Ok(message) => return ack::read_of_any(&message).map_err(fault),
            Err(error) => error,
        };
        Err(match error.kind() {
            RequestErrorKind::NoResponders => link.why_nobody_answers(&subject).await,
            RequestErrorKind::TimedOut => Fault::new(FaultKind::Timeout, "no answer"),
            RequestErrorKind::MaxPayloadExceeded | RequestErrorKind::InvalidSubject => {
                Fault::new(FaultKind::Unsendable, errors::causes(&error))
            }
            _ => Fault::new(FaultKind::Broken, errors::causes(&error)),
        })
    }

    /// Where it goes, and with which headers: those of the event before those of the endpoint.
    fn message(&self, attempt: &Attempt) -> Result<(String, HeaderMap), Fault> {
        let value = |wanted: &str| attempt.headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value);
        let own = value(SUBJECT).ok_or_else(|| Fault::new(FaultKind::Unsendable, "it has no subject"))?;
        let events = attempt.headers.iter().filter(|(name, _)| name != SUBJECT);
        let known = |name: &str| attempt.headers.iter().any(|(own, _)| own.eq_ignore_ascii_case(name));
        let endpoints = self.target.headers.iter().filter(|(name, _)| !known(name));
        let mut headers = HeaderMap::new();
        headers.insert(MESSAGE_ID, attempt.id.as_str());
        for (name, value) in events.chain(endpoints) {
            let bad = || Fault::new(FaultKind::Unsendable, format!("header {name} cannot be sent"));
            let value: HeaderValue = value.parse().map_err(|_| bad())?;
            headers.insert(name.parse::<HeaderName>().map_err(|_| bad())?, value);
        }
        Ok((self.place.subject(own), headers))
    }

    async fn look(&self, subjects: &[String]) -> Result<Option<String>, Fault> {
        let link = self.link().await?;
        let mut found = Vec::new();
        for own in subjects {
            let subject = self.place.subject(own);
            match link.streams(&subject).await? {
                streams if streams.is_empty() => return Err(no_stream(&subject)),
                streams => found.push(format!("{} stores {subject}", streams.join(", "))),
            }
        }
        Ok(Some(found.join("; ")).filter(|text| !text.is_empty()))
    }

    /// The connection. Those that need one at the same time wait for the same.
    async fn link(&self) -> Result<Arc<Link>, Fault> {
        let asked = Instant::now();
        let mut linked = self.link.lock().await;
        match &*linked {
            Linked::To(link) if !link.is_lost() => return Ok(Arc::clone(link)),
            Linked::Failed(at, fault) if *at >= asked => return Err(fault.clone()),
            _ => {}
        }
        *linked = Linked::Never;
        match self.connect().await {
            Ok(link) => {
                let link = Arc::new(link);
                *linked = Linked::To(Arc::clone(&link));
                Ok(link)
            }
            Err(fault) => {
                *linked = Linked::Failed(Instant::now(), fault.clone());
                Err(fault)
            }
        }
    }

    async fn connect(&self) -> Result<Link, Fault> {
        let (lost, denials) = (watch::Sender::new(false), broadcast::Sender::new(DENIALS));
        let (losses, words) = (lost.clone(), denials.clone());
        let options = self.options()?.event_callback(move |event| {
            match event {
                Event::Disconnected | Event::Closed => _ = losses.send_replace(true),
                Event::ServerError(error) => {
                    if let Some(denied) = errors::denied_subject(&error.to_string()) {
                        // An error: nobody waits for anything.
                        let _ = words.send(denied.subject.to_owned());
                    }
                }
                _ => {}
            }
            std::future::ready(())
        });
        let address = &self.place.address;
        let scheme = if address.tls { "tls" } else { "nats" };
        let server: ServerAddr = format!("{scheme}://{address}")
            .parse()
            .map_err(|error| Fault::new(FaultKind::Connect, format!("{address}: {error}")))?;
        let limit = self.target.connect_timeout;
        let timed_out = |_| Fault::new(FaultKind::Timeout, format!("no connection within {} ms", limit.as_millis()));
        let connected = tokio::time::timeout(limit, options.connect(server)).await.map_err(timed_out)?;
        let client = connected.map_err(|error| connect_fault(&address.to_string(), &error))?;
        let mut context = jetstream::new(client.clone());
        context.set_timeout(limit);
        let link = Link { client, context, lost, denials };
        // Without it an answer to the first message would be the first word of what is wrong.
        link.call("INFO", &json!({})).await?;
        Ok(link)
    }

    fn options(&self) -> Result<ConnectOptions, Fault> {
        let options = ConnectOptions::new()
            .name(NAME)
            .connection_timeout(self.target.connect_timeout)
            .ping_interval(PING_INTERVAL)
            .ignore_discovered_servers()
            .max_reconnects(1)
            .require_tls(self.place.address.tls)
            .tls_client_config(ClientConfig::clone(&self.tls));
        let credentials = |error: std::io::Error| Fault::new(FaultKind::Credentials, format!("creds: {error}"));
        Ok(match &self.target.auth {
            Auth::None | Auth::OAuth2 { .. } => options,
            Auth::Basic { user, password } => options.user_and_password(user.clone(), password.clone()),
            Auth::Bearer { token } => options.token(token.clone()),
            Auth::NKey { seed } => options.nkey(seed.trim().to_owned()),
            Auth::Creds { text } => options.credentials(text).map_err(credentials)?,
        })
    }
}

impl Link {
    /// Does something, but does not wait for an answer that will not come.
    async fn unless_denied<T>(&self, subject: &str, work: impl Future<Output = T>) -> Result<T, Fault> {
        let (mut lost, mut denials) = (self.lost.subscribe(), self.denials.subscribe());
        let denied = async {
            loop {
                match denials.recv().await {
                    Ok(word) if word == subject => break,
                    // The answers go to an inbox.
                    Ok(word) if word.starts_with("_INBOX.") => break,
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
                }
            }
        };
        tokio::select! {
            biased;
            done = work => Ok(done),
            () = denied => Err(Fault::new(FaultKind::Forbidden, format!("the account may not publish to {subject}"))),
            _ = lost.wait_for(|lost| *lost) => Err(Fault::new(FaultKind::Broken, "connection lost")),
        }
    }

    /// Calls the API of JetStream.
    async fn call(&self, what: &str, body: &Value) -> Result<Value, Fault> {
        let subject = format!("$JS.API.{what}");
        let answer: Result<Value, _> =
            self.unless_denied(&subject, self.context.request(what.to_owned(), body)).await?;
        let answer = answer.map_err(|error| fault(errors::request_fault(&subject, &error)))?;
        match answer.get("error") {
            None => Ok(answer),
            Some(error) => {
                let error: errors::ApiError = serde_json::from_value(error.clone()).unwrap_or_default();
                Err(fault(error.fault()))
            }
        }
    }

    /// The streams that store a subject.
    async fn streams(&self, subject: &str) -> Result<Vec<String>, Fault> {
        let answer = self.call("STREAM.NAMES", &json!({ "subject": subject })).await?;
        let names = answer.get("streams").and_then(Value::as_array);
        Ok(names.into_iter().flatten().filter_map(|name| Some(name.as_str()?.to_owned())).collect())
    }

    /// No stream is there, or for the moment nobody leads it.
    async fn why_nobody_answers(&self, subject: &str) -> Fault {
        match self.streams(subject).await {
            Ok(streams) if streams.is_empty() => no_stream(subject),
            _ => Fault::new(FaultKind::Broken, format!("no stream answers for {subject}")),
        }
    }
}

fn no_stream(subject: &str) -> Fault {
    Fault::new(FaultKind::NoStream, format!("no stream stores {subject}"))
}

fn fault(fault: broker::Fault) -> Fault {
    let kind = match fault.kind {
        Cause::Full | Cause::AccountLimit => FaultKind::Full,
        Cause::MessageTooLarge | Cause::InvalidMessage => FaultKind::Unsendable,
        Cause::Permission => FaultKind::Forbidden,
        Cause::Credentials | Cause::Settings => FaultKind::Credentials,
        Cause::Timeout => FaultKind::Timeout,
        Cause::Unreachable => FaultKind::Connect,
        _ => FaultKind::Broken,
    };
    Fault::new(kind, fault.message)
}

fn connect_fault(address: &str, error: &async_nats::ConnectError) -> Fault {
    let told = errors::connect_fault(address, error);
    match (error.kind(), told.kind) {
        (ConnectErrorKind::Dns, _) => Fault::new(FaultKind::Dns, told.message),
        // Whether it is about a certificate is in the error of rustls.
        (_, Cause::Tls) => match Fault::of(error) {
            tls if matches!(tls.kind, FaultKind::Certificate) => Fault::new(FaultKind::Certificate, told.message),
            _ => Fault::new(FaultKind::Tls, told.message),
        },
        _ => fault(told),
    }
}
