//! How long things took: histograms of one database in shared memory. Only atomics, so that counting cannot fail or wait.

use std::sync::atomic::{AtomicU64, Ordering};

/// Upper bounds of the buckets in microseconds. What took longer is in the last one, which has no bound.
pub const BOUNDS_US: [u64; 14] = [
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    5_000_000,
    30_000_000,
    300_000_000,
    3_600_000_000,
];

/// How many took how long, since the server started.
#[derive(Default)]
pub struct Histogram {
    /// Each counts what is not in those before it.
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

/// What a histogram has counted.
pub struct Counted {
    /// For each bound, how many took that long at most.
    pub up_to: [u64; BOUNDS_US.len()],
    pub count: u64,
    pub sum_us: u64,
}

impl Histogram {
    /// One more. Clocks differ: what ended before it began took no time.
    pub fn count(&self, micros: i64) {
        self.count_all(std::iter::once(micros));
    }

    /// Several at once: an addition for each bucket, and not for each of them.
    pub fn count_all(&self, all: impl Iterator<Item = i64>) {
        let (mut counts, mut sum) = ([0; BOUNDS_US.len() + 1], 0);
        for micros in all.map(|micros| u64::try_from(micros).unwrap_or(0)) {
            counts[BOUNDS_US.partition_point(|bound| *bound < micros)] += 1;
            sum += micros;
        }
        for (bucket, count) in self.buckets.iter().zip(counts).filter(|(_, count)| *count > 0) {
            bucket.fetch_add(count, Ordering::Relaxed);
        }
        self.sum_us.fetch_add(sum, Ordering::Relaxed);
    }

    pub fn counted(&self) -> Counted {
        let mut count = 0;
        let mut up_to = [0; BOUNDS_US.len()];
        for (place, bucket) in self.buckets.iter().enumerate() {
            count += bucket.load(Ordering::Relaxed);
            if let Some(slot) = up_to.get_mut(place) {
                *slot = count;
            }
        }
        Counted { up_to, count, sum_us: self.sum_us.load(Ordering::Relaxed) }
    }

    pub fn clear(&self) {
        self.buckets.iter().for_each(|bucket| bucket.store(0, Ordering::Relaxed));
        self.sum_us.store(0, Ordering::Relaxed);
    }
}
