//! What the catalogs say of databases, and what the current role may do with them. For the statements that
//! [`crate::host::exclusive`] makes room for; to be called in a transaction.

use std::ffi::c_char;

use pgrx::pg_sys;

use super::versions;

/// A row of `pg_database`.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    pub oid: pg_sys::Oid,
    pub tablespace: pg_sys::Oid,
    pub is_template: bool,
    pub takes_connections: bool,
    /// Not left behind half-made or half-dropped.
    pub is_valid: bool,
    /// It is the one that the process is connected to.
    pub is_current: bool,
    /// The current role owns it, or may do whatever its owner may.
    pub is_own: bool,
}

/// A database by its OID.
pub fn database(oid: pg_sys::Oid) -> Option<Found> {
    // SAFETY: a look-up in a transaction; the tuple is held until it is released.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::DATABASEOID as i32;
        let tuple = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(oid));
        if tuple.is_null() {
            return None;
        }
        let row = &*pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_database>(tuple);
        let found = Found {
            oid,
            tablespace: row.dattablespace,
            is_template: row.datistemplate,
            takes_connections: row.datallowconn,
            is_valid: row.datconnlimit != -2,
            is_current: oid == pg_sys::MyDatabaseId,
            is_own: pg_sys::has_privs_of_role(pg_sys::GetUserId(), row.datdba),
        };
        pg_sys::ReleaseSysCache(tuple);
        Some(found)
    }
}

/// A database by its name.
///
/// # Safety
/// `name` is null or a C string.
pub unsafe fn database_of(name: *const c_char) -> Option<Found> {
    if name.is_null() {
        return None;
    }
    // SAFETY: a C string.
    database(unsafe { pg_sys::get_database_oid(name, true) })
}

/// As have_createdb_privilege of src/backend/commands/dbcommands.c.
pub fn may_create_databases() -> bool {
    // SAFETY: as in `database`.
    unsafe {
        if pg_sys::superuser() {
            return true;
        }
        let cache = pg_sys::SysCacheIdentifier::AUTHOID as i32;
        let tuple = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(pg_sys::GetUserId()));
        if tuple.is_null() {
            return false;
        }
        let may = (*pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_authid>(tuple)).rolcreatedb;
        pg_sys::ReleaseSysCache(tuple);
        may
    }
}

/// Whether the current role may make another one an owner.
///
/// # Safety
/// `role` is a C string.
pub unsafe fn may_give_to(role: *const c_char) -> bool {
    unsafe {
        let oid = pg_sys::get_role_oid(role, true);
        oid != pg_sys::InvalidOid && versions::may_give_to(pg_sys::GetUserId(), oid)
    }
}

/// A tablespace, if the current role may have a database in it.
///
/// # Safety
/// `name` is a C string.
pub unsafe fn usable_tablespace(name: *const c_char) -> Option<pg_sys::Oid> {
    unsafe {
        let oid = pg_sys::get_tablespace_oid(name, true);
        if oid == pg_sys::InvalidOid || oid == pg_sys::GLOBALTABLESPACE_OID {
            return None;
        }
        versions::may_create_in_tablespace(oid, pg_sys::GetUserId()).then_some(oid)
    }
}

/// Whether the current role owns an extension, or may do whatever its owner may.
pub fn owns_extension(extension: pg_sys::Oid) -> bool {
    // SAFETY: a look-up in a transaction.
    unsafe { versions::owns_extension(extension, pg_sys::GetUserId()) }
}
