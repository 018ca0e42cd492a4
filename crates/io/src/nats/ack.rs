//! The answer to a publish.

use std::borrow::Cow;

use async_nats::{Message, StatusCode};
use serde::Deserialize;

use super::errors::ApiError;
use sea_mq_model::broker::{Ack, Fault, FaultKind};

#[derive(Deserialize)]
struct PubAck<'a> {
    #[serde(borrow, default)]
    stream: Cow<'a, str>,
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
    #[serde(default)]
    error: Option<ApiError>,
}

/// What the server says to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Stored(Ack),
    /// It is kept aside until the last message of its batch is there.
    Staged,
}

/// Reads an answer. An ack of another stream than `stream` is a conflict: that stream took over the subject, and what it
/// stores is not where consumers look for it.
pub(super) fn read(message: &Message, stream: &str) -> Result<Answer, Fault> {
    match answered(message, stream)? {
        None => Ok(Answer::Staged),
        Some(payload) => parse(payload, stream).map(Answer::Stored),
    }
}

/// Reads an answer to a message that any stream may store.
pub(super) fn read_of_any(message: &Message) -> Result<(), Fault> {
    const ANY: &str = "there";
    let stored = answered(message, ANY)?.map(|payload| parsed(payload, ANY)).transpose()?;
    match stored {
        Some(ack) if !ack.stream.is_empty() => Ok(()),
        _ => Err(Fault::new(FaultKind::Server, "what answers there is no stream")),
    }
}

/// What the server answers with, if it is more than nothing.
fn answered<'a>(message: &'a Message, stream: &str) -> Result<Option<&'a [u8]>, Fault> {
    match message.status {
        Some(StatusCode::NO_RESPONDERS) => {
            let message = format!("no stream stores the subject meant for {stream}");
            Err(Fault::new(FaultKind::StreamMissing, message))
        }
        Some(status) if !status.is_success() => {
            Err(Fault::new(FaultKind::Server, format!("publish to {stream} answered with status {status}")))
        }
        _ => Ok(Some(message.payload.as_ref()).filter(|payload| !payload.is_empty())),
    }
}

fn parsed<'a>(payload: &'a [u8], stream: &str) -> Result<PubAck<'a>, Fault> {
    let ack: PubAck<'_> = serde_json::from_slice(payload)
        .map_err(|error| Fault::new(FaultKind::Server, format!("unreadable answer of stream {stream}: {error}")))?;
    match ack.error {
        Some(error) => Err(error.fault()),
        None => Ok(ack),
    }
}

fn parse(payload: &[u8], stream: &str) -> Result<Ack, Fault> {
    let ack = parsed(payload, stream)?;
    if ack.stream != stream {
        return Err(Fault::new(
            FaultKind::StreamConflict,
            format!("stream {} stores the subject that stream {stream} should store", ack.stream),
        ));
    }
    Ok(Ack { sequence: ack.seq, duplicate: ack.duplicate })
}

/// The last token of a reply subject: which flow and which message of it. Short, since the server sends it back.
pub(super) fn reply_token(slot: u32, index: u64) -> String {
    format!("{slot}-{index}")
}

/// What [`reply_token`] wrote.
pub(super) fn parse_token(token: &str) -> Option<(u32, u64)> {
    let (slot, index) = token.split_once('-')?;
    Some((slot.parse().ok()?, index.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_message_is_acked() {
        assert_eq!(parse(br#"{"stream":"S","seq":7}"#, "S"), Ok(Ack { sequence: 7, duplicate: false }));
        let duplicate = parse(br#"{"stream":"S","domain":"hub","seq":3,"duplicate":true}"#, "S");
        assert_eq!(duplicate, Ok(Ack { sequence: 3, duplicate: true }));
    }

    #[test]
    fn refusal_keeps_the_servers_words() {
        let wrong =
            br#"{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 4"},"stream":"S","seq":0}"#;
        let fault = parse(wrong, "S").unwrap_err();
        assert_eq!(fault.kind, FaultKind::WrongSequence);
        assert!(fault.message.contains("wrong last sequence: 4"));
    }

    #[test]
    fn ack_of_another_stream_is_a_conflict() {
        assert_eq!(parse(br#"{"stream":"T","seq":7}"#, "S").unwrap_err().kind, FaultKind::StreamConflict);
    }

    #[test]
    fn nonsense_is_no_ack() {
        assert_eq!(parse(b"", "S").unwrap_err().kind, FaultKind::Server);
        assert_eq!(parse(b"{}", "S").unwrap_err().kind, FaultKind::StreamConflict);
    }

    #[test]
    fn token_comes_back_as_it_was() {
        assert_eq!(parse_token(&reply_token(3, u64::MAX)), Some((3, u64::MAX)));
        assert_eq!(parse_token("3"), None);
        assert_eq!(parse_token("-1"), None);
    }
}
