//! The dispatcher's process: delivers events to endpoints outside.
//!
//! This thread alone talks to PostgreSQL; `HttpIo`'s thread alone talks to endpoints. No transaction is open while anything
//! waits for the network.
//!
//! ```text
//! log ─► read, rendered once for all ─► model: who, when ─► I/O thread ─► answers ─► recorded together
//!                                        ▲ delivery_pending: what is tried again, with its bytes
//! ```

mod calling;
mod calls;
mod pass;
mod passing_over;
mod reading;
mod recording;
mod served;
mod worker;

use pgrx::{pg_guard, pg_sys};

use super::process;
use crate::host::session;
use worker::Worker;

#[unsafe(no_mangle)]
#[doc(hidden)]
#[pg_guard]
pub extern "C-unwind" fn sea_mq_dispatcher_main(arg: pg_sys::Datum) {
    process::run(arg, |process| {
        session::finish_transactions();
        let mut worker = Worker::new(*process);
        let (next, rest) = process::serve(process, &mut worker);
        (worker.after(next), rest)
    });
}
