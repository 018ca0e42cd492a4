//! One run: a plan on servers of its own, and the check at the end.

use std::fs;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use harness::{Chance, until};

use crate::LONG;
use crate::check::{Checker, Tolerance};
use crate::plan::{CALM, Plan, Step};
use crate::probe::{Probe, Recovery};
use crate::scene::Scene;
use crate::workload::Workload;

/// What came out of a run that held the promises.
pub struct Passed {
    pub events: usize,
    pub seconds: f64,
    /// How long it took after each step that was waited for, by the names of its faults.
    pub recoveries: Vec<(String, Recovery)>,
}

/// What happened when, for whoever has to find out why.
#[derive(Clone)]
pub struct Timeline {
    begin: Instant,
    lines: Arc<Mutex<Vec<String>>>,
    /// Log files of the servers.
    logs: Arc<Mutex<Vec<PathBuf>>>,
}

impl Timeline {
    /// Time begins now.
    pub fn begin() -> Self {
        Self { begin: Instant::now(), lines: Arc::default(), logs: Arc::default() }
    }

    /// # Panics
    /// Not in practice.
    pub fn say(&self, text: impl AsRef<str>) {
        let line = format!("[{:7.3} s] {}", self.seconds(), text.as_ref());
        self.lines.lock().expect("nobody panics with the lock").push(line);
    }

    pub fn seconds(&self) -> f64 {
        self.begin.elapsed().as_secs_f64()
    }

    /// Notes where the servers are.
    ///
    /// # Panics
    /// Not in practice.
    pub fn meet(&self, scene: &Scene) {
        self.logs.lock().expect("nobody panics with the lock").extend(scene.logs());
        self.say(format!("the servers run in {}", scene.directory.path().display()));
    }

    fn text(&self) -> String {
        self.lines.lock().expect("nobody panics with the lock").join("\n")
    }
}

/// Runs a plan.
///
/// # Errors
/// When a promise was broken or a server did not do what it should: the timeline, the first differences, and where the servers'
/// logs are.
pub async fn run(plan: &Plan, output: &Path) -> Result<Passed, String> {
    let timeline = Timeline::begin();
    timeline.say(format!("{} (broker: {:?}): {}", plan.name, plan.broking, plan.faults()));
    guarded(&plan.name, play(plan, timeline.clone()), &timeline, output).await
}

/// The outcome of `future`, which panics where something is wrong.
///
/// # Errors
/// When it did.
pub async fn guarded<T>(
    name: &str,
    future: impl Future<Output = T>,
    timeline: &Timeline,
    output: &Path,
) -> Result<T, String> {
    AssertUnwindSafe(future).catch_unwind().await.map_err(|panic| {
        let reason = panic.downcast_ref::<String>().cloned();
        let reason = reason.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default();
        keep(name, timeline, &reason, output)
    })
}

/// Writes down what is known of a failure, with copies of the servers' logs.
fn keep(name: &str, timeline: &Timeline, reason: &str, output: &Path) -> String {
    let directory = output.join(name.replace(' ', "-"));
    let report = format!("{}\n\n{reason}\n", timeline.text());
    let _ = fs::create_dir_all(&directory);
    let _ = fs::write(directory.join("report.txt"), &report);
    for log in timeline.logs.lock().expect("nobody panics with the lock").iter() {
        let name = log.parent().and_then(Path::file_name).unwrap_or_default().display().to_string();
        let _ = fs::copy(log, directory.join(format!("{name}.log")));
    }
    format!("{report}\nThis and the servers' logs are kept in {}", directory.display())
}

/// Panics where a promise is broken, as everything in the harness does.
async fn play(plan: &Plan, timeline: Timeline) -> Passed {
    let mut chance = Chance::from_seed(plan.seed);
    let mut scene = Scene::start("chaos", plan.broking, plan.needs_disks(), &[]).await;
    timeline.meet(&scene);
    let mut workload = Workload::start(&scene, &mut chance);
    let mut recoveries = Vec::new();
    tokio::time::sleep(CALM).await;
    for step in &plan.steps {
        if let Some(recovery) = take(step, &mut scene, &workload, &mut chance, &timeline).await {
            recoveries.push((step.faults.iter().map(|fault| fault.name).collect::<Vec<_>>().join("+"), recovery));
        }
    }
    tokio::time::sleep(CALM).await;
    let events = finish(&scene, &mut workload, &timeline, plan.tolerance()).await;
    Passed { events, seconds: timeline.seconds(), recoveries }
}

/// Ends the load and checks what came of it; returns how many events it had.
///
/// # Panics
/// When a promise was broken.
pub async fn finish(scene: &Scene, workload: &mut Workload, timeline: &Timeline, tolerance: Tolerance) -> usize {
    workload.stop_writing(scene).await;
    timeline.say("the writers have ended");
    let mut checker = Checker::new(scene, workload.ledger.transactions(), tolerance).await;
    checker.until_quiet().await;
    timeline.say("all is quiet");
    workload.stop_receiving().await;
    let events = checker.events();
    let findings = checker.findings().await;
    assert!(findings.is_empty(), "{events} events; {}", findings.join("\n"));
    assert!(events > 100, "the load has to be one: {events} events");
    events
}

/// Does a step's harm and undoes it.
async fn take(
    step: &Step,
    scene: &mut Scene,
    workload: &Workload,
    chance: &mut Chance,
    timeline: &Timeline,
) -> Option<Recovery> {
    let mut pauses = step.pauses.iter().copied().chain(std::iter::repeat(Duration::ZERO));
    let mut pause = async || tokio::time::sleep(pauses.next().unwrap_or_default()).await;
    let mut wounds = Vec::new();
    for fault in &step.faults {
        pause().await;
        timeline.say(format!("{} …", fault.name));
        let (whom, wound) = fault.inflict(scene, chance).await;
        timeline.say(format!("{} done: {whom}", fault.name));
        wounds.push((fault.name, wound));
    }
    let mut healed = Instant::now();
    for (name, wound) in &wounds {
        if !wound.heals_itself() {
            pause().await;
            wound.heal(scene).await;
            healed = Instant::now();
            timeline.say(format!("{name} is over"));
        }
    }
    if !step.recovery {
        return None;
    }
    let replaced = || wounds.iter().all(|(_, wound)| wound.is_replaced(scene));
    until("others take the place of the ended processes", LONG, async || replaced()).await;
    let recovery = Probe::new(scene, &workload.ledger).recovery(healed).await;
    timeline.say(format!("got over: {recovery}"));
    Some(recovery)
}
