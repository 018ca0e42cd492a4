//! NATS JetStream: what the I/O thread does for the relay and the consumer, and the dispatcher's for endpoints of kind nats.
//!
//! ```text
//! main thread ── Request ──► io_thread ─► session ─┬─► streams, tail, consumers   (JetStream API, a lane a stream)
//!      ▲                                           ├─► publish ─► pump ─► socket  (pipelined, one inbox for all acks)
//!      │                                           │    acks ◄──────────────┤
//!      │                                           └─► pull ─► socket       │     (an inbox a subscription)
//!      └──── Report + wake_fd ◄──────────────────────── messages ◄──────────┘
//! ```
//!
//! - [`io_thread`]: waits for `Connect`, runs one session after the other, survives their panics.
//! - [`connect`]: addresses, credentials, TLS, and the proof that JetStream answers.
//! - [`witness`]: why the client library gave the connection up.
//! - [`session`]: everything that happens on one connection, in one task.
//! - [`publish`]: what is on its way, a [`flow`] per sink; pure, so that its order can be tested without a server.
//! - [`pull`]: one `Consume`, its messages in a [`ledger`] (pure, like [`delivery`] and [`succession`]), [`leftovers`] of an earlier session
//!   first; [`inbound`] is all of them, [`replies`] their acks.
//! - [`calls`], [`lease`], [`streams`], [`tail`], [`consumers`]: the JetStream API; [`spec`] and [`subjects`] compare descriptions.
//! - [`endpoint`]: deliveries to somebody else's broker, for the dispatcher; it has its own connections.
//! - [`errors`]: every error of the server and of the client library becomes a [`sea_mq_model::broker::Fault`] here.
//!
//! Nothing else imports `async_nats`.

mod ack;
mod api;
mod calls;
mod connect;
mod consumers;
mod delivery;
pub mod endpoint;
mod errors;
mod expiry;
mod flow;
mod inbound;
mod inbox;
mod io_thread;
mod lease;
mod ledger;
mod leftovers;
mod publish;
mod pull;
mod queued;
mod replies;
mod session;
mod sizes;
mod spec;
mod streams;
mod subjects;
mod succession;
mod tail;
mod watch;
mod witness;

use sea_mq_model::broker::{Report, Request};

use crate::handle::Handle;
use io_thread::Reporter;

/// The main thread's handle to the thread that talks to NATS.
pub type NatsIo = Handle<Request, Report>;

/// Starts the thread. It does nothing until it is told to connect.
///
/// # Errors
/// What the system says if there is no room for another thread or file descriptor.
pub fn spawn() -> std::io::Result<NatsIo> {
    Handle::spawn("sea_mq nats", |requests, outbox| io_thread::run(requests, &Reporter::new(outbox)))
}
