//! Durable pull consumers.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::api::{Api, found};
use super::errors;
use super::streams::check_name;
use crate::broker::{ConsumerSpec, Fault, FaultKind};

/// Creates the consumer, or brings an existing one to its description.
pub(super) async fn ensure(api: &Api, spec: &ConsumerSpec) -> Result<(), Fault> {
    check_name(&spec.stream)?;
    check_name(&spec.name)?;
    let info = api.call(&format!("CONSUMER.INFO.{}.{}", spec.stream, spec.name), &json!({})).await;
    let present = found(info, errors::CONSUMER_NOT_FOUND)?;
    let config = match present.as_ref().and_then(|info| info.get("config")).and_then(Value::as_object) {
        None => Some(created(spec)),
        Some(config) => updated(config, spec)?,
    };
    if let Some(config) = config {
        let body = json!({ "stream_name": spec.stream, "config": config });
        api.call(&subject(spec), &body).await?;
    }
    Ok(())
}

/// Deletes the consumer if it is there.
pub(super) async fn delete(api: &Api, stream: &str, name: &str) -> Result<(), Fault> {
    check_name(stream)?;
    check_name(name)?;
    let answer = api.call(&format!("CONSUMER.DELETE.{stream}.{name}"), &json!({})).await;
    found(answer, errors::CONSUMER_NOT_FOUND).map(|_| ())
}

/// The filter is part of the subject, so that an account can be allowed some filters only.
fn subject(spec: &ConsumerSpec) -> String {
    let (stream, name, filter) = (&spec.stream, &spec.name, &spec.filter_subject);
    if filter.is_empty() {
        format!("CONSUMER.CREATE.{stream}.{name}")
    } else {
        format!("CONSUMER.CREATE.{stream}.{name}.{filter}")
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

fn created(spec: &ConsumerSpec) -> Map<String, Value> {
    let mut config = changeable(spec);
    config.insert("durable_name".into(), json!(spec.name));
    config.insert("name".into(), json!(spec.name));
    config.insert("ack_policy".into(), json!("explicit"));
    config.insert("deliver_policy".into(), json!(if spec.deliver_all { "all" } else { "new" }));
    config.insert("replay_policy".into(), json!("instant"));
    config
}

/// The configuration with what drifted put right, or `None` if nothing did. Where delivery began is not asked again: the
/// consumer has moved on since, and the server does not change it.
fn updated(found: &Map<String, Value>, spec: &ConsumerSpec) -> Result<Option<Map<String, Value>>, Fault> {
    let text = |key: &str| found.get(key).and_then(Value::as_str).unwrap_or_default();
    let refuse = |why: &str| {
        let message = format!("consumer {} of stream {} exists, but {why}", spec.name, spec.stream);
        Err(Fault::new(FaultKind::StreamConflict, message))
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
    let mut config = found.clone();
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

fn nanos(duration: Duration) -> Value {
    json!(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> ConsumerSpec {
        ConsumerSpec {
            stream: "S".into(),
            name: "billing__orders".into(),
            filter_subject: "shop.event.>".into(),
            ack_wait: Duration::from_secs(120),
            max_deliver: 20,
            max_ack_pending: 50,
            deliver_all: true,
        }
    }

    #[test]
    fn consumer_as_described_needs_no_update() {
        assert_eq!(updated(&created(&spec()), &spec()), Ok(None));
    }

    #[test]
    fn update_leaves_the_start_alone() {
        let wanted = ConsumerSpec { max_deliver: 3, deliver_all: false, ..spec() };
        let config = updated(&created(&spec()), &wanted).unwrap().unwrap();
        assert_eq!(config["max_deliver"], 3);
        assert_eq!(config["deliver_policy"], "all");
    }

    #[test]
    fn consumer_of_another_kind_is_refused() {
        for (key, value) in [("deliver_subject", "x"), ("ack_policy", "none"), ("durable_name", "")] {
            let mut other = created(&spec());
            other.insert(key.into(), json!(value));
            assert_eq!(updated(&other, &spec()).unwrap_err().kind, FaultKind::StreamConflict, "{key}");
        }
    }

    #[test]
    fn filter_is_part_of_the_subject() {
        assert_eq!(subject(&spec()), "CONSUMER.CREATE.S.billing__orders.shop.event.>");
        assert_eq!(
            subject(&ConsumerSpec { filter_subject: String::new(), ..spec() }),
            "CONSUMER.CREATE.S.billing__orders"
        );
    }
}
