//! The functions that SQL calls: parse, hand over, return. Their declarations and comments are in `sql/`.

mod check_endpoint;
mod contracts;
mod door;
pub mod emit;
mod endpoints;
mod inbox;
mod lint;
mod manage;
mod metrics;
mod operate;
mod verify;
