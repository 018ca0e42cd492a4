//! The wall clock, as PostgreSQL has it.

use pgrx::pg_sys;

/// Microseconds since 2000-01-01 UTC.
pub fn now() -> i64 {
    // SAFETY: reads the clock.
    unsafe { pg_sys::GetCurrentTimestamp() }
}
