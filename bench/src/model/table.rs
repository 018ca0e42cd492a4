//! The sizes as a table in Markdown, as in `docs/scaling.md`.

use super::measured::Costs;
use super::size::{Load, Size};
use crate::figures::whole;

/// A line of the table: what it says, and of which size.
type Line = (&'static str, fn(&Size) -> String);

const LINES: [Line; 15] = [
    ("databases that emit, each with a relay and a stream", |size| whole(size.emitting)),
    ("databases that handle, each with a consumer", |size| whole(size.handling)),
    ("cores: sessions that emit", |size| cores(size.writer_cores)),
    ("cores: relays", |size| cores(size.relay_cores)),
    ("cores: PostgreSQL's background", |size| cores(size.background_cores)),
    ("cores: consumers", |size| cores(size.consumer_cores)),
    ("cores: all nats-servers together", |size| cores(size.broker_cores)),
    ("WAL, databases that emit", |size| a_second(size.wal_emitting)),
    ("WAL, databases that handle", |size| a_second(size.wal_handling)),
    ("disk: outbox", |size| bytes(size.outbox)),
    ("disk: inbox", |size| bytes(size.inbox)),
    ("disk: streams, all replicas together", |size| bytes(size.streams)),
    ("network: relays and brokers", |size| a_second(size.to_brokers)),
    ("network: brokers and consumers", |size| a_second(size.to_consumers)),
    ("network: between the brokers", |size| a_second(size.between_brokers)),
];

/// A column for each load.
pub fn markdown(costs: &Costs, columns: &[(Load, Size)]) -> String {
    let mut text = String::new();
    if let Some((load, _)) = columns.first() {
        let lines = if costs.is_measured(load.replicas, load.payload_bytes) { "measured" } else { "on the lines" };
        text.push_str(&format!(
            "Model: {} bytes, {} replicas, {} subscriptions; retention {} d, outbox {} d, inbox {} d; {:.0} % planned with; costs {lines}\n\n",
            whole(load.payload_bytes), load.replicas, load.subscriptions, days(load.stream_retention),
            days(load.outbox_retention), days(load.inbox_retention), load.share * 100.0
        ));
    }
    let heads: Vec<String> = columns.iter().map(|(load, _)| format!("{}/s", whole(load.rate))).collect();
    text.push_str(&format!("| Events | {} |\n|---|{}\n", heads.join(" | "), "---|".repeat(columns.len())));
    for (label, value) in LINES {
        let values: Vec<String> = columns.iter().map(|(_, size)| value(size)).collect();
        text.push_str(&format!("| {label} | {} |\n", values.join(" | ")));
    }
    text
}

fn cores(cores: f64) -> String {
    if cores < 10.0 { format!("{cores:.2}") } else { whole(cores) }
}

fn a_second(amount: f64) -> String {
    format!("{}/s", bytes(amount))
}

/// With three digits and a decimal unit.
fn bytes(amount: f64) -> String {
    let units = ["bytes", "kB", "MB", "GB", "TB", "PB"];
    let place =
        units.iter().enumerate().skip(1).take_while(|(place, _)| amount >= 1000_f64.powi(*place as i32)).count();
    let value = amount / 1000_f64.powi(place as i32);
    let decimals = if place == 0 || value >= 99.95 { 0 } else { 1 };
    format!("{value:.decimals$} {}", units[place])
}

fn days(seconds: f64) -> String {
    let days = format!("{:.2}", seconds / 86_400.0);
    days.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ModelOptions;
    use crate::model::measured::tests::costs;

    #[test]
    fn each_rate_is_a_column() {
        let options = "--rate 1000,60000 --payload 300 --outbox-retention 12h";
        let options = ModelOptions::parse(options.split(' ').map(str::to_owned)).unwrap();
        let columns: Vec<_> = options.loads.iter().map(|load| (*load, Size::of(&costs(), load))).collect();
        let text = markdown(&costs(), &columns);
        assert!(text.contains("retention 7 d, outbox 0.5 d"), "{text}");
        assert!(text.contains("costs measured"), "{text}");
        assert!(text.contains("| Events | 1,000/s | 60,000/s |\n|---|---|---|\n"), "{text}");
        assert!(text.contains("| databases that emit, each with a relay and a stream | 1 | 2 |\n"), "{text}");
        assert!(text.contains("| cores: sessions that emit | 0.60 | 36 |\n"), "{text}");
        assert_eq!(text.lines().count(), 2 + 2 + LINES.len());
    }

    #[test]
    fn amounts_have_units() {
        assert_eq!(bytes(999.0), "999 bytes");
        assert_eq!(bytes(1500.0), "1.5 kB");
        assert_eq!(bytes(123_456_789.0), "123 MB");
        assert_eq!(bytes(2.5e15), "2.5 PB");
    }
}
