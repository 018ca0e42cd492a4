//! Which faults, when: it follows from a seed alone.

use std::time::Duration;

use harness::Chance;

use crate::fault::{FAULTS, Fault};

/// Faults that overlap.
#[derive(Debug)]
pub struct Step {
    /// Done one after the other, and undone in the same order.
    pub faults: Vec<&'static Fault>,
    /// Pause before each, and before each is undone.
    pub pauses: Vec<Duration>,
    /// Whether to wait, when all is undone, until an event gets through to its handlers.
    pub recovery: bool,
}

#[derive(Debug)]
pub struct Plan {
    pub name: String,
    pub seed: u64,
    pub tls: bool,
    pub steps: Vec<Step>,
}

/// Load before the first fault and after the last.
pub const CALM: Duration = Duration::from_millis(700);

impl Plan {
    /// Any faults, up to three at once.
    pub fn random(seed: u64) -> Self {
        let mut chance = Chance::from_seed(seed);
        let tls = chance.one_in(2);
        let possible: Vec<&'static Fault> = FAULTS.iter().filter(|fault| tls || !fault.needs_tls()).collect();
        let steps = (0..chance.within(3..7)).map(|_| Step::random(&mut chance, &possible)).collect();
        Self { name: format!("seed {seed}"), seed, tls, steps }
    }

    /// These faults, each alone, one after the other, with a wait until each is got over.
    pub fn each(name: &str, seed: u64, faults: &[&'static Fault]) -> Self {
        let steps = faults.iter().map(|fault| {
            let pauses = vec![Duration::from_millis(300), Duration::from_millis(1500)];
            Step { faults: vec![*fault], pauses, recovery: true }
        });
        let tls = faults.iter().any(|fault| fault.needs_tls());
        Self { name: name.into(), seed, tls, steps: steps.collect() }
    }

    /// Whether PostgreSQL may take commits back that were not waited for.
    pub fn crashes_postgres(&self) -> bool {
        self.steps.iter().flat_map(|step| &step.faults).any(|fault| fault.crashes_postgres())
    }

    /// The names of its faults.
    pub fn faults(&self) -> String {
        let step = |step: &Step| step.faults.iter().map(|fault| fault.name).collect::<Vec<_>>().join("+");
        self.steps.iter().map(step).collect::<Vec<_>>().join(" ")
    }
}

impl Step {
    fn random(chance: &mut Chance, possible: &[&'static Fault]) -> Self {
        let mut faults: Vec<&'static Fault> = Vec::new();
        for _ in 0..*chance.of(&[1, 1, 2, 2, 3]) {
            let fault = *chance.of(possible);
            if faults.iter().all(|other| other.part != fault.part) {
                faults.push(fault);
            }
        }
        let pauses = (0..faults.len() * 2).map(|_| Duration::from_millis(chance.within(0..1500))).collect();
        Self { faults, pauses, recovery: chance.one_in(3) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_plan() {
        for seed in 0..200 {
            let (one, other) = (Plan::random(seed), Plan::random(seed));
            assert_eq!(format!("{one:?}"), format!("{other:?}"));
            assert!(!one.steps.is_empty());
            for step in &one.steps {
                assert_eq!(step.pauses.len(), step.faults.len() * 2);
                assert!(one.tls || step.faults.iter().all(|fault| !fault.needs_tls()));
            }
        }
        assert_ne!(Plan::random(1).faults(), Plan::random(2).faults());
    }
}
