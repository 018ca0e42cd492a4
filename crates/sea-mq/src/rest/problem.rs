//! Errors as clients see them: the handbook's form, and RFC 9457's where it is asked for.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::db::pool::DbError;
use crate::db::sqlstate::{Meaning, meaning};

/// What is wrong with a request.
#[derive(Clone, Debug)]
pub struct Problem {
    pub status: StatusCode,
    pub message: String,
    pub sqlstate: Option<String>,
    pub hint: Option<String>,
    pub violations: Vec<Violation>,
    /// Seconds
    pub retry_after: Option<u16>,
    /// For the log alone.
    pub hidden: Option<Box<str>>,
}

/// Where a document breaks its contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Violation {
    /// JSON Pointer of the place
    pub pointer: String,
    /// What is wrong there
    pub message: String,
}

/// An error, whatever the request was.
#[derive(Serialize, ToSchema)]
pub struct ErrorBody {
    /// A word for the kind of error, as the status has it
    error: String,
    /// What is wrong, for people
    message: String,
    details: ErrorDetails,
    /// As in the header X-Request-Id and in the log
    request_id: String,
}

#[derive(Serialize, ToSchema)]
pub struct ErrorDetails {
    /// The database's code for the error
    sqlstate: Option<String>,
    /// What to do about it
    hint: Option<String>,
    violations: Vec<Violation>,
}

impl Problem {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            sqlstate: None,
            hint: None,
            violations: Vec::new(),
            retry_after: None,
            hidden: None,
        }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, message)
    }

    pub fn missing(message: impl Into<String>) -> Self {
        Self { sqlstate: Some("42704".into()), ..Self::new(StatusCode::NOT_FOUND, message) }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, message)
    }

    /// What the database said. `named`: the path names what the request is about.
    pub fn of(error: DbError, named: bool) -> Self {
        let meaning = meaning(&error.sqlstate);
        let status = match meaning {
            Meaning::Unprocessable => StatusCode::UNPROCESSABLE_ENTITY,
            Meaning::Missing if named => StatusCode::NOT_FOUND,
            Meaning::Missing => StatusCode::UNPROCESSABLE_ENTITY,
            Meaning::Conflict => StatusCode::CONFLICT,
            Meaning::Forbidden => StatusCode::FORBIDDEN,
            Meaning::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Meaning::Later(_) | Meaning::Again => StatusCode::SERVICE_UNAVAILABLE,
            Meaning::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Meaning::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let retry_after = match meaning {
            Meaning::Later(after) => Some(u16::try_from(after.as_secs()).unwrap_or(u16::MAX).max(1)),
            Meaning::Again => Some(1),
            _ => None,
        };
        if meaning == Meaning::Internal {
            let hidden = Some(format!("{} {}", error.sqlstate, error.message).into());
            return Self { hidden, sqlstate: Some(error.sqlstate), ..Self::new(status, "something is wrong inside") }
                .hint("Look for the request id in the gateway's log.");
        }
        if error.sqlstate == "08006" {
            let hidden = Some(error.message.into());
            return Self {
                hidden,
                retry_after,
                sqlstate: Some("08006".into()),
                ..Self::new(status, "the database is not reachable")
            };
        }
        let violations = if error.sqlstate == "23514" { violations(error.detail.as_deref()) } else { Vec::new() };
        Self {
            sqlstate: Some(error.sqlstate),
            hint: error.hint,
            violations,
            retry_after,
            ..Self::new(status, error.message)
        }
    }

    /// The word for its status.
    fn word(&self) -> &'static str {
        match self.status.as_u16() {
            400 => "bad_request",
            401 => "unauthorized",
            403 => "forbidden",
            404 => "not_found",
            405 => "method_not_allowed",
            406 => "not_acceptable",
            409 => "conflict",
            412 => "precondition_failed",
            413 => "payload_too_large",
            415 => "unsupported_media_type",
            422 => "unprocessable",
            429 => "too_many_requests",
            503 => "unavailable",
            504 => "timeout",
            _ => "internal",
        }
    }

    /// The whole answer; `rfc9457`: with the members of a problem document too.
    pub fn answer(&self, request_id: &str, rfc9457: bool) -> Response {
        let mut body = json!({
            "error": self.word(),
            "message": self.message,
            "details": {"sqlstate": self.sqlstate, "hint": self.hint, "violations": self.violations},
            "request_id": request_id,
        });
        if rfc9457 && let Value::Object(members) = &mut body {
            members.insert("type".into(), "about:blank".into());
            members.insert("title".into(), self.status.canonical_reason().unwrap_or("Error").into());
            members.insert("status".into(), self.status.as_u16().into());
            members.insert("detail".into(), self.message.clone().into());
            members.insert("instance".into(), format!("urn:uuid:{request_id}").into());
        }
        let kind = if rfc9457 { "application/problem+json" } else { "application/json" };
        let mut response = (self.status, [(header::CONTENT_TYPE, kind)], body.to_string()).into_response();
        if let Some(after) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(after));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"sea-mq\""));
        }
        response
    }
}

impl IntoResponse for Problem {
    /// The layer around all routes writes the body: it knows the request.
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// A contract's violations stand in the error's detail, a line each.
fn violations(detail: Option<&str>) -> Vec<Violation> {
    let lines = detail.unwrap_or_default().lines().filter(|line| !line.is_empty());
    lines
        .map(|line| match line.split_once(": ") {
            Some((pointer, message)) if pointer.starts_with('/') => {
                Violation { pointer: pointer.to_owned(), message: message.to_owned() }
            }
            _ => Violation { pointer: String::new(), message: line.to_owned() },
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(sqlstate: &str, named: bool) -> u16 {
        let error = DbError { sqlstate: sqlstate.into(), message: "m".into(), hint: None, detail: None };
        Problem::of(error, named).status.as_u16()
    }

    #[test]
    fn what_is_not_there_is_404_only_where_the_path_names_it() {
        assert_eq!((status("42704", true), status("42704", false)), (404, 422));
    }

    #[test]
    fn the_text_of_an_unexpected_error_stays_inside() {
        let error = DbError { sqlstate: "XX000".into(), message: "secret".into(), hint: None, detail: None };
        let problem = Problem::of(error, false);
        assert_eq!(problem.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!problem.message.contains("secret") && problem.hidden.is_some_and(|text| text.contains("secret")));
    }

    #[test]
    fn violations_have_the_pointer_of_their_place() {
        let found = violations(Some("/total: is not a number\nunexpected member"));
        assert_eq!(found[0], Violation { pointer: "/total".into(), message: "is not a number".into() });
        assert_eq!(found[1].pointer, "");
    }
}
