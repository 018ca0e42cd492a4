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
}

impl Claimant {
    /// The record to write after this one.
    pub fn record(&self, before: Option<&Record>) -> Record {
        Record {
            epoch: self.epoch.max(before.map_or(0, |before| before.epoch)) + 1,
            relay: self.relay,
            timeline: self.timeline,
            server: self.server.clone(),
            place: self.place.clone(),
            database: self.database.clone(),
        }
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
    if owner.server == me.server || (*timeline < me.timeline && me.was_standby) {
        return Decision::Take;
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
    fn a_person_decides() {
        let forced = Claimant { forced: true, ..claimant() };
        let newer = Record { timeline: 9, epoch: 9, ..record() };
        assert_eq!(decide(&forced, Some(&newer)), Decision::Take);
        assert_eq!(forced.record(Some(&newer)).epoch, 10);
    }
}
