//! Sends deliveries to one endpoint, over connections that are kept.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response};
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use sea_mq_model::deliver::outcome::{Answer, FaultKind, retry_after};
use sea_mq_model::deliver::signature::{self, Secret};
use tokio_rustls::rustls::RootCertStore;

use super::connector::Connector;
use super::dial::Dialer;
use super::fault::Fault;
use super::network::Network;
use super::target::{Answered, Attempt, Auth, Target};
use super::tls;
use super::token::Token;

/// Bytes of an answer that are read.
pub const ANSWER: usize = 16 * 1024;
/// Connections are kept for less long than servers keep theirs: one that is closed while a request is on its way has failed.
const IDLE: Duration = Duration::from_secs(4);
const AGENT: &str = concat!("sea_mq/", env!("CARGO_PKG_VERSION"));

pub type Http = legacy::Client<Connector, Full<Bytes>>;

/// What all endpoints share.
pub struct Shared {
    pub network: Network,
    pub dialer: Arc<Dialer>,
    pub roots: Arc<RootCertStore>,
}

impl Shared {
    /// # Errors
    /// If there is no name server, or the file of authorities cannot be read.
    pub fn new(network: Network) -> Result<Self, Fault> {
        let dialer = Arc::new(Dialer::new(&network)?);
        let roots = tls::roots(network.ca_file.as_deref())?;
        Ok(Self { network, dialer, roots })
    }

    fn http(&self, target: &Target, limit: Duration) -> Result<Http, Fault> {
        let tls = tls::client(Arc::clone(&self.roots), target.identity.as_ref())?;
        let connector = Connector { dialer: Arc::clone(&self.dialer), tls, limit };
        let mut builder = legacy::Client::builder(TokioExecutor::new());
        builder.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE);
        Ok(builder.build(connector))
    }
}

pub struct Client {
    target: Target,
    uri: hyper::Uri,
    method: Method,
    headers: HeaderMap,
    signing: Vec<Secret>,
    http: Http,
    token: Option<Token>,
}

impl Client {
    /// # Errors
    /// If the endpoint cannot be reached as it is described.
    pub fn new(shared: &Shared, target: Target) -> Result<Self, Fault> {
        let blocked = |error: &dyn std::fmt::Display| Fault::new(FaultKind::Blocked, format!("{error}"));
        let credentials = |error: &dyn std::fmt::Display| Fault::new(FaultKind::Credentials, format!("{error}"));
        let url = shared.network.endpoint_url(&target.url).map_err(|error| blocked(&error))?;
        let uri = url.as_str().parse().map_err(|error| blocked(&error))?;
        let method = target.method.parse().map_err(|error| blocked(&error))?;
        let signing: Result<Vec<Secret>, _> = target.signing.iter().map(|text| text.parse()).collect();
        let signing = signing.map_err(|error| credentials(&error))?;
        let http = shared.http(&target, target.connect_timeout)?;
        let token = match &target.auth {
            Auth::OAuth2 { token_url, client_id, client_secret, scope } => {
                let url = shared.network.endpoint_url(token_url).map_err(|error| blocked(&error))?;
                let plain = Target { identity: None, ..target.clone() };
                let http = shared.http(&plain, target.connect_timeout)?;
                Some(Token::new(http, &url, client_id, client_secret, scope.as_deref())?)
            }
            _ => None,
        };
        let headers = own_headers(&target)?;
        Ok(Self { uri, method, headers, signing, http, token, target })
    }

    /// Makes an attempt. One deadline runs up to the last byte.
    pub async fn send(&self, attempt: Attempt) -> Answered {
        let begun = Instant::now();
        let limit = self.target.timeout;
        let timed_out = |_| Fault::new(FaultKind::Timeout, format!("no whole answer within {} ms", limit.as_millis()));
        let result =
            tokio::time::timeout(limit, self.exchange(attempt)).await.map_err(timed_out).and_then(|result| result);
        let duration = begun.elapsed();
        match result {
            Err(fault) => Answered::of_fault(fault, duration),
            Ok((code, retry_after, body)) => {
                let sound = (200..300).contains(&code);
                let response = (!sound || self.target.keep_response).then(|| text(&body));
                let error = (!sound).then(|| format!("HTTP {code}"));
                Answered { answer: Answer::Status { code, retry_after }, error, response, duration }
            }
        }
    }

    async fn exchange(&self, attempt: Attempt) -> Result<(u16, Option<Duration>, Vec<u8>), Fault> {
        let mut headers = self.headers.clone();
        self.add_headers(&mut headers, &attempt)?;
        if let Some(token) = &self.token {
            headers.insert(hyper::header::AUTHORIZATION, token.header().await?);
        }
        let mut request = Request::new(Full::new(attempt.body));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = headers;
        let response = self.http.request(request).await.map_err(|error| Fault::of(&error))?;
        let code = response.status().as_u16();
        if let (401, Some(token)) = (code, &self.token) {
            token.forget().await;
        }
        let wait = response.headers().get(hyper::header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        let wait = wait.and_then(|value| retry_after(value, unix_time()));
        Ok((code, wait, beginning(response, self.target.answer.unwrap_or(ANSWER)).await?))
    }

    fn add_headers(&self, headers: &mut HeaderMap, attempt: &Attempt) -> Result<(), Fault> {
        let mut put = |name: &str, value: &str| -> Result<(), Fault> {
            let (name, value) = header(name, value)?;
            headers.insert(name, value);
            Ok(())
        };
        for (name, value) in &attempt.headers {
            put(name, value)?;
        }
        if !self.signing.is_empty() {
            let now = i64::try_from(unix_time()).unwrap_or(i64::MAX);
            put("webhook-id", &attempt.id)?;
            put("webhook-timestamp", &now.to_string())?;
            put("webhook-signature", &signature::header(&self.signing, &attempt.id, now, &attempt.body))?;
        }
        if self.target.idempotency {
            put("idempotency-key", &attempt.id)?;
        }
        Ok(())
    }
}

/// Headers that are the same in all attempts.
fn own_headers(target: &Target) -> Result<HeaderMap, Fault> {
    let mut headers = HeaderMap::new();
    let mut put = |name: &str, value: &str| -> Result<(), Fault> {
        let (name, value) = header(name, value)?;
        headers.insert(name, value);
        Ok(())
    };
    put("user-agent", AGENT)?;
    for (name, value) in &target.headers {
        put(name, value)?;
    }
    // What is compressed could be any size.
    put("accept-encoding", "identity")?;
    match &target.auth {
        Auth::Basic { user, password } => {
            put("authorization", &format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))?;
        }
        Auth::Bearer { token } => put("authorization", &format!("Bearer {token}"))?,
        Auth::None | Auth::OAuth2 { .. } | Auth::NKey { .. } | Auth::Creds { .. } => {}
    }
    if let Some(value) = headers.get_mut("authorization") {
        value.set_sensitive(true);
    }
    Ok(headers)
}

fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), Fault> {
    let bad = || Fault::new(FaultKind::Credentials, format!("{name} is no header, or its value cannot be one"));
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
    let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| bad())?;
    Ok((name, value))
}

/// The beginning of an answer's body. The rest is not read: the connection is given up with it.
pub async fn beginning(response: Response<Incoming>, most: usize) -> Result<Vec<u8>, Fault> {
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    while bytes.len() < most
        && let Some(frame) = body.frame().await
    {
        if let Ok(data) = frame.map_err(|error| Fault::of(&error))?.into_data() {
            bytes.extend_from_slice(&data[..data.len().min(most - bytes.len())]);
        }
    }
    Ok(bytes)
}

/// As PostgreSQL can store it.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace('\0', "\u{fffd}")
}

pub fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
