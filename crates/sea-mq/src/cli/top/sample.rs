//! What the database says at one time, and what has grown since the time before.

use std::collections::HashMap;
use std::time::Instant;

use serde_json::Value;

use super::super::session::Session;
use super::sections::{SECTIONS, Section};
use crate::db::call::Ask;

/// Rows of a section, or why there are none.
pub type Rows = Result<Vec<Value>, String>;

pub struct Sample {
    at: Instant,
    /// The one row on top.
    pub summary: Value,
    pub sections: Vec<Rows>,
    pub problems: Rows,
}

const SUMMARY: &str =
    "SELECT o.ok, o.problems, o.relay, o.pending, extract(epoch FROM o.oldest_pending_age) AS oldest, o.dead_letters,
    o.log_bytes, o.version, current_database() AS database, current_user AS role, to_char(now(), 'HH24:MI:SS') AS time
    FROM sea_mq.overview o";

impl Sample {
    /// What this role may not see is said in the place where it would be.
    ///
    /// # Errors
    /// When not even the summary can be had.
    pub async fn take(session: &Session) -> Result<Self, String> {
        let summary = session.rows(&Ask::new(SUMMARY).rows_of()).await?.pop().unwrap_or_default();
        let mut sections = Vec::new();
        for section in &SECTIONS {
            sections.push(session.rows(&Ask::new(section.query).rows_of()).await);
        }
        let problems = "SELECT p.rank, p.problem, p.hint FROM sea_mq.problems p ORDER BY p.rank, p.problem";
        let problems = session.rows(&Ask::new(problems).rows_of()).await;
        Ok(Self { at: Instant::now(), summary, sections, problems })
    }
}

/// The last two samples.
pub struct History {
    pub now: Sample,
    before: Option<Sample>,
}

impl History {
    pub fn new(first: Sample) -> Self {
        Self { now: first, before: None }
    }

    pub fn add(&mut self, sample: Sample) {
        self.before = Some(std::mem::replace(&mut self.now, sample));
    }

    /// The rows of a section with the rates of its counters beside them. Without an earlier sample there are none.
    pub fn rows(&self, place: usize) -> Rows {
        let section = &SECTIONS[place];
        let rows = self.now.sections[place].as_ref().map_err(Clone::clone)?;
        let before = self.before.as_ref().and_then(|sample| Some((sample.at, sample.sections[place].as_ref().ok()?)));
        let Some((at, earlier)) = before else { return Ok(rows.clone()) };
        Ok(with_rates(section, rows, earlier, self.now.at.duration_since(at).as_secs_f64()))
    }
}

fn with_rates(section: &Section, rows: &[Value], earlier: &[Value], seconds: f64) -> Vec<Value> {
    let key = section.columns[0].name;
    let known: HashMap<&str, &Value> = earlier.iter().filter_map(|row| Some((row[key].as_str()?, row))).collect();
    let rated = |row: &Value| {
        let mut row = row.clone();
        let Some(old) = row[key].as_str().and_then(|name| known.get(name)) else { return row };
        for (counter, rate) in section.rates {
            if let (Some(from), Some(to)) = (old[*counter].as_f64(), row[*counter].as_f64()) {
                // A counter that has become less began anew.
                row[*rate] = ((to - from).max(0.0) / seconds.max(0.001)).into();
            }
        }
        row
    };
    rows.iter().map(rated).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_rate_is_what_a_counter_has_grown_by_in_a_second() {
        let earlier = [json!({"stream": "A", "published": 10}), json!({"stream": "B", "published": 10})];
        let rows = [
            json!({"stream": "A", "published": 30}),
            json!({"stream": "B", "published": 4}),
            json!({"stream": "NEW", "published": 4}),
        ];
        let rates: Vec<Value> =
            with_rates(&SECTIONS[0], &rows, &earlier, 2.0).iter().map(|row| row["rate"].clone()).collect();
        assert_eq!(rates, [json!(10.0), json!(0.0), Value::Null]);
    }
}
