//! The database: how it is reached, and how a request becomes one transaction of a role.

pub mod call;
pub mod config;
pub mod pool;
pub mod probe;
pub mod sqlstate;
