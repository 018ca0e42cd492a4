//! `sea-mq serve`, against real servers.

mod command;
mod conduct;
mod console;
mod life;
mod monitoring;
mod routes;
mod shared;
mod who;
