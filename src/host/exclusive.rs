//! Workers make room for a statement that needs their database for itself; the launcher brings them back afterwards.
//!
//! Nothing is decided before PostgreSQL would let the statement pass: a statement that is refused disturbs nobody. DROP
//! DATABASE says so itself, by the hook that it calls when it has checked the role's rights. For the others the checks
//! of src/backend/commands/dbcommands.c are made here beforehand. Not among them is what has no meaning for a copy of
//! the template (another encoding, say): only who may copy the database gets that far.

use std::cell::Cell;
use std::ffi::{CStr, c_char};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pgrx::{check_for_interrupts, pg_sys};

use super::shmem::{self, Database};
use crate::sys::backends::{self, Backend, Kind};
use crate::sys::{catalog, clock, versions};

/// How long the launcher leaves a database alone if the statement that needs it dies without a word.
pub const HOLD: i64 = 60_000_000;
/// How long to wait for the workers to leave.
const PATIENCE: Duration = Duration::from_secs(4);

unsafe extern "C-unwind" {
    /// src/backend/catalog/pg_subscription.c
    fn CountDBSubscriptions(database: pg_sys::Oid) -> std::ffi::c_int;
}

/// A database that the launcher leaves alone for this process's sake.
#[derive(Clone, Copy)]
struct Hold {
    database: &'static Database,
    /// As in `held_until`; another process may have put its own there since.
    until: i64,
    /// Where the statement ran.
    subtransaction: pg_sys::SubTransactionId,
}

thread_local! {
    static HELD: Cell<Option<Hold>> = const { Cell::new(None) };
    /// DROP DATABASE … WITH (FORCE) is being executed.
    static FORCED: Cell<bool> = const { Cell::new(false) };
}

/// Before a statement about a database.
///
/// # Safety
/// `node` is the parse node of such a statement.
pub unsafe fn make_room(node: *mut pg_sys::Node, context: pg_sys::ProcessUtilityContext::Type) {
    // SAFETY: as the caller says; what the nodes point to is valid as long as they are.
    unsafe {
        if (*node).type_ == pg_sys::NodeTag::T_DropdbStmt {
            FORCED.set(option((*node.cast::<pg_sys::DropdbStmt>()).options, c"force").is_some());
            return;
        }
        if pg_sys::XactReadOnly {
            return;
        }
        let is_top_level = context == pg_sys::ProcessUtilityContext::PROCESS_UTILITY_TOPLEVEL;
        let is_alone = !pg_sys::IsInTransactionBlock(is_top_level);
        let wanted = match (*node).type_ {
            // The only one that can be part of a transaction.
            pg_sys::NodeTag::T_RenameStmt => renamed(&*node.cast()),
            pg_sys::NodeTag::T_AlterDatabaseStmt if is_alone => moved(&*node.cast()),
            pg_sys::NodeTag::T_CreatedbStmt if is_alone => copied(&*node.cast()),
            _ => None,
        };
        if let Some(oid) = wanted
            && let Some(database) = served(oid)
            && sessions(oid).is_empty()
            && !backends::has_prepared_transaction(oid)
        {
            send_away(oid, database);
        }
    }
}

/// Before DROP DATABASE looks for sessions in the database; the role may drop it.
pub fn make_room_for_drop(oid: pg_sys::Oid) {
    let forced = FORCED.replace(false);
    // SAFETY: read by the main thread, constant in a process.
    let is_current = oid == unsafe { pg_sys::MyDatabaseId };
    let Some(database) = served(oid) else { return };
    let is_template = catalog::database(oid).is_none_or(|found| found.is_template);
    if is_current || is_template || is_replicated(oid) || backends::has_prepared_transaction(oid) {
        return;
    }
    let sessions = sessions(oid);
    if sessions.is_empty() || forced && sessions.iter().all(may_terminate) {
        send_away(oid, database);
    }
}

/// Before DROP EXTENSION: it locks the tables in an order of its own; with workers in the middle of something that is a
/// deadlock. RESTRICT may refuse it still, to the extension's owner.
///
/// # Safety
/// `node` is the parse node of such a statement.
pub unsafe fn make_room_for_drop_extension(node: *mut pg_sys::Node) {
    // SAFETY: as the caller says.
    unsafe {
        let statement = &*node.cast::<pg_sys::DropStmt>();
        let names = || elements(statement.objects).map(|name| versions::string(name.cast()));
        let may_drop = |name: &CStr| match pg_sys::get_extension_oid(name.as_ptr(), true) {
            pg_sys::InvalidOid => statement.missing_ok && name != c"sea_mq",
            extension => catalog::owns_extension(extension),
        };
        if pg_sys::XactReadOnly || !names().any(|name| name == c"sea_mq") || !names().all(may_drop) {
            return;
        }
        let oid = pg_sys::MyDatabaseId;
        if let Some(database) = served(oid) {
            send_away(oid, database);
        }
    }
}

/// Lets the workers back. At the end of each transaction, where nothing may fail.
pub fn release() {
    FORCED.set(false);
    if let Some(hold) = HELD.take() {
        let _ = hold.database.held_until.compare_exchange(hold.until, 0, Ordering::AcqRel, Ordering::Acquire);
        shmem::wake_launcher();
    }
}

/// A subtransaction was rolled back, maybe the one whose statement needed the database.
pub fn roll_back_to(subtransaction: pg_sys::SubTransactionId) {
    if HELD.get().is_some_and(|hold| hold.subtransaction == subtransaction) {
        release();
    }
}

/// The database that ALTER DATABASE … RENAME TO is going to rename.
///
/// # Safety
/// The statement's node.
unsafe fn renamed(statement: &pg_sys::RenameStmt) -> Option<pg_sys::Oid> {
    unsafe {
        let database = catalog::database_of(statement.subname)?;
        let is_free = catalog::database_of(statement.newname).is_none();
        (database.is_own && !database.is_current && is_free && catalog::may_create_databases()).then_some(database.oid)
    }
}

/// The database that ALTER DATABASE … SET TABLESPACE is going to move.
///
/// # Safety
/// The statement's node.
unsafe fn moved(statement: &pg_sys::AlterDatabaseStmt) -> Option<pg_sys::Oid> {
    unsafe {
        let tablespace = option(statement.options, c"tablespace")?;
        let database = catalog::database_of(statement.dbname)?;
        let target = catalog::usable_tablespace(text(tablespace)?)?;
        let alone = elements(statement.options).count() == 1;
        (alone && database.is_own && !database.is_current && target != database.tablespace).then_some(database.oid)
    }
}

/// The database that CREATE DATABASE is going to copy.
///
/// # Safety
/// The statement's node.
unsafe fn copied(statement: &pg_sys::CreatedbStmt) -> Option<pg_sys::Oid> {
    unsafe {
        let value = |name| option(statement.options, name).and_then(|option| text(option));
        let template = catalog::database_of(value(c"template").unwrap_or(c"template1".as_ptr()))?;
        let may_copy = template.is_template || template.is_own;
        let may_give = value(c"owner").is_none_or(|owner| catalog::may_give_to(owner));
        let may_store = value(c"tablespace").is_none_or(|name| catalog::usable_tablespace(name).is_some());
        let is_free = catalog::database_of(statement.dbname).is_none();
        let passes = catalog::may_create_databases() && may_copy && may_give && may_store && is_free;
        (passes && template.is_valid).then_some(template.oid)
    }
}

/// The entry of a database that has workers, or is about to.
fn served(oid: pg_sys::Oid) -> Option<&'static Database> {
    shmem::database(oid).filter(|database| !database.is_idle())
}

/// Those for whom the statement would wait in vain: whoever is neither a worker of ours nor autovacuum.
fn sessions(oid: pg_sys::Oid) -> Vec<Backend> {
    backends::of(oid).into_iter().filter(|backend| backend.kind == Kind::Session).collect()
}

/// As TerminateOtherDBBackends (src/backend/storage/ipc/procarray.c) asks.
fn may_terminate(backend: &Backend) -> bool {
    // SAFETY: looks at roles, in a transaction.
    unsafe {
        let me = pg_sys::GetUserId();
        pg_sys::superuser()
            || !pg_sys::superuser_arg(backend.user)
                && (pg_sys::has_privs_of_role(me, backend.user)
                    || pg_sys::has_privs_of_role(me, pg_sys::Oid::from(pg_sys::ROLE_PG_SIGNAL_BACKEND)))
    }
}

/// Whether an active logical slot or a subscription of PostgreSQL's own keeps the database from being dropped.
fn is_replicated(oid: pg_sys::Oid) -> bool {
    let (mut slots, mut active) = (0, 0);
    // SAFETY: in a transaction. The guard catches what the function raises.
    unsafe {
        pg_sys::ReplicationSlotsCountDBSlots(oid, &mut slots, &mut active);
        active > 0 || pg_sys::submodules::ffi::pg_guard_ffi_boundary(|| CountDBSubscriptions(oid)) > 0
    }
}

fn send_away(oid: pg_sys::Oid, database: &'static Database) {
    release();
    let until = clock::now() + HOLD;
    // SAFETY: in a transaction.
    let subtransaction = unsafe { pg_sys::GetCurrentSubTransactionId() };
    HELD.set(Some(Hold { database, until, subtransaction }));
    database.held_until.store(until, Ordering::Release);
    database.restart();
    // Not only until they have left their seats: PostgreSQL counts them until they have ended.
    let mut leaving: Vec<i32> = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        leaving.extend(backends::workers_of(oid));
        leaving.retain(|&pid| backends::is_there(pid));
        if leaving.is_empty() && !database.has_process() {
            return;
        }
        check_for_interrupts!();
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// # Safety
/// `list` is null or a list of pointers.
unsafe fn elements(list: *mut pg_sys::List) -> impl Iterator<Item = *mut std::ffi::c_void> {
    let length = if list.is_null() { 0 } else { unsafe { (*list).length } };
    (0..usize::try_from(length).unwrap_or(0)).map(move |at| unsafe { (*(*list).elements.add(at)).ptr_value })
}

/// A statement's option.
///
/// # Safety
/// `options` is null or a list of DefElem.
unsafe fn option(options: *mut pg_sys::List, wanted: &CStr) -> Option<*mut pg_sys::DefElem> {
    unsafe {
        elements(options)
            .map(|element| element.cast::<pg_sys::DefElem>())
            .find(|&element| CStr::from_ptr((*element).defname) == wanted)
    }
}

/// The text of an option; `None` for DEFAULT.
///
/// # Safety
/// A valid option.
unsafe fn text(option: *mut pg_sys::DefElem) -> Option<*const c_char> {
    unsafe { (!(*option).arg.is_null()).then(|| pg_sys::defGetString(option).cast_const()) }
}
