//! The dead letter queue's stream, mirrored into `sea_mq.dlq_messages`: what other services put there, and where our own
//! dead letters are.

use std::time::Duration;

use super::worker::Worker;
use crate::host::session::{self, Failed};
use crate::inbox::dead_letters::{self, MirroredStream};
use crate::inbox::handler;
use pgrx::warning;
use uuid::Uuid;

use sea_mq_model::broker::{ConsumerSpec, DeliverFrom, Delivery};
use sea_mq_model::consume::intake::Described;
use sea_mq_model::domain::message::Message;
use sea_mq_model::pipeline::Lane;

/// Durable name of the mirror's consumer on a DLQ stream.
const NAME: &str = "sea_mq__dlq_mirror";
const WINDOW: usize = 256;

/// What the broker's side has to know of a mirrored stream. Its number is below zero: those of subscriptions are above.
pub(super) fn described(stream: MirroredStream, owner: Uuid) -> Described {
    Described {
        id: stream.sink | i64::MIN,
        spec: ConsumerSpec {
            stream: stream.name,
            name: NAME.into(),
            filter_subject: String::new(),
            ack_wait: Duration::from_secs(30),
            max_deliver: -1,
            max_ack_pending: 1000,
            fewer_pending: true,
            deliver_from: DeliverFrom::All,
            owner,
            take_over: false,
            with_stream: true,
            resume: None,
        },
        window: WINDOW,
        held: false,
    }
}

impl Worker {
    /// Notes what DLQ streams have delivered. Returns whether there may be more.
    pub(super) fn serve_mirror(&mut self) -> Result<bool, Failed> {
        let mut taken = Vec::new();
        for intake in self.consumer.intakes.iter_mut().filter(|intake| intake.id() < 0) {
            let some = intake.take(Lane::ONLY, WINDOW, usize::MAX);
            if !some.deliveries.is_empty() {
                taken.push((intake.id(), intake.described().spec.stream.clone(), some));
            }
        }
        let any = !taken.is_empty();
        for (id, stream, some) in taken {
            session::transaction(|| some.deliveries.iter().for_each(|delivery| note(&stream, delivery)))?;
            let count = some.deliveries.len();
            let done = self.consumer.intake(id).map(|intake| intake.settle(some, count)).unwrap_or_default();
            self.acknowledge(id, done.into_iter().map(|delivery| delivery.token).collect());
        }
        Ok(any)
    }
}

/// Notes a message. One that PostgreSQL cannot store as it is keeps its place as text.
fn note(stream: &str, delivery: &Delivery) {
    let mut message = Message::from_delivery(delivery, stream);
    let Some(failure) = handler::savepoint(|| dead_letters::mirror(stream, delivery.sequence, &message)) else {
        return;
    };
    message.refuse_payload(&failure.message);
    if let Some(failure) = handler::savepoint(|| dead_letters::mirror(stream, delivery.sequence, &message)) {
        warning!(
            "sea_mq consumer: dead letter {} of stream {stream} cannot be read: {}",
            delivery.sequence,
            failure.message
        );
    }
}
