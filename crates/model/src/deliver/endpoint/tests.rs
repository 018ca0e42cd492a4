use super::*;

const OK: Answer = Answer::Status { code: 200, retry_after: None };
const BROKEN: Answer = Answer::Status { code: 500, retry_after: None };

fn policy(ordering: Ordering, max_in_flight: usize) -> Policy {
    Policy { ordering, max_in_flight, rate: None, schedule: Schedule::default(), pauses: false }
}

fn item(seq: i64, key: &str) -> Item {
    Item { event: Uuid::from_u128(u128::try_from(seq).unwrap()), seq, key: Some(key.into()) }
}

fn endpoint(policy: Policy, items: impl IntoIterator<Item = Item>) -> Endpoint {
    let mut endpoint = Endpoint::new(policy, Health::default(), false);
    items.into_iter().for_each(|item| endpoint.offer(item));
    endpoint
}

fn sent(endpoint: &mut Endpoint, now: Instant) -> Vec<i64> {
    let next = std::iter::from_fn(|| endpoint.next(now));
    next.filter_map(|next| match next {
        Next::Send { item, .. } => Some(item.seq),
        Next::Park(_) => None,
    })
    .collect()
}

#[test]
fn an_outage_stops_the_reading_instead_of_filling_the_table() {
    let now = Instant::now();
    let mut endpoint = endpoint(policy(Ordering::None, 8), (0..300).map(|n| item(n, "")));
    for seq in sent(&mut endpoint, now) {
        endpoint.answered(item(seq, "").event, BROKEN, now, 0.5);
    }
    assert!(matches!(endpoint.state(), State::Open { .. }));
    assert_eq!((endpoint.room(now), endpoint.next(now), endpoint.retrying()), (0, None, 8));
    // Back, it gets one, then two, and so on.
    let State::Open { probe_at, .. } = endpoint.state() else { unreachable!() };
    assert_eq!(endpoint.due_at(now), Some(probe_at));
    let mut at_once = Vec::new();
    for _ in 0..5 {
        let now_sent = sent(&mut endpoint, probe_at);
        at_once.push(now_sent.len());
        for seq in now_sent {
            endpoint.answered(item(seq, "").event, OK, probe_at, 0.5);
        }
    }
    assert_eq!(at_once, [1, 1, 2, 4, 8]);
}

#[test]
fn retries_take_half_of_the_slots_at_most() {
    let now = Instant::now();
    let mut endpoint = endpoint(policy(Ordering::None, 8), (0..20).map(|n| item(n, "")));
    (100..120).for_each(|n| endpoint.restore(item(n, ""), Some(now), 1, None));
    let seqs = sent(&mut endpoint, now);
    assert_eq!(seqs.iter().filter(|&&seq| seq >= 100).count(), 4);
    assert_eq!(seqs.len(), 8);
}

#[test]
fn behind_one_that_failed_its_aggregate_is_parked_and_the_others_go_on() {
    let now = Instant::now();
    let mut endpoint = endpoint(policy(Ordering::Key, 8), [item(1, "a"), item(2, "a"), item(3, "b"), item(4, "a")]);
    assert_eq!(sent(&mut endpoint, now), [1, 3]);
    endpoint.answered(item(1, "a").event, BROKEN, now, 0.5);
    assert_eq!(
        [endpoint.next(now), endpoint.next(now)],
        [Some(Next::Park(item(2, "a"))), Some(Next::Park(item(4, "a")))]
    );
    let later = now + Duration::from_secs(6);
    assert_eq!(sent(&mut endpoint, later), [1]);
    assert_eq!(endpoint.answered(item(1, "a").event, OK, later, 0.5), Some(Outcome::Delivered));
    assert_eq!(sent(&mut endpoint, later), [2]);
    // Given up, and the next one has its turn.
    let refused = Answer::Status { code: 422, retry_after: None };
    assert_eq!(endpoint.answered(item(2, "a").event, refused, later, 0.5), Some(Outcome::Failed));
    assert_eq!(endpoint.next(later), None);
    endpoint.recorded(item(2, "a").event, later);
    assert_eq!(sent(&mut endpoint, later), [4]);
}

#[test]
fn strict_is_one_at_a_time_and_nothing_behind_one_that_failed() {
    let now = Instant::now();
    let mut endpoint = endpoint(policy(Ordering::Strict, 8), (1..4).map(|n| item(n, &n.to_string())));
    assert_eq!(sent(&mut endpoint, now), [1]);
    endpoint.answered(item(1, "").event, BROKEN, now, 0.5);
    assert_eq!(endpoint.next(now), None);
    let later = now + Duration::from_secs(6);
    assert_eq!(sent(&mut endpoint, later), [1]);
    endpoint.answered(item(1, "").event, OK, later, 0.5);
    assert_eq!(sent(&mut endpoint, later), [2]);
}

#[test]
fn one_that_pauses_sends_nothing_after_a_loss() {
    let now = Instant::now();
    let mut pausing = policy(Ordering::None, 1);
    pausing.pauses = true;
    let mut endpoint = endpoint(pausing, [item(1, ""), item(2, "")]);
    assert_eq!(sent(&mut endpoint, now), [1]);
    endpoint.answered(item(1, "").event, Answer::Status { code: 400, retry_after: None }, now, 0.5);
    assert!(endpoint.is_held() && endpoint.next(now).is_none());
}

#[test]
fn what_waits_can_be_taken_back_and_what_is_in_flight_cannot() {
    let now = Instant::now();
    let mut endpoint = endpoint(policy(Ordering::Key, 8), []);
    endpoint.restore(item(1, "a"), Some(now), 1, None);
    endpoint.restore(item(2, "a"), None, 0, None);
    endpoint.restored(now);
    assert!(endpoint.withdraw(item(1, "a").event, now) && !endpoint.withdraw(item(9, "a").event, now));
    assert_eq!(sent(&mut endpoint, now), [2]);
    assert!(!endpoint.withdraw(item(2, "a").event, now));
}

#[test]
fn attempts_are_spent_and_then_it_is_given_up() {
    let mut now = Instant::now();
    let mut endpoint = endpoint(policy(Ordering::None, 1), [item(1, "")]);
    let mut outcomes = Vec::new();
    loop {
        if sent(&mut endpoint, now).is_empty() {
            now = endpoint.due_at(now).unwrap();
            continue;
        }
        let outcome = endpoint.answered(item(1, "").event, BROKEN, now, 0.0).unwrap();
        outcomes.push(outcome.clone());
        if outcome == Outcome::Exhausted {
            break;
        }
    }
    // The schedule has ten attempts; with the shortest waits they fit into the age.
    assert_eq!((outcomes.len(), endpoint.retrying()), (10, 0));
}
