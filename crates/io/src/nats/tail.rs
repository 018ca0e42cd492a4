//! Reading which messages a stream holds beyond a sequence: sequence and `Nats-Msg-Id`, and for a comparison what they are
//! about.
//!
//! A message that is missed here is published twice, so completeness is proved and not assumed: deliveries must be
//! numbered without a gap, and the end is the end only if the stream's leader holds nothing more up to its last sequence.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_nats::header::{NATS_EXPECTED_LAST_SEQUENCE, NATS_MESSAGE_ID};
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy, pull};
use async_nats::jetstream::stream::{ConsumerErrorKind, Stream};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::api::{Api, found};
use super::errors;
use super::queued::BATCH_ID;
use super::streams::check_name;
use sea_mq_model::broker::{Fault, FaultKind, Page, Sighted, Stored};
use sea_mq_model::domain::cloud_event::CONTENT_TYPE;
use sea_mq_model::domain::content;

/// Messages asked for at a time …
const BATCH: usize = 5000;
/// … and their bytes. A larger one comes alone.
const BATCH_BYTES: usize = 16 << 20;
/// What the server says of one that is larger than what was asked for.
const TOO_LARGE: &str = "Exceeds MaxBytes";
/// After this long without a request the server removes the consumer, should we not come to do it.
const ABANDONED: Duration = Duration::from_secs(30);
/// Between two looks at a replica that lags behind the leader.
const LAG_PAUSE: Duration = Duration::from_millis(20);

/// What was read: the messages, and the stream's last sequence up to which they are complete.
pub(super) type Tail = (Vec<Stored>, u64);

/// Reads all messages with a sequence above `after`.
pub(super) async fn read(api: &Api, stream: &str, after: u64) -> Result<Tail, Fault> {
    let info = info(api, stream).await?;
    let last = number(&info, "/state/last_seq");
    let (found, _) = find(api, stream, &info, stream, Extent { after, last, most: None }).await?;
    let stored = |message: Sighted| Stored {
        sequence: message.sequence,
        message_id: message.message_id,
        counted: message.counted,
    };
    Ok((found.into_messages().map(stored).collect(), last))
}

/// Reads as many messages above `after` and up to `upto` as take some megabytes.
pub(super) async fn read_page(api: &Api, stream: &str, after: u64, upto: u64) -> Result<Page, Fault> {
    const PAGE_BYTES: u64 = BATCH_BYTES as u64;
    let info = info(api, stream).await?;
    let messages = number(&info, "/state/messages").max(1);
    let most = PAGE_BYTES / (number(&info, "/state/bytes") / messages).max(1);
    let most = usize::try_from(most).map_or(BATCH, |most| most.clamp(1, BATCH));
    let last = number(&info, "/state/last_seq").min(upto);
    let name = format!("{stream}/page");
    let (found, seen) = find(api, stream, &info, &name, Extent { after, last, most: Some(most) }).await?;
    let first_sequence = number(&info, "/state/first_seq");
    Ok(Page { messages: found.into_messages().collect(), upto: if seen >= last { upto } else { seen }, first_sequence })
}

async fn info(api: &Api, stream: &str) -> Result<Value, Fault> {
    check_name(stream)?;
    let missing = || Fault::new(FaultKind::StreamMissing, format!("stream {stream} does not exist"));
    api.stream_info(stream).await?.ok_or_else(missing)
}

fn number(info: &Value, path: &str) -> u64 {
    info.pointer(path).and_then(Value::as_u64).unwrap_or(0)
}

/// What is to be read.
struct Extent {
    /// From beyond this sequence …
    after: u64,
    /// … to this one …
    last: u64,
    /// … or until there are so many, of which the content is wanted as well.
    most: Option<usize>,
}

/// Reads, and says up to which sequence what was found is complete. `name`: of the kind of reading.
async fn find(api: &Api, stream: &str, info: &Value, name: &str, extent: Extent) -> Result<(Found, u64), Fault> {
    let Extent { after, last, most } = extent;
    if after >= last || number(info, "/state/messages") == 0 {
        return Ok((Found::default(), last));
    }
    let handle = api.context().get_stream_no_info(stream).await.map_err(|error| server(&error))?;
    let mut reader = Reader {
        api,
        handle,
        stream,
        last,
        most,
        seen: after,
        found: Found::default(),
        batch: None,
        progress: Instant::now(),
    };
    // A consumer would take part in the retention of the other kinds of stream. Where their number is limited, those that
    // there may be are others'.
    let limits = info.pointer("/config/retention").and_then(Value::as_str) == Some("limits");
    let free = info.pointer("/config/max_consumers").and_then(Value::as_i64).is_none_or(|most| most <= 0);
    let reading = Reading::begin(name);
    let by_consumer = limits && free && reading.tries <= TRIES;
    let done = if by_consumer { reader.by_consumer().await } else { Ok(false) };
    let result = match done {
        // The account has as many consumers as it may have.
        Ok(false) => reader.one_by_one().await,
        done => done.map(|_| ()),
    };
    reading.end();
    result?;
    Ok((reader.found, reader.seen))
}

/// Reads by consumer that a lost session may have ended, before the messages are asked for one by one: the client library
/// gives a connection up over a delivered message whose header block is malformed.
const TRIES: u32 = 2;

/// Streams whose tail was begun to be read, and how often in a row without coming to an end.
static BEGUN: Mutex<BTreeMap<String, u32>> = Mutex::new(BTreeMap::new());

/// A read under way. One that is dropped with its session has not come to an end.
struct Reading<'a> {
    stream: &'a str,
    tries: u32,
}

impl<'a> Reading<'a> {
    fn begin(stream: &'a str) -> Self {
        let mut begun = BEGUN.lock().unwrap_or_else(PoisonError::into_inner);
        let tries = begun.entry(stream.to_owned()).or_default();
        *tries += 1;
        Self { stream, tries: *tries }
    }

    fn end(self) {
        BEGUN.lock().unwrap_or_else(PoisonError::into_inner).remove(self.stream);
    }
}

struct Reader<'a> {
    api: &'a Api,
    handle: Stream<()>,
    stream: &'a str,
    /// The last sequence to read.
    last: u64,
    /// As in [`Extent`].
    most: Option<usize>,
    /// Complete up to this sequence.
    seen: u64,
    found: Found,
    /// The batch that the last message belongs to that named a sequence.
    batch: Option<String>,
    /// When something was read last. It bounds the whole, however long the tail is.
    progress: Instant,
}

impl Reader<'_> {
    fn is_done(&self) -> bool {
        self.seen >= self.last || self.most.is_some_and(|most| self.found.messages.len() >= most)
    }

    /// Returns `false` if there is no room for a consumer.
    async fn by_consumer(&mut self) -> Result<bool, Fault> {
        while !self.is_done() {
            let Some(consumer) = self.consumer().await? else { return Ok(false) };
            let result = self.drain(&consumer).await;
            // Best effort: the server removes it in time.
            let _ = self.handle.delete_consumer(&consumer.cached_info().name).await;
            result?;
        }
        Ok(true)
    }

    async fn consumer(&self) -> Result<Option<Consumer<pull::Config>>, Fault> {
        let config = pull::Config {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: self.seen + 1 },
            ack_policy: AckPolicy::None,
            headers_only: self.most.is_none(),
            memory_storage: true,
            num_replicas: 1,
            inactive_threshold: ABANDONED,
            ..pull::Config::default()
        };
        let limit = ErrorCode::MAXIMUM_CONSUMERS_LIMIT;
        match self.api.context().create_consumer_on_stream(config, self.stream).await {
            Ok(consumer) => Ok(Some(consumer)),
            Err(error) => match error.kind() {
                ConsumerErrorKind::JetStream(reason) if reason.error_code() == limit => Ok(None),
                _ => Err(server(&error)),
            },
        }
    }

    /// Reads until the end, or until a gap in the deliveries calls for another consumer.
    async fn drain(&mut self, consumer: &Consumer<pull::Config>) -> Result<(), Fault> {
        let mut delivered = 0;
        let mut too_large = false;
        while !self.is_done() {
            // Without an expiry the server says at once that there is no more, instead of waiting for it.
            let fetch = match std::mem::take(&mut too_large) {
                false => consumer.fetch().max_messages(self.most.unwrap_or(BATCH)).max_bytes(BATCH_BYTES),
                true => consumer.fetch().max_messages(1),
            };
            let mut batch = fetch.messages().await.map_err(|error| server(&error))?;
            let mut pending = 0;
            let mut room = BATCH_BYTES;
            let before = self.seen;
            // One that takes the last byte ends the request, and the server says no word.
            while let Some(message) = if room > 0 { self.within(batch.next()).await? } else { None } {
                let message = match message {
                    Ok(message) => message,
                    Err(error) if error.to_string().contains(TOO_LARGE) => {
                        too_large = self.seen == before;
                        break;
                    }
                    Err(error) => return Err(Fault::new(FaultKind::Server, error.to_string())),
                };
                room = room.saturating_sub(message.length);
                let info = message.info().map_err(|error| Fault::new(FaultKind::Server, error.to_string()))?;
                if info.consumer_sequence != delivered + 1 {
                    return Ok(());
                }
                delivered = info.consumer_sequence;
                pending = info.pending;
                let header =
                    |name: &str| message.headers.as_ref().and_then(|headers| Some(headers.get(name)?.as_str()));
                let expects = header(NATS_EXPECTED_LAST_SEQUENCE.as_ref()).is_some();
                let about = About {
                    counted: self.is_counted(expects, header(BATCH_ID)),
                    digest: self.digest(&message.subject, header(CONTENT_TYPE), &message.payload),
                };
                self.note(info.stream_sequence, header(NATS_MESSAGE_ID.as_ref()), about);
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
            Some((sequence, ..)) if sequence <= self.last => {
                self.check_progress()?;
                tokio::time::sleep(LAG_PAUSE).await;
                Ok(false)
            }
            Some(_) | None => Ok(true),
        }
    }

    async fn one_by_one(&mut self) -> Result<(), Fault> {
        while !self.is_done() {
            match self.next_stored().await? {
                Some((sequence, id, about)) if sequence <= self.last => {
                    self.note(sequence, id.as_deref(), about);
                }
                Some(_) | None => self.seen = self.last,
            }
        }
        Ok(())
    }

    /// Sequence and id of the first message beyond what was seen, and what it is about, from the leader.
    async fn next_stored(&mut self) -> Result<Option<(u64, Option<String>, About)>, Fault> {
        let request = json!({ "seq": self.seen + 1, "next_by_subj": ">" });
        let answer = self.api.call(&format!("STREAM.MSG.GET.{}", self.stream), &request).await;
        let Some(answer) = found(answer, errors::NO_MESSAGE_FOUND)? else { return Ok(None) };
        let sequence = answer.pointer("/message/seq").and_then(Value::as_u64);
        let text = |path| answer.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let headers = text("/message/hdrs");
        let body = BASE64.decode(text("/message/data")).unwrap_or_default();
        let expects = header(headers, NATS_EXPECTED_LAST_SEQUENCE.as_ref()).is_some();
        let about = About {
            counted: self.is_counted(expects, header(headers, BATCH_ID).as_deref()),
            digest: self.digest(text("/message/subject"), header(headers, CONTENT_TYPE).as_deref(), &body),
        };
        let id = header(headers, NATS_MESSAGE_ID.as_ref());
        Ok(sequence.map(|sequence| (sequence, id, about)))
    }

    /// Whether a message was counted: itself, or as a member of a batch whose first message was.
    fn is_counted(&mut self, expects: bool, batch: Option<&str>) -> bool {
        if expects {
            self.batch = batch.map(str::to_owned);
        }
        expects || (batch.is_some() && batch == self.batch.as_deref())
    }

    /// What a message is about, if that is wanted.
    fn digest(&self, subject: &str, content_type: Option<&str>, body: &[u8]) -> u64 {
        let wanted = self.most.is_some();
        if wanted { content::digest(subject, content::payload_of(content_type, body)) } else { 0 }
    }

    fn note(&mut self, sequence: u64, id: Option<&str>, about: About) {
        self.progress = Instant::now();
        if sequence > self.seen && sequence <= self.last {
            self.found.push(sequence, id, about);
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

/// A header in a block, whatever else is in it. `headers`: the block in base64.
fn header(headers: &str, wanted: &str) -> Option<String> {
    let block = BASE64.decode(headers).ok()?;
    let text = String::from_utf8_lossy(&block);
    let value = |line: &str| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case(wanted).then(|| value.trim().to_owned())
    };
    text.split("\r\n").find_map(value)
}

/// What was found so far, the ids in one piece. A string each, allocated among the library's short-lived buffers, would
/// fragment the heap so much that reading a million messages spends half its time in the allocator.
#[derive(Default)]
struct Found {
    ids: String,
    /// Sequence, where the id ends in `ids`, if there is one (it begins where the one before it ends), and what else there
    /// is to say of it.
    messages: Vec<(u64, Option<usize>, About)>,
}

#[derive(Clone, Copy)]
struct About {
    /// It names the sequence that its publisher expected.
    counted: bool,
    /// As in [`Sighted`].
    digest: u64,
}

impl Found {
    fn push(&mut self, sequence: u64, id: Option<&str>, about: About) {
        let end = id.map(|id| {
            self.ids.push_str(id);
            self.ids.len()
        });
        self.messages.push((sequence, end, about));
    }

    fn into_messages(self) -> impl Iterator<Item = Sighted> {
        let Self { ids, messages } = self;
        let mut start = 0;
        messages.into_iter().map(move |(sequence, end, About { counted, digest })| {
            let message_id = end.and_then(|end| ids.get(std::mem::replace(&mut start, end)..end)).map(str::to_owned);
            Sighted { sequence, message_id, counted, digest }
        })
    }
}

/// Errors of the library's typed calls. A timeout is the one kind that matters here.
fn server(error: &(dyn std::error::Error + 'static)) -> Fault {
    let text = errors::causes(error);
    let kind = if text.contains("timed out") { FaultKind::Timeout } else { FaultKind::Server };
    Fault::new(kind, text)
}

#[cfg(test)]
mod tests;
