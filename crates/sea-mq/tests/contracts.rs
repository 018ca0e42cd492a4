//! `sea-mq contracts` as it is run: on directories, and on git repositories of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

/// A directory for one test, removed when the test has passed.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("sea-mq-contracts-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn write(&self, path: &str, content: &Value) -> &Self {
        let file = self.0.join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, content.to_string()).unwrap();
        self
    }

    fn remove(&self, path: &str) {
        fs::remove_file(self.0.join(path)).unwrap();
    }

    /// Whatever the user's own configuration says.
    fn git(&self, arguments: &[&str]) -> &Self {
        let output = Command::new("git")
            .args(["-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false"])
            .args(arguments)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .current_dir(&self.0)
            .output()
            .unwrap();
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        self
    }

    fn commit(&self, tag: Option<&str>) -> &Self {
        self.git(&["add", "-A"]).git(&["commit", "-q", "--allow-empty", "-m", "as it is"]);
        if let Some(tag) = tag {
            self.git(&["tag", tag]);
        }
        self
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sea-mq"));
        // A repository around the directory for temporary files is none of the test's.
        command.env("GIT_CEILING_DIRECTORIES", self.0.parent().unwrap());
        command.arg("contracts").args(arguments).current_dir(&self.0).output().unwrap()
    }

    /// Exit status and JSON of `lint --format json`.
    fn lint(&self, arguments: &[&str]) -> (i32, Value) {
        let output = self.run(&[&["lint", "--format", "json"], arguments].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{said}"));
        (output.status.code().unwrap(), report)
    }

    /// Rule and path of each finding.
    fn findings(&self, arguments: &[&str]) -> Vec<(String, String)> {
        let (_, report) = self.lint(arguments);
        let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
        report["findings"].as_array().unwrap().iter().map(|one| (text(one, "rule"), text(one, "path"))).collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

fn immutable(path: &str) -> Vec<(String, String)> {
    vec![("immutable".into(), path.into())]
}

#[test]
fn a_clean_directory_is_clean_and_says_what_was_not_checked() {
    let scratch = Scratch::new();
    scratch.write("events/orders/paid.v1.schema.json", &json!({"type": "object"}));
    let (status, report) = scratch.lint(&["events"]);
    assert_eq!((status, &report["errors"], &report["schemas"]), (0, &json!(0), &json!(1)));
    assert!(report["release_unknown"].as_str().unwrap().contains("git"), "{report}");
    let human = scratch.run(&["lint", "events"]);
    assert!(String::from_utf8_lossy(&human.stdout).contains("not checked"));
}

#[test]
fn findings_are_printed_with_their_files_and_make_the_exit_status_1() {
    let scratch = Scratch::new();
    scratch.write("events/orders/paid.v1.schema.json", &json!({"type": "strnig"}));
    let output = scratch.run(&["lint", "events"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.starts_with("events/orders/paid.v1.schema.json: error[schema]: "), "{text}");
}

#[test]
fn what_cannot_be_run_has_the_exit_status_2() {
    let scratch = Scratch::new();
    scratch.write("events/orders/paid.v1.schema.json", &json!({}));
    for arguments in [
        &["lint", "nowhere"][..],
        &["lint", "events", "--release", "nowhere"],
        &["lint", "events", "--release", "--output=x"],
        &["lint"],
        &["compare", "events/orders/paid.v1.schema.json", "nowhere.json"],
        &["import", "events", "--connection", "postgresql://nobody@127.0.0.1:1/none"],
        &["export", "elsewhere", "--connection", "postgresql://nobody@127.0.0.1:1/none"],
    ] {
        let output = scratch.run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn what_the_last_tag_has_stays_as_it_is() {
    let scratch = Scratch::new();
    let (paid, sent) = ("orders/paid.v1.schema.json", "orders/sent.v1.schema.json");
    scratch.git(&["init", "-q"]).commit(Some("before"));
    scratch.write(&format!("events/{paid}"), &json!({"type": "integer"}));
    scratch.write(&format!("events/{sent}"), &json!({"type": "integer"})).commit(Some("v1"));
    assert_eq!(scratch.lint(&["events"]).1["release"], "v1");
    scratch.write(&format!("events/{paid}"), &json!({"type": "number"}));
    assert_eq!(scratch.findings(&["events"]), immutable(paid));
    assert_eq!(scratch.findings(&["events", "--release", "HEAD"]), immutable(paid));
    // Also when it is committed, from within the directory, and seen against a directory.
    scratch.commit(None);
    assert_eq!(scratch.findings(&["events"]), immutable(paid));
    assert_eq!(scratch.findings(&["events", "--release", "HEAD"]), []);
    scratch.write(&format!("old/{paid}"), &json!({"type": "string"}));
    assert_eq!(scratch.findings(&["events", "--release", "old"]), immutable(paid));
    scratch.write(&format!("events/{paid}"), &json!({"type": "integer", "description": "says more"}));
    scratch.remove(&format!("events/{sent}"));
    assert_eq!(scratch.findings(&["events"]), immutable(sent));
    // A later tag that does not have the directory changes nothing.
    scratch.git(&["rm", "-q", "-r", "--cached", "events"]).git(&["commit", "-q", "-m", "gone"]).git(&["tag", "v2"]);
    assert_eq!(scratch.lint(&["events"]).1["release"], "v1");
    assert_eq!(scratch.lint(&["events", "--release", "v1"]).0, 1);
    assert_eq!(scratch.run(&["lint", "events", "--release", "v2"]).status.code(), Some(2));
}

#[test]
fn a_repository_may_be_the_directory() {
    let scratch = Scratch::new();
    let paid = "orders/paid.v1.schema.json";
    scratch.write(paid, &json!({"type": "integer"})).write(".hidden/x.json", &json!(1));
    scratch.git(&["init", "-q"]).commit(Some("v1"));
    assert_eq!(scratch.lint(&["."]), (0, scratch.lint(&["."]).1));
    scratch.remove(paid);
    assert_eq!(scratch.findings(&["."]), immutable(paid));
}

#[test]
fn two_schemas_are_compared() {
    let scratch = Scratch::new();
    scratch.write("old.json", &json!({"type": "integer", "title": "a"})).write("new.json", &json!({"type": "number"}));
    let forth = scratch.run(&["compare", "old.json", "new.json", "--format", "json"]);
    let report: Value = serde_json::from_slice(&forth.stdout).unwrap();
    assert_eq!((forth.status.code(), &report["breaking"]), (Some(1), &json!(true)));
    assert_eq!(report["differences"][0]["pointer"], "/type");
    assert_eq!(report["differences"][0]["compatibility"], "breaking");
    let back = scratch.run(&["compare", "new.json", "old.json"]);
    assert_eq!(back.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&back.stdout).contains("compatible /type: type number is no longer allowed"));
}

#[test]
fn each_part_has_a_help() {
    let scratch = Scratch::new();
    for part in
        [&["--help"][..], &["lint", "--help"], &["compare", "--help"], &["import", "--help"], &["export", "--help"]]
    {
        let output = scratch.run(part);
        assert!(output.status.success() && output.stdout.len() > 200, "{part:?}");
    }
}

/// What this repository shows its users.
#[test]
fn the_schemas_of_this_repository_are_clean() {
    let schemas = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../schemas/events"));
    let (status, report) = Scratch::new().lint(&[&schemas.display().to_string()]);
    assert_eq!((status, &report["findings"]), (0, &json!([])));
    assert!(report["schemas"].as_u64() >= Some(1) && report["examples"].as_u64() >= Some(1), "{report}");
}
