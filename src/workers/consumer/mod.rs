//! The consumer's process, and the handlers' beside it.
//!
//! - [`worker`]: the consumer's loop; [`reports`]: what the broker's side and the descriptions lead to
//! - [`direct`]: messages that are handled as they come; [`stored`]: those that wait in the table first; [`local`]: events
//!   of this database's own log, where there is no broker; [`mirror`]: the dead letter queue's stream
//! - [`waiting`]: what waits in the table and is due; [`attempt`]: one attempt, or a batch of them
//! - [`house`]: what is to be done now and then; [`handlers`]: the parallel processes
//!
//! The main thread alone talks to PostgreSQL; `NatsIo`'s thread alone talks to NATS. No transaction is open while anything
//! waits for the network, and nothing is acknowledged before its commit is on disk.

mod attempt;
mod direct;
mod handlers;
mod house;
mod local;
mod mirror;
mod removals;
mod reports;
mod served;
mod stored;
mod waiting;
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
            Life::Failed
        }
    });
}

#[unsafe(no_mangle)]
#[doc(hidden)]
#[pg_guard]
pub extern "C-unwind" fn sea_mq_handler_main(arg: pg_sys::Datum) {
    process::run(arg, handlers::run);
}
