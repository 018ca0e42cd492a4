//! The official JSON-Schema-Test-Suite, draft 2020-12, its required tests, through what `sea_mq.register_event` compiles
//! schemas with.
//!
//! Environment: `SEA_MQ_JSON_SCHEMA_SUITE`, the suite's directory; scripts/setup.sh fetches it, scripts/lib.sh sets it.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use sea_mq_contracts::schema::Schema;
use serde_json::Value;

/// Where the suite says that its `remotes` are served.
const REMOTES: &str = "http://localhost:1234/";

/// The URI that a schema of the suite is registered under. Those that name their own have `$id`.
const OWN_URI: &str = "sea-mq:/schemas/events/suite/test.v1.schema.json";

/// What does not pass, as the suite names it (file, group, test; `*`: all of the group), and why.
const KNOWN: &[(&str, &str, &str, &str)] = &[
    (
        "vocabulary",
        "schema that uses custom metaschema with with no validation vocabulary",
        "*",
        "a schema whose $schema names another dialect is refused",
    ),
    (
        "vocabulary",
        "ignore unrecognized optional vocabulary",
        "*",
        "a schema whose $schema names another dialect is refused",
    ),
];

struct Tally {
    groups: usize,
    tests: usize,
    /// File, group and test of each that gave another answer than the suite's.
    failed: Vec<(String, String, String)>,
}

#[test]
fn the_required_tests_of_draft_2020_12_pass() {
    let suite = suite();
    let remotes = remotes(&suite.join("remotes"));
    let mut tally = Tally { groups: 0, tests: 0, failed: Vec::new() };
    for file in json_files(&suite.join("tests/draft2020-12")) {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        for group in json(&file).as_array().expect("a file of the suite is an array of groups") {
            run(&name, group, &remotes, &mut tally);
        }
    }
    eprintln!(
        "JSON-Schema-Test-Suite, draft 2020-12, required: {} groups, {} tests, {} passed",
        tally.groups,
        tally.tests,
        tally.tests - tally.failed.len()
    );
    assert!(tally.tests > 1000, "the suite has far more: is {} the whole of it?", suite.display());
    let known = |(file, group, test): &(String, String, String)| {
        KNOWN.iter().any(|(f, g, t, _)| f == file && g == group && (*t == "*" || t == test))
    };
    let unknown: Vec<_> = tally.failed.iter().filter(|failed| !known(failed)).collect();
    assert!(unknown.is_empty(), "these do not pass: {unknown:#?}");
    for (file, group, test, reason) in KNOWN {
        let fails = tally.failed.iter().any(|(f, g, t)| f == file && g == group && (*test == "*" || t == test));
        assert!(fails, "{file}, {group}, {test} passes: it is no longer true that {reason}");
    }
}

/// One schema with its tests. A schema that does not compile fails all of them.
fn run(file: &str, group: &Value, remotes: &HashMap<String, Value>, tally: &mut Tally) {
    let described = |of: &Value| of["description"].as_str().expect("everything is described").to_owned();
    let schema = Schema::compile(&group["schema"], OWN_URI, |uri| remotes.get(uri).cloned());
    tally.groups += 1;
    for test in group["tests"].as_array().expect("a group has tests") {
        tally.tests += 1;
        let passed = match &schema {
            Ok(schema) => schema.violations(&test["data"]).is_empty() == test["valid"],
            Err(_) => false,
        };
        if !passed {
            tally.failed.push((file.to_owned(), described(group), described(test)));
        }
    }
}

fn suite() -> PathBuf {
    std::env::var_os("SEA_MQ_JSON_SCHEMA_SUITE").map(PathBuf::from).expect(
        "SEA_MQ_JSON_SCHEMA_SUITE is not set: the tests are run by scripts/test.sh, after scripts/setup.sh has fetched the suite",
    )
}

/// All schemas that the suite serves, by URI.
fn remotes(directory: &Path) -> HashMap<String, Value> {
    let mut found = HashMap::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(next) = directories.pop() {
        directories.extend(entries(&next).into_iter().filter(|path| path.is_dir()));
        for file in json_files(&next) {
            let place = file.strip_prefix(directory).unwrap().to_string_lossy();
            found.insert(format!("{REMOTES}{place}"), json(&file));
        }
    }
    found
}

fn json_files(directory: &Path) -> Vec<PathBuf> {
    entries(directory).into_iter().filter(|path| path.extension().is_some_and(|end| end == "json")).collect()
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let read = fs::read_dir(directory)
        .unwrap_or_else(|error| panic!("{}: {error}; scripts/setup.sh fetches the suite", directory.display()));
    let mut paths: Vec<PathBuf> = read.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn json(file: &Path) -> Value {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}
