//! Durable pull consumers.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::api::{Api, found};
use super::streams::check_name;
use super::{errors, spec, subjects};
use sea_mq_model::broker::{ConsumerInfo, ConsumerSpec, DeliverFrom, Fault, FaultKind, OWNER_KEY, Report};
use sea_mq_model::consume::missed::Gap;

/// How long a consumer that is ahead of its stream is given to turn out not to be: another server may just have begun to
/// answer for the stream.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// A consumer as it is.
#[derive(Debug)]
pub(super) struct State {
    pub(super) config: Map<String, Value>,
    /// The last stream sequence that it delivered.
    pub(super) delivered: u64,
    /// The number of its last delivery.
    pub(super) deliveries: u64,
    /// Requests for messages that it has not answered yet.
    pub(super) waiting: u64,
    /// Without what is the stream's, which the server does not tell with it.
    pub(super) info: ConsumerInfo,
}

/// What matters of a stream to its consumers.
#[derive(Debug)]
struct StreamState {
    created_us: i64,
    /// It carries the consumer's owner's mark.
    own: bool,
    first_sequence: u64,
    last_sequence: u64,
    max_age: Option<Duration>,
    work_queue: bool,
    /// It keeps what was acknowledged.
    keeps: bool,
    subjects: Vec<String>,
}

/// Creates the consumer, or brings an existing one to its description.
pub(super) async fn ensure(api: &Api, spec: &ConsumerSpec) -> Result<ConsumerInfo, Fault> {
    check_name(&spec.stream)?;
    check_name(&spec.name)?;
    let _exclusive = api.exclusive(&spec.stream, &spec.name).await;
    let (consumer, stream) = look(api, spec).await?;
    let state = match consumer {
        None => create(api, spec, created(spec, &start(spec, &stream))).await?,
        Some(consumer) => match updated(&consumer.config, spec, &stream)? {
            _ if is_ahead(api, spec, &consumer, &stream).await? => recreate(api, spec).await?,
            Some(config) => update_as_allowed(api, Updated::of(spec), &config).await?,
            None => consumer,
        },
    };
    Ok(of_stream(&state, &stream))
}

/// The consumer with what is its stream's.
fn of_stream(consumer: &State, stream: &StreamState) -> ConsumerInfo {
    let filter = consumer.config.get("filter_subject").and_then(Value::as_str).unwrap_or_default();
    let several = consumer.config.get("filter_subjects").is_some_and(|several| !several.is_null());
    let all = !several && (filter.is_empty() || subjects::uncovered(&[filter], &stream.subjects).is_empty());
    ConsumerInfo {
        stream_created_us: stream.created_us,
        stream_max_age: stream.max_age,
        stream_first: stream.first_sequence,
        stream_last: stream.last_sequence,
        whole: all && stream.keeps,
        ..consumer.info
    }
}

/// The consumer, and then the stream: so the stream can only be further than the consumer knew.
async fn look(api: &Api, spec: &ConsumerSpec) -> Result<(Option<State>, StreamState), Fault> {
    let info = api.call(&format!("CONSUMER.INFO.{}.{}", spec.stream, spec.name), &json!({})).await;
    let consumer = found(info, errors::CONSUMER_NOT_FOUND)?.as_ref().map(read).transpose()?;
    let missing = || Fault::new(FaultKind::StreamMissing, format!("stream {} does not exist", spec.stream));
    let stream = api.stream_info(&spec.stream).await?.ok_or_else(missing)?;
    Ok((consumer, stream_state(&stream, spec.owner)))
}

fn stream_state(stream: &Value, owner: Uuid) -> StreamState {
    let number = |path: &str| stream.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    let retention = stream.pointer("/config/retention").and_then(Value::as_str).unwrap_or("limits");
    let config = stream.get("config").and_then(Value::as_object);
    let subjects = config.and_then(|config| config.get("subjects")).and_then(Value::as_array);
    StreamState {
        created_us: spec::created_us(stream),
        own: config.is_some_and(|config| mark(config, owner) == Mark::Own),
        first_sequence: number("/state/first_seq"),
        last_sequence: number("/state/last_seq"),
        max_age: max_age_in(stream),
        work_queue: retention == "workqueue",
        keeps: retention == "limits",
        subjects: subjects.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect(),
    }
}

/// For how long a stream keeps messages, if it can be seen.
pub(super) async fn max_age(api: &Api, stream: String) -> Option<Report> {
    let info = api.permitted(&stream, api.stream_info(&stream)).await.ok()??;
    Some(Report::MaxAge { stream, created_us: spec::created_us(&info), max_age: max_age_in(&info) })
}

fn max_age_in(stream: &Value) -> Option<Duration> {
    let nanoseconds = stream.pointer("/config/max_age").and_then(Value::as_u64).unwrap_or(0);
    (nanoseconds > 0).then(|| Duration::from_nanos(nanoseconds))
}

/// Whether the consumer delivered more than the stream ever held: the broker lost the stream's end. The numbers of what is
/// stored next were delivered already, so the consumer would pass over them.
async fn is_ahead(api: &Api, spec: &ConsumerSpec, consumer: &State, stream: &StreamState) -> Result<bool, Fault> {
    if consumer.delivered <= stream.last_sequence {
        return Ok(false);
    }
    tokio::time::sleep(SECOND_LOOK).await;
    let (consumer, stream) = look(api, spec).await?;
    Ok(consumer.is_none_or(|consumer| consumer.delivered > stream.last_sequence))
}

async fn recreate(api: &Api, spec: &ConsumerSpec) -> Result<State, Fault> {
    delete(api, &spec.stream, &spec.name, spec.owner).await?;
    create(api, spec, created(spec, &DeliverFrom::All)).await
}

/// One that somebody else has created meanwhile is not changed.
async fn create(api: &Api, spec: &ConsumerSpec, config: Map<String, Value>) -> Result<State, Fault> {
    let ConsumerSpec { stream, name, .. } = spec;
    let create = async |config: Map<String, Value>| {
        let body = json!({ "stream_name": stream, "config": config, "action": "create" });
        read(&api.call(&subject(stream, name, &config), &body).await?)
    };
    match create(config.clone()).await {
        Err(fault) if spec.fewer_pending && fault.kind == FaultKind::ConsumerLimit => create(as_allowed(&config)).await,
        answer => answer,
    }
}

/// The configuration with as many unacknowledged messages as account, stream and server allow: the server fills in the least of
/// its own default and their limits.
fn as_allowed(config: &Map<String, Value>) -> Map<String, Value> {
    let mut config = config.clone();
    config.remove("max_ack_pending");
    config
}

/// A consumer that is changed.
pub(super) struct Updated<'a> {
    pub(super) stream: &'a str,
    pub(super) name: &'a str,
    /// As in [`ConsumerSpec`].
    pub(super) fewer_pending: bool,
}

impl<'a> Updated<'a> {
    fn of(spec: &'a ConsumerSpec) -> Self {
        Self { stream: &spec.stream, name: &spec.name, fewer_pending: spec.fewer_pending }
    }
}

/// Changes the configuration, and where nobody has asked for as many unacknowledged messages, takes as many as are allowed.
pub(super) async fn update_as_allowed(
    api: &Api,
    consumer: Updated<'_>,
    config: &Map<String, Value>,
) -> Result<State, Fault> {
    let Updated { stream, name, fewer_pending } = consumer;
    match update(api, stream, name, config).await {
        Err(fault) if fewer_pending && fault.kind == FaultKind::ConsumerLimit => {
            update(api, stream, name, &as_allowed(config)).await
        }
        answer => answer,
    }
}

/// Changes the configuration of a consumer that exists. One that is gone is not created anew: that would begin where it
/// once began.
async fn update(api: &Api, stream: &str, name: &str, config: &Map<String, Value>) -> Result<State, Fault> {
    let body = json!({ "stream_name": stream, "config": config, "action": "update" });
    read(&api.call(&subject(stream, name, config), &body).await?)
}

/// The consumer, if messages can be pulled from it and acknowledged.
pub(super) async fn pullable(api: &Api, stream: &str, name: &str) -> Result<State, Fault> {
    check_name(stream)?;
    check_name(name)?;
    let state = read(&api.call(&format!("CONSUMER.INFO.{stream}.{name}"), &json!({})).await?)?;
    usable(&state.config, stream, name)?;
    Ok(state)
}

fn read(answer: &Value) -> Result<State, Fault> {
    let unreadable = || Fault::new(FaultKind::Server, "the server described a consumer without its configuration");
    let config = answer.get("config").and_then(Value::as_object).cloned().ok_or_else(unreadable)?;
    let number = |path: &str| answer.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    let info = ConsumerInfo {
        ack_floor: number("/ack_floor/stream_seq"),
        ack_pending: number("/num_ack_pending"),
        pending: number("/num_pending"),
        max_ack_pending: config.get("max_ack_pending").and_then(Value::as_i64).unwrap_or(-1),
        paused_until_us: paused_until(answer),
        ..ConsumerInfo::default()
    };
    Ok(State {
        config,
        delivered: number("/delivered/stream_seq"),
        deliveries: number("/delivered/consumer_seq"),
        waiting: number("/num_waiting"),
        info,
    })
}

/// Where a consumer begins that does not exist yet, or no more. Whoever receives a message again knows it, but nobody
/// misses one that was left out.
fn start(spec: &ConsumerSpec, stream: &StreamState) -> DeliverFrom {
    match spec.resume {
        None => spec.deliver_from,
        // What was handled is deleted from such a stream, and the server accepts no other beginning.
        Some(_) if stream.work_queue => DeliverFrom::All,
        Some(resume) if resume.stream_created_us == stream.created_us && resume.sequence <= stream.last_sequence => {
            DeliverFrom::Sequence(resume.sequence + 1)
        }
        // Another stream, or one that lost its end: the numbers mean something else now.
        Some(_) => DeliverFrom::All,
    }
}

/// Until when a consumer is paused, if it is.
fn paused_until(answer: &Value) -> Option<i64> {
    let paused = answer.get("paused").and_then(Value::as_bool).unwrap_or(false);
    let until = answer.pointer("/config/pause_until").and_then(Value::as_str).and_then(spec::parse_time);
    paused.then_some(until.unwrap_or(0))
}

/// The consumer as it is now, if it can be seen. The stream is looked at first: what the consumer does not wait for any more
/// was delivered by then.
pub(super) async fn seen(api: &Api, spec: &ConsumerSpec) -> Option<Report> {
    let ConsumerSpec { stream, name, .. } = spec;
    // Its settings are not what they are to be while an earlier session's messages are collected.
    let _exclusive = api.exclusive(stream, name).await;
    let asking = async {
        let stream_info = api.stream_info(stream).await?;
        let consumer = api.call(&format!("CONSUMER.INFO.{stream}.{name}"), &json!({})).await?;
        Ok((stream_info, consumer))
    };
    let (stream_info, consumer) = api.permitted_on(stream, name, asking).await.ok()?;
    let (state, consumer) = (stream_state(&stream_info?, spec.owner), read(&consumer).ok()?);
    let drift = match updated(&consumer.config, spec, &state) {
        Ok(None) => String::new(),
        Ok(Some(config)) => changes(&consumer.config, &config),
        Err(fault) => fault.message,
    };
    let info = of_stream(&consumer, &state);
    Some(Report::ConsumerSeen { stream: stream.clone(), name: name.clone(), info, drift })
}

/// In words: what an update would change.
fn changes(found: &Map<String, Value>, wanted: &Map<String, Value>) -> String {
    let none = Value::Null;
    let keys = found.keys().chain(wanted.keys()).collect::<BTreeSet<_>>();
    let value = |config: &Map<String, Value>, key: &String| config.get(key).unwrap_or(&none).clone();
    let changed = keys.into_iter().filter(|key| value(found, key) != value(wanted, key));
    let words = changed.map(|key| format!("{key} is {}, wanted {}", value(found, key), value(wanted, key)));
    words.collect::<Vec<_>>().join("; ")
}

/// How many of these sequences the stream does not hold any more, if it can be seen and is the one that is meant.
pub(super) async fn count_removed(api: &Api, stream: &str, created_us: i64, gaps: &[Gap]) -> Option<u64> {
    let asking = async {
        let body = json!({ "deleted_details": true });
        api.call(&format!("STREAM.INFO.{stream}"), &body).await.map_err(Fault::from)
    };
    let answer = api.permitted(stream, asking).await.ok()?;
    (spec::created_us(&answer) == created_us).then(|| gaps.iter().map(|gap| removed_in(&answer, *gap)).sum())
}

fn removed_in(stream: &Value, gap: Gap) -> u64 {
    let first = stream.pointer("/state/first_seq").and_then(Value::as_u64).unwrap_or(0);
    let before = first.min(gap.last + 1).saturating_sub(gap.first);
    let deleted = stream.pointer("/state/deleted").and_then(Value::as_array).into_iter().flatten();
    let within = |sequence: &u64| *sequence >= first.max(gap.first) && *sequence <= gap.last;
    before + deleted.filter_map(Value::as_u64).filter(within).count() as u64
}

/// Deletes the consumer if it is there and carries the owner's mark: what another application or installation has made is
/// left as it is. One that is not there, or whose stream is not, is as good as deleted.
pub(super) async fn delete(api: &Api, stream: &str, name: &str, owner: Uuid) -> Result<(), Fault> {
    check_name(stream)?;
    check_name(name)?;
    let Some(consumer) = present(api, &format!("CONSUMER.INFO.{stream}.{name}")).await? else { return Ok(()) };
    let whose = match mark(&read(&consumer)?.config, owner) {
        Mark::Own => return present(api, &format!("CONSUMER.DELETE.{stream}.{name}")).await.map(|_| ()),
        Mark::Other(other) => format!("belongs to installation {other}"),
        Mark::Nobody => "does not carry this installation's mark".into(),
    };
    Err(Fault::new(FaultKind::Foreign, format!("consumer {name} of stream {stream} {whose}, and is left as it is")))
}

/// The answer to a question about a consumer, or `None` if there is no such consumer.
async fn present(api: &Api, subject: &str) -> Result<Option<Value>, Fault> {
    match found(api.call(subject, &json!({})).await, errors::CONSUMER_NOT_FOUND) {
        Err(fault) if fault.kind == FaultKind::StreamMissing => Ok(None),
        answer => answer,
    }
}

/// The filter is part of the subject, so that an account can be allowed some filters only.
fn subject(stream: &str, name: &str, config: &Map<String, Value>) -> String {
    match config.get("filter_subject").and_then(Value::as_str).filter(|filter| !filter.is_empty()) {
        Some(filter) => format!("CONSUMER.CREATE.{stream}.{name}.{filter}"),
        None => format!("CONSUMER.CREATE.{stream}.{name}"),
    }
}

/// The settings that an update may change.
fn changeable(spec: &ConsumerSpec) -> Map<String, Value> {
    let mut config = Map::new();
    config.insert("filter_subject".into(), json!(spec.filter_subject));
    config.insert("ack_wait".into(), nanos(spec.ack_wait));
    config.insert("max_deliver".into(), json!(spec.max_deliver));
    config.insert("max_ack_pending".into(), json!(spec.max_ack_pending));
    config
}

/// The configuration of a consumer to be created.
fn created(spec: &ConsumerSpec, start: &DeliverFrom) -> Map<String, Value> {
    let mut config = changeable(spec);
    config.insert("durable_name".into(), json!(spec.name));
    config.insert("name".into(), json!(spec.name));
    config.insert("ack_policy".into(), json!("explicit"));
    config.insert("replay_policy".into(), json!("instant"));
    config.insert("metadata".into(), json!({ OWNER_KEY: spec.owner.to_string() }));
    let policy = match *start {
        DeliverFrom::All | DeliverFrom::Sequence(0) => "all",
        DeliverFrom::New => "new",
        DeliverFrom::Sequence(sequence) => {
            config.insert("opt_start_seq".into(), json!(sequence));
            "by_start_sequence"
        }
        DeliverFrom::Time(us) => match rfc3339(us) {
            Some(time) => {
                config.insert("opt_start_time".into(), json!(time));
                "by_start_time"
            }
            // Such a time cannot be written: it is long before every stream, or long after.
            None if us < 0 => "all",
            None => "new",
        },
    };
    config.insert("deliver_policy".into(), json!(policy));
    config
}

fn rfc3339(us: i64) -> Option<String> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(us) * 1000).ok()?.format(&Rfc3339).ok()
}

/// The configuration with what drifted put right, or `None` if nothing did. Where delivery began is not asked again: the
/// consumer has moved on since, and the server does not change it.
fn updated(
    found: &Map<String, Value>,
    spec: &ConsumerSpec,
    stream: &StreamState,
) -> Result<Option<Map<String, Value>>, Fault> {
    usable(found, &spec.stream, &spec.name)?;
    let ConsumerSpec { stream: stream_name, name, .. } = spec;
    match mark(found, spec.owner) {
        Mark::Own => {}
        _ if spec.take_over => {}
        Mark::Other(_) if spec.with_stream && stream.own => {}
        Mark::Other(other) => {
            let message = format!("consumer {name} of stream {stream_name} belongs to installation {other}");
            return Err(Fault::new(FaultKind::ConsumerOwned, message));
        }
        Mark::Nobody => {
            let message =
                format!("consumer {name} of stream {stream_name} exists, but another application has made it");
            return Err(Fault::new(FaultKind::ConsumerConflict, message));
        }
    }
    let mut config = found.clone();
    let mut metadata = found.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
    metadata.insert(OWNER_KEY.into(), json!(spec.owner.to_string()));
    config.insert("metadata".into(), Value::Object(metadata));
    for (key, value) in changeable(spec) {
        let absent = found.get(&key).is_none() && (value == json!("") || value == json!(0));
        if !absent {
            config.insert(key, value);
        }
    }
    // One filter takes the place of several.
    config.remove("filter_subjects");
    Ok((config != *found).then_some(config))
}

/// Whose something at the broker is, by its metadata.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mark<'a> {
    Own,
    /// It carries no mark: another application has made it.
    Nobody,
    /// Another installation's.
    Other(&'a str),
}

/// Whose this is. `config`: of a consumer or a stream.
pub(super) fn mark(config: &Map<String, Value>, owner: Uuid) -> Mark<'_> {
    match spec::owner(config) {
        None => Mark::Nobody,
        Some(mark) if mark == owner.to_string() => Mark::Own,
        Some(other) => Mark::Other(other),
    }
}

/// Whether messages can be pulled from the consumer and acknowledged one by one.
fn usable(found: &Map<String, Value>, stream: &str, name: &str) -> Result<(), Fault> {
    let text = |key: &str| found.get(key).and_then(Value::as_str).unwrap_or_default();
    let refuse = |why: &str| {
        let message = format!("consumer {name} of stream {stream} exists, but {why}");
        Err(Fault::new(FaultKind::ConsumerConflict, message))
    };
    if !text("deliver_subject").is_empty() {
        return refuse("it is a push consumer");
    }
    if text("ack_policy") != "explicit" {
        return refuse("its messages are not acknowledged one by one");
    }
    if text("durable_name").is_empty() {
        return refuse("it is not durable");
    }
    Ok(())
}

fn nanos(duration: Duration) -> Value {
    json!(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
