//! The costs of an event, by name: what is measured, and what the model reckons with.

/// One of them. Each is for one event, but for the two rates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    /// Of the sessions that emit.
    WriterCpu,
    RelayCpu,
    /// Of all nats-servers together, for what the relay publishes.
    StoringCpu,
    /// Of all nats-servers together, for one subscription.
    DeliveringCpu,
    ConsumerCpu,
    /// Of PostgreSQL's checkpointer, background writer and WAL writer.
    BackgroundCpu,
    WriterWal,
    RelayWal,
    ConsumerWal,
    /// With indexes.
    OutboxDisk,
    /// Of one replica.
    StreamDisk,
    /// With indexes.
    InboxDisk,
    /// From the relay to the broker.
    Published,
    /// From the broker to the relay.
    Confirmed,
    /// From the broker to a subscription.
    Delivered,
    /// From a subscription to the broker.
    Acknowledged,
    /// Between the nats-servers, for what the relay publishes.
    ReplicatedStoring,
    /// Between the nats-servers, for one subscription.
    ReplicatedDelivering,
    /// Events a second of one relay that works a backlog off.
    RelayRate,
    /// Messages a second of one subscription with a handler that does nothing.
    ConsumerRate,
}

impl Cost {
    pub const ALL: [Self; 20] = [
        Self::WriterCpu,
        Self::RelayCpu,
        Self::StoringCpu,
        Self::DeliveringCpu,
        Self::ConsumerCpu,
        Self::BackgroundCpu,
        Self::WriterWal,
        Self::RelayWal,
        Self::ConsumerWal,
        Self::OutboxDisk,
        Self::StreamDisk,
        Self::InboxDisk,
        Self::Published,
        Self::Confirmed,
        Self::Delivered,
        Self::Acknowledged,
        Self::ReplicatedStoring,
        Self::ReplicatedDelivering,
        Self::RelayRate,
        Self::ConsumerRate,
    ];

    /// Its name in the JSON.
    pub const fn key(self) -> &'static str {
        match self {
            Self::WriterCpu => "cpu_writer",
            Self::RelayCpu => "cpu_relay",
            Self::StoringCpu => "cpu_broker_storing",
            Self::DeliveringCpu => "cpu_broker_delivering",
            Self::ConsumerCpu => "cpu_consumer",
            Self::BackgroundCpu => "cpu_background",
            Self::WriterWal => "wal_writer",
            Self::RelayWal => "wal_relay",
            Self::ConsumerWal => "wal_consumer",
            Self::OutboxDisk => "disk_outbox",
            Self::StreamDisk => "disk_stream",
            Self::InboxDisk => "disk_inbox",
            Self::Published => "network_relay_to_broker",
            Self::Confirmed => "network_broker_to_relay",
            Self::Delivered => "network_broker_to_consumer",
            Self::Acknowledged => "network_consumer_to_broker",
            Self::ReplicatedStoring => "network_between_brokers_storing",
            Self::ReplicatedDelivering => "network_between_brokers_delivering",
            Self::RelayRate => "rate_relay",
            Self::ConsumerRate => "rate_consumer",
        }
    }

    pub const fn label(self) -> &'static str {
        match self {
            Self::WriterCpu => "CPU of the writer",
            Self::RelayCpu => "CPU of the relay",
            Self::StoringCpu => "CPU of the brokers, storing",
            Self::DeliveringCpu => "CPU of the brokers, delivering",
            Self::ConsumerCpu => "CPU of the consumer",
            Self::BackgroundCpu => "CPU of PostgreSQL's background",
            Self::WriterWal => "WAL of the writer",
            Self::RelayWal => "WAL of the relay",
            Self::ConsumerWal => "WAL of the consumer",
            Self::OutboxDisk => "disk of the outbox",
            Self::StreamDisk => "disk of the stream, a replica",
            Self::InboxDisk => "disk of the inbox",
            Self::Published => "network, relay to broker",
            Self::Confirmed => "network, broker to relay",
            Self::Delivered => "network, broker to consumer",
            Self::Acknowledged => "network, consumer to broker",
            Self::ReplicatedStoring => "network between brokers, storing",
            Self::ReplicatedDelivering => "network between brokers, delivering",
            Self::RelayRate => "one relay, a backlog",
            Self::ConsumerRate => "one subscription, a backlog",
        }
    }

    pub const fn unit(self) -> &'static str {
        match self {
            Self::WriterCpu
            | Self::RelayCpu
            | Self::StoringCpu
            | Self::DeliveringCpu
            | Self::ConsumerCpu
            | Self::BackgroundCpu => "µs",
            Self::RelayRate | Self::ConsumerRate => "events/s",
            _ => "bytes",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_cost_has_its_place_and_a_name_of_its_own() {
        for (place, cost) in Cost::ALL.into_iter().enumerate() {
            assert_eq!(cost as usize, place, "{cost:?}");
        }
        let keys: BTreeSet<&str> = Cost::ALL.into_iter().map(Cost::key).collect();
        assert_eq!(keys.len(), Cost::ALL.len());
    }
}
