//! Capture: the trigger function that makes events of what statements change in tables.
//!
//! Triggers fire once for a statement and hand over all its rows in transition tables, which are read here without SQL. See
//! `docs/capture.md`.

mod codec;
mod condition;
mod named;
mod plan;
pub mod readable;
mod rows;
mod settings;
mod triggers;
mod truncation;

use std::ffi::{CStr, CString};
use std::rc::Rc;

use pgrx::{PgSqlErrorCode, check_for_interrupts, pg_sys};

use self::condition::Evaluation;
pub use self::plan::register;
use self::plan::{EventName, Plan};
use self::rows::{Counterparts, Store, Transition, Writer};
use self::settings::{FIXED, Settings};
pub use self::truncation::{forget, roll_back_to};
use super::admission::Series;
use crate::host::door;
use crate::sys::datum::{sql_function, text_datum};
use crate::sys::error::{OrRefuse, raise};
use crate::sys::relation::Scratch;
use sea_mq_model::domain::capture::{self, Change, Operation};
use sea_mq_model::domain::event::EmitArgs;

sql_function!(capture_wrapper, pg_finfo_capture_wrapper, |call| {
    let Some(trigger) = call.trigger() else {
        raise(
            PgSqlErrorCode::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED,
            "sea_mq.capture() is a trigger function",
            "Capture a table with sea_mq.capture_table.",
        );
    };
    // SAFETY: the trigger is firing.
    unsafe { fire(trigger) };
    pg_sys::Datum::from(0)
});

sql_function!(capture_changed_wrapper, pg_finfo_capture_changed_wrapper, |call| {
    if let Some(table) = call.oid(0) {
        plan::announce_change(table);
    }
    pg_sys::Datum::from(0)
});

sql_function!(capture_condition_wrapper, pg_finfo_capture_condition_wrapper, |call| {
    let (Some(table), Some(condition)) = (call.oid(0), call.text(1)) else { return call.null() };
    let names = call.jsonb(2).and_then(|names| serde_json::from_str(&names).ok());
    // From the inside, a partition's rows may be meant.
    let captured = call.oid(3).filter(|_| door::is_inside()).unwrap_or(table);
    let owner = plan::owner(captured);
    let path = (!door::is_inside()).then(|| path_of_owner(table, owner));
    text_datum(&door::as_role(owner, || {
        if let Some(path) = &path {
            crate::host::settings::set_local(c"search_path", path);
        }
        // SAFETY: the relation is open until the condition is compiled.
        unsafe {
            let relation = pg_sys::table_open(table, pg_sys::AccessShareLock as _);
            let condition = condition::qualified(relation, &condition, names);
            condition::compile(relation, &condition);
            pg_sys::table_close(relation, pg_sys::AccessShareLock as _);
            condition
        }
    }))
});

/// The search path of a caller, who must own the table.
fn path_of_owner(table: pg_sys::Oid, owner: pg_sys::Oid) -> CString {
    // SAFETY: looks up roles and a setting in a transaction; what is returned is a copy.
    unsafe {
        if !pg_sys::has_privs_of_role(pg_sys::GetUserId(), owner) {
            let name = pg_sys::get_rel_name(table);
            let name = if name.is_null() { c"" } else { CStr::from_ptr(name) }.to_string_lossy();
            raise(
                PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("must be owner of table {name}"),
                "Whoever owns a table decides what leaves it.",
            );
        }
        let path = pg_sys::GetConfigOption(c"search_path".as_ptr(), true, false);
        if path.is_null() { CString::default() } else { CStr::from_ptr(path).to_owned() }
    }
}

/// # Safety
/// The trigger is firing.
unsafe fn fire(trigger: &pg_sys::TriggerData) {
    let event = trigger.tg_event;
    let is_before = event & pg_sys::TRIGGER_EVENT_TIMINGMASK == pg_sys::TRIGGER_EVENT_BEFORE;
    let operation = match event & pg_sys::TRIGGER_EVENT_OPMASK {
        pg_sys::TRIGGER_EVENT_INSERT => Operation::Insert,
        pg_sys::TRIGGER_EVENT_UPDATE => Operation::Update,
        pg_sys::TRIGGER_EVENT_DELETE => Operation::Delete,
        _ => Operation::Truncate,
    };
    let tables = [trigger.tg_oldtable, trigger.tg_newtable];
    let has_tables = match operation {
        Operation::Insert => !tables[1].is_null(),
        Operation::Update => !tables[0].is_null() && !tables[1].is_null(),
        Operation::Delete => !tables[0].is_null(),
        Operation::Truncate => true,
    };
    if !has_tables || (is_before && operation != Operation::Truncate) {
        raise(
            PgSqlErrorCode::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED,
            "sea_mq.capture() needs triggers as sea_mq.capture_table makes them",
            "Drop the trigger, and capture the table with sea_mq.capture_table.",
        );
    }
    // SAFETY: a trigger's relation is open, its transition tables are those of the statement.
    unsafe {
        let is_empty = |table: &Store| table.is_null() || pg_sys::tuplestore_tuple_count(*table) == 0;
        if operation != Operation::Truncate && tables.iter().all(is_empty) {
            return;
        }
        let Some(plan) = plan::of(trigger.tg_relation) else {
            if plan::is_being_detached(trigger.tg_relation) {
                return;
            }
            not_captured(trigger.tg_relation);
        };
        let Some(name) = plan.event(operation) else { return };
        match operation {
            Operation::Truncate => truncated(&plan, name, (*trigger.tg_relation).rd_id, is_before),
            _ => Capture::begin(Rc::clone(&plan), trigger.tg_relation).all(operation, name, tables[0], tables[1]),
        }
    }
}

/// # Safety
/// The relation is open.
unsafe fn not_captured(relation: pg_sys::Relation) -> ! {
    // SAFETY: as the caller's.
    let name = unsafe { CStr::from_ptr((*(*relation).rd_rel).relname.data.as_ptr()) }.to_string_lossy();
    raise(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("table \"{name}\" has triggers of a capture and is not captured"),
        "Capture it with sea_mq.capture_table, or remove the triggers with sea_mq.stop_capture.",
    )
}

/// The events of a type and version about aggregates of the captured table.
fn series(plan: &Plan, name: &EventName) -> Series {
    Series::begin(EmitArgs {
        aggregate_type: Some(plan.aggregate_type.clone()),
        // Each event gets its own.
        aggregate_id: Some(plan.aggregate_type.clone()),
        payload: Some(String::new()),
        event_type: Some(name.name.clone()),
        event_version: Some(name.version),
        context: Some(plan.context.clone()),
        ..EmitArgs::default()
    })
    .or_refuse()
}

fn truncated(plan: &Plan, name: &EventName, table: pg_sys::Oid, is_before: bool) {
    if is_before {
        return truncation::note(plan.root, table);
    }
    if let Some(whole) = truncation::outcome(plan.root, table, &plan.ancestors) {
        send(&mut series(plan, name), capture::truncation(&plan.table, whole));
    }
}

fn send(series: &mut Series, change: Change) {
    series.emit(change.aggregate_id, change.payload).or_refuse();
}

/// The rows of one statement on their way to become events.
struct Capture {
    relation: pg_sys::Relation,
    plan: Rc<Plan>,
    writer: Writer,
    condition: Option<Evaluation>,
    /// Stands for the row that there is not: before an insert, after a delete.
    nothing: *mut pg_sys::TupleTableSlot,
    scratch: Scratch,
}

impl Capture {
    /// # Safety
    /// The relation is open and the plan's.
    unsafe fn begin(plan: Rc<Plan>, relation: pg_sys::Relation) -> Self {
        // SAFETY: what is allocated lives in the trigger's memory context.
        unsafe {
            let nothing = pg_sys::MakeSingleTupleTableSlot((*relation).rd_att, &raw const pg_sys::TTSOpsVirtual);
            pg_sys::ExecStoreAllNullTuple(nothing);
            let writer = Writer::new(&plan, relation);
            Self { relation, plan, writer, condition: None, nothing, scratch: Scratch::new() }
        }
    }

    /// One switch for a statement, and none where nothing of anybody's runs.
    ///
    /// # Safety
    /// The transition tables are the statement's.
    unsafe fn all(self, operation: Operation, name: &EventName, old: Store, new: Store) {
        let series = series(&self.plan, name);
        if self.plan.condition.is_none() && !self.writer.runs_casts() {
            // SAFETY: as the caller's.
            return unsafe { self.tell(operation, series, old, new) };
        }
        // SAFETY: as the caller's. Queries of a condition's functions see what the statement sees.
        unsafe {
            let snapshot = pg_sys::ActiveSnapshotSet().then(|| pg_sys::GetActiveSnapshot());
            door::as_role(plan::owner(self.plan.root.into()), || {
                if let Some(snapshot) = snapshot {
                    pg_sys::PushActiveSnapshot(snapshot);
                }
                self.tell(operation, series, old, new);
                if snapshot.is_some() {
                    pg_sys::PopActiveSnapshot();
                }
            });
        }
    }

    /// # Safety
    /// As `all`.
    unsafe fn tell(mut self, operation: Operation, mut series: Series, old: Store, new: Store) {
        let settings = (self.writer.follows_settings() || self.plan.condition.is_some()).then(|| Settings::fix(&FIXED));
        self.condition = self.plan.condition.as_deref().map(Evaluation::begin);
        // SAFETY: as the caller's.
        unsafe {
            let open = |table| Transition::open(table, self.relation);
            match operation {
                Operation::Update => self.updates(old, new, &mut series),
                Operation::Delete => self.deletes(open(old), &mut series),
                _ => self.inserts(open(new), &mut series),
            }
            pg_sys::ExecDropSingleTupleTableSlot(self.nothing);
        }
        if let Some(condition) = self.condition {
            condition.end();
        }
        if let Some(settings) = settings {
            settings.take_back();
        }
    }

    /// # Safety
    /// The rows are those of the table; so below.
    unsafe fn inserts(&mut self, mut rows: Transition, series: &mut Series) {
        while rows.next() {
            // SAFETY: as the caller's.
            let change = unsafe { self.change(self.nothing, rows.slot(), |writer| writer.row(rows.slot())) };
            change.into_iter().for_each(|change| send(series, change));
        }
        rows.close();
    }

    unsafe fn deletes(&mut self, mut rows: Transition, series: &mut Series) {
        while rows.next() {
            // SAFETY: as the caller's.
            let change = unsafe { self.change(rows.slot(), self.nothing, |writer| writer.row(rows.slot())) };
            change.into_iter().for_each(|change| send(series, change));
        }
        rows.close();
    }

    /// PostgreSQL writes both tables row by row, so rows at the same place belong together. Only a row that moves to another
    /// partition, where a trigger stops it, has no counterpart; see `Counterparts`.
    unsafe fn updates(&mut self, old: Store, new: Store, series: &mut Series) {
        // SAFETY: as the caller's.
        unsafe {
            let counterparts = Counterparts::of(&mut self.writer, old, new, self.relation);
            let counterparts = counterparts.as_ref();
            let (mut before, mut after) = (Transition::open(old, self.relation), Transition::open(new, self.relation));
            if let Some(counterparts) = counterparts {
                self.lost(&mut before, |writer, row| !counterparts.finds_new(writer, row));
                before = before.again();
            }
            while after.next() {
                let (old, new) = (before.slot(), after.slot());
                let has_old = counterparts.is_none_or(|c| c.finds_old(&mut self.writer, new))
                    && self.find_old(&mut before, counterparts);
                if has_old {
                    let change = self.change(old, new, |writer| writer.update(old, new));
                    change.into_iter().for_each(|change| send(series, change));
                } else {
                    let change = self.change(self.nothing, new, |writer| writer.row(new));
                    change.into_iter().for_each(|change| self.send_other(Operation::Insert, change));
                }
            }
            if let Some(counterparts) = counterparts {
                self.lost(&mut before, |writer, row| counterparts.finds_new(writer, row));
            }
            before.close();
            after.close();
        }
    }

    /// Goes on to the next old row that has a counterpart.
    unsafe fn find_old(&mut self, before: &mut Transition, counterparts: Option<&Counterparts>) -> bool {
        while before.next() {
            // SAFETY: as the caller's.
            if counterparts.is_none_or(|c| unsafe { c.finds_new(&mut self.writer, before.slot()) }) {
                return true;
            }
        }
        false
    }

    /// Old rows that have no counterpart.
    unsafe fn lost(
        &mut self,
        rows: &mut Transition,
        mut is_lost: impl FnMut(&mut Writer, *mut pg_sys::TupleTableSlot) -> bool,
    ) {
        while rows.next() {
            if is_lost(&mut self.writer, rows.slot()) {
                // SAFETY: as the caller's.
                let change = unsafe { self.change(rows.slot(), self.nothing, |writer| writer.row(rows.slot())) };
                change.into_iter().for_each(|change| self.send_other(Operation::Delete, change));
            }
        }
    }

    /// Sends an event of another type than the statement's, if that is captured.
    fn send_other(&self, operation: Operation, change: Change) {
        if let Some(name) = self.plan.event(operation) {
            send(&mut series(&self.plan, name), change);
        }
    }

    /// What there is to tell of a row. What that allocates is freed at once.
    unsafe fn change(
        &mut self,
        old: *mut pg_sys::TupleTableSlot,
        new: *mut pg_sys::TupleTableSlot,
        write: impl FnOnce(&mut Writer) -> Option<Change>,
    ) -> Option<Change> {
        check_for_interrupts!();
        let (condition, writer) = (&self.condition, &mut self.writer);
        // SAFETY: the condition was compiled for the table.
        let wanted = || unsafe { condition.as_ref().is_none_or(|condition| condition.holds(old, new)) };
        self.scratch.within(|| if wanted() { write(writer) } else { None })
    }
}
