//! What is new in the database, page by page from a place: streams by their sequence, the inbox by the ids of its messages.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::trace::v1::Span;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::span::{EventRow, MessageRow};
use crate::db::call::Call;
use crate::db::config::Target;
use crate::db::probe::Probe;

/// How long an answer of the database may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Events or messages of a page, with those that are not traced.
const PAGE: i64 = 1000;
/// Messages that are followed until they are done: sea_mq.traced_messages takes as many.
const FOLLOWED: usize = 10_000;
/// How long an id is looked for that is nowhere: its transaction was rolled back, or is not over.
const NOWHERE: Duration = Duration::from_secs(600);

/// What is read by a place of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Stream(String),
    Inbox,
}

/// What was read, and what follows from it once it is sent.
pub struct Page {
    pub spans: Vec<Span>,
    last: Option<i64>,
    waiting: Vec<i64>,
    done: Vec<i64>,
}

pub struct Source {
    probe: Probe,
    max_age: Duration,
    /// All up to here is passed.
    places: BTreeMap<Place, i64>,
    /// Messages before the inbox's place that were not done yet, and when they were last known to be there.
    waiting: BTreeMap<i64, Instant>,
}

#[derive(Deserialize)]
struct Known {
    stream: Option<String>,
    place: i64,
    last: i64,
}

impl Known {
    fn place(&self) -> Place {
        self.stream.clone().map_or(Place::Inbox, Place::Stream)
    }
}

impl Source {
    /// `max_age`: how far back it begins.
    pub fn new(target: Target, max_age: Duration) -> Self {
        let probe = Probe::new(target, PATIENCE);
        Self { probe, max_age, places: BTreeMap::new(), waiting: BTreeMap::new() }
    }

    /// The places behind which there is something.
    ///
    /// # Errors
    /// In words, what the database says.
    pub async fn look(&mut self) -> Result<Vec<Place>, String> {
        let ends = self.known(Duration::ZERO).await?;
        let here: BTreeSet<Place> = ends.iter().map(Known::place).collect();
        self.places.retain(|place, _| here.contains(place));
        for end in ends.iter().filter(|end| end.stream.is_some()) {
            // A stream that was made anew counts from 1 again.
            if self.places.get(&end.place()).is_some_and(|place| *place > end.last) {
                self.places.remove(&end.place());
            }
        }
        if here.iter().any(|place| !self.places.contains_key(place)) {
            for start in self.known(self.max_age).await? {
                self.places.entry(start.place()).or_insert(start.place);
            }
        }
        self.waiting.retain(|_, seen| seen.elapsed() < NOWHERE);
        // Of the inbox there may always be something: what was waiting is done.
        let behind = |end: &Known| self.places.get(&end.place()).is_some_and(|place| *place < end.last);
        let new = ends.iter().filter(|end| end.stream.is_none() || behind(end));
        Ok(new.map(Known::place).collect())
    }

    async fn known(&self, max_age: Duration) -> Result<Vec<Known>, String> {
        let age = format!("{} ms", max_age.as_millis());
        self.rows(Call::of("sea_mq.trace_places").with("max_age", "interval", age), "").await
    }

    /// The page behind a place.
    ///
    /// # Errors
    /// In words, what the database says.
    pub async fn read(&self, place: &Place) -> Result<Page, String> {
        let after = self.places.get(place).copied().unwrap_or_default();
        match place {
            Place::Stream(stream) => self.read_stream(stream, after).await,
            Place::Inbox => self.read_inbox(after).await,
        }
    }

    async fn read_stream(&self, stream: &str, after: i64) -> Result<Page, String> {
        let call = Call::of("sea_mq.traced_events")
            .with("stream", "text", stream)
            .with("after_seq", "bigint", after)
            .with("max", "integer", PAGE);
        let rows: Vec<EventRow> = self.rows(call, "emitted due committed stored").await?;
        Ok(Page {
            spans: rows.iter().filter_map(|row| row.span(stream)).collect(),
            last: rows.iter().map(|row| row.stream_seq).max(),
            waiting: Vec::new(),
            done: Vec::new(),
        })
    }

    async fn read_inbox(&self, after: i64) -> Result<Page, String> {
        let waiting: Vec<String> = self.waiting.keys().map(i64::to_string).collect();
        let call = Call::of("sea_mq.traced_messages")
            .with("after_id", "bigint", after)
            .with("waiting", "bigint[]", format!("[{}]", waiting.join(",")))
            .with("max", "integer", PAGE);
        let rows: Vec<MessageRow> = self.rows(call, "begun done").await?;
        let (waiting, done): (Vec<&MessageRow>, Vec<&MessageRow>) = rows.iter().partition(|row| row.is_waiting());
        Ok(Page {
            spans: done.iter().filter_map(|row| row.span()).collect(),
            last: done.iter().map(|row| row.id).filter(|id| *id > after).max(),
            waiting: waiting.iter().map(|row| row.id).collect(),
            done: done.iter().map(|row| row.id).collect(),
        })
    }

    /// A page was dealt with. Whether the place has moved, so that there may be another one.
    pub fn pass(&mut self, place: &Place, page: Page) -> bool {
        for id in page.done {
            self.waiting.remove(&id);
        }
        self.waiting.extend(page.waiting.into_iter().map(|id| (id, Instant::now())));
        while self.waiting.len() > FOLLOWED {
            self.waiting.pop_first();
        }
        let Some(last) = page.last else { return false };
        self.places.insert(place.clone(), last);
        true
    }

    /// Rows of a function, whose times, named as in `emitted` for `emitted_at`, are told in microseconds since 1970.
    async fn rows<T: DeserializeOwned>(&self, call: Call, times: &str) -> Result<Vec<T>, String> {
        let times: String = times
            .split_whitespace()
            .map(|name| format!(", '{name}_us', (extract(epoch FROM r.{name}_at) * 1000000)::bigint"))
            .collect();
        let columns = format!("(to_jsonb(r) || jsonb_build_object({}))::text", times.trim_start_matches(", "));
        let rows = self.probe.ask(Some("sea_mq_viewer"), "traces", &call.select(&columns, "r")).await?;
        rows.iter()
            .map(|row| serde_json::from_str(row).map_err(|error| format!("an answer that cannot be read: {error}")))
            .collect()
    }
}
