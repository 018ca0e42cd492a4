//! A request: its ids, who sent it, and what it asks of the database.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::problem::Problem;
use crate::auth::Caller;
use crate::db::call::Ask;
use crate::db::pool::{Access, Identity};
use crate::serve::App;
use crate::serve::log;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// What the layer around all routes knows of a request.
#[derive(Clone, Debug)]
pub struct Ids {
    pub request: String,
    pub correlation: Option<String>,
    pub traceparent: Option<String>,
}

impl Ids {
    fn of(headers: &HeaderMap) -> Self {
        let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Self {
            request: Uuid::now_v7().to_string(),
            correlation: text(&CORRELATION_ID)
                .filter(|id| (1..=200).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())),
            traceparent: text(&TRACEPARENT).filter(|trace| is_traceparent(trace)),
        }
    }
}

/// `00-{32 hex}-{16 hex}-{2 hex}`, neither of the ids all zeros.
pub fn is_traceparent(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    let set = |part: &str| part.bytes().any(|byte| byte != b'0');
    matches!(parts[..], [version, trace, span, flags]
        if hex(version, 2) && version != "ff" && hex(trace, 32) && set(trace) && hex(span, 16) && set(span) && hex(flags, 2))
}

/// Around all routes: ids, the form of errors, the log.
pub async fn around(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let started = std::time::Instant::now();
    let ids = Ids::of(request.headers());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let accept = Accept::of(request.headers());
    let is_api =
        path.strip_prefix(app.options.base_path.trim_end_matches('/')).is_some_and(|path| path.starts_with("/v1/"));
    request.extensions_mut().insert(ids.clone());
    let slot = log::Slot::default();
    request.extensions_mut().insert(slot.clone());
    let mut response = if is_api && !accept.json {
        Problem::new(StatusCode::NOT_ACCEPTABLE, "the answers are application/json")
            .hint("Send Accept: application/json or leave it out.")
            .into_response()
    } else {
        match tokio::time::timeout(app.options.request_timeout, next.run(request)).await {
            Ok(response) => response,
            Err(_) => Problem::new(StatusCode::GATEWAY_TIMEOUT, "the request took too long").into_response(),
        }
    };
    let problem = response.extensions_mut().remove::<Problem>().or_else(|| unwritten(&response));
    if let Some(problem) = problem.as_ref().filter(|_| is_api) {
        let allow = response.headers().get(header::ALLOW).cloned();
        response = problem.answer(&ids.request, accept.problem);
        if let Some(allow) = allow {
            response.headers_mut().insert(header::ALLOW, allow);
        }
    }
    echo(&mut response, &ids);
    app.meter.count(started.elapsed(), response.status());
    log::request(&log::Line {
        ids: &ids,
        method: method.as_str(),
        path: &path,
        status: response.status().as_u16(),
        took: started.elapsed(),
        caller: slot.get(),
        problem: problem.as_ref(),
    });
    response
}

/// An error that axum answered by itself.
fn unwritten(response: &Response) -> Option<Problem> {
    let status = response.status();
    let message = match status.as_u16() {
        400 => "the request cannot be read",
        404 => "there is nothing here",
        405 => "this method is not for this path",
        413 => "the body is too large",
        415 => "the body must be application/json",
        422 => "the body is not what is expected here",
        500.. => "something is wrong inside",
        _ => return None,
    };
    Some(Problem::new(status, message))
}

fn echo(response: &mut Response, ids: &Ids) {
    let mut set = |name: HeaderName, value: Option<&String>| {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
            response.headers_mut().insert(name, value);
        }
    };
    set(REQUEST_ID, Some(&ids.request));
    set(CORRELATION_ID, ids.correlation.as_ref());
    set(TRACEPARENT, ids.traceparent.as_ref());
}

/// What the client takes.
struct Accept {
    json: bool,
    problem: bool,
}

impl Accept {
    fn of(headers: &HeaderMap) -> Self {
        let Some(accept) = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()) else {
            return Self { json: true, problem: false };
        };
        let kinds = || accept.split(',').map(|kind| kind.split(';').next().unwrap_or_default().trim());
        let taken = ["*/*", "application/*", "application/json", "application/problem+json", "text/event-stream"];
        Self {
            json: kinds().any(|kind| taken.contains(&kind)),
            problem: kinds().any(|kind| kind == "application/problem+json"),
        }
    }
}

/// What a handler works with.
pub struct Ctx {
    pub app: Arc<App>,
    pub caller: Caller,
    pub ids: Ids,
}

impl FromRequestParts<Arc<App>> for Ctx {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let caller = app.guard.caller(&parts.headers)?;
        // A browser sends the cookie whoever made the page that asks; another port of the same host is the same site to it.
        let by_cookie = !parts.headers.contains_key(header::AUTHORIZATION);
        if by_cookie && !parts.method.is_safe() && !crate::console::is_own(&parts.headers) {
            return Err(Problem::new(StatusCode::FORBIDDEN, "the request was not sent from here"));
        }
        if let Some(slot) = parts.extensions.get::<log::Slot>() {
            slot.set(&caller);
        }
        let ids = parts.extensions.get::<Ids>().cloned().unwrap_or_else(|| Ids::of(&parts.headers));
        Ok(Self { app: Arc::clone(app), caller, ids })
    }
}

/// Whether the path names what the request is about: then what is not there is 404.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Names {
    InPath,
    InBody,
}

impl Ctx {
    fn identity(&self) -> Identity {
        Identity {
            role: Some(self.caller.role.clone()),
            actor: self.caller.label.clone(),
            correlation_id: self.ids.correlation.clone(),
            traceparent: self.ids.traceparent.clone(),
            request_id: self.ids.request.clone(),
        }
    }

    /// Rows, each a JSON text.
    pub async fn rows(&self, access: Access, names: Names, ask: Ask) -> Result<Vec<String>, Problem> {
        let result = self.app.database.run(access, &self.identity(), &ask).await;
        result.map_err(|error| Problem::of(error, names == Names::InPath))
    }

    /// The first row; an error in words if there is none.
    pub async fn one(&self, access: Access, ask: Ask, missing: &str) -> Result<String, Problem> {
        let rows = self.rows(access, Names::InPath, ask).await?;
        rows.into_iter().next().ok_or_else(|| Problem::missing(missing))
    }

    /// As [`Self::rows`]; who has no right on what is asked for gets the second question, which needs less.
    pub async fn rows_or(&self, names: Names, ask: Ask, lesser: Ask) -> Result<Vec<String>, Problem> {
        match self.rows(Access::Read, names, ask).await {
            Err(problem) if problem.status == StatusCode::FORBIDDEN => self.rows(Access::Read, names, lesser).await,
            result => result,
        }
    }
}

/// A JSON body. What is no JSON is 400, and JSON that says something else 422.
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let kind =
            request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if essence != "application/json" && !(essence.starts_with("application/") && essence.ends_with("+json")) {
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be application/json")
                .hint("Send Content-Type: application/json."));
        }
        read_json(&body(request, state).await?).map(Self)
    }
}

/// As [`Json`]; no body stands for an empty object.
pub struct Optional<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Optional<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = body(request, state).await?;
        read_json(if bytes.iter().all(u8::is_ascii_whitespace) { b"{}" } else { &bytes }).map(Self)
    }
}

async fn body<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    Bytes::from_request(request, state).await.map_err(|rejection| {
        let status = rejection.into_response().status();
        if status == StatusCode::PAYLOAD_TOO_LARGE {
            Problem::new(status, "the body is too large")
                .hint("Send less at a time; see docs/gateway.md for the limits.")
        } else {
            Problem::new(StatusCode::BAD_REQUEST, "the body cannot be read")
        }
    })
}

pub fn read_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|error| {
        use serde_json::error::Category;
        let status = match error.classify() {
            Category::Data => StatusCode::UNPROCESSABLE_ENTITY,
            Category::Syntax | Category::Eof | Category::Io => StatusCode::BAD_REQUEST,
        };
        Problem::new(status, format!("the body cannot be taken: {error}"))
    })
}

/// A JSON text as an answer.
pub fn answer(status: StatusCode, json: impl Into<String>) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], Body::from(json.into())).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_that_is_none_is_not_carried_on() {
        assert!(is_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
        for bad in [
            "",
            "00-0-0-0",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        ] {
            assert!(!is_traceparent(bad), "{bad}");
        }
    }
}
