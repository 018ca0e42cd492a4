//! What `make bench ONLY=costs` measured, and what follows for payloads and replicas that it did not.

use serde_json::Value;

use crate::costs::Cost;

/// One number of replicas and one payload.
#[derive(Clone, Debug, PartialEq)]
struct Point {
    replicas: f64,
    payload_bytes: f64,
    /// In the order of [`Cost::ALL`].
    costs: [f64; Cost::ALL.len()],
}

/// All of them; at least one.
#[derive(Clone, Debug, PartialEq)]
pub struct Costs(Vec<Point>);

impl Costs {
    /// Reads a `results.json`.
    ///
    /// # Errors
    /// When it has no costs, with what is missing.
    pub fn parse(text: &str) -> Result<Self, String> {
        let results: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let measurements = results["parts"]["costs"]["measurements"].as_array().map_or(&[][..], Vec::as_slice);
        if measurements.is_empty() {
            return Err("it has no part \"costs\": make bench ONLY=costs".into());
        }
        measurements.iter().map(Point::parse).collect::<Result<_, _>>().map(Self)
    }

    /// A cost, by straight lines through what was measured: over the payload, then over the replicas. Of rates it is the time
    /// of an event that lies on a line.
    pub fn at(&self, cost: Cost, replicas: f64, payload_bytes: f64) -> f64 {
        let is_rate = matches!(cost, Cost::RelayRate | Cost::ConsumerRate);
        let turned = |value: f64| if is_rate { 1.0 / value } else { value };
        let mut over_replicas: Vec<(f64, f64)> = Vec::new();
        for point in &self.0 {
            if over_replicas.iter().all(|(known, _)| *known != point.replicas) {
                let same = self.0.iter().filter(|other| other.replicas == point.replicas);
                let points = same.map(|other| (other.payload_bytes, turned(other.costs[cost as usize])));
                over_replicas.push((point.replicas, line(&points.collect::<Vec<_>>(), payload_bytes)));
            }
        }
        turned(line(&over_replicas, replicas).max(if is_rate { f64::MIN_POSITIVE } else { 0.0 }))
    }

    /// What of it was measured, and is not the line between or beyond.
    pub fn is_measured(&self, replicas: f64, payload_bytes: f64) -> bool {
        self.0.iter().any(|point| point.replicas == replicas && point.payload_bytes == payload_bytes)
    }
}

impl Point {
    fn parse(measurement: &Value) -> Result<Self, String> {
        let number = |value: &Value, name: &str| value.as_f64().ok_or_else(|| format!("{name} is missing"));
        let mut costs = [0.0; Cost::ALL.len()];
        for cost in Cost::ALL {
            costs[cost as usize] = number(&measurement["costs"][cost.key()]["median"], cost.key())?;
        }
        Ok(Self {
            replicas: number(&measurement["replicas"], "replicas")?,
            payload_bytes: number(&measurement["payload_bytes"], "payload_bytes")?,
            costs,
        })
    }
}

/// The value at `x` on the line through the outermost of the points; through one point it is level.
fn line(points: &[(f64, f64)], x: f64) -> f64 {
    let by_x = |a: &&(f64, f64), b: &&(f64, f64)| a.0.total_cmp(&b.0);
    let (Some(first), Some(last)) = (points.iter().min_by(by_x), points.iter().max_by(by_x)) else { return 0.0 };
    if first.0 == last.0 { first.1 } else { first.1 + (last.1 - first.1) * (x - first.0) / (last.0 - first.0) }
}

#[cfg(test)]
pub mod tests {
    use serde_json::{Map, json};

    use super::*;

    /// Four measurements: each cost is `bytes` of the payload and 100 for each replica; a relay takes 10 µs for an event, a
    /// subscription 20.
    pub fn costs() -> Costs {
        let measurements: Vec<Value> = [(1, 300), (1, 2000), (3, 300), (3, 2000)].map(measurement).into();
        Costs::parse(&json!({ "parts": { "costs": { "measurements": measurements } } }).to_string()).unwrap()
    }

    fn measurement((replicas, bytes): (u32, u32)) -> Value {
        let median = |cost: Cost| match cost {
            Cost::RelayRate => 100_000,
            Cost::ConsumerRate => 50_000,
            _ => bytes + 100 * replicas,
        };
        let costs: Map<String, Value> =
            Cost::ALL.into_iter().map(|cost| (cost.key().into(), json!({ "median": median(cost) }))).collect();
        json!({ "replicas": replicas, "payload_bytes": bytes, "costs": costs })
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-6 * b.abs().max(1.0)
    }

    #[test]
    fn what_was_measured_is_given_as_it_is() {
        let costs = costs();
        assert!(close(costs.at(Cost::RelayCpu, 1.0, 300.0), 400.0));
        assert!(close(costs.at(Cost::StreamDisk, 3.0, 2000.0), 2300.0));
        assert!(close(costs.at(Cost::RelayRate, 3.0, 2000.0), 100_000.0));
        assert!(costs.is_measured(3.0, 300.0) && !costs.is_measured(5.0, 300.0));
    }

    #[test]
    fn between_and_beyond_lie_straight_lines() {
        let costs = costs();
        assert!(close(costs.at(Cost::RelayCpu, 1.0, 1000.0), 1100.0));
        assert!(close(costs.at(Cost::RelayCpu, 5.0, 1000.0), 1500.0));
        // A line that would go below nothing ends there.
        assert_eq!(line(&[(1.0, 4.0), (2.0, 2.0)], 5.0), -4.0);
        assert!(costs.at(Cost::RelayCpu, 1.0, -5000.0) == 0.0);
    }

    #[test]
    fn of_rates_the_time_of_an_event_is_on_the_line() {
        let mut costs = costs();
        for point in &mut costs.0 {
            // 10 µs at 300 bytes, 50 µs at 2000.
            point.costs[Cost::RelayRate as usize] = if point.payload_bytes == 300.0 { 100_000.0 } else { 20_000.0 };
        }
        assert!(close(costs.at(Cost::RelayRate, 1.0, 1150.0), 1e6 / 30.0));
    }

    #[test]
    fn what_is_missing_is_named() {
        assert!(Costs::parse("{}").unwrap_err().contains("costs"));
        let empty = json!({ "parts": { "costs": { "measurements": [{ "replicas": 1, "payload_bytes": 300 }] } } });
        assert_eq!(Costs::parse(&empty.to_string()).unwrap_err(), "cpu_writer is missing");
    }
}
