//! The outbox log: appended to at pre-commit, read by the relay, never updated.

use std::collections::HashSet;

use pgrx::pg_sys;
use uuid::Uuid;

use super::ring::{self, Ring, SLOTS, log_table};
use super::rows::{self, Columns, LOG_COLUMNS, SCHEDULED_COLUMNS, log_column};
use crate::sys::batch::Batch;
use crate::sys::datum::uuid_datum;
use crate::sys::relation::{Appender, Compare, IndexScan, Key, Relation, Scratch};
use sea_mq_model::broker::SinkId;
use sea_mq_model::domain::event::{Event, Logged};
use sea_mq_model::domain::position::{self, Moment, Position, Snapshot};

unsafe extern "C-unwind" {
    /// src/backend/commands/sequence.c; `nextval` without looking at the caller's rights, which producers do not have.
    fn nextval_internal(relid: pg_sys::Oid, check_permissions: bool) -> i64;
}

/// The next place in the log.
pub fn next_seq(sequence: pg_sys::Oid) -> i64 {
    // SAFETY: the sequence exists, in a transaction; the guard turns an ERROR into an unwinding.
    unsafe { pg_sys::submodules::ffi::pg_guard_ffi_boundary(|| nextval_internal(sequence, false)) }
}

/// Appends events to the current slot.
pub struct LogWriter {
    appender: Appender,
    sequence: pg_sys::Oid,
    xid: u64,
    ring: Ring,
    scratch: Scratch,
    batch: Batch,
}

impl LogWriter {
    /// The transaction id is taken here, before the first `seq`: a reader whose snapshot does not know the transaction
    /// yet may then rely on all its rows having a greater `seq` than any row it has seen.
    pub fn open() -> Self {
        // SAFETY: in a transaction that may write.
        let xid = unsafe { pg_sys::GetTopFullTransactionId() }.value;
        let ring::Place { ring, table, sequence } = ring::place();
        Self { appender: Appender::open(table), sequence, xid, ring, scratch: Scratch::new(), batch: Batch::new() }
    }

    /// Appends an event that has no others beside it.
    pub fn append_alone(&mut self, event: &Event) {
        let seq = next_seq(self.sequence);
        self.scratch.within(|| self.appender.append(rows::log_row(event, seq, self.xid, self.ring)));
    }

    /// Appends one of several events.
    pub fn append(&mut self, event: &Event) {
        let seq = next_seq(self.sequence);
        self.batch.reserve(&self.appender);
        let Self { scratch, batch, appender, .. } = self;
        let (xid, ring) = (self.xid, self.ring);
        scratch.within(|| batch.add(appender, rows::log_row(event, seq, xid, ring), event.bytes()));
        self.flush_if_full();
    }

    /// Appends one of several events, which waited in the form of scheduled ones.
    pub fn append_waiting(&mut self, columns: Columns<SCHEDULED_COLUMNS>) {
        let seq = next_seq(self.sequence);
        let row = rows::log_row_of(columns, seq, self.xid, self.ring);
        self.batch.add(&self.appender, row, rows::row_bytes(columns));
        self.flush_if_full();
    }

    fn flush_if_full(&mut self) {
        if self.batch.is_full() {
            self.scratch.within(|| self.batch.flush(&mut self.appender));
        }
    }

    /// Writes what is not written yet.
    pub fn finish(mut self) {
        self.scratch.within(|| self.batch.flush(&mut self.appender));
        self.batch.end();
    }
}

/// The events with this id that are in the log, as of now.
pub fn find(id: Uuid) -> Option<Logged> {
    (0..SLOTS).find_map(|slot| {
        let table = Relation::open(&log_table(slot));
        if table.is_empty() {
            return None;
        }
        let key = [Key::Uuid(log_column::ID, uuid_datum(id))];
        let mut scan = table.scan(&format!("outbox_log_{slot}_id"), &key, std::ptr::null_mut());
        let found = scan.next().map(|row| rows::read_logged(row.values()));
        drop(scan);
        found
    })
}

/// What a read returns.
pub struct Read {
    pub events: Vec<Logged>,
    pub after: Position,
    /// Transactions with events in `events` and behind them, if [`Self::find_open`] looked.
    pub open: HashSet<u64>,
    /// Another installation wrote some of them: this log is a copy.
    pub foreign: bool,
}

impl Read {
    /// Finds the transactions that the end of the chunk cuts in two. `xids`: those that the chunks before it did.
    pub fn find_open(&mut self, sink: SinkId, mut xids: HashSet<u64>) {
        let Some(batch) = &self.after.batch else { return };
        xids.extend(self.events.iter().map(|logged| logged.xid));
        for slot in 0..SLOTS {
            let has_more = |xid: &&u64| has_more(slot, **xid, sink, batch);
            self.open.extend(xids.iter().filter(has_more));
        }
    }
}

/// How much to read at once.
#[derive(Clone, Copy)]
pub struct Limit {
    pub events: usize,
    /// Bytes of payload.
    pub bytes: usize,
}

/// Reads the next chunk of a sink's events, in the order of `seq`, under the transaction's active snapshot.
pub fn read(sink: SinkId, at: &Position, now: &Moment, limit: Limit) -> Read {
    let origin = ring::place().ring.origin;
    let batch = at.batch_or(now);
    let mut sources = sources(sink, at, &batch);
    let mut read = Read { events: Vec::new(), after: at.clone(), open: HashSet::new(), foreign: false };
    let mut bytes = 0;
    let mut finished = false;
    while read.events.len() < limit.events && bytes < limit.bytes {
        let next = sources
            .iter_mut()
            .filter_map(|source| source.head.map(|head| (head, source)))
            .min_by_key(|(head, _)| head.seq);
        let Some((head, source)) = next else {
            finished = true;
            break;
        };
        if is_in(head, at, &batch) && source.row_sink() == sink {
            let logged = rows::read_logged(source.values);
            read.foreign |= head.origin != origin;
            bytes += logged.event.payload.len();
            read.events.push(logged);
        }
        source.advance();
    }
    drop(sources);
    let last = read.events.last().map(|logged| logged.seq);
    read.after = at.after(batch, last, finished);
    read
}

/// How many events of a sink the batch under way still has.
pub fn count(sink: SinkId, at: &Position) -> u64 {
    let Some(batch) = &at.batch else { return 0 };
    let mut count = 0;
    let mut sources = sources(sink, at, batch);
    for source in &mut sources {
        while let Some(head) = source.head {
            count += u64::from(is_in(head, at, batch) && source.row_sink() == sink);
            source.advance();
        }
    }
    drop(sources);
    count
}

/// Whether a slot holds an event of the sink that was not handed over.
pub fn slot_has_unread(slot: i16, sink: SinkId, at: &Position, now: &Moment) -> bool {
    // From the start of whatever batch is under way: what it has handed over is told apart row by row.
    let all = position::Batch { upto: now.clone(), at: 0 };
    let mut sources = slot_sources(slot, sink, at, &all);
    let unread = sources.iter_mut().any(|source| {
        while let Some(head) = source.head {
            if source.row_sink() == sink && !at.is_past(head.xid, head.seq) {
                return true;
            }
            source.advance();
        }
        false
    });
    drop(sources);
    unread
}

/// The sinks that have rows in a slot.
pub fn sinks_in(slot: i16) -> Vec<SinkId> {
    let table = Relation::open(&log_table(slot));
    let mut sinks = Vec::new();
    let mut last = None;
    loop {
        let key = last.map(|sink| Key::Int8(log_column::SINK, Compare::Above, sink));
        let mut scan = table.scan(&format!("outbox_log_{slot}_sink_seq"), key.as_slice(), std::ptr::null_mut());
        let sink = scan.next().map(|row| rows::log_sink(row.values()));
        drop(scan);
        match sink {
            Some(sink) => sinks.push(sink),
            None => return sinks,
        }
        last = sink;
    }
}

/// The moment of the current transaction's active snapshot.
pub fn now() -> Moment {
    let snapshot = active_snapshot();
    // SAFETY: reads shared memory. After the snapshot: see Moment.
    let next_xid = unsafe { pg_sys::ReadNextFullTransactionId() }.value;
    Moment { snapshot, next_xid, ceiling: last_seq() }
}

/// The moment of the active snapshot, and a `seq` that all transactions that begin later exceed: where a reader begins that
/// is to get nothing of what is there.
pub fn end() -> (Moment, i64) {
    // Before the next transaction id is read; see Position.
    let floor = last_seq();
    (now(), floor)
}

fn active_snapshot() -> Snapshot {
    // SAFETY: a snapshot is active; the functions take no argument and a pg_snapshot.
    let text = unsafe {
        let current = pgrx::direct_function_call_as_datum(pg_sys::pg_current_snapshot, &[]);
        let text = pgrx::direct_function_call_as_datum(pg_sys::pg_snapshot_out, &[current]);
        text.map(|text| std::ffi::CStr::from_ptr(text.cast_mut_ptr()).to_string_lossy().into_owned())
    };
    // Nothing is visible in the empty snapshot, so an unreadable one would delay and not lose.
    text.and_then(|text| text.parse().ok()).unwrap_or_else(Snapshot::empty)
}

/// The greatest place given away so far; 0 if none was.
fn last_seq() -> i64 {
    // SAFETY: pg_sequence_last_value takes the OID of a sequence and gives NULL for one that was never used.
    let last = unsafe {
        pgrx::direct_function_call_as_datum(
            pg_sys::pg_sequence_last_value,
            &[Some(pg_sys::Datum::from(ring::place().sequence))],
        )
    };
    last.map_or(0, |datum| datum.value() as i64)
}

/// Makes sure that what was read cannot be taken back by a crash: a transaction committed with `synchronous_commit = off` is
/// visible before its commit record is on disk.
pub fn make_durable(events: &[Logged]) {
    let mut seen = None;
    let mut flush_to = 0;
    for logged in events {
        if seen.replace(logged.xid) != Some(logged.xid) {
            // SAFETY: the transaction's status is known, since its rows were visible.
            flush_to = flush_to
                .max(unsafe { pg_sys::TransactionIdGetCommitLSN(pg_sys::TransactionId::from(logged.xid as u32)) });
        }
    }
    if flush_to > 0 {
        // SAFETY: returns at once if that much is flushed already.
        unsafe { pg_sys::XLogFlush(flush_to) }
    }
}

/// The same for whatever is visible, in the log or not.
pub fn flush_all() {
    // SAFETY: returns at once if that much is flushed already.
    unsafe { pg_sys::XLogFlush(pg_sys::GetXLogInsertRecPtr()) }
}

/// An ordered run of rows, its first one looked at.
struct Source {
    // Before `table`, so that it is dropped first.
    scan: IndexScan,
    _table: Relation,
    values: [Option<pg_sys::Datum>; LOG_COLUMNS],
    head: Option<Head>,
}

/// What decides about the row looked at.
#[derive(Clone, Copy)]
struct Head {
    seq: i64,
    xid: u64,
    /// The installation that wrote it.
    origin: i32,
}

impl Source {
    fn open(slot: i16, index: &str, keys: &[Key]) -> Option<Self> {
        let table = Relation::open(&log_table(slot));
        if table.is_empty() {
            return None;
        }
        // SAFETY: called in a transaction with an active snapshot.
        let snapshot = unsafe { pg_sys::GetActiveSnapshot() };
        let scan = table.scan(&format!("outbox_log_{slot}_{index}"), keys, snapshot);
        let mut source = Self { scan, _table: table, values: [None; LOG_COLUMNS], head: None };
        source.advance();
        source.head.is_some().then_some(source)
    }

    fn advance(&mut self) {
        match self.scan.next() {
            None => self.head = None,
            Some(row) => {
                self.values = row.values();
                let (seq, xid, origin) = rows::log_key(self.values);
                self.head = Some(Head { seq, xid, origin });
            }
        }
    }

    fn row_sink(&self) -> SinkId {
        rows::log_sink(self.values)
    }
}

/// Whether a row is one of the batch's.
fn is_in(head: Head, at: &Position, batch: &position::Batch) -> bool {
    !at.done.shows(head.xid) && batch.upto.snapshot.shows(head.xid)
}

fn sources(sink: SinkId, at: &Position, batch: &position::Batch) -> Vec<Source> {
    (0..SLOTS).flat_map(|slot| slot_sources(slot, sink, at, batch)).collect()
}

/// The runs of one slot in which rows of the batch can be: all above the floor; and, up to the floor, those of the
/// transactions that had begun when `done` was taken and have ended since.
fn slot_sources(slot: i16, sink: SinkId, at: &Position, batch: &position::Batch) -> Vec<Source> {
    let mut sources = Vec::new();
    let above = [
        Key::Int8(log_column::SINK, Compare::Equal, sink),
        Key::Int8(log_column::SEQ, Compare::Above, at.floor.max(batch.at)),
        Key::Int8(log_column::SEQ, Compare::UpTo, batch.upto.ceiling),
    ];
    sources.extend(Source::open(slot, "sink_seq", &above));
    if batch.at < at.floor {
        let begun = xids_in(slot, at.done.xmax, at.next_xid);
        let ended = at.done.ended_in(&batch.upto.snapshot);
        for xid in ended.into_iter().chain(begun) {
            let late = [
                Key::Xid8(log_column::XID, Compare::Equal, xid),
                Key::Int8(log_column::SEQ, Compare::Above, batch.at),
                Key::Int8(log_column::SEQ, Compare::UpTo, at.floor),
            ];
            sources.extend(Source::open(slot, "xid_seq", &late));
        }
    }
    sources
}

/// Whether a slot holds events of the transaction that belong to the sink and to what is left of the batch.
fn has_more(slot: i16, xid: u64, sink: SinkId, batch: &position::Batch) -> bool {
    let keys = [
        Key::Xid8(log_column::XID, Compare::Equal, xid),
        Key::Int8(log_column::SEQ, Compare::Above, batch.at),
        Key::Int8(log_column::SEQ, Compare::UpTo, batch.upto.ceiling),
    ];
    let Some(mut source) = Source::open(slot, "xid_seq", &keys) else { return false };
    while source.head.is_some() {
        if source.row_sink() == sink {
            return true;
        }
        source.advance();
    }
    false
}

/// The transactions from `first` and below `end` that have rows in a slot. Skips from one to the next, so it costs as many
/// looks at the index as there are.
pub(super) fn xids_in(slot: i16, first: u64, end: u64) -> Vec<u64> {
    let mut found = Vec::new();
    let mut from = first;
    while from < end {
        let keys = [Key::Xid8(log_column::XID, Compare::From, from), Key::Xid8(log_column::XID, Compare::Below, end)];
        let Some(source) = Source::open(slot, "xid_seq", &keys) else { break };
        let Some(head) = source.head else { break };
        found.push(head.xid);
        from = head.xid + 1;
    }
    found
}
