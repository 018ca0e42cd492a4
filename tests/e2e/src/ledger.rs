//! Whether a stream holds what it should, once and in order.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::hash::Hash;

/// Asserts that `found` is `expected`: nothing lost, doubled, reordered or made up. Says which, and where.
///
/// # Panics
/// When it is not.
#[track_caller]
pub fn assert_same<T: Copy + Eq + Hash + Debug>(expected: &[T], found: &[T]) {
    if expected == found {
        return;
    }
    let wanted: HashSet<T> = expected.iter().copied().collect();
    let got: HashSet<T> = found.iter().copied().collect();
    let lost: Vec<T> = expected.iter().copied().filter(|one| !got.contains(one)).collect();
    let made_up: Vec<T> = found.iter().copied().filter(|one| !wanted.contains(one)).collect();
    let mut seen = HashSet::new();
    let doubled: Vec<T> = found.iter().copied().filter(|one| !seen.insert(*one)).collect();
    let place = expected.iter().zip(found).position(|(a, b)| a != b).unwrap_or(expected.len().min(found.len()));
    panic!(
        "expected {}, found {}: {} lost {:?}, {} doubled {:?}, {} unexpected {:?}; first difference at {place}: {:?} for {:?}",
        expected.len(),
        found.len(),
        lost.len(),
        first(&lost),
        doubled.len(),
        first(&doubled),
        made_up.len(),
        first(&made_up),
        found.get(place),
        expected.get(place),
    );
}

/// Asserts that `events` holds the same elements as `expected`, in whatever order.
///
/// # Panics
/// When it does not.
#[track_caller]
pub fn assert_same_set<T: Copy + Ord + Hash + Debug>(expected: &[T], found: &[T]) {
    let (mut expected, mut found) = (expected.to_vec(), found.to_vec());
    expected.sort_unstable();
    found.sort_unstable();
    assert_same(&expected, &found);
}

/// Asserts that each key's numbers come as 1, 2, 3, … in `found`, and as many of them as `expected` says.
///
/// # Panics
/// When they do not.
#[track_caller]
pub fn assert_gapless<K: Clone + Eq + Hash + Debug>(
    expected: &HashMap<K, i64>,
    found: impl IntoIterator<Item = (K, i64)>,
) {
    let mut last: HashMap<K, i64> = HashMap::new();
    let mut wrong = Vec::new();
    for (place, (key, number)) in found.into_iter().enumerate() {
        let before = last.insert(key.clone(), number).unwrap_or(0);
        if number != before + 1 {
            wrong.push(format!("{key:?}: {number} after {before}, at {place}"));
        }
    }
    assert!(wrong.is_empty(), "{} out of order: {:?}", wrong.len(), first(&wrong));
    for (key, number) in expected {
        assert_eq!(last.get(key).copied().unwrap_or(0), *number, "last number of {key:?}");
    }
}

fn first<T>(all: &[T]) -> &[T] {
    &all[..all.len().min(5)]
}
