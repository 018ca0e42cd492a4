//! A task: one turn of a lane of a subscription, by whichever process.

use std::borrow::Cow;

use super::attempt::InTurn;
use super::delivered::Delivered;
use super::kept;
use crate::host::session::Failed;
use crate::inbox::subscriptions::Subscription;
use crate::streams::consumers::Trouble;
use sea_mq_model::domain::message::Message;
use sea_mq_model::pipeline::task::{Batch, Ending, Report, Task};
use sea_mq_model::pipeline::{self, Plan, Tally, Turn};

/// Does a task. `save` runs in the transaction of those that are handled together, as the worker.
pub(super) fn perform(subscription: &Subscription, task: &Task, save: impl FnMut(&Tally)) -> Report {
    let mut report = Report::nothing(task, Ending::Done);
    report.ending = work(subscription, task, &mut report, save).unwrap_or_else(|error| Ending::Failed(error.0));
    report
}

fn work(
    subscription: &Subscription,
    task: &Task,
    report: &mut Report,
    save: impl FnMut(&Tally),
) -> Result<Ending, Failed> {
    let Report { care, floor, .. } = report;
    if task.due {
        match kept::serve_due(subscription, task.lane.number, (floor, task.room), care)? {
            Turn::Done(tally) => report.due = tally,
            Turn::Blocked(trouble) => return Ok(blocked(trouble)),
        }
    }
    let messages: Cow<[Message]> = match &task.batch {
        Batch::Nothing => return Ok(Ending::Done),
        Batch::Logged(messages) => Cow::Borrowed(messages),
        Batch::Delivered(deliveries) => {
            deliveries.iter().map(|delivery| Message::from_delivery(delivery, &subscription.stream)).collect()
        }
    };
    let room = task.room.saturating_sub(report.due.failed);
    if room == 0 {
        return Ok(Ending::Done);
    }
    // What was due may have given reason for more care.
    let plan = match care.plan(0) {
        alone @ Plan::Alone(_) => alone,
        Plan::Together(_) => task.plan,
    };
    let mut shell = InTurn::new(subscription, task.lane.number, Delivered::new(save));
    let turn = pipeline::take_turn(care, plan, room, &messages, &mut shell);
    report.saved = shell.source.is_saved;
    match turn.map_err(|failure| Failed(failure.message))? {
        Turn::Done(tally) => report.brought = tally,
        Turn::Blocked(trouble) => return Ok(blocked(trouble)),
    }
    Ok(Ending::Done)
}

fn blocked(Trouble { kind, error, hint }: Trouble) -> Ending {
    Ending::Blocked { kind, error, hint }
}
