//! OpenTelemetry traces: what became of events that came with a sampled `traceparent`, sent to a collector over OTLP.
//!
//! Nothing is kept but places in what the database retains: a page is read, sent, and only then passed. So a collector that is
//! away costs no memory, and what is sent twice has the same ids. What is older than the limit is passed without being sent.

mod collector;
pub mod options;
mod source;
mod span;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::serve::App;
use crate::serve::log;
use collector::{Collector, Refusal};
use options::Settings;
use source::{Place, Source};

/// How often the database is asked.
const TICK: Duration = Duration::from_secs(1);
/// Pages of a place in a row, before others have their turn.
const PAGES: usize = 20;
/// Between attempts while something is away: doubled from the first to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How long the last turn may take when the gateway ends.
const FLUSH: Duration = Duration::from_secs(5);

/// Why a turn did not come to its end.
enum Trouble {
    Database(String),
    Collector(Refusal),
}

/// Starts the exporter, if there is a collector. It ends, within [`FLUSH`], after the gateway is told to.
///
/// # Errors
/// In words, what of the options cannot be.
pub fn start(app: &Arc<App>) -> Result<Option<JoinHandle<()>>, String> {
    let Some(settings) = app.options.traces.settings()? else { return Ok(None) };
    let exporter = Exporter {
        source: Source::new(app.target.clone(), settings.max_age),
        collector: Collector::new(&settings, app.target.config.get_dbname().unwrap_or_default())?,
        settings,
        app: Arc::clone(app),
    };
    Ok(Some(tokio::spawn(exporter.run(app.ending.subscribe()))))
}

struct Exporter {
    source: Source,
    collector: Collector,
    settings: Settings,
    app: Arc<App>,
}

impl Exporter {
    async fn run(mut self, mut ending: watch::Receiver<bool>) {
        let mut failures = 0;
        loop {
            // A turn that is left in the middle has passed nothing that was not sent.
            let wait = tokio::select! {
                result = self.turn() => self.wait(result, &mut failures),
                _ = ending.wait_for(|ending| *ending) => break,
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = ending.wait_for(|ending| *ending) => break,
            }
        }
        if !matches!(tokio::time::timeout(FLUSH, self.flush()).await, Ok(Ok(()))) {
            log::event("warning", "ending: not all traces were exported; they are when it starts again");
        }
    }

    /// Turns until nothing is left.
    async fn flush(&mut self) -> Result<(), Trouble> {
        while self.turn().await? {}
        Ok(())
    }

    /// How long until the next turn. Trouble is told of when it begins and when it ends.
    fn wait(&self, result: Result<bool, Trouble>, failures: &mut u32) -> Duration {
        let trouble = match result {
            Ok(more) => {
                if *failures > 0 {
                    log::event("notice", "traces are exported again");
                }
                *failures = 0;
                return if more { Duration::ZERO } else { TICK };
            }
            Err(trouble) => trouble,
        };
        let (why, at_least) = match trouble {
            Trouble::Database(why) => (format!("the database: {why}"), None),
            Trouble::Collector(refusal) => (format!("the collector: {}", refusal.why), refusal.wait),
        };
        if *failures == 0 {
            log::event("warning", &format!("traces are not exported: {why}"));
        }
        *failures = failures.saturating_add(1);
        backoff(*failures, chance()).max(at_least.unwrap_or_default())
    }

    /// All that is new, of each place. Whether there is more.
    async fn turn(&mut self) -> Result<bool, Trouble> {
        let (mut more, mut refused) = (false, None);
        for place in self.source.look().await.map_err(Trouble::Database)? {
            match self.follow(&place, refused.is_some()).await {
                Ok(left) => more |= left,
                Err(Trouble::Collector(refusal)) => refused = Some(refusal),
                Err(database) => return Err(database),
            }
        }
        refused.map_or(Ok(more), |refusal| Err(Trouble::Collector(refusal)))
    }

    /// Some pages of a place. `is_away`: the collector is, so only what is too old is passed. Whether there is more.
    async fn follow(&mut self, place: &Place, is_away: bool) -> Result<bool, Trouble> {
        for _ in 0..PAGES {
            let mut page = self.source.read(place).await.map_err(Trouble::Database)?;
            let spans = std::mem::take(&mut page.spans);
            let (fresh, old): (Vec<Span>, Vec<Span>) = spans.into_iter().partition(|span| self.is_fresh(span));
            let meter = &self.app.meter.traces;
            let (count, mut dropped, mut exported, mut refused) = (fresh.len(), old.len(), 0, None);
            if count > 0 {
                if is_away {
                    return Ok(false);
                }
                match self.collector.send(fresh).await {
                    Ok(rejected) => {
                        exported = count.saturating_sub(rejected);
                        dropped += count - exported;
                    }
                    Err(refusal) => {
                        meter.failed();
                        if refusal.is_passing {
                            return Err(Trouble::Collector(refusal));
                        }
                        dropped += count;
                        refused = Some(refusal);
                    }
                }
            }
            meter.passed(exported, dropped);
            let moved = self.source.pass(place, page);
            match refused {
                Some(refusal) => return Err(Trouble::Collector(refusal)),
                None if !moved => return Ok(false),
                None => {}
            }
        }
        Ok(true)
    }

    fn is_fresh(&self, span: &Span) -> bool {
        Duration::from_nanos(span.end_time_unix_nano) + self.settings.max_age >= now()
    }
}

/// Since 1970.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// From 0 to 1: several gateways that lost the same collector do not come back at once.
fn chance() -> f64 {
    f64::from(u32::try_from(uuid::Uuid::new_v4().as_u128() & 0xffff).unwrap_or_default()) / 65536.0
}

/// After so many failures, at least one: half of it in any case, and of the other half as much as `jitter` says.
fn backoff(failures: u32, jitter: f64) -> Duration {
    let whole = BACKOFF.0.saturating_mul(1 << (failures - 1).min(10)).min(BACKOFF.1);
    whole.mul_f64(0.5 + jitter / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_is_doubled_up_to_its_most() {
        let waits: Vec<Duration> = [1, 2, 3, 6, 100].map(|failures| backoff(failures, 1.0)).to_vec();
        assert_eq!(waits, [1, 2, 4, 30, 30].map(Duration::from_secs));
        assert_eq!(backoff(2, 0.0), Duration::from_secs(1));
    }
}
