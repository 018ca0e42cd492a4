//! Settings of the session that would show in what is sent, or decide what an expression means.

use std::ffi::CStr;

use pgrx::pg_sys;

/// Dates and times in ISO 8601 and UTC, bytes in hex, numbers in full, and names looked up nowhere but in `pg_catalog`: the
/// same row is the same event whoever writes it. Conditions are written and read by the rules of the standard.
const FIXED: [(&CStr, &CStr); 8] = [
    (c"DateStyle", c"ISO, MDY"),
    (c"IntervalStyle", c"iso_8601"),
    (c"TimeZone", c"UTC"),
    (c"bytea_output", c"hex"),
    (c"extra_float_digits", c"1"),
    (c"standard_conforming_strings", c"on"),
    (c"transform_null_equals", c"off"),
    (c"search_path", c"pg_catalog, pg_temp"),
];

/// The session's own settings, to be restored. An ERROR restores them as well.
pub struct Settings(i32);

impl Settings {
    /// Fixes the settings until they are restored.
    pub fn fixed() -> Self {
        // SAFETY: the settings exist and take these values; the level ends in `restore`, or with the transaction.
        unsafe {
            let level = pg_sys::NewGUCNestLevel();
            for (name, value) in FIXED {
                let current = pg_sys::GetConfigOption(name.as_ptr(), true, false);
                if current.is_null() || CStr::from_ptr(current) != value {
                    pg_sys::set_config_option(
                        name.as_ptr(),
                        value.as_ptr(),
                        pg_sys::GucContext::PGC_USERSET,
                        pg_sys::GucSource::PGC_S_SESSION,
                        pg_sys::GucAction::GUC_ACTION_SAVE,
                        true,
                        0,
                        false,
                    );
                }
            }
            Self(level)
        }
    }

    pub fn restore(self) {
        // SAFETY: the level was begun by `fixed` and is the innermost.
        unsafe { pg_sys::AtEOXact_GUC(true, self.0) }
    }
}
