//! From the log to endpoints outside: what is sent when, and what follows from the answers. `docs/endpoints.md` has the states
//! and the table of outcomes.
//!
//! * [`outcome`]: what an answer means for the delivery and for the endpoint;
//! * [`schedule`], [`window`], [`rate`], [`health`], [`order`]: when the next attempt may be made;
//! * [`endpoint`]: all of it for one endpoint; [`rotation`]: whose turn it is;
//! * [`ledger`]: how far an endpoint has come in the log while answers come in any order;
//! * [`body`], [`signature`]: what is sent; [`message`], [`place`]: the same to a broker;
//! * [`calls`]: services that handle messages of the inbox.

pub mod body;
pub mod calls;
pub mod endpoint;
pub mod health;
pub mod ledger;
pub mod message;
pub mod order;
pub mod outcome;
pub mod place;
pub mod rate;
pub mod rotation;
pub mod schedule;
pub mod signature;
#[cfg(test)]
mod simulation;
pub mod window;
