//! How a fault's harm is done, and undone.

use std::time::{Duration, Instant};

use harness::{Chance, Database, freeze, kill, terminate, thaw, title, until};

use crate::LONG;
use crate::copy;
use crate::fault::{Fault, Harm, Node, Part, SESSION};
use crate::partner::{self, Mood};
use crate::proxy::Weather;
use crate::scene::{DATABASES, NEWEST, PRODUCERS, Scene};

/// The disk of the temporary files.
const TEMPORARY: usize = 2;
/// Less than a spill of the writers takes.
const SPACE: &str = "1MB";

/// How far a clock is set back.
const STEP: Duration = Duration::from_secs(20);

impl Fault {
    /// Does the harm; says to whom, and returns what is to be undone later.
    pub async fn inflict(&self, scene: &mut Scene, chance: &mut Chance) -> (String, Wound) {
        match self.part {
            Part::Process => self.inflict_process(scene, chance),
            Part::Server => self.inflict_server(scene).await,
            Part::Clock => {
                scene.cluster.clock().set_back(STEP);
                (String::new(), Wound::None)
            }
            Part::Space if self.harm == Harm::FillSpace => fill_disk(scene, TEMPORARY).await,
            Part::Space => {
                scene.limit_space(Some(SPACE));
                (String::new(), Wound::Limited)
            }
            Part::Catalog => (publish(scene).await, Wound::None),
            Part::Broker => self.inflict_broker(scene).await,
            Part::Partner => {
                if let Harm::Mood(mood) = self.harm {
                    scene.partner.set(mood);
                }
                (String::new(), Wound::Partner)
            }
            Part::Network => {
                if let Harm::Weather(weather) = self.harm {
                    scene.set_weather(weather);
                }
                (String::new(), Wound::Network)
            }
        }
    }

    fn inflict_process(&self, scene: &Scene, chance: &mut Chance) -> (String, Wound) {
        let victims = titled(scene, self.title);
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
        (who, Wound::Ended { victim, title: self.title, count: victims.len() })
    }

    async fn inflict_server(&self, scene: &mut Scene) -> (String, Wound) {
        let processes = scene.cluster.processes();
        let Some(&postmaster) = processes.first() else { return ("nobody, it is down".into(), Wound::None) };
        if self.harm == Harm::Freeze {
            freeze(postmaster);
            return (String::new(), Wound::Frozen(postmaster));
        }
        if self.harm == Harm::FillDisk {
            return fill_disk(scene, 0).await;
        }
        if self.harm == Harm::Copy {
            copy::make(scene).await;
            return (String::new(), Wound::Copied);
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

    async fn inflict_broker(&self, scene: &mut Scene) -> (String, Wound) {
        if self.harm == Harm::FillDisk {
            return fill_disk(scene, 1).await;
        }
        if self.node == Node::Each {
            return (self.upgrade(scene).await, Wound::None);
        }
        let victims: Vec<usize> = match self.node {
            Node::Only | Node::Entry => vec![0],
            Node::Leader => vec![scene.leader().await],
            Node::Follower => vec![(scene.leader().await + 1) % scene.brokers.len()],
            Node::All | Node::Each => (0..scene.brokers.len()).collect(),
        };
        let whom = format!("nats-server {victims:?}");
        for victim in &victims {
            let broker = &mut scene.brokers[*victim];
            match self.harm {
                Harm::Freeze => {
                    freeze(broker.pid());
                    return (whom, Wound::Frozen(broker.pid()));
                }
                Harm::Part => {
                    scene.routes.set_weather(*victim, Weather::Stalled);
                    return (whom, Wound::Parted(*victim));
                }
                Harm::Terminate => broker.stop(),
                Harm::Wipe => {
                    broker.kill();
                    broker.forget_everything();
                }
                _ => broker.kill(),
            }
        }
        (whom, Wound::Brokers(victims))
    }
}

impl Fault {
    /// As an operator does it: the next one only when all replicas have caught up with the last one. Says how long each was away.
    async fn upgrade(&self, scene: &mut Scene) -> String {
        let mut spans = Vec::new();
        for number in 0..scene.brokers.len() {
            let begin = Instant::now();
            let broker = &mut scene.brokers[number];
            if self.harm == Harm::Retire {
                broker.retire()
            } else {
                broker.stop()
            }
            let ended = begin.elapsed();
            broker.replace(NEWEST);
            broker.launch();
            broker.until_ready().await;
            until("all replicas have caught up", LONG, async || scene.is_replicated().await).await;
            let [ended, caught_up] = [ended, begin.elapsed()].map(|span| span.as_secs_f64());
            spans.push(format!("{number} ended after {ended:.1} s and had caught up after {caught_up:.1} s"));
        }
        spans.join(", ")
    }
}

/// After which a server that says nothing is taken for a frozen one.
const SILENCE: Duration = Duration::from_secs(5);

async fn fill_disk(scene: &Scene, disk: usize) -> (String, Wound) {
    let Some(disks) = &scene.disks else { return ("skipped: mounting a disk needs root".into(), Wound::None) };
    disks[disk].fill();
    // There may be some room in files that are there already.
    until("somebody meets the full disk", LONG, async || {
        // Without PostgreSQL nobody writes to any; and a frozen one says nothing.
        let Some(db) = answering(scene, PRODUCERS[0].database).await else { return true };
        if disk == TEMPORARY {
            let sort = "SELECT count(*) FROM (SELECT md5(n::text) m FROM generate_series(1, 20000) n ORDER BY m) s";
            return db.batch_execute(&format!("SET work_mem = '64kB'; {sort}")).await.is_err();
        }
        let problems = db.query_one("SELECT EXISTS (SELECT FROM sea_mq.problems)", &[]).await;
        let space =
            db.batch_execute("CREATE TEMPORARY TABLE t AS SELECT repeat('x', 100) FROM generate_series(1, 1000)").await;
        if disk == 0 { space.is_err() } else { problems.is_ok_and(|row| row.get(0)) }
    })
    .await;
    (String::new(), Wound::Full(disk))
}

/// A connection, if the server answers.
async fn answering(scene: &Scene, database: &str) -> Option<Database> {
    tokio::time::timeout(SILENCE, scene.connector(database).try_connect()).await.ok()?.ok()
}

/// Publishes all tables where that can be done just now; says where.
async fn publish(scene: &Scene) -> String {
    let mut published = Vec::new();
    for database in DATABASES {
        if let Some(db) = answering(scene, database).await
            && db.batch_execute("CREATE PUBLICATION everything FOR ALL TABLES").await.is_ok()
        {
            published.push(database);
        }
    }
    published.join(", ")
}

/// PostgreSQL's processes whose titles begin like this.
fn titled(scene: &Scene, start: &str) -> Vec<i32> {
    scene.cluster.processes().into_iter().filter(|pid| title(*pid).starts_with(start)).collect()
}

/// What a fault left behind.
#[derive(Debug)]
pub enum Wound {
    None,
    Frozen(i32),
    /// A process that others replace; and how many of its kind there were.
    Ended {
        victim: i32,
        title: &'static str,
        count: usize,
    },
    Server,
    Brokers(Vec<usize>),
    Network,
    Partner,
    /// This broker does not reach the others.
    Parted(usize),
    /// The disk of PostgreSQL (0), of the broker (1), or of PostgreSQL's temporary files (2).
    Full(usize),
    /// Sessions may not have much room for temporary files.
    Limited,
    Copied,
}

impl Wound {
    /// Whether there is nothing to be undone.
    pub fn heals_itself(&self) -> bool {
        matches!(self, Self::None | Self::Ended { .. })
    }

    /// Whether another process is in the place of the one that was ended.
    pub fn is_replaced(&self, scene: &Scene) -> bool {
        match self {
            // Writers connect anew when they please.
            Self::Ended { victim, title, count } if *title != SESSION => {
                let now = titled(scene, title);
                now.len() >= *count && !now.contains(victim)
            }
            Self::Ended { victim, .. } => !titled(scene, SESSION).contains(victim),
            _ => true,
        }
    }

    /// # Panics
    /// When a server does not start.
    pub async fn heal(&self, scene: &mut Scene) {
        match self {
            Self::None | Self::Ended { .. } => {}
            Self::Frozen(pid) => thaw(*pid),
            Self::Server => scene.cluster.start().await,
            Self::Brokers(numbers) => {
                numbers.iter().for_each(|number| scene.brokers[*number].launch());
                for number in numbers {
                    scene.brokers[*number].until_ready().await;
                }
            }
            Self::Network => scene.set_weather(Weather::Clear),
            Self::Partner => {
                scene.partner.set(Mood::Takes);
                if let Some(db) = answering(scene, partner::DATABASE).await {
                    partner::resume(&db).await;
                }
            }
            Self::Parted(broker) => scene.routes.set_weather(*broker, Weather::Clear),
            Self::Full(disk) => {
                scene.disks.iter().for_each(|disks| disks[*disk].free());
                // Whoever met the full disk may have ended; a nats-server switches JetStream off until it is started again.
                match disk {
                    0 => scene.cluster.revive().await,
                    1 => {
                        scene.brokers[0].stop();
                        scene.brokers[0].start().await;
                    }
                    _ => {}
                }
            }
            Self::Limited => scene.limit_space(None),
            Self::Copied => copy::check_and_drop(scene).await,
        }
    }
}
