//! `/partners/{partner}/messages`: what partners send, signed by them, or sent by somebody who may emit.

use std::collections::HashMap;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::post;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use serde::Deserialize;
use serde_json::{Value, json};

use super::events::idempotency_key;
use super::operation::{Answer, Operation, Shape, must};
use super::problem::Problem;
use super::request::{Ctx, Ids, Names, answer, read_json};
use crate::auth::Caller;
use crate::db::call::Call;
use crate::db::pool::Access;
use crate::serve::App;
use crate::serve::log;

/// A line of the partners' file: one JSON object.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Partner {
    pub partner: String,
    /// Role that its messages are taken as
    pub role: String,
    pub scheme: Scheme,
    /// File with the secret
    pub secret_file: std::path::PathBuf,
    /// Header of the signature, for `hmac-sha256`
    #[serde(default)]
    pub header: Option<String>,
    /// What stands before the signature, as in `sha256=`
    #[serde(default)]
    pub prefix: String,
    /// `hex` or `base64`
    #[serde(default)]
    pub encoding: Encoding,
    /// Header with the message's id, for `hmac-sha256`
    #[serde(default)]
    pub id_header: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    /// <https://www.standardwebhooks.com>: id, time and body are signed
    StandardWebhooks,
    /// The body is signed
    HmacSha256,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    #[default]
    Hex,
    Base64,
}

/// A message's time may differ from ours by so much.
const TOLERANCE: u64 = 300;

/// # Errors
/// In words, what cannot be read.
pub fn read(path: &FilePath) -> Result<HashMap<String, Partner>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    lines
        .map(|(at, line)| {
            let partner: Partner =
                serde_json::from_str(line).map_err(|error| format!("{} line {}: {error}", path.display(), at + 1))?;
            if partner.scheme == Scheme::HmacSha256 && partner.header.is_none() {
                return Err(format!("{} line {}: hmac-sha256 needs a header", path.display(), at + 1));
            }
            Ok((partner.partner.clone(), partner))
        })
        .collect()
}

pub fn operations() -> Vec<Operation> {
    const REF: Shape = Shape {
        name: "PartnerEvent",
        members: &[must("id", "uuid", "The event that the message became, or became before")],
    };
    vec![
        Operation::post("/partners/{partner}/messages", post(ingest))
            .says("Take a partner's message")
            .roles(&["producer"])
            .headers(&[("Idempotency-Key", "The message's id, where it has none of its own")])
            .answers(Answer::Object(REF))
            .errors(&[409, 413]),
    ]
}

async fn ingest(
    State(app): State<Arc<App>>,
    Path(partner): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, app.options.body_limit)
        .await
        .map_err(|_| Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large"))?;
    let mut message_id = idempotency_key(&parts.headers)?;
    let ctx = match app.partners.get(&partner) {
        Some(known) => {
            message_id = verified(known, &parts.headers, &body)?.or(message_id);
            let caller = Caller { role: known.role.clone(), label: format!("partner:{partner}") };
            if let Some(slot) = parts.extensions.get::<log::Slot>() {
                slot.set(&caller);
            }
            let ids = parts.extensions.get::<Ids>().cloned();
            Ctx {
                ids: ids.ok_or_else(|| Problem::unauthorized("the request has no id"))?,
                caller,
                app: Arc::clone(&app),
            }
        }
        None => Ctx::from_request_parts(&mut parts, &app).await?,
    };
    let signal: Value = read_json(&body)?;
    let call = Call::of("sea_mq.ingest")
        .with("partner", "text", partner)
        .with("signal", "jsonb", signal.to_string())
        .with("message_id", "text", message_id)
        .with("correlation_id", "text", ctx.ids.correlation.clone());
    let rows = ctx.rows(Access::Write, Names::InBody, call.value()).await?;
    let id = rows.into_iter().next().unwrap_or_default();
    Ok(answer(StatusCode::CREATED, json!({"id": id}).to_string()))
}

/// The id that a signed message has.
///
/// # Errors
/// 401: it is not signed by the partner, or too old.
fn verified(partner: &Partner, headers: &HeaderMap, body: &Bytes) -> Result<Option<String>, Problem> {
    let refused = || Problem::unauthorized("the message is not signed by this partner");
    let secret = std::fs::read_to_string(&partner.secret_file).map_err(|error| Problem {
        hidden: Some(format!("{}: {error}", partner.secret_file.display()).into()),
        ..Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "something is wrong inside")
    })?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let id = match partner.scheme {
        Scheme::StandardWebhooks => standard(secret.trim(), headers, body, now).map(Some),
        Scheme::HmacSha256 => plain(partner, secret.trim(), headers, body),
    };
    id.ok_or_else(refused)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn standard(secret: &str, headers: &HeaderMap, body: &[u8], now: u64) -> Option<String> {
    let (id, time) = (text(headers, "webhook-id")?, text(headers, "webhook-timestamp")?);
    if time.parse::<u64>().ok()?.abs_diff(now) > TOLERANCE {
        return None;
    }
    let key =
        hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(secret.strip_prefix("whsec_").unwrap_or(secret)).ok()?);
    let signed = [format!("{id}.{time}.").as_bytes(), body].concat();
    let mut signatures = text(headers, "webhook-signature")?.split(' ').filter_map(|one| one.strip_prefix("v1,"));
    let proves = |one: &str| STANDARD.decode(one).is_ok_and(|tag| hmac::verify(&key, &signed, &tag).is_ok());
    signatures.any(proves).then(|| id.to_owned())
}

fn plain(partner: &Partner, secret: &str, headers: &HeaderMap, body: &[u8]) -> Option<Option<String>> {
    let signature = text(headers, partner.header.as_deref()?)?.strip_prefix(&partner.prefix)?;
    let tag = match partner.encoding {
        Encoding::Base64 => STANDARD.decode(signature).ok()?,
        Encoding::Hex => hex(signature)?,
    };
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    hmac::verify(&key, body, &tag).ok()?;
    Some(partner.id_header.as_deref().and_then(|name| text(headers, name)).map(str::to_owned))
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let pairs = digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    if digits.len().is_multiple_of(2) { pairs.collect() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's reference implementations.
    #[test]
    fn a_standard_webhook_proves_id_time_and_body() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let sign = |id: &str, time: u64, body: &str| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(&secret[6..]).expect("base64"));
            STANDARD.encode(hmac::sign(&key, format!("{id}.{time}.{body}").as_bytes()))
        };
        let headers = |id: &str, time: u64, signature: String| {
            let pairs = [
                ("webhook-id", id.to_owned()),
                ("webhook-timestamp", time.to_string()),
                ("webhook-signature", signature),
            ];
            HeaderMap::from_iter(pairs.map(|(name, value)| {
                (axum::http::HeaderName::from_static(name), axum::http::HeaderValue::from_str(&value).expect("a value"))
            }))
        };
        let body = r#"{"test": 2432232314}"#;
        assert_eq!(
            sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body),
            "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
        let good = format!("v1,AAAA v1,{}", sign("m", 1000, body));
        assert_eq!(standard(secret, &headers("m", 1000, good.clone()), body.as_bytes(), 1100).as_deref(), Some("m"));
        for (id, time, body, now) in
            [("n", 1000, body, 1100), ("m", 1001, body, 1100), ("m", 1000, "{}", 1100), ("m", 1000, body, 9999)]
        {
            assert_eq!(standard(secret, &headers(id, time, good.clone()), body.as_bytes(), now), None);
        }
    }
}
