//! Commands that cannot run while a worker is connected to the database, or that a commit does not announce.
//!
//! DROP DATABASE, ALTER DATABASE … SET TABLESPACE, … RENAME and CREATE DATABASE … TEMPLATE wait five seconds for other
//! sessions to leave, and then fail. Here the workers are sent away first; the launcher brings them back if the database
//! is still there afterwards. COMMIT PREPARED runs no callback of the transaction that it commits, so the workers are
//! woken here.

use std::ffi::CStr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pgrx::{check_for_interrupts, pg_guard, pg_sys};

use super::clock;
use super::shmem::{self, Database};

/// How long the launcher leaves a database alone if the command that holds it dies without a word.
pub const HOLD: i64 = 60_000_000;
/// How long to wait for the workers to leave.
const PATIENCE: Duration = Duration::from_secs(4);

static mut PREVIOUS: pg_sys::ProcessUtility_hook_type = None;

/// Installs the hook. To be called from `_PG_init` while the postmaster preloads.
pub fn install() {
    // SAFETY: single-threaded, once.
    unsafe {
        PREVIOUS = pg_sys::ProcessUtility_hook;
        pg_sys::ProcessUtility_hook = Some(process_utility);
    }
}

#[allow(clippy::too_many_arguments)]
#[pg_guard]
unsafe extern "C-unwind" fn process_utility(
    statement: *mut pg_sys::PlannedStmt,
    query: *const std::ffi::c_char,
    read_only_tree: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    params: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    destination: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    // SAFETY: PostgreSQL passes a valid statement; the arguments are handed on unchanged.
    unsafe {
        let node = (*statement).utilityStmt;
        let run = || match PREVIOUS {
            Some(next) => pg_sys::submodules::ffi::pg_guard_ffi_boundary(|| {
                next(statement, query, read_only_tree, context, params, environment, destination, completion);
            }),
            None => pg_sys::standard_ProcessUtility(
                statement,
                query,
                read_only_tree,
                context,
                params,
                environment,
                destination,
                completion,
            ),
        };
        let wakes = commits_prepared(node);
        match held_database(node) {
            None => run(),
            Some(database) => {
                let _back = LetBack(database);
                send_away(database);
                run();
            }
        }
        if wakes && let Some(database) = shmem::database(pg_sys::MyDatabaseId) {
            database.note_events();
            database.note_inbox();
        }
    }
}

/// # Safety
/// `node` is a valid parse node.
unsafe fn commits_prepared(node: *mut pg_sys::Node) -> bool {
    unsafe {
        (*node).type_ == pg_sys::NodeTag::T_TransactionStmt
            && (*node.cast::<pg_sys::TransactionStmt>()).kind == pg_sys::TransactionStmtKind::TRANS_STMT_COMMIT_PREPARED
    }
}

/// The database that the command must have for itself, if workers serve it.
///
/// # Safety
/// `node` is a valid parse node.
unsafe fn held_database(node: *mut pg_sys::Node) -> Option<&'static Database> {
    unsafe {
        let name = match (*node).type_ {
            pg_sys::NodeTag::T_DropdbStmt => (*node.cast::<pg_sys::DropdbStmt>()).dbname.cast_const(),
            pg_sys::NodeTag::T_RenameStmt => {
                let rename = node.cast::<pg_sys::RenameStmt>();
                if (*rename).renameType != pg_sys::ObjectType::OBJECT_DATABASE {
                    return None;
                }
                (*rename).subname.cast_const()
            }
            pg_sys::NodeTag::T_AlterDatabaseStmt => {
                let alter = node.cast::<pg_sys::AlterDatabaseStmt>();
                option((*alter).options, c"tablespace")?;
                (*alter).dbname.cast_const()
            }
            pg_sys::NodeTag::T_CreatedbStmt => option((*node.cast::<pg_sys::CreatedbStmt>()).options, c"template")?,
            // It locks the tables in an order of its own; with workers in the middle of something that is a deadlock.
            pg_sys::NodeTag::T_DropStmt => {
                let drop = node.cast::<pg_sys::DropStmt>();
                let extension = (*drop).removeType == pg_sys::ObjectType::OBJECT_EXTENSION;
                return if extension { shmem::database(pg_sys::MyDatabaseId) } else { None };
            }
            _ => return None,
        };
        if name.is_null() {
            return None;
        }
        shmem::database(pg_sys::get_database_oid(name, true))
    }
}

/// The text of a command's option.
///
/// # Safety
/// `options` is null or a list of DefElem.
unsafe fn option(options: *mut pg_sys::List, wanted: &CStr) -> Option<*const std::ffi::c_char> {
    unsafe {
        let length = if options.is_null() { 0 } else { (*options).length };
        for i in 0..usize::try_from(length).unwrap_or(0) {
            let element = (*(*options).elements.add(i)).ptr_value.cast::<pg_sys::DefElem>();
            if CStr::from_ptr((*element).defname) == wanted && !(*element).arg.is_null() {
                return Some(pg_sys::defGetString(element).cast_const());
            }
        }
        None
    }
}

fn send_away(database: &Database) {
    database.held_until.store(clock::now() + HOLD, Ordering::Release);
    database.restart();
    let deadline = Instant::now() + PATIENCE;
    while database.has_process() && Instant::now() < deadline {
        check_for_interrupts!();
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Lets the workers back when the command is over, also by an ERROR.
struct LetBack(&'static Database);

impl Drop for LetBack {
    fn drop(&mut self) {
        self.0.held_until.store(0, Ordering::Release);
        shmem::wake_launcher();
    }
}
