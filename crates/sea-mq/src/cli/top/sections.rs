//! The tables: what is asked, what is shown of it, and in which order.

use std::cmp::Ordering;

use serde_json::Value;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    Count,
    /// A number a second.
    Rate,
    Seconds,
}

pub struct Column {
    pub name: &'static str,
    pub head: &'static str,
    pub kind: Kind,
}

const fn column(name: &'static str, head: &'static str, kind: Kind) -> Column {
    Column { name, head, kind }
}

pub struct Section {
    pub title: &'static str,
    pub query: &'static str,
    /// The first is the name, the second the state.
    pub columns: &'static [Column],
    /// Counters, and what they are called as rates.
    pub rates: &'static [(&'static str, &'static str)],
    /// States in which all is well.
    pub well: &'static [&'static str],
}

pub const SECTIONS: [Section; 3] = [
    Section {
        title: "STREAMS",
        query: "SELECT s.stream, s.state, s.pending, s.published, s.losses, extract(epoch FROM clock_timestamp() - s.oldest_pending_at) AS oldest
            FROM sea_mq.stream_overview s",
        columns: &[
            column("stream", "NAME", Kind::Text),
            column("state", "STATE", Kind::Text),
            column("rate", "PUB/S", Kind::Rate),
            column("pending", "PENDING", Kind::Count),
            column("oldest", "OLDEST", Kind::Seconds),
            column("published", "PUBLISHED", Kind::Count),
            column("losses", "LOSSES", Kind::Count),
        ],
        rates: &[("published", "rate")],
        well: &["ready", "pending"],
    },
    Section {
        title: "SUBSCRIPTIONS",
        query: "SELECT s.subscription, s.state, s.pending, s.received + s.processing AS inbox, s.retrying, s.processed, s.failures, s.dead,
                extract(epoch FROM clock_timestamp() - s.oldest_waiting_at) AS oldest
            FROM sea_mq.subscription_overview s",
        columns: &[
            column("subscription", "NAME", Kind::Text),
            column("state", "STATE", Kind::Text),
            column("rate", "DONE/S", Kind::Rate),
            column("pending", "PENDING", Kind::Count),
            column("oldest", "OLDEST", Kind::Seconds),
            column("dead", "DEAD", Kind::Count),
            column("retrying", "RETRYING", Kind::Count),
            column("failure_rate", "FAIL/S", Kind::Rate),
            column("inbox", "INBOX", Kind::Count),
        ],
        rates: &[("processed", "rate"), ("failures", "failure_rate")],
        well: &["active", "pending", "paused"],
    },
    Section {
        title: "ENDPOINTS",
        query: "SELECT e.endpoint, e.state, e.lag AS pending, e.in_flight, e.retrying, e.delivered, e.failed, e.p99,
                extract(epoch FROM clock_timestamp() - e.oldest_undelivered_at) AS oldest
            FROM sea_mq.endpoint_status e",
        columns: &[
            column("endpoint", "NAME", Kind::Text),
            column("state", "STATE", Kind::Text),
            column("rate", "SENT/S", Kind::Rate),
            column("pending", "PENDING", Kind::Count),
            column("oldest", "OLDEST", Kind::Seconds),
            column("in_flight", "FLYING", Kind::Count),
            column("retrying", "RETRYING", Kind::Count),
            column("failed", "GIVEN UP", Kind::Count),
        ],
        rates: &[("delivered", "rate")],
        well: &["active", "pending", "paused"],
    },
];

/// By what rows are ordered: columns that every section has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Name,
    Rate,
    Pending,
    Oldest,
}

impl Order {
    pub fn next(self) -> Self {
        match self {
            Self::Name => Self::Rate,
            Self::Rate => Self::Pending,
            Self::Pending => Self::Oldest,
            Self::Oldest => Self::Name,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Rate => "rate",
            Self::Pending => "pending",
            Self::Oldest => "oldest",
        }
    }

    /// The column of a section that it is about.
    pub fn place(self) -> usize {
        match self {
            Self::Name => 0,
            Self::Rate => 2,
            Self::Pending => 3,
            Self::Oldest => 4,
        }
    }
}

/// Names from A on, numbers from the greatest; the other way round if that is wanted. Rows alike stay in the order of their names.
pub fn sort(section: &Section, rows: &mut [Value], order: Order, reversed: bool) {
    let name = |row: &Value| row[section.columns[0].name].as_str().unwrap_or_default().to_owned();
    let number = |row: &Value| row[section.columns[order.place()].name].as_f64().unwrap_or(-1.0);
    rows.sort_by(|a, b| {
        let found = match order {
            Order::Name => name(a).cmp(&name(b)),
            _ => number(b).total_cmp(&number(a)),
        };
        let found = if reversed { found.reverse() } else { found };
        if found == Ordering::Equal { name(a).cmp(&name(b)) } else { found }
    });
}

pub fn cell(kind: Kind, value: &Value) -> String {
    match (kind, value.as_f64()) {
        (Kind::Rate, Some(number)) if number > 0.0 && number < 10.0 => format!("{number:.1}"),
        (Kind::Rate | Kind::Count, Some(number)) => grouped(number),
        (Kind::Seconds, Some(number)) => seconds(number),
        (Kind::Text, _) => value.as_str().unwrap_or("-").to_owned(),
        (_, None) => "-".into(),
    }
}

/// With commas between thousands.
fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let length = digits.len();
    let comma = |(at, digit): (usize, char)| {
        let before = at > 0 && (length - at).is_multiple_of(3) && digits.as_bytes()[at - 1] != b'-';
        before.then_some(',').into_iter().chain(std::iter::once(digit))
    };
    digits.chars().enumerate().flat_map(comma).collect()
}

/// The two greatest units, or fewer.
fn seconds(number: f64) -> String {
    let whole = number.max(0.0) as u64;
    match whole {
        0..60 => format!("{whole}s"),
        60..3600 => format!("{}m{:02}s", whole / 60, whole % 60),
        3600..86_400 => format!("{}h{:02}m", whole / 3600, whole / 60 % 60),
        _ => format!("{}d{:02}h", whole / 86_400, whole / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_greatest_come_first_and_names_decide_between_equals() {
        let rows = || {
            vec![
                json!({"stream": "B", "pending": 5, "rate": 1.0}),
                json!({"stream": "A", "pending": 5}),
                json!({"stream": "C", "pending": 900, "rate": 9.0}),
            ]
        };
        let sorted = |order, reversed| {
            let mut rows = rows();
            sort(&SECTIONS[0], &mut rows, order, reversed);
            rows.iter().map(|row| row["stream"].as_str().expect("a name").to_owned()).collect::<String>()
        };
        assert_eq!(sorted(Order::Name, false), "ABC");
        assert_eq!(sorted(Order::Name, true), "CBA");
        assert_eq!(sorted(Order::Pending, false), "CAB");
        assert_eq!(sorted(Order::Pending, true), "ABC");
        assert_eq!(sorted(Order::Rate, false), "CBA");
    }

    #[test]
    fn every_section_has_the_columns_that_are_sorted_by() {
        for section in &SECTIONS {
            for (order, name) in [(Order::Rate, "rate"), (Order::Pending, "pending"), (Order::Oldest, "oldest")] {
                assert_eq!(section.columns[order.place()].name, name, "{}", section.title);
            }
        }
    }

    #[test]
    fn cells_are_short() {
        assert_eq!(cell(Kind::Count, &json!(1_234_567)), "1,234,567");
        assert_eq!(cell(Kind::Count, &json!(100)), "100");
        assert_eq!(cell(Kind::Rate, &json!(0.25)), "0.2");
        assert_eq!(cell(Kind::Rate, &json!(0.0)), "0");
        assert_eq!(cell(Kind::Seconds, &json!(59.9)), "59s");
        assert_eq!(cell(Kind::Seconds, &json!(3_725.0)), "1h02m");
        assert_eq!(cell(Kind::Seconds, &json!(null)), "-");
    }
}
