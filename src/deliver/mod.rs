//! Deliveries to endpoints outside: endpoints as they are described, their secrets, and what the tables know of deliveries.

pub mod calls;
pub mod deliveries;
pub mod endpoints;
pub mod network;
pub mod vault;
