//! The extension in its server: settings, shared memory, sessions and transactions, locks, and the door to our own rights.

pub mod cause;
pub mod commits;
pub mod door;
pub mod exclusive;
pub mod failures;
pub mod gucs;
pub mod inquiry;
pub mod installation;
pub mod latency;
pub mod locks;
pub mod owed;
pub mod roles;
pub mod seat;
pub mod session;
pub mod settings;
pub mod shmem;
pub mod spi;
pub mod task_slot;
pub mod utility;
