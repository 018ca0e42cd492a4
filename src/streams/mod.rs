//! Streams and their consumers at the broker: as they are described, and as they were found.

pub mod consumers;
pub mod descriptions;
pub mod findings;
