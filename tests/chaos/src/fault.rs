//! What can be done to the servers.

use crate::partner::Mood;
use crate::proxy::Weather;
use crate::scene::Broking;

/// What of two faults at once must not be the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// One of PostgreSQL's processes.
    Process,
    /// PostgreSQL as a whole.
    Server,
    /// PostgreSQL's wall clock.
    Clock,
    /// The room that PostgreSQL has for temporary files.
    Space,
    /// What is in PostgreSQL's catalogs.
    Catalog,
    Broker,
    Network,
    /// Whoever gets events over HTTP.
    Partner,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// SIGKILL.
    Kill,
    /// SIGTERM.
    Terminate,
    /// SIGUSR2: a nats-server hands over what it leads, and ends.
    Retire,
    /// SIGSTOP, and SIGCONT later.
    Freeze,
    /// An immediate shutdown, SIGQUIT.
    Immediate,
    /// A fast shutdown, SIGINT.
    Fast,
    /// The store is thrown away.
    Wipe,
    /// No space is left on the server's disk.
    FillDisk,
    /// No space is left where PostgreSQL's temporary files are.
    FillSpace,
    /// PostgreSQL's sessions may have but little of it.
    LimitSpace,
    /// All tables are published, and stay so.
    Publish,
    /// A database is dumped, and the copy restored beside the original.
    Copy,
    /// The clock is set back, and stays so.
    SetBack,
    Weather(Weather),
    Mood(Mood),
    /// Nothing goes between one of several nats-servers and the others. All of them reach their clients.
    Part,
}

/// Which nats-server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// There is but one.
    Only,
    /// Of three, the leader of a stream.
    Leader,
    /// Of three, another one.
    Follower,
    /// Of three, the one that PostgreSQL's workers are connected to as long as it lets them in.
    Entry,
    /// All three.
    All,
    /// Of three, one after the other, each of which comes back as a newer version.
    Each,
}

#[derive(Debug)]
pub struct Fault {
    pub name: &'static str,
    pub part: Part,
    pub harm: Harm,
    /// For a process: how its title begins.
    pub title: &'static str,
    /// For a broker.
    pub node: Node,
    pub what: &'static str,
}

const fn process(name: &'static str, title: &'static str, harm: Harm, what: &'static str) -> Fault {
    Fault { name, part: Part::Process, harm, title, node: Node::Only, what }
}

const fn fault(name: &'static str, part: Part, harm: Harm, what: &'static str) -> Fault {
    Fault { name, part, harm, title: "", node: Node::Only, what }
}

const fn node(name: &'static str, node: Node, harm: Harm, what: &'static str) -> Fault {
    Fault { name, part: Part::Broker, harm, title: "", node, what }
}

const RELAY: &str = "postgres: sea_mq relay";
const CONSUMER: &str = "postgres: sea_mq consumer";
const HANDLER: &str = "postgres: sea_mq handler";
const DISPATCHER: &str = "postgres: sea_mq dispatcher";
const LAUNCHER: &str = "postgres: sea_mq launcher";
/// A session of a writer.
pub const SESSION: &str = "postgres: postgres orders";

pub const FAULTS: &[Fault] = &[
    process("relay-kill", RELAY, Harm::Kill, "SIGKILL for a relay; PostgreSQL restarts all its processes"),
    process("relay-term", RELAY, Harm::Terminate, "SIGTERM for a relay"),
    process("relay-stop", RELAY, Harm::Freeze, "SIGSTOP for a relay, SIGCONT later"),
    process("consumer-kill", CONSUMER, Harm::Kill, "SIGKILL for a consumer; PostgreSQL restarts all its processes"),
    process("consumer-term", CONSUMER, Harm::Terminate, "SIGTERM for a consumer"),
    process("consumer-stop", CONSUMER, Harm::Freeze, "SIGSTOP for a consumer, SIGCONT later"),
    process("handler-kill", HANDLER, Harm::Kill, "SIGKILL for one of several handler processes"),
    process("handler-term", HANDLER, Harm::Terminate, "SIGTERM for one of several handler processes"),
    process("handler-stop", HANDLER, Harm::Freeze, "SIGSTOP for one of several handler processes, SIGCONT later"),
    process(
        "dispatcher-kill",
        DISPATCHER,
        Harm::Kill,
        "SIGKILL for a dispatcher; PostgreSQL restarts all its processes",
    ),
    process("dispatcher-term", DISPATCHER, Harm::Terminate, "SIGTERM for a dispatcher"),
    process("dispatcher-stop", DISPATCHER, Harm::Freeze, "SIGSTOP for a dispatcher, SIGCONT later"),
    fault("partner-fails", Part::Partner, Harm::Mood(Mood::Fails), "an endpoint outside answers 500"),
    fault("partner-hangs", Part::Partner, Harm::Mood(Mood::Hangs), "an endpoint outside does not answer"),
    fault("partner-resets", Part::Partner, Harm::Mood(Mood::Resets), "an endpoint outside breaks connections"),
    process("launcher-kill", LAUNCHER, Harm::Kill, "SIGKILL for the launcher; PostgreSQL restarts all its processes"),
    process("launcher-term", LAUNCHER, Harm::Terminate, "SIGTERM for the launcher"),
    process("launcher-stop", LAUNCHER, Harm::Freeze, "SIGSTOP for the launcher, SIGCONT later"),
    process(
        "session-kill",
        SESSION,
        Harm::Kill,
        "SIGKILL for a writer's session; PostgreSQL restarts all its processes",
    ),
    process(
        "session-term",
        SESSION,
        Harm::Terminate,
        "SIGTERM for a writer's session, wherever it is in its transaction",
    ),
    process("session-stop", SESSION, Harm::Freeze, "SIGSTOP for a writer's session, SIGCONT later"),
    fault("postgres-kill", Part::Server, Harm::Kill, "SIGKILL for the postmaster"),
    fault("postgres-stop", Part::Server, Harm::Freeze, "SIGSTOP for the postmaster, SIGCONT later"),
    fault("postgres-immediate", Part::Server, Harm::Immediate, "immediate shutdown of PostgreSQL, and recovery"),
    fault("postgres-restart", Part::Server, Harm::Fast, "fast shutdown of PostgreSQL, and a start"),
    fault("postgres-disk", Part::Server, Harm::FillDisk, "no space left on PostgreSQL's disk (needs root)"),
    fault("space-limit", Part::Space, Harm::LimitSpace, "a low temp_file_limit, beside transactions that spill events"),
    fault(
        "space-full",
        Part::Space,
        Harm::FillSpace,
        "no space left in PostgreSQL's temporary tablespace, beside transactions that spill events (needs root)",
    ),
    fault("publication", Part::Catalog, Harm::Publish, "CREATE PUBLICATION … FOR ALL TABLES in all databases"),
    fault("postgres-copy", Part::Server, Harm::Copy, "a database is dumped and restored beside itself"),
    fault("clock-back", Part::Clock, Harm::SetBack, "PostgreSQL's wall clock is set back by 20 s"),
    fault("broker-kill", Part::Broker, Harm::Kill, "SIGKILL for nats-server"),
    fault("broker-term", Part::Broker, Harm::Terminate, "SIGTERM for nats-server"),
    fault("broker-stop", Part::Broker, Harm::Freeze, "SIGSTOP for nats-server, SIGCONT later"),
    fault("broker-wipe", Part::Broker, Harm::Wipe, "nats-server comes back without its store"),
    fault("broker-disk", Part::Broker, Harm::FillDisk, "no space left on nats-server's disk (needs root)"),
    fault("net-cut", Part::Network, Harm::Weather(Weather::Cut), "connections to the broker are closed and refused"),
    fault("net-stalled", Part::Network, Harm::Weather(Weather::Stalled), "connections stay open, nothing goes through"),
    fault("net-deaf", Part::Network, Harm::Weather(Weather::Deaf), "the broker is told, and its answers are lost"),
    fault("net-slow", Part::Network, Harm::Weather(Weather::Slow), "a few kilobytes at a time, each late"),
    fault("net-garbage", Part::Network, Harm::Weather(Weather::Garbage), "bits are changed on the way (with TLS)"),
    node("leader-kill", Node::Leader, Harm::Kill, "of three nats-servers, SIGKILL for the leader of a stream"),
    node("leader-term", Node::Leader, Harm::Terminate, "of three nats-servers, SIGTERM for the leader of a stream"),
    node(
        "leader-stop",
        Node::Leader,
        Harm::Freeze,
        "of three nats-servers, SIGSTOP for the leader, which comes back as one",
    ),
    node("follower-kill", Node::Follower, Harm::Kill, "of three nats-servers, SIGKILL for a follower"),
    node("follower-stop", Node::Follower, Harm::Freeze, "of three nats-servers, SIGSTOP for a follower, SIGCONT later"),
    node("follower-wipe", Node::Follower, Harm::Wipe, "of three nats-servers, a follower comes back without its store"),
    node(
        "leader-part",
        Node::Leader,
        Harm::Part,
        "of three nats-servers, the leader does not reach the others, clients do",
    ),
    node(
        "entry-part",
        Node::Entry,
        Harm::Part,
        "of three nats-servers, the one that is connected to does not reach the others",
    ),
    node("cluster-kill", Node::All, Harm::Kill, "SIGKILL for all of three nats-servers at once"),
    node(
        "upgrade-term",
        Node::Each,
        Harm::Terminate,
        "three nats-servers 2.12, SIGTERM for one after the other, which comes back as the newest",
    ),
    node(
        "upgrade-lame-duck",
        Node::Each,
        Harm::Retire,
        "three nats-servers 2.12, lame duck for one after the other, which comes back as the newest",
    ),
];

impl Fault {
    pub fn named(name: &str) -> Option<&'static Self> {
        FAULTS.iter().find(|fault| fault.name == name)
    }

    /// What the broker has to be.
    pub fn broking(&self) -> Option<Broking> {
        match self.part {
            Part::Network => (self.harm == Harm::Weather(Weather::Garbage)).then_some(Broking::Tls),
            Part::Broker if self.node == Node::Each => Some(Broking::Older),
            Part::Broker if self.node != Node::Only => Some(Broking::Three),
            _ => None,
        }
    }

    /// Whether it can be done where the broker is this.
    pub fn fits(&self, broking: Broking) -> bool {
        let alone = self.part == Part::Broker && self.node == Node::Only;
        self.broking().map_or(!alone || !broking.is_cluster(), |needed| needed == broking)
    }

    /// Whether it can be done beside other faults: pg_dump does not survive them.
    pub fn combines(&self) -> bool {
        self.harm != Harm::Copy
    }

    /// Whether a dispatcher may end over it, so that what is in flight is sent once more.
    pub fn may_repeat_deliveries(&self) -> bool {
        match self.part {
            Part::Process | Part::Server | Part::Space | Part::Catalog => true,
            Part::Clock | Part::Broker | Part::Network | Part::Partner => false,
        }
    }

    pub fn needs_disks(&self) -> bool {
        matches!(self.harm, Harm::FillDisk | Harm::FillSpace)
    }

    /// Whether what was committed with `synchronous_commit = off` may be lost.
    pub fn crashes_postgres(&self) -> bool {
        match self.part {
            Part::Process => self.harm == Harm::Kill,
            Part::Server => matches!(self.harm, Harm::Kill | Harm::Immediate | Harm::FillDisk),
            Part::Clock | Part::Space | Part::Catalog | Part::Broker | Part::Network | Part::Partner => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        let names: HashSet<&str> = FAULTS.iter().map(|fault| fault.name).collect();
        assert_eq!(names.len(), FAULTS.len());
        assert!(names.iter().all(|name| Fault::named(name).is_some_and(|fault| fault.name == *name)));
        assert!(Fault::named("none").is_none());
    }
}
