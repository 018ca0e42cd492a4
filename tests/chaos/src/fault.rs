//! What can be done to the servers, and how it is undone.

use harness::{Chance, freeze, kill, terminate, thaw, title};

use crate::proxy::Weather;
use crate::scene::Scene;

/// What of two faults at once must not be the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// One of PostgreSQL's processes.
    Process,
    /// PostgreSQL as a whole.
    Server,
    Broker,
    Network,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// SIGKILL.
    Kill,
    /// SIGTERM.
    Terminate,
    /// SIGSTOP, and SIGCONT later.
    Freeze,
    /// An immediate shutdown, SIGQUIT.
    Immediate,
    /// A fast shutdown, SIGINT.
    Fast,
    /// The store is thrown away.
    Wipe,
    Weather(Weather),
}

#[derive(Debug)]
pub struct Fault {
    pub name: &'static str,
    pub part: Part,
    pub harm: Harm,
    /// For a process: how its title begins.
    title: &'static str,
    pub what: &'static str,
}

const fn process(name: &'static str, title: &'static str, harm: Harm, what: &'static str) -> Fault {
    Fault { name, part: Part::Process, harm, title, what }
}

const fn fault(name: &'static str, part: Part, harm: Harm, what: &'static str) -> Fault {
    Fault { name, part, harm, title: "", what }
}

const RELAY: &str = "postgres: sea_mq relay";
const CONSUMER: &str = "postgres: sea_mq consumer";
const HANDLER: &str = "postgres: sea_mq handler";
const LAUNCHER: &str = "postgres: sea_mq launcher";
/// A session of a writer.
const SESSION: &str = "postgres: postgres orders";

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
    fault("broker-kill", Part::Broker, Harm::Kill, "SIGKILL for nats-server"),
    fault("broker-term", Part::Broker, Harm::Terminate, "SIGTERM for nats-server"),
    fault("broker-stop", Part::Broker, Harm::Freeze, "SIGSTOP for nats-server, SIGCONT later"),
    fault("broker-wipe", Part::Broker, Harm::Wipe, "nats-server comes back without its store"),
    fault("net-cut", Part::Network, Harm::Weather(Weather::Cut), "connections to the broker are closed and refused"),
    fault("net-stalled", Part::Network, Harm::Weather(Weather::Stalled), "connections stay open, nothing goes through"),
    fault("net-deaf", Part::Network, Harm::Weather(Weather::Deaf), "the broker is told, and its answers are lost"),
    fault("net-slow", Part::Network, Harm::Weather(Weather::Slow), "a few kilobytes at a time, each late"),
    fault("net-garbage", Part::Network, Harm::Weather(Weather::Garbage), "bits are changed on the way (with TLS)"),
];

impl Fault {
    pub fn named(name: &str) -> Option<&'static Self> {
        FAULTS.iter().find(|fault| fault.name == name)
    }

    /// Whether it can be had with a plain connection.
    pub fn needs_tls(&self) -> bool {
        self.harm == Harm::Weather(Weather::Garbage)
    }

    /// Whether what was committed with `synchronous_commit = off` may be lost.
    pub fn crashes_postgres(&self) -> bool {
        match self.part {
            Part::Process => self.harm == Harm::Kill,
            Part::Server => matches!(self.harm, Harm::Kill | Harm::Immediate),
            Part::Broker | Part::Network => false,
        }
    }

    /// Does the harm; says to whom, and returns what is to be undone later.
    pub fn inflict(&'static self, scene: &mut Scene, chance: &mut Chance) -> (String, Wound) {
        match self.part {
            Part::Process => self.inflict_process(scene, chance),
            Part::Server => self.inflict_server(scene),
            Part::Broker => self.inflict_broker(scene),
            Part::Network => {
                if let Harm::Weather(weather) = self.harm {
                    scene.proxy.set(weather);
                }
                (String::new(), Wound::Network)
            }
        }
    }

    fn inflict_process(&self, scene: &Scene, chance: &mut Chance) -> (String, Wound) {
        let all = scene.cluster.processes().into_iter();
        let victims: Vec<i32> = all.filter(|pid| title(*pid).starts_with(self.title)).collect();
        if victims.is_empty() {
            return ("nobody, there is none just now".into(), Wound::None);
        }
        let victim = *chance.of(&victims);
        let who = format!("{} ({victim})", title(victim));
        match self.harm {
            Harm::Kill => kill(victim),
            Harm::Freeze => {
                freeze(victim);
                return (who, Wound::Frozen(victim));
            }
            _ => terminate(victim),
        }
        (who, Wound::None)
    }

    fn inflict_server(&self, scene: &mut Scene) -> (String, Wound) {
        let processes = scene.cluster.processes();
        let Some(&postmaster) = processes.first() else { return ("nobody, it is down".into(), Wound::None) };
        if self.harm == Harm::Freeze {
            freeze(postmaster);
            return (String::new(), Wound::Frozen(postmaster));
        }
        // Whoever is frozen cannot end, and the others would wait for it.
        processes.into_iter().for_each(thaw);
        match self.harm {
            Harm::Kill => scene.cluster.kill(),
            Harm::Immediate => scene.cluster.crash(),
            _ => scene.cluster.stop(),
        }
        (String::new(), Wound::Server)
    }

    fn inflict_broker(&self, scene: &mut Scene) -> (String, Wound) {
        match self.harm {
            Harm::Freeze => {
                let pid = scene.broker.pid();
                freeze(pid);
                return (String::new(), Wound::Frozen(pid));
            }
            Harm::Terminate => scene.broker.stop(),
            Harm::Wipe => {
                scene.broker.kill();
                scene.broker.forget_everything();
            }
            _ => scene.broker.kill(),
        }
        (String::new(), Wound::Broker)
    }
}

/// What a fault left behind.
#[derive(Debug)]
pub enum Wound {
    None,
    Frozen(i32),
    Server,
    Broker,
    Network,
}

impl Wound {
    pub fn is_nothing(&self) -> bool {
        matches!(self, Self::None)
    }

    /// # Panics
    /// When a server does not start.
    pub async fn heal(self, scene: &mut Scene) {
        match self {
            Self::None => {}
            Self::Frozen(pid) => thaw(pid),
            Self::Server => scene.cluster.start().await,
            Self::Broker => scene.broker.start().await,
            Self::Network => scene.proxy.set(Weather::Clear),
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
