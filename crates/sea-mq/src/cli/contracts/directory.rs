//! A set of contracts in a directory of the file system.

use std::fs;
use std::path::Path;

use sea_mq_contracts::set::{ContractSet, is_schema_path};
use serde_json::Value;

/// Reads all of a directory. Hidden files and links to directories are left out.
pub fn read(directory: &Path) -> Result<ContractSet, String> {
    let mut set = ContractSet::default();
    read_into(&mut set, directory, "")?;
    Ok(set)
}

fn read_into(set: &mut ContractSet, directory: &Path, prefix: &str) -> Result<(), String> {
    let said = |error: std::io::Error| format!("cannot read {}: {error}", directory.display());
    for entry in fs::read_dir(directory).map_err(said)? {
        let entry = entry.map_err(said)?;
        let name = entry.file_name();
        let name = name.to_str().ok_or_else(|| format!("{} is not UTF-8", entry.path().display()))?;
        if name.starts_with('.') {
            continue;
        }
        let path = format!("{prefix}{name}");
        if entry.file_type().map_err(said)?.is_dir() {
            read_into(set, &entry.path(), &format!("{path}/"))?;
        } else if path.ends_with(".json") {
            let content = fs::read(entry.path());
            set.add(&path, &content.map_err(|error| format!("cannot read {}: {error}", entry.path().display()))?);
        }
    }
    Ok(())
}

/// Writes a schema unless the file says the same already, however that is written. Says what was done.
pub fn write(directory: &Path, path: &str, schema: &Value) -> Result<&'static str, String> {
    let file = directory.join(path);
    let said = |error: &dyn std::fmt::Display| format!("cannot write {}: {error}", file.display());
    // The path comes from the database.
    if !is_schema_path(path) {
        return Err(said(&"that is no place for a schema"));
    }
    let present = fs::read(&file).ok();
    let same = |content: &Vec<u8>| serde_json::from_slice::<Value>(content).is_ok_and(|present| present == *schema);
    if present.as_ref().is_some_and(same) {
        return Ok("unchanged");
    }
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).map_err(|error| said(&error))?;
    }
    let text = serde_json::to_string_pretty(schema).map_err(|error| said(&error))?;
    fs::write(&file, text + "\n").map_err(|error| said(&error))?;
    Ok(if present.is_some() { "changed" } else { "written" })
}
