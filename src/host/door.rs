//! The door: the one place where the process acts as somebody else.
//!
//! Whatever is done with other rights than the caller's is done in here, as the extension's owner (a role that owns messages and
//! nothing else), as the role that runs a handler, or as the owner of somebody's table. The door switches the user, fixes the
//! settings that statements depend on in a nest level of their own, and takes both back, also when an ERROR passes: then the end
//! of the transaction or savepoint does it. Nobody else calls `SetUserIdAndSecContext` or `SetSessionAuthorization`.
//!
//! ```text
//! session:  as_owner(f)                      the owner, restricted; the caller again afterwards
//! worker:   enter ─► f ─► pre-commit: settle ─► leave
//!             └─ become(role): the handler's role, kept through the commit
//! ```
//!
//! SQL text of ours runs nowhere else: [`is_inside`] is asked before each statement, so that its names mean what they meant when
//! it was written.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_int};

use pgrx::pg_sys;

use super::settings::{self, FIXED};
use crate::sys::relation;

/// Whom the process acts as.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Acting {
    /// Itself: a session's own role; between the transactions of a worker, nobody's.
    Itself,
    /// The owner of the extension: our own SQL may run.
    Owner,
    /// Another role, on its behalf.
    Other,
}

thread_local! {
    static ACTING: Cell<Acting> = const { Cell::new(Acting::Itself) };
    /// The doors that are open, the innermost last.
    static PASSAGES: RefCell<Vec<Passage>> = const { RefCell::new(Vec::new()) };
    /// Who came in by the outermost of them.
    static CALLER: Cell<pg_sys::Oid> = const { Cell::new(pg_sys::InvalidOid) };
    /// The level of settings of a worker's transaction.
    static LEVEL: Cell<Option<c_int>> = const { Cell::new(None) };
    /// A worker's session shows the role of a handler as its user.
    static SESSION_TAKEN: Cell<bool> = const { Cell::new(false) };
}

/// Whether our own SQL may run: the process acts as the owner, and names mean what they should.
pub fn is_inside() -> bool {
    ACTING.get() == Acting::Owner
}

/// The role that came in by the door; outside, the role in force.
pub fn caller() -> pg_sys::Oid {
    let caller = CALLER.get();
    // SAFETY: reads a variable of this process.
    if caller == pg_sys::InvalidOid { unsafe { pg_sys::GetUserId() } } else { caller }
}

/// The owner of the extension's tables; `None` if the extension is not installed.
fn owner() -> Option<pg_sys::Oid> {
    let table = relation::oid("installation")?;
    // SAFETY: a catalog look-up in a transaction; the tuple is released after its last use.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::RELOID as c_int;
        let tuple = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(table));
        if tuple.is_null() {
            return None;
        }
        let owner = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>()).relowner;
        pg_sys::ReleaseSysCache(tuple);
        Some(owner)
    }
}

fn require_owner() -> pg_sys::Oid {
    owner().unwrap_or_else(|| {
        crate::sys::error::raise(
            pgrx::PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            "the extension sea_mq is not installed in this database",
            "CREATE EXTENSION sea_mq.",
        )
    })
}

/// What is true again when somebody leaves by the door.
#[derive(Clone, Copy)]
struct Passage {
    /// How deep in savepoints the door was opened: an ERROR rolls one of them back.
    depth: c_int,
    acting: Acting,
    caller: pg_sys::Oid,
    user: pg_sys::Oid,
    context: c_int,
    settings: c_int,
}

/// Runs `f` as the owner of the extension, with a snapshot taken now: a caller has no rights on the tables, and at pre-commit
/// there is no snapshot any more.
pub fn as_owner<T>(f: impl FnOnce() -> T) -> T {
    open(require_owner(), Acting::Owner);
    let result = f();
    close();
    result
}

/// Runs `f` as another role, for what belongs to that role: no more rights than it has, and it is left nothing of ours.
pub fn as_role<T>(role: pg_sys::Oid, f: impl FnOnce() -> T) -> T {
    open(role, Acting::Other);
    let result = f();
    close();
    result
}

/// As [`as_owner`], for what must have no Rust frame around it: to be followed by `close`, unless an ERROR passes.
pub fn open_as_owner() {
    open(require_owner(), Acting::Owner);
}

fn open(role: pg_sys::Oid, acting: Acting) {
    let (mut user, mut context) = (pg_sys::InvalidOid, 0);
    // SAFETY: in a transaction. Identity and settings are put back by `close`; if an ERROR passes, the end of the transaction or
    // savepoint does it.
    unsafe {
        pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
        let depth = pg_sys::GetCurrentTransactionNestLevel();
        let settings = pg_sys::NewGUCNestLevel();
        let before = Passage { depth, acting: ACTING.get(), caller: CALLER.get(), user, context, settings };
        PASSAGES.with_borrow_mut(|passages| passages.push(before));
        // From the inside, the caller is who came in first.
        CALLER.set(if is_inside() { caller() } else { user });
        ACTING.set(acting);
        let restricted = pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_RESTRICTED_OPERATION;
        pg_sys::SetUserIdAndSecContext(role, context | restricted as c_int);
        settings::fix(&FIXED);
        pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
    }
}

/// Leaves by the door that was opened last.
pub fn close() {
    let Some(before) = PASSAGES.with_borrow_mut(Vec::pop) else { return };
    // SAFETY: what `open` has begun ends here; settings that were made for the session meanwhile go as well.
    unsafe {
        pg_sys::PopActiveSnapshot();
        pg_sys::AtEOXact_GUC(false, before.settings);
        pg_sys::SetUserIdAndSecContext(before.user, before.context);
    }
    before.restore();
}

impl Passage {
    fn restore(&self) {
        ACTING.set(self.acting);
        CALLER.set(self.caller);
    }
}

/// A savepoint of this depth is rolled back, or (0) the transaction is over: PostgreSQL has put back user and settings. Must not
/// fail.
pub fn abandon(depth: c_int) {
    PASSAGES.with_borrow_mut(|passages| {
        while let Some(before) = passages.pop_if(|before| before.depth >= depth) {
            before.restore();
        }
    });
}

/// How a worker's transaction differs from the others.
#[derive(Clone, Copy, Default)]
pub struct Manner {
    /// It has the isolation level that the database gives its sessions.
    pub isolated: bool,
    /// What its commit waits for, as `synchronous_commit` says it; `None`: as ever.
    pub commit: Option<&'static CStr>,
}

/// A worker's transaction has started: from here to its end it acts as the owner, and cannot be changed back. Without the
/// extension there is no owner, and nothing but look-ups of catalogs by C functions is to be done.
pub fn enter(manner: Manner) {
    // SAFETY: right after the start of a transaction, before its first snapshot.
    unsafe {
        if manner.isolated {
            pg_sys::XactIsoLevel = settings::begun_isolation();
        }
        if let Some(value) = manner.commit {
            // Outside of the level, so that it holds for the commit.
            settings::set_for_transaction(c"synchronous_commit", value);
        }
    }
    // SAFETY: constant in a process. The launcher has no database, and nothing to read there.
    let owner = if unsafe { pg_sys::MyDatabaseId } == pg_sys::InvalidOid { None } else { owner() };
    // SAFETY: right after the start of a transaction; the level ends in `settle`, or with the transaction.
    unsafe {
        LEVEL.set(Some(pg_sys::NewGUCNestLevel()));
        if let Some(owner) = owner {
            let restricted = pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_RESTRICTED_OPERATION;
            pg_sys::SetUserIdAndSecContext(owner, restricted as c_int);
            ACTING.set(Acting::Owner);
        }
    }
}

/// From here to the end of a worker's transaction the process acts as `role`, with the settings that its session began with.
/// The session's user is the role, too: what a handler calls cannot see that a worker runs it.
pub fn become_role(role: pg_sys::Oid) {
    ACTING.set(Acting::Other);
    SESSION_TAKEN.set(true);
    // SAFETY: in a worker's transaction. The session's user can only be changed outside of a security context. With the flag,
    // SET ROLE and SET SESSION AUTHORIZATION fail.
    unsafe {
        pg_sys::SetUserIdAndSecContext(pg_sys::Oid::from(pg_sys::BOOTSTRAP_SUPERUSERID), 0);
        pg_sys::SetSessionAuthorization(role, pg_sys::superuser_arg(role));
        pg_sys::SetUserIdAndSecContext(role, pg_sys::SECURITY_LOCAL_USERID_CHANGE as c_int);
    }
    settings::give_back();
}

/// The pre-commit hook: deferred triggers and cursors that are held have run, and what they set goes.
pub fn settle() {
    if let Some(level) = LEVEL.take() {
        // SAFETY: begun by `enter`; all levels within have ended.
        unsafe { pg_sys::AtEOXact_GUC(false, level) }
    }
}

/// A worker's transaction has ended, one way or the other: the process is itself again.
pub fn leave() {
    abandon(0);
    ACTING.set(Acting::Itself);
    LEVEL.set(None);
    let worker = pg_sys::Oid::from(pg_sys::BOOTSTRAP_SUPERUSERID);
    // SAFETY: outside of a transaction.
    unsafe {
        pg_sys::SetUserIdAndSecContext(worker, 0);
        if SESSION_TAKEN.replace(false) {
            pg_sys::SetSessionAuthorization(worker, true);
        }
    }
    settings::check();
}
