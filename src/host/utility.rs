//! Statements that workers must make room for, and those that a commit does not announce.
//!
//! DROP DATABASE, ALTER DATABASE … SET TABLESPACE, … RENAME and CREATE DATABASE wait five seconds for other sessions to
//! leave, and then fail. The workers are sent away first, by whoever is certain that PostgreSQL lets the statement pass
//! ([`exclusive`]). COMMIT PREPARED runs no callback of the transaction that it commits, so the workers are woken here.
//!
//! The hook is a plain frame: it has nothing to clean up and catches nothing, so an ERROR of a statement jumps over it
//! and arrives as it was raised. pgrx's guards would make another of it, without the SQLSTATEs of users, constraint,
//! table and context. What has to be undone after an ERROR is undone at the transaction's end.

use pgrx::{pg_guard, pg_sys};

use super::owed::owe;
use super::roles::Reasons;
use super::{exclusive, shmem};

unsafe extern "C-unwind" {
    /// src/backend/tcop/utility.c. Not pgrx's wrapper, which catches errors.
    fn standard_ProcessUtility(
        statement: *mut pg_sys::PlannedStmt,
        query: *const std::ffi::c_char,
        read_only_tree: bool,
        context: pg_sys::ProcessUtilityContext::Type,
        params: pg_sys::ParamListInfo,
        environment: *mut pg_sys::QueryEnvironment,
        destination: *mut pg_sys::DestReceiver,
        completion: *mut pg_sys::QueryCompletion,
    );
}

static mut PREVIOUS: pg_sys::ProcessUtility_hook_type = None;
static mut PREVIOUS_ACCESS: pg_sys::object_access_hook_type = None;

/// Installs the hooks. To be called from `_PG_init` while the postmaster preloads.
pub fn install() {
    // SAFETY: single-threaded, once.
    unsafe {
        PREVIOUS = pg_sys::ProcessUtility_hook;
        pg_sys::ProcessUtility_hook = Some(process_utility);
        PREVIOUS_ACCESS = pg_sys::object_access_hook;
        pg_sys::object_access_hook = Some(access_object);
    }
}

/// What a statement has to do with the workers.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
enum Concern {
    /// Nothing, as almost every statement.
    None,
    /// It creates, changes or drops a database.
    Database,
    /// It drops extensions.
    DropExtension,
    /// It commits a prepared transaction.
    CommitPrepared,
}

/// A plain frame (RFC 2945): no value in it has a destructor, and nothing in it can panic.
#[allow(clippy::too_many_arguments)]
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
        let concern = concern(node);
        if concern != Concern::None {
            before(concern, node, context);
        }
        match PREVIOUS {
            Some(next) => {
                next(statement, query, read_only_tree, context, params, environment, destination, completion);
            }
            None => standard_ProcessUtility(
                statement,
                query,
                read_only_tree,
                context,
                params,
                environment,
                destination,
                completion,
            ),
        }
        if concern != Concern::None {
            after(concern);
        }
    }
}

/// # Safety
/// `node` is a valid parse node. Called by a plain frame: must not raise anything.
unsafe fn concern(node: *mut pg_sys::Node) -> Concern {
    unsafe {
        match (*node).type_ {
            pg_sys::NodeTag::T_CreatedbStmt | pg_sys::NodeTag::T_DropdbStmt | pg_sys::NodeTag::T_AlterDatabaseStmt => {
                Concern::Database
            }
            pg_sys::NodeTag::T_RenameStmt
                if (*node.cast::<pg_sys::RenameStmt>()).renameType == pg_sys::ObjectType::OBJECT_DATABASE =>
            {
                Concern::Database
            }
            pg_sys::NodeTag::T_DropStmt
                if (*node.cast::<pg_sys::DropStmt>()).removeType == pg_sys::ObjectType::OBJECT_EXTENSION =>
            {
                Concern::DropExtension
            }
            pg_sys::NodeTag::T_TransactionStmt
                if (*node.cast::<pg_sys::TransactionStmt>()).kind
                    == pg_sys::TransactionStmtKind::TRANS_STMT_COMMIT_PREPARED =>
            {
                Concern::CommitPrepared
            }
            _ => Concern::None,
        }
    }
}

/// Makes room for the statement if PostgreSQL is going to let it pass.
#[pg_guard]
unsafe extern "C-unwind" fn before(
    concern: Concern,
    node: *mut pg_sys::Node,
    context: pg_sys::ProcessUtilityContext::Type,
) {
    // SAFETY: the statement's node.
    unsafe {
        match concern {
            Concern::Database => exclusive::make_room(node, context),
            Concern::DropExtension => exclusive::make_room_for_drop_extension(node),
            Concern::CommitPrepared | Concern::None => {}
        }
    }
}

/// The statement has succeeded.
#[pg_guard]
unsafe extern "C-unwind" fn after(concern: Concern) {
    match concern {
        Concern::Database => owe(|owed| owed.databases = true),
        Concern::CommitPrepared => {
            if let Some(database) = shmem::here() {
                database.note(Reasons::EVENTS.and(Reasons::INBOX));
            }
        }
        Concern::DropExtension | Concern::None => {}
    }
}

/// A plain frame, as `process_utility`. DROP DATABASE calls it after it has found that the role may drop the database, and
/// before it looks for sessions in it.
unsafe extern "C-unwind" fn access_object(
    access: pg_sys::ObjectAccessType::Type,
    class: pg_sys::Oid,
    object: pg_sys::Oid,
    part: std::ffi::c_int,
    argument: *mut std::ffi::c_void,
) {
    // SAFETY: the arguments are handed on unchanged.
    unsafe {
        if let Some(next) = PREVIOUS_ACCESS {
            next(access, class, object, part, argument);
        }
        if access == pg_sys::ObjectAccessType::OAT_DROP && class == pg_sys::DatabaseRelationId {
            before_drop_database(object);
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn before_drop_database(database: pg_sys::Oid) {
    exclusive::make_room_for_drop(database);
}
