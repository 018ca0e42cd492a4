//! What docs/guarantees.md says of how long each fault takes to get over.

use std::time::Duration;

use crate::probe::Recovery;

const GUARANTEES: &str = include_str!("../../../docs/guarantees.md");
/// How many times its line a recovery may take before that is said.
const TIMES: u32 = 10;
/// A line below this counts as this: what takes no time at all takes some on a busy machine.
const LEAST: Duration = Duration::from_millis(500);

/// Until an event is stored, and until it is handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Line {
    stored: Duration,
    handled: Duration,
}

/// What is to be said of a recovery from these faults (`broker-kill+net-cut`) that took ten times what is documented. Faults
/// whose time nobody has measured are passed over.
pub fn too_slow(faults: &str, recovery: &Recovery) -> Option<String> {
    let lines: Option<Vec<Line>> = faults.split('+').map(line_of).collect();
    let lines = lines?;
    let exceeds = |what: &str, took: Duration, said: fn(&Line) -> Duration| {
        let said: Duration = lines.iter().map(|line| said(line).max(LEAST)).sum();
        let (took, said) = (took.as_secs_f64(), said.as_secs_f64());
        (took > said * f64::from(TIMES))
            .then(|| format!("{what} after {took:.1} s, more than {TIMES} times the {said:.1} s of docs/guarantees.md"))
    };
    exceeds("handled", recovery.handled, |line| line.handled)
        .or_else(|| exceeds("stored", recovery.stored, |line| line.stored))
}

fn line_of(fault: &str) -> Option<Line> {
    let row = GUARANTEES.lines().find(|row| row.starts_with('|') && names(row).any(|name| name == fault))?;
    let mut cells = row.trim_end_matches([' ', '|']).rsplit('|');
    let handled = seconds(cells.next()?)?;
    Some(Line { stored: seconds(cells.next()?)?, handled })
}

/// What stands in backticks in a row's first cell.
fn names(row: &str) -> impl Iterator<Item = &str> {
    row.trim_start_matches('|').split('|').next().unwrap_or_default().split('`').skip(1).step_by(2)
}

fn seconds(cell: &str) -> Option<Duration> {
    cell.trim().strip_suffix(" s")?.parse().ok().map(Duration::from_secs_f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::FAULTS;
    use crate::scene::Broking;

    fn recovery(seconds: u64) -> Recovery {
        let took = Duration::from_secs(seconds);
        Recovery { committed: took, stored: took, handled: took }
    }

    #[test]
    fn every_fault_is_documented_with_its_times() {
        // While servers are upgraded one after the other there is no moment at which it is over.
        let timed = FAULTS.iter().filter(|fault| fault.broking() != Some(Broking::Older));
        let without: Vec<_> = timed.filter(|fault| line_of(fault.name).is_none()).map(|fault| fault.name).collect();
        assert_eq!(without, [""; 0], "they have no times in docs/guarantees.md");
    }

    #[test]
    fn ten_times_a_line_is_too_slow_and_faults_at_once_add_up() {
        let line = line_of("launcher-term").expect("a line");
        assert_eq!(line, Line { stored: Duration::from_secs(5), handled: Duration::from_secs(5) });
        assert_eq!(too_slow("launcher-term", &recovery(49)), None);
        assert!(too_slow("launcher-term", &recovery(51)).is_some_and(|said| said.contains("handled after 51.0 s")));
        assert_eq!(too_slow("launcher-term+launcher-stop", &recovery(51)), None);
        assert!(too_slow("launcher-stop", &recovery(6)).is_some(), "what takes no time at all");
    }
}
