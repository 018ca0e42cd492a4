//! Many rows for one of the extension's tables.

use pgrx::pg_sys;

use super::relation::Appender;

/// Rows that are appended together once they are many: a page is then found, locked and logged once for all that fit it.
pub struct Batch {
    slots: Vec<*mut pg_sys::TupleTableSlot>,
    used: usize,
    bytes: usize,
}

impl Batch {
    const ROWS: usize = 64;
    const BYTES: usize = 1 << 16;

    pub const fn new() -> Self {
        Self { slots: Vec::new(), used: 0, bytes: 0 }
    }

    pub fn is_full(&self) -> bool {
        self.used == Self::ROWS || self.bytes > Self::BYTES
    }

    /// Makes room for a row in a batch that is not full. Rows live in the memory context that was the current one then.
    pub fn reserve(&mut self, to: &Appender) {
        if self.used == self.slots.len() {
            // SAFETY: the table is open.
            let slot = unsafe {
                pg_sys::MakeSingleTupleTableSlot(to.relation.descriptor(), &raw const pg_sys::TTSOpsHeapTuple)
            };
            self.slots.push(slot);
        }
    }

    /// Adds a row, which is copied, to a batch that is not full. `bytes`: about as long as it is.
    pub fn add<const N: usize>(&mut self, to: &Appender, values: [Option<pg_sys::Datum>; N], bytes: usize) {
        self.reserve(to);
        let slot = self.slots[self.used];
        // SAFETY: as in `Appender::append`; a slot is used by one row at a time.
        unsafe {
            assert_eq!((*to.relation.descriptor()).natts as usize, N, "columns of a sea_mq table");
            for (at, value) in values.into_iter().enumerate() {
                *(*slot).tts_values.add(at) = value.unwrap_or(pg_sys::Datum::from(0));
                *(*slot).tts_isnull.add(at) = value.is_none();
            }
            pg_sys::ExecStoreVirtualTuple(slot);
            pg_sys::ExecMaterializeSlot(slot);
        }
        self.used += 1;
        self.bytes += bytes;
    }

    /// Appends the rows. What that allocates, and leaves, is the current memory context's.
    pub fn flush(&mut self, to: &mut Appender) {
        if self.used > 0 {
            let slots = &mut self.slots[..self.used];
            // SAFETY: the slots hold rows of the table, and its indexes are open.
            unsafe { pg_sys::submodules::ffi::pg_guard_ffi_boundary(|| insert(to, slots)) }
            for &mut slot in slots {
                // SAFETY: the row is in the table.
                unsafe { pg_sys::ExecClearTuple(slot) };
            }
        }
        (self.used, self.bytes) = (0, 0);
    }

    /// Gives the memory back.
    pub fn end(self) {
        // SAFETY: made by us, dropped once.
        self.slots.into_iter().for_each(|slot| unsafe { pg_sys::ExecDropSingleTupleTableSlot(slot) });
    }
}

/// As CatalogTuplesMultiInsertWithInfo, but all rows into one index and then into the next, and without a slot for each. And
/// a row's place is that of its slot: the tuple that the other one looks at is not the one that is inserted where parts of
/// a long row go out of line, and the indexes would point nowhere.
///
/// # Safety
/// The slots hold rows of the table, and its indexes are open. Called behind a guard: an ERROR passes by jumping.
unsafe fn insert(to: &Appender, slots: &mut [*mut pg_sys::TupleTableSlot]) {
    // SAFETY: as the caller's. No index of ours has expressions; those with a predicate are left out.
    unsafe {
        let table = to.relation.raw();
        let count = i32::try_from(slots.len()).unwrap_or(0);
        raw::heap_multi_insert(
            table,
            slots.as_mut_ptr(),
            count,
            pg_sys::GetCurrentCommandId(true),
            0,
            std::ptr::null_mut(),
        );
        let indexes = &*to.indexes;
        for place in 0..usize::try_from(indexes.ri_NumIndices).unwrap_or(0) {
            let index = *indexes.ri_IndexRelationDescs.add(place);
            let info = *indexes.ri_IndexRelationInfo.add(place);
            if !(*info).ii_ReadyForInserts {
                continue;
            }
            let check = if (*(*index).rd_index).indisunique {
                pg_sys::IndexUniqueCheck::UNIQUE_CHECK_YES
            } else {
                pg_sys::IndexUniqueCheck::UNIQUE_CHECK_NO
            };
            for &slot in slots.iter() {
                let mut values = [pg_sys::Datum::from(0); pg_sys::INDEX_MAX_KEYS as usize];
                let mut nulls = [false; pg_sys::INDEX_MAX_KEYS as usize];
                raw::FormIndexDatum(info, slot, std::ptr::null_mut(), values.as_mut_ptr(), nulls.as_mut_ptr());
                let at = &raw mut (*slot).tts_tid;
                raw::index_insert(index, values.as_mut_ptr(), nulls.as_mut_ptr(), at, table, check, false, info);
            }
        }
    }
}

/// Functions that are called for many rows behind one guard.
mod raw {
    use pgrx::pg_sys;

    unsafe extern "C-unwind" {
        /// src/backend/access/heap/heapam.c
        pub fn heap_multi_insert(
            relation: pg_sys::Relation,
            slots: *mut *mut pg_sys::TupleTableSlot,
            count: std::ffi::c_int,
            command: pg_sys::CommandId,
            options: std::ffi::c_int,
            state: pg_sys::BulkInsertState,
        );
        /// src/backend/catalog/index.c
        pub fn FormIndexDatum(
            info: *mut pg_sys::IndexInfo,
            slot: *mut pg_sys::TupleTableSlot,
            estate: *mut pg_sys::EState,
            values: *mut pg_sys::Datum,
            nulls: *mut bool,
        );
        /// src/backend/access/index/indexam.c
        pub fn index_insert(
            index: pg_sys::Relation,
            values: *mut pg_sys::Datum,
            nulls: *mut bool,
            tid: pg_sys::ItemPointer,
            table: pg_sys::Relation,
            check: pg_sys::IndexUniqueCheck::Type,
            unchanged: bool,
            info: *mut pg_sys::IndexInfo,
        ) -> bool;
    }
}
