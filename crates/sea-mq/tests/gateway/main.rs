//! `sea-mq serve`, against real servers.

mod conduct;
mod life;
mod routes;
mod shared;
mod who;
