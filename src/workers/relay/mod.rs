//! The relay's process.
//!
//! This thread alone talks to PostgreSQL; `NatsIo`'s thread alone talks to NATS. No transaction is open while anything
//! waits for the network.

mod beside;
mod effects;
mod pass;
mod verify;
mod worker;

use pgrx::{pg_guard, pg_sys, warning};

use super::{library, process};
use crate::host::seat::Life;
use worker::Worker;

#[unsafe(no_mangle)]
#[doc(hidden)]
#[pg_guard]
pub extern "C-unwind" fn sea_mq_relay_main(arg: pg_sys::Datum) {
    process::run(arg, |process| match Worker::new(*process) {
        Ok(mut worker) => {
            library::say_if_it_differs();
            process::serve(process, &mut worker)
        }
        Err(error) => {
            warning!("sea_mq relay: cannot start its I/O thread: {error}");
            (Life::Failed, None)
        }
    });
}
