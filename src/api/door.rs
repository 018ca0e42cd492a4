//! Functions that do what their callers have no rights for.
//!
//! `sea_mq.f(…)` is a C function of everybody whom it is granted to, and what it does stands in `sea_mq_inside.f(…)`, which has the
//! same parameters and result and is granted to nobody. The first runs the second inside the door: as the owner of the
//! extension, whose rights are messages and nothing else, with settings that no caller chooses. Nothing is SECURITY DEFINER,
//! which would keep all settings of the caller's but one. `sql/api/door.sql` makes the pairs.

use std::ffi::CStr;

use pgrx::{pg_guard, pg_sys};

use crate::host::door;
use crate::sys::datum::sql_function;

sql_function!(caller_wrapper, pg_finfo_caller_wrapper, |_call| pg_sys::Datum::from(door::caller()));

#[unsafe(no_mangle)]
#[doc(hidden)]
pub extern "C" fn pg_finfo_door_wrapper() -> &'static pg_sys::Pg_finfo_record {
    const VERSION_1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &VERSION_1
}

/// Runs the function's inside. An ERROR of it leaves by PostgreSQL's own way, with SQLSTATE, context and all: this frame has
/// nothing that would have to be dropped, and what it has opened is closed by the end of the transaction or savepoint.
#[unsafe(no_mangle)]
#[doc(hidden)]
pub unsafe extern "C-unwind" fn door_wrapper(outer: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: PostgreSQL passes the call being executed. What `enter` returns is a call of a function that exists.
    unsafe {
        let inner = enter(outer);
        let result = match (*(*inner).flinfo).fn_addr {
            Some(run) => run(inner),
            None => pg_sys::Datum::from(0),
        };
        (*outer).isnull = (*inner).isnull;
        leave();
        result
    }
}

/// Opens the door and makes the inner call.
#[pg_guard]
unsafe extern "C-unwind" fn enter(outer: pg_sys::FunctionCallInfo) -> pg_sys::FunctionCallInfo {
    // SAFETY: both functions have the same parameters and result, so arguments and result fit. The context says what a trigger
    // is about. A set is to be complete when the door is left.
    unsafe {
        let arguments = usize::try_from((*outer).nargs).unwrap_or(0);
        let size = size_of::<pg_sys::FunctionCallInfoBaseData>() + arguments * size_of::<pg_sys::NullableDatum>();
        let inner = pg_sys::palloc0(size).cast::<pg_sys::FunctionCallInfoBaseData>();
        (*inner).context = (*outer).context;
        (*inner).resultinfo = (*outer).resultinfo;
        (*inner).fncollation = (*outer).fncollation;
        (*inner).nargs = (*outer).nargs;
        let from = (&raw const (*outer).args).cast::<pg_sys::NullableDatum>();
        std::ptr::copy_nonoverlapping(from, (&raw mut (*inner).args).cast(), arguments);
        let set = (*outer).resultinfo.cast::<pg_sys::ReturnSetInfo>();
        if !set.is_null() && (*set).type_ == pg_sys::NodeTag::T_ReturnSetInfo {
            (*set).allowedModes |= pg_sys::SetFunctionReturnMode::SFRM_Materialize_Preferred as i32;
        }
        door::open_as_owner();
        (*inner).flinfo = inside((*outer).flinfo);
        inner
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn leave() {
    door::close();
}

/// The function that an outer one runs; looked up once for each place that calls it.
///
/// # Safety
/// `outer` is that of the call being executed.
unsafe fn inside(outer: *mut pg_sys::FmgrInfo) -> *mut pg_sys::FmgrInfo {
    // SAFETY: as the caller's. What is kept lives as long as `outer`.
    unsafe {
        if !(*outer).fn_extra.is_null() {
            return (*outer).fn_extra.cast();
        }
        let name = CStr::from_ptr(pg_sys::get_func_name((*outer).fn_oid));
        let (mut types, mut count) = (std::ptr::null_mut(), 0);
        pg_sys::get_func_signature((*outer).fn_oid, &raw mut types, &raw mut count);
        let names = [c"sea_mq_inside", name].into_iter().fold(std::ptr::null_mut(), |list, part| {
            pg_sys::lappend(list, pg_sys::makeString(pg_sys::pstrdup(part.as_ptr())).cast())
        });
        let oid = pg_sys::LookupFuncName(names, count, types, false);
        let memory = (*outer).fn_mcxt;
        let function = pg_sys::MemoryContextAllocZero(memory, size_of::<pg_sys::FmgrInfo>()).cast();
        pg_sys::fmgr_info_cxt(oid, function, memory);
        (*outer).fn_extra = function.cast();
        function
    }
}
