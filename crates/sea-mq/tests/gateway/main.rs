//! `sea-mq serve`, against real servers.

mod between;
mod command;
mod conduct;
mod console;
mod life;
mod monitoring;
mod parameters;
mod progress;
mod routes;
mod runbooks;
mod shared;
mod snapshots;
mod terminal;
mod top;
mod traces;
mod who;
