//! Messages that wait in the table: retries, replays, and all messages of a parallel handler's lane.

use super::attempt::{self, Batch};
use super::direct::{AT_ONCE, alone};
use super::served::Served;
use super::worker::Worker;
use crate::host::session::{self, Failed};
use crate::inbox::waiting::{self, Waiting};
use sea_mq_model::domain::outcome::Failure;

impl Worker {
    /// Handles what is due of a subscription that the consumer handles itself. Returns whether there may be more.
    pub(super) fn serve_due(&mut self, place: usize) -> Result<bool, Failed> {
        let now = std::time::Instant::now();
        let served = &mut self.served[place];
        let due = served.subscription.is_direct() && served.due_at.is_some_and(|at| at <= now);
        if !due || served.subscription.paused || served.is_held_up(now) {
            return Ok(false);
        }
        let more = serve_lane(served, 0)?;
        served.look()?;
        self.handled_anything = true;
        Ok(more)
    }
}

/// Handles what is due in a lane: first attempts together, further ones each alone. Returns whether there may be more.
pub(super) fn serve_lane(served: &mut Served, lane: i16) -> Result<bool, Failed> {
    let subscription = std::rc::Rc::clone(&served.subscription);
    let most = if served.careful > 0 { 1 } else { AT_ONCE };
    let due = session::transaction(|| waiting::due(&subscription.name, lane, most))?;
    if due.is_empty() {
        return Ok(false);
    }
    let firsts = due.iter().take_while(|one| one.attempts == 0).count();
    let result = if firsts == 0 || served.careful > 0 {
        served.careful = served.careful.saturating_sub(1);
        each(served, &due[..1])
    } else {
        attempt::batch_waiting(&subscription, &due[..firsts]).or_else(|failure| {
            attempt::report_undone(&subscription, &failure);
            each(served, &due[..firsts])
        })
    };
    let batch = result.map_err(|failure| Failed(failure.message))?;
    Ok(served.note(batch)? > 0)
}

/// Handles messages each in a transaction of its own.
fn each(served: &Served, due: &[Waiting]) -> Result<Batch, Failure> {
    let mut handled = 0;
    for one in due {
        match alone(attempt::retry(&served.subscription, one)?) {
            Batch::Done { .. } => handled += 1,
            Batch::Blocked(_) if handled > 0 => break,
            blocked => return Ok(blocked),
        }
        pgrx::check_for_interrupts!();
    }
    Ok(Batch::Done { handled, processed: 0, duplicates: 0, failed: true })
}
