//! Reads the log for the endpoints. What several want is read and rendered once.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::time::Instant;

use uuid::Uuid;

use super::recording::{End, Result as Recorded};
use super::served::{Kept, Served};
use super::worker::Worker;
use crate::deliver::deliveries::{self, Content, Rendered};
use crate::deliver::endpoints::{self, Described};
use crate::host::roles::Reasons;
use crate::host::session::{self, Failed};
use crate::log::outbox::{self, Read};
use sea_mq_model::broker::SinkId;
use sea_mq_model::deliver::endpoint::Item;
use sea_mq_model::domain::event::{Event, Logged};
use sea_mq_model::domain::position::{Moment, Position};
use sea_mq_model::domain::subject::covers;

/// Events that are read at once.
const CHUNK: outbox::Limit = outbox::Limit { events: 128, bytes: 4 << 20 };

/// What was read in this pass: by sink, and from where.
type Reads = Vec<(SinkId, Position, Rc<Read>)>;
/// Audience, format and template.
type Rendering = (String, String, Option<String>);
/// What is sent of the events at places of the log.
type Bodies = HashMap<Rendering, HashMap<i64, Rendered>>;

/// A chunk that an endpoint has before it.
struct Chunk {
    place: usize,
    reader: usize,
    read: Rc<Read>,
}

impl Worker {
    /// Reads for all endpoints that have room. Returns whether there may be more.
    pub(super) fn read(&mut self) -> Result<bool, Failed> {
        let now = Instant::now();
        let wants =
            |served: &Served| served.model.room(now) >= CHUNK.events && served.readers.iter().any(|r| !r.exhausted);
        if !self.served.iter().any(wants) {
            return Ok(false);
        }
        let read = session::transaction(|| {
            let moment = outbox::now();
            // An event is judged by what was described before it: the next pass looks first.
            if self.has_other_descriptions() {
                return None;
            }
            let chunks = read_chunks(&self.served, &moment, now);
            let bodies = render(&self.served, &chunks);
            chunks.iter().for_each(|chunk| outbox::make_durable(&chunk.read.events));
            Some((moment, chunks, bodies))
        })?;
        let Some((moment, chunks, bodies)) = read else { return Ok(true) };
        let mut more = false;
        for chunk in chunks {
            more |= self.take_chunk(&chunk, &moment, &bodies)?;
        }
        Ok(more)
    }

    /// Whether endpoints were described, in the current snapshot, after they were looked at.
    fn has_other_descriptions(&self) -> bool {
        let is_served = |one: &Described| self.served.iter().any(|served| served.described.print == one.print);
        self.process.is_woken_for(Reasons::ENDPOINTS) && !endpoints::all().iter().all(is_served)
    }

    fn take_chunk(&mut self, chunk: &Chunk, moment: &Moment, bodies: &Bodies) -> Result<bool, Failed> {
        let Chunk { place, reader: at, read } = chunk;
        let served = &mut self.served[*place];
        if read.foreign {
            served.readers[*at].exhausted = true;
            return Ok(false);
        }
        let mut wanted: Vec<&Logged> = read.events.iter().filter(|logged| wants(served, logged)).collect();
        // After a crash some are read again; and an event may stand in the log more than once.
        if !wanted.is_empty() {
            let events: Vec<Uuid> = wanted.iter().map(|logged| logged.event.id).collect();
            let id = served.described.id;
            let known: HashSet<Uuid> = session::transaction(|| deliveries::known(id, &events))?.into_iter().collect();
            wanted.retain(|logged| !known.contains(&logged.event.id));
        }
        let finished = read.after.batch.is_none();
        let reader = &mut served.readers[*at];
        reader.exhausted = finished;
        reader.ledger.read(moment, wanted.iter().map(|logged| logged.seq).collect(), read.after.clone());
        let rendering = owned(served.described.rendering());
        for logged in wanted {
            let rendered = bodies.get(&rendering).and_then(|bodies| bodies.get(&logged.seq));
            self.offer(*place, *at, logged, rendered);
        }
        Ok(!finished)
    }

    fn offer(&mut self, place: usize, reader: usize, logged: &Logged, rendered: Option<&Rendered>) {
        let served = &mut self.served[place];
        let event = &logged.event;
        let key = format!("{}/{}", event.aggregate_type, event.aggregate_id);
        let item = Item { event: event.id, seq: logged.seq, key: Some(key.as_str().into()) };
        let too_large = |bytes: usize| {
            format!("the body has {bytes} bytes, and the endpoint takes {} at most", served.described.max_size)
        };
        let (content, error) = match rendered {
            // Nothing is sent, and nothing more is known of it: its visibility says so.
            Some(Rendered::Invisible) | None => return served.readers[reader].ledger.settle(logged.seq),
            Some(Rendered::Failed(error)) => {
                (content(event, "", Vec::new()), Some(format!("it cannot be rendered: {error}")))
            }
            Some(Rendered::Body { body, headers }) => {
                let error = (body.len() > served.described.max_size).then(|| too_large(body.len()));
                let mut content = content(event, "", headers.clone());
                content.body = body.clone();
                (content, error)
            }
        };
        served.contents.insert(event.id, Kept { reader, content, emitted_at: event.created_at });
        match error {
            None => served.model.offer(item),
            Some(error) => {
                let id = served.described.id;
                self.results.push(Recorded::without_attempt(id, &item, End::Unsendable(error)));
            }
        }
    }
}

fn content(event: &Event, body: &str, headers: Vec<(String, String)>) -> Content {
    Content {
        body: bytes::Bytes::from(body.to_owned()),
        headers,
        context: event.context.clone(),
        event_type: event.event_type.clone(),
        event_version: i64::from(event.event_version),
        aggregate_type: event.aggregate_type.clone(),
        aggregate_id: event.aggregate_id.clone(),
    }
}

pub(super) fn wants(served: &Served, logged: &Logged) -> bool {
    let described = &served.described;
    let subject = logged.event.subject();
    described.start_us.is_none_or(|start| logged.event.created_at >= start)
        && described.subject_filters.iter().any(|filter| covers(filter, &subject))
}

fn owned((audience, format, template): (&str, &str, Option<&str>)) -> Rendering {
    (audience.to_owned(), format.to_owned(), template.map(str::to_owned))
}

/// One chunk for each reader whose endpoint has room. Those at the same place share it.
fn read_chunks(served: &[Served], moment: &Moment, now: Instant) -> Vec<Chunk> {
    let mut reads = Reads::new();
    let mut chunks = Vec::new();
    for (place, one) in served.iter().enumerate() {
        let mut room = one.model.room(now);
        for (at, reader) in one.readers.iter().enumerate().filter(|(_, reader)| !reader.exhausted) {
            if room < CHUNK.events {
                break;
            }
            let from = reader.ledger.read_from();
            let known = reads.iter().find(|(sink, position, _)| *sink == reader.sink && position == from);
            let read = match known {
                Some((.., read)) => Rc::clone(read),
                None => {
                    let read = Rc::new(outbox::read(reader.sink, from, moment, CHUNK));
                    reads.push((reader.sink, from.clone(), Rc::clone(&read)));
                    read
                }
            };
            room = room.saturating_sub(read.events.len());
            chunks.push(Chunk { place, reader: at, read });
        }
    }
    chunks
}

fn render(served: &[Served], chunks: &[Chunk]) -> Bodies {
    let mut seqs: HashMap<Rendering, HashSet<i64>> = HashMap::new();
    for Chunk { place, read, .. } in chunks {
        let one = &served[*place];
        let wanted = read.events.iter().filter(|logged| wants(one, logged)).map(|logged| logged.seq);
        seqs.entry(owned(one.described.rendering())).or_default().extend(wanted);
    }
    seqs.retain(|_, seqs| !seqs.is_empty());
    let rendered = |(rendering, seqs): (Rendering, HashSet<i64>)| {
        let (audience, format, template) = &rendering;
        let mut seqs: Vec<i64> = seqs.into_iter().collect();
        seqs.sort_unstable();
        let bodies = deliveries::render(&seqs, audience, format, template.as_deref()).into_iter().collect();
        (rendering, bodies)
    };
    seqs.into_iter().map(rendered).collect()
}
