//! The last hour: one question every ten seconds, however many look.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::response::Response;
use serde_json::{Value, json};

use super::Viewer;
use crate::db::call::Ask;
use crate::db::pool::{Access, Identity};
use crate::rest::request::answer;
use crate::serve::App;

const EVERY: Duration = Duration::from_secs(10);
/// An hour.
const KEPT: usize = 361;

#[derive(Clone, Copy, Default)]
struct Sample {
    at: u64,
    published: f64,
    handled: f64,
    events: f64,
    messages: f64,
    latency_sum: f64,
    latency_count: f64,
}

#[derive(Default)]
pub struct History(Mutex<VecDeque<Sample>>);

/// Until the process ends.
pub async fn sample(app: Arc<App>) {
    let identity = Identity { role: Some("sea_mq_viewer".into()), request_id: "history".into(), ..Identity::default() };
    let ask = Ask::new(
        "SELECT jsonb_object_agg(m.name, m.value)::text FROM (SELECT name, sum(value) AS value FROM sea_mq.metrics() GROUP BY name) m",
    );
    loop {
        let rows = app.database.run(Access::Read, &identity, &ask).await.unwrap_or_default();
        if let Some(values) = rows.first().and_then(|row| serde_json::from_str::<Value>(row).ok()) {
            app.console.add(of(&values));
        }
        tokio::time::sleep(EVERY).await;
    }
}

fn of(values: &Value) -> Sample {
    let value = |name: &str| values[name].as_f64().unwrap_or_default();
    Sample {
        at: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()),
        published: value("sea_mq_stream_published_events_total"),
        handled: value("sea_mq_subscription_processed_messages_total"),
        events: value("sea_mq_stream_pending_events"),
        messages: value("sea_mq_subscription_waiting_messages"),
        latency_sum: value("sea_mq_handle_latency_seconds_sum"),
        latency_count: value("sea_mq_handle_latency_seconds_count"),
    }
}

impl History {
    fn add(&self, sample: Sample) {
        if let Ok(mut samples) = self.0.lock() {
            samples.push_back(sample);
            while samples.len() > KEPT {
                samples.pop_front();
            }
        }
    }

    fn as_json(&self) -> Value {
        let samples: Vec<Sample> = self.0.lock().map(|samples| samples.iter().copied().collect()).unwrap_or_default();
        let pairs = || samples.windows(2).map(|pair| (pair[0], pair[1]));
        // Counters of a server that was started anew begin again.
        let rate = |of: fn(&Sample) -> f64| -> Vec<f64> {
            pairs().map(|(from, to)| (of(&to) - of(&from)).max(0.0) / (to.at - from.at).max(1) as f64).collect()
        };
        let latency: Vec<Option<f64>> = pairs()
            .map(|(from, to)| {
                let count = to.latency_count - from.latency_count;
                (count > 0.0).then(|| ((to.latency_sum - from.latency_sum) / count).max(0.0))
            })
            .collect();
        json!({
            "at": pairs().map(|(_, to)| to.at).collect::<Vec<_>>(),
            "rates": [rate(|sample| sample.published), rate(|sample| sample.handled)],
            "waiting": [pairs().map(|(_, to)| to.events).collect::<Vec<_>>(), pairs().map(|(_, to)| to.messages).collect::<Vec<_>>()],
            "latency": [latency],
        })
    }
}

/// Numbers without a name: for everybody who has logged in.
pub async fn rates(Viewer(ctx): Viewer) -> Response {
    answer(axum::http::StatusCode::OK, ctx.app.console.as_json().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_what_counters_have_grown_by() {
        let history = History::default();
        for (at, published) in [(100, 5.0), (110, 25.0), (120, 0.0)] {
            history.add(Sample { at, published, ..Sample::default() });
        }
        let shown = history.as_json();
        assert_eq!((&shown["at"], &shown["rates"][0]), (&json!([110, 120]), &json!([2.0, 0.0])));
    }
}
