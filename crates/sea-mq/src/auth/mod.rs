//! Who sends a request: a token of a file, a JWT, or the cookie of somebody who logged in with the console.

pub mod jwt;
pub mod seal;
pub mod tokens;

use axum::http::{HeaderMap, header};

use crate::rest::problem::Problem;

/// A role of the database, and who says to be it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub role: String,
    /// Who it is, for the log and for `sea_mq.actor`.
    pub label: String,
}

/// What is known of credentials.
pub struct Guard {
    pub tokens: Option<tokens::Tokens>,
    pub jwt: Option<jwt::Verifier>,
    pub sealer: seal::Sealer,
}

/// The console's cookie.
pub const COOKIE: &str = "sea_mq_session";

impl Guard {
    /// # Errors
    /// 401: nobody, or nobody known.
    pub fn caller(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        match bearer(headers)? {
            Some(token) => self.bearer_caller(token),
            None => self.session(headers).ok_or_else(|| {
                Problem::unauthorized("who sends this request is not said")
                    .hint("Send Authorization: Bearer with a token of the gateway's.")
            }),
        }
    }

    /// Who logged in with the console.
    pub fn session(&self, headers: &HeaderMap) -> Option<Caller> {
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut pairs = cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        let sealed = pairs.find(|(name, _)| *name == COOKIE)?.1;
        let role = self.sealer.open(sealed)?;
        Some(Caller { label: format!("console:{role}"), role })
    }

    fn bearer_caller(&self, token: &str) -> Result<Caller, Problem> {
        if let Some(caller) = self.tokens.as_ref().and_then(|tokens| tokens.find(token)) {
            return Ok(caller);
        }
        let refused = || Problem::unauthorized("this token is not known, or has expired");
        match &self.jwt {
            Some(verifier) if token.split('.').count() == 3 => verifier.caller(token).ok_or_else(refused),
            _ => Err(refused()),
        }
    }
}

fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty() => {
            Ok(Some(token.trim()))
        }
        _ => Err(Problem::unauthorized("the header Authorization is not a bearer token")),
    }
}
