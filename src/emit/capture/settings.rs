//! Settings of the session that would show in what is sent, or decide what an expression means.

use std::ffi::CStr;

pub use crate::host::settings::Settings;

/// Dates and times in ISO 8601 and UTC, bytes in hex, numbers in full, and names looked up nowhere but in `pg_catalog`: the
/// same row is the same event whoever writes it. Conditions are written and read by the rules of the standard.
pub const FIXED: [(&CStr, &CStr); 8] = [
    (c"DateStyle", c"ISO, MDY"),
    (c"IntervalStyle", c"iso_8601"),
    (c"TimeZone", c"UTC"),
    (c"bytea_output", c"hex"),
    (c"extra_float_digits", c"1"),
    (c"standard_conforming_strings", c"on"),
    (c"transform_null_equals", c"off"),
    (c"search_path", c"pg_catalog, pg_temp"),
];
