//! Direct access to the extension's own tables: open, scan an index, insert. No planner, no executor, no privileges.
//!
//! This is how the log is written at pre-commit and read by the relay: the plan cannot change with statistics, a read
//! assigns no transaction id, and a producer needs no rights on the tables.

use std::ffi::CString;

use pgrx::pg_sys;

/// An open relation; closed, with its lock kept or released, when dropped.
pub struct Relation {
    raw: pg_sys::Relation,
    release: pg_sys::LOCKMODE,
}

/// One condition of an index scan on a column of the table (attribute number from 1).
pub enum Key {
    Int8(i16, Compare, i64),
    Xid8(i16, Compare, u64),
    Uuid(i16, pg_sys::Datum),
    /// The column has the collation "C".
    Text(i16, pg_sys::Datum),
}

#[derive(Clone, Copy)]
pub enum Compare {
    Equal,
    /// Greater.
    Above,
    /// Less or equal.
    UpTo,
    /// Greater or equal.
    From,
    /// Less.
    Below,
}

impl Compare {
    /// The strategy of a B-tree, and the functions for `bigint` and `xid8`.
    const fn functions(self) -> (u32, u32, u32) {
        match self {
            Self::Equal => (pg_sys::BTEqualStrategyNumber, pg_sys::F_INT8EQ, pg_sys::F_XID8EQ),
            Self::Above => (pg_sys::BTGreaterStrategyNumber, pg_sys::F_INT8GT, pg_sys::F_XID8GT),
            Self::UpTo => (pg_sys::BTLessEqualStrategyNumber, pg_sys::F_INT8LE, pg_sys::F_XID8LE),
            Self::From => (pg_sys::BTGreaterEqualStrategyNumber, pg_sys::F_INT8GE, pg_sys::F_XID8GE),
            Self::Below => (pg_sys::BTLessStrategyNumber, pg_sys::F_INT8LT, pg_sys::F_XID8LT),
        }
    }
}

/// OID of a relation of the schema `sea_mq`; `None` if there is none.
pub fn oid(name: &str) -> Option<pg_sys::Oid> {
    let name = CString::new(name).ok()?;
    // SAFETY: catalog look-ups in a transaction.
    unsafe {
        let schema = pg_sys::get_namespace_oid(c"sea_mq".as_ptr(), true);
        if schema == pg_sys::InvalidOid {
            return None;
        }
        let oid = pg_sys::get_relname_relid(name.as_ptr(), schema);
        (oid != pg_sys::InvalidOid).then_some(oid)
    }
}

/// OID of a relation of the schema `sea_mq`, or an ERROR.
pub fn require(name: &str) -> pg_sys::Oid {
    oid(name).unwrap_or_else(|| {
        super::error::raise(
            pgrx::PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("sea_mq.{name} does not exist"),
            "Install the extension: CREATE EXTENSION sea_mq.",
        )
    })
}

impl Relation {
    /// Opens a table for reading; its lock is released on drop.
    pub fn open(name: &str) -> Self {
        Self::lock(require(name), pg_sys::AccessShareLock as _, pg_sys::AccessShareLock as _)
    }

    /// Opens a table for writing; its lock is kept until the transaction ends.
    pub fn open_for_write(table: pg_sys::Oid) -> Self {
        Self::lock(table, pg_sys::RowExclusiveLock as _, pg_sys::NoLock as _)
    }

    fn lock(table: pg_sys::Oid, mode: pg_sys::LOCKMODE, release: pg_sys::LOCKMODE) -> Self {
        // SAFETY: in a transaction; the relation is closed on drop, or by the transaction's end after an ERROR.
        Self { raw: unsafe { pg_sys::table_open(table, mode) }, release }
    }

    pub fn raw(&self) -> pg_sys::Relation {
        self.raw
    }

    pub fn descriptor(&self) -> pg_sys::TupleDesc {
        // SAFETY: the relation is open.
        unsafe { (*self.raw).rd_att }
    }

    /// Whether the table has no pages, which costs one look at its length.
    pub fn is_empty(&self) -> bool {
        self.blocks() == 0
    }

    /// Pages of the table itself, without indexes.
    pub fn blocks(&self) -> u32 {
        // SAFETY: the relation is open.
        unsafe { pg_sys::RelationGetNumberOfBlocksInFork(self.raw, pg_sys::ForkNumber::MAIN_FORKNUM) }
    }

    /// Scans in index order what `snapshot` shows; null stands for a snapshot taken now.
    pub fn scan(&self, index: &str, keys: &[Key], snapshot: pg_sys::Snapshot) -> IndexScan {
        let mut raw_keys: Vec<pg_sys::ScanKeyData> = keys.iter().map(Key::raw).collect();
        let count = i32::try_from(raw_keys.len()).unwrap_or(0);
        // SAFETY: relation and index are open for the life of the scan (the caller keeps `self`; see IndexScan::drop).
        unsafe {
            let index = pg_sys::index_open(require(index), pg_sys::AccessShareLock as _);
            let snapshot = if snapshot.is_null() { pg_sys::GetLatestSnapshot() } else { snapshot };
            let snapshot = pg_sys::RegisterSnapshot(snapshot);
            let raw = pg_sys::systable_beginscan_ordered(self.raw, index, snapshot, count, raw_keys.as_mut_ptr());
            IndexScan { raw, index, snapshot, descriptor: self.descriptor() }
        }
    }

    /// The first row of a table that has one, in no particular order, as of now.
    pub fn only_row<T>(&self, read: impl FnOnce(&Row) -> T) -> Option<T> {
        // SAFETY: a sequential scan with a snapshot of its own, ended before the relation is closed.
        unsafe {
            let scan = pg_sys::systable_beginscan(
                self.raw,
                pg_sys::InvalidOid,
                false,
                std::ptr::null_mut(),
                0,
                std::ptr::null_mut(),
            );
            let tuple = pg_sys::systable_getnext(scan);
            let result = (!tuple.is_null()).then(|| read(&Row::new(tuple, self.descriptor())));
            pg_sys::systable_endscan(scan);
            result
        }
    }
}

impl Drop for Relation {
    fn drop(&mut self) {
        // After an ERROR the transaction's end closes the relation; doing it here as well would be once too often.
        if !std::thread::panicking() {
            // SAFETY: the relation was opened by us and is closed once.
            unsafe { pg_sys::table_close(self.raw, self.release) }
        }
    }
}

impl Key {
    fn raw(&self) -> pg_sys::ScanKeyData {
        let (attribute, strategy, function, argument) = match *self {
            Self::Int8(attribute, compare, value) => {
                let (strategy, function, _) = compare.functions();
                (attribute, strategy, function, pg_sys::Datum::from(value))
            }
            Self::Xid8(attribute, compare, value) => {
                let (strategy, _, function) = compare.functions();
                (attribute, strategy, function, pg_sys::Datum::from(value))
            }
            Self::Uuid(attribute, datum) => (attribute, pg_sys::BTEqualStrategyNumber, pg_sys::F_UUID_EQ, datum),
            Self::Text(attribute, datum) => (attribute, pg_sys::BTEqualStrategyNumber, pg_sys::F_TEXTEQ, datum),
        };
        let mut key = pg_sys::ScanKeyData::default();
        // SAFETY: the functions are those of the built-in operator classes for the columns' types.
        unsafe {
            pg_sys::ScanKeyInit(&mut key, attribute, strategy as _, pg_sys::Oid::from(function), argument);
        }
        key
    }
}

/// An index scan. Must be dropped before the relation it came from.
pub struct IndexScan {
    raw: pg_sys::SysScanDesc,
    index: pg_sys::Relation,
    snapshot: pg_sys::Snapshot,
    descriptor: pg_sys::TupleDesc,
}

impl IndexScan {
    /// The next row; valid until the next call.
    pub fn next(&mut self) -> Option<Row> {
        // SAFETY: the scan is open.
        let tuple = unsafe { pg_sys::systable_getnext_ordered(self.raw, pg_sys::ScanDirection::ForwardScanDirection) };
        (!tuple.is_null()).then(|| Row::new(tuple, self.descriptor))
    }

    /// The row before; of a scan that was not begun, the last one. Valid until the next call.
    pub fn previous(&mut self) -> Option<Row> {
        // SAFETY: the scan is open.
        let tuple = unsafe { pg_sys::systable_getnext_ordered(self.raw, pg_sys::ScanDirection::BackwardScanDirection) };
        (!tuple.is_null()).then(|| Row::new(tuple, self.descriptor))
    }
}

impl Drop for IndexScan {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: opened by us, ended once.
            unsafe {
                pg_sys::systable_endscan_ordered(self.raw);
                pg_sys::index_close(self.index, pg_sys::AccessShareLock as _);
                pg_sys::UnregisterSnapshot(self.snapshot);
            }
        }
    }
}

/// A row of a scan.
pub struct Row {
    tuple: pg_sys::HeapTuple,
    descriptor: pg_sys::TupleDesc,
}

impl Row {
    fn new(tuple: pg_sys::HeapTuple, descriptor: pg_sys::TupleDesc) -> Self {
        Self { tuple, descriptor }
    }

    /// Bytes that the row takes in the table, what is stored apart from it not counted.
    pub fn bytes(&self) -> u64 {
        // SAFETY: the tuple is valid until the next call of the scan.
        u64::from(unsafe { (*self.tuple).t_len })
    }

    /// All columns; `None` for NULL.
    pub fn values<const N: usize>(&self) -> [Option<pg_sys::Datum>; N] {
        let mut values = [pg_sys::Datum::from(0); N];
        let mut nulls = [true; N];
        // SAFETY: the table has N columns, which the callers know from sql/.
        unsafe {
            assert_eq!((*self.descriptor).natts as usize, N, "columns of a sea_mq table");
            pg_sys::heap_deform_tuple(self.tuple, self.descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
        }
        std::array::from_fn(|i| (!nulls[i]).then_some(values[i]))
    }
}

impl Row {
    /// All columns, copied into the current memory context.
    pub fn copied_values<const N: usize>(&self) -> [Option<pg_sys::Datum>; N] {
        // SAFETY: the tuple is valid; its copy lives as long as the memory context.
        let copy = Row::new(unsafe { pg_sys::heap_copytuple(self.tuple) }, self.descriptor);
        copy.values()
    }
}

/// An open table that rows are appended to.
pub struct Appender {
    pub(super) relation: Relation,
    pub(super) indexes: pg_sys::CatalogIndexState,
}

impl Appender {
    /// Opens a table of the schema `sea_mq`; its lock is kept until the transaction ends.
    ///
    /// Rows are entered into every index but the partial ones, whose conditions nobody looks at here: what is appended must
    /// not be of those that they are about.
    pub fn open(table: pg_sys::Oid) -> Self {
        let relation = Relation::open_for_write(table);
        // SAFETY: the relation is open for the life of the index state, which has as many indexes as it says.
        let indexes = unsafe {
            let indexes = pg_sys::CatalogOpenIndexes(relation.raw());
            for place in 0..(*indexes).ri_NumIndices as usize {
                let info = *(*indexes).ri_IndexRelationInfo.add(place);
                if !(*info).ii_Predicate.is_null() {
                    (*info).ii_ReadyForInserts = false;
                }
            }
            indexes
        };
        Self { relation, indexes }
    }

    pub fn append<const N: usize>(&mut self, values: [Option<pg_sys::Datum>; N]) {
        let mut nulls = values.map(|value| value.is_none());
        let mut datums = values.map(|value| value.unwrap_or(pg_sys::Datum::from(0)));
        // SAFETY: the table has N columns of the types that the callers know from sql/; the tuple is freed after use.
        unsafe {
            assert_eq!((*self.relation.descriptor()).natts as usize, N, "columns of a sea_mq table");
            let tuple = pg_sys::heap_form_tuple(self.relation.descriptor(), datums.as_mut_ptr(), nulls.as_mut_ptr());
            pg_sys::CatalogTupleInsertWithInfo(self.relation.raw(), tuple, self.indexes);
            pg_sys::heap_freetuple(tuple);
        }
    }
}

impl Drop for Appender {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: opened by us, closed once.
            unsafe { pg_sys::CatalogCloseIndexes(self.indexes) }
        }
    }
}

/// A memory context for the values of one row at a time.
pub struct Scratch(pg_sys::MemoryContext);

impl Scratch {
    pub fn new() -> Self {
        // SAFETY: a child of the current context; if an ERROR passes, the parent's end takes it along.
        Self(unsafe {
            pg_sys::AllocSetContextCreateExtended(
                pg_sys::CurrentMemoryContext,
                c"sea_mq scratch".as_ptr(),
                pg_sys::ALLOCSET_DEFAULT_MINSIZE as _,
                pg_sys::ALLOCSET_DEFAULT_INITSIZE as _,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as _,
            )
        })
    }

    /// Runs `f` in the context and frees what it allocated. Nothing that outlives `f` may be allocated in it.
    pub fn within<T>(&self, f: impl FnOnce() -> T) -> T {
        // SAFETY: the caller's context is the current one again afterwards; an ERROR resets it anyway.
        unsafe {
            let caller = pg_sys::MemoryContextSwitchTo(self.0);
            let result = f();
            pg_sys::MemoryContextSwitchTo(caller);
            pg_sys::MemoryContextReset(self.0);
            result
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: created by us, and not the current context.
            unsafe { pg_sys::MemoryContextDelete(self.0) }
        }
    }
}
