//! `/streams/{name}/tail`: what a stream stores, as server-sent events.
//!
//! One poller a stream, however many listen. Each listener has its own place in a bounded channel: who is too slow loses
//! what the channel could not hold and is told so, with the sequence to go on behind.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::Path;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use futures_util::stream::unfold;
use serde_json::Value;
use tokio::sync::broadcast::{self, error::RecvError};

use super::problem::Problem;
use super::request::{Ctx, Names};
use super::streams::events_after;
use crate::db::pool::{Access, Identity};
use crate::serve::App;

/// Between two questions of a poller.
const PAUSE: Duration = Duration::from_millis(200);
/// Events of one question, and of a channel.
const PAGE: i64 = 500;
const CHANNEL: usize = 2000;
const COMMENTS: Duration = Duration::from_secs(15);

/// An event of a stream, with its sequence there.
#[derive(Clone)]
struct Stored {
    sequence: i64,
    json: Arc<str>,
}

/// The pollers: those that somebody listens to. Who asks first lends its role, and who comes later has shown that it may
/// read the stream.
#[derive(Default)]
pub struct Pollers(Mutex<HashMap<(String, String), broadcast::Sender<Stored>>>);

pub async fn tail(ctx: Ctx, Path(name): Path<String>, headers: HeaderMap) -> Result<Response, Problem> {
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok()).map(str::parse::<i64>);
    let after = match last {
        Some(Ok(sequence)) => sequence,
        Some(Err(_)) => return Err(Problem::invalid("Last-Event-ID must be a stream sequence")),
        None => newest(&ctx, &name).await?,
    };
    // Before what is missed is asked for, so that nothing falls between.
    let receiver = ctx.app.pollers.listen(&ctx, &name, after);
    let missed = ctx.rows(Access::Read, Names::InPath, events_after(&name, after, PAGE, false)).await?;
    let missed: Vec<Stored> = missed.iter().filter_map(|row| stored(row)).collect();
    let listener = Listener { missed: missed.into_iter(), receiver, after, ending: ctx.app.ending.subscribe() };
    Ok(Sse::new(listener.events()).keep_alive(KeepAlive::new().interval(COMMENTS)).into_response())
}

/// The sequence that the stream ends with now.
async fn newest(ctx: &Ctx, name: &str) -> Result<i64, Problem> {
    let ask = crate::db::call::Ask::new(
        "SELECT coalesce(s.last_sequence, 0)::text FROM sea_mq.stream_status s WHERE s.stream = $1",
    )
    .with(name);
    let text = ctx.one(Access::Read, ask, "there is no such stream").await?;
    Ok(text.parse().unwrap_or_default())
}

fn stored(row: &str) -> Option<Stored> {
    let sequence = serde_json::from_str::<Value>(row).ok()?.get("stream_seq")?.as_i64()?;
    Some(Stored { sequence, json: row.into() })
}

struct Listener {
    missed: std::vec::IntoIter<Stored>,
    receiver: broadcast::Receiver<Stored>,
    /// Up to here it has heard.
    after: i64,
    ending: tokio::sync::watch::Receiver<bool>,
}

impl Listener {
    fn events(self) -> impl Stream<Item = Result<Event, Infallible>> {
        unfold(self, |mut listener| async move { listener.next().await.map(|event| (Ok(event), listener)) })
    }

    async fn next(&mut self) -> Option<Event> {
        loop {
            let stored = match self.missed.next() {
                Some(stored) => stored,
                None => {
                    let heard = tokio::select! {
                        heard = self.receiver.recv() => heard,
                        _ = self.ending.wait_for(|ending| *ending) => return None,
                    };
                    match heard {
                        Ok(stored) => stored,
                        Err(RecvError::Closed) => return None,
                        Err(RecvError::Lagged(lost)) => {
                            let told = format!("{{\"lost\":{lost},\"after\":{}}}", self.after);
                            return Some(Event::default().event("gap").data(told));
                        }
                    }
                }
            };
            if stored.sequence > self.after {
                self.after = stored.sequence;
                return Some(Event::default().event("event").id(stored.sequence.to_string()).data(&*stored.json));
            }
        }
    }
}

impl Pollers {
    fn listen(&self, ctx: &Ctx, stream: &str, after: i64) -> broadcast::Receiver<Stored> {
        let key = (ctx.caller.role.clone(), stream.to_owned());
        let Ok(mut pollers) = self.0.lock() else { return broadcast::channel(1).1 };
        if let Some(sender) = pollers.get(&key).filter(|sender| sender.receiver_count() > 0) {
            return sender.subscribe();
        }
        let (sender, receiver) = broadcast::channel(CHANNEL);
        pollers.insert(key.clone(), sender.clone());
        let identity =
            Identity { role: Some(ctx.caller.role.clone()), request_id: "tail".into(), ..Identity::default() };
        tokio::spawn(poll(Arc::clone(&ctx.app), identity, key.1, after, sender));
        receiver
    }
}

/// Until nobody listens.
async fn poll(app: Arc<App>, identity: Identity, stream: String, mut after: i64, sender: broadcast::Sender<Stored>) {
    while sender.receiver_count() > 0 {
        let rows = app.database.run(Access::Read, &identity, &events_after(&stream, after, PAGE, false)).await;
        let found = rows.unwrap_or_else(|error| {
            crate::serve::log::event("warning", &format!("tail of {stream}: {} {}", error.sqlstate, error.message));
            Vec::new()
        });
        let full = i64::try_from(found.len()).is_ok_and(|count| count == PAGE);
        for stored in found.iter().filter_map(|row| stored(row)) {
            after = stored.sequence;
            // Nobody listens any more: the loop ends.
            let _ = sender.send(stored);
        }
        if !full {
            tokio::time::sleep(PAUSE).await;
        }
    }
}
