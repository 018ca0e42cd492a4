//! Tokens of OAuth 2 by client credentials (RFC 6749, section 4.4): fetched when they are needed, kept until shortly before they
//! end.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::header::HeaderValue;
use sea_mq_model::deliver::outcome::FaultKind;
use serde::Deserialize;
use tokio::sync::Mutex;
use url::Url;
use url::form_urlencoded::{Serializer, byte_serialize};

use super::client::{ANSWER, Http, beginning};
use super::fault::Fault;

/// A token is not used in the last moments of its life.
const MARGIN: Duration = Duration::from_secs(10);
/// How long one lives that does not say.
const LIFE: u64 = 300;

pub struct Token {
    http: Http,
    uri: hyper::Uri,
    credentials: HeaderValue,
    form: String,
    kept: Mutex<Option<(HeaderValue, Instant)>>,
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    expires_in: Option<u64>,
}

impl Token {
    /// # Errors
    /// If the credentials cannot be sent.
    pub fn new(http: Http, url: &Url, client_id: &str, secret: &str, scope: Option<&str>) -> Result<Self, Fault> {
        let fault = |error: &dyn std::fmt::Display| Fault::new(FaultKind::Credentials, format!("token: {error}"));
        let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
        let pair = STANDARD.encode(format!("{}:{}", encoded(client_id), encoded(secret)));
        let mut credentials = HeaderValue::from_str(&format!("Basic {pair}")).map_err(|error| fault(&error))?;
        credentials.set_sensitive(true);
        let mut form = Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        if let Some(scope) = scope {
            form.append_pair("scope", scope);
        }
        let uri = url.as_str().parse().map_err(|error| fault(&error))?;
        Ok(Self { http, uri, credentials, form: form.finish(), kept: Mutex::new(None) })
    }

    /// The header `Authorization`. Requests that need one at the same time wait for the same.
    ///
    /// # Errors
    /// If no token is granted.
    pub async fn header(&self) -> Result<HeaderValue, Fault> {
        let mut kept = self.kept.lock().await;
        if let Some((header, until)) = kept.as_ref()
            && *until > Instant::now()
        {
            return Ok(header.clone());
        }
        let (header, life) = self.fetch().await?;
        *kept = Some((header.clone(), Instant::now() + life.saturating_sub(MARGIN)));
        Ok(header)
    }

    /// It was not accepted.
    pub async fn forget(&self) {
        *self.kept.lock().await = None;
    }

    async fn fetch(&self) -> Result<(HeaderValue, Duration), Fault> {
        let mut request = Request::new(Full::new(Bytes::from(self.form.clone())));
        *request.method_mut() = hyper::Method::POST;
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        headers.insert("authorization", self.credentials.clone());
        headers.insert("content-type", HeaderValue::from_static("application/x-www-form-urlencoded"));
        headers.insert("accept", HeaderValue::from_static("application/json"));
        headers.insert("accept-encoding", HeaderValue::from_static("identity"));
        let response = self.http.request(request).await.map_err(|error| Fault::of(&error))?;
        let status = response.status();
        let body = beginning(response, ANSWER).await?;
        // What passes by itself is not the credentials' fault.
        let kind = if status.is_client_error() { FaultKind::Credentials } else { FaultKind::Broken };
        let refused =
            |why: &str| Fault::new(kind, format!("no token from {}: {why}", self.uri.host().unwrap_or_default()));
        if !status.is_success() {
            return Err(refused(&format!("HTTP {}", status.as_u16())));
        }
        let granted: Granted = serde_json::from_slice(&body).map_err(|_| refused("the answer has no access_token"))?;
        let mut header = HeaderValue::from_str(&format!("Bearer {}", granted.access_token))
            .map_err(|_| refused("the token cannot be sent"))?;
        header.set_sensitive(true);
        Ok((header, Duration::from_secs(granted.expires_in.unwrap_or(LIFE))))
    }
}
