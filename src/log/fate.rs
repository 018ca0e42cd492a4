//! What became of one event: its row in the log, whether the cursor has passed it, and the run of the journal that it was stored
//! with. Without a plan: somebody who asks for one event should not pay for thinking about all tables of the ring.

use std::cell::Cell;
use std::collections::HashMap;

use pgrx::pg_sys;
use uuid::Uuid;

use super::ring::{SLOTS, log_table};
use super::rows::{self, log_column};
use super::unread::{self, Instant};
use crate::host::spi::{self, Arg};
use crate::sys::datum::uuid_datum;
use crate::sys::relation::{Compare, IndexScan, Key, Relation};
use sea_mq_model::broker::SinkId;
use sea_mq_model::domain::event::Logged;
use sea_mq_model::domain::position::Snapshot;

/// Columns of `sea_mq.relay_journal`, counted from 0.
mod journal_column {
    pub const COUNT: usize = 10;
    pub const DONE: usize = 2;
    pub const UPTO: usize = 3;
    pub const FIRST_SEQ: usize = 4;
    pub const LAST_SEQ: usize = 5;
    pub const EVENTS: usize = 6;
    pub const FIRST_STREAM_SEQ: usize = 7;
    pub const PUBLISHED_AT: usize = 8;
}
/// Attribute numbers, counted from 1.
const JOURNAL_SINK: i16 = 2;
const JOURNAL_LAST_SEQ: i16 = 6;

pub struct Fate {
    pub logged: Logged,
    /// Whether the cursor last saved has passed it.
    pub passed: bool,
    /// When the relay recorded that it was stored (microseconds since 2000-01-01 UTC), and its stream sequence.
    pub stored: Option<(i64, i64)>,
}

/// The event with this id that stands last in the log.
pub fn of(id: Uuid) -> Option<Fate> {
    let logged = slots("outbox_log").filter_map(|(slot, table)| last_in(slot, &table, id)).max_by_key(|one| one.seq)?;
    let passed = unread::position(logged.event.sink).is_past(logged.xid, logged.seq);
    let stored = stored(logged.event.sink, logged.seq, logged.xid);
    Some(Fate { logged, passed, stored })
}

type Place = (SinkId, i64, u64);
/// When it was stored, and its sequence in the stream; `None`: it was not.
type Found = Option<(i64, i64)>;

/// Of these message ids, those that are events of the log, with their (last) place in it.
pub fn places(ids: &[String]) -> HashMap<String, i64> {
    let json = serde_json::to_string(ids).unwrap_or_else(|_| "[]".into());
    let sql = "SELECT l.id, max(l.seq) FROM sea_mq.outbox_log l
        JOIN (SELECT t.id::uuid AS id FROM json_array_elements_text($1::json) AS t(id)
              WHERE t.id ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$') wanted ON wanted.id = l.id
        GROUP BY l.id";
    spi::query(sql, &[Arg::Text(&json)]).iter().map(|row| (spi::parsed(row, 0), spi::parsed(row, 1))).collect()
}

thread_local! {
    /// What was found last: a row is asked about more than once.
    static LAST: Cell<Option<(Instant, Place, Found)>> = const { Cell::new(None) };
}

/// When the relay recorded that an event was stored (microseconds since 2000-01-01 UTC), and its stream sequence.
pub fn stored(sink: SinkId, seq: i64, xid: u64) -> Option<(i64, i64)> {
    let (instant, place) = (Instant::now(), (sink, seq, xid));
    if let Some((at, of, found)) = LAST.get()
        && at == instant
        && of == place
    {
        return found;
    }
    let found = run_of(sink, seq, xid).map(|run| (run.published_at, run.stream_seq(sink, seq)));
    LAST.set(Some((instant, place, found)));
    found
}

/// The tables of a ring that have rows.
fn slots(ring: &'static str) -> impl Iterator<Item = (i16, Relation)> {
    (0..SLOTS).map(move |slot| (slot, Relation::open(&format!("{ring}_{slot}")))).filter(|(_, table)| !table.is_empty())
}

fn last_in(slot: i16, table: &Relation, id: Uuid) -> Option<Logged> {
    let mut scan =
        table.scan(&format!("{}_id", log_table(slot)), &[Key::Uuid(log_column::ID, uuid_datum(id))], snapshot());
    let mut last: Option<Logged> = None;
    while let Some(row) = scan.next() {
        let logged = rows::read_logged(row.values());
        if last.as_ref().is_none_or(|one| one.seq < logged.seq) {
            last = Some(logged);
        }
    }
    drop(scan);
    last
}

/// A run of the journal, as it is stored.
struct Stored {
    done: Snapshot,
    upto: Snapshot,
    first_seq: i64,
    last_seq: i64,
    events: i64,
    first_stream_seq: i64,
    published_at: i64,
}

impl Stored {
    fn read(columns: [Option<pg_sys::Datum>; journal_column::COUNT]) -> Option<Self> {
        let number = |column: usize| columns[column].map(|datum| datum.value() as i64);
        Some(Self {
            done: shown_snapshot(columns[journal_column::DONE]?)?,
            upto: shown_snapshot(columns[journal_column::UPTO]?)?,
            first_seq: number(journal_column::FIRST_SEQ)?,
            last_seq: number(journal_column::LAST_SEQ)?,
            events: number(journal_column::EVENTS)?,
            first_stream_seq: number(journal_column::FIRST_STREAM_SEQ)?,
            published_at: number(journal_column::PUBLISHED_AT)?,
        })
    }

    fn shows(&self, xid: u64) -> bool {
        self.upto.shows(xid) && !self.done.shows(xid)
    }

    /// Where others' events lie between the run's own, they are counted from the nearer end.
    fn stream_seq(&self, sink: SinkId, seq: i64) -> i64 {
        let (before, behind) = (seq - self.first_seq, self.last_seq - seq);
        let nth = if self.last_seq - self.first_seq + 1 == self.events {
            before
        } else if before <= behind {
            self.count(sink, self.first_seq, seq - 1)
        } else {
            self.events - 1 - self.count(sink, seq + 1, self.last_seq)
        };
        self.first_stream_seq + nth
    }

    fn count(&self, sink: SinkId, from: i64, to: i64) -> i64 {
        let keys = [
            Key::Int8(log_column::SINK, Compare::Equal, sink),
            Key::Int8(log_column::SEQ, Compare::From, from),
            Key::Int8(log_column::SEQ, Compare::UpTo, to),
        ];
        let mut count = 0;
        for (slot, table) in slots("outbox_log") {
            let mut scan = table.scan(&format!("{}_sink_seq", log_table(slot)), &keys, snapshot());
            while let Some(row) = scan.next() {
                count += i64::from(self.shows(rows::log_key(row.values()).1));
            }
            drop(scan);
        }
        count
    }
}

/// A slot of the journal, read by the last place of its runs.
struct Runs {
    // Before `table`, so that it is dropped first.
    scan: IndexScan,
    _table: Relation,
    head: Option<Stored>,
}

impl Runs {
    fn open(slot: i16, table: Relation, keys: &[Key]) -> Self {
        let scan = table.scan(&format!("relay_journal_{slot}_sink_seq"), keys, snapshot());
        let mut runs = Self { scan, _table: table, head: None };
        runs.advance();
        runs
    }

    /// Past the runs that the broker refused.
    fn advance(&mut self) {
        self.head = None;
        while self.head.is_none() {
            let Some(row) = self.scan.next() else { return };
            self.head = Stored::read(row.values());
        }
    }
}

/// The run that an event was stored with: of those that hold it, the one that ends first. The slots are read side by side,
/// since those that are younger than the run hold nothing but later ones.
fn run_of(sink: SinkId, seq: i64, xid: u64) -> Option<Stored> {
    let keys = [Key::Int8(JOURNAL_SINK, Compare::Equal, sink), Key::Int8(JOURNAL_LAST_SEQ, Compare::From, seq)];
    let mut slots: Vec<Runs> = slots("relay_journal").map(|(slot, table)| Runs::open(slot, table, &keys)).collect();
    loop {
        let ends = |runs: &Runs| runs.head.as_ref().map(|run| run.last_seq);
        let first = slots.iter_mut().filter(|runs| runs.head.is_some()).min_by_key(|runs| ends(runs))?;
        let run = first.head.take()?;
        if run.first_seq <= seq && run.shows(xid) {
            return Some(run);
        }
        first.advance();
    }
}

fn shown_snapshot(datum: pg_sys::Datum) -> Option<Snapshot> {
    // SAFETY: pg_snapshot_out takes a pg_snapshot, and gives a C string.
    let text = unsafe {
        pgrx::direct_function_call_as_datum(pg_sys::pg_snapshot_out, &[Some(datum)])
            .map(|text| std::ffi::CStr::from_ptr(text.cast_mut_ptr()).to_string_lossy().into_owned())
    };
    text.and_then(|text| text.parse().ok())
}

fn snapshot() -> pg_sys::Snapshot {
    // SAFETY: called in a transaction with an active snapshot.
    unsafe { pg_sys::GetActiveSnapshot() }
}
