//! What a condition may name.
//!
//! It is evaluated as the owner of its table, in everybody's sessions and for years. So it names nothing that is another thing in
//! another session (what is temporary), and a superuser's condition nothing that somebody else may replace by something else.

use std::ffi::{CStr, c_void};

use pgrx::{PgSqlErrorCode, pg_guard, pg_sys};

use crate::sys::error::raise;

/// Looks at the types that a text names, before anything is read as a value of them.
///
/// # Safety
/// `node` is an expression of the raw parser.
pub unsafe fn check_types(node: *mut pg_sys::Node) {
    // SAFETY: as the caller's.
    unsafe { look_raw(node, std::ptr::null_mut()) };
}

/// Looks at the functions and types of an analysed expression.
///
/// # Safety
/// `node` is an analysed expression.
pub unsafe fn check_objects(node: *mut pg_sys::Node) {
    // SAFETY: as the caller's.
    unsafe { look(node, std::ptr::null_mut()) };
}

// What the walkers call. An error leaves these by a jump, so Rust calls what is behind them instead.
#[pg_guard]
unsafe extern "C-unwind" fn visit_raw(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    // SAFETY: as the walker's.
    unsafe { look_raw(node, context) }
}

#[pg_guard]
unsafe extern "C-unwind" fn visit(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    // SAFETY: as the walker's.
    unsafe { look(node, context) }
}

unsafe fn look_raw(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    // SAFETY: the walker passes nodes; it is called as C calls it.
    unsafe {
        if node.is_null() {
            return false;
        }
        if (*node).type_ == pg_sys::NodeTag::T_TypeName {
            let type_oid = pg_sys::LookupTypeNameOid(std::ptr::null_mut(), node.cast(), true);
            check_type(type_oid);
        }
        pg_sys::raw_expression_tree_walker(node, Some(visit_raw), context)
    }
}

unsafe fn look(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    use pg_sys::NodeTag;
    // SAFETY: as above.
    unsafe {
        if node.is_null() {
            return false;
        }
        if matches!(
            (*node).type_,
            NodeTag::T_Const
                | NodeTag::T_FuncExpr
                | NodeTag::T_RelabelType
                | NodeTag::T_CoerceViaIO
                | NodeTag::T_ArrayCoerceExpr
                | NodeTag::T_ConvertRowtypeExpr
                | NodeTag::T_CoerceToDomain
                | NodeTag::T_ArrayExpr
                | NodeTag::T_RowExpr
        ) {
            check_type(pg_sys::exprType(node));
        }
        pg_sys::check_functions_in_node(node, Some(visit_function), context);
        pg_sys::expression_tree_walker(node, Some(visit), context)
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn visit_function(function: pg_sys::Oid, _context: *mut c_void) -> bool {
    let cache = pg_sys::SysCacheIdentifier::PROCOID as i32;
    // SAFETY: a catalog look-up in a transaction; the tuple is released after its last use.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(function));
        if !tuple.is_null() {
            let form = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_proc>();
            let (schema, owner, name) = ((*form).pronamespace, (*form).proowner, (*form).proname);
            pg_sys::ReleaseSysCache(tuple);
            check("function", &name, schema, owner);
        }
    }
    false
}

fn check_type(type_oid: pg_sys::Oid) {
    let cache = pg_sys::SysCacheIdentifier::TYPEOID as i32;
    // SAFETY: as above.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(type_oid));
        if !tuple.is_null() {
            let form = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_type>();
            let (schema, owner, name) = ((*form).typnamespace, (*form).typowner, (*form).typname);
            pg_sys::ReleaseSysCache(tuple);
            check("type", &name, schema, owner);
        }
    }
}

fn check(kind: &str, name: &pg_sys::NameData, schema: pg_sys::Oid, owner: pg_sys::Oid) {
    // SAFETY: a name ends with NUL; catalog look-ups in a transaction.
    let (name, is_temporary, is_foreign) = unsafe {
        let name = CStr::from_ptr(name.data.as_ptr()).to_string_lossy();
        let is_foreign = pg_sys::superuser_arg(pg_sys::GetUserId()) && !pg_sys::superuser_arg(owner);
        (name, pg_sys::isAnyTempNamespace(schema), is_foreign)
    };
    if is_temporary {
        raise(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("{kind} \"{name}\" is temporary, and a captured table's condition is not"),
            "Make it in a schema that stays.",
        );
    }
    if is_foreign {
        raise(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("{kind} \"{name}\" belongs to no superuser, and the condition runs as one"),
            "Let a superuser own what the condition names, or an ordinary role the captured table.",
        );
    }
}
