use super::*;
use sea_mq_model::broker::Resume;

const OWN: Uuid = Uuid::from_u128(1);
const OTHER: Uuid = Uuid::from_u128(2);

fn stream() -> StreamState {
    StreamState {
        created_us: 5,
        own: true,
        first_sequence: 1,
        last_sequence: 10,
        max_age: None,
        work_queue: false,
        keeps: true,
        subjects: vec!["shop.event.>".into()],
    }
}

fn spec() -> ConsumerSpec {
    ConsumerSpec {
        stream: "S".into(),
        name: "billing__orders".into(),
        filter_subject: "shop.event.>".into(),
        ack_wait: Duration::from_secs(120),
        max_deliver: 20,
        max_ack_pending: 50,
        fewer_pending: false,
        deliver_from: DeliverFrom::All,
        owner: OWN,
        take_over: false,
        with_stream: false,
        resume: None,
    }
}

fn config(start: DeliverFrom) -> Map<String, Value> {
    created(&spec(), &start)
}

#[test]
fn consumer_as_described_needs_no_update() {
    assert_eq!(updated(&config(DeliverFrom::All), &spec(), &stream()), Ok(None));
}

#[test]
fn update_leaves_the_start_alone() {
    let wanted = ConsumerSpec { max_deliver: 3, deliver_from: DeliverFrom::New, ..spec() };
    let config = updated(&config(DeliverFrom::Sequence(7)), &wanted, &stream()).unwrap().unwrap();
    assert_eq!(config["max_deliver"], 3);
    assert_eq!(config["deliver_policy"], "by_start_sequence");
    assert_eq!(config["opt_start_seq"], 7);
}

#[test]
fn consumer_of_another_installation_is_left_alone_until_it_is_taken_over() {
    let other = ConsumerSpec { owner: OTHER, ..spec() };
    let found = created(&spec(), &DeliverFrom::All);
    assert_eq!(updated(&found, &other, &stream()).unwrap_err().kind, FaultKind::ConsumerOwned);
    let taken = updated(&found, &ConsumerSpec { take_over: true, ..other.clone() }, &stream()).unwrap().unwrap();
    assert_eq!(updated(&taken, &other, &stream()), Ok(None));
    // What goes with the stream is the stream's owner's.
    let mirror = ConsumerSpec { with_stream: true, ..other };
    assert_eq!(updated(&found, &mirror, &stream()).unwrap(), Some(taken));
    let foreign = StreamState { own: false, ..stream() };
    assert_eq!(updated(&found, &mirror, &foreign).unwrap_err().kind, FaultKind::ConsumerOwned);
}

#[test]
fn consumer_without_a_mark_is_another_application_s() {
    let mut found = config(DeliverFrom::All);
    found.remove("metadata");
    for spec in [spec(), ConsumerSpec { with_stream: true, ..spec() }] {
        assert_eq!(updated(&found, &spec, &stream()).unwrap_err().kind, FaultKind::ConsumerConflict);
    }
    let taken = ConsumerSpec { take_over: true, ..spec() };
    assert_eq!(updated(&found, &taken, &stream()), Ok(Some(config(DeliverFrom::All))));
}

#[test]
fn pause_is_read() {
    let answer = json!({ "config": { "pause_until": "1970-01-01T00:00:01Z" }, "paused": true });
    assert_eq!(paused_until(&answer), Some(1_000_000));
    assert_eq!(paused_until(&json!({ "config": { "pause_until": "1970-01-01T00:00:01Z" } })), None);
}

#[test]
fn consumer_of_another_kind_is_refused() {
    for (key, value) in [("deliver_subject", "x"), ("ack_policy", "none"), ("durable_name", "")] {
        let mut other = config(DeliverFrom::All);
        other.insert(key.into(), json!(value));
        assert_eq!(updated(&other, &spec(), &stream()).unwrap_err().kind, FaultKind::ConsumerConflict, "{key}");
    }
}

#[test]
fn filter_is_part_of_the_subject() {
    let mut config = config(DeliverFrom::All);
    assert_eq!(subject("S", "c", &config), "CONSUMER.CREATE.S.c.shop.event.>");
    config.insert("filter_subject".into(), json!(""));
    assert_eq!(subject("S", "c", &config), "CONSUMER.CREATE.S.c");
}

#[test]
fn beginning_is_written_as_the_server_reads_it() {
    assert_eq!(config(DeliverFrom::All)["deliver_policy"], "all");
    assert_eq!(config(DeliverFrom::Sequence(0))["deliver_policy"], "all");
    assert_eq!(config(DeliverFrom::New)["deliver_policy"], "new");
    let time = config(DeliverFrom::Time(1_700_000_000_123_456));
    assert_eq!(time["deliver_policy"], "by_start_time");
    assert_eq!(time["opt_start_time"], "2023-11-14T22:13:20.123456Z");
    assert_eq!(config(DeliverFrom::Time(i64::MIN))["deliver_policy"], "all");
}

#[test]
fn lost_consumer_resumes_only_in_the_same_stream() {
    let stream = stream();
    let from = |created, sequence| {
        let resume = Some(Resume { stream_created_us: created, sequence });
        start(&ConsumerSpec { deliver_from: DeliverFrom::New, resume, ..spec() }, &stream)
    };
    assert_eq!(from(5, 10), DeliverFrom::Sequence(11));
    assert_eq!(from(5, 0), DeliverFrom::Sequence(1));
    assert_eq!(from(5, 11), DeliverFrom::All);
    assert_eq!(from(6, 3), DeliverFrom::All);
    let work_queue = StreamState { work_queue: true, ..stream };
    let resume = Some(Resume { stream_created_us: 5, sequence: 3 });
    assert_eq!(start(&ConsumerSpec { resume, ..spec() }, &work_queue), DeliverFrom::All);
}

#[test]
fn what_is_removed_is_counted_at_the_front_and_within() {
    let stream = json!({ "state": { "first_seq": 10, "deleted": [12, 15, 16, 30] } });
    let removed = |first, last| removed_in(&stream, Gap { first, last, at_most: None });
    assert_eq!([removed(1, 5), removed(5, 9), removed(8, 15), removed(10, 11), removed(15, 40)], [5, 5, 4, 0, 3]);
}

#[test]
fn changed_settings_are_named() {
    let mut found = config(DeliverFrom::All);
    found.insert("max_ack_pending".into(), json!(1));
    let wanted = updated(&found, &spec(), &stream()).unwrap().unwrap();
    assert_eq!(changes(&found, &wanted), "max_ack_pending is 1, wanted 50");
}

#[test]
fn a_filter_that_lets_all_through_is_none() {
    let whole = |filter: &str, subjects: &[&str]| {
        let mut config = config(DeliverFrom::All);
        config.insert("filter_subject".into(), json!(filter));
        let answer = json!({ "config": config });
        let subjects = subjects.iter().map(|subject| (*subject).to_owned()).collect();
        of_stream(&read(&answer).unwrap(), &StreamState { subjects, ..stream() }).whole
    };
    assert!(whole("shop.event.>", &["shop.event.>"]));
    assert!(whole("", &["shop.event.>", "other"]));
    assert!(!whole("shop.event.>", &["shop.event.>", "other"]));
    assert!(!whole("shop.event.paid.*", &["shop.event.>"]));
}
