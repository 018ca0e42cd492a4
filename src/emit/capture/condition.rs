//! `when`: an SQL expression over the rows `old` and `new`, as in CREATE TRIGGER … WHEN.
//!
//! Names are looked up when the table is captured, with the search path of whoever captures it, and kept qualified. When rows
//! are written, the text is read under a search path that no writer chooses. Reading an expression runs functions (those of its
//! types, and what can be computed beforehand), so whoever reads or evaluates it here acts as the owner of the captured table.

use std::ffi::{CStr, CString};
use std::panic::AssertUnwindSafe;

use pgrx::pg_sys::panic::CaughtError;
use pgrx::{PgSqlErrorCode, PgTryBuilder, pg_sys};

use super::named;
use super::settings::{FIXED, Settings};
use crate::sys::error::raise;
use crate::sys::versions;

unsafe extern "C-unwind" {
    /// src/backend/parser/parse_clause.c
    fn transformWhereClause(
        state: *mut pg_sys::ParseState,
        clause: *mut pg_sys::Node,
        kind: pg_sys::ParseExprKind::Type,
        construct: *const std::ffi::c_char,
    ) -> *mut pg_sys::Node;
}

/// The names of the rows, and the places where triggers' conditions find them.
const ROWS: [(&CStr, i32); 2] = [(c"old", versions::OLD_ROW), (c"new", versions::NEW_ROW)];

/// The condition on an open table as the text of a node, ready to be evaluated. Called, as all that follows, as the role that
/// the condition is evaluated as.
pub fn compile(relation: pg_sys::Relation, when: &str) -> CString {
    let settings = Settings::fix(&FIXED);
    // SAFETY: in a transaction; all is allocated in the current memory context.
    let node = unsafe {
        let state = pg_sys::make_parsestate(std::ptr::null_mut());
        for (name, _) in ROWS {
            add_row(state, relation, name, std::ptr::null_mut());
        }
        let node = analyse(state, when);
        let variables = pg_sys::pull_var_clause(node, 0);
        for place in 0..length(variables) {
            if (*element(variables, place).cast::<pg_sys::Var>()).varattno < 0 {
                refuse("a captured row has no system columns");
            }
        }
        for (place, (_, at)) in (1..).zip(ROWS) {
            pg_sys::ChangeVarNodes(node, place, at, 0);
        }
        let text = CStr::from_ptr(pg_sys::nodeToString(node.cast())).to_owned();
        pg_sys::free_parsestate(state);
        text
    };
    settings.take_back();
    node
}

/// The condition with all names qualified. `names`: the columns' names that it was written with, of those that the table
/// still has, in their order; `None` for the present ones.
///
/// # Safety
/// The relation is open.
pub unsafe fn qualified(relation: pg_sys::Relation, when: &str, names: Option<Vec<String>>) -> String {
    let names = names.map(|names| {
        names.into_iter().fold(std::ptr::null_mut(), |list, name| {
            let name = CString::new(name).unwrap_or_default();
            // SAFETY: the string is copied into the current memory context.
            unsafe { pg_sys::lappend(list, pg_sys::makeString(pg_sys::pstrdup(name.as_ptr())).cast()) }
        })
    });
    let names = names.unwrap_or(std::ptr::null_mut());
    // SAFETY: as in `compile`. A deparsing context has one relation a level, so each row has a level of its own.
    unsafe {
        let outer = pg_sys::make_parsestate(std::ptr::null_mut());
        let inner = pg_sys::make_parsestate(outer);
        let [(old, _), (new, _)] = ROWS;
        add_row(inner, relation, old, names);
        add_row(outer, relation, new, names);
        let node = analyse(inner, when);
        let table = (*relation).rd_id;
        let contexts = pg_sys::list_concat(
            pg_sys::deparse_context_for(old.as_ptr(), table),
            pg_sys::deparse_context_for(new.as_ptr(), table),
        );
        let settings = Settings::fix(&FIXED);
        let text = CStr::from_ptr(pg_sys::deparse_expression(node, contexts, true, false));
        settings.take_back();
        text.to_string_lossy().into_owned()
    }
}

/// # Safety
/// The relation is open; `names` is null or a list of strings.
unsafe fn add_row(state: *mut pg_sys::ParseState, relation: pg_sys::Relation, name: &CStr, names: *mut pg_sys::List) {
    // SAFETY: whoever calls holds a lock on the relation. Columns are only found with their row's name before them.
    unsafe {
        let alias = pg_sys::makeAlias(name.as_ptr(), names);
        let item =
            pg_sys::addRangeTableEntryForRelation(state, relation, pg_sys::AccessShareLock as _, alias, false, false);
        pg_sys::addNSItemToQuery(state, item, false, true, false);
    }
}

/// # Safety
/// The rows were added to the state.
unsafe fn analyse(state: *mut pg_sys::ParseState, when: &str) -> *mut pg_sys::Node {
    // SAFETY: parser and analysis raise an ERROR for what they do not understand.
    let read = || unsafe {
        let expression = parse(when);
        named::check_types(expression);
        let node = pg_sys::submodules::ffi::pg_guard_ffi_boundary(|| {
            let kind = pg_sys::ParseExprKind::EXPR_KIND_TRIGGER_WHEN;
            transformWhereClause(state, expression, kind, c"when".as_ptr())
        });
        pg_sys::assign_expr_collations(state, node);
        named::check_objects(node);
        node
    };
    PgTryBuilder::new(AssertUnwindSafe(read)).catch_others(with_hint).execute()
}

/// What the parser says of a text that it does not understand, with our hint if it has none; all else as it is.
fn with_hint<T>(error: CaughtError) -> T {
    const CATEGORY: i32 = (1 << 12) - 1;
    if let CaughtError::PostgresError(report) = &error {
        let (code, category) = (report.sql_error_code(), report.sql_error_code() as i32 & CATEGORY);
        let of_parser = [
            PgSqlErrorCode::ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION,
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
        ];
        if report.hint().is_none() && of_parser.iter().any(|one| *one as i32 & CATEGORY == category) {
            raise(code, report.message(), HINT);
        }
    }
    error.rethrow()
}

/// The one expression that the text must be.
///
/// # Safety
/// In a transaction.
unsafe fn parse(when: &str) -> *mut pg_sys::Node {
    let Ok(text) = CString::new(when) else { refuse(NOT_ONE) };
    // SAFETY: the parser copies what it keeps of the text. What it gives is looked at before it is believed.
    unsafe {
        let text = pg_sys::pstrdup(text.as_ptr());
        let list = pg_sys::raw_parser(text, pg_sys::RawParseMode::RAW_PARSE_PLPGSQL_EXPR);
        let statement = only::<pg_sys::RawStmt>(list, pg_sys::NodeTag::T_RawStmt).map(|raw| (*raw).stmt);
        let Some(s) = statement.filter(|statement| is_a(*statement, pg_sys::NodeTag::T_SelectStmt)) else {
            refuse(NOT_ONE)
        };
        let s = &*s.cast::<pg_sys::SelectStmt>();
        let lists = [
            s.distinctClause,
            s.fromClause,
            s.groupClause,
            s.windowClause,
            s.valuesLists,
            s.sortClause,
            s.lockingClause,
        ];
        let nodes = [s.whereClause, s.havingClause, s.limitOffset, s.limitCount];
        let more = lists.iter().any(|list| !list.is_null())
            || nodes.iter().any(|node| !node.is_null())
            || !s.intoClause.is_null()
            || !s.withClause.is_null()
            || s.op != pg_sys::SetOperation::SETOP_NONE;
        match only::<pg_sys::ResTarget>(s.targetList, pg_sys::NodeTag::T_ResTarget) {
            Some(target) if !more && (*target).name.is_null() && is_expression((*target).val) => (*target).val,
            _ => refuse(NOT_ONE),
        }
    }
}

/// The only element of a list, if it is a node of that kind.
///
/// # Safety
/// `list` is null or a list of nodes; `T` is the struct of the kind.
unsafe fn only<T>(list: *mut pg_sys::List, kind: pg_sys::NodeTag) -> Option<*mut T> {
    // SAFETY: as the caller's.
    unsafe {
        let node = (length(list) == 1).then(|| element(list, 0).cast::<pg_sys::Node>())?;
        is_a(node, kind).then(|| node.cast())
    }
}

/// # Safety
/// `node` is null or a node.
unsafe fn is_a(node: *mut pg_sys::Node, kind: pg_sys::NodeTag) -> bool {
    // SAFETY: as the caller's.
    !node.is_null() && unsafe { (*node).type_ } == kind
}

/// Whether it stands for one value. `*` alone is a list of columns, which the analysis of an expression does not expect.
///
/// # Safety
/// `node` is null or a node of the raw parser.
unsafe fn is_expression(node: *mut pg_sys::Node) -> bool {
    // SAFETY: as the caller's.
    unsafe {
        if !is_a(node, pg_sys::NodeTag::T_ColumnRef) {
            return !node.is_null();
        }
        let fields = (*node.cast::<pg_sys::ColumnRef>()).fields;
        length(fields) > 0 && !is_a(element(fields, 0).cast(), pg_sys::NodeTag::T_A_Star)
    }
}

/// # Safety
/// `list` is null or a list of pointers.
unsafe fn length(list: *mut pg_sys::List) -> usize {
    // SAFETY: as the caller's.
    if list.is_null() { 0 } else { usize::try_from(unsafe { (*list).length }).unwrap_or(0) }
}

/// # Safety
/// The list is one of pointers and longer than `place`.
unsafe fn element(list: *mut pg_sys::List, place: usize) -> *mut std::ffi::c_void {
    // SAFETY: as the caller's.
    unsafe { (*(*list).elements.add(place)).ptr_value }
}

const NOT_ONE: &str = "when is not one expression";
const HINT: &str = "Write a boolean expression over the rows old and new, as in 'new.total > 100 AND old.status IS DISTINCT FROM new.status'.";

fn refuse(message: &str) -> ! {
    raise(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message, HINT)
}

/// A condition in a statement: evaluated for one pair of rows after the other.
pub struct Evaluation {
    estate: *mut pg_sys::EState,
    state: *mut pg_sys::ExprState,
    context: *mut pg_sys::ExprContext,
}

impl Evaluation {
    pub fn begin(node: &CStr) -> Self {
        // SAFETY: the node was written by `compile`; what is made lives until `end`, or the transaction's end.
        unsafe {
            let estate = pg_sys::CreateExecutorState();
            let caller = pg_sys::MemoryContextSwitchTo((*estate).es_query_cxt);
            let expression = pg_sys::stringToNode(node.as_ptr()).cast();
            let state = pg_sys::ExecPrepareExpr(expression, estate);
            let context = pg_sys::CreateExprContext(estate);
            pg_sys::MemoryContextSwitchTo(caller);
            Self { estate, state, context }
        }
    }

    /// Whether the condition is true for the rows. What it allocates is the current memory context's.
    ///
    /// # Safety
    /// The slots have the descriptor of the table that the condition was compiled for.
    pub unsafe fn holds(&self, old: *mut pg_sys::TupleTableSlot, new: *mut pg_sys::TupleTableSlot) -> bool {
        let mut is_null = false;
        // SAFETY: expression and context were made for each other.
        unsafe {
            (*self.context).ecxt_innertuple = old;
            (*self.context).ecxt_outertuple = new;
            let value = pg_sys::ExecEvalExpr(self.state, self.context, &raw mut is_null);
            !is_null && value.value() & 1 == 1
        }
    }

    pub fn end(self) {
        // SAFETY: made by `begin`, freed once.
        unsafe { pg_sys::FreeExecutorState(self.estate) }
    }
}
