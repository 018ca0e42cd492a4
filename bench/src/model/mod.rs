//! `sea-mq-bench model`: which databases, streams, cores, disks and network a load needs.
//!
//! It is a model: costs are taken to be in proportion to the number of events, with straight lines between the payloads and
//! the replicas that were measured and beyond them ([`measured`]). What [`size`] makes of them is a table ([`table`]). Not in
//! it: what the application's own statements and handlers cost, bursts, TCP and TLS, and what is idle.

mod measured;
mod options;
mod size;
mod table;

use std::fs;

use measured::Costs;
pub use options::{ModelOptions, USAGE};
use size::Size;

use crate::Outcome;

/// Reads the costs and prints the table.
///
/// # Errors
/// When there are none.
pub fn run(options: &ModelOptions) -> Outcome<()> {
    let path = options.costs.display();
    let text = fs::read_to_string(&options.costs).map_err(|error| {
        format!(
            "{path}: {error}; make bench ONLY=costs measures the costs and writes them into target/bench/results.json"
        )
    })?;
    let costs = Costs::parse(&text).map_err(|error| format!("{path}: {error}"))?;
    let columns: Vec<_> = options.loads.iter().map(|load| (*load, Size::of(&costs, load))).collect();
    print!("{}", table::markdown(&costs, &columns));
    Ok(())
}
