//! Creating, updating, verifying and deleting streams.
//!
//! Who may change what: a stream that carries this installation's mark is brought to its description; one without a mark
//! was made by somebody else (Terraform, the `nats` tool) and is only verified; one with another's mark is not touched.

use std::time::Duration;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::api::{Api, CallError};
use super::consumers::{Mark, mark};
use super::errors::{self, ApiError};
use super::lease;
use super::spec::{self, Differences};
use sea_mq_model::broker::{Fault, FaultKind, OWNER_KEY, Report, Seen, SinkId, StreamInfo, StreamSpec};

/// A stream that can be used.
#[derive(Debug)]
pub(super) struct Ensured {
    pub(super) info: StreamInfo,
    /// It is not replicated and cannot become so while this connection lasts: its server is in no cluster.
    pub(super) standalone: bool,
}

/// What was sent before is over if the stream does not grow for this long.
const QUIET: Duration = Duration::from_millis(250);
/// Looks at a stream that grows; then it is others that publish to it.
const LOOKS: usize = 8;

/// Makes the stream usable as described, or says why it is not.
pub(super) async fn ensure(api: &Api, spec: &StreamSpec) -> Result<Ensured, Fault> {
    let ensured = ensure_now(api, spec).await?;
    // Messages that name their predecessor are not stored out of turn, however late they come: see `publish`.
    let chained = ensured.standalone && !spec.allow_atomic;
    if chained { Ok(ensured) } else { quiet(api, spec, ensured).await }
}

/// Waits until the stream has taken what was sent before: a server that was held up reads all its connections at once, and in
/// a cluster what is asked overtakes what was published, on the same connection as well.
async fn quiet(api: &Api, spec: &StreamSpec, mut ensured: Ensured) -> Result<Ensured, Fault> {
    for _ in 0..LOOKS {
        tokio::time::sleep(QUIET).await;
        let before = ensured.info.last_sequence;
        ensured = reread(api, spec).await?;
        if ensured.info.last_sequence == before {
            break;
        }
    }
    Ok(ensured)
}

async fn ensure_now(api: &Api, spec: &StreamSpec) -> Result<Ensured, Fault> {
    check_name(&spec.name)?;
    match api.stream_info(&spec.name).await? {
        Some(answer) => verify(api, spec, &answer).await,
        None if !spec.managed => {
            Err(Fault::new(FaultKind::StreamMissing, format!("stream {} does not exist", spec.name)))
        }
        None => create(api, spec).await,
    }
}

/// Deletes a stream that carries the owner's mark: what others have made is left as it is. One that does not exist is as good
/// as deleted; so is one that was created at another time than `created_us`, and has taken the place of the one that is meant.
pub(super) async fn delete(api: &Api, name: &str, owner: Uuid, created_us: Option<i64>) -> Result<(), Fault> {
    check_name(name)?;
    let Some(answer) = api.stream_info(name).await? else { return Ok(()) };
    if created_us.is_some_and(|created_us| created_us != spec::created_us(&answer)) {
        return Ok(());
    }
    let whose = match mark(config_of(&answer)?, owner) {
        Mark::Other(other) => format!("belongs to installation {other}"),
        Mark::Own if name != lease::STREAM => {
            let answer = api.call(&format!("STREAM.DELETE.{name}"), &json!({})).await;
            return super::api::found(answer, errors::STREAM_NOT_FOUND).map(|_| ());
        }
        Mark::Own => "is all installations'".into(),
        Mark::Nobody => "does not carry this installation's mark".into(),
    };
    Err(Fault::new(FaultKind::Foreign, format!("stream {name} {whose}, and is left as it is")))
}

/// Deletes a message. One that is not there is as good as deleted; a stream that is not there is told.
pub(super) async fn delete_message(api: &Api, stream: &str, sequence: u64) -> Result<(), Fault> {
    check_name(stream)?;
    // Overwriting it with noise first, as is the default, would not make it more deleted for us.
    let body = json!({ "seq": sequence, "no_erase": true });
    match api.call(&format!("STREAM.MSG.DELETE.{stream}"), &body).await {
        Ok(_) => Ok(()),
        Err(CallError::Refused(error)) if is_missing_message(&error) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Of a message that was never there the server says that it is missing; of one that was there, that deleting it failed
/// (in words, and in different ones for different stores).
fn is_missing_message(error: &ApiError) -> bool {
    let words = error.description.to_ascii_lowercase();
    let reasons = ["not found", "no message found", "deleted message", "stream store eof"];
    let missing = reasons.iter().any(|reason| words.contains(reason));
    errors::MESSAGE_NOT_FOUND.contains(&error.err_code) || (error.err_code == errors::DELETE_FAILED && missing)
}

/// Names become part of the API's subjects; nats-server refuses the same characters.
pub(super) fn check_name(name: &str) -> Result<(), Fault> {
    let bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '.' | '*' | '>' | '/' | '\\');
    if name.is_empty() || name.contains(bad) {
        return Err(Fault::new(FaultKind::Settings, format!("{name:?} cannot be the name of a stream or consumer")));
    }
    Ok(())
}

async fn create(api: &Api, spec: &StreamSpec) -> Result<Ensured, Fault> {
    let config = spec::new_config(spec, has_atomic(api));
    match api.call(&format!("STREAM.CREATE.{}", spec.name), &config).await {
        Ok(_) => reread(api, spec).await,
        // Somebody else was faster.
        Err(CallError::Refused(error)) if error.err_code == errors::STREAM_NAME_EXISTS => {
            match api.stream_info(&spec.name).await? {
                Some(answer) => verify(api, spec, &answer).await,
                None => Err(error.fault()),
            }
        }
        Err(CallError::Refused(error)) => Err(refused(api, spec, &error).await),
        Err(CallError::Failed(fault)) => Err(fault),
    }
}

/// Whose the stream is allows it to be used. Returns whether it is to be brought to its description: it carries our mark, or
/// has carried it until somebody took that away.
async fn admit(api: &Api, spec: &StreamSpec, answer: &Value) -> Result<bool, Fault> {
    let found = config_of(answer)?;
    let mark = spec::owner(found);
    let own = mark == Some(spec.owner.to_string().as_str());
    if let Some(other) = mark.filter(|_| !own && !spec.take_over) {
        let whereabouts = lease::whereabouts(api, other).await;
        let message = format!("stream {} belongs to installation {other}, {whereabouts}", spec.name);
        return Err(Fault::new(FaultKind::StreamOwned, message));
    }
    Ok(spec.managed && (mark.is_some() || has_lost_mark(spec, answer)?))
}

/// Whether the stream carried our mark, and carries none any more.
fn has_lost_mark(spec: &StreamSpec, answer: &Value) -> Result<bool, Fault> {
    Ok(spec::owner(config_of(answer)?).is_none() && spec.marked_us == Some(spec::created_us(answer)))
}

async fn verify(api: &Api, spec: &StreamSpec, answer: &Value) -> Result<Ensured, Fault> {
    let update = admit(api, spec, answer).await?;
    let found = config_of(answer)?;
    conflict(spec, spec::obstacles(found, spec, !update))?;
    if update {
        let atomic = has_atomic(api);
        conflict(spec, spec::fixed_differences(&spec::differences(found, spec, atomic)))?;
        if let Some(config) = spec::updated(found, spec, atomic) {
            return match self::update(api, spec, &config).await {
                Err(fault) if spec::obstacles(found, spec, true).is_empty() && !spec.take_over => {
                    let mut ensured = reread(api, spec).await?;
                    ensured.info.declined = Some(fault);
                    Ok(ensured)
                }
                result => result,
            };
        }
    }
    usable(api, spec, answer)
}

/// A stream that is in use, as it is found.
pub(super) async fn look(api: &Api, sink: SinkId, spec: &StreamSpec) -> Option<Report> {
    let answer = api.permitted(&spec.name, api.stream_info(&spec.name)).await.ok()?;
    let seen = match &answer {
        Some(answer) => {
            seen(api, spec, answer).await.unwrap_or_else(|fault| Seen { drift: fault.message, ..Seen::default() })
        }
        None => Seen { drift: format!("stream {} was deleted", spec.name), ..Seen::default() },
    };
    Some(Report::StreamSeen { sink, seen })
}

async fn seen(api: &Api, spec: &StreamSpec, answer: &Value) -> Result<Seen, Fault> {
    let found = config_of(answer)?;
    let update = admit(api, spec, answer).await?;
    conflict(spec, spec::obstacles(found, spec, !update))?;
    let drift = if update { spec::drift(found, spec, has_atomic(api)) } else { Differences::new() };
    Ok(Seen { drift: spec::in_words(&drift), differences: shown(api, spec, answer)? })
}

/// The differences that are shown, and tolerated.
fn shown(api: &Api, spec: &StreamSpec, answer: &Value) -> Result<Differences, Fault> {
    let mut differences = spec::differences(config_of(answer)?, spec, has_atomic(api));
    if has_lost_mark(spec, answer)? {
        differences.insert(OWNER_KEY.into(), (spec.owner.to_string(), "none".into()));
    }
    Ok(differences)
}

async fn update(api: &Api, spec: &StreamSpec, config: &Value) -> Result<Ensured, Fault> {
    match api.call(&format!("STREAM.UPDATE.{}", spec.name), config).await {
        Ok(_) => reread(api, spec).await,
        Err(CallError::Refused(error)) => Err(refused(api, spec, &error).await),
        Err(CallError::Failed(fault)) => Err(fault),
    }
}

/// Asks again: the answer to a change does not say whether the stream is in a cluster.
async fn reread(api: &Api, spec: &StreamSpec) -> Result<Ensured, Fault> {
    let gone = || Fault::new(FaultKind::StreamMissing, format!("stream {} was deleted meanwhile", spec.name));
    usable(api, spec, &api.stream_info(&spec.name).await?.ok_or_else(gone)?)
}

fn usable(api: &Api, spec: &StreamSpec, answer: &Value) -> Result<Ensured, Fault> {
    let atomic = has_atomic(api);
    let differences = shown(api, spec, answer)?;
    let cluster = answer.pointer("/cluster/name").and_then(Value::as_str).unwrap_or_default();
    let mut info = spec::stream_info(answer, differences, atomic);
    info.own = spec::owner(config_of(answer)?) == Some(spec.owner.to_string().as_str());
    Ok(Ensured { standalone: api.standalone && cluster.is_empty() && info.replicas <= 1, info })
}

/// Atomic batches are a setting of streams since nats-server 2.12.
fn has_atomic(api: &Api) -> bool {
    api.server_has(2, 12)
}

fn config_of(answer: &Value) -> Result<&Map<String, Value>, Fault> {
    let unreadable = || Fault::new(FaultKind::Server, "the server described a stream without its configuration");
    answer.get("config").and_then(Value::as_object).ok_or_else(unreadable)
}

fn conflict(spec: &StreamSpec, differences: Differences) -> Result<(), Fault> {
    if differences.is_empty() {
        return Ok(());
    }
    let message = format!("stream {} cannot be used: {}", spec.name, spec::in_words(&differences));
    Err(Fault::new(FaultKind::StreamConflict, message))
}

/// The server refused to create or update the stream.
async fn refused(api: &Api, spec: &StreamSpec, error: &ApiError) -> Fault {
    let others = if error.err_code == errors::SUBJECTS_OVERLAP { overlapping(api, spec).await } else { Vec::new() };
    let kind = match error.kind() {
        // The description asks for something that this server does not give, for a reason that has no kind of its own.
        FaultKind::Server if error.code == 400 => FaultKind::StreamConflict,
        kind => kind,
    };
    let mut message = format!("stream {}: {error}", spec.name);
    if !others.is_empty() {
        message = format!("{message}: {}", others.join(", "));
    }
    Fault::new(kind, message)
}

/// The other streams that store some of the description's subjects. Best effort, for the message.
async fn overlapping(api: &Api, spec: &StreamSpec) -> Vec<String> {
    let mut others = Vec::new();
    for subject in &spec.subjects {
        let Ok(answer) = api.call("STREAM.NAMES", &json!({ "subject": subject })).await else { continue };
        let names = answer.get("streams").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        for name in names.filter(|name| *name != spec.name) {
            let words = format!("stream {name} stores {subject}");
            if !others.contains(&words) {
                others.push(words);
            }
        }
    }
    others
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_change_the_api_subject_are_refused() {
        assert_eq!(check_name("SHOP_EVENTS"), Ok(()));
        for name in ["", "a.b", "a b", "a*", ">", "a\n", "a/b"] {
            assert_eq!(check_name(name).unwrap_err().kind, FaultKind::Settings, "{name:?}");
        }
    }
}
