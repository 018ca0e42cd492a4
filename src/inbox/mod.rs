//! The inbox: subscriptions, what waits and what is done, how handlers run, and dead letters.

pub mod dead_letters;
pub mod done;
pub mod handler;
pub mod subscriptions;
pub mod waiting;
