//! The gateway's own metrics: how long requests took, how they ended, and what became of traces.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::StatusCode;

/// Upper bounds of the buckets, in seconds.
const BOUNDS: [f64; 10] = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0];

#[derive(Default)]
pub struct Meter {
    /// Each counts what is not in those before it.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
    /// By the first digit of the status.
    statuses: [AtomicU64; 6],
    pub traces: Traces,
}

/// What became of the spans of traces.
#[derive(Default)]
pub struct Traces {
    exported: AtomicU64,
    dropped: AtomicU64,
    failures: AtomicU64,
}

impl Traces {
    /// Spans that the collector has taken, and spans that it does not get.
    pub fn passed(&self, exported: usize, dropped: usize) {
        self.exported.fetch_add(exported as u64, Ordering::Relaxed);
        self.dropped.fetch_add(dropped as u64, Ordering::Relaxed);
    }

    /// A request that the collector did not answer, or refused.
    pub fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    fn write(&self, text: &mut String) {
        for (family, help, count) in [
            ("exported_spans", "Spans that the collector has taken", &self.exported),
            (
                "dropped_spans",
                "Spans that the collector refused, or that became too old while it was away",
                &self.dropped,
            ),
            ("export_failures", "Requests that the collector did not answer, or refused", &self.failures),
        ] {
            let name = format!("sea_mq_traces_{family}");
            let count = count.load(Ordering::Relaxed);
            let _ = writeln!(text, "# TYPE {name} counter\n# HELP {name} {help}\n{name}_total {count}");
        }
    }
}

impl Meter {
    pub fn count(&self, took: Duration, status: StatusCode) {
        let seconds = took.as_secs_f64();
        let place = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        self.buckets[place].fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.statuses[usize::from(status.as_u16() / 100).min(5)].fetch_add(1, Ordering::Relaxed);
    }

    /// As OpenMetrics text.
    pub fn write(&self, text: &mut String) {
        let mut count = 0;
        text.push_str("# TYPE sea_mq_http_request_duration_seconds histogram\n# HELP sea_mq_http_request_duration_seconds How long requests took\n");
        for (place, bucket) in self.buckets.iter().enumerate() {
            count += bucket.load(Ordering::Relaxed);
            let bound = BOUNDS.get(place).map_or_else(|| "+Inf".to_owned(), |bound| format!("{bound:?}"));
            let _ = writeln!(text, "sea_mq_http_request_duration_seconds_bucket{{le=\"{bound}\"}} {count}");
        }
        let sum = self.micros.load(Ordering::Relaxed) as f64 / 1e6;
        let _ = writeln!(
            text,
            "sea_mq_http_request_duration_seconds_count {count}\nsea_mq_http_request_duration_seconds_sum {sum}"
        );
        text.push_str(
            "# TYPE sea_mq_http_responses counter\n# HELP sea_mq_http_responses Answers by the class of their status\n",
        );
        for (class, count) in self.statuses.iter().enumerate().skip(1) {
            let _ =
                writeln!(text, "sea_mq_http_responses_total{{state=\"{class}xx\"}} {}", count.load(Ordering::Relaxed));
        }
        self.traces.write(text);
    }
}
