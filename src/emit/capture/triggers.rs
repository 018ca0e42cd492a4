//! The triggers of a capture, made and removed without SQL: nothing is read from a text, and nobody's code runs.
//!
//! Who may have a table captured was decided before (sql/emit/capture_table.sql). The owner of a table need not have a right on
//! `sea_mq.capture()`, so that others can alter and partition it, and PostgreSQL lets nobody else make its triggers. So this is
//! done as the superuser that initialised the cluster (see SECURITY.md).

use std::ffi::{CStr, CString};

use pgrx::{PgSqlErrorCode, pg_sys};

use super::truncation;
use crate::host::door;
use crate::sys::datum::sql_function;
use crate::sys::error::raise;

/// What a trigger of a capture is, by its name in `sea_mq.capture_triggers`.
struct Kind {
    name: &'static CStr,
    timing: u32,
    event: u32,
    old: bool,
    new: bool,
}

static KINDS: [Kind; 5] = [
    Kind { name: c"sea_mq_capture_insert", timing: AFTER, event: pg_sys::TRIGGER_TYPE_INSERT, old: false, new: true },
    Kind { name: c"sea_mq_capture_update", timing: AFTER, event: pg_sys::TRIGGER_TYPE_UPDATE, old: true, new: true },
    Kind { name: c"sea_mq_capture_delete", timing: AFTER, event: pg_sys::TRIGGER_TYPE_DELETE, old: true, new: false },
    Kind {
        name: c"sea_mq_capture_truncate",
        timing: AFTER,
        event: pg_sys::TRIGGER_TYPE_TRUNCATE,
        old: false,
        new: false,
    },
    Kind {
        name: c"sea_mq_capture_truncate_begin",
        timing: pg_sys::TRIGGER_TYPE_BEFORE,
        event: pg_sys::TRIGGER_TYPE_TRUNCATE,
        old: false,
        new: false,
    },
];
const AFTER: u32 = pg_sys::TRIGGER_TYPE_AFTER;

sql_function!(make_capture_trigger_wrapper, pg_finfo_make_capture_trigger_wrapper, |call| {
    require_inside();
    let (Some(table), Some(name)) = (call.oid(0), call.text(1)) else { return call.null() };
    let kind = KINDS.iter().find(|kind| kind.name.to_str() == Ok(name.as_str()));
    let Some(kind) = kind else {
        raise(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, format!("no trigger is called {name}"), "Report this as a bug.")
    };
    // SAFETY: in a transaction, inside the door.
    unsafe { make(table, kind) };
    pg_sys::Datum::from(0)
});

sql_function!(remove_capture_trigger_wrapper, pg_finfo_remove_capture_trigger_wrapper, |call| {
    require_inside();
    let (Some(table), Some(name)) = (call.oid(0), call.text(1)) else { return call.null() };
    let name = CString::new(name).unwrap_or_default();
    // SAFETY: in a transaction, inside the door.
    unsafe {
        let address = trigger(pg_sys::get_trigger_oid(table, name.as_ptr(), false));
        let internal = i32::try_from(pg_sys::PERFORM_DELETION_INTERNAL).unwrap_or(0);
        pg_sys::performDeletion(&raw const address, pg_sys::DropBehavior::DROP_RESTRICT, internal);
    }
    pg_sys::Datum::from(0)
});

sql_function!(lock_captured_wrapper, pg_finfo_lock_captured_wrapper, |call| {
    require_inside();
    if let Some(table) = call.oid(0) {
        truncation::family(table, pg_sys::ShareRowExclusiveLock);
    }
    pg_sys::Datum::from(0)
});

fn require_inside() {
    if !door::is_inside() {
        raise(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            "the function is for internal use",
            "Call sea_mq.capture_table or sea_mq.stop_capture.",
        );
    }
}

/// # Safety
/// In a transaction.
unsafe fn make(table: pg_sys::Oid, kind: &Kind) {
    // SAFETY: all is allocated in the current memory context. The statement says all that PostgreSQL reads of it.
    unsafe {
        let function = pg_sys::LookupFuncName(names(), 0, std::ptr::null(), false);
        let statement = pg_sys::palloc0(size_of::<pg_sys::CreateTrigStmt>()).cast::<pg_sys::CreateTrigStmt>();
        (*statement).type_ = pg_sys::NodeTag::T_CreateTrigStmt;
        (*statement).trigname = pg_sys::pstrdup(kind.name.as_ptr());
        (*statement).funcname = names();
        (*statement).timing = kind.timing as i16;
        (*statement).events = kind.event as i16;
        for (wanted, is_new, name) in [(kind.old, false, c"sea_mq_old"), (kind.new, true, c"sea_mq_new")] {
            if wanted {
                (*statement).transitionRels = pg_sys::lappend((*statement).transitionRels, transition(is_new, name));
            }
        }
        let none = pg_sys::InvalidOid;
        let address = door::as_role(pg_sys::Oid::from(pg_sys::BOOTSTRAP_SUPERUSERID), || {
            let when = std::ptr::null_mut();
            pg_sys::CreateTrigger(
                statement,
                c"sea_mq.capture_table".as_ptr(),
                table,
                none,
                none,
                none,
                function,
                none,
                when,
                false,
                false,
            )
        });
        let extension = pg_sys::ObjectAddress {
            classId: pg_sys::ExtensionRelationId,
            objectId: pg_sys::get_extension_oid(c"sea_mq".as_ptr(), false),
            objectSubId: 0,
        };
        let depends = pg_sys::DependencyType::DEPENDENCY_AUTO_EXTENSION;
        pg_sys::recordDependencyOn(&raw const address, &raw const extension, depends);
        let comment = c"Made by sea_mq.capture_table".as_ptr();
        pg_sys::CreateComments(address.objectId, pg_sys::TriggerRelationId, 0, comment);
    }
}

fn trigger(oid: pg_sys::Oid) -> pg_sys::ObjectAddress {
    pg_sys::ObjectAddress { classId: pg_sys::TriggerRelationId, objectId: oid, objectSubId: 0 }
}

/// The name of the trigger function.
fn names() -> *mut pg_sys::List {
    [c"sea_mq", c"capture"].into_iter().fold(std::ptr::null_mut(), |list, part| {
        // SAFETY: the string is copied into the current memory context.
        unsafe { pg_sys::lappend(list, pg_sys::makeString(pg_sys::pstrdup(part.as_ptr())).cast()) }
    })
}

/// # Safety
/// In a memory context that lives as long as the statement.
unsafe fn transition(is_new: bool, name: &CStr) -> *mut std::ffi::c_void {
    // SAFETY: as the caller's.
    unsafe {
        let node = pg_sys::palloc0(size_of::<pg_sys::TriggerTransition>()).cast::<pg_sys::TriggerTransition>();
        (*node).type_ = pg_sys::NodeTag::T_TriggerTransition;
        (*node).name = pg_sys::pstrdup(name.as_ptr());
        (*node).isNew = is_new;
        (*node).isTable = true;
        node.cast()
    }
}
