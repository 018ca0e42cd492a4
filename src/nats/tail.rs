//! Reading which messages a stream holds beyond a sequence: sequence and `Nats-Msg-Id` only.
//!
//! A message that is missed here is published twice, so completeness is proved and not assumed: deliveries must be
//! numbered without a gap, and the end is the end only if the stream's leader holds nothing more up to its last sequence.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy, pull};
use async_nats::jetstream::stream::{RawMessageErrorKind, Stream};
use futures_util::StreamExt;
use serde_json::Value;
use tokio::time::Instant;

use super::api::Api;
use super::errors;
use super::streams::check_name;
use crate::broker::{Fault, FaultKind, Stored};

/// Messages asked for at a time.
const BATCH: usize = 5000;
/// After this long without a request the server removes the consumer, should we not come to do it.
const ABANDONED: Duration = Duration::from_secs(30);
/// Between two looks at a replica that lags behind the leader.
const LAG_PAUSE: Duration = Duration::from_millis(20);

/// What was read: the messages, and the stream's last sequence up to which they are complete.
pub(super) type Tail = (Vec<Stored>, u64);

/// Reads all messages with a sequence above `after`.
pub(super) async fn read(api: &Api, stream: &str, after: u64) -> Result<Tail, Fault> {
    check_name(stream)?;
    let missing = || Fault::new(FaultKind::StreamMissing, format!("stream {stream} does not exist"));
    let info = api.stream_info(stream).await?.ok_or_else(missing)?;
    let number = |path: &str| info.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    let last = number("/state/last_seq");
    if after >= last || number("/state/messages") == 0 {
        return Ok((Vec::new(), last));
    }
    let handle = api.context().get_stream_no_info(stream).await.map_err(|error| server(&error))?;
    let mut reader =
        Reader { api, handle, stream, last, seen: after, found: Found::default(), progress: Instant::now() };
    // A consumer would take part in the retention of the other kinds of stream.
    if info.pointer("/config/retention").and_then(Value::as_str) == Some("limits") {
        reader.by_consumer().await?;
    } else {
        reader.one_by_one().await?;
    }
    Ok((reader.found.into_messages(), last))
}

struct Reader<'a> {
    api: &'a Api,
    handle: Stream<()>,
    stream: &'a str,
    /// The last sequence to read.
    last: u64,
    /// Complete up to this sequence.
    seen: u64,
    found: Found,
    /// When something was read last. It bounds the whole, however long the tail is.
    progress: Instant,
}

impl Reader<'_> {
    async fn by_consumer(&mut self) -> Result<(), Fault> {
        while self.seen < self.last {
            let consumer = self.consumer().await?;
            let result = self.drain(&consumer).await;
            // Best effort: the server removes it in time.
            let _ = self.handle.delete_consumer(&consumer.cached_info().name).await;
            result?;
        }
        Ok(())
    }

    async fn consumer(&self) -> Result<Consumer<pull::Config>, Fault> {
        let config = pull::Config {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: self.seen + 1 },
            ack_policy: AckPolicy::None,
            headers_only: true,
            memory_storage: true,
            num_replicas: 1,
            inactive_threshold: ABANDONED,
            ..pull::Config::default()
        };
        let creating = self.api.context().create_consumer_on_stream(config, self.stream);
        creating.await.map_err(|error| server(&error))
    }

    /// Reads until the end, or until a gap in the deliveries calls for another consumer.
    async fn drain(&mut self, consumer: &Consumer<pull::Config>) -> Result<(), Fault> {
        let mut delivered = 0;
        while self.seen < self.last {
            // Without an expiry the server says at once that there is no more, instead of waiting for it.
            let fetch = consumer.fetch().max_messages(BATCH).messages();
            let mut batch = fetch.await.map_err(|error| server(&error))?;
            let mut pending = 0;
            let before = self.seen;
            while let Some(message) = self.within(batch.next()).await? {
                let message = message.map_err(|error| Fault::new(FaultKind::Server, error.to_string()))?;
                let info = message.info().map_err(|error| Fault::new(FaultKind::Server, error.to_string()))?;
                if info.consumer_sequence != delivered + 1 {
                    return Ok(());
                }
                delivered = info.consumer_sequence;
                pending = info.pending;
                self.note(info.stream_sequence, message.headers.as_ref());
            }
            if (pending == 0 || self.seen == before) && self.at_end().await? {
                self.seen = self.last;
            }
        }
        Ok(())
    }

    /// Whether the stream's leader holds nothing between what was seen and the last sequence.
    async fn at_end(&mut self) -> Result<bool, Fault> {
        if self.seen >= self.last {
            return Ok(true);
        }
        match self.next_stored().await? {
            Some((sequence, _)) if sequence <= self.last => {
                self.check_progress()?;
                tokio::time::sleep(LAG_PAUSE).await;
                Ok(false)
            }
            Some(_) | None => Ok(true),
        }
    }

    async fn one_by_one(&mut self) -> Result<(), Fault> {
        while self.seen < self.last {
            match self.next_stored().await? {
                Some((sequence, headers)) if sequence <= self.last => self.note(sequence, Some(&headers)),
                Some(_) | None => self.seen = self.last,
            }
        }
        Ok(())
    }

    /// The first message beyond what was seen, from the leader.
    async fn next_stored(&self) -> Result<Option<(u64, HeaderMap)>, Fault> {
        let get = self.handle.raw_message_builder().sequence(self.seen + 1).next_by_subject(">").send();
        match get.await {
            Ok(message) => Ok(Some((message.sequence, message.headers))),
            Err(error) if matches!(error.kind(), RawMessageErrorKind::NoMessageFound) => Ok(None),
            Err(error) => Err(server(&error)),
        }
    }

    fn note(&mut self, sequence: u64, headers: Option<&HeaderMap>) {
        self.progress = Instant::now();
        if sequence > self.seen && sequence <= self.last {
            let id = headers.and_then(|headers| headers.get(NATS_MESSAGE_ID));
            self.found.push(sequence, id.map(|id| id.as_str()));
        }
        self.seen = self.seen.max(sequence.min(self.last));
    }

    async fn within<T>(&self, work: impl Future<Output = T>) -> Result<T, Fault> {
        let bound = tokio::time::timeout(self.api.timeout, work);
        bound.await.map_err(|_| self.timed_out())
    }

    fn check_progress(&self) -> Result<(), Fault> {
        if self.progress.elapsed() > self.api.timeout { Err(self.timed_out()) } else { Ok(()) }
    }

    fn timed_out(&self) -> Fault {
        Fault::new(FaultKind::Timeout, format!("reading stream {} stopped at sequence {}", self.stream, self.seen))
    }
}

/// What was found so far, the ids in one piece. A string each, allocated among the library's short-lived buffers, would
/// fragment the heap so much that reading a million messages spends half its time in the allocator.
#[derive(Default)]
struct Found {
    ids: String,
    /// Sequence, and where the id ends in `ids`, if there is one. It begins where the one before it ends.
    messages: Vec<(u64, Option<usize>)>,
}

impl Found {
    fn push(&mut self, sequence: u64, id: Option<&str>) {
        let end = id.map(|id| {
            self.ids.push_str(id);
            self.ids.len()
        });
        self.messages.push((sequence, end));
    }

    fn into_messages(self) -> Vec<Stored> {
        let mut start = 0;
        let stored = |(sequence, end): (u64, Option<usize>)| {
            let message_id =
                end.and_then(|end| self.ids.get(std::mem::replace(&mut start, end)..end)).map(str::to_owned);
            Stored { sequence, message_id }
        };
        self.messages.into_iter().map(stored).collect()
    }
}

/// Errors of the library's typed calls. A timeout is the one kind that matters here.
fn server(error: &(dyn std::error::Error + 'static)) -> Fault {
    let text = errors::causes(error);
    let kind = if text.contains("timed out") { FaultKind::Timeout } else { FaultKind::Server };
    Fault::new(kind, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_gets_its_own_id_back() {
        let wanted = [(1, Some("a")), (4, None), (5, Some("")), (9, Some("bcd"))];
        let mut found = Found::default();
        for (sequence, id) in wanted {
            found.push(sequence, id);
        }
        let stored = wanted.map(|(sequence, id)| Stored { sequence, message_id: id.map(str::to_owned) });
        assert_eq!(found.into_messages(), stored);
    }
}
