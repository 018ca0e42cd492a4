//! Subscriptions with handlers working off a stream, against raw pulling and acknowledging of the same messages.
//!
//! All read the same stream of the same nats-server, each through a durable consumer of its own with the same filter and
//! the same number of messages outstanding, one after the other. A subscription is timed by its inbox, from the first
//! message that was received to the last that was handled; the raw reader from its first message to its last
//! acknowledgement.

use std::time::Duration;

use harness::{EVENTS, Stage};
use serde_json::{Map, Value, json};

use crate::figures::{Series, whole};
use crate::plot::{Bar, Panel, Scale};
use crate::pull::{self, Form};
use crate::report::{Measured, Row};
use crate::subscription::{self, Handling};
use crate::workload::{self, PAYLOAD_BYTES};
use crate::{Options, Outcome, say};

/// Values of `max_ack_pending`: the default, and one that hides the wait for the broker.
const OUTSTANDING: [i64; 2] = [50, 1000];
/// Events of one transaction.
const TRANSACTION: u32 = 1000;

/// Who works the stream off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contender {
    Raw(Form),
    Handler { inserts: bool, workers: u32 },
}

impl Contender {
    const ALL: [Self; 5] = [
        Self::Raw(Form::Stream),
        Self::Raw(Form::Fetch),
        Self::Handler { inserts: false, workers: 1 },
        Self::Handler { inserts: true, workers: 1 },
        Self::Handler { inserts: true, workers: 2 },
    ];
    /// How many of them, from the first, are raw.
    const RAW: usize = Form::ALL.len();

    const fn label(self) -> &'static str {
        match self {
            Self::Raw(form) => form.label(),
            Self::Handler { inserts: false, .. } => "no-op handler",
            Self::Handler { workers: 1, .. } => "handler that inserts",
            Self::Handler { .. } => "… with 2 workers",
        }
    }

    const fn key(self) -> &'static str {
        match self {
            Self::Raw(form) => form.key(),
            Self::Handler { inserts: false, .. } => "nothing",
            Self::Handler { workers: 1, .. } => "insert",
            Self::Handler { .. } => "insert_2_workers",
        }
    }
}

/// What was measured with one value of `max_ack_pending`.
struct Group {
    outstanding: i64,
    /// Messages per second, in the order of [`Contender::ALL`].
    rates: [Series; 5],
}

/// # Errors
/// When something breaks, a message that is not handled exactly once for instance.
pub async fn measure(options: &Options) -> Outcome<Measured> {
    let stage = workload::stage("inbox").await;
    let versions = workload::versions(&stage).await?;
    stage.connect().await.run(subscription::HANDLERS).await;
    let mut bench = Bench { stage, messages: 0, runs: 0, first: Series::default() };
    let mut groups = OUTSTANDING.map(|outstanding| Group { outstanding, rates: Default::default() });
    for repetition in 0..=options.repetitions {
        bench.round(&mut groups, repetition, options).await?;
    }
    let messages = whole(options.inbox_messages.into());
    let mut rows: Vec<Row> = groups.iter().flat_map(Group::rows).collect();
    rows.push(Row::new(
        "subscribe() to first received",
        format!("{:.0} ms", bench.first.median()),
        bench.first.range(0, " ms"),
    ));
    let json = json!({
        "messages": options.inbox_messages, "payload_bytes": PAYLOAD_BYTES, "repetitions": options.repetitions,
        "fsync": true, "versions": versions, "groups": groups.iter().map(Group::json).collect::<Vec<_>>(),
        "subscribe_to_first_received": bench.first.json("ms"),
    });
    let title = format!("inbox: {messages} messages of {PAYLOAD_BYTES} bytes, handled, or pulled and acknowledged");
    let panels = groups.iter().map(|group| group.panel(&messages)).collect();
    Ok(Measured { key: "inbox", title, rows, panels, json })
}

struct Bench {
    stage: Stage,
    /// Messages that the stream has.
    messages: u32,
    /// Subscriptions so far.
    runs: u32,
    /// Milliseconds from `subscribe()` to the first message received.
    first: Series,
}

impl Bench {
    /// Emits and relays until the stream has `count` messages.
    async fn fill(&mut self, count: u32) -> Outcome<()> {
        if self.messages < count {
            let db = self.stage.connect().await;
            for first in (self.messages..count).step_by(TRANSACTION as usize) {
                let last = count.min(first + TRANSACTION) - 1;
                let emit = workload::emit("(100000 + i % 900000)");
                db.run(&format!("SELECT count({emit}) FROM generate_series({first}, {last}) AS i")).await;
            }
            let limit = Duration::from_secs(60) + Duration::from_millis(count.into());
            self.stage.broker.until_count(EVENTS, count.into(), limit).await;
            harness::until("the relay has saved its cursor", limit, async || workload::is_drained(&db).await).await;
            self.messages = count;
        }
        let stored = self.stage.broker.count(EVENTS).await;
        if stored != u64::from(count) {
            return Err(format!("the stream has {stored} messages instead of {count}").into());
        }
        Ok(())
    }

    /// Has each contender work the stream off once; round 0 is the warm-up, over a part of the messages.
    async fn round(&mut self, groups: &mut [Group], number: u32, options: &Options) -> Outcome<()> {
        let warm_up = number == 0;
        let (count, title) = if warm_up {
            ((options.inbox_messages / 5).max(2), "warm-up".to_owned())
        } else {
            (options.inbox_messages, format!("{number} of {}", options.repetitions))
        };
        self.fill(count).await?;
        for (place, group) in groups.iter_mut().enumerate() {
            // Each comes first, second, … in turn.
            for turn in 0..Contender::ALL.len() {
                let index = (turn + 2 * number as usize + place) % Contender::ALL.len();
                let rate = self.run(Contender::ALL[index], group.outstanding, warm_up).await?;
                let label = Contender::ALL[index].label();
                say(format!("inbox, {title}: {}, {label}: {} messages/s", group.outstanding, whole(rate)));
                if !warm_up {
                    group.rates[index].push(rate);
                }
            }
        }
        Ok(())
    }

    /// Returns messages per second.
    async fn run(&mut self, contender: Contender, outstanding: i64, warm_up: bool) -> Outcome<f64> {
        match contender {
            Contender::Raw(form) => {
                let url = self.stage.broker.url();
                pull::pull(&url, EVENTS, "orders.event.>", form, outstanding, self.messages).await
            }
            Contender::Handler { inserts, workers } => {
                self.runs += 1;
                let name = format!("bench__{}", self.runs);
                let handling = Handling { inserts, workers, max_ack_pending: outstanding };
                let handled = subscription::run(&self.stage, &name, handling, self.messages).await?;
                if !warm_up {
                    self.first.push(handled.first);
                }
                Ok(handled.rate)
            }
        }
    }
}

impl Group {
    /// The faster raw form is what the handlers are held against.
    fn best(&self) -> usize {
        if self.rates[1].median() > self.rates[0].median() { 1 } else { 0 }
    }

    fn ratio(&self, index: usize) -> (f64, Series) {
        let raw = &self.rates[self.best()];
        (self.rates[index].median() / raw.median(), self.rates[index].over(raw))
    }

    fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for (index, contender) in Contender::ALL.iter().enumerate() {
            let label = format!("{} outstanding: {}", self.outstanding, contender.label());
            rows.push(Row::rate(&label, &self.rates[index], "/s"));
            if index >= Contender::RAW {
                let (ratio, ratios) = self.ratio(index);
                rows.push(Row::new("  … / faster raw", format!("{ratio:.2}"), ratios.range(2, "")));
            }
        }
        rows
    }

    fn panel(&self, messages: &str) -> Panel {
        let (ratio, _) = self.ratio(Contender::RAW);
        let bars = Contender::ALL.iter().zip(&self.rates);
        let bars = bars.map(|(contender, rate)| Bar::of(contender.label(), rate, whole(rate.median())));
        Panel {
            title: format!("Handling {messages} messages, {} outstanding: no-op / raw = {ratio:.2}", self.outstanding),
            unit: "messages per second, median and range".into(),
            scale: Scale::Linear,
            bars: bars.collect(),
        }
    }

    fn json(&self) -> Value {
        let mut contenders = Map::new();
        for (index, contender) in Contender::ALL.iter().enumerate() {
            let (ratio, ratios) = self.ratio(index);
            let rate = self.rates[index].json("messages/s");
            contenders.insert(
                contender.key().into(),
                json!({ "rate": rate, "to_raw": ratio, "to_raw_by_round": ratios.values }),
            );
        }
        json!({
            "max_ack_pending": self.outstanding, "raw_reference": Contender::ALL[self.best()].key(),
            "contenders": contenders,
        })
    }
}
