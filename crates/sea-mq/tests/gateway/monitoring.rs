//! Alerts and the dashboard name metrics that exist, and runbooks that exist.

use std::collections::BTreeSet;

use crate::shared::{ask, shared};

fn file(name: &str) -> String {
    std::fs::read_to_string(format!("{}/../../{name}", env!("CARGO_MANIFEST_DIR")))
        .unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Names of metrics in a text.
fn named(text: &str) -> BTreeSet<&str> {
    text.split(|character: char| !character.is_ascii_alphanumeric() && character != '_')
        .filter(|word| word.starts_with("sea_mq_"))
        .collect()
}

fn existing() -> BTreeSet<String> {
    let mut db = shared().db();
    db.batch_execute("INSERT INTO sea_mq.dlq_messages (context, original_subject, subscription, payload, headers, reason, failure_count, dlq_message_id)
        VALUES ('orders', 'orders.event.made.v1', 'monitoring__s', '{}', '{}', 'poison', 1, 'monitoring') ON CONFLICT DO NOTHING;
        SET ROLE t_consumer; SELECT sea_mq.subscribe('monitoring__s', 'elsewhere');").expect("made");
    let text = ask("GET", &format!("{}/metrics", shared().admin_url), &[], None).text;
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(['{', ' ']).next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn alerts_and_dashboard_ask_for_metrics_that_exist() {
    let existing = existing();
    for name in ["monitoring/sea_mq.rules.yml", "monitoring/grafana.json"] {
        let text = file(name);
        let queries: String = text.lines().filter(|line| line.contains("sea_mq_")).collect::<Vec<_>>().join("\n");
        let missing: Vec<&str> = named(&queries).into_iter().filter(|metric| !existing.contains(*metric)).collect();
        assert!(missing.is_empty(), "{name}: {missing:?}");
    }
    let documented = file("docs/metrics.md");
    let undocumented: Vec<&String> = existing
        .iter()
        .filter(|name| {
            let family = ["_bucket", "_count", "_sum"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            !documented.contains(&format!("`{family}`"))
        })
        .collect();
    assert!(undocumented.is_empty(), "{undocumented:?}");
}

#[test]
fn every_alert_has_its_section_in_a_runbook() {
    let rules = file("monitoring/sea_mq.rules.yml");
    let urls: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("runbook_url: ")).collect();
    assert_eq!(urls.len(), rules.matches("- alert:").count());
    for url in urls {
        let (path, anchor) = url.split_once('#').expect("an anchor");
        let sections =
            file(path).lines().filter_map(|line| Some(line.strip_prefix("## ")?.to_lowercase())).collect::<Vec<_>>();
        assert!(sections.iter().any(|section| section == anchor), "{url}");
    }
}

#[test]
fn the_rules_fire_when_they_should() {
    let promtool = format!("{}/../../.dev/prometheus/usr/bin/promtool", env!("CARGO_MANIFEST_DIR"));
    let directory = format!("{}/../../monitoring", env!("CARGO_MANIFEST_DIR"));
    for arguments in [["check", "rules", "sea_mq.rules.yml"], ["test", "rules", "sea_mq.rules.test.yml"]] {
        let output = std::process::Command::new(&promtool)
            .args(arguments)
            .current_dir(&directory)
            .output()
            .expect("make setup installs promtool");
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{arguments:?}: {}{}", said(&output.stdout), said(&output.stderr));
    }
}
