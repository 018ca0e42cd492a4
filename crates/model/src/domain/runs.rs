//! Runs: events that are consecutive in the log (for one sink) and in the stream.
//!
//! The relay records what it stored as runs and not as a flag per event, so that nothing is ever written to the log again.

use super::position::Snapshot;

/// Events at most of a run with other sinks' events between its own: to tell where one of them is in the stream, those before
/// it have to be counted (`sea_mq.outbox_events`). Where there is none between, a subtraction does it.
const MOST_BETWEEN_OTHERS: u64 = 1000;

/// The events of a sink that `upto` shows and `done` does not, from `first_seq` to `last_seq`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub done: Snapshot,
    pub upto: Snapshot,
    pub first_seq: i64,
    pub last_seq: i64,
    pub events: u64,
    /// Number of the first event in the order of the log, as the relay counts while it runs.
    pub place: u64,
    /// Stream sequence of the first event, the others follow without a gap. `None`: refused by the broker for good.
    pub first_stream_seq: Option<u64>,
}

impl Run {
    /// Adds the run that was stored next, or gives it back if the two are not one run.
    fn absorb(&mut self, next: Run) -> Option<Run> {
        let streams_meet = match (self.first_stream_seq, next.first_stream_seq) {
            (Some(first), Some(second)) => first + self.events == second,
            _ => false,
        };
        // Within one batch, or from a batch to the one that begins where it ended; in both cases only if the order by
        // seq is the order in which they were stored.
        let batches_meet = self.upto == next.done || (self.done == next.done && self.upto == next.upto);
        let logs_meet = self.place + self.events == next.place && next.first_seq > self.last_seq;
        let events = self.events + next.events;
        let countable = self.first_seq.abs_diff(next.last_seq) + 1 == events || events <= MOST_BETWEEN_OTHERS;
        if !streams_meet || !batches_meet || !logs_meet || !countable {
            return Some(next);
        }
        self.upto = next.upto;
        self.last_seq = next.last_seq;
        self.events = events;
        None
    }
}

/// Runs in the order in which they were stored, as few as possible.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runs(Vec<Run>);

impl Runs {
    pub fn push(&mut self, run: Run) {
        let rest = match self.0.last_mut() {
            Some(last) => last.absorb(run),
            None => Some(run),
        };
        self.0.extend(rest);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn as_slice(&self) -> &[Run] {
        &self.0
    }

    pub fn append(&mut self, other: Runs) {
        other.0.into_iter().for_each(|run| self.push(run));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(done: &str, upto: &str, seqs: (i64, i64), events: u64, stream: Option<u64>) -> Run {
        let snapshot = |text: &str| text.parse().unwrap();
        Run {
            done: snapshot(done),
            upto: snapshot(upto),
            first_seq: seqs.0,
            last_seq: seqs.1,
            events,
            place: seqs.0.unsigned_abs(),
            first_stream_seq: stream,
        }
    }

    #[test]
    fn what_follows_in_log_and_stream_is_one_run() {
        let mut runs = Runs::default();
        runs.push(run("1:1:", "9:9:", (1, 4), 4, Some(1)));
        runs.push(Run { place: 5, ..run("1:1:", "9:9:", (6, 6), 1, Some(5)) });
        runs.push(Run { place: 6, ..run("9:9:", "20:20:", (8, 9), 2, Some(6)) });
        assert_eq!(runs.as_slice(), [run("1:1:", "20:20:", (1, 9), 7, Some(1))]);
    }

    #[test]
    fn a_run_between_other_sinks_events_stays_short() {
        for (step, expected) in [(1, 1), (2, 5)] {
            let mut runs = Runs::default();
            for n in 0..50 {
                let seqs = (n * 100 * step + 1, (n + 1) * 100 * step);
                let one = run("1:1:", "9:9:", seqs, 100, Some(n.unsigned_abs() * 100 + 1));
                runs.push(Run { place: n.unsigned_abs() * 100, ..one });
            }
            assert_eq!(runs.as_slice().len(), expected, "every {step}");
        }
    }

    #[test]
    fn late_events_gaps_and_refusals_start_another_run() {
        for next in [
            run("9:9:", "20:20:", (3, 3), 1, Some(5)),
            run("9:9:", "20:20:", (8, 9), 2, Some(7)),
            run("9:9:", "20:20:", (8, 8), 1, None),
            run("10:10:", "20:20:", (8, 9), 2, Some(5)),
        ] {
            let mut runs = Runs::default();
            runs.push(run("1:1:", "9:9:", (1, 4), 4, Some(1)));
            runs.push(Run { place: 5, ..next });
            assert_eq!(runs.as_slice().len(), 2);
        }
    }

    #[test]
    fn events_with_others_between_them_in_the_log_are_two_runs() {
        let mut runs = Runs::default();
        runs.push(run("1:1:", "9:9:", (1, 4), 4, Some(1)));
        runs.push(Run { place: 6, ..run("1:1:", "9:9:", (7, 7), 1, Some(5)) });
        assert_eq!(runs.as_slice().len(), 2);
    }
}
