//! What was found out about one number of nats-servers and one payload, and how it is written.

use serde_json::{Map, Value, json};

use super::cost::Cost;
use super::meters::{Meter, Reading};
use crate::figures::{Series, whole};
use crate::report::Row;

/// The phases of a round, each for each event.
pub struct Phases {
    /// The relay is stopped.
    pub written: Reading,
    /// The relay publishes.
    pub published: Reading,
    /// A subscription handles them besides.
    pub handled: Reading,
}

impl Phases {
    /// What they say of a cost; `None` of those that are rates.
    fn cost(&self, cost: Cost) -> Option<f64> {
        let Self { written, published, handled } = self;
        let relays = |meter| published.at(meter) - written.at(meter);
        let consumers = |meter| handled.at(meter) - published.at(meter);
        Some(match cost {
            Cost::WriterCpu => handled.at(Meter::Writer),
            Cost::RelayCpu => handled.at(Meter::Relay),
            Cost::StoringCpu => relays(Meter::Brokers),
            Cost::DeliveringCpu => consumers(Meter::Brokers),
            Cost::ConsumerCpu => handled.at(Meter::Consumer),
            Cost::BackgroundCpu => handled.at(Meter::Background),
            Cost::WriterWal => written.at(Meter::Wal),
            Cost::RelayWal => relays(Meter::Wal),
            Cost::ConsumerWal => consumers(Meter::Wal),
            Cost::OutboxDisk => written.at(Meter::Outbox),
            Cost::StreamDisk => published.at(Meter::Stream),
            Cost::InboxDisk => handled.at(Meter::Inbox),
            Cost::Published => handled.at(Meter::RelaySent),
            Cost::Confirmed => handled.at(Meter::RelayReceived),
            Cost::Delivered => handled.at(Meter::ConsumerReceived),
            Cost::Acknowledged => handled.at(Meter::ConsumerSent),
            Cost::ReplicatedStoring => relays(Meter::Replicated),
            Cost::ReplicatedDelivering => consumers(Meter::Replicated),
            Cost::RelayRate | Cost::ConsumerRate => return None,
        })
    }
}

/// All rounds of one number of nats-servers, each with a replica of the stream, and one payload.
pub struct Found {
    pub nodes: usize,
    pub payload_bytes: usize,
    /// In the order of [`Cost::ALL`].
    series: [Series; Cost::ALL.len()],
}

impl Found {
    pub fn new(nodes: usize, payload_bytes: usize) -> Self {
        Self { nodes, payload_bytes, series: Default::default() }
    }

    pub fn push(&mut self, cost: Cost, value: f64) {
        self.series[cost as usize].push(value);
    }

    pub fn push_phases(&mut self, phases: &Phases) {
        for cost in Cost::ALL {
            if let Some(value) = phases.cost(cost) {
                self.push(cost, value);
            }
        }
    }

    pub fn rows(&self) -> Vec<Row> {
        let servers = if self.nodes == 1 { "1 server".to_owned() } else { format!("{} servers", self.nodes) };
        let row = |cost: Cost| {
            let series = &self.series[cost as usize];
            let label = format!("{servers}, {} bytes: {}", whole(self.payload_bytes as f64), cost.label());
            if cost.unit() == "µs" {
                let value = format!("{:.1} µs", series.median());
                return Row::new(label, value, series.range(1, " µs"));
            }
            Row::rate(&label, series, &format!(" {}", cost.unit()))
        };
        Cost::ALL.into_iter().map(row).collect()
    }

    pub fn json(&self) -> Value {
        let costs: Map<String, Value> = Cost::ALL
            .into_iter()
            .map(|cost| (cost.key().to_owned(), self.series[cost as usize].json(cost.unit())))
            .collect();
        json!({ "nodes": self.nodes, "replicas": self.nodes, "payload_bytes": self.payload_bytes, "costs": costs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(values: &[(Meter, f64)]) -> Reading {
        let mut reading = Reading::default();
        values.iter().for_each(|(meter, value)| reading.set(*meter, *value));
        reading
    }

    #[test]
    fn each_phase_adds_what_is_its_own() {
        let phases = Phases {
            written: reading(&[(Meter::Wal, 900.0), (Meter::Brokers, 1.0)]),
            published: reading(&[(Meter::Wal, 901.0), (Meter::Brokers, 21.0)]),
            handled: reading(&[(Meter::Wal, 1401.0), (Meter::Brokers, 36.0), (Meter::Writer, 70.0)]),
        };
        let of = |cost| phases.cost(cost);
        assert_eq!([of(Cost::WriterWal), of(Cost::RelayWal), of(Cost::ConsumerWal)], [900.0, 1.0, 500.0].map(Some));
        assert_eq!([of(Cost::StoringCpu), of(Cost::DeliveringCpu), of(Cost::WriterCpu)], [20.0, 15.0, 70.0].map(Some));
        assert_eq!(of(Cost::RelayRate), None);
    }
}
