//! Where the majors of PostgreSQL differ: one name and one form for all of them. Nowhere else is it asked which it is.

use std::ffi::{CStr, c_char, c_int};

use pgrx::pg_sys;

/// The place of a trigger's old row in an expression. INNER_VAR and OUTER_VAR are unsigned in PostgreSQL 14.
#[allow(clippy::cast_possible_wrap, clippy::unnecessary_cast)]
pub const OLD_ROW: c_int = pg_sys::INNER_VAR as c_int;
/// That of its new row.
#[allow(clippy::cast_possible_wrap, clippy::unnecessary_cast)]
pub const NEW_ROW: c_int = pg_sys::OUTER_VAR as c_int;

/// Sets the handler of a signal.
///
/// # Safety
/// A handler that may run at any time.
pub unsafe fn handle_signal(signal: c_int, handler: unsafe extern "C-unwind" fn(c_int)) {
    // SAFETY: as the caller's.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        pg_sys::pqsignal(signal, Some(handler));
        #[cfg(feature = "pg18")]
        pg_sys::pqsignal_be(signal, Some(handler));
    }
}

/// Has `request` ask for shared memory when it may: from PostgreSQL 15 on in a hook.
///
/// # Safety
/// Once, from `_PG_init`, while the postmaster preloads.
pub unsafe fn on_shmem_request(request: fn()) {
    #[cfg(feature = "pg14")]
    request();
    // SAFETY: as the caller's.
    #[cfg(not(feature = "pg14"))]
    unsafe {
        shmem_request::install(request);
    }
}

#[cfg(not(feature = "pg14"))]
mod shmem_request {
    use pgrx::{pg_guard, pg_sys};

    static mut PREVIOUS: pg_sys::shmem_request_hook_type = None;
    static mut OURS: Option<fn()> = None;

    pub unsafe fn install(request: fn()) {
        // SAFETY: single-threaded, once.
        unsafe {
            OURS = Some(request);
            PREVIOUS = pg_sys::shmem_request_hook;
            pg_sys::shmem_request_hook = Some(on_request);
        }
    }

    #[pg_guard]
    unsafe extern "C-unwind" fn on_request() {
        // SAFETY: the hook's own protocol; single-threaded.
        unsafe {
            if let Some(previous) = PREVIOUS {
                pg_sys::submodules::ffi::pg_guard_ffi_boundary(|| previous());
            }
            if let Some(request) = OURS {
                request();
            }
        }
    }
}

/// Nobody may set a setting with this prefix that we do not define. PostgreSQL 14 only warns.
pub fn reserve_settings(prefix: &'static CStr) {
    // SAFETY: a static C string, and the library is being loaded.
    unsafe {
        #[cfg(not(feature = "pg14"))]
        pg_sys::MarkGUCPrefixReserved(prefix.as_ptr());
        #[cfg(feature = "pg14")]
        pg_sys::EmitWarningsOnPlaceholders(prefix.as_ptr());
    }
}

/// All settings: where they are, and how many.
///
/// # Safety
/// They are PostgreSQL's own.
pub unsafe fn all_settings() -> (*mut *mut pg_sys::config_generic, usize) {
    let mut count = 0;
    // SAFETY: read by the main thread.
    let all = unsafe {
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        {
            count += pg_sys::GetNumConfigOptions();
            pg_sys::get_guc_variables()
        }
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        pg_sys::get_guc_variables(&raw mut count)
    };
    (all, usize::try_from(count).unwrap_or(0))
}

/// The text of a string node.
///
/// # Safety
/// `node` is one.
pub unsafe fn string<'a>(node: *mut pg_sys::Node) -> &'a CStr {
    // SAFETY: as the caller's.
    unsafe {
        #[cfg(feature = "pg14")]
        let text = (*node.cast::<pg_sys::Value>()).val.str_;
        #[cfg(not(feature = "pg14"))]
        let text = (*node.cast::<pg_sys::String>()).sval;
        CStr::from_ptr(text)
    }
}

/// A column's description. `at` counts from 0.
///
/// # Safety
/// The description has the column.
pub unsafe fn attribute<'a>(row: pg_sys::TupleDesc, at: usize) -> &'a pg_sys::FormData_pg_attribute {
    // SAFETY: as the caller's.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        let form = (*row).attrs.as_ptr().add(at);
        #[cfg(feature = "pg18")]
        let form = pg_sys::TupleDescAttr(row, c_int::try_from(at).unwrap_or(c_int::MAX));
        &*form
    }
}

/// An entry of the processes that are connected.
///
/// # Safety
/// `number` is between 1 and the number of processes.
pub unsafe fn process_entry(number: c_int) -> *mut pg_sys::LocalPgBackendStatus {
    // SAFETY: as the caller's.
    unsafe {
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        let entry = pg_sys::pgstat_fetch_stat_local_beentry(number);
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        let entry = pg_sys::pgstat_get_local_beentry_by_index(number);
        entry
    }
}

/// Whether a role may make another one an owner.
///
/// # Safety
/// In a transaction.
pub unsafe fn may_give_to(role: pg_sys::Oid, other: pg_sys::Oid) -> bool {
    // SAFETY: look-ups in a transaction.
    unsafe {
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        let may = pg_sys::is_member_of_role(role, other);
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        let may = pg_sys::member_can_set_role(role, other);
        may
    }
}

/// Whether a role may have a database in a tablespace.
///
/// # Safety
/// In a transaction.
pub unsafe fn may_create_in_tablespace(tablespace: pg_sys::Oid, role: pg_sys::Oid) -> bool {
    let right = pg_sys::AclMode::from(pg_sys::ACL_CREATE);
    // SAFETY: look-ups in a transaction.
    unsafe {
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        let answer = pg_sys::pg_tablespace_aclcheck(tablespace, role, right);
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        let answer = pg_sys::object_aclcheck(pg_sys::TableSpaceRelationId, tablespace, role, right);
        answer == pg_sys::AclResult::ACLCHECK_OK
    }
}

/// Whether a role owns an extension, or may do whatever its owner may.
///
/// # Safety
/// In a transaction.
pub unsafe fn owns_extension(extension: pg_sys::Oid, role: pg_sys::Oid) -> bool {
    // SAFETY: look-ups in a transaction.
    unsafe {
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        let owns = pg_sys::pg_extension_ownercheck(extension, role);
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        let owns = pg_sys::object_ownercheck(pg_sys::ExtensionRelationId, extension, role);
        owns
    }
}

/// Bytes that are read or written at once: as many as an `int` can count.
const MOST: usize = 1 << 30;

/// Writes to a file of PostgreSQL's. Returns how many bytes, or a negative number.
///
/// # Safety
/// The file is open.
pub unsafe fn write_file(file: pg_sys::File, from: &[u8], at: i64, wait: u32) -> isize {
    let length = from.len().min(MOST);
    // SAFETY: as the caller's; the buffer is only read.
    unsafe {
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        let written =
            pg_sys::FileWrite(file, from.as_ptr().cast::<c_char>().cast_mut(), length as c_int, at, wait) as isize;
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        let written = pg_sys::FileWrite(file, from.as_ptr().cast(), length, at, wait) as isize;
        written
    }
}

/// Reads from a file of PostgreSQL's. Returns how many bytes, or a negative number.
///
/// # Safety
/// The file is open.
pub unsafe fn read_file(file: pg_sys::File, into: &mut [u8], at: i64, wait: u32) -> isize {
    let length = into.len().min(MOST);
    // SAFETY: as the caller's.
    unsafe {
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        let read = pg_sys::FileRead(file, into.as_mut_ptr().cast::<c_char>(), length as c_int, at, wait) as isize;
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        let read = pg_sys::FileRead(file, into.as_mut_ptr().cast(), length, at, wait) as isize;
        read
    }
}
