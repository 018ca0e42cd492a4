use super::*;
use uuid::Uuid;

fn spec() -> StreamSpec {
    StreamSpec {
        name: "SHOP_EVENTS".into(),
        subjects: vec!["shop.event.>".into()],
        description: "events".into(),
        retention: Retention::Limits,
        max_age: Duration::from_secs(60),
        max_bytes: 1000,
        max_msgs: -1,
        max_msg_size: -1,
        storage: Storage::File,
        replicas: 1,
        duplicate_window: Duration::from_secs(30),
        allow_atomic: false,
        managed: true,
        owner: Uuid::from_u128(7),
        take_over: false,
        marked_us: None,
        fewer_replicas: false,
    }
}

fn found() -> Map<String, Value> {
    match new_config(&spec(), true) {
        Value::Object(config) => config,
        other => panic!("{other}"),
    }
}

#[test]
fn stream_as_described_needs_no_update() {
    assert_eq!(updated(&found(), &spec(), true), None);
    assert!(differences(&found(), &spec(), true).is_empty());
    assert!(obstacles(&found(), &spec(), true).is_empty());
    let mut terse = found();
    for absent in ["allow_atomic", "max_msg_size", "max_msgs"] {
        terse.remove(absent);
    }
    assert_eq!(updated(&terse, &spec(), true), None);
}

#[test]
fn update_changes_what_drifted_and_nothing_else() {
    let mut drifted = found();
    drifted.insert("max_bytes".into(), json!(5));
    drifted.insert("compression".into(), json!("s2"));
    drifted["metadata"]["team"] = json!("blue");
    let update = updated(&drifted, &spec(), true).unwrap();
    assert_eq!(update["max_bytes"], 1000);
    assert_eq!(update["compression"], "s2");
    assert_eq!(update["metadata"]["team"], "blue");
    assert_eq!(update["metadata"][OWNER_KEY], Uuid::from_u128(7).to_string());
}

#[test]
fn what_was_changed_is_named_and_put_right() {
    let mut changed = found();
    changed.remove("metadata");
    changed.insert("max_msgs_per_subject".into(), json!(1));
    changed.insert(TRANSFORM.into(), json!({"src": "a", "dest": "b"}));
    let drift = drift(&changed, &spec(), true);
    assert_eq!(drift.keys().collect::<Vec<_>>(), ["max_msgs_per_subject", OWNER_KEY, TRANSFORM]);
    assert!(obstacles(&changed, &spec(), false).is_empty());
    let put_right = updated(&changed, &spec(), true).unwrap();
    assert_eq!(put_right.get(TRANSFORM), None);
    assert_eq!(put_right["max_msgs_per_subject"], -1);
    assert_eq!(put_right["metadata"][OWNER_KEY], Uuid::from_u128(7).to_string());
    assert!(self::drift(&found(), &spec(), true).is_empty());
}

#[test]
fn copies_that_somebody_has_added_are_left_alone_until_fewer_are_described() {
    let mut more = found();
    more.insert("num_replicas".into(), json!(3));
    assert_eq!(updated(&more, &spec(), true), None);
    assert!(differences(&more, &spec(), true).contains_key("num_replicas"));
    let fewer = StreamSpec { fewer_replicas: true, ..spec() };
    assert_eq!(updated(&more, &fewer, true).unwrap()["num_replicas"], 1);
    let most = StreamSpec { replicas: 5, ..spec() };
    assert_eq!(updated(&more, &most, true).unwrap()["num_replicas"], 5);
}

#[test]
fn storage_and_retention_are_fixed() {
    let mut other = found();
    other.insert("storage".into(), json!("memory"));
    other.insert("max_age".into(), json!(1));
    let fixed = fixed_differences(&differences(&other, &spec(), true));
    assert_eq!(in_words(&fixed), "storage is memory, wanted file");
}

#[test]
fn foreign_stream_is_usable_if_it_covers_the_subjects() {
    let mut foreign = found();
    foreign.insert("subjects".into(), json!(["shop.>"]));
    assert!(obstacles(&foreign, &spec(), true).is_empty());
    assert!(differences(&foreign, &spec(), true).contains_key("subjects"));
    foreign.insert("subjects".into(), json!(["shop.event.*"]));
    assert!(obstacles(&foreign, &spec(), true).contains_key("subjects"));
}

#[test]
fn sealed_mirrored_silent_or_transformed_stream_is_unusable() {
    for (key, value) in [
        ("sealed", json!(true)),
        ("no_ack", json!(true)),
        ("mirror", json!({"name": "X"})),
        ("subject_transform", json!({"src": "a", "dest": "b"})),
    ] {
        let mut bad = found();
        bad.insert(key.into(), value);
        assert!(obstacles(&bad, &spec(), true).contains_key(key), "{key}");
    }
}

#[test]
fn atomic_publishing_needs_a_server_that_has_it() {
    let atomic = StreamSpec { allow_atomic: true, ..spec() };
    assert!(!wanted(&atomic, false).contains_key("allow_atomic"));
    assert!(differences(&found(), &atomic, false).contains_key("allow_atomic"));
    assert_eq!(updated(&found(), &atomic, true).unwrap()["allow_atomic"], true);
}

#[test]
fn duplicate_window_ends_with_the_messages() {
    let brief = StreamSpec { max_age: Duration::from_secs(10), ..spec() };
    assert_eq!(wanted(&brief, true)["duplicate_window"], 10_000_000_000_i64);
    let lasting = StreamSpec { max_age: Duration::ZERO, ..spec() };
    assert_eq!(wanted(&lasting, true)["duplicate_window"], 30_000_000_000_i64);
}

#[test]
fn full_work_queue_refuses_instead_of_forgetting() {
    let queue = StreamSpec { retention: Retention::WorkQueue, ..spec() };
    assert_eq!(wanted(&queue, true)["discard"], "new");
    assert_eq!(wanted(&spec(), true)["discard"], "old");
}

#[test]
fn times_become_microseconds() {
    assert_eq!(parse_time("1970-01-01T00:00:00Z"), Some(0));
    assert_eq!(parse_time("2024-02-29T12:34:56.789012345Z"), Some(1_709_210_096_789_012));
    assert_eq!(parse_time("2024-02-29T14:34:56.5+02:00"), Some(1_709_210_096_500_000));
    assert_eq!(parse_time("yesterday"), None);
}
