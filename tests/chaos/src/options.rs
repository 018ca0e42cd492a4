use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::fault::{FAULTS, Fault};
use crate::plan::Plan;

/// How the program is called.
pub const USAGE: &str = "usage: sea-mq-chaos [OPTION]…
Tries to break sea_mq's promises, on servers that it starts itself.
  --seed N         the random faults of this seed; may be given more than once
  --seeds N        N seeds that nobody chose (20)
  --minutes N      seeds that nobody chose, for so long
  --fault NAME     this fault alone; may be given more than once: one after the other
  --each           every fault alone, one after the other
  --quick          what `make test` runs: every fault alone but for full disks and clusters, and seeds that are always the same
  --soak N         the same load without faults, for N minutes: memory, sizes, latency by the second, in target/soak
  --list           the faults
  --output DIR     where reports and logs of failures, or what the soak recorded, are kept (target/chaos, target/soak)";

/// Always the same, so that a change is not refused for what chance has found.
const QUICK_SEEDS: [u64; 3] = [7, 52, 72];

/// What to run.
#[derive(Debug)]
pub enum Work {
    List,
    Plans(Vec<Plan>),
    Minutes(Duration),
    Soak(Duration),
}

#[derive(Debug)]
pub struct Options {
    pub work: Work,
    pub output: PathBuf,
}

fn target() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new("."));
    let beside_the_code = || root.join("target");
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(beside_the_code, PathBuf::from)
}

impl Options {
    /// Reads the command line, without the program's name.
    ///
    /// # Errors
    /// When it cannot be understood, with the reason.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let (mut plans, mut faults, mut output) = (Vec::new(), Vec::new(), None);
        let mut work = None;
        let mut rest = arguments.into_iter();
        while let Some(argument) = rest.next() {
            let mut value = || rest.next().ok_or_else(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--seed" => plans.push(Plan::random(number(&value()?)?)),
                "--seeds" => plans.extend((0..number(&value()?)?).map(|_| Plan::random(any_seed()))),
                "--minutes" => work = Some(Work::Minutes(minutes(&value()?)?)),
                "--soak" => work = Some(Work::Soak(minutes(&value()?)?)),
                "--fault" => {
                    let name = value()?;
                    faults.push(Fault::named(&name).ok_or_else(|| format!("there is no fault {name}; see --list"))?);
                }
                "--each" => plans.extend(each()),
                "--quick" => {
                    plans.extend(each().into_iter().take(1));
                    plans.extend(QUICK_SEEDS.map(Plan::random));
                }
                "--list" => work = Some(Work::List),
                "--output" => output = Some(value()?.into()),
                unknown => return Err(format!("{unknown} is not known")),
            }
        }
        if !faults.is_empty() {
            plans.extend(Plan::each("chosen faults", any_seed(), &faults));
        }
        if plans.is_empty() && work.is_none() {
            plans.extend((0..20).map(|_| Plan::random(any_seed())));
        }
        let folder = if matches!(work, Some(Work::Soak(_))) { "soak" } else { "chaos" };
        let output = output.unwrap_or_else(|| target().join(folder));
        Ok(Self { work: work.unwrap_or(Work::Plans(plans)), output })
    }
}

fn each() -> Vec<Plan> {
    Plan::each("each fault alone", 1, &FAULTS.iter().collect::<Vec<_>>())
}

/// Short enough to be typed.
pub fn any_seed() -> u64 {
    rand::random_range(0..1_000_000_000)
}

fn minutes(text: &str) -> Result<Duration, String> {
    Ok(Duration::from_secs(60 * number(text)?))
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text:?} is not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plans(line: &str) -> Vec<String> {
        match Options::parse(line.split_whitespace().map(str::to_owned)).unwrap().work {
            Work::Plans(plans) => plans.into_iter().map(|plan| plan.name).collect(),
            work => panic!("{work:?}"),
        }
    }

    #[test]
    fn what_is_asked_for_is_run() {
        assert_eq!(plans("").len(), 20);
        assert_eq!(plans("--seed 7 --seed 9"), ["seed 7", "seed 9"]);
        assert_eq!(plans("--seeds 5").len(), 5);
        assert_eq!(plans("--fault relay-kill --fault net-cut"), ["chosen faults"]);
        assert_eq!(plans("--each").len(), 5);
        assert_eq!(plans("--quick"), plans("--quick"));
    }

    #[test]
    fn nonsense_is_refused() {
        for line in ["--sed 1", "--seed", "--seed x", "--fault nothing"] {
            assert!(Options::parse(line.split_whitespace().map(str::to_owned)).is_err(), "{line}");
        }
    }
}
