//! The installation's lease at the broker: reading the record, asking its owner whether it lives, and taking it over.
//!
//! The record is the last message of a subject of its own in a small stream, and a write names the message that it
//! replaces. Subjects and stream are ordinary ones and not a key-value bucket: those are cut off at leaf nodes.

use std::time::Duration;

use async_nats::client::RequestErrorKind;
use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use async_nats::{HeaderMap, HeaderValue};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::api::{Api, CallError, names};
use super::{ack, errors};
use sea_mq_model::broker::{Fault, FaultKind, Standing};
use sea_mq_model::domain::lease::{Claimant, Decision, Record, decide};

/// The stream that holds the records of all installations.
pub(super) const STREAM: &str = "SEA_MQ_RELAYS";
/// What the subjects of records and of calls begin with.
pub(super) const SUBJECTS: &str = "sea_mq.";
/// One call to an owner, and the pause before the next.
const CALL: Duration = Duration::from_secs(2);
const BETWEEN: Duration = Duration::from_millis(100);
/// How long an owner that does not answer is called: where a cluster was started again, its old connection may still be
/// on its way out; one in another place may have lost its connection for a moment.
const IMPATIENT: Duration = Duration::from_secs(3);
const PATIENT: Duration = Duration::from_secs(10);
/// Copies of the records in a cluster that has as many servers.
const REPLICAS: usize = 3;
/// Writes that others overtook, before the answer is given up.
const TRIES: usize = 10;

/// Where a relay is called.
pub(super) fn address(relay: Uuid) -> String {
    format!("{SUBJECTS}relay.{relay}")
}

fn subject(install: Uuid) -> String {
    format!("{SUBJECTS}lease.{install}")
}

/// Finds out where the claimant stands, and takes the lease if it is to and may.
pub(super) async fn stand(api: &Api, me: &Claimant, claim: bool) -> Standing {
    let ours = |subject: &str| subject.starts_with(SUBJECTS) || names(subject, STREAM);
    api.unless_denied(ours, try_stand(api, me, claim)).await.unwrap_or_else(Standing::Unknown)
}

async fn try_stand(api: &Api, me: &Claimant, claim: bool) -> Result<Standing, Fault> {
    for _ in 0..TRIES {
        let found = read(api, me.install).await?;
        let record = found.as_ref().and_then(|(_, record)| record.as_ref());
        match decide(me, record) {
            Decision::Keep => return Ok(Standing::Held(record.map_or(0, |record| record.epoch))),
            Decision::Yield(why) => return Ok(fenced(why)),
            Decision::TakeFromDead { patient, otherwise } => {
                if let Some(owner) = record
                    && answers(api, owner.relay, patient).await
                {
                    return Ok(fenced(otherwise));
                }
            }
            Decision::Take => {}
        }
        if !claim {
            return Ok(Standing::Free);
        }
        let next = me.record(record);
        if write(api, me, found.as_ref().map_or(0, |(sequence, _)| *sequence), &next).await? {
            if let Some(before) = record {
                // It would find out by itself, but later. No answer is asked for.
                let _ = api.client().publish(address(before.relay), Bytes::new()).await;
            }
            return Ok(Standing::Held(next.epoch));
        }
    }
    Err(Fault::new(FaultKind::Server, format!("the lease in stream {STREAM} changes hands all the time")))
}

/// What is known of the relay of another installation, in words. Where it is, is for those who may read the record.
pub(super) async fn whereabouts(api: &Api, install: &str) -> String {
    let unknown = || "of whose relay nothing is known".to_owned();
    let Ok(install) = install.parse() else { return unknown() };
    let ours = |subject: &str| subject.starts_with(SUBJECTS) || names(subject, STREAM);
    let look = async {
        let Some((_, Some(record))) = read(api, install).await? else { return Ok(unknown()) };
        let Record { relay, database, .. } = record;
        let alive = answers(api, relay, false).await;
        let state = if alive { "runs" } else { "does not answer: the database is gone, or the relay is stopped" };
        Ok(format!("whose relay (database \"{database}\") {state}"))
    };
    api.unless_denied(ours, look).await.unwrap_or_else(|_| unknown())
}

fn fenced(why: String) -> Standing {
    Standing::Fenced(Fault::new(FaultKind::Fenced, why))
}

/// The record, and its sequence in the stream. One that cannot be read is as good as none, but has to be replaced.
async fn read(api: &Api, install: Uuid) -> Result<Option<(u64, Option<Record>)>, Fault> {
    let request = json!({ "last_by_subj": subject(install) });
    let answer = match api.call(&format!("STREAM.MSG.GET.{STREAM}"), &request).await {
        Ok(answer) => answer,
        Err(CallError::Refused(error))
            if [errors::STREAM_NOT_FOUND, errors::NO_MESSAGE_FOUND].contains(&error.err_code) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    let sequence = answer.pointer("/message/seq").and_then(Value::as_u64).unwrap_or(0);
    let body = answer.pointer("/message/data").and_then(Value::as_str).and_then(|data| BASE64.decode(data).ok());
    Ok(Some((sequence, body.and_then(|body| serde_json::from_slice(&body).ok()))))
}

/// Replaces the record if it still has this sequence. Returns whether it was replaced.
async fn write(api: &Api, me: &Claimant, sequence: u64, record: &Record) -> Result<bool, Fault> {
    let body = serde_json::to_vec(record).map_err(|error| Fault::new(FaultKind::Server, error.to_string()))?;
    let mut headers = HeaderMap::new();
    headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, HeaderValue::from(sequence));
    for created in [false, true] {
        let request = api.client().request_with_headers(subject(me.install), headers.clone(), body.clone().into());
        let answer = timeout(api.timeout, request).await;
        let late = || Fault::new(FaultKind::Timeout, format!("stream {STREAM} did not answer in time"));
        let message = match answer.map_err(|_| late())? {
            Ok(message) => message,
            Err(error) if error.kind() == RequestErrorKind::NoResponders && !created => {
                create(api).await?;
                continue;
            }
            Err(error) => return Err(Fault::new(FaultKind::Server, errors::causes(&error))),
        };
        return match ack::read(&message, STREAM) {
            Ok(_) => Ok(true),
            Err(fault) if fault.kind == FaultKind::WrongSequence => Ok(false),
            Err(fault) => Err(fault),
        };
    }
    Ok(false)
}

/// Makes the stream, with copies if the broker has the servers for them. One that is there is left as it is.
async fn create(api: &Api) -> Result<(), Fault> {
    let replicas = if api.standalone { 1 } else { REPLICAS };
    let config = |replicas: usize| {
        json!({
            "name": STREAM,
            "description": "Which relay publishes for each installation of sea_mq",
            "subjects": [format!("{SUBJECTS}lease.*")],
            "retention": "limits", "storage": "file", "discard": "old", "num_replicas": replicas,
            "max_msgs_per_subject": 1, "max_bytes": 8 << 20, "max_msgs": -1, "max_age": 0,
        })
    };
    let subject = format!("STREAM.CREATE.{STREAM}");
    let exists =
        |error: &CallError| matches!(error, CallError::Refused(error) if error.err_code == errors::STREAM_NAME_EXISTS);
    match api.call(&subject, &config(replicas)).await {
        Ok(_) => Ok(()),
        Err(error) if exists(&error) => Ok(()),
        Err(CallError::Refused(_)) if replicas > 1 => {
            api.call(&subject, &config(1)).await.map(|_| ()).map_err(Fault::from)
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether a relay answers. Where nobody listens the server says so at once.
async fn answers(api: &Api, relay: Uuid, patient: bool) -> bool {
    let begin = Instant::now();
    loop {
        let heard = timeout(CALL, api.client().request(address(relay), Bytes::new())).await;
        let gone = match heard {
            Ok(Ok(_)) => return true,
            Ok(Err(error)) => error.kind() == RequestErrorKind::NoResponders,
            Err(_) => false,
        };
        let patience = if patient { PATIENT } else { IMPATIENT };
        if (gone && !patient) || begin.elapsed() >= patience {
            return false;
        }
        sleep(BETWEEN).await;
    }
}
