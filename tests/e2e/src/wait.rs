use std::time::{Duration, Instant};

pub(crate) const PAUSE: Duration = Duration::from_millis(25);

/// Waits until `probe` gives a value, and returns it.
///
/// # Panics
/// When `limit` has passed.
pub async fn until_some<T>(what: &str, limit: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(begin.elapsed() < limit, "waited {limit:?} in vain for: {what}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Waits until `probe` is true.
///
/// # Panics
/// When `limit` has passed.
pub async fn until(what: &str, limit: Duration, mut probe: impl AsyncFnMut() -> bool) {
    until_some(what, limit, async || probe().await.then_some(())).await;
}

/// For promises that something does *not* happen: checks `probe` over and over for as long as `span`.
///
/// # Panics
/// When it is false once.
pub async fn holds_for(what: &str, span: Duration, mut probe: impl AsyncFnMut() -> bool) {
    let begin = Instant::now();
    while begin.elapsed() < span {
        assert!(probe().await, "did not hold for {span:?}: {what}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Waits until what `probe` gives has been the same for `span`, and returns it.
///
/// # Panics
/// When it goes on changing for longer than `limit`.
pub async fn settled<T: PartialEq>(
    what: &str,
    span: Duration,
    limit: Duration,
    mut probe: impl AsyncFnMut() -> T,
) -> T {
    let begin = Instant::now();
    let mut value = probe().await;
    let mut since = Instant::now();
    while since.elapsed() < span {
        assert!(begin.elapsed() < limit + span, "goes on changing after {limit:?}: {what}");
        tokio::time::sleep(PAUSE).await;
        let now = probe().await;
        if now != value {
            value = now;
            since = Instant::now();
        }
    }
    value
}
