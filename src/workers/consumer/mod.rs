//! The consumer's process, and the handlers' beside it.
//!
//! - [`worker`]: the consumer's loop; [`reports`]: what the broker's side and the descriptions lead to
//! - sources: [`direct`] and [`stored`] take what the broker delivers, [`local`] reads this database's own log ([`chunk`]) where there
//!   is no broker, [`kept`] takes what waits in the inbox and is due; [`mirror`]: the dead letter queue's stream
//! - [`handled`] makes a task of it for each lane of a subscription, which the consumer does itself or gives to a process of the
//!   [`pool`], whose side are the [`handlers`]; [`task`] does it
//! - the way of a message from there on is [`sea_mq_model::pipeline`]; its shells are [`delivered`] and [`kept`], with [`attempt`]
//!   for both
//! - [`house`]: what is to be done now and then
//!
//! The main thread alone talks to PostgreSQL; `NatsIo`'s thread alone talks to NATS. No transaction is open while anything
//! waits for the network, and nothing is acknowledged before its commit is on disk.

mod attempt;
mod chunk;
mod delivered;
mod direct;
mod handled;
mod handlers;
mod house;
mod kept;
mod local;
mod mirror;
mod pool;
mod removals;
mod reports;
mod served;
mod stored;
mod task;
mod worker;

use pgrx::{pg_guard, pg_sys, warning};

use super::process;
use crate::host::seat::Life;
use worker::Worker;

#[unsafe(no_mangle)]
#[doc(hidden)]
#[pg_guard]
pub extern "C-unwind" fn sea_mq_consumer_main(arg: pg_sys::Datum) {
    process::run(arg, |process| match Worker::new(*process) {
        Ok(mut worker) => process::serve(process, &mut worker),
        Err(error) => {
            warning!("sea_mq consumer: cannot start its I/O thread: {error}");
            (Life::Failed, None)
        }
    });
}

#[unsafe(no_mangle)]
#[doc(hidden)]
#[pg_guard]
pub extern "C-unwind" fn sea_mq_handler_main(arg: pg_sys::Datum) {
    process::run(arg, |process| (handlers::run(process), None));
}
