//! Which faults, when: it follows from a seed alone.

use std::time::Duration;

use harness::Chance;

use crate::check::Tolerance;
use crate::fault::{FAULTS, Fault, Harm, Node, Part};
use crate::partner::IN_FLIGHT;
use crate::scene::Broking;

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
    pub broking: Broking,
    pub steps: Vec<Step>,
}

/// Load before the first fault and after the last.
pub const CALM: Duration = Duration::from_millis(700);

impl Plan {
    /// Any faults, up to three at once.
    pub fn random(seed: u64) -> Self {
        let mut chance = Chance::from_seed(seed);
        let broking = *chance.of(&[Broking::One, Broking::One, Broking::Tls, Broking::Tls, Broking::Three]);
        let possible: Vec<&'static Fault> =
            FAULTS.iter().filter(|fault| fault.fits(broking) && fault.combines()).collect();
        let steps = (0..chance.within(3..7)).map(|_| Step::random(&mut chance, &possible, broking)).collect();
        Self { name: format!("seed {seed}"), seed, broking, steps }
    }

    /// These faults, each alone, one after the other, with a wait until each is got over; those that need small disks or three
    /// brokers on servers of their own, and each upgrade.
    pub fn each(name: &str, seed: u64, faults: &[&'static Fault]) -> Vec<Self> {
        let apart = |faults: Vec<&'static Fault>, broking| -> (Vec<_>, Vec<_>) {
            faults.into_iter().partition(|fault| fault.broking() == Some(broking))
        };
        let (three, others) = apart(faults.to_vec(), Broking::Three);
        let (upgrades, others) = apart(others, Broking::Older);
        let (disks, others): (Vec<_>, Vec<_>) = others.into_iter().partition(|fault| fault.needs_disks());
        let tls = others.iter().any(|fault| fault.broking() == Some(Broking::Tls));
        let plan = |(faults, broking, suffix): (Vec<&'static Fault>, Broking, &str)| {
            let steps = faults.iter().map(|fault| Step::alone(fault, broking)).collect();
            (!faults.is_empty()).then(|| Self { name: format!("{name}{suffix}"), seed, broking, steps })
        };
        let one = (others, if tls { Broking::Tls } else { Broking::One }, "");
        let together = [one, (disks, Broking::One, ", small disks"), (three, Broking::Three, ", three brokers")];
        // What is upgraded once is not older any more.
        let upgrades = upgrades.into_iter().map(|fault| (vec![fault], Broking::Older, ", upgrade"));
        together.into_iter().chain(upgrades).filter_map(plan).collect()
    }

    fn faults_of_all_steps(&self) -> impl Iterator<Item = &'static Fault> {
        self.steps.iter().flat_map(|step| step.faults.iter().copied())
    }

    /// What its faults may do.
    pub fn tolerance(&self) -> Tolerance {
        Tolerance {
            lazy_commits_lost: self.faults_of_all_steps().any(Fault::crashes_postgres),
            deliveries_repeated: self.repeated(),
            handlers_end: self.faults_of_all_steps().any(|fault| matches!(fault.part, Part::Process | Part::Server)),
        }
    }

    /// Deliveries that may be made twice: those in flight, each time that a dispatcher ends. On a full disk it does so again and again.
    fn repeated(&self) -> usize {
        let times = self.faults_of_all_steps().filter(|fault| fault.may_repeat_deliveries()).count();
        if self.needs_disks() { usize::MAX } else { times * IN_FLIGHT }
    }

    pub fn needs_disks(&self) -> bool {
        self.faults_of_all_steps().any(Fault::needs_disks)
    }

    /// The names of its faults.
    pub fn faults(&self) -> String {
        let step = |step: &Step| step.faults.iter().map(|fault| fault.name).collect::<Vec<_>>().join("+");
        self.steps.iter().map(step).collect::<Vec<_>>().join(" ")
    }
}

/// Three brokers need seconds to notice that one is missing, and to agree on another leader.
fn patience(broking: Broking) -> u32 {
    if broking.is_cluster() { 10 } else { 1 }
}

impl Step {
    fn alone(fault: &'static Fault, broking: Broking) -> Self {
        // The others elect another leader, and who was parted finds out that it is none any more.
        let hold = match fault.harm {
            Harm::Part => Duration::from_secs(25),
            // Not every transaction spills.
            Harm::FillSpace | Harm::LimitSpace => Duration::from_secs(8),
            _ => Duration::from_millis(500) * patience(broking),
        };
        // During an upgrade so much is written that a probe waits behind all of it; that it is handled shows in the end.
        let recovery = fault.node != Node::Each;
        Self { faults: vec![fault], pauses: vec![Duration::from_millis(100), hold], recovery }
    }

    fn random(chance: &mut Chance, possible: &[&'static Fault], broking: Broking) -> Self {
        let mut faults: Vec<&'static Fault> = Vec::new();
        for _ in 0..*chance.of(&[1, 1, 2, 2, 3]) {
            let fault = *chance.of(possible);
            if faults.iter().all(|other| other.part != fault.part) {
                faults.push(fault);
            }
        }
        let pauses = (0..faults.len() * 2).map(|_| Duration::from_millis(chance.within(0..1500)) * patience(broking));
        let pauses = pauses.collect();
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
                assert!(step.faults.iter().all(|fault| fault.fits(one.broking)));
            }
        }
        assert_ne!(Plan::random(1).faults(), Plan::random(2).faults());
    }
}
