//! The lease: which running relay publishes an installation's events.
//!
//! One record per installation is kept at the broker. Whoever writes it names the revision that was read, so of two that
//! write at once one wins; `epoch` only grows. The record alone fences nobody: a publish names the sequence that it
//! expects, and a relay looks at the record each time after it has learned where the stream ends. So once a successor has
//! stored its first event, every publish of the one before fails, and on the way back it finds that it has lost the lease.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The record at the broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Grows with each owner.
    pub epoch: u64,
    /// The relay's process; chosen at random when it starts.
    pub relay: Uuid,
    /// Timeline of the owner's cluster: a promotion and a recovery to a point in time begin a new one.
    pub timeline: u32,
    /// Which run of which server: two of these are never alive at the same time as processes of one database.
    pub server: String,
    /// Host and data directory, for people, and to know a cluster that was started again from one that is elsewhere.
    pub place: String,
    /// Name of the database, for people. Records of earlier versions have none.
    #[serde(default)]
    pub database: String,
    /// Somebody called `sea_mq.adopt()`, or the owner took the lease back from a copy: who had it before may not have it again by
    /// itself. Records of earlier versions do not say so.
    #[serde(default)]
    pub settled: bool,
}

/// A relay that wants the lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claimant {
    pub install: Uuid,
    pub relay: Uuid,
    pub timeline: u32,
    pub server: String,
    pub place: String,
    pub database: String,
    /// The cluster received WAL from another one, in this run of the server, before it was promoted.
    pub was_standby: bool,
    /// Somebody has called `sea_mq.adopt()`.
    pub forced: bool,
    /// The greatest epoch in which this database had the lease.
    pub epoch: u64,
    /// The lease was had by this very process, in `epoch`.
    pub held: bool,
    /// The lease was had by another process of this run of the server, in `epoch`.
    pub held_before: bool,
}

impl Claimant {
    /// The record to write after this one.
    pub fn record(&self, before: Option<&Record>) -> Record {
        Record {
            settled: self.forced || before.is_some_and(|before| self.is_copied_by(before)),
            epoch: self.epoch.max(before.map_or(0, |before| before.epoch)) + 1,
            relay: self.relay,
            timeline: self.timeline,
            server: self.server.clone(),
            place: self.place.clone(),
            database: self.database.clone(),
        }
    }

    /// Whether the owner is a copy that found nobody alive: the claimant's server has run all the time, and had the lease before it.
    fn is_copied_by(&self, owner: &Record) -> bool {
        let is_newer = owner.epoch > self.epoch && owner.timeline == self.timeline && owner.server != self.server;
        self.held_before && is_newer && !owner.settled
    }
}

/// What follows from the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The lease is the claimant's already.
    Keep,
    /// It may be taken at once.
    Take,
    /// It may be taken if its owner does not answer. `patient`: the owner was in another place, and may have lost its
    /// connection for a moment.
    TakeFromDead { patient: bool, otherwise: String },
    /// It is somebody else's.
    Yield(String),
}

/// Whether the claimant may have the lease.
pub fn decide(me: &Claimant, record: Option<&Record>) -> Decision {
    let Some(owner) = record else { return Decision::Take };
    let Record { epoch, place, timeline, .. } = owner;
    let elsewhere = *place != me.place;
    if owner.relay == me.relay {
        return Decision::Keep;
    }
    // A broker that lost its last writes shows an owner that was followed by this one long ago.
    if me.forced || *epoch < me.epoch {
        return Decision::Take;
    }
    if me.held {
        return Decision::Yield(format!("the relay at {place} has taken the lease over (epoch {epoch})"));
    }
    if *timeline > me.timeline {
        let mine = me.timeline;
        return Decision::Yield(format!(
            "the relay at {place} publishes from timeline {timeline}, and this database is on timeline {mine}: it was left behind by a promotion or a recovery"
        ));
    }
    if owner.server == me.server || (*timeline < me.timeline && me.was_standby) || me.is_copied_by(owner) {
        return Decision::Take;
    }
    if owner.settled && elsewhere && *timeline == me.timeline && *epoch > me.epoch {
        return Decision::Yield(format!("the relay at {place} has taken the place of this one (epoch {epoch})"));
    }
    Decision::TakeFromDead {
        patient: elsewhere,
        otherwise: format!("the relay at {place} is alive, and this database is a copy of the same installation"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claimant() -> Claimant {
        Claimant {
            relay: Uuid::from_u128(1),
            timeline: 2,
            server: "a".into(),
            place: "host:/a".into(),
            epoch: 5,
            ..Claimant::default()
        }
    }

    /// Another relay's.
    fn record() -> Record {
        Record {
            epoch: 5,
            relay: Uuid::from_u128(2),
            timeline: 2,
            server: "b".into(),
            place: "host:/a".into(),
            database: "shop".into(),
            settled: false,
        }
    }

    #[test]
    fn a_lone_relay_gets_the_lease() {
        assert_eq!(decide(&claimant(), None), Decision::Take);
        let mine = claimant().record(None);
        assert_eq!((mine.epoch, decide(&claimant(), Some(&mine))), (6, Decision::Keep));
    }

    #[test]
    fn the_process_before_in_the_same_server_is_gone() {
        let before = Record { server: "a".into(), ..record() };
        assert_eq!(decide(&claimant(), Some(&before)), Decision::Take);
    }

    #[test]
    fn an_owner_of_the_same_timeline_keeps_the_lease_while_it_lives() {
        assert!(matches!(decide(&claimant(), Some(&record())), Decision::TakeFromDead { patient: false, .. }));
        let elsewhere = Record { place: "other:/a".into(), ..record() };
        assert!(matches!(decide(&claimant(), Some(&elsewhere)), Decision::TakeFromDead { patient: true, .. }));
    }

    #[test]
    fn a_promoted_standby_takes_over_and_the_one_left_behind_yields() {
        let primary = Record { timeline: 1, ..record() };
        let standby = Claimant { was_standby: true, ..claimant() };
        assert_eq!(decide(&standby, Some(&primary)), Decision::Take);
        // A backup that was recovered beside the original.
        assert!(matches!(decide(&claimant(), Some(&primary)), Decision::TakeFromDead { .. }));
        let promoted = Record { timeline: 3, ..record() };
        assert!(matches!(decide(&standby, Some(&promoted)), Decision::Yield(_)));
    }

    #[test]
    fn an_owner_that_was_followed_yields_even_if_the_successor_is_gone() {
        let held = Claimant { held: true, ..claimant() };
        let successor = Record { epoch: 6, ..record() };
        assert!(matches!(decide(&held, Some(&successor)), Decision::Yield(_)));
        assert!(matches!(decide(&held, Some(&record())), Decision::Yield(_)));
        let forgotten = Record { epoch: 4, ..record() };
        assert_eq!(decide(&held, Some(&forgotten)), Decision::Take);
    }

    #[test]
    fn a_copy_that_came_while_the_relay_rested_gives_the_lease_back_for_good() {
        let original = Claimant { held_before: true, ..claimant() };
        let copy = Record { epoch: 6, ..record() };
        assert_eq!(decide(&original, Some(&copy)), Decision::Take);
        let back = original.record(Some(&copy));
        assert!(back.settled && back.epoch == 7);
        // The copy rested meanwhile, or was started again.
        for held_before in [true, false] {
            let copied = Claimant { server: "b".into(), place: "other:/a".into(), epoch: 6, held_before, ..claimant() };
            let copied = Claimant { relay: Uuid::from_u128(3), ..copied };
            assert!(matches!(decide(&copied, Some(&back)), Decision::Yield(_)));
        }
        // The original rests again, and comes back.
        let original = Claimant { relay: Uuid::from_u128(4), epoch: 7, ..original };
        assert_eq!(decide(&original, Some(&back)), Decision::Take);
        assert!(!original.record(Some(&back)).settled, "nobody was in the way");
    }

    #[test]
    fn what_was_adopted_is_not_taken_back() {
        let original = Claimant { held_before: true, ..claimant() };
        let adopted = Claimant { forced: true, server: "b".into(), place: "other:/a".into(), ..claimant() }
            .record(Some(&record()));
        assert!(adopted.settled);
        let original = Claimant { relay: Uuid::from_u128(3), ..original };
        assert!(matches!(decide(&original, Some(&adopted)), Decision::Yield(_)), "though it may rest");
        // The adopted one was moved to another machine.
        let moved = Claimant { server: "c".into(), epoch: adopted.epoch, ..original };
        assert!(matches!(decide(&moved, Some(&adopted)), Decision::TakeFromDead { .. }));
    }

    #[test]
    fn a_promotion_is_not_taken_for_a_copy() {
        let primary = Claimant { held_before: true, ..claimant() };
        let promoted = Record { timeline: 3, epoch: 6, ..record() };
        assert!(matches!(decide(&primary, Some(&promoted)), Decision::Yield(_)));
    }

    #[test]
    fn a_person_decides() {
        let forced = Claimant { forced: true, ..claimant() };
        let newer = Record { timeline: 9, epoch: 9, ..record() };
        assert_eq!(decide(&forced, Some(&newer)), Decision::Take);
        assert_eq!(forced.record(Some(&newer)).epoch, 10);
    }
}
