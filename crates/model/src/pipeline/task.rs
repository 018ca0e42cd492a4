//! What the consumer has another process do, and what comes of it: a task, and a report.
//!
//! Both go through shared memory as bytes. A task is one turn of one lane of a subscription.

use std::borrow::Cow;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Care, Lane, Plan, Tally};
use crate::broker::{Delivery, SubscriptionId};
use crate::domain::message::Message;

/// Texts of a report are cut to so many bytes.
const LONGEST_TEXT: usize = 2000;

/// Messages that a task brings along.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Batch<'a> {
    /// None: what waits in the inbox alone.
    Nothing,
    /// As the broker delivered them.
    Delivered(Cow<'a, [Delivery]>),
    /// From this database's own log.
    Logged(Cow<'a, [Message]>),
}

/// One turn of a lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task<'a> {
    pub subscription: SubscriptionId,
    pub lane: Lane,
    /// Of the descriptions that the consumer goes by; a process that knows others reads them first.
    pub fingerprint: String,
    /// Something may be due in the inbox. `floor`: no message waits for its first attempt with a smaller number.
    pub due: bool,
    pub floor: i64,
    pub care: Care,
    pub plan: Plan,
    /// How many messages may fail.
    pub room: usize,
    /// Handled after what is due.
    pub batch: Batch<'a>,
}

/// How a turn ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    Done,
    /// The handler cannot be run: kind, error and hint.
    Blocked {
        kind: String,
        error: String,
        hint: Option<String>,
    },
    /// An error of the database that is nobody's fault, after which an attempt may be without its outcome.
    Failed(String),
}

/// What has come of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub ending: Ending,
    pub care: Care,
    /// Of what was due. `floor` as in the task, afterwards.
    pub due: Tally,
    pub floor: i64,
    /// Of what the task brought along.
    pub brought: Tally,
    /// It was handled together, and the progress was saved in that transaction.
    pub saved: bool,
}

impl Report {
    /// Of a task of which nothing was done.
    pub fn nothing(task: &Task, ending: Ending) -> Self {
        let (due, brought) = (Tally::default(), Tally::default());
        Self { ending, care: task.care, due, floor: task.floor, brought, saved: false }
    }

    /// With texts that fit.
    #[must_use]
    pub fn shortened(mut self) -> Self {
        match &mut self.ending {
            Ending::Done => {}
            Ending::Failed(error) => shorten(error),
            Ending::Blocked { kind, error, hint } => {
                [kind, error].into_iter().chain(hint.as_mut()).for_each(shorten);
            }
        }
        self
    }
}

fn shorten(text: &mut String) {
    let end = (0..=LONGEST_TEXT.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    text.truncate(end);
}

/// As bytes. `None`: it cannot be written, which no task and no report is known to be.
pub fn encode(value: &impl Serialize) -> Option<Vec<u8>> {
    postcard::to_stdvec(value).ok()
}

/// From bytes.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    postcard::from_bytes(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(batch: Batch<'_>) -> Task<'_> {
        let (care, plan) = (Care::default(), Plan::Together(64));
        Task {
            subscription: 7,
            lane: Lane::ONLY,
            fingerprint: "1 2".into(),
            due: true,
            floor: 9,
            care,
            plan,
            room: 50,
            batch,
        }
    }

    #[test]
    fn a_task_comes_out_as_it_went_in() {
        let delivery = Delivery {
            token: 1,
            sequence: 2,
            delivered: 3,
            stored_us: -4,
            pending: 5,
            subject: "orders.event.paid.v1".into(),
            headers: vec![("a".into(), "\u{e4}".into())],
            body: vec![0, 255].into(),
        };
        let message = Message { message_id: "m".into(), event_version: Some(2), ..Message::default() };
        for batch in [Batch::Nothing, Batch::Delivered(vec![delivery].into()), Batch::Logged(vec![message].into())] {
            let task = task(batch);
            assert_eq!(decode::<Task>(&encode(&task).unwrap()), Some(task));
        }
    }

    #[test]
    fn a_report_comes_out_as_it_went_in_and_what_is_cut_off_is_none() {
        let ending = Ending::Blocked { kind: "k".into(), error: "\u{e4}".repeat(2000), hint: None };
        let report = Report::nothing(&task(Batch::Nothing), ending).shortened();
        let bytes = encode(&report).unwrap();
        assert!(bytes.len() < 4096);
        assert_eq!(decode::<Report>(&bytes), Some(report));
        assert_eq!(decode::<Report>(&bytes[..bytes.len() / 2]), None);
    }
}
