use super::*;
use crate::broker::ServerInfo;

pub(in crate::consume) fn consumer(count: i64) -> Consumer {
    let mut consumer = Consumer::new(Some(BrokerConfig::default()), Duration::from_secs(1), 1 << 20);
    for id in 1..=count {
        let mut described = intake::tests::described(false);
        described.id = id;
        described.spec.name = format!("s{id}");
        consumer.describe(described);
    }
    consumer
}

/// Connects, answers what is asked for as of `now`, and returns who pulls.
pub(in crate::consume) fn run(consumer: &mut Consumer, now: Instant) -> Vec<SubscriptionId> {
    let (mut requests, _) = consumer.report(Report::Connected(ServerInfo::default()), now, 0.0);
    requests.extend(consumer.tick(now));
    answer(consumer, requests, now)
}

pub(in crate::consume) fn answer(consumer: &mut Consumer, requests: Vec<Request>, now: Instant) -> Vec<SubscriptionId> {
    let mut pulling = Vec::new();
    for request in requests {
        if let Request::EnsureConsumer { spec } = request {
            let info = ConsumerInfo::default();
            let ready = Report::ConsumerReady { stream: spec.stream, name: spec.name, info };
            let (requests, _) = consumer.report(ready, now, 0.0);
            pulling.extend(requests.iter().filter_map(|request| match request {
                Request::Consume { subscription, .. } => Some(*subscription),
                _ => None,
            }));
        }
    }
    pulling
}

fn lose(consumer: &mut Consumer, now: Instant) -> Vec<Notice> {
    lose_by(consumer, FaultKind::UnreadableMessage, now)
}

pub(in crate::consume) fn lose_by(consumer: &mut Consumer, kind: FaultKind, now: Instant) -> Vec<Notice> {
    consumer.report(Report::Disconnected(Fault::new(kind, "lost")), now, 0.0).1
}

#[test]
fn the_one_that_costs_the_session_is_left_out() {
    let mut consumer = consumer(3);
    let mut now = Instant::now();
    for _ in 0..TOO_OFTEN {
        assert_eq!(run(&mut consumer, now), [1, 2, 3]);
        now += Duration::from_millis(5);
        assert_eq!(lose(&mut consumer, now).len(), 1);
    }
    // Now one after the other; the second is the culprit.
    assert_eq!(run(&mut consumer, now), [1]);
    now += AT_ONCE;
    let requests = consumer.tick(now);
    assert_eq!(answer(&mut consumer, requests, now), [2]);
    now += Duration::from_millis(5);
    let notices = lose(&mut consumer, now);
    assert!(matches!(notices.as_slice(), [_, Notice::Subscription { id: 2, fault: Some(_) }]), "{notices:?}");
    let pulling = run(&mut consumer, now);
    assert!(!pulling.contains(&2), "{pulling:?}");
    now += 3 * AT_ONCE;
    let requests = consumer.tick(now);
    assert_eq!(answer(&mut consumer, requests, now), [3]);
}

#[test]
fn each_stream_is_asked_for_its_age_and_only_a_change_is_noted() {
    let mut consumer = consumer(2);
    let now = Instant::now();
    run(&mut consumer, now);
    let (later, stream) = (now + AGES, "S".to_owned());
    assert_eq!(consumer.due_at(), Some(later));
    let requests = consumer.tick(later);
    assert_eq!(requests[0], Request::ReadMaxAge { stream: stream.clone() });
    assert!(requests[1..].iter().all(|request| matches!(request, Request::ReadConsumer { .. })), "{requests:?}");
    assert_eq!(requests.len(), 3);
    assert_eq!(consumer.tick(later), []);
    let mut answer = |created_us, max_age| {
        consumer.report(Report::MaxAge { stream: stream.clone(), created_us, max_age }, later, 0.0).1
    };
    let day = Some(Duration::from_secs(86_400));
    assert_eq!(answer(0, None), []);
    assert_eq!(answer(7, day), [], "it is another stream");
    assert_eq!(answer(0, day), [1, 2].map(|id| Notice::MaxAge { id, max_age: day }));
    assert_eq!(answer(0, day), []);
}

#[test]
fn a_paused_consumer_is_told_of_and_waited_for() {
    let mut consumer = consumer(1);
    let now = Instant::now();
    assert_eq!(run(&mut consumer, now), [1]);
    let info = ConsumerInfo { paused_until_us: Some(1_000_000), ..ConsumerInfo::default() };
    let seen = Report::ConsumerSeen { stream: "S".into(), name: "s1".into(), info, drift: String::new() };
    let (requests, notices) = consumer.report(seen, now, 0.0);
    assert_eq!(requests, [Request::StopConsuming { subscription: 1 }]);
    let [Notice::Subscription { id: 1, fault: Some(fault) }] = notices.as_slice() else { panic!("{notices:?}") };
    assert_eq!(fault.kind, FaultKind::ConsumerPaused);
    assert_eq!(fault.message, "consumer s1 of stream S is paused in NATS until 1970-01-01T00:00:01Z");
    let later = now + Duration::from_secs(60);
    let requests = consumer.tick(later);
    assert_eq!(answer(&mut consumer, requests, later), [1], "it is pulled from once it is not paused");
}

#[test]
fn memory_is_shared_out() {
    let mut consumer = consumer(4);
    let now = Instant::now();
    let (mut requests, _) = consumer.report(Report::Connected(ServerInfo::default()), now, 0.0);
    requests.extend(consumer.tick(now));
    let ready = Report::ConsumerReady { stream: "S".into(), name: "s1".into(), info: ConsumerInfo::default() };
    let (requests, _) = consumer.report(ready, now, 0.0);
    assert!(matches!(requests.as_slice(), [Request::Consume { bytes: 262_144, .. }]), "{requests:?}");
}

#[test]
fn a_loss_long_after_pulling_began_blames_nobody() {
    let mut consumer = consumer(1);
    let mut now = Instant::now();
    for _ in 0..10 {
        assert_eq!(run(&mut consumer, now), [1]);
        now += Duration::from_secs(10);
        assert_eq!(lose(&mut consumer, now).len(), 1);
    }
}
