//! What a load needs.

use super::measured::Costs;
use crate::costs::Cost;

/// The log holds up to so much more than its retention ([sizing](../../../docs/operations.md)).
const OUTBOX_EXCESS: f64 = 1.25;
/// The same of the inbox.
const INBOX_EXCESS: f64 = 1.5;

/// What is asked for. Retentions in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Events per second.
    pub rate: f64,
    pub payload_bytes: f64,
    pub replicas: f64,
    /// How many subscriptions get each event.
    pub subscriptions: f64,
    pub stream_retention: f64,
    pub outbox_retention: f64,
    pub inbox_retention: f64,
    /// How much of what a relay or a consumer can do is planned with; the rest is for peaks, and for catching up.
    pub share: f64,
}

/// What it takes. Cores are those that compute all the time; rates are a second's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Size {
    /// Databases that emit, each with a relay and a stream of its own.
    pub emitting: f64,
    /// Databases that handle, each with a consumer.
    pub handling: f64,
    pub writer_cores: f64,
    pub relay_cores: f64,
    pub background_cores: f64,
    pub consumer_cores: f64,
    /// Of all nats-servers together.
    pub broker_cores: f64,
    /// Bytes a second, of all databases that emit.
    pub wal_emitting: f64,
    /// Bytes a second, of all databases that handle.
    pub wal_handling: f64,
    /// Bytes.
    pub outbox: f64,
    /// Bytes.
    pub inbox: f64,
    /// Bytes, all replicas together.
    pub streams: f64,
    /// Bytes a second, both ways.
    pub to_brokers: f64,
    /// Bytes a second, both ways.
    pub to_consumers: f64,
    /// Bytes a second.
    pub between_brokers: f64,
}

impl Size {
    /// Of a load, with everything in proportion to the number of events.
    pub fn of(costs: &Costs, load: &Load) -> Self {
        let each = |cost: Cost| costs.at(cost, load.replicas, load.payload_bytes);
        let emitted = |cost: Cost| load.rate * each(cost);
        let handled = |cost: Cost| load.rate * load.subscriptions * each(cost);
        let cores = |microseconds: f64| microseconds / 1e6;
        let databases = |rate: f64, of_one: Cost| (rate / (each(of_one) * load.share)).ceil();
        Self {
            emitting: databases(load.rate, Cost::RelayRate),
            handling: databases(load.rate * load.subscriptions, Cost::ConsumerRate),
            writer_cores: cores(emitted(Cost::WriterCpu)),
            relay_cores: cores(emitted(Cost::RelayCpu)),
            background_cores: cores(emitted(Cost::BackgroundCpu)),
            consumer_cores: cores(handled(Cost::ConsumerCpu)),
            broker_cores: cores(emitted(Cost::StoringCpu) + handled(Cost::DeliveringCpu)),
            wal_emitting: emitted(Cost::WriterWal) + emitted(Cost::RelayWal),
            wal_handling: handled(Cost::ConsumerWal),
            outbox: emitted(Cost::OutboxDisk) * load.outbox_retention * OUTBOX_EXCESS,
            inbox: handled(Cost::InboxDisk) * load.inbox_retention * INBOX_EXCESS,
            streams: emitted(Cost::StreamDisk) * load.stream_retention * load.replicas,
            to_brokers: emitted(Cost::Published) + emitted(Cost::Confirmed),
            to_consumers: handled(Cost::Delivered) + handled(Cost::Acknowledged),
            between_brokers: emitted(Cost::ReplicatedStoring) + handled(Cost::ReplicatedDelivering),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::measured::tests::costs;

    const LOAD: Load = Load {
        rate: 60_000.0,
        payload_bytes: 300.0,
        replicas: 3.0,
        subscriptions: 2.0,
        stream_retention: 100.0,
        outbox_retention: 10.0,
        inbox_retention: 10.0,
        share: 0.5,
    };

    fn assert_close(found: f64, wanted: f64) {
        assert!((found - wanted).abs() < 1e-6 * wanted, "{found} instead of {wanted}");
    }

    #[test]
    fn databases_follow_from_the_share_of_what_one_can_do() {
        // 100,000 a relay and 50,000 a consumer, of which half is planned with.
        let size = Size::of(&costs(), &LOAD);
        assert_eq!((size.emitting, size.handling), (2.0, 5.0));
        let size = Size::of(&costs(), &Load { share: 1.0, ..LOAD });
        assert_eq!((size.emitting, size.handling), (1.0, 3.0));
        let size = Size::of(&costs(), &Load { rate: 1.0, subscriptions: 0.0, ..LOAD });
        assert_eq!((size.emitting, size.handling), (1.0, 0.0));
    }

    #[test]
    fn everything_else_is_in_proportion() {
        // Each cost is 600 at three replicas and 300 bytes.
        let size = Size::of(&costs(), &LOAD);
        assert_close(size.writer_cores, 36.0);
        assert_close(size.broker_cores, 36.0 * 3.0);
        assert_close(size.consumer_cores, 72.0);
        assert_close(size.wal_emitting, 72e6);
        assert_close(size.streams, 36e6 * 100.0 * 3.0);
        assert_close(size.outbox, 36e6 * 10.0 * 1.25);
        assert_close(size.inbox, 72e6 * 10.0 * 1.5);
        assert_close(size.to_brokers, 72e6);
        assert_close(size.between_brokers, 36e6 * 3.0);
        let twice = Size::of(&costs(), &Load { rate: 120_000.0, ..LOAD });
        assert_close(twice.relay_cores, size.relay_cores * 2.0);
    }
}
