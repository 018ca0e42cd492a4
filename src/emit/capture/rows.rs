//! The rows that a statement has changed, read from the transition tables and written as payloads.

use std::collections::HashSet;
use std::ffi::CStr;

use pgrx::{check_for_interrupts, pg_sys};

use super::codec::{Codec, same};
use super::plan::Plan;
use crate::sys::versions;
use sea_mq_model::domain::capture::{self, Change, Encoded, Sent};
use sea_mq_model::domain::sink::stable_hash;

/// Where a transition table is kept.
pub type Store = *mut pg_sys::Tuplestorestate;

/// One transition table, read from its start.
pub struct Transition {
    store: Store,
    slot: *mut pg_sys::TupleTableSlot,
    pointer: i32,
}

impl Transition {
    /// # Safety
    /// `store` holds rows of the open relation. What is allocated lives in the current memory context.
    pub unsafe fn open(store: Store, relation: pg_sys::Relation) -> Self {
        // SAFETY: other triggers read the same store, so it gets a pointer of its own.
        unsafe {
            let pointer = pg_sys::tuplestore_alloc_read_pointer(store, pg_sys::EXEC_FLAG_REWIND as _);
            pg_sys::tuplestore_select_read_pointer(store, pointer);
            pg_sys::tuplestore_rescan(store);
            let slot = pg_sys::MakeSingleTupleTableSlot((*relation).rd_att, &raw const pg_sys::TTSOpsMinimalTuple);
            Self { store, slot, pointer }
        }
    }

    /// From the start once more.
    pub fn again(self) -> Self {
        // SAFETY: as in `next`.
        unsafe {
            pg_sys::tuplestore_select_read_pointer(self.store, self.pointer);
            pg_sys::tuplestore_rescan(self.store);
        }
        self
    }

    pub fn next(&mut self) -> bool {
        // SAFETY: the store and the slot are open. Functions that a condition calls may have read the store meanwhile.
        unsafe {
            pg_sys::tuplestore_select_read_pointer(self.store, self.pointer);
            pg_sys::tuplestore_gettupleslot(self.store, true, false, self.slot)
        }
    }

    pub fn slot(&self) -> *mut pg_sys::TupleTableSlot {
        self.slot
    }

    pub fn close(self) {
        // SAFETY: made by `open`, dropped once; the store is the executor's.
        unsafe { pg_sys::ExecDropSingleTupleTableSlot(self.slot) }
    }
}

/// How the value of a column is found and written.
struct Source {
    attribute: i16,
    length: i16,
    by_value: bool,
    is_blank_padded: bool,
    codec: Codec,
}

/// Writes rows of one table as payloads.
pub struct Writer {
    /// The columns of `row`, then those of the key that are not among them.
    columns: Vec<Sent>,
    sources: Vec<Source>,
    key: Vec<usize>,
    last_attribute: i32,
    new: Encoded,
    old: Encoded,
    differs: Vec<bool>,
}

impl Writer {
    /// # Safety
    /// The relation is open and the plan's; what is allocated lives in the current memory context.
    pub unsafe fn new(plan: &Plan, relation: pg_sys::Relation) -> Self {
        let extra = plan.key.iter().filter(|attribute| !plan.columns.contains(attribute));
        let attributes: Vec<i16> = plan.columns.iter().chain(extra).copied().collect();
        let place = |attribute: &i16| attributes.iter().position(|other| other == attribute);
        // SAFETY: the plan's attributes are the relation's.
        let described = attributes.iter().enumerate().map(|(n, &attribute)| unsafe {
            let (label, source) = describe(relation, attribute);
            (Sent { label, in_row: n < plan.columns.len() }, source)
        });
        let (columns, sources) = described.unzip();
        Self {
            columns,
            sources,
            key: plan.key.iter().filter_map(place).collect(),
            last_attribute: attributes.iter().copied().max().unwrap_or(0).into(),
            new: Encoded::default(),
            old: Encoded::default(),
            differs: vec![false; attributes.len()],
        }
    }

    /// Whether what is written depends on settings of the session.
    pub fn follows_settings(&self) -> bool {
        self.sources.iter().any(|source| source.codec.follows_settings())
    }

    /// Whether functions run that belong to somebody.
    pub fn runs_casts(&self) -> bool {
        self.sources.iter().any(|source| source.codec.runs_casts())
    }

    /// A row that was inserted, or deleted.
    ///
    /// # Safety
    /// The slot holds a row of the table.
    pub unsafe fn row(&mut self, slot: *mut pg_sys::TupleTableSlot) -> Option<Change> {
        // SAFETY: as the caller's.
        unsafe {
            pg_sys::slot_getsomeattrs_int(slot, self.last_attribute);
            encode(&mut self.sources, slot, |_| true, &mut self.new);
        }
        self.change(false)
    }

    /// A row that was updated; `None` if nothing of what is sent has changed.
    ///
    /// # Safety
    /// The slots hold a row of the table before and after.
    pub unsafe fn update(
        &mut self,
        old: *mut pg_sys::TupleTableSlot,
        new: *mut pg_sys::TupleTableSlot,
    ) -> Option<Change> {
        // SAFETY: as the caller's.
        unsafe {
            pg_sys::slot_getsomeattrs_int(old, self.last_attribute);
            pg_sys::slot_getsomeattrs_int(new, self.last_attribute);
            for (source, differs) in self.sources.iter().zip(&mut self.differs) {
                *differs = source.differs(old, new);
            }
            if !self.differs.contains(&true) {
                return None;
            }
            encode(&mut self.sources, new, |_| true, &mut self.new);
            encode(&mut self.sources, old, |place| self.differs[place], &mut self.old);
        }
        self.change(true)
    }

    /// A number that tells a row's key from others.
    ///
    /// # Safety
    /// As `row`.
    unsafe fn key_hash(&mut self, slot: *mut pg_sys::TupleTableSlot) -> u64 {
        // SAFETY: as the caller's.
        unsafe {
            pg_sys::slot_getsomeattrs_int(slot, self.last_attribute);
            encode(&mut self.sources, slot, |place| self.key.contains(&place), &mut self.new);
        }
        let key = self.key.iter().map(|&place| self.new.value(place));
        stable_hash(capture::aggregate_id(key).bytes())
    }

    fn change(&self, is_update: bool) -> Option<Change> {
        let old = is_update.then_some((&self.old, self.differs.as_slice()));
        let payload = capture::payload(&self.columns, &self.key, &self.new, old)?;
        let key = self.key.iter().map(|&place| {
            let json = self.new.value(place);
            // Blanks at the end of a char(n) mean nothing.
            let trimmed = json.strip_suffix('"').map(|text| text.trim_end_matches(' ')).filter(|text| text.len() > 1);
            (json, trimmed.filter(|_| self.sources[place].is_blank_padded).map(|text| format!("{text}\"")))
        });
        let key: Vec<_> = key.collect();
        let aggregate_id = capture::aggregate_id(key.iter().map(|(json, trimmed)| trimmed.as_deref().unwrap_or(json)));
        Some(Change { aggregate_id, payload })
    }
}

/// Which rows of an UPDATE belong together where fewer came out of it than went in: those whose key was there before and
/// after, in their order. Whether a key that is gone and one that is new are the same row's cannot be known.
pub struct Counterparts {
    old: HashSet<u64>,
    new: HashSet<u64>,
}

impl Counterparts {
    /// `None`: each row has its counterpart.
    ///
    /// # Safety
    /// The stores hold rows of the open relation.
    pub unsafe fn of(writer: &mut Writer, old: Store, new: Store, relation: pg_sys::Relation) -> Option<Self> {
        // SAFETY: as the caller's.
        unsafe {
            if pg_sys::tuplestore_tuple_count(old) == pg_sys::tuplestore_tuple_count(new) {
                return None;
            }
            let mut keys = |store| {
                let mut rows = Transition::open(store, relation);
                let mut keys = HashSet::new();
                while rows.next() {
                    check_for_interrupts!();
                    keys.insert(writer.key_hash(rows.slot()));
                }
                rows.close();
                keys
            };
            Some(Self { old: keys(old), new: keys(new) })
        }
    }

    /// # Safety
    /// The slot holds a row of the table; so below.
    pub unsafe fn finds_old(&self, writer: &mut Writer, new: *mut pg_sys::TupleTableSlot) -> bool {
        // SAFETY: as the caller's.
        self.old.contains(&unsafe { writer.key_hash(new) })
    }

    pub unsafe fn finds_new(&self, writer: &mut Writer, old: *mut pg_sys::TupleTableSlot) -> bool {
        // SAFETY: as the caller's.
        self.new.contains(&unsafe { writer.key_hash(old) })
    }
}

/// # Safety
/// The relation is open and has the attribute.
unsafe fn describe(relation: pg_sys::Relation, attribute: i16) -> (String, Source) {
    // SAFETY: as the caller's.
    unsafe {
        let form = versions::attribute((*relation).rd_att, usize::try_from(attribute - 1).unwrap_or(0));
        let mut label = String::new();
        capture::push_string(&mut label, &CStr::from_ptr(form.attname.data.as_ptr()).to_string_lossy());
        label.push(':');
        let source = Source {
            attribute,
            length: form.attlen,
            by_value: form.attbyval,
            is_blank_padded: pg_sys::getBaseType(form.atttypid) == pg_sys::BPCHAROID,
            codec: Codec::of(form.atttypid),
        };
        (label, source)
    }
}

/// # Safety
/// The slot holds a row of the table, deformed as far as the sources go.
unsafe fn encode(
    sources: &mut [Source],
    slot: *mut pg_sys::TupleTableSlot,
    wanted: impl Fn(usize) -> bool,
    into: &mut Encoded,
) {
    into.clear();
    for (place, source) in sources.iter_mut().enumerate() {
        if wanted(place) {
            // SAFETY: as the caller's.
            match unsafe { source.value(slot) } {
                Some(value) => unsafe { source.codec.push(&mut into.json, value) },
                None => into.json.push_str("null"),
            }
        }
        into.end();
    }
}

impl Source {
    /// # Safety
    /// As `encode`.
    unsafe fn value(&self, slot: *mut pg_sys::TupleTableSlot) -> Option<pg_sys::Datum> {
        let place = usize::try_from(self.attribute - 1).unwrap_or(0);
        // SAFETY: as the caller's.
        unsafe { (!*(*slot).tts_isnull.add(place)).then(|| *(*slot).tts_values.add(place)) }
    }

    /// # Safety
    /// As `encode`, for both.
    unsafe fn differs(&self, old: *mut pg_sys::TupleTableSlot, new: *mut pg_sys::TupleTableSlot) -> bool {
        // SAFETY: as the caller's.
        unsafe {
            match (self.value(old), self.value(new)) {
                (Some(old), Some(new)) => !same(old, new, self.length, self.by_value),
                (old, new) => old.is_some() != new.is_some(),
            }
        }
    }
}
