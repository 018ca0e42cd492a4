//! Settings: what our statements depend on, and what a worker's transactions begin with.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString, c_int};

use pgrx::{pg_sys, warning};

use crate::sys::versions;

/// Names are looked up in `pg_catalog` and nowhere else (`pg_temp` would be first if it were not named); texts are read and
/// written in one way.
pub const FIXED: [(&CStr, &CStr); 10] = [
    (c"search_path", c"pg_catalog, pg_temp"),
    (c"DateStyle", c"ISO, MDY"),
    (c"IntervalStyle", c"postgres"),
    (c"bytea_output", c"hex"),
    (c"extra_float_digits", c"1"),
    (c"row_security", c"on"),
    (c"standard_conforming_strings", c"on"),
    (c"transform_null_equals", c"off"),
    (c"quote_all_identifiers", c"off"),
    (c"jit", c"off"),
];

/// What a worker's transactions begin with, beside what is fixed. What a version of PostgreSQL does not know is left out.
const WORKER: [(&CStr, &CStr); 9] = [
    (c"statement_timeout", c"0"),
    (c"lock_timeout", c"0"),
    (c"idle_in_transaction_session_timeout", c"0"),
    (c"default_transaction_isolation", c"read committed"),
    (c"default_transaction_read_only", c"off"),
    (c"default_transaction_deferrable", c"off"),
    (c"transaction_timeout", c"0"),
    (c"exit_on_error", c"off"),
    (c"plan_cache_mode", c"force_generic_plan"),
];

/// What handlers get back: they run with what their session began with.
const GIVEN_BACK: [&CStr; 9] = [
    c"search_path",
    c"DateStyle",
    c"IntervalStyle",
    c"bytea_output",
    c"extra_float_digits",
    c"row_security",
    c"standard_conforming_strings",
    c"quote_all_identifiers",
    c"enable_seqscan",
];

/// What no handler may set: `exit_on_error` makes an ERROR the end of the process, and so does this timeout.
const LOCKED: [&CStr; 2] = [c"exit_on_error", c"transaction_timeout"];

/// Settings and what they are.
type Values = Vec<(&'static CStr, CString)>;

thread_local! {
    /// What the session of a worker began with, of `GIVEN_BACK`.
    static BEGUN: RefCell<Values> = const { RefCell::new(Vec::new()) };
    /// The isolation level that the session of a worker began with.
    static ISOLATION: Cell<c_int> = const { Cell::new(pg_sys::XACT_READ_COMMITTED as c_int) };
    /// What each setting is between the transactions of a worker.
    static BASELINE: RefCell<Values> = const { RefCell::new(Vec::new()) };
}

/// Settings that hold until they are taken back, or until an ERROR ends the transaction or savepoint.
pub struct Settings(c_int);

impl Settings {
    /// Fixes settings.
    pub fn fix(settings: &[(&CStr, &CStr)]) -> Self {
        // SAFETY: the level ends in `take_back`, or with the transaction.
        let level = unsafe { pg_sys::NewGUCNestLevel() };
        fix(settings);
        Self(level)
    }

    /// Makes all settings what they were, those that were set for the session meanwhile included.
    pub fn take_back(self) {
        // SAFETY: the level was begun by `fix` and is the innermost.
        unsafe { pg_sys::AtEOXact_GUC(false, self.0) }
    }
}

/// Those that have the value already cost a look.
pub fn fix(settings: &[(&CStr, &CStr)]) {
    for (name, value) in settings {
        if !is(name, value) {
            set_local(name, value);
        }
    }
}

/// Whether a setting has the value; looked at where it is, since this is asked often.
fn is(name: &CStr, value: &CStr) -> bool {
    // SAFETY: a C string; the value is not kept.
    unsafe {
        let found = pg_sys::GetConfigOption(name.as_ptr(), true, false);
        !found.is_null() && CStr::from_ptr(found) == value
    }
}

/// The value of a setting.
fn current(name: &CStr) -> Option<CString> {
    // SAFETY: a C string; the value is copied at once.
    unsafe {
        let value = pg_sys::GetConfigOption(name.as_ptr(), true, false);
        (!value.is_null()).then(|| CStr::from_ptr(value).to_owned())
    }
}

/// Changes a setting until the current level of settings ends, at the latest with the transaction.
pub fn set_local(name: &CStr, value: &CStr) {
    set(name, value, pg_sys::GucAction::GUC_ACTION_SAVE);
}

fn set(name: &CStr, value: &CStr, action: pg_sys::GucAction::Type) {
    // SAFETY: C strings; in a transaction.
    unsafe {
        pg_sys::set_config_option(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_SESSION,
            action,
            true,
            0,
            false,
        );
    }
}

/// Makes this process a worker: its transactions begin with the same settings, whatever the database's or a role's are. What
/// the session began with is kept for the handlers. `more`: settings of this kind of worker.
pub fn prepare_worker(more: &[(&'static CStr, &'static CStr)]) {
    let begun = GIVEN_BACK.iter().filter_map(|name| Some((*name, current(name)?)));
    BEGUN.set(begun.collect());
    // SAFETY: the value of a setting, read by the main thread.
    ISOLATION.set(unsafe { pg_sys::DefaultXactIsoLevel });
    let settings = FIXED.iter().chain(&WORKER).chain(more);
    settings.clone().for_each(|(name, value)| set_default(name, value));
    lock(&LOCKED);
    BASELINE.set(settings.filter_map(|(name, _)| Some((*name, current(name)?))).collect());
}

/// Sets what the session's transactions begin with, if there is such a setting.
fn set_default(name: &CStr, value: &CStr) {
    if current(name).is_none() {
        return;
    }
    // SAFETY: C strings; outside of a transaction.
    unsafe {
        pg_sys::SetConfigOption(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_OVERRIDE,
        );
    }
}

/// Gives back to a handler what the session began with, until the current level of settings ends.
pub fn give_back() {
    BEGUN.with_borrow(|begun| {
        for (name, value) in begun {
            if !is(name, value) {
                set_local(name, value);
            }
        }
    });
}

/// The isolation level that the session of a worker began with.
pub fn begun_isolation() -> c_int {
    ISOLATION.get()
}

/// Changes a setting for the whole transaction, its commit included.
pub fn set_for_transaction(name: &CStr, value: &CStr) {
    set(name, value, pg_sys::GucAction::GUC_ACTION_LOCAL);
}

/// Takes settings away from everybody, for the life of this process (55P02): with them, an error in a handler would end it.
fn lock(names: &[&CStr]) {
    // SAFETY: the array and its entries belong to PostgreSQL and live as long as the process; no name is null.
    unsafe {
        let (all, count) = versions::all_settings();
        for place in 0..count {
            let setting = *all.add(place);
            if names.contains(&CStr::from_ptr((*setting).name)) {
                (*setting).context = pg_sys::GucContext::PGC_INTERNAL;
            }
        }
    }
}

/// Ends the process if a transaction has left anything behind that the next one would depend on: another process then begins
/// with a clean session.
pub fn check() {
    BASELINE.with_borrow(|baseline| {
        for (name, value) in baseline {
            if !is(name, value) {
                let found = current(name);
                warning!(
                    "sea_mq: the process ends, since a transaction left the setting {} as {:?} instead of {:?}",
                    name.to_string_lossy(),
                    found.unwrap_or_default(),
                    value
                );
                set_default(name, value);
                // SAFETY: to the calling thread; the loop then ends as for anybody's SIGTERM.
                unsafe { libc::raise(libc::SIGTERM) };
            }
        }
    });
}
