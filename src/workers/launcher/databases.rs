//! The databases of the server that workers may connect to.

use std::collections::HashMap;
use std::ffi::CStr;

use pgrx::pg_sys;

/// With their names. Read from the heap: there is no catalog cache without a
/// database.
pub(super) fn all() -> HashMap<u32, String> {
    let mut found = HashMap::new();
    // SAFETY: a catalog scan in a transaction; tuples are valid until the next one is fetched.
    unsafe {
        let relation = pg_sys::table_open(pg_sys::DatabaseRelationId, pg_sys::AccessShareLock as _);
        let scan = pg_sys::table_beginscan_catalog(relation, 0, std::ptr::null_mut());
        loop {
            let tuple = pg_sys::heap_getnext(scan, pg_sys::ScanDirection::ForwardScanDirection);
            if tuple.is_null() {
                break;
            }
            let database = &*pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_database>(tuple);
            // -2: left half-created or half-dropped.
            if database.datallowconn && !database.datistemplate && database.datconnlimit != -2 {
                let name = CStr::from_ptr(database.datname.data.as_ptr()).to_string_lossy().into_owned();
                found.insert(database.oid.to_u32(), name);
            }
        }
        pg_sys::table_endscan(scan);
        pg_sys::table_close(relation, pg_sys::AccessShareLock as _);
    }
    found
}
