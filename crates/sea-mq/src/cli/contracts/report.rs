//! What the command prints.

use std::io::Write;
use std::path::Path;

use sea_mq_contracts::compare::Difference;
use sea_mq_contracts::lint::{Finding, Severity};
use sea_mq_contracts::set::ContractSet;
use serde_json::{Value, json};

use super::release::Release;

/// Whoever reads may stop reading.
pub fn print(text: &str) -> Result<(), String> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(format!("cannot write: {error}")),
        _ => Ok(()),
    }
}

pub fn findings(directory: &Path, set: &ContractSet, findings: &[Finding], release: &Release) -> String {
    let mut text = String::new();
    for finding in findings {
        let path = directory.join(&finding.path);
        let (severity, rule) = (finding.severity.as_str(), finding.rule);
        text.push_str(&format!("{}: {severity}[{rule}]: {}\n    {}\n", path.display(), finding.message, finding.hint));
    }
    text.push_str(&match release {
        Release::Known { name, .. } => format!("Compared with the release {name}.\n"),
        Release::Unknown(why) => format!("Whether released schemas are unchanged was not checked: {why}.\n"),
    });
    let errors = count(findings, Severity::Error);
    let (schemas, examples) = (set.schemas.len(), set.examples.len());
    text + &format!(
        "{schemas} schemas, {examples} example files: {errors} errors, {} warnings\n",
        findings.len() - errors
    )
}

pub fn findings_json(set: &ContractSet, findings: &[Finding], release: &Release) -> String {
    let (name, why) = match release {
        Release::Known { name, .. } => (Some(name), None),
        Release::Unknown(why) => (None, Some(why)),
    };
    let list = findings.iter().map(|one| {
        let severity = one.severity.as_str();
        json!({"rule": one.rule, "severity": severity, "path": one.path, "message": one.message, "hint": one.hint})
    });
    let errors = count(findings, Severity::Error);
    line(&json!({
        "findings": list.collect::<Vec<_>>(),
        "errors": errors,
        "warnings": findings.len() - errors,
        "schemas": set.schemas.len(),
        "examples": set.examples.len(),
        "release": name,
        "release_unknown": why,
    }))
}

pub fn differences(differences: &[Difference]) -> String {
    let lines: Vec<String> = differences.iter().map(|one| format!("{one}\n")).collect();
    let breaking = differences.iter().filter(|one| one.is_breaking()).count();
    lines.concat() + &format!("{} differences, {breaking} breaking\n", differences.len())
}

pub fn differences_json(differences: &[Difference]) -> String {
    let list = differences
        .iter()
        .map(|one| json!({"pointer": one.pointer, "change": one.change, "compatibility": one.compatibility.as_str()}));
    let breaking = differences.iter().any(Difference::is_breaking);
    line(&json!({"differences": list.collect::<Vec<_>>(), "breaking": breaking}))
}

fn count(findings: &[Finding], severity: Severity) -> usize {
    findings.iter().filter(|finding| finding.severity == severity).count()
}

fn line(value: &Value) -> String {
    format!("{value}\n")
}
