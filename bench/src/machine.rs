//! What the figures were measured on.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::{Outcome, say};

/// Processor, cores, load, and the versions of PostgreSQL's programs.
///
/// # Errors
/// When `SEA_MQ_PG_CONFIG` does not name an installation that has pgbench.
pub fn describe() -> Outcome<Value> {
    let cores = std::thread::available_parallelism()?.get();
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, model)| model);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: f64 = load.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0.0);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory =
        memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok());
    let gigabytes = memory.unwrap_or(0_u64) >> 20;
    let output = std::process::Command::new(pgbench()?).arg("--version").output()?;
    let pgbench = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    say(format!("{cores} cores ({model}), {gigabytes} GB, load {load}; {pgbench}"));
    if load > 0.3 * cores as f64 {
        say("the machine is busy with something else: the figures will be too bad");
    }
    Ok(json!({ "cores": cores, "processor": model, "memory_gb": gigabytes, "load_at_start": load, "pgbench": pgbench }))
}

/// pgbench of the installation under test.
///
/// # Errors
/// When `SEA_MQ_PG_CONFIG` is not set.
pub fn pgbench() -> Outcome<PathBuf> {
    let pg_config = std::env::var_os("SEA_MQ_PG_CONFIG").ok_or("SEA_MQ_PG_CONFIG is not set; use make bench")?;
    Ok(PathBuf::from(pg_config).with_file_name("pgbench"))
}
