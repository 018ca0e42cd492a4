//! Messages that wait in the table: retries, replays, and all messages of a parallel handler's lane.

use super::attempt;
use super::served::Served;
use super::worker::Worker;
use crate::host::session::{self, Failed};
use crate::inbox::waiting;

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
    if served.retry_room() == 0 {
        // Others may have had their attempt meanwhile.
        served.look()?;
    }
    let (floor, room) = (served.open_floor(), served.retry_room());
    let careful = served.is_careful(true);
    let most = if careful { attempt::ALONE } else { served.portion() };
    let due = session::transaction(|| waiting::due(&subscription.name, lane, most, floor))?;
    if due.is_empty() {
        return Ok(false);
    }
    let firsts = due.iter().take_while(|one| one.attempts == 0).count();
    let result = if firsts == 0 {
        attempt::retries(&subscription, &due)
    } else if careful {
        attempt::retries(&subscription, &due[..firsts.min(room)])
    } else {
        attempt::batch_waiting(&subscription, &due[..firsts], room).or_else(|failure| {
            served.undone(&failure, firsts);
            attempt::retries(&subscription, &due[..firsts.min(room)])
        })
    };
    let batch = result.map_err(|failure| Failed(failure.message))?;
    let handled = served.note(batch)?;
    if !careful && firsts > 0 {
        served.measure(firsts, handled);
    }
    // What follows the last one that was dealt with, in the order of their numbers.
    if let Some(last) = due[..handled].iter().rfind(|one| one.is_first) {
        served.raise_floor(last.id + 1);
    }
    if careful || served.is_careful(false) {
        served.handled_alone(handled);
    }
    Ok(handled > 0)
}
